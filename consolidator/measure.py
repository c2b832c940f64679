"""Measuring whether what is learnt helps, from the stores alone; and the measures in words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime

from consolidator.calibration import Band, Calibration, calibration, trials
from consolidator.contexts import one_line
from consolidator.holdings import LEARNT, attempts, entombed, held, histories, sessions
from consolidator.parts import Parts
from consolidator.tallies import COVERED, NAMED, Measurement, Measures, gathered, measured, worded


class Measure:
    """Measures for one deployment. It reads, and changes nothing."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def measure(
        self, bank: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> Measurement:
        """Of a window of time, by when things happened; and of each of its last seven days. until: now, where it is None."""
        gone = await entombed(self._parts, bank)
        told, tried, items = await asyncio.gather(
            sessions(self._parts, bank, gone), attempts(self._parts, bank, gone), held(self._parts, bank, LEARNT, gone)
        )
        past = gathered(told, tried, (found.observation for found in items))
        return measured(past, since=since, until=until or self._parts.clock())

    async def calibration(self, bank: str) -> Calibration:
        """Whether items of high confidence prove true more often than those of low confidence."""
        gone = await entombed(self._parts, bank)
        return calibration(trials(await histories(self._parts, bank, gone)))


# in words


def dashboard(told: Measurement, tested: Calibration | None = None) -> str:
    """The measures as Markdown: the window, its last days, the projects, and where it is given, the calibration."""
    parts = ["# What was learnt, and whether it helps", _window(told.whole), *_whole(told.whole), *_series(told.days)]
    parts += _projects(told.whole)
    parts += _calibrated(tested) if tested is not None else []
    return "\n".join(parts) + "\n"


def _window(whole: Measures) -> str:
    began = f"{whole.since:%Y-%m-%d %H:%M}" if whole.since else "the beginning"
    items = f"{whole.items:,} items known at its end, {whole.archived:,} archived besides"
    seen = f"{whole.sessions:,} sessions, {whole.attempts:,} attempts"
    return f"\nFrom {began} to {whole.until:%Y-%m-%d %H:%M} UTC: {seen}; {items}."


def _whole(whole: Measures) -> Iterable[str]:
    rows = [(named, getattr(whole, named.field)) for named in NAMED]
    told = [(named.title, worded(figure, share=named.share), f"{figure.n:,} {named.of}") for named, figure in rows]
    yield from _table(("measure", "value", "of"), told)
    if (change := whole.recurrence_change.value) is not None:
        yield f"\nErrors that had been met before: {change * 100:+.0f} percentage points from the first half to the second."


def _series(days: Sequence[Measures]) -> Iterable[str]:
    yield "\n## The last days\n\nA dash: nothing is known. Days are UTC."
    rows = [(n.title, *(worded(getattr(day, n.field), share=n.share) for day in days)) for n in NAMED]
    yield from _table(("measure", *(f"{day.until:%m-%d}" for day in days)), rows)


def _projects(whole: Measures) -> Iterable[str]:
    if whole.projects:
        yield f"\n## Projects\n\nCovered: {COVERED} items or more."
        by_count = sorted(whole.projects.items(), key=lambda pair: (-pair[1], pair[0]))
        yield from _table(("project", "items"), [(_cell(name), f"{number:,}") for name, number in by_count])


def _calibrated(tested: Calibration) -> Iterable[str]:
    yield "\n## Does confidence prove true?\n"
    verdicts = {True: "Yes: the rates rise with the confidence.", False: "No: the rates do not rise with the confidence."}
    score = "" if tested.brier is None else f" Brier score {tested.brier:.3f} (0.25 is guessing)."
    told = verdicts[tested.rises] if tested.rises is not None else f"Not known: {tested.reason}."
    yield f"{told}{score} {tested.tested:,} of {tested.items:,} items were tested by other sources."
    yield from _table(
        ("confidence", "items", "confirmed", "contradicted", "rate", "95 % interval"), [_band(band) for band in tested.bands]
    )


def _band(band: Band) -> tuple[str, ...]:
    rate = "–" if band.rate is None else f"{band.rate:.0%}"
    interval = "–" if band.interval is None else f"{band.interval[0]:.0%} to {band.interval[1]:.0%}"
    return f"{band.low:.1f} to {band.high:.1f}", f"{band.n:,}", f"{band.confirmed:,}", f"{band.contradicted:,}", rate, interval


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield "\n| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def _cell(text: str) -> str:
    return one_line(text).replace("|", "¦")
