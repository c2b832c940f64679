"""How measurements become an item's importance, and importance a bounded factor in ranking. Pure.

    omega = share * L / (L + 20)                                  the weight of a value that was measured on L tokens
    n     = n * 2^(-days / 90) + omega
    mean  = mean + min(1, max(0.3 omega, omega / n)) * (x - mean)          a running mean at first, then one that forgets
    s     = (n mean + 2 prior) / (n + 2)                          few measurements say little
    sigma = clip(log(1 + max(0, s) / 0.05) / log 21, 0, 1)        0.05 nats per token is noise, 1 is decisive
    score * (1 + weight * (sigma(s) - sigma(prior)))              unknown: exactly 1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from pydantic import ConfigDict, Field

from consolidator.errors import ScoringMisaligned
from consolidator.models import Value
from consolidator.transcripts import Importance, Score

SECONDS_A_DAY = 86_400.0
Step = Callable[[Importance | None, Score, str], Importance]


class FeedbackPolicy(Value):
    """The numbers of the formula above.

    rise, fall: instead of `rate`, the share of the way to a higher and to a lower value, 0.5 and 0.1 for one that is quick to see
    importance and slow to forget it; whatever the number of tokens and of measurements.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    half_life: float = Field(default=90.0, gt=0)  # days
    clip: float = Field(default=2.0, gt=0)  # nats per token, either way
    half_weight: float = Field(default=20.0, gt=0)  # tokens at which a value counts for half
    rate: float = Field(default=0.3, gt=0, le=1)
    rise: float | None = Field(default=None, gt=0, le=1)
    fall: float | None = Field(default=None, gt=0, le=1)
    prior_weight: float = Field(default=2.0, gt=0)  # measurements
    noise: float = Field(default=0.05, gt=0)  # nats per token
    decisive: float = Field(default=1.0, gt=0)  # nats per token


DEFAULT = FeedbackPolicy()


def updated(state: Importance | None, score: Score, item: str, policy: FeedbackPolicy = DEFAULT) -> Importance:
    """The state of an item after a measurement. One in another unit begins anew: units are never put together.

    A clock that runs backwards ages nothing, and moves `last_scored` nowhere. Raises ScoringMisaligned for a value that is not
    finite.
    """
    if not (math.isfinite(score.value) and math.isfinite(score.share)):
        raise ScoringMisaligned("a value that is not finite moves no mean")
    old = state if state and state.unit == score.unit else None
    x = min(max(score.value, -policy.clip), policy.clip)
    omega = max(score.share, 0.0) * score.tokens / (score.tokens + policy.half_weight) if score.tokens > 0 else 0.0
    n = omega + (decayed(old, score.at, policy) if old else 0.0)
    mean = old.mean + _step(x > old.mean, omega, n, score.share, policy) * (x - old.mean) if old and old.n else x
    return Importance(
        item=item, unit=score.unit, mean=mean, n=n, tokens=score.tokens + (old.tokens if old else 0),
        maximum=max(score.value, old.maximum) if old else score.value,
        last_scored=max(score.at, old.last_scored) if old else score.at, updates=1 + (old.updates if old else 0),
    )


def _step(up: bool, omega: float, n: float, share: float, policy: FeedbackPolicy) -> float:
    if (given := policy.rise if up else policy.fall) is not None:
        return given * min(max(share, 0.0), 1.0) if omega else 0.0
    return min(1.0, max(policy.rate * omega, omega / n)) if n else 0.0


def decayed(state: Importance, now: datetime, policy: FeedbackPolicy = DEFAULT) -> float:
    """How many measurements it is worth by now; never more than when it was scored."""
    days = max(0.0, (now - state.last_scored).total_seconds() / SECONDS_A_DAY)
    return float(state.n * 2.0 ** (-days / policy.half_life))


def shrunk(state: Importance, prior: float, now: datetime, policy: FeedbackPolicy = DEFAULT) -> float:
    """What is believed of an item, nats per token: its mean, drawn towards the bank's where little was measured, or long ago."""
    n = decayed(state, now, policy)
    return (n * state.mean + policy.prior_weight * prior) / (n + policy.prior_weight)


def sigma(value: float, policy: FeedbackPolicy = DEFAULT) -> float:
    """Nats per token as a signal in [0, 1]; what made answers worse sinks no lower than what was useless."""
    scale = math.log1p(policy.decisive / policy.noise)
    return min(math.log1p(max(0.0, value) / policy.noise) / scale, 1.0)


def factor(
    state: Importance | None, prior: float, now: datetime, weight: float, policy: FeedbackPolicy = DEFAULT
) -> float:
    """The multiplier of a score, in [1 - weight, 1 + weight]; exactly 1 for an item that was never measured, or a weight of 0.

    prior: the mean of `mean` over the bank's known items of the unit.
    """
    if state is None or weight == 0:
        return 1.0
    return 1.0 + weight * (sigma(shrunk(state, prior, now, policy), policy) - sigma(prior, policy))


def counts(value: float, means: Iterable[float], *, head: bool, policy: FeedbackPolicy = DEFAULT) -> bool:
    """Whether a value moves the means of its items, which are given as far as they are known.

    The first responses of a window always do. A later one only where it exceeds them all by more than noise: once an answer
    has said the fact, later answers need the memory no more, and that must not count against it.
    """
    return head or value > max(means, default=0.0) + policy.noise


def strongest_first(scores: Iterable[Score]) -> list[Score]:
    """Scores in the order in which to keep them, so that `stepper` gives an item of several groups its largest value."""
    return sorted(scores, key=lambda score: (-score.value, score.key))


def stepper(scores: Sequence[Score], policy: FeedbackPolicy = DEFAULT) -> Step:
    """`updated`, for scores that are kept together, in the order of `strongest_first`.

    Where groups overlap, an item is moved once by a response: by the group that was worth most to it.
    """
    takes: dict[tuple[str, str, str], str] = {}
    for score in (each for each in strongest_first(scores) if each.counts):
        for item in score.items:
            takes.setdefault((score.unit, score.response, item), score.key)

    def step(state: Importance | None, score: Score, item: str) -> Importance:
        taken = takes.get((score.unit, score.response, item), score.key)
        return state if state and taken != score.key else updated(state, score, item, policy)

    return step
