"""Which sessions are worth harvesting first: how each one ended, what it is worth, and the choice among many. Pure.

The value of a session is a sum of points from 3 to 16:

recency       whole days old: up to 7 are 3, up to 30 are 2, else 1
length        messages: more than 50 are 3, more than 20 are 2, else 1
repo_unique   a project that no session before it named is 5, others are 1; none named is 0
outcome       a failure is 3; else with a text at the end 2; else 1
tool_calls    more than 10 are 2, else 0
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from pydantic import Field

from consolidator.endings import claim
from consolidator.message_parts import Line
from consolidator.models import Time, Value
from consolidator.records import SessionLog, Step
from consolidator.sessions import Draft, Reader, named_time

Outcome = Literal["success", "failure", "partial", "unknown"]
LOWEST, HIGHEST = 3, 16
AGE_UNKNOWN = timedelta(days=365)
THANKS = (
    "thank", "great", "perfect", "awesome", "nice", "lgtm", "looks good", "good", "works", "that works", "excellent", "wonderful",
    "yes, thank", "ok, thank", "okay, thank", "all good",
)
BUT = re.compile(r"\b(?:but|however|except|though|not|n['’]t|still|only)\b")


class Ending:
    """How a session ends, told from its steps one after the other, so that none has to be kept."""

    def __init__(self) -> None:
        self._last: Step | Draft | None = None
        self._answer = ""  # the last words of the agent
        self._answered = False  # whether they came after the last result
        self._results: list[bool | None] = []  # of the calls that were made last

    @property
    def text(self) -> bool:
        """Whether the last step says something."""
        return self._last is not None and bool(self._last.text.strip())

    def add(self, step: Step | Draft) -> None:
        if step.role == "system":
            return
        if step.role == "tool":
            self._results.append(step.failed)
            self._answered = False
        elif step.role == "assistant":
            if step.calls or (self._last and self._last.role == "user"):
                self._results.clear()
            self._answer, self._answered = step.text, not step.calls and bool(step.text.strip())
        self._last = step

    def outcome(self) -> Outcome:
        """From exit codes, errors and the agent's last turn; what its words claim is a hint."""
        last = self._last
        if last is None:
            return "unknown"
        if last.role == "user":
            return self._said_by_user(last.text)
        if not self._answered:
            return "failure" if last.role == "tool" and True in self._results else "partial"
        return self._judged()

    def _judged(self) -> Outcome:
        failed, claimed = True in self._results, claim(self._answer)
        if claimed in ("open", "asks"):
            return "partial"
        if failed or claimed == "failure":
            return "partial" if claimed == "mixed" else "failure"
        if claimed is not None:
            return "success" if claimed == "success" else "partial"
        return "success" if False in self._results else "unknown"

    def _said_by_user(self, text: str) -> Outcome:
        """What is left open, unless the user says how it went."""
        said, claimed = text.strip().lower(), claim(text)
        if not self._answered or claimed in ("open", "asks", "mixed"):
            return "partial"
        if claimed == "success" or claimed == "failure":
            return claimed
        if not said.startswith(THANKS) or BUT.search(said):
            return "partial"
        judged = self._judged()
        return "success" if judged == "unknown" else judged


def outcome(log: SessionLog) -> Outcome:
    """How a session ended. Partial: it was cut off, or left something open."""
    ending = Ending()
    for step in log.steps:
        ending.add(step)
    return ending.outcome()


class Scan(Value):
    """What a session's whole file tells. below: its path within the folder that is sampled, the same in every copy of it. at: of
    its name, else the file's. skipped: why there is nothing to value in it.
    """

    path: str = ""
    below: str = ""
    name: str
    at: Time | None = None
    messages: int = 0
    tool_calls: int = 0
    failed_calls: int = 0
    repos: tuple[str, ...] = ()
    outcome: Outcome = "unknown"
    text_at_end: bool = False
    bad: int = 0
    skipped: str | None = None


def scan(lines: Iterable[Line], *, name: str, modified: datetime | None = None, text: bool = False) -> Scan:
    """Read a file's lines once, all of them, and keep none. name: of the file. text: as `sessions.parse` takes it."""
    reader, ending, calls, failures = Reader(text=text), Ending(), 0, 0
    for step in reader.drafts(lines):
        ending.add(step)
        calls += len(step.calls)
        failures += step.failed is True
    return Scan(
        name=name, at=named_time(name) or modified, messages=reader.messages, tool_calls=calls,
        failed_calls=failures, repos=reader.projects, outcome=ending.outcome(), text_at_end=ending.text, bad=reader.bad,
        skipped=None if reader.messages else "no line of it is a message" if reader.bad else "there is no message in it",
    )


class Breakdown(Value):
    """The points of a session. Their names are the keys of its JSON."""

    recency: int
    length: int
    repo_unique: int
    outcome: int
    tool_calls: int

    @property
    def score(self) -> int:
        return self.recency + self.length + self.repo_unique + self.outcome + self.tool_calls


class Sampled(Value):
    """A session that was chosen."""

    scan: Scan
    breakdown: Breakdown

    @property
    def score(self) -> int:
        return self.breakdown.score


class Choice(Value):
    """What is to be chosen. project: one that a session names, or a part of its file's name. since: this moment and later.

    min_score: inclusive. top_percent: of the sessions that pass; where it is given it takes the place of `count`.
    """

    count: int = Field(default=100, ge=1)
    project: str | None = None
    since: Time | None = None
    min_score: int = Field(default=0, ge=0, le=HIGHEST)
    top_percent: float = Field(default=0, ge=0, le=100)


def value(scan: Scan, seen: Iterable[str], now: datetime) -> Breakdown:
    """The points of a session. seen: projects that the sessions before it named."""
    days = AGE_UNKNOWN.days if scan.at is None else (now - scan.at).days
    ending = 3 if scan.outcome == "failure" else 2 if scan.text_at_end else 1
    return Breakdown(
        recency=_steps(-days, -7, -30), length=_steps(scan.messages, 51, 21), outcome=ending,
        repo_unique=0 if not scan.repos else 1 if set(scan.repos) <= {*seen} else 5, tool_calls=2 if scan.tool_calls > 10 else 0,
    )


def _steps(number: int, three: int, two: int) -> int:
    return 3 if number >= three else 2 if number >= two else 1


def sample(scans: Iterable[Scan], choice: Choice, now: datetime) -> list[Sampled]:
    """The sessions of the highest value; ties by time, the newest first, then by name.

    Projects are new in the order of time and name, and only to sessions that pass all but the cut; so the order of `scans` bears
    on nothing.
    """
    seen: set[str] = set()
    passed = []
    asked_for = (one for one in scans if one.skipped is None and _asked_for(one, choice))
    for one in sorted(asked_for, key=lambda one: (_age_key(one), one.name, one.below)):
        points = value(one, seen, now)
        if points.score >= choice.min_score:
            passed.append(Sampled(scan=one, breakdown=points))
            seen.update(one.repos)
    passed.sort(key=lambda found: (-found.score, -_age_key(found.scan), found.scan.name, found.scan.below))
    return passed[: _places(passed, choice)]


def _age_key(scan: Scan) -> float:
    return scan.at.timestamp() if scan.at else float("-inf")


def _places(passed: Sequence[Sampled], choice: Choice) -> int:
    return max(1, int(len(passed) * Decimal(str(choice.top_percent)) / 100)) if choice.top_percent else choice.count


def _asked_for(scan: Scan, choice: Choice) -> bool:
    if choice.since is not None and (scan.at is None or scan.at < choice.since):
        return False
    project = (choice.project or "").lower()
    return not project or project in scan.repos or project in scan.name.lower()
