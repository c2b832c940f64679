"""What was measured bears on ranking: bounded, explained, neutral where nothing is known, and gone with what was erased."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from consolidator.engine import Bank, Engine
from consolidator.feedback import factor, updated
from consolidator.lexical import LEXICAL_UNIT
from consolidator.models import Hit, Memory
from consolidator.ranking import RecallWeights, score_of
from consolidator.testing import ManualClock, ScriptedProposer
from consolidator.transcripts import Score
from tests.script import Teller
from tests.talks import opened

QUESTION = "Which garden has number seven?"
MODEL, OTHER = "a-model/x/1", "b-model/y/2"
WEIGHT = 0.2


@pytest.fixture
async def engine(tmp_path: Path, clock: ManualClock, script: ScriptedProposer) -> AsyncIterator[Engine]:
    recall = {"importance": WEIGHT, "fresh": False}  # else what is new moves besides
    async with opened(tmp_path / "memory", clock, None, proposer=script, recall=recall) as engine:
        yield engine


async def gardens(bank: Bank) -> list[Memory]:
    return list((await bank.retain([f"The garden of {n} has number {n}." for n in range(8)], source="s")).memories)


async def measured(bank: Bank, item: str, value: float, *, unit: str = LEXICAL_UNIT, times: int = 20) -> None:
    """As often with a long answer."""
    now = bank._parts.clock()
    told = [
        Score(unit=unit, response=f"t{n}/1", items=(item,), context=frozenset({item}), value=value, tokens=200, at=now)
        for n in range(times)
    ]
    assert await bank._parts.ledger.keep_scores(bank.id, told, updated)
    bank._services.recollection.measured(bank.id)


def by_weight(bank: Bank, weight: float) -> None:
    recollection = bank._services.recollection
    recollection._weights = recollection._weights.model_copy(update={"importance": weight})


def factors(hits: Sequence[Hit]) -> dict[str, float]:
    """Of each hit that has one, the factor of importance."""
    return {
        hit.id: told.multiplier for hit in hits if hit.explanation for told in hit.explanation.factors
        if told.name == "importance"
    }


async def test_with_weight_0_all_is_as_if_nothing_had_been_measured(bank: Bank) -> None:
    memories = await gardens(bank)
    by_weight(bank, 0.0)
    before = await bank.recall(QUESTION, explain=True)
    await measured(bank, memories[0].id, 1.0)
    await measured(bank, memories[7].id, -1.0)
    after = await bank.recall(QUESTION, explain=True)
    assert after == before
    assert [hit.importance for hit in after] == [None] * 8


async def test_before_anything_was_measured_no_weight_changes_anything(bank: Bank) -> None:
    await gardens(bank)
    before = await bank.recall(QUESTION, explain=True)
    by_weight(bank, 0.0)
    assert await bank.recall(QUESTION, explain=True) == before
    assert factors(before) == {}


async def test_what_was_never_measured_keeps_its_score(bank: Bank) -> None:
    memories = await gardens(bank)
    before = {hit.id: hit.score for hit in await bank.recall(QUESTION, explain=True)}
    await measured(bank, memories[0].id, 1.0)
    await measured(bank, memories[1].id, 0.0)
    hits = await bank.recall(QUESTION, explain=True)
    assert set(factors(hits)) == {memories[0].id, memories[1].id}
    assert {hit.id: hit.score for hit in hits if hit.id not in factors(hits)} == {
        m.id: before[m.id] for m in memories[2:]
    }
    assert [hit.importance is not None for hit in hits if hit.id in factors(hits)] == [True, True]


async def test_the_explanation_adds_up_and_tells_what_was_measured(bank: Bank) -> None:
    memories = await gardens(bank)
    before = {hit.id: hit for hit in await bank.recall(QUESTION, explain=True)}
    await measured(bank, memories[0].id, 1.0)
    await measured(bank, memories[1].id, 0.0)
    hits = await bank.recall(QUESTION, explain=True)
    for hit in hits:
        assert hit.explanation is not None
        assert hit.score == score_of(hit.explanation)
        was = before[hit.id].explanation
        assert was is not None
        assert (hit.explanation.legs, hit.explanation.terms) == (was.legs, was.terms)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    (told,) = next(hit.explanation for hit in hits if hit.id == memories[0].id and hit.explanation).factors
    assert (told.name, told.weight) == ("importance", WEIGHT)
    assert told.value.endswith(" nats a token, 18.2 measured, lexical")
    assert 1 < told.multiplier <= 1 + WEIGHT


async def test_the_factor_is_the_formula(bank: Bank, clock: ManualClock) -> None:
    memories = await gardens(bank)
    await measured(bank, memories[0].id, 1.0)
    await measured(bank, memories[1].id, 0.1)
    clock.move(timedelta(days=30))
    found = factors(await bank.recall(QUESTION, explain=True))
    states = await bank._parts.ledger.importances(bank.id, LEXICAL_UNIT)
    prior = math.fsum(state.mean for state in states.values()) / 2
    assert found == {id: pytest.approx(factor(state, prior, clock(), WEIGHT), abs=1e-12) for id, state in states.items()}
    assert found[memories[0].id] > 1 > found[memories[1].id] >= 1 - WEIGHT


@pytest.mark.parametrize("better", [0, 1])
async def test_of_equals_what_was_worth_more_comes_first(bank: Bank, better: int) -> None:
    twins = (await bank.retain([f"Tea {n} is a drink." for n in ("one", "two")], source="s")).memories
    await bank.retain([f"Dog {n} barks." for n in range(6)], source="s")
    await measured(bank, twins[better].id, 1.0)
    await measured(bank, twins[1 - better].id, 0.0)
    by_weight(bank, 1.0)  # to the hash embedder they are not quite equal
    hits = await bank.recall("Which drink is tea?")
    assert [hit.id for hit in hits[:2]] == [twins[better].id, twins[1 - better].id]


async def test_an_observation_is_weighed_too(bank: Bank, script: ScriptedProposer) -> None:
    belief = await Teller(bank, script).believe("The garden of Alice has number seven.")
    await gardens(bank)
    await measured(bank, belief.id, 1.0)
    await measured(bank, belief.evidence[0].memory_id, 0.0)
    hits = await bank.recall(QUESTION, explain=True)
    (hit,) = (hit for hit in hits if hit.id == belief.id)
    assert hit.importance is not None
    assert factors([hit])[belief.id] > 1


async def test_as_of_a_time_nothing_is_weighed(bank: Bank, clock: ManualClock) -> None:
    memories = await gardens(bank)
    before = await bank.recall(QUESTION, explain=True, as_of=clock())
    await measured(bank, memories[0].id, 1.0)
    clock.move(timedelta(days=1))
    after = await bank.recall(QUESTION, explain=True, as_of=clock() - timedelta(days=1))
    assert after == before
    assert factors(after) == {}


async def test_a_models_unit_goes_before_that_of_words_and_they_are_never_mixed(bank: Bank) -> None:
    memories = await gardens(bank)
    for memory in memories[:4]:
        await measured(bank, memory.id, 1.0)
    await measured(bank, memories[5].id, 0.5, unit=MODEL)
    hits = await bank.recall(QUESTION, explain=True)
    assert set(factors(hits)) == {memories[5].id}
    assert [hit.importance for hit in hits if hit.id in {m.id for m in memories[:4]}] == [None] * 4
    alone = factors(hits)[memories[5].id]
    await measured(bank, memories[5].id, 2.0, times=30)  # by words: moves nothing of it
    assert factors(await bank.recall(QUESTION, explain=True))[memories[5].id] == alone


async def test_of_two_models_the_one_that_has_measured_more_is_read(bank: Bank) -> None:
    memories = await gardens(bank)
    await measured(bank, memories[0].id, 0.5, unit=OTHER)
    for memory in memories[1:3]:
        await measured(bank, memory.id, 0.5, unit=MODEL)
    assert set(factors(await bank.recall(QUESTION, explain=True))) == {memories[1].id, memories[2].id}


async def test_a_measurement_bears_on_the_very_next_recall(bank: Bank) -> None:
    memories = await gardens(bank)
    assert factors(await bank.recall(QUESTION, explain=True)) == {}
    recorder = bank.transcript()
    await recorder.recall(QUESTION)
    recorder.said(QUESTION)
    recorder.answered("The garden of 7 has number 7.")
    matrix = await bank.score(recorder.transcript(closed=True))
    assert matrix.important_for(matrix.responses[0])[0][0].items == (memories[7].id,)
    hits = await bank.recall(QUESTION, explain=True)
    assert set(factors(hits)) == {m.id for m in memories}
    assert factors(hits)[memories[7].id] == max(factors(hits).values()) > 1


async def test_after_forget_nothing_of_it_bears_on_ranking(bank: Bank) -> None:
    """Neither its own state, nor those of what was measured beside it in a group; nor the prior that it was part of."""
    memories = await gardens(bank)
    (gone,) = (await bank.retain("The secret garden has number seven.", source="secret")).memories
    await measured(bank, memories[0].id, 0.5)
    await measured(bank, memories[1].id, 0.1)
    without = await bank.recall(QUESTION, explain=True, kinds=["memory"])
    await measured(bank, gone.id, 2.0)
    group = Score(
        unit=LEXICAL_UNIT, response="t/1", items=(gone.id, memories[2].id), context=frozenset({gone.id}), value=1.0, tokens=200,
        at=bank._parts.clock(),
    )
    assert await bank._parts.ledger.keep_scores(bank.id, [group], updated)
    await bank.forget(source="secret")
    after = await bank.recall(QUESTION, explain=True, kinds=["memory"])
    assert factors(after) == factors(without)
    assert set(factors(after)) == {memories[0].id, memories[1].id}
    assert gone.id not in {hit.id for hit in after}


async def test_another_bank_weighs_by_its_own(engine: Engine, bank: Bank) -> None:
    mine, theirs = await gardens(bank), await gardens(engine.bank("bob"))
    await measured(bank, mine[0].id, 1.0)
    assert factors(await engine.bank("bob").recall(QUESTION, explain=True)) == {}
    await measured(engine.bank("bob"), theirs[1].id, 1.0, unit=MODEL)
    assert set(factors(await bank.recall(QUESTION, explain=True))) == {mine[0].id}


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_a_weight_is_bounded(wrong: float) -> None:
    with pytest.raises(ValueError, match="importance"):
        RecallWeights(importance=wrong)
