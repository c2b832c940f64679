"""What a failing model server does to the memory, from the wire to what a user sees: nothing is lost, and it says why."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from consolidator.config import Settings
from consolidator.engine import Engine, connect
from consolidator.models import Stats
from consolidator.testing import HashEmbedder, ManualClock
from tests.fault_server import SECRET, FaultServer, serving

IN_A_HURRY = {"deadline": 1.5, "read_timeout": 0.4, "tries": 2}
TEXT = "Alice told me that she lives in Berlin now."


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def counted_anew(server: FaultServer) -> None:
    server.requests.clear()


@asynccontextmanager
async def engine_on(server: FaultServer, mode: str, folder: Path) -> AsyncIterator[Engine]:
    settings = Settings.model_validate({
        "folder": folder / "memory", "store": {"kind": "memory"}, "worker": {"background": False, "at_once": 1},
        "model": {"name": f"openai:{mode}", "base_url": server.url, "api_key": "k", **IN_A_HURRY},
        "consolidation": {"proposer": "model", "floor": -1},
    })
    async with connect(settings=settings, clock=ManualClock(), embedder=HashEmbedder()) as engine:
        yield engine


async def drained(engine: Engine) -> Stats:
    bank = engine.bank("alice")
    await bank.retain(TEXT, source="chat")
    await engine.drain()
    stats = await bank.stats()
    assert (stats.memories, stats.pending + stats.parked + stats.held + stats.observations) == (1, 1)  # nothing is lost
    assert stats.last_error is None or SECRET not in stats.last_error
    return stats


@pytest.mark.parametrize("mode", ["decides", "decides-after-repair"])
async def test_a_model_that_answers(server: FaultServer, tmp_path: Path, mode: str) -> None:
    async with engine_on(server, mode, tmp_path) as engine:
        stats = await drained(engine)
        assert (stats.observations, stats.pending, stats.last_error) == (1, 0, None)
        assert stats.model_calls == server.requests[mode]


UNAVAILABLE = [
    "500", "503", "408", "409", "reset", "half-body", "hang", "drip", "html", "html-as-json", "broken-json", "list", "error-200",
    "no-choices", "null-message", "null-content", "deep-json",
]


@pytest.mark.parametrize("mode", UNAVAILABLE)
async def test_no_answer_leaves_it_pending_for_later_and_blames_no_memory(
    server: FaultServer, tmp_path: Path, mode: str
) -> None:
    async with engine_on(server, mode, tmp_path) as engine:
        stats = await drained(engine)
        assert (stats.pending, stats.attempts) == (1, 1)
        assert stats.due_in is not None
        assert stats.due_in > 0
        assert stats.last_error is not None
        assert f"openai:{mode}" in stats.last_error
        assert await engine.bank("alice").parked() == []
        assert server.requests[mode] <= 2  # one owner of retries


@pytest.mark.parametrize("mode", ["429-long", "429-beyond-deadline", "429-short-always"])
async def test_a_rate_limit_counts_no_failure_and_waits_as_told(server: FaultServer, tmp_path: Path, mode: str) -> None:
    async with engine_on(server, mode, tmp_path) as engine:
        stats = await drained(engine)
        assert (stats.pending, stats.attempts) == (1, 0)
        state = (await engine.describe())["consolidation"]["state"]
        assert stats.due_in is not None
        if mode == "429-long":
            assert stats.due_in == pytest.approx(600, abs=5)
            assert state.endswith("its rate limit is reached")


@pytest.mark.parametrize("mode", ["401", "403", "404", "quota", "payment", "redirect"])
async def test_what_only_a_person_can_mend_rests_and_counts_no_failure(
    server: FaultServer, tmp_path: Path, mode: str
) -> None:
    async with engine_on(server, mode, tmp_path) as engine:
        stats = await drained(engine)
        assert (stats.pending, stats.attempts) == (1, 0)
        assert stats.due_in == pytest.approx(600, abs=5)
        assert (await engine.describe())["consolidation"]["state"].startswith("rests for ")
        assert server.requests[mode] == 1


@pytest.mark.parametrize("mode", ["refusal", "content-filter", "filter"])
async def test_a_refused_memory_is_held_for_a_person(server: FaultServer, tmp_path: Path, mode: str) -> None:
    async with engine_on(server, mode, tmp_path) as engine:
        stats = await drained(engine)
        assert (stats.held, stats.pending, stats.due_in) == (1, 0, None)
        (row,) = await engine.bank("alice").parked()
        assert row.state == "held"


MISUNDERSTOOD = [
    "unknown-memory", "unknown-observation", "nan-confidence", "boolean-confidence", "no-evidence", "too-long", "unaccounted",
    "prose", "cut", "good", "length", "context", "413", "json-failed", "empty",
]


@pytest.mark.parametrize("mode", MISUNDERSTOOD)
async def test_what_cannot_be_digested_is_tried_five_times_and_then_parked(
    server: FaultServer, tmp_path: Path, mode: str
) -> None:
    async with engine_on(server, mode, tmp_path) as engine:
        bank = engine.bank("alice")
        stats = await drained(engine)
        assert (stats.pending, stats.attempts) == (1, 1)
        (row,) = await bank.parked()
        assert (row.state, row.attempts) == ("trying", 1)
        for _ in range(4):
            await bank.consolidate()  # a person does not wait for the next time
        (row,) = await bank.parked()
        assert (row.state, row.attempts) == ("parked", 5)
        stats = await bank.stats()
        assert (stats.parked, stats.pending, stats.observations) == (1, 0, 0)
        assert server.requests[mode] <= 10  # a repair turn at most
        assert await engine.drain() == []
