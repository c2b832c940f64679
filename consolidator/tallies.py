"""Whether what is learnt helps: the measures of a window of time, from sessions, attempts and items. Pure.

What is unknown is None, never 0; `n` says on how many things a value rests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import fmean, median
from typing import Any

from pydantic import Field

from consolidator.holdings import Attempt
from consolidator.knowledge import POLICY, Activity, activity_of, confirmations, effective, projects_of
from consolidator.models import Observation, Time, Value
from consolidator.records import SessionRecord

DAY = timedelta(days=1)
DAYS = 7  # of the series
COVERED = 10  # items of a project that is covered
WELL = 0.85  # the score of an attempt that succeeded
TICK = timedelta(microseconds=1)


class Figure(Value):
    value: float | None = None
    n: int = 0


class Measures(Value):
    """Of the times from `since` to `until`, both included. Shares lie in [0, 1].

    velocity: new items a day; n: new items. per_million: new items for a million tokens of transcripts; n: tokens. coverage:
    projects with at least ten items; n: projects. hits: briefed items that were used; n: briefed. hit_sessions: sessions that
    used a briefed item; n: sessions with a briefing. recurrence: errors of sessions that an earlier session had met; n: errors.
    recurrence_change: of the second half of the window against the first. completion: sessions that succeeded; n: those whose
    end is known; completion_briefed, completion_unbriefed: of those with a briefing, and without. episodes: attempts with a
    score of at least 0.85. first_try: of tasks attempted first in the window, by their first attempt; n: tasks. age, age_mean:
    days since items that are given out were last confirmed, the median and the mean; n: items.
    """

    since: Time | None = None
    until: Time
    sessions: int = 0
    attempts: int = 0
    items: int = 0  # at the end of the window, without archived ones
    archived: int = 0
    projects: dict[str, int] = Field(default_factory=dict)  # items of each
    velocity: Figure = Figure()
    per_million: Figure = Figure()
    coverage: Figure = Figure()
    hits: Figure = Figure()
    hit_sessions: Figure = Figure()
    recurrence: Figure = Figure()
    recurrence_change: Figure = Figure()
    completion: Figure = Figure()
    completion_briefed: Figure = Figure()
    completion_unbriefed: Figure = Figure()
    episodes: Figure = Figure()
    first_try: Figure = Figure()
    age: Figure = Figure()
    age_mean: Figure = Figure()


class Measurement(Value):
    """A window, and each of its last seven days (UTC), the oldest first."""

    whole: Measures
    days: tuple[Measures, ...] = ()


@dataclass(slots=True, kw_only=True)
class Run:
    """A session with all its harvested stretches. met: how many of its errors an earlier session had met."""

    id: str
    project: str
    at: datetime
    last: int = -1
    tokens: int = 0
    outcome: str = "unknown"
    errors: set[str] = field(default_factory=set)
    briefed: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    met: int = 0


@dataclass(frozen=True, slots=True)
class Past:
    """All that is measured, in order of time."""

    runs: Sequence[Run]
    attempts: Sequence[Attempt]
    firsts: Sequence[Attempt]  # of each task
    items: Sequence[Observation]
    activity: Activity


def gathered(records: Iterable[SessionRecord], attempts: Iterable[Attempt], items: Iterable[Observation]) -> Past:
    told = [record for record in records if record.at]
    tried = sorted(attempts, key=lambda a: (a.at, a.episode))
    firsts = {attempt.task: attempt for attempt in reversed(tried)}
    activity = activity_of((record.project, record.at) for record in told if record.at)
    return Past(_runs(told), tried, list(firsts.values()), list(items), activity)


def _runs(records: Iterable[SessionRecord]) -> list[Run]:
    """Sessions by their last time, each once."""
    runs: dict[str, Run] = {}
    for record in records:
        assert record.at is not None
        run = runs.setdefault(record.session, Run(id=record.session, project=record.project, at=record.at))
        run.at = max(run.at, record.at)
        run.tokens += record.tokens
        run.errors |= {*record.errors}
        run.briefed |= {*record.briefed}
        run.used |= {*record.used}
        if record.last > run.last:
            run.last, run.outcome = record.last, record.outcome
    known: set[str] = set()
    ordered = sorted(runs.values(), key=lambda run: (run.at, run.id))
    for run in ordered:
        run.met = len(run.errors & known)
        known |= run.errors
    return ordered


# measuring


def measured(past: Past, *, since: datetime | None, until: datetime) -> Measurement:
    midnight = until.replace(hour=0, minute=0, second=0, microsecond=0)
    starts = [midnight - n * DAY for n in reversed(range(DAYS))]
    days = [(start, min(until, start + DAY - TICK)) for start in starts if since is None or start + DAY > since]
    whole = measures(past, since=since, until=until)
    return Measurement(
        whole=whole, days=tuple(measures(past, since=max(start, since or start), until=end) for start, end in days)
    )


def measures(past: Past, *, since: datetime | None, until: datetime) -> Measures:
    runs = [run for run in past.runs if _within(run.at, since, until)]
    tried = [attempt for attempt in past.attempts if _within(attempt.at, since, until)]
    firsts = [attempt for attempt in past.firsts if _within(attempt.at, since, until)]
    began = since or _began(past)
    briefed = [run for run in runs if run.briefed]
    return Measures(
        since=since, until=until, sessions=len(runs), attempts=len(tried), **_learnt(past, runs, began, until, since),
        **_held(past, until), **_recurrence(runs, began, until),
        hits=_share(sum(len(run.used & run.briefed) for run in briefed), sum(len(run.briefed) for run in briefed)),
        hit_sessions=_share(sum(bool(run.used & run.briefed) for run in briefed), len(briefed)),
        completion=_completion(runs), completion_briefed=_completion(briefed),
        completion_unbriefed=_completion([run for run in runs if not run.briefed]),
        episodes=_share(sum(attempt.score >= WELL for attempt in tried), len(tried)),
        first_try=_share(sum(attempt.score >= WELL for attempt in firsts), len(firsts)),
    )


def _within(at: datetime, since: datetime | None, until: datetime) -> bool:
    return (since is None or since <= at) and at <= until


def _share(part: int, whole: int) -> Figure:
    return Figure(value=part / whole if whole else None, n=whole)


def _began(past: Past) -> datetime | None:
    """When anything was first known of."""
    first = [run.at for run in past.runs[:1]] + [attempt.at for attempt in past.attempts[:1]]
    return min([*first, *(learnt_at(item) for item in past.items)], default=None)


def learnt_at(item: Observation) -> datetime:
    """When its first source told it."""
    return min((e.occurred_at for e in item.evidence if e.supports), default=item.created_at)


def _learnt(
    past: Past, runs: Sequence[Run], began: datetime | None, until: datetime, since: datetime | None
) -> dict[str, Any]:
    new = sum(_within(learnt_at(item), since, until) for item in past.items)
    tokens = sum(run.tokens for run in runs)
    days = max((until - began) / DAY, 1.0) if began is not None and (runs or new) else None
    return {
        "velocity": Figure(value=new / days if days else None, n=new),
        "per_million": Figure(value=new * 1_000_000 / tokens if tokens else None, n=tokens),
    }


def _held(past: Past, until: datetime) -> dict[str, Any]:
    """What was known at a time."""
    known = [item for item in past.items if learnt_at(item) <= until]
    given = [item for item in known if effective(item, past.activity, until) >= POLICY.archived]
    counts = Counter(project for item in given for project in projects_of(item.tags))
    named = {run.project for run in past.runs if run.project and run.at <= until} | counts.keys()
    ages = [(until - confirmations(item, until)[-1]) / DAY for item in given]
    return {
        "items": len(given), "archived": len(known) - len(given), "projects": {name: counts[name] for name in sorted(named)},
        "coverage": _share(sum(counts[name] >= COVERED for name in named), len(named)),
        "age": Figure(value=median(ages) if ages else None, n=len(ages)),
        "age_mean": Figure(value=fmean(ages) if ages else None, n=len(ages)),
    }


def _recurrence(runs: Sequence[Run], began: datetime | None, until: datetime) -> dict[str, Any]:
    whole = _met(runs)
    middle = began + (until - began) / 2 if began is not None else until
    earlier, later = _met([run for run in runs if run.at < middle]), _met([run for run in runs if run.at >= middle])
    change = None if earlier.value is None or later.value is None else later.value - earlier.value
    return {"recurrence": whole, "recurrence_change": Figure(value=change, n=whole.n)}


def _met(runs: Sequence[Run]) -> Figure:
    return _share(sum(run.met for run in runs), sum(len(run.errors) for run in runs))


def _completion(runs: Sequence[Run]) -> Figure:
    known = Counter(run.outcome for run in runs if run.outcome != "unknown")
    return _share(known["success"], known.total())


# in words


@dataclass(frozen=True, slots=True)
class Named:
    """How a measure is shown. of: what its `n` counts. share: in percent."""

    field: str
    title: str
    of: str
    share: bool = True


NAMED: tuple[Named, ...] = (
    Named("velocity", "New items a day", "new items", share=False),
    Named("per_million", "New items for a million tokens", "tokens", share=False),
    Named("coverage", f"Projects with {COVERED} items or more", "projects"),
    Named("hits", "Briefed items that were used", "briefed items"),
    Named("hit_sessions", "Sessions that used their briefing", "briefed sessions"),
    Named("recurrence", "Errors that had been met before", "errors"),
    Named("completion", "Sessions that succeeded", "sessions with a known end"),
    Named("completion_briefed", "… of those with a briefing", "sessions with a known end"),
    Named("completion_unbriefed", "… of those without", "sessions with a known end"),
    Named("episodes", f"Attempts with a score of {WELL} or more", "attempts"),
    Named("first_try", "Tasks that succeeded at the first try", "tasks"),
    Named("age", "Days since last confirmed, median", "items", share=False),
)


def worded(figure: Figure, *, share: bool) -> str:
    """A dash where nothing is known."""
    if figure.value is None:
        return "–"
    return f"{figure.value:.0%}" if share else f"{figure.value:.1f}"
