"""Whatever was said, shown and measured: the promises of importance hold."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consolidator.divergence import buckets, divergence, due, groups_of, head_of, responses_of
from consolidator.errors import ContextTooLong, ScoringRejected
from consolidator.feedback import FeedbackPolicy, decayed, factor, shrunk, sigma, stepper, strongest_first, updated
from consolidator.lexical import Background, divergences, words_of
from consolidator.meters import LexicalMeter, every_pair
from consolidator.targets import Context, leave_out, plan_contexts, split_thought, target
from consolidator.transcripts import Group, Importance, Role, Score, Scored, Segment, Transcript, Turn
from consolidator.words import plain

NOW = datetime(2026, 3, 21, 13, tzinfo=UTC)
ITEMS = ("m1", "m2", "m3", "m4", "o1", "o2")
settings.register_profile("importance", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
brief = settings.get_profile("importance")

roles: st.SearchStrategy[Role] = st.sampled_from(("system", "user", "assistant", "assistant", "tool"))
texts = st.sampled_from(("a", "where? ", "Berlin.", "<think>x</think>y", "</think>", "", "<think>"))
shown = st.frozensets(st.sampled_from(ITEMS), max_size=2)
segments = st.builds(Segment, text=texts, items=st.one_of(st.just(frozenset[str]()), shown))
turns = st.builds(Turn, role=roles, segments=st.lists(segments, min_size=1, max_size=3).map(tuple))
transcripts = st.builds(
    Transcript, id=st.just("t"), turns=st.lists(turns, max_size=14).map(tuple), closed=st.booleans(), at=st.just(NOW),
)
values = st.floats(-50, 50)
times = st.integers(-400, 400).map(lambda days: NOW + timedelta(days=days))
scores = st.builds(
    Score, unit=st.just("u"), response=st.sampled_from(("r1", "r2", "r3")),
    items=st.lists(st.sampled_from(ITEMS), min_size=1, max_size=3, unique=True).map(tuple), context=st.just(frozenset[str]()),
    value=values, tokens=st.integers(0, 500), share=st.sampled_from((1.0, 0.5, 0.1)), at=times,
)
policies = st.sampled_from((FeedbackPolicy(), FeedbackPolicy(rise=0.5, fall=0.1), FeedbackPolicy(clip=0.5, half_life=1.0)))


@st.composite
def counted(draw: st.DrawFn) -> tuple[Transcript, list[int], int]:
    said = draw(transcripts)
    counts = draw(st.lists(st.integers(0, 30), min_size=len(said.turns), max_size=len(said.turns)))
    return said, counts, draw(st.integers(0, 150))


# the primitive


@brief
@given(st.lists(st.tuples(st.floats(-20, 0), st.floats(-20, 0)), min_size=1, max_size=30))
def test_divergence_is_antisymmetric_and_additive_over_tokens(pairs: list[tuple[float, float]]) -> None:
    one, other = (Scored(total=sum(side), tokens=len(pairs), logprobs=tuple(side)) for side in zip(*pairs, strict=True))
    assert divergence(one, other) == -divergence(other, one)
    assert divergence(one, one) == 0.0
    assert divergence(one, other) == pytest.approx(sum(a - b for a, b in pairs) / len(pairs), abs=1e-9)


# leaving out


@brief
@given(st.lists(turns, max_size=8), st.frozensets(st.sampled_from(ITEMS)), st.frozensets(st.sampled_from(ITEMS)))
def test_leaving_out_takes_exactly_what_shows_an_item(said: list[Turn], some: frozenset[str], others: frozenset[str]) -> None:
    left = leave_out(said, some)
    assert not some & frozenset().union(*(turn.items for turn in left))
    assert leave_out(left, some) == left
    assert leave_out(left, others) == leave_out(said, some | others) == leave_out(leave_out(said, others), some)
    kept = Counter(segment for turn in left for segment in turn.segments)
    assert kept == Counter(s for turn in said for s in turn.segments if not s.items & some)
    assert leave_out(said, set()) == tuple(said)


# groups


@brief
@given(
    st.lists(st.sampled_from([*ITEMS, *(f"x{n}" for n in range(8))]), max_size=20),
    st.dictionaries(
        st.sampled_from(("o1", "o2", "x0")), st.lists(st.sampled_from([*ITEMS, "x3", "x4", "x5", "gone"]), max_size=7)
    ),
    st.dictionaries(st.sampled_from([*ITEMS, "x1", "x2", "x3"]), st.sampled_from(("same", " SAME", "other", ""))),
)
def test_groups_hold_every_item_and_part_no_pair(said: list[str], evidence: dict[str, list[str]], told: dict[str, str]) -> None:
    found = groups_of(said, evidence, told)
    sets = [frozenset(group.items) for group in found]
    assert frozenset().union(*sets) == frozenset(said)
    assert len({group.id for group in found}) == len(found)
    assert len(set(sets)) == len(sets)
    for observation, memories in evidence.items():
        if observation in said:
            assert any({observation, *memories} & {*said} <= members for members in sets)
    for members in sets:
        for item in members:
            twins = {other for other in said if plain(told.get(item, "")) and plain(told.get(other, "")) == plain(told[item])}
            assert twins <= members
    if len(set(said)) <= 8:
        assert sum(map(len, sets)) == len(set(said))  # nothing was cut, so nothing overlaps


# contexts


@brief
@given(counted())
def test_contexts_keep_the_budget_the_order_and_the_newest(case: tuple[Transcript, list[int], int]) -> None:
    said, counts, budget = case
    prefix = next((n for n, turn in enumerate(said.turns) if turn.role != "system"), len(said.turns))
    try:
        planned = plan_contexts(said, counts, budget=budget)
    except ScoringRejected:
        assert sum(counts[:prefix]) > budget
        return
    assert tuple(planned) == said.responses
    for place, context in planned.items():
        if isinstance(context, ContextTooLong):
            assert sum(counts[:prefix]) + counts[place] + (counts[place - 1] if place > prefix else 0) > budget
            continue
        assert context.tokens == counts[place] + sum(counts[n] for n in context.turns) <= budget
        assert list(context.turns) == sorted(set(context.turns))
        assert set(context.turns) >= {*range(prefix), *([place - 1] if place > prefix else [])}
        assert not context.turns or max(context.turns) < place
        assert context.truncated == (len(context.turns) < place)
        if sum(counts[: place + 1]) <= budget:
            assert context.turns == tuple(range(place))


@brief
@given(counted(), st.frozensets(st.sampled_from(ITEMS)))
def test_borders_never_move_with_what_is_left_out(case: tuple[Transcript, list[int], int], items: frozenset[str]) -> None:
    said, counts, budget = case
    try:
        planned = plan_contexts(said, counts, budget=budget)
    except ScoringRejected:
        return
    for place, context in planned.items():
        if isinstance(context, Context):
            base, without = target(said, place, context), target(said, place, context, items)
            assert leave_out(base.context, items) == without.context
            assert (base.response, base.response_ids) == (without.response, without.response_ids)
            if not items & frozenset().union(*(said.turns[n].items for n in context.turns)):
                assert base == without
                assert hash(base) == hash(without)


# windows


@brief
@given(transcripts, st.sampled_from(ITEMS), st.integers(1, 5))
def test_a19_no_response_before_a_showing_is_in_a_window(said: Transcript, item: str, window: int) -> None:
    group = Group(items=(item,))
    first = next((n for n, turn in enumerate(said.turns) if item in turn.items), len(said.turns))
    found = responses_of(said, group, window=window)
    assert all(place > first and said.turns[place].role == "assistant" for place in found)
    assert len(found) >= min(window, sum(place > first for place in said.responses))
    assert head_of(said, group, window=window) <= set(found)


@brief
@given(transcripts, st.dictionaries(st.sampled_from(ITEMS), times))
def test_every_group_is_due_or_skipped_with_a_reason(said: Transcript, last: dict[str, datetime]) -> None:
    groups = groups_of(said.items, {"o1": ["m1"]}, {})
    found = due(said, groups, now=NOW, last_scored=last, scored={})
    assert Counter(groups) == Counter(found.groups) + Counter(group for group, _ in found.skipped)
    long_ago = NOW - timedelta(days=9999)
    ages = [min(last.get(item, long_ago) for item in group.items) for group in found.groups]
    assert ages == sorted(ages)


@brief
@given(st.text(max_size=60), st.lists(texts, max_size=6))
def test_a_text_without_marks_is_all_said_and_nothing_said_is_invented(text: str, pieces: list[str]) -> None:
    if "<think>" not in text and "</think>" not in text:
        assert split_thought(text) == ("", text)
    _, said = split_thought("".join(pieces))
    assert not Counter(said) - Counter("".join(pieces))


def thoughts_by_expression(marks: tuple[str, str]) -> re.Pattern[str]:
    """What a thought is, in one expression: right, but quadratic."""
    opening, closing = map(re.escape, marks)
    opened_before = rf"\A(?:(?!{opening}).)*?{closing}\s*"
    return re.compile(rf"{opened_before}|{opening}.*?{closing}\s*|\A\s*{opening}(?!.*{closing}).*", re.DOTALL)


MARKS = (("<think>", "</think>"), ("<", ">"), ("||", "||"), ("ab", "ba"), (" [", "] "), ("aa", "a"))


@settings(brief, max_examples=400)
@given(st.sampled_from(MARKS), st.lists(st.sampled_from((*"ab <>|[]\n\u2028", "<think>", "</think>", "||", "x")), max_size=12))
def test_thoughts_are_those_of_the_expression(marks: tuple[str, str], pieces: list[str]) -> None:
    text = "".join(pieces)
    spans = [found.span() for found in thoughts_by_expression(marks).finditer(text)]
    borders = [0, *(border for span in spans for border in span), len(text)]
    said = "".join(text[start:end] for start, end in zip(borders[::2], borders[1::2], strict=True))
    assert split_thought(text, marks)[1] == said


# two levels


@brief
@given(st.integers(1, 100), st.integers(1, 5))
def test_buckets_deal_every_group_once_and_evenly(number: int, keep: int) -> None:
    groups = [Group(items=(str(n),)) for n in range(number)]
    dealt = buckets(groups, keep)
    assert Counter(group for bucket in dealt for group in bucket) == Counter(groups)
    sizes = [len(bucket) for bucket in dealt]
    assert max(sizes) - min(sizes) <= 1


# the state


def fold(told: list[Score], policy: FeedbackPolicy, states: dict[str, Importance], kept: set[str]) -> None:
    step = stepper(told, policy)
    for score in strongest_first(told):
        if score.key not in kept:
            kept.add(score.key)
            states |= {item: step(states.get(item), score, item) for item in score.items}


@brief
@given(st.lists(scores, max_size=12), policies)
def test_a_replay_changes_nothing(told: list[Score], policy: FeedbackPolicy) -> None:
    states, kept = dict[str, Importance](), set[str]()
    fold(told, policy, states, kept)
    before = dict(states)
    fold(told, policy, states, kept)
    assert states == before


@brief
@given(st.lists(scores, min_size=1, max_size=12), policies, st.floats(-3, 3), st.floats(0, 0.5), times)
def test_the_state_is_bounded_whatever_the_clock_says(
    told: list[Score], policy: FeedbackPolicy, prior: float, weight: float, now: datetime
) -> None:
    state: Importance | None = None
    for score in told:
        state = updated(state, score, "m", policy)
    assert state
    clipped = [min(max(score.value, -policy.clip), policy.clip) for score in told]
    assert min(clipped) - 1e-9 <= state.mean <= max(clipped) + 1e-9
    assert 0 <= decayed(state, now, policy) <= state.n <= len(told)
    assert (state.updates, state.tokens) == (len(told), sum(score.tokens for score in told))
    assert state.last_scored == max(score.at for score in told)
    assert state.maximum == max(score.value for score in told)
    low, high = sorted((state.mean, prior))
    assert low - 1e-9 <= shrunk(state, prior, now, policy) <= high + 1e-9
    assert 1 - weight - 1e-9 <= factor(state, prior, now, weight, policy) <= 1 + weight + 1e-9
    assert factor(None, prior, now, weight, policy) == 1.0 == factor(state, prior, now, 0.0, policy)


@brief
@given(st.lists(scores, min_size=1, max_size=6), st.builds(lambda s: s.model_copy(update={"unit": "v"}), scores))
def test_another_unit_knows_nothing_of_the_first(told: list[Score], other: Score) -> None:
    state: Importance | None = None
    for score in told:
        state = updated(state, score, "m")
    assert updated(state, other, "m") == updated(None, other, "m")


@brief
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20))
def test_the_signal_grows_with_the_value(found: list[float]) -> None:
    signals = [sigma(value) for value in sorted(found)]
    assert signals == sorted(signals)
    assert all(0 <= signal <= 1 for signal in signals)


# words

sayings = st.lists(st.sampled_from(("alice", "berlin", "moved to", "東京", "in", "2026", "")), max_size=5).map(" ".join)


@brief
@given(sayings, sayings, st.dictionaries(st.sampled_from(ITEMS), sayings), st.lists(sayings, max_size=5))
def test_lexical_divergences_add_up_along_a_chain(query: str, response: str, said: dict[str, str], bank: list[str]) -> None:
    """Leaving out one after another loses as much as leaving out all at once."""
    base, items = Background.of([*bank, *said.values()]), list(said)
    left = [{item: said[item] for item in items[n:]} for n in range(len(items))]
    steps = [divergences(query, response, shown, [Group(items=(next(iter(shown)),))], base)[0] for shown in left]
    whole = divergences(query, response, said, [Group(items=tuple(items))], base) if items else [0.0]
    assert sum(steps) == pytest.approx(whole[0], abs=1e-9)
    assert [*accumulate(steps)] == pytest.approx(
        [divergences(query, response, said, [Group(items=tuple(items[: n + 1]))], base)[0] for n in range(len(items))], abs=1e-9
    )


@brief
@given(st.lists(st.text(max_size=30), max_size=6))
def test_a_background_counts_the_words_of_its_texts_and_no_others(texts: list[str]) -> None:
    told = Background.of(texts)
    assert set(told.counts) == {word for text in texts for word in words_of(text)}
    assert told.total == sum(told.counts.values())


def by_brute_force(words: Sequence[str], shown: Mapping[str, str], left_out: Collection[str], base: Background) -> float:
    """Mean of what each word loses, from counts made anew."""

    def mean(texts: Sequence[str]) -> float:
        counts = Counter(word for text in texts for word in words_of(text))
        share = 0.5 / counts.total() if counts else 0.0
        return math.fsum(math.log(share * counts[word] + 0.5 * base.probability(word)) for word in words) / len(words)

    return mean([*shown.values()]) - mean([text for item, text in shown.items() if item not in left_out])


exchanges = st.lists(st.tuples(st.frozensets(st.sampled_from(ITEMS), max_size=3), sayings, sayings), min_size=1, max_size=5)
members = st.lists(st.sampled_from(ITEMS), min_size=1, max_size=4, unique=True).map(lambda items: Group(items=tuple(items)))


@brief
@given(
    exchanges, st.dictionaries(st.sampled_from(ITEMS), sayings), st.lists(members, min_size=1, max_size=4, unique=True),
    st.lists(sayings, max_size=5),
)
async def test_a_meter_tells_what_the_closed_form_and_brute_force_tell(
    told: list[tuple[frozenset[str], str, str]], known: dict[str, str], groups: list[Group], bank: list[str]
) -> None:
    base, said = Background.of([*bank, *known.values()]), list[Turn]()
    for items, query, response in told:
        said += [Turn(role="system", segments=(Segment(text="shown", items=items),))]
        said += [Turn(role="user", segments=(Segment(text=query),)), Turn(role="assistant", segments=(Segment(text=response),))]
    transcript = Transcript(id="t", turns=tuple(said), at=NOW)
    rows = await every_pair(LexicalMeter(transcript=transcript, texts=known, background=base), transcript, groups)
    assert [group for group, _ in rows] == groups
    for group, row in rows:
        for number, (_, query, response) in enumerate(told):
            seen = frozenset[str]().union(*(items for items, _, _ in told[: number + 1]))
            shown, cell = {item: known[item] for item in ITEMS if item in seen & known.keys()}, row[3 * number + 2]
            if not words_of(response) or not shown.keys() & {*group.items}:
                assert (cell.value, cell.status) == (None, "not_applicable")
                continue
            words = words_of(query) + words_of(response)
            assert cell.value == pytest.approx(divergences(query, response, shown, [group], base)[0], abs=1e-12)
            assert cell.value == pytest.approx(by_brute_force(words, shown, group.items, base), abs=1e-12)
            assert cell.tokens == len(words)
