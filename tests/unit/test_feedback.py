"""From measurements to a bounded factor: what moves a mean, how far, and what is not known."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from consolidator.errors import ScoringMisaligned
from consolidator.feedback import (
    FeedbackPolicy,
    counts,
    decayed,
    factor,
    shrunk,
    sigma,
    stepper,
    strongest_first,
    updated,
)
from consolidator.transcripts import Importance, Score

NOW = datetime(2026, 3, 21, 13, tzinfo=UTC)
QUICK_UP = FeedbackPolicy(rise=0.5, fall=0.1)


def score(
    value: float, *, tokens: int = 20, at: datetime = NOW, items: str = "m", response: str = "t/1", **more: object
) -> Score:
    return Score.model_validate({
        "unit": "u", "response": response, "items": tuple(items.split()), "context": frozenset(items.split()), "value": value,
        "tokens": tokens, "at": at, **more,
    })


def days(number: float) -> datetime:
    return NOW + timedelta(days=number)


def after(*values: float, tokens: int = 20, policy: FeedbackPolicy | None = None) -> Importance:
    state: Importance | None = None
    for value in values:
        state = updated(state, score(value, tokens=tokens), "m", policy or FeedbackPolicy())
    assert state
    return state


@pytest.mark.parametrize(("tokens", "omega"), [(4, 1 / 6), (20, 0.5), (200, 200 / 220)])
def test_the_first_measurement_is_the_mean_and_its_length_the_weight(tokens: int, omega: float) -> None:
    state = after(0.8, tokens=tokens)
    assert (state.mean, state.tokens, state.updates) == (0.8, tokens, 1)
    assert state.n == pytest.approx(omega)
    assert (state.maximum, state.last_scored, state.unit, state.item) == (0.8, NOW, "u", "m")


def test_a_running_mean_first_then_one_that_forgets() -> None:
    assert after(1.0, 0.0).mean == pytest.approx(0.5)
    assert after(1.0, 0.0, 0.5).mean == pytest.approx(0.5)
    old, new = after(*[0.0] * 40), after(*[0.0] * 40, 1.0)
    assert new.mean - old.mean == pytest.approx(0.3 * 0.5)  # n is 20: a running mean would move by 0.025


def test_a_long_answer_moves_a_mean_further_than_a_short_one() -> None:
    state = after(*[0.0] * 9)
    short, long = (updated(state, score(1.0, tokens=tokens), "m").mean for tokens in (4, 200))
    assert 0 < short < long


def test_values_are_clipped_but_the_maximum_is_what_was_measured() -> None:
    assert (after(7.0).mean, after(7.0).maximum) == (2.0, 7.0)
    assert (after(-7.0).mean, after(-7.0, -9.0).maximum) == (-2.0, -7.0)


def test_a05_a_harmful_item_keeps_its_negative_mean_and_sinks_no_lower_than_a_useless_one() -> None:
    harmful = after(-1.0, -1.0)
    assert harmful.mean == -1.0
    assert factor(harmful, 0.0, NOW, 0.2) == 1.0
    assert factor(harmful, 0.5, NOW, 0.2) == pytest.approx(1 - 0.2 * sigma(0.5))


def test_measurements_age_by_half_in_90_days() -> None:
    state = after(1.0)
    assert decayed(state, days(90)) == pytest.approx(0.25)
    later = updated(state, score(0.0, at=days(90)), "m")
    assert later.n == pytest.approx(0.75)
    assert later.mean == pytest.approx(1 / 3)


def test_a_clock_that_runs_backwards_ages_nothing_and_adds_nothing() -> None:
    state = after(1.0)
    assert decayed(state, days(-10_000)) == state.n
    back = updated(state, score(0.0, at=days(-10_000)), "m")
    assert back.n == pytest.approx(1.0)
    assert back.last_scored == NOW
    assert shrunk(state, 0.0, days(-10_000)) == shrunk(state, 0.0, NOW)


def test_another_unit_begins_anew() -> None:
    assert updated(after(1.0, 1.0), score(0.1, unit="v"), "m") == updated(None, score(0.1, unit="v"), "m")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a18_what_is_not_finite_moves_no_mean(value: float) -> None:
    with pytest.raises(ScoringMisaligned):
        updated(None, score(1.0).model_copy(update={"value": value}), "m")


def test_a_measurement_on_nothing_says_nothing() -> None:
    nothing = updated(None, score(1.0, tokens=0), "m")
    assert nothing.n == 0.0
    assert factor(nothing, 0.3, NOW, 0.2) == pytest.approx(1.0)
    assert updated(after(1.0), score(-1.0, tokens=0), "m").mean == 1.0


def test_a_share_of_a_bucket_weighs_its_share() -> None:
    whole, part = (updated(after(0.0), score(1.0, share=share), "m") for share in (1.0, 0.25))
    assert whole.n == 1.0
    assert part.n == pytest.approx(0.625)
    assert part.mean == pytest.approx(0.125 / 0.625)


def test_a17_quick_to_see_importance_and_slow_to_forget_it() -> None:
    up = updated(after(0.2, policy=QUICK_UP), score(1.0), "m", QUICK_UP)
    down = updated(after(1.0, policy=QUICK_UP), score(0.2), "m", QUICK_UP)
    assert up.mean == pytest.approx(0.6)
    assert down.mean == pytest.approx(0.92)
    useful_one_time_in_four = after(*[1.0, 0.0, 0.0, 0.0] * 10, policy=QUICK_UP)
    assert useful_one_time_in_four.mean > 0.5 > after(*[1.0, 0.0, 0.0, 0.0] * 10).mean


def test_few_measurements_are_drawn_towards_the_bank() -> None:
    assert shrunk(after(1.0), 0.2, NOW) == pytest.approx((0.5 + 0.4) / 2.5)
    assert shrunk(after(*[1.0] * 100), 0.2, NOW) == pytest.approx((50 + 0.4) / 52)
    assert shrunk(after(*[1.0] * 100), 0.2, days(10_000)) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("value", "signal"), [(-3.0, 0.0), (0.0, 0.0), (0.05, math.log(2) / math.log(21)), (1.0, 1.0), (9.0, 1.0)]
)
def test_the_signal_runs_from_noise_to_decisive(value: float, signal: float) -> None:
    assert sigma(value) == pytest.approx(signal)


def test_unknown_is_exactly_neutral_and_so_is_no_weight() -> None:
    assert factor(None, 0.7, NOW, 0.2) == 1.0
    assert factor(after(1.0), 0.1, NOW, 0.0) == 1.0
    assert factor(after(*[1.0] * 200), 0.0, NOW, 0.2) == pytest.approx(1.2, abs=0.002)
    assert factor(after(*[0.0] * 200), 1.0, NOW, 0.2) < 1.0


def test_a14_late_zeros_do_not_count_and_late_surprises_do() -> None:
    assert counts(0.0, [0.8], head=True)
    assert not counts(0.0, [0.8], head=False)
    assert not counts(0.85, [0.8, 0.1], head=False)
    assert counts(0.86, [0.8, 0.1], head=False)
    assert not counts(0.05, [], head=False)


def test_a_policy_is_frozen_and_refuses_nonsense() -> None:
    for wrong in ({"half_life": 0}, {"noise": -1}, {"rise": 2}, {"clip": math.nan}, {"halflife": 3}):
        with pytest.raises(ValidationError):
            FeedbackPolicy.model_validate(wrong)


def fold(scores: list[Score]) -> dict[str, Importance]:
    """As a ledger keeps them: a key once."""
    step, states, kept = stepper(scores), dict[str, Importance](), set[str]()
    for each in scores:
        if each.key not in kept and each.counts:
            kept.add(each.key)
            states |= {item: step(states.get(item), each, item) for item in each.items}
    return states


def test_an_item_of_two_groups_takes_its_largest_value_once() -> None:
    scores = strongest_first([score(0.1, items="o1 m1"), score(0.9, items="o2 m1"), score(-0.5, items="o3 m1")])
    states = fold(scores)
    assert {item: (state.mean, state.updates) for item, state in states.items()} == {
        "m1": (0.9, 1), "o1": (0.1, 1), "o2": (0.9, 1), "o3": (-0.5, 1),
    }


def test_an_item_takes_nothing_from_a_score_that_does_not_count() -> None:
    later = [score(0.5, items="o1 m1"), score(0.9, items="o2 m1", counts=False)]
    before = score(0.1, items="o1 m1", response="t/0")
    assert fold([before, *strongest_first(later)])["m1"].mean == pytest.approx(0.3)


def test_other_responses_move_it_again() -> None:
    states = fold([score(0.4, response="t/1"), score(0.8, response="t/3")])
    assert states["m"].updates == 2
    assert states["m"].mean == pytest.approx(0.6)
