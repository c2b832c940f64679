"""Whether what was called certain proves true: first stated confidence against what other sources said later. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import sqrt
from typing import Literal

from consolidator.models import ObservationState, Value
from consolidator.plans import History

Verdict = Literal["confirmed", "contradicted", "untested"]
BANDS = ((0.9, 1.0), (0.7, 0.9), (0.5, 0.7), (0.0, 0.5))  # of the rubric; the lower end belongs to a band
LEAST = 5  # tested items of a band, before its rate says something
Z = 1.959964  # standard deviations, of a 95 % interval


class Trial(Value):
    """An item and what became of it. confidence: of its first version. Sources: later ones, other than its first."""

    id: str
    confidence: float
    verdict: Verdict
    confirming: int = 0
    against: int = 0


class Band(Value):
    """Items whose first confidence was in [low, high), the highest band with 1.0. rate: confirmed of those that were tested;
    interval: Wilson's, 95 %. None where none was tested.
    """

    low: float
    high: float
    n: int
    confirmed: int
    contradicted: int
    rate: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def tested(self) -> int:
        return self.confirmed + self.contradicted


class Calibration(Value):
    """bands: the highest first. brier: mean squared distance of confidence and outcome over the tested items; 0.25 is guessing.

    rises: whether the rates rise with the confidence; None while too little is known, and `reason` says what is missing.
    """

    items: int = 0
    tested: int = 0
    bands: tuple[Band, ...] = ()
    brier: float | None = None
    rises: bool | None = None
    reason: str | None = None


def trials(histories: Iterable[History]) -> list[Trial]:
    """Items that were merged into others are none of their own."""
    every = list(histories)
    against: dict[str, set[str]] = defaultdict(set)
    for history in every:
        o = history.observation
        if o.contests and o.state is ObservationState.LIVE:
            against[o.contests] |= {e.source for e in o.evidence if e.supports}
    return [_trial(history, against[history.observation.id]) for history in every if history.current.change != "merge"]


def _trial(history: History, against: set[str]) -> Trial:
    o, first = history.observation, history.versions[0]
    mine = _first_sources(history)
    confirming = {e.source for e in o.evidence if e.supports} - mine
    against = against - mine
    withdrawn = o.state is ObservationState.RETRACTED or any(v.change == "correction" for v in history.versions[1:])
    verdict: Verdict = "confirmed" if confirming else "untested"
    if withdrawn or (against and len(against) >= len(confirming)):
        verdict = "contradicted"
    return Trial(id=o.id, confidence=first.confidence, verdict=verdict, confirming=len(confirming), against=len(against))


def _first_sources(history: History) -> set[str]:
    """What it was first said by; where that was erased, the earliest that is left."""
    evidence = sorted(history.observation.evidence, key=lambda e: (e.occurred_at, e.memory_id))
    return {e.source for e in evidence if e.memory_id in history.versions[0].lineage} or {e.source for e in evidence[:1]}


def calibration(tried: Sequence[Trial]) -> Calibration:
    """What the verdicts say of the confidences."""
    tested = [trial for trial in tried if trial.verdict != "untested"]
    bands = tuple(_band(low, high, tried) for low, high in BANDS)
    errors = [(trial.confidence - (trial.verdict == "confirmed")) ** 2 for trial in tested]
    rises, reason = _rising(bands)
    return Calibration(
        items=len(tried), tested=len(tested), bands=bands, brier=sum(errors) / len(errors) if errors else None, rises=rises,
        reason=reason,
    )


def _band(low: float, high: float, tried: Sequence[Trial]) -> Band:
    found = Counter(t.verdict for t in tried if low <= t.confidence < high or t.confidence == high == 1.0)
    yes, no = found["confirmed"], found["contradicted"]
    return Band(
        low=low, high=high, n=found.total(), confirmed=yes, contradicted=no, rate=yes / (yes + no) if yes + no else None,
        interval=wilson(yes, yes + no),
    )


def wilson(hits: int, n: int) -> tuple[float, float] | None:
    """The 95 % interval of a share, which stays within [0, 1] and says something for few; None for none."""
    if not n:
        return None
    share, spread = hits / n, Z * Z / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z * sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return (0.0 if not hits else max(0.0, middle - half)), (1.0 if hits == n else min(1.0, middle + half))


def _rising(bands: Sequence[Band]) -> tuple[bool | None, str | None]:
    rates = [band.rate for band in reversed(bands) if band.rate is not None and band.tested >= LEAST]
    if len(rates) < 2:
        return None, f"too little is known: two bands need {LEAST} tested items each, and {len(rates)} of {len(bands)} has them"
    return rates[-1] > rates[0] and all(low <= high for low, high in pairwise(rates)), None
