"""Stretches of event time, and the calendar that a question counts them on. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal, NamedTuple

from pydantic import model_validator

from consolidator.clock import to_utc
from consolidator.models import Time, Value

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
LEAST_REACH, MOST_REACH, OPEN_REACH = DAY, 90 * DAY, 30 * DAY  # how far outside a period a time still counts
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}  # first month
PARTS = {"morning": (5, 12), "afternoon": (12, 18), "evening": (18, 24), "night": (18, 30)}  # hours of the day
Which = Literal["last", "this", "next"]


class Period(Value):
    """Event time from `start` up to but not including `end`, in UTC. None: open on that side, never on both."""

    start: Time | None = None
    end: Time | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Period:
        if self.start is None and self.end is None:
            raise ValueError("a period is bounded on at least one side")
        if self.start and self.end and self.start >= self.end:
            raise ValueError("a period starts before it ends")
        return self


def closeness(time: datetime, period: Period) -> float:
    """How well a time fits a period: 1 inside, then falling smoothly to 0, so that a date slightly wrong still helps.

    Outside, at a gap g to the nearer border, it is (1 + cos(pi * g / r)) / 2 for g < r and 0 from there on. The reach r is
    the period's own length, at least a day and at most 90 days; 30 days where the period is open. `time` needs a zone.
    """
    moment = to_utc(time)
    gap = max(period.start - moment if period.start else timedelta(), moment - period.end if period.end else timedelta())
    if gap <= timedelta():
        return 1.0
    reach = min(MOST_REACH, max(LEAST_REACH, period.end - period.start)) if period.start and period.end else OPEN_REACH
    return (1 + math.cos(math.pi * (gap / reach))) / 2 if gap < reach else 0.0


class Span(NamedTuple):
    """Like a period, on the clock of the one who asks."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Calendar:
    """Days, weeks from Monday, months, seasons of the northern half of the earth; seen from `now`, in its zone.

    Methods raise ValueError or OverflowError for what no calendar holds.
    """

    now: datetime

    @property
    def today(self) -> date:
        return self.now.date()

    def dates(self, start: date, end: date) -> Span:
        return Span(self._midnight(start), self._midnight(end))

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time(), self.now.tzinfo)

    def day(self, ahead: int) -> Span:
        return self.dates(self.today + ahead * DAY, self.today + (ahead + 1) * DAY)

    def date(self, year: int, month: int, day: int) -> Span:
        found = date(year, month, day)
        return self.dates(found, found + DAY)

    def part(self, span: Span, name: str) -> Span:
        """The morning, afternoon, evening or night of a day."""
        start, end = PARTS[name]
        return Span(span.start + start * HOUR, span.start + end * HOUR)

    def week(self, ahead: int) -> Span:
        monday = self.today + (7 * ahead - self.today.weekday()) * DAY
        return self.dates(monday, monday + 7 * DAY)

    def weekend(self, ahead: int) -> Span:
        monday = self.week(ahead + 1).start.date()
        return self.dates(monday - 2 * DAY, monday)

    def months(self, year: int, month: int, count: int = 1) -> Span:
        """As many months as `count`, from one that may lie outside the year: month 0 is the December before."""
        index = year * 12 + month - 1
        return self.dates(_first(index), _first(index + count))

    def month(self, ahead: int) -> Span:
        return self.months(self.today.year, self.today.month + ahead)

    def quarter(self, ahead: int) -> Span:
        return self.months(self.today.year, (self.today.month - 1) // 3 * 3 + 1 + 3 * ahead, 3)

    def years(self, year: int, count: int = 1) -> Span:
        return self.months(year, 1, 12 * count)

    def year(self, ahead: int) -> Span:
        return self.years(self.today.year + ahead)

    def decade(self, ahead: int) -> Span:
        return self.years(self.today.year // 10 * 10 + 10 * ahead, 10)

    def season(self, year: int, name: str) -> Span:
        """Three whole months; a winter belongs to the year of its December."""
        return self.months(year, SEASONS[name], 3)

    def weekday(self, which: Which, number: int) -> Span | None:
        """The latest before today, the one of this week, or the one of next week unless that may mean this week's."""
        back = (self.today.weekday() - number - 1) % 7 + 1
        if which == "last":
            return self.day(-back)
        if which == "this":
            return self.day(number - self.today.weekday())
        return self.day(7 - back or 7) if number <= self.today.weekday() else None

    def latest(self, of_year: Callable[[int], Span]) -> Span | None:
        """Of what comes once a year, the latest that is not after `now`."""
        return max((span for span in self._yearly(of_year, 9) if span.start <= self.now), default=None)

    def which(self, which: Which, of_year: Callable[[int], Span]) -> Span | None:
        """Of what comes once a year: the latest that is over, the one under way or nearest, the first to come."""
        spans = self._yearly(of_year, 2)
        if which == "last":
            return max((span for span in spans if span.end <= self.now), default=None)
        if which == "next":
            return min((span for span in spans if span.start > self.now), default=None)
        return min(spans, key=self._distance, default=None)

    def _distance(self, span: Span) -> timedelta:
        return max(span.start - self.now, self.now - span.end, timedelta())

    def _yearly(self, of_year: Callable[[int], Span], reach: int) -> list[Span]:
        return list(_valid(of_year, range(self.today.year - reach, self.today.year + 3)))

    def back(self, count: int, unit: str, *, until: int | None = None) -> Span:
        """What lay so many units back: that hour, day, month or year; for weeks the seven days around that day.

        until: the smaller count, for "a few days ago".
        """
        near, far = self._around(count if until is None else until, unit), self._around(count, unit)
        return Span(far.start, near.end)

    def _around(self, count: int, unit: str) -> Span:
        if unit == "hour":
            return Span(self.now - count * HOUR - HOUR / 2, self.now - count * HOUR + HOUR / 2)
        if unit == "week":
            day = self.today - 7 * count * DAY
            return self.dates(day - 3 * DAY, day + 4 * DAY)
        of: dict[str, Callable[[int], Span]] = {"day": self.day, "month": self.month, "year": self.year, "decade": self.decade}
        return of[unit](-count)

    def rolling(self, count: int, unit: str, *, ahead: bool = False) -> Span:
        """The last, or the next, so many units, counted from `now`."""
        end = self._moved(count if ahead else -count, unit)
        return Span(self.now, end) if ahead else Span(end, self.now)

    def _moved(self, count: int, unit: str) -> datetime:
        if unit in ("hour", "day", "week"):
            return self.now + count * {"hour": HOUR, "day": DAY, "week": 7 * DAY}[unit]
        index = self.today.year * 12 + self.today.month - 1 + count * {"month": 1, "quarter": 3, "year": 12, "decade": 120}[unit]
        last = (_first(index + 1) - DAY).day
        return datetime.combine(_first(index).replace(day=min(self.today.day, last)), self.now.timetz())


def _first(index: int) -> date:
    """The first day of a month that is counted from the year 0."""
    return date(index // 12, index % 12 + 1, 1)


def _valid(of_year: Callable[[int], Span], years: Iterable[int]) -> Iterable[Span]:
    """Those that exist: not every year has a 29 February."""
    for year in years:
        try:
            yield of_year(year)
        except ValueError:
            continue
