"""The trend of an observation: a pure function of its evidence times and `now`. Nothing is stored."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from consolidator.models import Evidence, Trend

RECENT_DAYS = 30
DAY = timedelta(days=1)


def trend_of(evidence: Iterable[Evidence], now: datetime, *, recent_days: int = RECENT_DAYS) -> Trend:
    """The trend at `now`: the rate of recent sources against the rate of the older ones over their real span.

    Supporting evidence only, one point for each distinct source; a source with evidence in both periods counts once in
    each. Evidence later than `now` is dropped. Rates are compared without division: a ratio of exactly 1.5 or 0.5 is stable.
    """
    window = recent_days * DAY
    ages = [(e.source, now - e.occurred_at) for e in evidence if e.supports and e.occurred_at <= now]
    recent = {source for source, age in ages if age < window}
    older: dict[str, timedelta] = {}
    for source, age in ages:
        if age >= window:
            older[source] = max(age, older.get(source, age))
    if not recent:
        return Trend.STALE
    if not older:
        return Trend.NEW
    span = max(window, max(older.values()) - window)
    return _compare(len(recent), len(older), span, window)


def _compare(recent: int, older: int, span: timedelta, window: timedelta) -> Trend:
    doubled = 2 * recent * span
    if doubled > 3 * older * window and recent >= 2:
        return Trend.STRENGTHENING
    if doubled < older * window:
        return Trend.WEAKENING
    return Trend.STABLE
