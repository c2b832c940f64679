"""Directed schedules: one worker sleeps at a named point while another goes on. Nothing happens; and where the part of the
protocol that prevents it is switched off, the checker sees what happens then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consolidator import consolidation
from consolidator.clock import system_clock
from consolidator.engine import Engine
from consolidator.errors import BadReply, ConsolidatorError
from consolidator.parts import Parts
from consolidator.planning import intent_id
from consolidator.ports import Proposer
from consolidator.proposals import Batch, Proposal
from consolidator.registry import open_parts
from consolidator.testing import HashEmbedder
from tests.crash.checker import Witness, read_database, violations
from tests.crash.engine_child import Follower, Step, Wrapped, item, perform
from tests.crash.sabotage import Adding, Careless, Deleting, Gate, Heartless, Midway, Unfenced, Unused
from tests.crash.worker_child import settings_of

pytestmark = pytest.mark.crash

BANK = "alice"
Wrap = Callable[[Any], Any]
CONSOLIDATE: Step = {"do": "consolidate"}


def told(number: int, source: str) -> Step:
    return {"do": "retain", "items": [item(number, source)]}


def forgotten(source: str) -> Step:
    return {"do": "forget", "source": source}


def as_it_is(port: Any) -> Any:
    return port


def lacking(*parts: type) -> Wrap:
    """A wrap that switches these off."""

    def wrap(port: Any) -> Any:
        for part in parts:
            port = part(port)
        return port

    return wrap


class Stage:
    """Two workers, each with an engine of its own, over one store and one ledger. Only the second may fall asleep."""

    def __init__(self, folder: Path, url: str, opened: AsyncExitStack) -> None:
        self._url = url
        self._settings = settings_of(folder, url)
        self._opened = opened
        self._witness = Witness()

    async def worker(self, change: Callable[[Parts], Parts] = as_it_is) -> Engine:
        """With all parts, but for what `change` makes of them."""
        parts = await open_parts(self._settings, system_clock, embedder=HashEmbedder(), proposer=Follower())
        self._opened.push_async_callback(parts.close)
        return Engine(change(parts), self._settings)

    async def play(self, worker: Engine, steps: Iterable[Step]) -> None:
        for step in steps:
            assert list(self._witness.hear(await perform(worker.bank(BANK), step))) == []

    async def found(self) -> list[str]:
        """What is wrong after a worker with all parts has done what it could."""
        engine = await self.worker()
        with suppress(ConsolidatorError):  # the bank stands still
            await engine.bank(BANK).consolidate()
        parts = await open_parts(self._settings, system_clock, embedder=HashEmbedder(), proposer=Follower())
        self._opened.push_async_callback(parts.close)
        wrong = await violations(read_database(self._url), parts.storage, BANK, self._witness)
        return wrong + [f"memory {m.id} is pending for ever" for m in await engine.bank(BANK).memories(state="pending")]


@pytest.fixture
async def stage(tmp_path: Path, ledger_url: str) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as opened:
        yield Stage(tmp_path / "memory", ledger_url, opened)


def storing(wrap: Wrap, collection: str) -> Callable[[Parts], Parts]:
    """Parts with one collection wrapped."""

    def change(parts: Parts) -> Parts:
        wrapped = getattr(parts, collection)
        return replace(parts, storage=Wrapped(parts.storage, lambda port: wrap(port) if port is wrapped else port))

    return change


class Sleeper:
    """A worker that falls asleep at the first call of `verb`; its lease runs out meanwhile."""

    def __init__(self, stage: Stage, port: str, verb: str, wrap: Wrap, *, proposer: Proposer | None = None) -> None:
        self._stage, self._port, self._verb, self._wrap, self._proposer = stage, port, verb, wrap, proposer

    def _change(self, parts: Parts) -> Parts:
        parts = replace(parts, proposer=self._proposer or parts.proposer)
        port = parts.ledger if self._port == "ledger" else getattr(parts, self._port)
        gate = self._gate = Gate(self._wrap(port), self._verb)
        if self._port == "ledger":
            return replace(parts, ledger=Heartless(gate))
        return replace(storing(lambda _: gate, self._port)(parts), ledger=Heartless(parts.ledger))

    async def __aenter__(self) -> None:
        engine = await self._stage.worker(self._change)
        self._working = asyncio.create_task(engine.bank(BANK).consolidate())
        await asyncio.wait_for(self._gate.reached.wait(), 20)

    async def __aexit__(self, *_: object) -> None:
        self._gate.resume.set()
        with suppress(ConsolidatorError):
            await asyncio.wait_for(self._working, 20)


async def late_mark(stage: Stage, wrap: Wrap) -> list[str]:
    """Before it marks its memory as done, that memory is re-opened."""
    awake = await stage.worker()
    await stage.play(awake, [told(5, "a"), CONSOLIDATE, told(8, "b")])
    async with Sleeper(stage, "memories", "patch", wrap):
        await stage.play(awake, [CONSOLIDATE, forgotten("a")])
    return await stage.found()


async def test_a_late_mark_does_nothing(stage: Stage) -> None:
    assert await late_mark(stage, as_it_is) == []


async def test_without_revisions_a_late_mark_loses_a_memory(stage: Stage) -> None:
    assert any("consumed by 0 plans" in it for it in await late_mark(stage, Careless))


async def late_plan(stage: Stage, wrap: Wrap) -> list[str]:
    """While it thinks, another consumes the same memory, in another batch."""
    awake = await stage.worker()
    await stage.play(awake, [told(5, "a")])
    async with Sleeper(stage, "ledger", "commit", wrap):
        await stage.play(awake, [told(6, "b"), CONSOLIDATE])
    return await stage.found()


@pytest.mark.parametrize("off", [(), (Unfenced,), (Unused,)])
async def test_a_late_plan_is_refused_by_the_fence_and_by_what_was_used(stage: Stage, off: tuple[type, ...]) -> None:
    assert await late_plan(stage, lacking(*off)) == []


async def test_without_fence_and_use_a_late_plan_cites_twice(stage: Stage) -> None:
    assert any("did not consume" in it for it in await late_plan(stage, lacking(Unused, Unfenced)))


async def same_batch_again(stage: Stage) -> list[str]:
    """A memory is consumed, re-opened by a rollback, and is again a batch of its own."""
    worker = await stage.worker()
    await stage.play(worker, [told(5, "a"), CONSOLIDATE, told(8, "b"), CONSOLIDATE, forgotten("a")])
    return await stage.found()


async def test_the_same_batch_after_a_rollback_is_new_work(stage: Stage) -> None:
    assert await same_batch_again(stage) == []


async def test_without_revisions_in_its_name_the_same_batch_is_refused_and_its_memory_set_aside(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consolidation, "intent_id", lambda bank, revs: intent_id(bank, [(memory, 0) for memory, _ in revs]))
    found = await same_batch_again(stage)
    assert any("is parked" in it for it in found), found


async def late_create(stage: Stage, wrap: Wrap) -> list[str]:
    """Before it stores a new observation, what that was derived from is erased."""
    awake = await stage.worker(storing(wrap, "observations"))
    await stage.play(awake, [told(5, "a")])
    async with Sleeper(stage, "observations", "put", as_it_is):
        await stage.play(awake, [CONSOLIDATE, forgotten("a")])
    return await stage.found()


async def test_a_late_create_meets_a_husk(stage: Stage) -> None:
    assert await late_create(stage, as_it_is) == []


async def test_without_a_husk_a_late_create_brings_back_what_was_erased(stage: Stage) -> None:
    assert any("the store holds erased words" in it for it in await late_create(stage, Deleting))


async def late_update(stage: Stage, wrap: Wrap) -> list[str]:
    """Before it stores an observation's second version, the third is stored."""
    awake = await stage.worker()
    await stage.play(awake, [told(5, "a"), CONSOLIDATE, told(8, "b")])
    async with Sleeper(stage, "observations", "put", wrap):
        await stage.play(awake, [CONSOLIDATE, told(9, "c"), CONSOLIDATE])
    return await stage.found()


async def test_a_late_update_changes_nothing(stage: Stage) -> None:
    assert await late_update(stage, as_it_is) == []


async def test_without_revisions_a_late_update_overwrites_newer_evidence(stage: Stage) -> None:
    assert any("evidence differs" in it for it in await late_update(stage, Careless))


class Rambler(Follower):
    """A model whose replies cannot be used, and quote what it was shown."""

    async def propose(self, batch: Batch) -> Proposal:
        raise BadReply(faults=("no JSON",), reply=batch.memories[0].memory.text)


async def late_failure(stage: Stage) -> list[str]:
    """Before it notes that a memory could not be digested, that memory is erased."""
    awake = await stage.worker()
    await stage.play(awake, [told(5, "a")])
    async with Sleeper(stage, "ledger", "attempt_failed", as_it_is, proposer=Rambler()):
        await stage.play(awake, [forgotten("a")])
    return await stage.found()


async def test_a_late_failure_brings_nothing_back(stage: Stage) -> None:
    assert await late_failure(stage) == []


async def redo(stage: Stage, wrap: Wrap) -> list[str]:
    """Between an update and its end, another does it once more."""
    awake = await stage.worker(storing(wrap, "observations"))
    await stage.play(awake, [told(5, "a"), CONSOLIDATE, told(8, "b")])
    async with Sleeper(stage, "memories", "patch", as_it_is):
        await stage.play(awake, [CONSOLIDATE])
    return await stage.found()


async def test_an_after_image_may_be_applied_twice(stage: Stage) -> None:
    assert await redo(stage, as_it_is) == []


async def test_a_delta_that_is_applied_twice_counts_twice(stage: Stage) -> None:
    assert any("evidence differs" in it for it in await redo(stage, Adding))


async def stop_in_a_commit(stage: Stage, wrap: Wrap, *, unlocked: bool = False) -> list[str]:
    """Its lease has run out, but was good as it looked; before it goes on, another wants the bank."""
    awake = await stage.worker()
    await stage.play(awake, [told(5, "a")])
    inside: list[Midway] = []

    def change(parts: Parts) -> Parts:
        inside.append(Midway(parts.ledger, unlocked=unlocked))
        return replace(parts, ledger=Heartless(wrap(inside[0])))

    asleep = asyncio.create_task((await stage.worker(change)).bank(BANK).consolidate())
    try:
        assert await asyncio.to_thread(inside[0].reached.wait, 20)
        going_on = asyncio.create_task(stage.play(awake, [told(6, "b"), CONSOLIDATE]))
        done, _ = await asyncio.wait([going_on], timeout=20 if unlocked else 0.5)
        assert bool(done) is unlocked
    finally:
        inside[0].resume.set()
    with suppress(ConsolidatorError):
        await asyncio.wait_for(asleep, 20)
    await asyncio.wait_for(going_on, 20)
    return await stage.found()


async def test_whoever_wants_the_bank_waits_for_a_commit(stage: Stage) -> None:
    assert await stop_in_a_commit(stage, as_it_is) == []


@pytest.mark.parametrize("ledger_url", ["postgres"], indirect=True)
async def test_without_a_lock_on_the_bank_what_was_used_refuses_the_commit(stage: Stage) -> None:
    assert await stop_in_a_commit(stage, as_it_is, unlocked=True) == []


@pytest.mark.parametrize("ledger_url", ["postgres"], indirect=True)
async def test_without_lock_and_use_the_commit_cites_twice(stage: Stage) -> None:
    assert any("did not consume" in it for it in await stop_in_a_commit(stage, Unused, unlocked=True))
