"""Groups, windows, contexts, targets, cells: what is left out, what is compared, and what is not known."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from consolidator.divergence import (
    bucket_cells,
    buckets,
    candidates_of,
    cell_of,
    divergence,
    due,
    groups_of,
    head_of,
    opened,
    recent,
    responses_of,
    together,
    windows,
)
from consolidator.errors import ContextTooLong, ScoringMisaligned, ScoringRejected, ScoringUnavailable, ScoringUnsupported
from consolidator.meters import ScoringPolicy
from consolidator.targets import (
    Context,
    leave_out,
    not_applicable,
    plan_contexts,
    says_something,
    split_thought,
    target,
    without_thoughts,
)
from consolidator.transcripts import MOST_TOKENS, Cell, Group, Matrix, Role, Scored, Segment, Transcript, Turn

NOW = datetime(2026, 3, 21, 13, tzinfo=UTC)
ROLES: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def turn(role: str, *segments: str | tuple[str, str]) -> Turn:
    """A segment is a text, or a text with the items that it shows."""
    told = [Segment(text=s) if isinstance(s, str) else Segment(text=s[0], items=frozenset(s[1].split())) for s in segments]
    return Turn(role=ROLES[role], segments=tuple(told))


def talk(*turns: Turn, closed: bool = True) -> Transcript:
    return Transcript(id="t", turns=turns, closed=closed, at=NOW)


def chat(exchanges: int, *shown: int, item: str = "m1", closed: bool = True) -> Transcript:
    """Questions and answers by turns; the questions at these exchanges show the item."""
    said = [
        each for n in range(exchanges)
        for each in (turn("u", f"question {n} ", *([(f"memory {item}", item)] if n in shown else [])), turn("a", f"answer {n}"))
    ]
    return talk(*said, closed=closed)


def scored(
    total: float, *, tokens: int = 10, ids: tuple[int, ...] | None = None, each: tuple[float, ...] | None = None
) -> Scored:
    return Scored(total=total, tokens=tokens, ids=ids, logprobs=each)


def group(*items: str) -> Group:
    return Group(items=items)


def items_of(groups: list[Group]) -> list[set[str]]:
    return [set(each.items) for each in groups]


# the primitive


def test_a05_what_made_an_answer_worse_is_negative() -> None:
    assert divergence(scored(-20.0), scored(-10.0)) == -1.0
    assert divergence(scored(-10.0), scored(-20.0)) == 1.0


def test_a07_a_long_response_weighs_no_more_than_a_short_one() -> None:
    short = divergence(scored(-5.0, tokens=5), scored(-10.0, tokens=5))
    assert divergence(scored(-500.0, tokens=500), scored(-1000.0, tokens=500)) == short == 1.0


def test_b10_noise_of_tokens_cancels_before_anything_is_cut() -> None:
    with_, without = (-1.0, -2.0, -1.0, -2.0), (-2.0, -1.0, -2.0, -1.0)
    assert divergence(scored(sum(with_), tokens=4, each=with_), scored(sum(without), tokens=4, each=without)) == 0.0


def test_b07_another_number_of_tokens_is_misaligned() -> None:
    with pytest.raises(ScoringMisaligned, match="10 tokens with, 9 without"):
        divergence(scored(-1.0), scored(-1.0, tokens=9))


def test_a02_another_number_of_scores_fills_nothing_in() -> None:
    cell = cell_of(scored(-9.0, tokens=9), scored(-1.0, tokens=1))
    assert (cell.status, cell.value, cell.reason.partition(":")[0]) == ("failed", None, "misaligned")


@pytest.mark.parametrize("other", [(1, 2, 4), None])
def test_other_tokens_are_misaligned(other: tuple[int, ...] | None) -> None:
    with pytest.raises(ScoringMisaligned, match="not the same"):
        divergence(scored(-1.0, tokens=3, ids=(1, 2, 3)), scored(-1.0, tokens=3, ids=other))


@pytest.mark.parametrize(
    "bad",
    [
        scored(math.nan), scored(-math.inf), scored(math.inf), scored(0.1), scored(-1.0, tokens=0),
        scored(-9999.5, tokens=2, each=(-0.5, -9999.0)), scored(-1.0, tokens=2, each=(-1.0, math.nan)),
        scored(-1.0, tokens=2, each=(-1.5, 0.5)), scored(-1.0, tokens=2, each=(-1.0,)), scored(-1.0, tokens=2, ids=(1,)),
    ],
)
def test_a18_what_is_no_log_probability_is_no_number(bad: Scored) -> None:
    for pair in ((bad, bad), (scored(-1.0, tokens=bad.tokens), bad), (bad, scored(-1.0, tokens=bad.tokens))):
        with pytest.raises(ScoringMisaligned):
            divergence(*pair)
    assert divergence(scored(1e-7), scored(-1.0)) > 0  # rounding


def test_a01_a_failed_call_is_unknown_and_in_no_sum() -> None:
    lost = cell_of(scored(-1.0), ScoringUnavailable("time-out"))
    assert (lost.status, lost.value, lost.reason) == ("failed", None, "unavailable: time-out")
    known = Cell(value=0.5, tokens=10, status="scored")
    matrix = Matrix(unit="u", groups=(group("m"),), responses=("r1", "r2"), cells=((lost, known),))
    assert (matrix.weight(0), matrix.row(0), matrix.incomplete) == (0.5, 0.5, True)
    assert [matrix.column(n) for n in (0, 1)] == [None, 0.5]  # unknown is not 0
    assert [matrix.column_incomplete(n) for n in (0, 1)] == [True, False]
    assert matrix.row_incomplete(0)


def test_a19_where_nothing_applies_nothing_is_known_and_nothing_failed() -> None:
    absent = Cell(status="not_applicable", reason="not_in_context")
    matrix = Matrix(unit="u", groups=(group("m"),), responses=("r1", "r2"), cells=((absent, absent),))
    assert (matrix.row(0), matrix.column(1), matrix.weight(0)) == (None, None, None)
    assert (matrix.row_incomplete(0), matrix.column_incomplete(1), matrix.incomplete) == (False, False, False)
    empty = Matrix(unit="u", groups=(), responses=("r1",), cells=())
    assert (empty.column(0), empty.column_incomplete(0), empty.incomplete) == (None, False, False)


def test_what_was_reckoned_of_a_transcript_is_not_that_of_its_copy() -> None:
    told = chat(2, 1)
    assert (told.responses, told.items, dict(told.showings)) == ((1, 3), ("m1",), {"m1": (2,)})
    shorter = told.model_copy(update={"turns": told.turns[:1]})
    assert (shorter.responses, shorter.items, dict(shorter.showings)) == ((), (), {})
    one = turn("a", "Berlin.")
    assert (one.text, one.items) == ("Berlin.", frozenset())
    assert one.model_copy(update={"segments": (Segment(text="Rome."),)}).text == "Rome."
    assert (told == chat(2, 1), hash(told) == hash(chat(2, 1))) == (True, True)
    assert Transcript.model_validate_json(told.model_dump_json()) == told


@pytest.mark.parametrize("ids", [(-1,), (2**63,), (1, 2**70)])
def test_tokens_that_no_database_can_hold_are_none(ids: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        Turn(role="assistant", segments=(Segment(text="x"),), token_ids=ids)


def test_a_turn_has_an_end_of_tokens() -> None:
    most = (2**63 - 1,) * MOST_TOKENS
    assert Turn(role="assistant", segments=(Segment(text="x"),), token_ids=most).token_ids == most
    with pytest.raises(ValidationError, match="at most 1000000 items"):
        Turn(role="assistant", segments=(Segment(text="x"),), token_ids=(*most, 1))


@pytest.mark.parametrize("id", ["x" * 129, "half \ud83d", "\udc00"])
def test_an_id_that_cannot_be_kept_names_no_item(id: str) -> None:
    with pytest.raises(ValidationError):
        Segment(text="x", items=frozenset({id}))
    assert Segment(text="x", items=frozenset({"x" * 128, "東" * 128})).items
    assert cell_of(ScoringUnsupported(), scored(-1.0)).reason.startswith("unsupported: ")
    assert cell_of(ContextTooLong(), ContextTooLong()).reason.startswith("context_too_long: ")


def test_too_short_a_response_is_not_applicable_rather_than_unknown() -> None:
    cell = cell_of(scored(-1.0, tokens=2), ScoringUnavailable())
    assert (cell.status, cell.reason, cell.tokens) == ("not_applicable", "too_short", 2)
    assert cell_of(scored(-1.0, tokens=3), scored(-4.0, tokens=3)).value == 1.0


def test_a06_zero_mean_noise_weighs_nothing_however_long_the_window() -> None:
    noise = [0.04 if n % 2 else -0.04 for n in range(50)]
    cells = tuple(Cell(value=value, tokens=10, status="scored") for value in noise)
    matrix = Matrix(unit="u", groups=(group("m"),), responses=tuple(map(str, range(50))), cells=(cells,))
    assert matrix.weight(0) == pytest.approx(0.0)


# groups


def test_a13_an_observation_and_its_evidence_leave_together() -> None:
    found = groups_of(["m1", "o1", "m2", "m3"], {"o1": ["m1", "m2", "unseen"], "unseen": ["m3"]}, {})
    assert found == [group("m1", "o1", "m2"), group("m3")]


def test_a13_two_that_say_the_same_leave_together() -> None:
    texts = {"m1": "Alice lives in Berlin.", "m2": " alice  LIVES in Berlin.", "m3": "Alice lives in Bern."}
    assert groups_of(["m1", "m3", "m2"], {}, texts) == [group("m1", "m2"), group("m3")]


def test_items_without_a_text_are_not_the_same() -> None:
    assert len(groups_of(["a", "b", "c"], {}, {"a": " ", "b": ""})) == 3


def test_b13_an_item_shown_again_is_in_one_group_once() -> None:
    assert groups_of(["m1", "m2", "m1"], {}, {}) == [group("m1"), group("m2")]


def test_a_large_part_is_cut_by_its_observations() -> None:
    evidence = {"o1": ["m1", "m2", "m3", "m4"], "o2": ["m4", "m5", "m6", "m7"]}
    shown = ["m1", "m2", "m3", "m4", "m5", "m6", "m7", "o1", "o2"]
    found = groups_of(shown, evidence, {})
    assert items_of(found) == [{"o1", "m1", "m2", "m3", "m4"}, {"o2", "m4", "m5", "m6", "m7"}]
    assert [each.id for each in found] == ["o1", "o2"]
    assert len(groups_of(shown[:-1], evidence, {})) == 4  # o1 with its own, and the three others alone


def test_eight_are_not_cut() -> None:
    assert [len(each.items) for each in groups_of([*"abcdefgh"], {"a": [*"bcdefgh"]}, {})] == [8]


def test_a13_a_large_part_is_not_cut_between_two_that_say_the_same() -> None:
    evidence = {"o1": ["m1", "m2", "m3", "m4"], "o2": ["m5", "m6", "m7", "m8"]}
    texts = {"m4": "said twice", "m5": "said twice"}
    found = items_of(groups_of([*evidence["o1"], *evidence["o2"], "o1", "o2"], evidence, texts))
    assert found == [{"o1", "m1", "m2", "m3", "m4", "m5"}, {"o2", "m4", "m5", "m6", "m7", "m8"}]
    many = [f"m{n}" for n in range(12)]
    assert items_of(groups_of(many, {}, dict.fromkeys(many, "all the same"))) == [set(many)]


# leaving out


def test_a04_every_showing_of_an_item_leaves() -> None:
    said = (turn("u", "one ", ("M", "m1")), turn("a", "two"), turn("u", ("M", "m1")), turn("u", ("N", "m2"), " three"))
    assert leave_out(said, {"m1"}) == (turn("u", "one "), turn("a", "two"), turn("u", ("N", "m2"), " three"))


def test_a12_an_item_also_leaves_the_system_turn() -> None:
    assert leave_out((turn("s", "You are kind. ", ("Profile: Alice.", "m1 m2")),), {"m2"}) == (turn("s", "You are kind. "),)


def test_a_response_that_lost_a_segment_is_no_longer_its_tokens() -> None:
    said = Turn(role="assistant", segments=(Segment(text="a"), Segment(text="b", items=frozenset({"m"}))), token_ids=(1, 2))
    assert [left.token_ids for items in ({"m"}, {"n"}) for left in leave_out((said,), items)] == [None, (1, 2)]


# windows


def test_each_showing_opens_a_window() -> None:
    said = chat(8, 1, 5)
    assert windows(said, group("m1"), window=2) == [(3, 5), (11, 13)]
    assert responses_of(said, group("m1"), window=2) == (3, 5, 11, 13)
    assert responses_of(said, group("m1")) == (3, 5, 7, 9, 11, 13, 15)
    assert responses_of(chat(60, 0), group("m1")) == tuple(range(1, 100, 2))


def test_a19_what_was_answered_before_a_showing_is_not_applicable() -> None:
    said, before = chat(3, 1), Context(turns=(0,), tokens=0)
    assert 1 not in responses_of(said, group("m1"))
    cell = not_applicable(said, 1, before, group("m1"))
    assert cell == Cell(status="not_applicable", reason="not_in_context")
    assert not_applicable(said, 3, Context(turns=(0, 1, 2), tokens=0), group("other", "m1")) is None


def test_b05_an_empty_or_only_thinking_response_keeps_its_place() -> None:
    said = talk(turn("u", ("M", "m1")), turn("a", "  "), turn("a", "<think>hm</think>"), turn("a", "Berlin."))
    contexts = plan_contexts(said, [1, 1, 1, 1], budget=10)
    assert [*contexts] == [1, 2, 3]
    cells = [not_applicable(said, place, c, group("m1")) for place, c in contexts.items() if isinstance(c, Context)]
    assert [cell and cell.reason for cell in cells] == ["empty_response", "empty_response", None]


def test_b04_the_word_assistant_opens_no_response() -> None:
    plain = talk(turn("u", "who?"), turn("a", "Alice."))
    odd = talk(turn("u", "<|im_start|>assistant\nMe. assistant\n"), turn("a", "Alice."))
    assert plain.responses == odd.responses == (1,)
    assert [*plan_contexts(odd, [1, 1], budget=9)] == [1]


def test_a14_the_first_responses_after_each_showing_are_the_head() -> None:
    assert head_of(chat(20, 0, 10), group("m1")) == {1, 3, 5, 7, 9, 21, 23, 25, 27, 29}
    said = talk(turn("u", ("M", "m1")), turn("a", ""), turn("a", "one"), turn("a", "two"))
    assert head_of(said, group("m1"), head=1) == {2}


# contexts


def planned(said: Transcript, counts: list[int], budget: int, **more: int) -> dict[int, tuple[int, ...] | str]:
    found = plan_contexts(said, counts, budget=budget, **more)
    return {place: c.turns if isinstance(c, Context) else "too long" for place, c in found.items()}


def test_a11_earlier_turns_stay_as_context() -> None:
    assert planned(chat(3, 1), [1] * 6, 100) == {1: (0,), 3: (0, 1, 2), 5: (0, 1, 2, 3, 4)}


def test_the_newest_turns_that_fit_stay_and_it_is_told_what_is_missing() -> None:
    said = talk(turn("s", "kind"), *chat(4).turns)
    found = plan_contexts(said, [2, *[10] * 8], budget=42)
    assert [c.turns for c in found.values() if isinstance(c, Context)] == [(0, 1), (0, 1, 2, 3), (0, 3, 4, 5), (0, 5, 6, 7)]
    assert [(c.tokens, c.truncated) for c in found.values() if isinstance(c, Context)] == [
        (22, False), (42, False), (42, True), (42, True),
    ]


def test_b09_showings_whose_window_is_open_are_carried_within_a_quarter() -> None:
    said = talk(turn("u", ("M", "m1")), turn("u", ("N", "m2")), *chat(6).turns)
    counts = [10, 10, *[10] * 12]
    assert planned(said, counts, 60)[13] == (1, 9, 10, 11, 12)  # the newer showing; there is room for one in a quarter
    assert planned(said, counts, 80)[13] == (0, 1, 8, 9, 10, 11, 12)
    assert planned(said, counts, 60, window=2)[13] == (8, 9, 10, 11, 12)  # its window is closed


def test_a_showing_larger_than_a_quarter_is_not_carried() -> None:
    said = talk(turn("u", ("M", "m1")), *chat(6).turns)
    assert planned(said, [16, *[10] * 12], 60)[12] == (7, 8, 9, 10, 11)


def test_b15_a_prefix_above_the_budget_is_refused_with_both_numbers() -> None:
    said = talk(turn("s", "long"), turn("s", "longer"), *chat(1).turns)
    with pytest.raises(ScoringRejected, match="have 70 tokens, and a context may have 60"):
        plan_contexts(said, [30, 40, 1, 1], budget=60)
    with pytest.raises(ScoringMisaligned, match="3 counts of tokens for 4 turns"):
        plan_contexts(said, [1, 1, 1], budget=60)


def test_b15_a_response_that_does_not_fit_with_its_question_is_unknown() -> None:
    found = plan_contexts(talk(turn("s", "x"), *chat(2).turns), [5, 50, 20, 10, 20], budget=70)
    assert isinstance(found[2], ContextTooLong)
    assert str(found[2]) == "the response with its question has 75 tokens, and a context may have 70"
    assert found[4] == Context(turns=(0, 2, 3), tokens=55, truncated=True)


def test_b08_borders_do_not_move_with_what_is_left_out() -> None:
    said = chat(6, 0, 2)
    context = plan_contexts(said, [10] * 12, budget=60)[11]
    assert isinstance(context, Context)
    base, without = target(said, 11, context), target(said, 11, context, {"m1"})
    assert leave_out(base.context, {"m1"}) == without.context
    assert (base.response, without.response) == ("answer 5", "answer 5")


def test_b09_equal_prompts_are_equal_values() -> None:
    said = chat(3, 1)
    context = Context(turns=(0, 1, 2), tokens=0)
    assert len({target(said, 3, context, out) for out in (set(), {"m1"}, {"m2"}, {"m1", "m2"})}) == 2


# thoughts


@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        ("Berlin.", "", "Berlin."), ("<think>she moved</think>\n\nBerlin.", "she moved", "Berlin."),
        ("she moved</think>Berlin.", "she moved", "Berlin."), ("<think>she mo", "she mo", ""),
        ("Well, <think>a</think>Berlin <think>b</think>now.", "ab", "Well, Berlin now."),
        ("The tag <think> opens it.", "", "The tag <think> opens it."),
    ],
)
def test_a_thought_is_told_from_what_was_said(text: str, thought: str, said: str) -> None:
    assert split_thought(text) == (thought, said)


def test_thoughts_are_in_neither_part() -> None:
    asked, answer = turn("u", "where? </think>", ("M", "m1")), turn("a", "<think>M</think>Berlin.")
    said = talk(asked, answer, turn("a", "<think>only</think>"), turn("a", "<think>M</think>Yes."))
    found = target(said, 3, Context(turns=(0, 1, 2), tokens=0))
    assert (found.context, found.response) == ((asked, turn("a", "Berlin.")), "Yes.")
    assert target(said, 3, Context(turns=(0,), tokens=0), thought="score").response == "<think>M</think>Yes."


def test_a_thought_over_several_segments_leaves_each_its_own() -> None:
    said = turn("a", "<think>it ", ("is M", "m1"), "</think>Ber", ("lin", "m2"))
    assert without_thoughts(said) == turn("a", "Ber", ("lin", "m2"))
    assert [says_something(each) for each in (said, turn("a", "<think>x"))] == [True, False]


def test_known_tokens_stand_only_for_the_whole_text() -> None:
    texts = ("Berlin.", "<think>M</think>Berlin.")
    turns = [Turn(role="assistant", segments=(Segment(text=text),), token_ids=(7, 8)) for text in texts]
    ids = [target(talk(each), 0, Context(turns=(), tokens=0)).response_ids for each in turns]
    assert ids == [(7, 8), None]


@pytest.mark.parametrize("text", ["Well, " + "<think> " * 200_000, "<think>" * 200_000, "<think>a</think>" * 50_000])
def test_a_mark_that_nothing_ends_is_looked_for_once(text: str) -> None:
    began = time.process_time()
    split_thought(text)
    assert time.process_time() - began < 5.0  # quadratic, it took hours


def test_marks_of_thoughts_are_words() -> None:
    with pytest.raises(ValidationError):
        ScoringPolicy(thought_marks=("", "</think>"))


def test_other_marks_are_other_thoughts() -> None:
    assert split_thought("[T]M[/T] <think>x</think>", ("[T]", "[/T]")) == ("M", "<think>x</think>")


# two levels


@pytest.mark.parametrize(("groups", "keep", "number"), [(30, 2, 8), (60, 2, 11), (30, 3, 9), (1, 2, 1), (2, 9, 2), (100, 2, 14)])
def test_as_many_buckets_as_make_the_fewest_prompts(groups: int, keep: int, number: int) -> None:
    dealt = buckets([group(f"m{n}") for n in range(groups)], keep)
    assert len(dealt) == number
    assert [each[0].id for each in dealt] == [f"m{n}" for n in range(number)]


def test_no_groups_make_no_buckets() -> None:
    assert buckets([]) == []


def test_a18_the_best_buckets_are_opened_ties_in_order() -> None:
    assert opened([0.1, None, 0.3, math.nan, 0.3, -1.0], keep=2) == (2, 4)
    assert opened([0.1, 0.3, 0.3, 0.3], keep=2) == (1, 2)
    assert opened([None], keep=2) == ()


def test_a_bucket_that_was_worth_nothing_shares_that_out() -> None:
    shares = bucket_cells(Cell(value=0.04, tokens=12, status="scored"), [True, False, True])
    assert [(c.value, c.how, c.share, c.status, c.tokens) for c in shares] == [
        (0.02, "bucket", 0.5, "scored", 12), (None, "exact", 1.0, "not_applicable", 0), (0.02, "bucket", 0.5, "scored", 12),
    ]
    (closed,) = bucket_cells(Cell(value=-0.06, tokens=12, status="scored"), [True])
    assert (closed.value, closed.status, closed.reason) == (None, "failed", "not_opened")
    lost = Cell(status="failed", reason="unavailable: 503")
    assert bucket_cells(lost, [True]) == [lost]


def test_a_bucket_leaves_out_each_item_once() -> None:
    assert together([group("o1", "m1"), group("o2", "m1")]) == group("o1", "m1", "o2")


# what is due


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def test_the_longest_unscored_first_ties_in_order() -> None:
    groups = [group(item) for item in ("m1", "m2", "m3", "m4", "m5")]
    said = talk(turn("u", ("all of them", "m1 m2 m3 m4 m5")), turn("a", "yes"))
    last = {"m1": ago(61), "m2": ago(600), "m4": ago(60), "m5": ago(59.9)}
    found = due(said, groups, now=NOW, last_scored=last, scored={})
    assert [each.id for each in found.groups] == ["m3", "m2", "m1", "m4"]
    assert found.skipped == ((groups[4], "not_due"),)


def test_a_group_is_as_old_as_the_item_that_was_scored_least_lately() -> None:
    said, both = talk(turn("u", ("M", "m1 o1")), turn("a", "yes")), group("m1", "o1")
    assert due(said, [both], now=NOW, last_scored={"m1": ago(1)}, scored={}).groups == (both,)
    assert due(said, [both], now=NOW, last_scored={"m1": ago(1), "o1": ago(90)}, scored={}).groups == (both,)
    assert due(said, [both], now=NOW, last_scored={"m1": ago(1), "o1": ago(1)}, scored={}).groups == ()


def test_a09_a_window_without_a_new_response_is_not_scored_again() -> None:
    said, one, long_ago = chat(2, 0), group("m1"), {"m1": ago(9999)}
    both, first = (dict.fromkeys([one], responses) for responses in ({"t/1", "t/3"}, {"t/1"}))
    assert due(said, [one], now=NOW, last_scored=long_ago, scored=both).skipped == ((one, "not_due"),)
    assert due(said, [one], now=NOW, last_scored=long_ago, scored=first).groups == (one,)


@pytest.mark.parametrize(
    ("shown", "closed", "window", "skip"),
    [
        (1, False, 50, None), (2, False, 50, "window_not_full"), (2, True, 50, None), (2, False, 6, None),
        (2, False, 7, "window_not_full"),
    ],
)
def test_a17_a_window_that_is_not_full_waits_and_says_so(shown: int, closed: bool, window: int, skip: str | None) -> None:
    said = chat(8, shown, closed=closed)  # 16 turns: the first quarter ends before the third question
    found = due(said, [group("m1")], now=NOW, last_scored={}, scored={}, window=window)
    assert [reason for _, reason in found.skipped] == [reason for reason in [skip] if reason]


def test_a17_nothing_was_answered_yet() -> None:
    said = talk(turn("a", "hello"), turn("u", ("M", "m1")), turn("a", ""))
    assert due(said, [group("m1"), group("unseen")], now=NOW, last_scored={}, scored={}).skipped == (
        (group("m1"), "no_response"), (group("unseen"), "no_response"),
    )


# candidates


def test_responses_that_lean_on_memory_come_first_and_an_empty_list_explains_itself() -> None:
    cells = {
        "t/1": Cell(value=0.1, tokens=20, status="scored"), "t/3": Cell(value=0.4, tokens=2, status="scored"),
        "t/5": Cell(status="failed", reason="unavailable: 503"), "t/7": Cell(value=0.1, tokens=4, status="scored"),
        "t/9": Cell(value=-0.2, tokens=4, status="scored"),
    }
    report = candidates_of(cells, threshold=1.0)
    assert [one.response for one in report.candidates] == ["t/3", "t/1", "t/7", "t/9", "t/5"]
    assert (report.seen, report.above, report.highest, report.errors) == (5, 1, 0.4, ("unavailable: 503",))
    assert candidates_of(cells, threshold=0.3, per_token=True).above == 1
    assert candidates_of({}).model_dump() == {"candidates": (), "seen": 0, "above": 0, "highest": None, "errors": ()}


def test_the_range_of_candidates_counts_turns() -> None:
    assert [recent(chat(4), count) for count in (0, 1, 3, 99)] == [(), (7,), (5, 7), (1, 3, 5, 7)]


def test_space_before_a_thought_is_none_of_it() -> None:
    assert split_thought("\n<think>Hm.</think>An answer.") == ("Hm.", "\nAn answer.")
