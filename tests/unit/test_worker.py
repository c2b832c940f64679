"""The worker: what it takes, when it tries again, and how it ends. A drain does what is due and returns."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from consolidator.engine import Engine
from consolidator.errors import (
    BadReply,
    ConsolidatorError,
    ModelBusy,
    ModelDenied,
    ModelRefused,
    ModelUnavailable,
    NotFound,
)
from consolidator.events import Called, ObservationChanged, PassDone
from consolidator.jobs import JobPolicy, Later, backoff, later
from consolidator.models import MemoryState
from consolidator.proposals import Batch, Proposal
from consolidator.testing import ManualClock, ScriptedProposer
from consolidator.testing.proposers import nothing_durable, word_for_word
from tests.conftest import Open
from tests.script import create, plan

BACKGROUND = {"debounce": 0, "max_delay": 0}
BY_HAND = {"background": False}


class Slow:
    """A proposer that answers when it is told to."""

    name = "slow"
    endpoint = ""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = 0

    async def propose(self, batch: Batch) -> Proposal:
        self.asked.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return word_for_word(batch)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("store_kind", ["memory", "edge"])
async def test_e22_a_retain_wakes_the_worker_and_nobody_has_to_ask(open_engine: Open, script: ScriptedProposer) -> None:
    script.answer_with([word_for_word])
    done: asyncio.Queue[PassDone] = asyncio.Queue()
    async with open_engine(worker=BACKGROUND) as engine:
        engine.on_pass(done.put)
        await engine.bank("alice").retain("Alice moved to Berlin.", source="s")
        told = await asyncio.wait_for(done.get(), 10)
        assert (told.bank, told.report.created, told.error) == ("alice", 1, None)
        assert [o.text for o in await engine.bank("alice").observations()] == ["Alice moved to Berlin."]
        assert (await engine.bank("alice").stats()).due_in is None


async def test_a_wake_up_that_was_lost_is_found_by_the_sweep(
    open_engine: Open, script: ScriptedProposer, tmp_path: Path
) -> None:
    done: asyncio.Queue[PassDone] = asyncio.Queue()
    async with open_engine(store={"kind": "edge"}) as engine:
        await engine.bank("alice").retain("Alice moved to Berlin.", source="s")
    with closing(sqlite3.connect(tmp_path / "memory" / "ledger.db")) as ledger, ledger:
        ledger.execute("UPDATE bank SET due_at = NULL, wanted_since = NULL")  # its wake-up is lost
    script.answer_with([word_for_word])
    async with open_engine(store={"kind": "edge"}, worker=BACKGROUND) as engine:
        engine.on_pass(done.put)
        assert (await asyncio.wait_for(done.get(), 10)).report.created == 1


async def test_a_drain_does_not_wait_for_a_debounce(open_engine: Open, script: ScriptedProposer) -> None:
    script.answer_with([word_for_word])
    async with open_engine(worker={"debounce": 3600, "max_delay": 3600}) as engine:
        bank = engine.bank("alice")
        await bank.retain("Alice moved to Berlin.", source="s")
        assert await engine.drain() == []
        assert (await bank.stats()).observations == 1


async def test_a_drain_takes_all_banks_pass_after_pass(engine: Engine, script: ScriptedProposer) -> None:
    script.answer_with([nothing_durable] * 20)
    for name in ("alice", "bob", "carol"):
        await engine.bank(name).retain([f"Note {n} of {name}." for n in range(20)], source="s")
    assert await engine.drain() == []
    assert {(b, (await engine.bank(b).stats()).pending) for b in await engine.banks()} == {("alice", 0), ("bob", 0), ("carol", 0)}
    assert [len(batch.memories) for batch in script.batches if batch.bank == "bob"] == [8, 8, 4]
    turns = [batch.bank for batch in script.batches]
    assert turns[:3] != ["alice"] * 3  # one pass, then the next bank


async def test_debounce_waits_for_more_but_a_full_batch_goes_at_once(open_engine: Open, script: ScriptedProposer) -> None:
    async with open_engine(worker=BY_HAND | {"debounce": 50, "max_delay": 60}) as engine:
        bank = engine.bank("alice")
        await bank.retain("One.", source="s")
        due_in = (await bank.stats()).due_in
        assert due_in is not None
        assert 40 < due_in <= 50
        await bank.retain([f"Note {n}." for n in range(8)], source="s")
        due_in = (await bank.stats()).due_in
        assert due_in is not None
        assert due_in <= 0


async def test_an_import_waits_behind_conversations(engine: Engine, script: ScriptedProposer) -> None:
    script.answer_with([nothing_durable] * 40)
    await engine.bank("archive").retain([f"Page {n} of the archive." for n in range(120)], source="s")
    await engine.bank("zoe").retain([f"Zoe said {n}." for n in range(8)], source="s")
    await engine.drain()
    assert script.batches[0].bank == "zoe"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModelBusy(after=7.0), Later(7.0, attempt=False)),
        (ModelDenied("key"), Later(600.0, attempt=False)),
        (ModelUnavailable("down"), Later(20.0, attempt=True)),
        (ValueError("a defect"), Later(20.0, attempt=True)),
    ],
)
def test_what_an_error_means_for_the_queue(error: Exception, expected: Later) -> None:
    assert later(error, attempts=2, policy=JobPolicy(), lot=1.0) == expected


def test_backoff_doubles_up_to_half_an_hour_and_is_never_at_once() -> None:
    policy = JobPolicy()
    assert [backoff(n, policy, 1.0) for n in (0, 1, 2, 8, 9, 500)] == [5, 10, 20, 1280, 1800, 1800]
    assert backoff(9, policy, 0.0) == 1


async def test_a_model_that_is_down_is_tried_later_and_says_so(engine: Engine, script: ScriptedProposer) -> None:
    bank = engine.bank("alice")
    await bank.retain("Alice moved to Berlin.", source="s")
    script.answer_with([ModelUnavailable("the model is down")])
    (left,) = await engine.drain()  # it returns, though the memory is pending
    assert (left.bank, left.attempts, left.last_error) == ("alice", 1, "the model is down")
    assert left.due_in is not None
    assert left.due_in > 0
    stats = await bank.stats()
    assert (stats.pending, stats.last_error, stats.attempts) == (1, "the model is down", 1)
    assert await bank.parked() == []  # a memory is not to blame for it
    script.answer_with([word_for_word])
    assert (await bank.consolidate()).created == 1  # whoever waits is not held up
    stats = await bank.stats()
    assert (stats.due_in, stats.last_error, stats.attempts) == (None, None, 0)


async def test_a_defect_in_a_proposer_does_not_end_the_worker(engine: Engine, script: ScriptedProposer) -> None:
    def defect(batch: Batch) -> Proposal:
        raise ZeroDivisionError

    script.answer_with([defect if n == 0 else word_for_word for n in range(2)])
    for name in ("alice", "bob"):
        await engine.bank(name).retain(f"{name} is here.", source="s")
    (left,) = await engine.drain()
    assert left.last_error == "ZeroDivisionError; see the log"
    assert sum([(await engine.bank(name).stats()).observations for name in ("alice", "bob")]) == 1


async def test_a_denied_key_counts_no_attempt(engine: Engine, script: ScriptedProposer) -> None:
    script.answer_with([ModelDenied("the key is refused")])
    await engine.bank("alice").retain("Alice moved to Berlin.", source="s")
    (left,) = await engine.drain()
    assert (left.attempts, left.last_error) == (0, "the key is refused")


async def test_a_memory_that_fails_alone_is_parked_and_the_others_go_on(open_engine: Open, script: ScriptedProposer) -> None:
    poison = BadReply("not understood", reply="{...")

    def answer(batch: Batch) -> Proposal:
        if any("poison" in shown.memory.text for shown in batch.memories):
            raise poison
        return word_for_word(batch)

    script.answer_with([answer] * 60)
    async with open_engine(worker=BY_HAND | {"backoff": 0.0001, "longest": 0.0001}) as engine:
        bank = engine.bank("alice")
        await bank.retain([f"Note {n}." for n in range(5)] + ["poison"] + [f"Note {n}." for n in range(6, 10)], source="s")
        for _ in range(50):
            if not await engine.drain():
                break
        stats = await bank.stats()
        assert (stats.observations, stats.pending, stats.parked) == (9, 0, 1)
        (row,) = await bank.parked()
        assert (row.state, row.attempts, row.reply) == ("parked", 5, "{...")

        script.answer_with([word_for_word])
        (again,) = await bank.replay()
        assert again.state is MemoryState.PENDING
        await engine.drain()
        assert (await bank.stats()).observations == 10
        assert await bank.parked() == []


async def test_a_refused_memory_is_held_until_a_person_drops_it(engine: Engine, script: ScriptedProposer) -> None:
    bank = engine.bank("alice")
    (memory,) = (await bank.retain("Something a filter dislikes.", source="s")).memories
    script.answer_with([ModelRefused("refused")])
    report = await bank.consolidate()
    assert (report.held, report.left) == (1, 0)
    (row,) = await bank.parked()
    assert (row.state, row.reason) == ("held", "refused")
    with pytest.raises(NotFound):
        await bank.drop(["5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11"], reason="no such")
    await bank.drop([memory.id], reason="of no use")
    assert await bank.parked() == []
    assert (await bank.memory(memory.id)).state is MemoryState.DONE
    (entry,) = await bank.journal()
    assert (entry.action, entry.reason, entry.by, entry.cites) == ("dropped", "of no use", "person", (memory.id,))
    with pytest.raises(NotFound):
        await bank.drop([memory.id], reason="twice")


async def test_a_paused_bank_takes_memories_and_consolidates_none(engine: Engine, script: ScriptedProposer) -> None:
    bank = engine.bank("alice")
    await bank.pause("the journal is being read")
    await bank.retain("Alice moved to Berlin.", source="s")
    (left,) = await engine.drain()
    assert left.paused == "the journal is being read"
    assert (await bank.consolidate()).paused == "the journal is being read"
    assert len(await bank.recall("Berlin")) == 1
    await bank.resume()
    script.answer_with([word_for_word])
    assert await engine.drain() == []
    assert (await bank.stats()).observations == 1


async def test_closing_cancels_a_call_that_takes_too_long_and_loses_nothing(open_engine: Open) -> None:
    slow = Slow()
    async with open_engine(proposer=slow, store={"kind": "edge"}, worker=BACKGROUND | {"shutdown": 0}) as engine:
        await engine.bank("alice").retain("Alice moved to Berlin.", source="s")
        await asyncio.wait_for(slow.asked.wait(), 10)
        held = (await engine.bank("alice").stats()).holder
        assert held is not None
    assert slow.cancelled == 1
    async with open_engine(store={"kind": "edge"}) as engine:
        stats = await engine.bank("alice").stats()
        assert (stats.pending, stats.holder) == (1, None)
        assert await engine.bank("alice").parked() == []  # it was nobody's fault


async def test_stop_lets_a_pass_under_way_end(open_engine: Open) -> None:
    slow = Slow()
    async with open_engine(proposer=slow, worker=BACKGROUND) as engine:
        bank = engine.bank("alice")
        await bank.retain("Alice moved to Berlin.", source="s")
        await asyncio.wait_for(slow.asked.wait(), 10)
        stopping = asyncio.create_task(engine.stop(10))
        slow.go.set()
        await stopping
        await bank.retain("Alice has a dog.", source="s")  # nobody takes it any more
        stats = await bank.stats()
        assert (stats.observations, stats.pending) == (1, 1)


async def test_consolidate_and_the_worker_share_a_bank_in_turn(open_engine: Open) -> None:
    slow = Slow()
    async with open_engine(proposer=slow, worker=BACKGROUND) as engine:
        bank = engine.bank("alice")
        await bank.retain("Alice moved to Berlin.", source="s")
        await asyncio.wait_for(slow.asked.wait(), 10)
        by_hand = asyncio.create_task(bank.consolidate())
        slow.go.set()
        assert (await by_hand).created == 0  # the worker had it already
        assert (await bank.stats()).observations == 1


async def test_listeners_hear_of_calls_and_changes_and_their_failure_harms_nobody(
    engine: Engine, script: ScriptedProposer, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Called | ObservationChanged] = []

    def broken(event: Called) -> None:
        raise RuntimeError("a listener's own defect")

    engine.on_call(broken)
    engine.on_call(heard.append)
    engine.on_observation(heard.append)
    bank = engine.bank("alice")
    script.answer_with([lambda batch: plan(create("Alice lives in Berlin."))])
    await bank.retain("Alice moved to Berlin.", source="s")
    await bank.consolidate()
    with suppress(ConsolidatorError):
        await bank.recall("")
    told = [(e.verb, e.error) if isinstance(e, Called) else (e.done.action, e.done.after) for e in heard]
    assert told == [
        ("retain", None), ("created", "Alice lives in Berlin."), ("consolidate", None), ("recall", "InvalidInput"),
    ]
    assert "listener_failed" in caplog.text


async def test_g37_a_bank_that_has_spent_its_tokens_rests_until_midnight(
    open_engine: Open, script: ScriptedProposer, clock: ManualClock
) -> None:
    def dear(batch: Batch) -> Proposal:
        return word_for_word(batch).model_copy(update={"calls": 1, "prompt_tokens": 700, "reply_tokens": 400})

    async with open_engine(model={"budget_tokens_day": 1_000}) as engine:
        bank = engine.bank("alice")
        await bank.retain([f"Note {n}." for n in range(16)], source="s")
        script.answer_with([dear, dear])
        (left,) = await engine.drain()
        assert left.last_error is not None
        assert left.last_error.startswith("1,100 of 1,000 tokens are spent today")
        assert left.due_in == pytest.approx(12 * 3600, abs=60)  # the clock stands at noon
        stats = await bank.stats()
        assert (stats.pending, stats.model_calls, stats.prompt_tokens) == (8, 1, 700)
        clock.move(timedelta(hours=12))
        assert (await bank.consolidate()).created == 8


async def test_g37_failed_calls_are_counted_too(engine: Engine, script: ScriptedProposer) -> None:
    refused = BadReply("not understood")
    refused.calls, refused.prompt_tokens, refused.reply_tokens = 2, 900, 50
    script.answer_with([refused])
    bank = engine.bank("alice")
    await bank.retain("Alice moved to Berlin.", source="s")
    report = await bank.consolidate()
    stats = await bank.stats()
    assert (report.calls, stats.model_calls, stats.prompt_tokens, stats.reply_tokens) == (2, 2, 900, 50)
