"""Transcripts that are kept are scored in the background: after consolidation, a little at a time, and in nobody's way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from consolidator import importance
from consolidator.engine import Bank, Engine
from consolidator.errors import ScoringError, ScoringRejected, ScoringUnavailable, ScoringUnsupported
from consolidator.importance import AT_ONCE, LATER, TRIES
from consolidator.lexical import LEXICAL_UNIT
from consolidator.meters import ScoringPolicy
from consolidator.models import Memory
from consolidator.proposals import Batch, Proposal
from consolidator.testing import ManualClock, ScriptedProposer, ScriptedScorer
from consolidator.testing.proposers import nothing_durable
from consolidator.transcripts import Importance, Scored, Target
from tests.script import Teller, update
from tests.talks import WORTH, answers, facts, opened, showing, talk, told_of, turn, words

UNIT = "scripted/words"
SOON = 20.0  # seconds after which a test has hung


@pytest.fixture
def scorer() -> ScriptedScorer:
    return ScriptedScorer()


@pytest.fixture
async def engine(tmp_path: Path, clock: ManualClock, scorer: ScriptedScorer, script: ScriptedProposer) -> AsyncIterator[Engine]:
    async with opened(tmp_path / "memory", clock, scorer, proposer=script, store={"kind": "edge"}) as engine:
        yield engine


@pytest.fixture
def bank(engine: Engine) -> Bank:
    return engine.bank("alice")


async def waiting(bank: Bank) -> int:
    return (await bank._parts.ledger.scoring(bank.id))["transcripts"]


async def states(bank: Bank, *memories: Memory, unit: str = UNIT) -> list[Importance]:
    found = await bank._parts.ledger.importances(bank.id, unit, [m.id for m in memories])
    return [found[m.id] for m in memories if m.id in found]


async def drained(engine: Engine) -> None:
    await asyncio.wait_for(engine.drain(), SOON)


async def test_what_was_kept_is_scored_by_a_model(engine: Engine, bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 3)
    assert await bank.keep_transcript(told_of(memories, 1))
    assert await waiting(bank) == 1
    await drained(engine)
    assert ([state.mean for state in await states(bank, *memories)], scorer.prompts) == ([0.0, 2.0, 0.0], 4)
    assert await waiting(bank) == 0
    assert await bank._parts.ledger.transcripts(bank.id) == []  # its text is gone
    await drained(engine)
    assert scorer.prompts == 4
    assert (await bank.stats()).due_in is None


async def test_without_a_model_words_tell(tmp_path: Path, clock: ManualClock) -> None:
    async with opened(tmp_path / "words", clock, None) as engine:
        bank = engine.bank("alice")
        memories = await facts(bank, 12)
        for id, gold in (("t1", 1), ("t2", 5)):
            await bank.keep_transcript(told_of(memories, gold, id=id))
        await drained(engine)
        found = await states(bank, *memories, unit=LEXICAL_UNIT)
        assert [state.updates for state in found] == [2] * 12
        assert sorted(range(12), key=lambda n: -found[n].mean)[:2] in ([1, 5], [5, 1])
        assert await waiting(bank) == 0


async def test_a_worker_scores_what_is_kept_unasked(tmp_path: Path, clock: ManualClock, scorer: ScriptedScorer) -> None:
    told = asyncio.Event()
    background = {"debounce": 0, "max_delay": 0}
    async with opened(tmp_path / "worker", clock, scorer, worker=background) as engine:
        bank = engine.bank("alice")
        memories = await facts(bank, 2)
        engine.on_pass(lambda _: told.set() if scorer.prompts == 3 else None)
        await bank.keep_transcript(told_of(memories, 1))
        await asyncio.wait_for(told.wait(), SOON)
        assert len(await states(bank, *memories)) == 2


async def test_consolidation_comes_first(
    engine: Engine, bank: Bank, scorer: ScriptedScorer, script: ScriptedProposer
) -> None:
    memories = await facts(bank, 20)
    await bank.keep_transcript(told_of(memories, 1))
    sent: list[int] = []

    def noting(batch: Batch) -> Proposal:
        sent.append(scorer.prompts)
        return nothing_durable(batch)

    script.answer_with([noting] * 9)
    await drained(engine)
    assert sent == [0, 0, 0]  # three batches
    assert len(await states(bank, *memories)) == 20


async def test_what_comes_meanwhile_waits_for_a_part_of_it_only(
    engine: Engine, bank: Bank, scorer: ScriptedScorer, script: ScriptedProposer
) -> None:
    memories = await facts(bank, 20)
    await bank.consolidate()
    await bank.keep_transcript(told_of(memories, 1))
    scorer.go.clear()
    draining = asyncio.create_task(engine.drain())
    await asyncio.wait_for(scorer.reading.wait(), SOON)
    await bank.retain("Something new.", source="new")
    sent: list[int] = []

    def noting(batch: Batch) -> Proposal:
        sent.append(scorer.prompts)
        return nothing_durable(batch)

    script.answer_with([noting])
    scorer.go.set()
    await asyncio.wait_for(draining, SOON)
    assert sent == [1 + AT_ONCE]
    assert len(await states(bank, *memories)) == 20


async def test_who_waits_for_the_bank_does_not_wait_for_a_model_that_measures(
    engine: Engine, bank: Bank, scorer: ScriptedScorer, script: ScriptedProposer
) -> None:
    memories = await facts(bank, 3)
    await bank.consolidate()
    await bank.keep_transcript(told_of(memories, 1))
    scorer.go.clear()
    draining = asyncio.create_task(engine.drain())
    await asyncio.wait_for(scorer.reading.wait(), SOON)
    await bank.retain("Something new.", source="new")
    script.answer_with([nothing_durable])
    report = await asyncio.wait_for(bank.consolidate(), SOON / 2)
    assert report.nothing_durable == 1
    scorer.go.set()
    await asyncio.wait_for(draining, SOON)
    await drained(engine)
    assert len(await states(bank, *memories)) == 3  # it was put off, not lost


async def test_a_death_over_a_measurement_blames_no_memory(bank: Bank) -> None:
    memories = await facts(bank, 6)
    await bank.consolidate()
    ledger, owner = bank._parts.ledger, bank._parts.owner
    lease = await ledger.claim(bank.id, owner, 60.0)
    assert lease is not None
    await ledger.reading(lease, [m.id for m in memories])  # and here it died, holding the lease
    await bank.retain([{"text": f"Something new, {n}.", "source": "new"} for n in range(3)])
    report = await bank.consolidate()
    assert (report.passes, report.parked) == (1, 0)
    assert await bank.parked() == []


async def test_a_pass_that_is_waited_for_is_not_followed_by_a_measurement(
    engine: Engine, bank: Bank, scorer: ScriptedScorer, script: ScriptedProposer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked while the pass ran comes before the model that would be asked next."""
    memories = await facts(bank, 3)
    await bank.keep_transcript(told_of(memories, 1))
    began, go = asyncio.Event(), asyncio.Event()

    async def slow(batch: Batch) -> Proposal:
        began.set()
        await go.wait()
        return nothing_durable(batch)

    monkeypatch.setattr(script, "propose", slow)
    scorer.go.clear()
    draining = asyncio.create_task(engine.drain())
    await asyncio.wait_for(began.wait(), SOON)
    asked = asyncio.create_task(bank.consolidate())
    await asyncio.sleep(0)
    go.set()
    await asyncio.wait_for(asked, SOON / 2)
    scorer.go.set()
    await asyncio.wait_for(draining, SOON)
    await drained(engine)
    assert len(await states(bank, *memories)) == 3


async def test_a_model_that_hangs_is_left_for_later(
    engine: Engine, bank: Bank, scorer: ScriptedScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importance, "LONGEST", 0.05)
    memories = await facts(bank, 3)
    await bank.keep_transcript(told_of(memories, 1))
    scorer.go.clear()
    await drained(engine)
    assert (await waiting(bank), (await bank.stats()).attempts) == (1, 0)
    scorer.go.set()
    await drained(engine)
    assert (await waiting(bank), len(await states(bank, *memories))) == (0, 3)


@pytest.mark.parametrize("defect", [RuntimeError("CUDA error"), asyncio.CancelledError()])
async def test_a_defect_of_the_scorer_is_none_of_the_banks(
    engine: Engine, bank: Bank, scorer: ScriptedScorer, script: ScriptedProposer, monkeypatch: pytest.MonkeyPatch,
    defect: BaseException,
) -> None:
    async def broken(targets: Sequence[Target]) -> list[Scored | ScoringError]:
        calls.append(len(targets))
        raise defect

    calls: list[int] = []
    monkeypatch.setattr(scorer, "score", broken)
    memories = await facts(bank, 3)
    await bank.keep_transcript(told_of(memories, 1))
    await drained(engine)
    stats = await bank.stats()
    assert (stats.attempts, stats.pending, stats.unscored, calls) == (0, 0, 1, [2])


async def test_two_conversations_within_the_hour_are_both_measured(
    engine: Engine, bank: Bank, scorer: ScriptedScorer, clock: ManualClock
) -> None:
    memories = await facts(bank, 3)
    for n in (0, 1):
        await bank.keep_transcript(told_of(memories, n, id=f"t{n}"))
        await drained(engine)
        clock.move(timedelta(minutes=10))
    assert [state.updates for state in await states(bank, *memories)] == [2, 2, 2]


async def test_a_score_of_what_was_erased_meanwhile_is_not_kept(
    bank: Bank, scorer: ScriptedScorer, script: ScriptedProposer
) -> None:
    """The statement is one that goes back to an older text: what was measured is not of that."""
    teller = Teller(bank, script)
    old = await teller.believe(words(1), source="open")
    await teller.tell("More.", "secret", old, update("", f"{words(1)} {words(2)}", change="refine"))
    (now,) = await bank.observations()
    told = talk(turn("system", (f"{now.text}\n", now.id)), *answers(words(2)))
    scorer.go.clear()
    scoring = asyncio.create_task(bank.score(told))
    await asyncio.wait_for(scorer.reading.wait(), SOON)
    await bank.forget(source="secret")
    scorer.go.set()
    assert (await scoring).cells[0][0].value == WORTH
    assert [o.text for o in await bank.observations()] == [words(1)]
    assert (await bank.importance(now.id)).states == ()


async def test_a_death_over_what_is_no_memory_leaves_the_bank_as_it_was(bank: Bank) -> None:
    ledger, owner = bank._parts.ledger, bank._parts.owner
    lease = await ledger.claim(bank.id, owner, 60.0)
    assert lease is not None
    await ledger.reading(lease, ["note-17"])
    await facts(bank, 1)
    assert (await bank.forget(source="s")).state == "settled"


# what fails


async def test_a_model_that_is_away_delays_nothing_and_loses_nothing(
    engine: Engine, bank: Bank, scorer: ScriptedScorer, script: ScriptedProposer
) -> None:
    memories = await facts(bank, 3)
    await bank.keep_transcript(told_of(memories, 1))
    scorer.refusal = ScoringUnavailable("down")
    for _ in range(TRIES + 3):  # however long
        await drained(engine)
    stats = await bank.stats()
    assert (stats.pending, stats.attempts, stats.last_error, stats.paused) == (0, 0, None, None)
    assert stats.due_in is not None
    assert 0 < stats.due_in <= LATER
    assert (await waiting(bank), await states(bank, *memories), len(script.batches)) == (1, [], 1)
    await bank.retain("Something new.", source="new")
    await drained(engine)
    assert (await bank.stats()).pending == 0
    scorer.refusal = None
    await drained(engine)
    assert (await waiting(bank), len(await states(bank, *memories))) == (0, 3)


async def test_a_model_that_goes_away_in_the_middle_goes_on_later(engine: Engine, bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 5)
    await bank.keep_transcript(told_of(memories, 1))
    scorer.fault = lambda _: ScoringUnavailable("reset") if scorer.prompts > 3 else None
    await drained(engine)
    assert (await waiting(bank), len(await states(bank, *memories)), scorer.checks) == (1, 2, 1)
    assert (await bank.stats()).attempts == 0
    scorer.fault = lambda _: None
    await drained(engine)
    assert (await waiting(bank), len(await states(bank, *memories)), scorer.checks) == (0, 5, 2)


def on(*gone: Memory, error: ScoringError) -> Any:
    """A fault of what lacks one of these."""
    return lambda target: error if any(m.text not in target.context[0].text for m in gone) else None


@pytest.mark.parametrize("error", [ScoringUnavailable("always"), ScoringError("odd"), ScoringRejected("no")])
async def test_what_can_never_be_measured_keeps_nothing_else_waiting(
    engine: Engine, bank: Bank, scorer: ScriptedScorer, error: ScoringError
) -> None:
    memories = await facts(bank, 3)
    await bank.keep_transcript(told_of(memories, 1, id="t1"))
    await bank.keep_transcript(told_of(memories[:2], 0, id="t2"))
    scorer.fault = on(memories[2], error=error)
    for _ in range(2 * TRIES + 1):  # the second one lacks it, too
        await drained(engine)
    assert await waiting(bank) == 0
    assert len(await states(bank, *memories)) >= 2
    assert not await states(bank, memories[2]) or not isinstance(error, ScoringRejected)


async def test_a_prefix_that_no_model_reads_keeps_nothing_else_waiting(
    engine: Engine, bank: Bank, scorer: ScriptedScorer
) -> None:
    memories = await facts(bank, 2)
    long = talk(turn("system", "word " * 3_000), showing(memories), *answers(words(0)), id="long")
    await bank.keep_transcript(long)
    await bank.keep_transcript(told_of(memories, 1, id="short"))
    await drained(engine)
    assert (await waiting(bank), len(await states(bank, *memories))) == (0, 2)


@pytest.mark.parametrize("answer", ["Yes.", "", "<think>hm</think>"])
async def test_many_groups_that_no_answer_could_lean_on_end(
    engine: Engine, bank: Bank, scorer: ScriptedScorer, answer: str
) -> None:
    memories = await facts(bank, 3 * AT_ONCE)
    await bank.keep_transcript(talk(showing(memories), *answers(answer)))
    await drained(engine)
    assert (await waiting(bank), await states(bank, *memories)) == (0, [])
    assert scorer.prompts <= 3 * AT_ONCE + 3  # of a short one it is only known afterwards


async def test_many_groups_that_fail_end(engine: Engine, bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 3 * AT_ONCE)
    await bank.keep_transcript(told_of(memories, 3 * AT_ONCE - 1))
    scorer.fault = on(*memories[:-1], error=ScoringRejected("no"))
    await drained(engine)
    assert (await waiting(bank), len(await states(bank, *memories))) == (0, 1)


async def test_a_budget_is_of_a_turn_and_none_is_left_out(engine: Engine, bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 5)
    bank._services.importance._policy = ScoringPolicy(prompts=3)
    await bank.keep_transcript(told_of(memories, 1))
    await drained(engine)
    assert (await waiting(bank), len(await states(bank, *memories))) == (0, 5)


async def test_a_budget_that_is_too_small_for_anything_ends_too(engine: Engine, bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 3)
    bank._services.importance._policy = ScoringPolicy(tokens=1)
    await bank.keep_transcript(told_of(memories, 1))
    await drained(engine)
    assert (await waiting(bank), scorer.prompts) == (0, 0)


async def test_a_model_that_fails_its_check_leaves_it_to_words(engine: Engine, bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 3)
    scorer.refusal = ScoringUnsupported("no logprobs")
    await bank.keep_transcript(told_of(memories, 1))
    await drained(engine)
    assert (await waiting(bank), scorer.prompts) == (0, 0)
    assert len(await states(bank, *memories, unit=LEXICAL_UNIT)) == 3


async def test_a_model_that_loses_its_proof_leaves_the_rest_to_words(engine: Engine, bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 5)
    await bank.keep_transcript(told_of(memories, 1))

    def fault(_: Target) -> None:
        if scorer.prompts > 3:
            scorer.refusal = ScoringUnsupported("another model is served now")

    scorer.fault = fault
    await drained(engine)
    await drained(engine)
    assert await waiting(bank) == 0
    assert 0 < len(await states(bank, *memories)) < 5
    assert len(await states(bank, *memories, unit=LEXICAL_UNIT)) == 5  # a unit of its own, from the beginning


# paused, erased, closed


async def test_a_paused_bank_scores_nothing_until_it_goes_on(engine: Engine, bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 2)
    await bank.pause("holidays")
    await bank.keep_transcript(told_of(memories, 1))
    await drained(engine)
    assert (await waiting(bank), scorer.prompts) == (1, 0)
    await bank.resume()
    await drained(engine)
    assert (await waiting(bank), len(await states(bank, *memories))) == (0, 2)


async def test_a_forget_does_not_wait_for_a_model_that_reads(engine: Engine, bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 2)
    (gone,) = (await bank.retain(words(9), source="secret")).memories
    await bank.consolidate()
    await bank.keep_transcript(told_of([*memories, gone], 1, id="t1"))
    await bank.keep_transcript(told_of(memories, 1, id="t2"))
    scorer.go.clear()
    draining = asyncio.create_task(engine.drain())
    await asyncio.wait_for(scorer.reading.wait(), SOON)
    begun = time.perf_counter()
    receipt = await bank.forget(source="secret")
    assert (receipt.state, time.perf_counter() - begun < 1.5) == ("settled", True)
    assert not scorer.go.is_set()
    scorer.go.set()
    await asyncio.wait_for(draining, SOON)
    scores = await bank._parts.ledger.scores(bank.id)
    assert {score.response for score in scores} == {"t2/2"}
    assert (await bank.importance(gone.id)).states == ()
    assert await waiting(bank) == 0
    assert (await bank.verify(receipt)).ok
    assert await bank.check() == []


async def test_what_was_being_read_when_the_engine_closed_is_scored_by_the_next(tmp_path: Path, clock: ManualClock) -> None:
    folder, scorer = tmp_path / "twice", ScriptedScorer()
    at_once: dict[str, Any] = {"store": {"kind": "edge"}, "worker": {"background": False, "shutdown": 0}}
    async with opened(folder, clock, scorer, **at_once) as engine:
        bank = engine.bank("alice")
        memories = await facts(bank, 3)
        await bank.keep_transcript(told_of(memories, 1))
        held = asyncio.Event()

        def hold(_: Target) -> None:
            if scorer.prompts == 3:  # the answers of the second group; the third is asked for, and gets none
                scorer.go.clear()
                scorer.reading = held

        scorer.fault = hold
        draining = asyncio.create_task(engine.drain())
        await asyncio.wait_for(held.wait(), SOON)
    await asyncio.wait_for(draining, SOON)
    again = ScriptedScorer()
    async with opened(folder, clock, again, **at_once) as engine:
        bank = engine.bank("alice")
        assert len(await states(bank, *memories)) == 2
        await drained(engine)
        assert (len(await states(bank, *memories)), again.prompts, await waiting(bank)) == (3, 2, 0)
        assert [state.updates for state in await states(bank, *memories)] == [1, 1, 1]
        assert (await bank.stats()).attempts == 0
        assert await bank.check() == []


async def test_a_conversation_that_goes_on_is_scored_as_it_grows(
    engine: Engine, bank: Bank, scorer: ScriptedScorer
) -> None:
    memories = await facts(bank, 2)
    recorder = bank.transcript("chat")
    await recorder.recall("alpha0 alpha1")
    for gold in (1, 1):
        recorder.said("so?")
        recorder.answered(words(gold))
    await recorder.keep()
    await drained(engine)
    assert [state.updates for state in await states(bank, *memories)] == [2, 2]
    sent = scorer.prompts
    recorder.said("and?")
    recorder.answered(words(0))
    await recorder.keep(closed=True)
    await drained(engine)
    assert ([state.updates for state in await states(bank, *memories)], scorer.prompts - sent) == ([3, 3], 3)
    assert await bank._parts.ledger.transcripts(bank.id) == []


async def test_a_transcript_that_is_kept_holds_no_secret(bank: Bank) -> None:
    told = "My key is sk-proj-aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5zA7bC9dE1fG3."
    (memory,) = (await bank.retain(told, source="s")).memories
    assert "aB3dE5" not in memory.text
    assert await bank.keep_transcript(talk(turn("user", told), turn("assistant", "I will not say it."), id="kept"))
    (kept,) = await bank._parts.ledger.transcripts(bank.id)
    assert kept.turns[0].text == memory.text
    receipt = await bank.forget(source="s")
    assert await bank._parts.ledger.transcripts(bank.id) == []  # it said what is erased
    assert (await bank.verify(receipt)).ok


async def test_everything_is_forgotten_where_there_are_transcripts_alone(bank: Bank) -> None:
    await bank.keep_transcript(talk(turn("user", "I was at the clinic on Friday."), turn("assistant", "I hope you are well.")))
    assert (await bank.forget(everything=True, dry_run=True)).state == "planned"
    assert await waiting(bank) == 1
    assert (await bank.forget(everything=True)).state == "nothing"
    assert await waiting(bank) == 0
