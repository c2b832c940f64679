"""Measuring importance with a model whose numbers are known: what is sent, what is kept, what happens when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from consolidator.engine import Bank, Engine
from consolidator.errors import (
    ConsolidatorError,
    ContextTooLong,
    InvalidInput,
    LedgerError,
    NotFound,
    ScoringError,
    ScoringMisaligned,
    ScoringRejected,
    ScoringUnavailable,
    ScoringUnsupported,
)
from consolidator.importance import RESTS, ImportanceService
from consolidator.lexical import LEXICAL_UNIT
from consolidator.meters import ScoringPolicy
from consolidator.models import Memory, Receipt
from consolidator.ports import LogprobModel
from consolidator.testing import ManualClock, ScriptedProposer, ScriptedScorer
from consolidator.testing.logprob_contract import LogprobModelContract
from consolidator.transcripts import Group, Importance, Matrix, Target
from tests.conftest import NOW
from tests.script import Teller
from tests.talks import WORTH, answers, facts, opened, showing, talk, told_of, turn, words

UNIT = "scripted/words"


@pytest.fixture
def scorer() -> ScriptedScorer:
    return ScriptedScorer()


@pytest.fixture
async def engine(tmp_path: Path, clock: ManualClock, scorer: ScriptedScorer, script: ScriptedProposer) -> AsyncIterator[Engine]:
    async with opened(tmp_path / "memory", clock, scorer, proposer=script) as engine:
        yield engine


def service(bank: Bank) -> ImportanceService:
    return bank._services.importance


def told_to(bank: Bank, **policy: Any) -> None:
    """Measure by another policy."""
    service(bank)._policy = ScoringPolicy(**policy)


async def state(bank: Bank, item: str, unit: str = UNIT) -> Importance | None:
    return next((s for s in (await bank.importance(item)).states if s.unit == unit), None)


def values(matrix: Matrix) -> list[list[float | None]]:
    return [[None if cell.value is None else round(cell.value, 6) for cell in row] for row in matrix.cells]


def without(*gone: Memory, error: ScoringError) -> Any:
    """A fault of every prompt that lacks one of these."""

    def fault(target: Target) -> ScoringError | None:
        shown = target.context[0].text if target.context else ""
        return error if any(memory.text not in shown for memory in gone) else None

    return fault


class TestScriptedScorer(LogprobModelContract):
    @pytest.fixture
    def logprob_model(self, scorer: ScriptedScorer) -> LogprobModel:
        return scorer


# what is sent


@pytest.mark.parametrize(("items", "responses"), [(1, 1), (3, 1), (10, 1), (4, 3)])
async def test_a_matrix_costs_a_prompt_for_each_group_and_one_more_for_each_response(
    bank: Bank, scorer: ScriptedScorer, items: int, responses: int
) -> None:
    memories = await facts(bank, items)
    golds = [n % items for n in range(responses)]
    matrix = await bank.score(told_of(memories, *golds), mode="matrix")
    assert scorer.prompts == matrix.prompts_sent == (items + 1) * responses
    assert len(set(scorer.asked)) == scorer.prompts
    assert max(scorer.calls) <= 16
    assert values(matrix) == [[WORTH if n == gold else 0.0 for gold in golds] for n in range(items)]
    assert matrix.responses == tuple(f"t/{place}" for place in range(2, 2 * responses + 1, 2))
    assert matrix.tokens_sent > 0


async def test_one_item_costs_two_prompts(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 5)
    matrix = await bank.score(told_of(memories, 3), item=memories[3].id)
    assert (scorer.prompts, matrix.prompts_sent, values(matrix)) == (2, 2, [[WORTH]])
    assert [group.items for group in matrix.groups] == [(memories[3].id,)]
    with pytest.raises(NotFound, match="shows no item"):
        await bank.score(told_of(memories[:2], 0), item=memories[4].id)


async def test_some_items_cost_theirs_alone(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 5)
    matrix = await bank.score(told_of(memories, 3), items=[memories[3].id, memories[0].id])
    assert (scorer.prompts, values(matrix)) == (3, [[0.0], [WORTH]])


@pytest.mark.parametrize("gold", [0, 17, 29])
async def test_two_levels_cost_at_most_17_prompts_where_a_matrix_costs_31(
    bank: Bank, scorer: ScriptedScorer, gold: int
) -> None:
    memories = await facts(bank, 30)
    matrix = await bank.score(told_of(memories, gold))
    assert scorer.prompts == matrix.prompts_sent <= 17
    assert len(set(scorer.asked)) == scorer.prompts  # the baseline too is sent once
    assert values(matrix) == [[WORTH if n == gold else 0.0] for n in range(30)]
    how = [row[0].how for row in matrix.cells]
    assert how[gold] == "exact"
    assert how.count("exact") in (7, 8)
    assert {row[0].share for row in matrix.cells if row[0].how == "bucket"} <= {1 / 3, 1 / 4}
    assert (await bank.score(told_of(memories, gold, id="again"), mode="matrix")).prompts_sent == 31


async def test_many_groups_have_to_be_asked_for(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 6)
    told_to(bank, exact=2, most=5)
    with pytest.raises(InvalidInput, match="6 groups are many"):
        await bank.score(told_of(memories, 1))
    assert scorer.prompts == 0
    assert (await bank.score(told_of(memories, 1), mode="two-level")).prompts_sent <= 7
    assert (await bank.score(told_of(memories, 1), mode="matrix")).prompts_sent == 7


async def test_an_incremental_run_sends_the_baseline_once(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 6)
    report = await bank.score_due(told_of(memories, 2))
    assert (report.unit, report.due, len(report.scored)) == (UNIT, 6, 6)
    assert scorer.prompts == report.prompts_sent == 1 + 6
    assert {group.id: round(value, 6) for group, value in report.scored if value > 0.01} == {memories[2].id: WORTH}


async def test_only_what_is_due_is_sent(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 6)
    await bank.score(told_of(memories[:4], 2), items=[m.id for m in memories[:4]])
    scorer.asked.clear()
    report = await bank.score_due(told_of(memories, 2, id="another"))
    assert (scorer.prompts, report.due, len(report.scored)) == (1 + 2, 2, 2)
    assert [reason for _, reason in report.skipped] == ["not_due"] * 4


async def test_candidates_cost_two_prompts_a_response(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 3)
    told = talk(showing(memories), *answers("this is plain small talk", words(1), "yes"))
    report = await bank.candidates(told)
    assert scorer.prompts == 2 * 3
    found = [(c.response, None if c.value is None else round(c.value, 6)) for c in report.candidates]
    assert found == [("t/4", WORTH), ("t/2", 0.0), ("t/6", None)]
    assert (report.seen, report.above, report.candidates[2].reason) == (3, 1, "too_short")
    assert (await bank.candidates(told, count=1)).seen == 1
    assert await state(bank, memories[1].id) is None  # nothing is kept


async def test_nothing_to_score_sends_nothing(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 2)
    nobody = talk(turn("user", ("Of another bank.", "00000000-0000-0000-0000-000000000000")), *answers("I see what you mean"))
    for told in (talk(), talk(showing(memories)), talk(*answers("Good morning to you")), nobody):
        assert (await bank.score(told)).prompts_sent == 0
        assert (await bank.score_due(told)).prompts_sent == 0
        assert not (await bank.candidates(told)).candidates
    assert (scorer.prompts, scorer.counted) == (0, 0)


async def test_equal_prompts_are_sent_once(bank: Bank, scorer: ScriptedScorer) -> None:
    """b09: a response that nothing was shown to has no prompts, and what was not shown to one changes nothing of it."""
    memories = await facts(bank, 2)
    told = talk(turn("user", "hello"), turn("assistant", "Good morning to you"), showing(memories[:1], "user"),
                turn("assistant", words(0)), showing(memories[1:], "user"), turn("assistant", words(1)))
    matrix = await bank.score(told, mode="matrix")
    assert [[cell.reason for cell in row] for row in matrix.cells] == [
        ["not_in_context", "", ""], ["not_in_context", "not_in_context", ""],
    ]
    assert scorer.prompts == 2 + 3


async def test_a_rehearsal_sends_nothing_and_counts_what_a_run_sends(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 5)
    some = {"items": [memories[1].id]}
    ways: list[dict[str, Any]] = [{"mode": "matrix"}, {"item": memories[3].id}, some, {"mode": "two-level"}]
    for asked in ways:
        told = told_of(memories, 3, 1, id=str(asked))
        planned = await bank.score(told, dry_run=True, **asked)
        assert (scorer.prompts, {cell.reason for row in planned.cells for cell in row}) == (0, {"dry_run"})
        assert not await bank._parts.ledger.scores(bank.id, keys=[f"{UNIT}\n{told.response_id(2)}\n{memories[3].id}"])
        done = await bank.score(told, **asked)
        assert scorer.prompts == done.prompts_sent > 0
        if asked.get("mode") == "two-level":  # which buckets will be opened is not known: it counts the largest
            assert planned.prompts_sent >= done.prompts_sent
        else:
            assert (planned.prompts_sent, planned.tokens_sent) == (done.prompts_sent, done.tokens_sent)
        scorer.asked.clear()


async def test_a_rehearsal_says_what_would_not_be_measured(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 3)
    told_to(bank, prompts=3)
    planned = await bank.score(told_of(memories, 1), dry_run=True)
    assert [row[0].reason for row in planned.cells] == ["dry_run", "dry_run", "over_budget"]
    assert (scorer.prompts, planned.prompts_sent) == (0, 3)


@pytest.mark.parametrize("limit", [{"prompts": 3}, {"tokens": 60}])
async def test_beyond_the_budget_nothing_is_sent_and_it_is_told(
    bank: Bank, scorer: ScriptedScorer, limit: dict[str, int]
) -> None:
    memories = await facts(bank, 6)
    told_to(bank, **limit)
    matrix = await bank.score(told_of(memories, 1))
    assert scorer.prompts == matrix.prompts_sent <= 3
    assert matrix.tokens_sent <= limit.get("tokens", 1_000)
    assert [row[0].reason for row in matrix.cells][-1] == "over_budget"
    assert values(matrix)[1] in ([WORTH], [None])
    report = await bank.score_due(told_of(memories, 2, id="other"))
    assert {reason for _, reason in report.skipped} >= {"over_budget"}
    assert scorer.prompts == matrix.prompts_sent + report.prompts_sent


# groups


async def test_an_observation_and_its_evidence_leave_together_and_both_get_the_value(
    bank: Bank, script: ScriptedProposer, scorer: ScriptedScorer
) -> None:
    belief = await Teller(bank, script).believe(words(7))
    evidence = belief.evidence[0].memory_id
    (other,) = await facts(bank, 1)
    shown = turn("system", (f"{belief.text}\n", belief.id), (f"{words(7)}\n", evidence), (f"{other.text}\n", other.id))
    matrix = await bank.score(talk(shown, *answers(words(7))))
    assert [set(group.items) for group in matrix.groups] == [{belief.id, evidence}, {other.id}]
    assert (scorer.prompts, values(matrix)) == (3, [[WORTH], [0.0]])
    mine, of_evidence = await state(bank, belief.id), await state(bank, evidence)
    assert mine is not None
    assert of_evidence is not None
    assert (mine.mean, mine.updates) == (of_evidence.mean, of_evidence.updates) == (2.0, 1)  # clipped
    (score,) = (await bank.importance(evidence)).scores
    assert set(score.items) == {belief.id, evidence}


async def test_a04_shown_twice_apart_it_is_measured_once_and_leaves_twice(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 2)
    told = talk(showing(memories), turn("user", "so?"), showing(memories[:1], "user"), turn("assistant", words(0)))
    matrix = await bank.score(told)
    assert (scorer.prompts, values(matrix)) == (3, [[WORTH], [0.0]])
    found = await state(bank, memories[0].id)
    assert found is not None
    assert found.updates == 1


async def test_a12_a_profile_in_the_system_turn_leaves_too(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 2)
    profile = turn("system", "You are kind.", (f"Profile: {words(0)}", memories[0].id))
    told = talk(profile, showing(memories, "user"), *answers(words(0)))
    assert values(await bank.score(told)) == [[WORTH], [0.0]]
    assert scorer.asked[1].context[0] == turn("system", "You are kind.")


async def test_what_is_not_in_this_bank_is_plain_text(bank: Bank, engine: Engine, scorer: ScriptedScorer) -> None:
    (mine,) = await facts(bank, 1)
    (other,) = (await engine.bank("bob").retain(words(5), source="s")).memories
    matrix = await bank.score(talk(showing([mine, other]), *answers(words(5))))
    assert [group.items for group in matrix.groups] == [(mine.id,)]
    assert all(words(5) in target.context[0].text for target in scorer.asked)


# which responses


async def test_a08_values_belong_to_responses_by_their_names(bank: Bank, scorer: ScriptedScorer) -> None:
    """A response that was not measured shifts no other."""
    memories = await facts(bank, 2)
    told = talk(showing(memories), *answers("", words(1), "<think>hm</think>", words(0)))
    matrix = await bank.score(told)
    assert matrix.responses == ("t/2", "t/4", "t/6", "t/8")
    assert values(matrix) == [[None, 0.0, None, WORTH], [None, WORTH, None, 0.0]]
    assert [score.response for score in (await bank.importance(memories[1].id)).scores] == ["t/8", "t/4"]
    assert [group for group, _ in matrix.important_for("t/8")] == [matrix.groups[0]]


async def test_a19_what_was_answered_before_is_not_applicable_and_costs_nothing(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 1)
    told = talk(*answers(words(0)), showing(memories), *answers(words(0)))
    (row,) = (await bank.score(told)).cells
    assert [(cell.status, cell.reason) for cell in row] == [("not_applicable", "not_in_context"), ("scored", "")]
    assert scorer.prompts == 2
    assert len((await bank.importance(memories[0].id)).scores) == 1


async def test_a11_earlier_turns_stay_as_context(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 1)
    told = talk(turn("user", "first words"), turn("assistant", "Good morning"), showing(memories, "user"), *answers(words(0)))
    await bank.score(told, item=memories[0].id)
    for target in scorer.asked:
        assert target.context[0] == turn("user", "first words")
        assert "Good morning" in target.context[1].text


async def test_b08_b09_in_a_short_context_showings_are_carried_and_borders_stay(
    tmp_path: Path, clock: ManualClock
) -> None:
    scorer = ScriptedScorer(max_context_tokens=60)
    async with opened(tmp_path / "short", clock, scorer) as engine:
        bank = engine.bank("alice")
        memories = await facts(bank, 2)
        small_talk = [each for n in range(12) for each in answers(f"word{n} and again word{n}")]
        told = talk(turn("system", "kind"), showing(memories[:1], "user"), *small_talk, *answers(words(0)))
        row = (await bank.score(told, mode="matrix")).cells[0]
        assert row[-1].value == pytest.approx(WORTH)  # it was said long ago, and is carried
        lengths = {len(target.context) for target in scorer.asked if target.response == words(0)}
        assert lengths == {max(lengths), max(lengths) - 1}  # but for the showing, with and without are the same turns


async def test_a14_late_answers_that_need_it_no_more_do_not_count_against_it(bank: Bank) -> None:
    memories = await facts(bank, 1)
    told_to(bank, head=2)
    told = talk(showing(memories), *answers(words(0), words(0), words(0), words(0)))
    matrix = await bank.score(told)
    assert values(matrix) == [[WORTH, 0.0, 0.0, 0.0]]
    found = await state(bank, memories[0].id)
    assert found is not None
    assert found.updates == 2
    assert found.mean == pytest.approx(1.0)
    assert [score.counts for score in (await bank.importance(memories[0].id)).scores] == [False, False, True, True]


# what fails


async def test_a01_an_unknown_cell_moves_nothing(bank: Bank, scorer: ScriptedScorer, clock: ManualClock) -> None:
    memories = await facts(bank, 3)
    await bank.score(told_of(memories, 1))
    before = await state(bank, memories[1].id)
    clock.move(timedelta(days=1))
    scorer.fault = without(memories[1], error=ScoringUnavailable("time-out"))
    matrix = await bank.score(told_of(memories, 1, 0, id="later"))
    assert [cell.reason for cell in matrix.cells[1]] == ["unavailable: time-out"] * 2
    assert (matrix.incomplete, matrix.weight(1), values(matrix)[0]) == (True, None, [0.0, WORTH])
    assert await state(bank, memories[1].id) == before
    assert before is not None
    assert before.last_scored == clock() - timedelta(days=1)
    moved = await state(bank, memories[0].id)
    assert moved is not None
    assert (moved.updates, moved.last_scored) == (3, clock())


async def test_without_a_baseline_a_response_is_unknown_and_costs_no_more(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 4)
    whole = talk(*told_of(memories, 1).turns).turns[0].text
    scorer.fault = lambda target: ScoringRejected("no") if target.context[0].text == whole else None
    report = await bank.score_due(told_of(memories, 1))
    assert [reason for _, reason in report.failed] == ["rejected: no"] * 4
    assert scorer.prompts == 2  # the first group's pair; then it is known that nothing comes of the others
    assert await bank._parts.ledger.scores(bank.id) == []


async def test_b11_a_failing_group_does_not_end_the_run(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 4)
    scorer.fault = without(memories[1], error=ContextTooLong("too long"))
    report = await bank.score_due(told_of(memories, 2))
    assert [group.id for group, _ in report.scored] == [memories[n].id for n in (0, 2, 3)]
    assert report.failed == ((Group(items=(memories[1].id,)), "context_too_long: too long"),)
    assert await state(bank, memories[1].id) is None


async def test_a_baseline_that_failed_for_a_moment_is_asked_for_again(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 3)
    scorer.fault = lambda _: ScoringUnavailable("a moment") if scorer.prompts <= 2 else None
    report = await bank.score_due(told_of(memories, 2))
    assert [group.id for group, _ in report.scored] == [memories[1].id, memories[2].id]
    assert [reason for _, reason in report.failed] == ["unavailable: a moment"]


async def test_a_call_that_fails_whole_fails_its_own_part(
    bank: Bank, scorer: ScriptedScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    memories = await facts(bank, 20)
    answered = scorer.score

    async def only_small(targets: Any) -> Any:
        if len(targets) == 16:
            raise ScoringUnavailable("reset")
        return await answered(targets)

    monkeypatch.setattr(scorer, "score", only_small)
    matrix = await bank.score(told_of(memories, 1), mode="matrix")
    assert {cell.reason for row in matrix.cells for cell in row} == {"unavailable: reset"}  # the baseline was in that part


async def test_a_model_that_tells_too_few_numbers_is_misaligned(
    bank: Bank, scorer: ScriptedScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    memories = await facts(bank, 2)
    answered = scorer.score

    async def one_less(targets: Any) -> Any:
        return (await answered(targets))[1:]

    monkeypatch.setattr(scorer, "score", one_less)
    matrix = await bank.score(told_of(memories, 1))
    assert {cell.reason.partition(":")[0] for row in matrix.cells for cell in row} == {"misaligned"}
    assert await bank._parts.ledger.scores(bank.id) == []


async def test_a_prefix_beyond_the_budget_is_refused_before_anything_is_sent(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 2)
    told_to(bank, chunk_tokens=16)
    with pytest.raises(ScoringRejected, match="a context may have 16"):
        await bank.score(talk(showing(memories), turn("system", "a b c d e f g h"), *answers(words(0))))
    assert scorer.prompts == 0


# each kept before the next


async def test_a09_each_score_is_kept_before_the_next_call(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 3)
    seen: list[tuple[str, int, int]] = []

    async def on_score(group: Group, value: float) -> None:
        found = await state(bank, group.id)
        assert found is not None
        seen.append((group.id, scorer.prompts, len(await bank._parts.ledger.scores(bank.id))))

    await bank.score_due(told_of(memories, 2), on_score=on_score)
    assert seen == [(memories[n].id, 2 + n, 1 + n) for n in range(3)]


async def test_a09_after_a_crash_only_the_rest_is_measured(bank: Bank, scorer: ScriptedScorer) -> None:
    memories, told = await facts(bank, 4), None
    told = told_of(memories, 2)

    async def crash(group: Group, _: float) -> None:
        if group.id == memories[1].id:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await bank.score_due(told, on_score=crash)
    kept = [await state(bank, m.id) for m in memories]
    assert [found is not None for found in kept] == [True, True, False, False]
    scorer.asked.clear()
    report = await bank.score_due(told)
    assert ([group.id for group, _ in report.scored], scorer.prompts) == ([memories[2].id, memories[3].id], 3)
    assert [await state(bank, m.id) for m in memories[:2]] == kept[:2]


async def test_a09_the_next_process_measures_only_the_rest(tmp_path: Path, clock: ManualClock) -> None:
    sent = []
    for _ in range(2):
        scorer = ScriptedScorer()
        async with opened(tmp_path / "again", clock, scorer, store={"kind": "edge"}) as engine:
            bank = engine.bank("alice")
            memories = await facts(bank, 3)
            await bank.score_due(told_of(memories, 1), most=2)
            sent.append(scorer.prompts)
            found = await state(bank, memories[0].id)
            assert found is not None
            assert found.updates == 1
    assert sent == [3, 2]


async def test_a_replay_moves_nothing(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 3)
    told = told_of(memories, 1, 0)
    first = await bank.score(told)
    before = [await bank.importance(m.id) for m in memories]
    assert values(await bank.score(told)) == values(first)
    assert values(await bank.score(told, item=memories[1].id)) == values(first)[1:2]
    assert await bank.score_due(told)
    assert [await bank.importance(m.id) for m in memories] == before


async def test_what_was_measured_before_is_not_sent_again(bank: Bank, scorer: ScriptedScorer, clock: ManualClock) -> None:
    """A conversation that goes on costs what was added to it."""
    memories = await facts(bank, 2)
    assert len((await bank.score_due(told_of(memories, 1, 1, closed=False))).scored) == 2
    scorer.asked.clear()
    clock.move(timedelta(hours=2))
    report = await bank.score_due(told_of(memories, 1, 1, 0, closed=False))
    assert (len(report.scored), {target.response for target in scorer.asked}) == (2, {words(0)})
    assert scorer.prompts == 3


async def test_what_was_begun_is_ended_when_the_conversation_is_over(bank: Bank, scorer: ScriptedScorer) -> None:
    """Else what was said in its last hour would never be measured."""
    memories = await facts(bank, 2)
    await bank.score_due(told_of(memories, 1, 1, closed=False))
    longer = told_of(memories, 1, 1, 0, closed=False)
    assert [reason for _, reason in (await bank.score_due(longer)).skipped] == ["not_due", "not_due"]
    report = await bank.score_due(told_of(memories, 1, 1, 0, closed=True))
    assert (len(report.scored), report.skipped) == (2, ())


async def test_words_wait_for_nothing(tmp_path: Path, clock: ManualClock) -> None:
    """They cost nothing, so every response counts: an item shown twice within the hour is measured twice."""
    async with opened(tmp_path / "words", clock, None) as engine:
        bank = engine.bank("alice")
        memories = await facts(bank, 2)
        for id in ("t1", "t2"):
            told = talk(*answers("Good morning"), showing(memories, "user"), turn("assistant", words(1)), id=id, closed=False)
            report = await bank.score_due(told)
            assert (len(report.scored), report.prompts_sent) == (2, 0)
        assert [reason for _, reason in (await bank.score_due(told)).skipped] == ["not_due", "not_due"]
        found = await state(bank, memories[1].id, LEXICAL_UNIT)
        assert found is not None
        assert found.updates == 2


async def test_the_longest_unscored_comes_first(bank: Bank, clock: ManualClock) -> None:
    memories = await facts(bank, 3)
    for n in (2, 0):
        await bank.score(told_of(memories, n, id=f"t{n}"), item=memories[n].id)
        clock.move(timedelta(hours=2))
    report = await bank.score_due(told_of(memories, 1, id="new"))
    assert [group.id for group, _ in report.scored] == [memories[n].id for n in (1, 2, 0)]
    assert len((await bank.score_due(told_of(memories, 1, id="newest"), most=1)).scored) == 0  # none is due by now


async def test_a17_every_group_is_told_of_with_its_reason(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 5)
    await bank.score(told_of(memories[:1], 0, id="before"))
    scorer.fault = without(memories[1], error=ScoringRejected("no"))
    told_to(bank, window=1)
    told = talk(
        showing(memories[:2]), *answers(words(0)), showing(memories[2:3], "user"), turn("assistant", "Yes."),
        showing(memories[3:4], "user"), turn("assistant", words(3)), showing(memories[4:5], "user"), closed=False,
    )
    report = await bank.score_due(told)
    reasons = {group.id: reason.partition(":")[0] for group, reason in (*report.skipped, *report.failed)}
    assert reasons == {
        memories[0].id: "not_due", memories[1].id: "rejected", memories[2].id: "no_response", memories[4].id: "no_response",
    }
    assert [group.id for group, _ in report.scored] == [memories[3].id]
    assert report.due == 3


async def test_a10_a_store_that_cannot_be_read_ends_the_run_before_any_call(
    bank: Bank, scorer: ScriptedScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    memories = await facts(bank, 2)
    for verb in ("importances", "scores", "tombstones"):
        with monkeypatch.context() as patch:

            async def unreadable(*_: Any, **__: Any) -> Any:
                raise LedgerError("the disk is gone")

            patch.setattr(bank._parts.ledger, verb, unreadable)
            with pytest.raises(LedgerError):
                await bank.score_due(told_of(memories, 1))
            assert (scorer.prompts, scorer.counted) == (0, 0)


# a model that does not pass


@pytest.mark.parametrize("error", [ScoringUnsupported("no logprobs"), ScoringMisaligned("off by one")])
async def test_a_model_that_fails_its_check_gives_way_to_words_visibly(
    bank: Bank, scorer: ScriptedScorer, error: ScoringError, caplog: pytest.LogCaptureFixture
) -> None:
    memories = await facts(bank, 3)
    scorer.refusal = error
    with caplog.at_level(logging.WARNING, "consolidator"):
        matrix = await bank.score(told_of(memories, 1))
    assert (matrix.unit, matrix.prompts_sent, scorer.prompts) == (LEXICAL_UNIT, 0, 0)
    assert matrix.important_for("t/2")[0][0].id == memories[1].id
    assert service(bank).refused == f"{type(error).__name__}: {error}"
    assert [vars(record)["action"] for record in caplog.records] == ["scoring_refused"]
    assert await state(bank, memories[1].id) is None
    assert await state(bank, memories[1].id, LEXICAL_UNIT) is not None
    await bank.score(told_of(memories, 0, id="t2"))
    assert scorer.checks == 1  # it is left alone for a while


async def test_it_is_asked_again_after_a_rest_and_its_unit_stays_its_own(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 3)
    seconds = [0.0]
    service(bank)._clock = lambda: seconds[0]
    scorer.refusal = ScoringUnsupported()
    await bank.score(told_of(memories, 1))
    by_words = await state(bank, memories[1].id, LEXICAL_UNIT)
    scorer.refusal, seconds[0] = None, RESTS
    assert (await bank.score(told_of(memories, 1))).unit == UNIT
    assert service(bank).refused is None
    assert await state(bank, memories[1].id, LEXICAL_UNIT) == by_words
    found = await state(bank, memories[1].id)
    assert found is not None
    assert (found.updates, found.mean) == (1, 2.0)


async def test_a_model_that_cannot_be_reached_is_an_error_by_hand(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 1)
    scorer.refusal = ScoringUnavailable("down")
    with pytest.raises(ScoringUnavailable):
        await bank.score(told_of(memories, 0))
    scorer.refusal = None
    assert (await bank.score(told_of(memories, 0))).unit == UNIT
    assert scorer.checks == 2


async def test_a_model_that_loses_its_proof_proves_itself_again(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 2)
    await bank.score(told_of(memories, 0))
    scorer.refusal = ScoringUnsupported("another model is served now")
    matrix = await bank.score(told_of(memories, 1, id="t2"))
    assert {cell.reason.partition(":")[0] for row in matrix.cells for cell in row} == {"unsupported"}
    assert (await bank.score(told_of(memories, 1, id="t2"))).unit == LEXICAL_UNIT
    assert service(bank).refused
    scorer.refusal, service(bank)._refused_until = None, 0.0
    assert values(await bank.score(told_of(memories, 1, id="t2"))) == [[0.0], [WORTH]]
    assert scorer.checks == 3


async def test_after_an_outage_it_proves_itself_again(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 2)
    scorer.fault = lambda _: ScoringUnavailable("connection reset")
    await bank.score(told_of(memories, 0))
    scorer.fault = lambda _: None
    assert values(await bank.score(told_of(memories, 0))) == [[WORTH], [0.0]]
    assert scorer.checks == 2


# erasure


async def test_what_is_erased_while_a_model_reads_is_dropped(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 2)
    (gone,) = (await bank.retain(words(9), source="secret")).memories
    scorer.go.clear()
    reading = asyncio.create_task(bank.score(told_of([*memories, gone], 1)))
    await scorer.reading.wait()
    receipt = await bank.forget(source="secret")
    scorer.go.set()
    assert values(await reading) == [[0.0], [WORTH], [0.0]]
    assert [(await bank.importance(m.id)).states for m in (*memories, gone)] == [(), (), ()]  # all were measured beside it
    assert (await bank.verify(receipt)).ok
    assert await bank.check() == []


async def test_nothing_is_measured_of_what_is_erased(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 2)
    told = told_of(memories, 1)
    await bank.forget(memory_ids=[memories[1].id])
    assert [group.items for group in (await bank.score(told)).groups] == [(memories[0].id,)]
    assert not await bank.keep_transcript(told)


# arguments


async def test_a_wrong_argument_gets_a_sentence(bank: Bank, scorer: ScriptedScorer) -> None:
    told = told_of(await facts(bank, 1), 0)
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (bank.score, {"mode": "best"}, 'mode is "best"'), (bank.candidates, {"count": 0}, "at least 1"),
        (bank.score_due, {"most": 0}, "at least 1"), (bank.score_due, {"most": -1}, "at least 1"),
    ]
    for verb, arguments, sentence in wrong:
        with pytest.raises(InvalidInput, match=sentence):
            await verb(told, **arguments)
    verbs: list[Any] = [bank.score, bank.score_due, bank.candidates, bank.keep_transcript]
    for verb in verbs:
        with pytest.raises(InvalidInput, match="takes a Transcript"):
            await verb({"turns": []})
        with pytest.raises(InvalidInput, match="turn 1 holds half a surrogate pair"):
            await verb(talk(turn("user", "\ud800")))
    assert scorer.prompts == 0


async def test_a_closed_engine_says_so(tmp_path: Path, clock: ManualClock, scorer: ScriptedScorer) -> None:
    async with opened(tmp_path / "closed", clock, scorer) as engine:
        bank = engine.bank("alice")
        told = told_of(await facts(bank, 1), 0)
    with pytest.raises(ConsolidatorError, match="closed"):
        await bank.score(told)


# what a transcript shows


async def test_what_names_nothing_of_the_bank_is_plain_text(bank: Bank, scorer: ScriptedScorer) -> None:
    memories = await facts(bank, 2)
    strange = turn("system", ("a note\n", "note-7"), ("shouted\n", memories[0].id.upper()), ("gone\n", memories[0].id[::-1]))
    matrix = await bank.score(talk(strange, showing(memories), *answers(words(1))))
    assert [group.items for group in matrix.groups] == [(m.id,) for m in memories]
    assert all("a note" in target.context[0].text for target in scorer.asked)
    report = await bank.score_due(talk(strange, *answers("Well then, so be it."), id="other"))
    assert (report.due, report.failed) == (0, ())


async def test_what_is_being_erased_lends_no_words(bank: Bank, script: ScriptedProposer) -> None:
    """Neither the memory nor the statement that was derived from it."""
    believed = await Teller(bank, script).believe("Mara lives in Ghent.", source="a")
    memory = believed.evidence[0].memory_id
    shown = turn("system", ("Mara lives in Ghent.\n", f"{believed.id} {memory}"))
    asked = talk(shown, *answers("She lives in Ghent."))
    assert len((await bank.score(asked, dry_run=True)).groups) == 1
    receipt = Receipt(
        id="r", bank=bank.id, asked={}, at=NOW, state="accepted", memories=(memory,), sources=("a",)
    )
    await bank._parts.ledger.entomb(receipt, [memory])  # and nobody has settled it
    assert (await bank.score(asked)).groups == ()


async def test_nobody_earns_by_an_answer_that_was_given_before_it_was_shown(bank: Bank) -> None:
    """They leave together, for they say the same; but only one of them was there."""
    (one,) = await facts(bank, 1)
    (other,) = await facts(bank, 1, source="elsewhere")
    assert one.id != other.id
    told = talk(showing([one]), *answers(words(0)), showing([other], "user"), *answers(f"Again: {words(0)}"))
    matrix = await bank.score(told)
    assert [group.items for group in matrix.groups] == [(one.id, other.id)]
    assert [score.response for score in (await bank.importance(one.id)).scores] == ["t/5", "t/2"]
    assert [score.response for score in (await bank.importance(other.id)).scores] == ["t/5"]
    assert (await bank.score_due(told)).scored == ()  # it is known by then
