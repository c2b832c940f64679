"""The breaker's rules, on values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consolidator.breakers import BreakerPolicy, busy, denied, entered, failed, succeeded, wait
from consolidator.plans import Breaker

POLICY = BreakerPolicy()
FRESH = Breaker(endpoint="e")


def failing(times: int, breaker: Breaker = FRESH, now: float = 100.0) -> Breaker:
    for _ in range(times):
        breaker = failed(breaker, now, "no answer", POLICY)
    return breaker


def test_it_opens_after_five_failures_in_a_row() -> None:
    assert wait(failing(4), 100.0, "w") == 0
    assert wait(failing(5), 100.0, "w") == 30
    broken = succeeded(failing(4), POLICY)
    assert wait(failing(4, broken), 100.0, "w") == 0


def test_it_opens_when_half_of_the_last_calls_failed() -> None:
    breaker = FRESH
    for n in range(19):
        breaker = failed(breaker, 100.0, "no answer", POLICY) if n % 2 else succeeded(breaker, POLICY)
        assert wait(breaker, 100.0, "w") == 0
    assert wait(failed(breaker, 100.0, "no answer", POLICY), 100.0, "w") == 30


def test_after_a_rest_one_alone_probes() -> None:
    open_ = failing(5)
    assert entered(open_, 129.0, "a", POLICY) == open_
    half = entered(open_, 130.0, "a", POLICY)
    assert (wait(half, 130.0, "a"), wait(half, 130.0, "b")) == (0, 5)
    assert entered(half, 131.0, "b", POLICY) == half
    # a prober that died is not waited for for ever
    assert wait(entered(half, 130.0 + POLICY.probe, "b", POLICY), 130.0 + POLICY.probe, "b") == 0


def test_a_failed_probe_doubles_the_rest_and_a_good_one_ends_it() -> None:
    breaker, now, rests = failing(5), 100.0, []
    for _ in range(7):
        now = breaker.open_until
        breaker = failed(entered(breaker, now, "a", POLICY), now, "no answer", POLICY)
        rests.append(wait(breaker, now, "a"))
    assert rests == [60, 120, 240, 480, 600, 600, 600]
    assert wait(succeeded(breaker, POLICY), now, "b") == 0


def test_calls_that_were_under_way_do_not_make_a_rest_longer() -> None:
    assert failing(9).open_until == failing(5).open_until


def test_a_rate_limit_makes_everybody_wait_and_is_no_failure() -> None:
    breaker = busy(FRESH, 100.0, 7.0)
    assert wait(breaker, 100.0, "w") == 7
    assert (wait(breaker, 107.0, "a"), wait(breaker, 107.0, "b"), breaker.recent) == (0, 0, ())


def test_a_refused_key_rests_longest() -> None:
    assert wait(denied(FRESH, 100.0, "no such key", POLICY), 100.0, "w") == POLICY.longest


steps = st.lists(st.tuples(st.sampled_from(["enter", "ok", "fail", "busy", "denied"]), st.floats(0, 700)), max_size=60)


@given(steps)
def test_whatever_happens_somebody_may_ask_again_within_the_longest_rest(told: list[tuple[str, float]]) -> None:
    breaker, now = FRESH, 0.0
    for step, passed in told:
        now += passed
        match step:
            case "enter":
                breaker = entered(breaker, now, "w", POLICY)
            case "ok":
                breaker = succeeded(breaker, POLICY)
            case "fail":
                breaker = failed(breaker, now, "no answer", POLICY)
            case "busy":
                breaker = busy(breaker, now, 5.0)
            case _:
                breaker = denied(breaker, now, "key", POLICY)
    later = now + max(POLICY.longest, POLICY.probe)
    assert wait(entered(breaker, later, "new", POLICY), later, "new") == 0
    assert len(breaker.recent) <= POLICY.window
