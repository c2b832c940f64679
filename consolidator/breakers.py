"""When to leave an endpoint alone: a breaker, as pure steps on what is known of its health. Times are seconds of one clock."""

from __future__ import annotations

from consolidator.models import Value
from consolidator.plans import Breaker

A_DAY = 86_400.0  # seconds

PROBED = 5.0  # seconds after which others look whether a probe has had an answer


class BreakerPolicy(Value):
    """failures: in a row, after which an endpoint rests; or `share` of the last `window` calls. rest: seconds of the first rest;
    it doubles with each probe that fails, up to `longest`. probe: seconds that a probe may take.
    """

    failures: int = 5
    window: int = 20
    share: float = 0.5
    rest: float = 30.0
    longest: float = 600.0
    probe: float = 120.0


def entered(breaker: Breaker, now: float, who: str, policy: BreakerPolicy) -> Breaker:
    """`who` wants to ask. After a rest one alone may, as a probe."""
    free = breaker.probing is None or now >= breaker.probe_until
    if not breaker.rest or now < breaker.open_until or not free:
        return breaker
    return breaker.model_copy(update={"probing": who, "probe_until": now + policy.probe})


def wait(breaker: Breaker, now: float, who: str) -> float:
    """Seconds until it is worth to try again; 0: ask now."""
    if now < breaker.open_until:
        return breaker.open_until - now
    if breaker.probing in (None, who):
        return 0.0
    return max(0.0, min(PROBED, breaker.probe_until - now))


def asked_to_wait(after: float | None, otherwise: float) -> float:
    """Seconds that a server's word is worth: a day at most, and `otherwise` where it makes no sense."""
    return min(after, A_DAY) if after is not None and after > 0 else otherwise


def succeeded(breaker: Breaker, policy: BreakerPolicy) -> Breaker:
    """It answered, whatever the answer was worth. A rest is over."""
    recent = (True,) if breaker.rest else (*breaker.recent, True)[-policy.window :]
    return Breaker(endpoint=breaker.endpoint, recent=recent)


def failed(breaker: Breaker, now: float, reason: str, policy: BreakerPolicy) -> Breaker:
    """No answer. Calls that were under way when the rest began do not make it longer."""
    recent = (*breaker.recent, False)[-policy.window :]
    told = breaker.model_copy(update={"recent": recent})
    if now < breaker.open_until:
        return told
    if breaker.rest:
        return _resting(told, now, min(policy.longest, 2 * breaker.rest), reason)
    in_a_row = len(recent) >= policy.failures and not any(recent[-policy.failures :])
    mostly = len(recent) == policy.window and recent.count(False) >= policy.share * policy.window
    return _resting(told, now, policy.rest, reason) if in_a_row or mostly else told


def busy(breaker: Breaker, now: float, after: float) -> Breaker:
    """A rate limit: everybody waits, and nothing is known against the endpoint."""
    until = max(breaker.open_until, now + after)
    return breaker.model_copy(update={"open_until": until, "probing": None, "reason": "its rate limit is reached"})


def denied(breaker: Breaker, now: float, reason: str, policy: BreakerPolicy) -> Breaker:
    """A key, an account or a name is refused: only a person can mend that."""
    return _resting(breaker, now, policy.longest, reason)


def _resting(breaker: Breaker, now: float, rest: float, reason: str) -> Breaker:
    fields = {"rest": rest, "open_until": now + rest, "probing": None, "reason": reason}
    return breaker.model_copy(update=fields)
