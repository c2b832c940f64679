"""Ranking: scores that add up exactly, structure that speaks only where there is some, folding, freshness."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from consolidator.folding import fold
from consolidator.freshness import Doubt, in_doubt, newer_first, unsettled
from consolidator.models import Trend
from consolidator.periods import Period
from consolidator.ranking import (
    Candidate,
    Ranked,
    RecallWeights,
    asked_about,
    asks,
    bits_of,
    cohesion,
    logistic,
    named,
    rank,
    score_of,
    standardise,
    without_names,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ALL_ON = RecallWeights(trend=0.1, confidence=0.1, recency=0.1)


def memory(id: str, dense: float = 0.5, words: float = 1.0, **fields: Any) -> Candidate:
    told = {"kind": "memory", "text": f"text of {id}", "time": NOW - timedelta(days=1), "source": "s"}
    return Candidate(id=id, dense=dense, words=words, dense_rank=1, words_rank=1, **{**told, **fields})


def observation(id: str, dense: float = 0.5, words: float = 1.0, **fields: Any) -> Candidate:
    return memory(id, dense, words, **{"kind": "observation", "source": "", **fields})


candidates = st.lists(
    st.builds(
        Candidate, id=st.uuids().map(str), kind=st.sampled_from(["memory", "observation"]), text=st.text(max_size=40),
        time=st.just(NOW), dense=st.floats(-1, 1), words=st.floats(0, 30), source=st.sampled_from(["a", "b"]),
        sequence=st.none() | st.integers(0, 5), speaker=st.sampled_from(["Ann", "Bob", None]),
        trend=st.none() | st.sampled_from(list(Trend)), confidence=st.none() | st.floats(0, 1),
    ),
    max_size=12, unique_by=lambda c: c.id,
)


@given(candidates)
def test_every_score_can_be_added_up_from_its_explanation(pool: list[Candidate]) -> None:
    for r in fold(rank(pool, ALL_ON, about="Ann", now=NOW)):
        total = sum(leg.standardised * leg.weight for leg in r.explanation.legs) + sum(t.share for t in r.explanation.terms)
        product = math.prod(1 + f.weight * (f.multiplier - 1) / f.weight for f in r.explanation.factors)
        assert r.score == pytest.approx(logistic(total) * product, abs=1e-12)
        assert r.score == score_of(r.explanation)


@given(candidates)
def test_e34_factors_are_bounded_and_neutral_when_unknown(pool: list[Candidate]) -> None:
    for r in rank(pool, ALL_ON, about=None, now=NOW):
        for factor in r.explanation.factors:
            assert 0.95 <= factor.multiplier <= 1.05
            assert factor.multiplier == 1 or factor.value != "unknown"


@given(candidates)
def test_by_default_no_factor_changes_an_order(pool: list[Candidate]) -> None:
    """G42: trend, confidence and recency stay off until a benchmark supports them."""
    for r in rank(pool, RecallWeights(), about=None, now=NOW):
        assert math.prod(f.multiplier for f in r.explanation.factors) == 1


@given(candidates, st.randoms())
def test_the_order_does_not_depend_on_the_order_found(pool: list[Candidate], chance: Any) -> None:
    shuffled = list(pool)
    chance.shuffle(shuffled)
    before = [r.candidate.id for r in rank(pool, RecallWeights(), about=None, now=NOW)]
    assert [r.candidate.id for r in rank(shuffled, RecallWeights(), about=None, now=NOW)] == before


def test_nothing_relevant_is_an_answer() -> None:
    """G39."""
    assert rank([memory("a", dense=0.05, words=0.0)], RecallWeights(), about=None, now=NOW) == []


def test_the_neighbour_of_a_good_turn_rises() -> None:
    pool = [memory("good", 0.9, 9.0, sequence=4), memory("next", 0.3, sequence=5), memory("other", 0.3, sequence=9, source="t")]
    order = [r.candidate.id for r in rank(pool, RecallWeights(), about=None, now=NOW)]
    assert order == ["good", "next", "other"]


def test_without_sequence_the_structure_is_silent() -> None:
    pool = [memory("a", 0.9), memory("b", 0.3), memory("c", 0.2)]
    for r in rank(pool, RecallWeights(), about=None, now=NOW):
        assert r.explanation.terms == ()


def test_in_a_mere_batch_neighbours_say_nothing() -> None:
    pool = [memory("good", 0.9, 9.0, sequence=4), memory("following", 0.3, sequence=5), memory("third", 0.35, 1.5, sequence=9)]
    order = [r.candidate.id for r in rank(pool, RecallWeights(), about=None, now=NOW, together=0.0)]
    assert order == ["good", "third", "following"]
    assert [r.candidate.id for r in rank(pool, RecallWeights(), about=None, now=NOW)] == ["good", "following", "third"]


def test_cohesion_tells_talk_from_a_batch() -> None:
    talk = [[[math.cos(t + n / 9), math.sin(t + n / 9)] for n in range(12)] for t in range(6)]
    batch = [[[math.cos(2.4 * (12 * t + n)), math.sin(2.4 * (12 * t + n))] for n in range(12)] for t in range(6)]
    assert cohesion(talk) == 1.0
    assert cohesion(batch) < 0.1
    assert cohesion([]) == 1.0  # unknown: taken for granted


def test_the_one_speaker_that_is_asked_about_rises() -> None:
    pool = [memory("bob", 0.6, speaker="Bob"), memory("ann", 0.5, speaker="Ann"), memory("x", 0.2), memory("y", 0.1)]
    order = [r.candidate.id for r in rank(pool, RecallWeights(), about="Ann", now=NOW)]
    assert order[0] == "ann"
    assert next(r.candidate.id for r in rank(pool, RecallWeights(), about="Ann", bits=0.0, now=NOW)) == "bob"


def test_a_name_tells_the_more_the_more_people_speak() -> None:
    assert bits_of("Ann", {"Ann": 50}) == 0.0  # nobody else speaks: it tells nothing
    assert bits_of("Ann", {"Ann": 50, "Bob": 50}) == 1.0
    assert bits_of("Ann", {"Ann": 5, "Bob": 95}) == 2.0
    assert bits_of(None, {}) == bits_of("Carl", {"Ann": 1}) == 1.0


def test_the_answer_to_a_question_inherits_from_it() -> None:
    def pool(asks: bool) -> list[Candidate]:
        return [memory("turn", 0.9, 9.0, sequence=4, asks=asks), memory("reply", 0.3, sequence=5),
                memory("other", 0.35, 1.5, sequence=9)]

    for asked, first in ((True, "reply"), (False, "other")):
        ranked = {r.candidate.id: r for r in rank(pool(asked), RecallWeights(session=0, previous=0), about=None, now=NOW)}
        assert (ranked["reply"].score > ranked["other"].score) is (first == "reply")


def test_a_long_text_that_ends_with_a_question_is_no_question() -> None:
    assert asks("Where do you live?")
    assert not asks("I live in Lisbon.")
    assert not asks("So much has happened. " * 15 + "And you?")


def test_an_observation_lifts_the_memories_it_rests_on() -> None:
    pool = [memory("m1", 0.2, 1.0), memory("m2", 0.21, 1.0), observation("o", 0.9, 9.0, evidence=frozenset({"m1"}))]
    ranked = {r.candidate.id: r for r in rank(pool, RecallWeights(cited=0.5), about=None, now=NOW)}
    assert ranked["m1"].score > ranked["m2"].score
    lifted = {term.name: term.share for term in ranked["m1"].explanation.terms}
    assert lifted["an observation rests on it"] == pytest.approx(0.5 * (ranked["o"].fused - ranked["m1"].fused))
    off = {r.candidate.id: r for r in rank(pool, RecallWeights(cited=0), about=None, now=NOW)}
    assert off["m1"].explanation.terms == ()


@pytest.mark.parametrize(("query", "expected"), [
    ("Where does Maren live?", ["Maren"]), ("What did Mel say?", ["Melanie"]), ("Does Al sing?", ["Al"]), ("is it also so?", []),
    ("Do Maren and Melanie sing?", ["Maren", "Melanie"]),
])
def test_named(query: str, expected: list[str]) -> None:
    assert named(query, ["Maren", "Melanie", "Al"]) == expected


@pytest.mark.parametrize(("query", "expected"), [
    ("What do I like?", "user"), ("What does Ann like?", "Ann"), ("What do Ann and Bob like?", None), ("What is good?", None),
])
def test_asked_about(query: str, expected: str | None) -> None:
    assert asked_about(query, ["Ann", "Bob", "user"]) == expected


def test_names_are_cut_from_what_is_embedded_but_not_the_whole_question() -> None:
    assert without_names("What is Maren's diet?", ["Maren"]) == "What is diet?"
    assert without_names("Maren?", ["Maren"]) == "Maren?"
    assert without_names("What now?", []) == "What now?"


def test_an_observation_and_its_evidence_are_one_hit_where_the_evidence_stood() -> None:
    statement = observation("o", 0.95, 9.5, evidence=frozenset({"m1", "m2"}))
    pool = [memory("m1", 0.9, 9.0, speaker="Ann"), memory("m2", 0.1), statement, memory("m3", 0.2)]
    ranked = rank(pool, RecallWeights(), about="Ann", now=NOW)
    witness = next(r for r in ranked if r.candidate.id == "m1")
    folded = fold(ranked)
    assert [r.candidate.id for r in folded] == ["o", "m3"]
    assert folded[0].quote == "m1"
    assert folded[0].score == pytest.approx(witness.score)


def test_a_statement_that_answers_worse_than_its_witness_is_left_out() -> None:
    pool = [memory("m1", 0.9, 9.0), observation("o", 0.1, 0.5, evidence=frozenset({"m1"})), memory("m3", 0.2)]
    folded = fold(rank(pool, RecallWeights(), about=None, now=NOW))
    assert [(r.candidate.id, r.quote) for r in folded] == [("m1", None), ("m3", None)]
    alone = [c for c in pool if c.kind == "observation"]
    assert [r.candidate.id for r in fold(rank(alone, RecallWeights(), about=None, now=NOW))] == ["o"]


def test_a_weak_statement_that_nothing_else_stands_for_follows_the_memories() -> None:
    weak = observation("o", 0.3, 0.5, evidence=frozenset({"not found"}))
    pool = [memory("m1", 0.9, 9.0), weak, memory("m3", 0.2, 0.0)]
    ranked = rank(pool, RecallWeights(), about=None, now=NOW)
    assert [r.candidate.id for r in ranked] == ["m1", "o", "m3"]
    folded = fold(ranked)
    assert [r.candidate.id for r in folded] == ["m1", "m3", "o"]
    assert folded[2].score <= folded[1].score
    alone = rank([weak, observation("p", 0.9, 9.0)], RecallWeights(), about=None, now=NOW)
    assert [r.candidate.id for r in fold(alone)] == ["p", "o"]


def test_what_contradicts_more_trusted_sources_is_told_with_its_doubt() -> None:
    weak = observation("o", 0.1, 0.5, evidence=frozenset({"m1"}), contested=True)
    pool = [memory("m1", 0.3, 1.0), weak, memory("m3", 0.9, 9.0)]
    assert "o" in [r.candidate.id for r in fold(rank(pool, RecallWeights(), about=None, now=NOW))]


def test_what_a_statement_has_moved_on_from_never_stands_before_it() -> None:
    both = frozenset({"old", "new"})
    statement = observation("o", 0.2, 0.5, evidence=both, outdated=frozenset({"old"}))
    pool = [memory("old", 0.9, 9.0), memory("new", 0.25, 0.5), statement, memory("x", 0.2)]
    folded = fold(rank(pool, RecallWeights(), about=None, now=NOW))
    assert [(r.candidate.id, r.quote) for r in folded] == [("o", "new"), ("x", None)]


def test_e35_evidence_that_outranks_the_statement_keeps_its_own_place() -> None:
    statement = observation("o", 0.85, 8.5, evidence=frozenset({"m1", "m2"}))
    pool = [memory("m1", 0.9, 9.0), memory("m2", 0.8, 8.0, speaker="Ann"), statement, memory("x", 0.1)]
    folded = fold(rank(pool, RecallWeights(session=0), about="Ann", now=NOW))
    assert [(r.candidate.id, r.quote) for r in folded] == [("o", "m2"), ("m1", None), ("x", None)]


def test_of_two_statements_about_the_same_thing_the_newer_comes_first() -> None:
    said = {"speaker": "Ann", "vector": [1.0, 0.0]}
    old = memory("old", 0.9, 5.0, text="Ann pays 875 rent a month", time=NOW - timedelta(days=90), **said)
    new = memory("new", 0.8, 4.0, text="Ann pays 940 rent a month", time=NOW - timedelta(days=2), **said)
    ranked = rank([old, new, memory("x", 0.1, 0.5)], RecallWeights(), about=None, now=NOW)
    order = newer_first(ranked, in_doubt(ranked))
    assert [r.candidate.id for r in order][:2] == ["new", "old"]
    assert order[1].superseded_by == "new"
    assert order[0].explanation.moved


STATED = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.booleans()), max_size=12)


@given(stated=STATED, placed=st.permutations(range(8)))
def test_what_is_settled_already_moves_nothing(stated: list[tuple[int, int, bool]], placed: list[int]) -> None:
    """stated: pairs of an older and a newer statement, and whether their vectors agree."""

    def order(chosen: Callable[[list[Ranked], list[Doubt]], list[Doubt]]) -> list[tuple[str, str | None]]:
        told = [memory(str(n), 1 - placed[n] / 10, 0.0, vector=[1.0]) for n in range(8)]
        ranked = rank(told, RecallWeights(), about=None, now=NOW)
        pairs = [Doubt(told[min(a, b)], told[max(a, b)], 0.5 if agree else 2.0) for a, b, agree in stated if a != b]
        return [(r.candidate.id, r.superseded_by) for r in newer_first(ranked, chosen(ranked, pairs))]

    assert order(unsettled) == order(lambda _, pairs: pairs)


def test_vectors_are_asked_for_only_where_something_may_move() -> None:
    said = {"speaker": "Ann", "vector": [1.0, 0.0]}
    old = memory("old", 0.8, 4.0, text="Ann pays 875 rent a month", time=NOW - timedelta(days=90), **said)
    new = memory("new", 0.9, 5.0, text="Ann pays 940 rent a month", time=NOW - timedelta(days=2), **said)
    ranked = rank([old, new, memory("x", 0.1, 0.5)], RecallWeights(), about=None, now=NOW)
    assert len(in_doubt(ranked)) == 1
    assert unsettled(ranked, in_doubt(ranked)) == []


def test_two_speakers_do_not_supersede_each_other() -> None:
    """G5: the same subject only."""
    old = memory("old", 0.9, 5.0, text="I pay 875 rent a month", time=NOW - timedelta(days=90), speaker="Ann", vector=[1.0])
    new = memory("new", 0.8, 4.0, text="I pay 940 rent a month", speaker="Bob", vector=[1.0])
    ranked = rank([old, new], RecallWeights(), about=None, now=NOW)
    order = newer_first(ranked, in_doubt(ranked))
    assert [r.candidate.id for r in order] == ["old", "new"]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_standardise(values: list[float]) -> None:
    z = standardise(values)
    assert len(z) == len(values)
    assert all(math.isfinite(x) for x in z)
    assert abs(sum(z)) < 1e-3


def test_standardise_equal_values() -> None:
    assert standardise([3.0, 3.0]) == [0.0, 0.0]


@pytest.mark.parametrize("name", ["dense", "words", "previous", "answer", "next", "session", "speaker", "question", "period"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e6, -1e6])
def test_absurd_weights_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValidationError):
        RecallWeights.model_validate({name: value})


@pytest.mark.parametrize("x", [0.0, 3.0, -3.0, 1e5, -1e5, math.inf, -math.inf])
def test_the_logistic_takes_any_number(x: float) -> None:
    assert 0 <= logistic(x) <= 1
    assert logistic(x) + logistic(-x) == pytest.approx(1)


def test_each_weight_at_0_switches_its_part_off() -> None:
    """Everything that can bear on a turn bears on this one; each part goes by itself, and the others stay."""
    week = Period(start=NOW - timedelta(days=7), end=NOW)
    pool = [
        memory("before", 0.9, 9.0, sequence=3, asks=True), memory("it", 0.3, sequence=4, speaker="Ann", asks=True, timed=True),
        memory("after", 0.8, 8.0, sequence=5), observation("o", 0.95, 9.5, evidence=frozenset({"it"})),
    ]
    names = {
        "previous": "previous turn", "answer": "answers the previous turn", "next": "next turn", "session": "session",
        "question": "question", "time_word": "time word", "period": "asked-for time", "speaker": "about Ann",
        "cited": "an observation rests on it",
    }

    def terms(**off: float) -> set[str]:
        ranked = rank(pool, RecallWeights.model_validate(off), about="Ann", now=NOW, period=week)
        return {term.name for r in ranked if r.candidate.id == "it" for term in r.explanation.terms}

    assert terms() == set(names.values())
    for weight, name in names.items():
        assert terms(**{weight: 0.0}) == set(names.values()) - {name}
