"""An incremental run over a transcript: what was due in it, and what came of that. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from consolidator.divergence import Due, Skip
from consolidator.meters import OVER_BUDGET, Meter
from consolidator.models import Value
from consolidator.transcripts import Cell, Group, Score, Transcript

PASSING = ("unavailable", "unsupported", "failed")  # reasons that are the model's, and none of the group's


class IncrementalReport(Value):
    """Of one run over one transcript. scored: new values by group. skipped: groups that were passed over, with the reason."""

    unit: str
    due: int = 0
    scored: tuple[tuple[Group, float], ...] = ()
    skipped: tuple[tuple[Group, Skip], ...] = ()
    failed: tuple[tuple[Group, str], ...] = ()
    prompts_sent: int = 0
    tokens_sent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of one group. reason: why something of it, or all, is not known."""

    group: Group
    value: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """known: of each group, the responses that it was measured with before. erasures: how many the bank had seen as it began."""

    bank: str
    transcript: Transcript
    meter: Meter
    due: Due
    known: Mapping[Group, Collection[str]]
    erasures: int = 0


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a bank's oldest transcript has come: a group that cannot be measured keeps no other waiting.

    of: which one, as it was then. tried: groups, by unit. failures: of a model that passes its check, and fails again.
    """

    of: tuple[str, datetime, int]
    tried: set[tuple[str, Group]] = field(default_factory=set)
    failures: int = 0


def outcome_of(group: Group, cells: Iterable[Cell], kept: Sequence[Score]) -> Outcome:
    """kept: what of it was new. Of several reasons one that may pass is told first."""
    told = list(cells)
    reasons = [cell.reason for cell in told if cell.status == "failed"]
    reason = min(reasons, key=lambda r: (not r.startswith(PASSING), r != OVER_BUDGET.reason), default="")
    if kept:
        tokens = sum(score.tokens for score in kept)
        return Outcome(group=group, value=sum(score.value * score.tokens for score in kept) / tokens, reason=reason)
    if not reason and any(cell.value is not None for cell in told):
        reason = "not_kept: it shows what was erased meanwhile, or was measured by another"
    return Outcome(group=group, reason=reason)


def report_of(run: Run, outcomes: Iterable[Outcome]) -> IncrementalReport:
    scored, skipped, failed = list[tuple[Group, float]](), list(run.due.skipped), list[tuple[Group, str]]()
    for outcome in outcomes:
        if outcome.value is not None:
            scored.append((outcome.group, outcome.value))
        elif outcome.reason == OVER_BUDGET.reason:
            skipped.append((outcome.group, "over_budget"))
        elif outcome.reason:
            failed.append((outcome.group, outcome.reason))
        else:  # all of them too short, or out of reach
            skipped.append((outcome.group, "no_response"))
    return IncrementalReport(
        unit=run.meter.unit, due=len(run.due.groups), scored=tuple(scored), skipped=tuple(skipped), failed=tuple(failed),
        prompts_sent=run.meter.prompts, tokens_sent=run.meter.tokens,
    )


def figures(report: IncrementalReport) -> dict[str, object]:
    """For the log."""
    return {
        "unit": report.unit, "due": report.due, "scored": len(report.scored), "failed": len(report.failed),
        "prompts": report.prompts_sent, "tokens": report.tokens_sent,
    }
