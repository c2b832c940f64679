"""Kill the process that writes, at any instant: every acknowledged write is there, whole, and every index agrees with it.

`CONSOLIDATOR_KILLS` sets how many kills there are; folders are kept from kill to kill, so that recovery is recovered from.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consolidator.ports import Equals, Leg, Range, VectorStore
from consolidator.testing.store_cases import SPECS, axis, point
from consolidator_providers.edge import open_edge
from tests.crash.store_child import BANK, START, State, step, stored_state

pytestmark = pytest.mark.crash

KILLS = int(os.environ.get("CONSOLIDATOR_KILLS", "12"))
ROUNDS = 4  # kills of one folder


def killed_child(folder: Path, journal: Path, *arguments: object, said: str = "ready", within: float) -> None:
    """Start the child and kill it `within` seconds of its saying "opening" or "ready"."""
    command = [sys.executable, "-m", "tests.crash.store_child", str(folder), str(journal), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        while child.stdout.readline().strip() != said:
            assert child.poll() is None, "the child failed by itself"
        with suppress(subprocess.TimeoutExpired):
            child.wait(within)
        child.send_signal(signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL, "the child failed by itself"


def acknowledged(journal: Path, otherwise: int) -> int:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return int(lines[-1]) if lines else otherwise


def replayed(seed: int, begin: int, last: int, state: State, *, flushing: bool) -> tuple[State, State]:
    """The state after the last acknowledged operation, and after the one that may have been under way."""
    for operation in range(begin, last + 1):
        state = step(seed, operation, state, flushing=flushing).after
    return state, step(seed, last + 1, state, flushing=flushing).after


async def check_indexes(store: VectorStore, state: State) -> None:
    """Every index counts what the payloads hold."""
    payloads = list(state.values())
    assert await store.count(BANK) == len(payloads)
    for key in ("source", "tags", "state"):
        assert await store.facet(BANK, key) == _counted(payloads, key)
        for value, held in _counted(payloads, key).items():
            assert await store.count(BANK, [Equals(key, value)]) == held
    for sequence in range(5):
        assert await store.count(BANK, [Equals("sequence", sequence)]) == sum(it["sequence"] == sequence for it in payloads)
    middle = START + timedelta(days=5)
    later = sum(datetime.fromisoformat(it["occurred_at"]) >= middle for it in payloads)
    assert await store.count(BANK, [Range("occurred_at", gte=middle)]) == later
    assert await store.count(BANK, [Range("confidence", lt=0.5)]) == sum(it["confidence"] < 0.5 for it in payloads)
    (words,) = await store.search(BANK, [Leg(name="w", lexical="tea", limit=1000)])
    assert {hit.id for hit in words} == set(state)


def _counted(payloads: list[dict[str, Any]], key: str) -> dict[str, int]:
    held: Counter[str] = Counter()
    for payload in payloads:
        value = payload[key]
        held.update(value if isinstance(value, list) else [value])
    return dict(held)


@pytest.mark.parametrize("series", range(-(-KILLS // ROUNDS)))
async def test_a_killed_store_holds_what_was_acknowledged(tmp_path: Path, series: int) -> None:
    dice = random.Random()
    seed = dice.randrange(10**6)
    state: State = {}
    begin = 0
    for kill in range(min(ROUNDS, KILLS - series * ROUNDS)):
        journal = tmp_path / f"journal-{kill}"
        killed_child(tmp_path / "store", journal, seed, begin, "flushing", within=dice.uniform(0.02, 0.8))
        last = acknowledged(journal, begin - 1)
        before, after = replayed(seed, begin, last, state, flushing=True)
        storage = await open_edge(folder=tmp_path / "store", specs=SPECS)
        state = await stored_state(storage.memories)
        assert state in (before, after), f"seed {seed}, killed after operation {last}"
        await check_indexes(storage.memories, state)
        await storage.close()
        begin = last + (1 if state == before else 2)


async def test_what_was_never_flushed_survives_a_kill(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    journal = tmp_path / "journal"
    killed_child(tmp_path / "store", journal, seed, 0, "never", within=1.5)
    last = acknowledged(journal, -1)
    assert last > 50
    storage = await open_edge(folder=tmp_path / "store", specs=SPECS)
    state = await stored_state(storage.memories)
    assert state in replayed(seed, 0, last, {}, flushing=False), f"seed {seed}, killed after operation {last}"
    await check_indexes(storage.memories, state)
    await storage.close()


async def test_a_store_killed_while_it_is_made_is_completed(tmp_path: Path) -> None:
    for _ in range(3):
        killed_child(tmp_path / "store", tmp_path / "journal", 1, 0, "never", said="opening", within=random.uniform(0.0, 0.2))
    storage = await open_edge(folder=tmp_path / "store", specs=SPECS)
    await storage.observations.put(BANK, [point(1, dense=axis(0), source="s", tags=["a"])])
    assert await storage.observations.facet(BANK, "tags") == {"a": 1}
    assert await storage.memories.facet(BANK, "tags") == _counted(list((await stored_state(storage.memories)).values()), "tags")
    await storage.close()
