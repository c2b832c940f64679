"""How the work in the background looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from consolidator_adapters.cli.views import changes, count, lasting, minute, on, plain, table

if TYPE_CHECKING:
    from datetime import datetime

    from consolidator.events import PassDone
    from consolidator.models import Stats
    from consolidator.plans import Standing


def when(due_in: float | None) -> str:
    if due_in is None:
        return "idle"
    return f"due in {lasting(due_in)}" if due_in >= 1 else "due now"


def passed(done: PassDone, at: datetime) -> Text:
    """A turn of a bank, on one line."""
    head = Text.assemble((f"{at:%H:%M:%S}", "bright_black"), "  ", (done.bank, "bold"), "  ")
    r = done.report
    told = [count(r.consolidated + r.nothing_durable, "memory", "memories")] if r.passes else []
    told += changes(r)
    told += [f"{number:,} {name}" for name, number in (("left", r.left), ("parked", r.parked), ("held", r.held)) if number]
    told += [f"paused: {plain(r.paused)}"] if r.paused else []
    head.append(", ".join(told) or ("" if done.error else "nothing to consolidate"))
    if done.error:
        head.append(("; " if told else "") + plain(done.error), "yellow")
    return head.append(f"  {done.seconds:.1f} s", "bright_black")


def left(standings: Sequence[Standing]) -> RenderableType:
    """Banks that `drain` could not finish."""
    if not standings:
        return Text("nothing is left to do")
    heads = [Text.assemble((s.bank, "bold"), f"  left: {_next(s)}") for s in standings]
    return Group(*heads, *(note for s in standings for note in _notes(s)))


def _next(s: Standing | Stats) -> str:
    if s.paused:
        return "paused"
    failed = f"failed {s.attempts}×, " if s.attempts else ""
    return failed + (when(s.due_in) if s.holder is None else f"{s.holder} is at it")


def _notes(s: Standing | Stats) -> Iterator[Text]:
    """What is in the way of a bank."""
    if s.paused:
        yield Text(f"{s.bank} is paused: {plain(s.paused)}; `consolidator resume {s.bank}` ends that", "yellow")
    if s.attempts and s.last_error:
        yield Text(f"{s.bank} failed: {plain(s.last_error)}", "yellow")


def status(found: Sequence[Stats], endpoint: Mapping[str, str]) -> RenderableType:
    if not found:
        return Text("no banks yet: the first `consolidator retain` makes one")
    right = ("pending", "parked", "held")
    made = table("bank", "pending", "oldest", "parked", "held", "next", right=right, wide="next")
    for s in found:
        oldest = minute(s.oldest_pending) if s.oldest_pending else ""
        numbers = (f"{number:,}" if number else "" for number in (s.parked, s.held))
        made.add_row(s.bank, f"{s.pending + s.unembedded:,}", oldest, *numbers, _next(s))
    notes = [note for s in found for note in (*_notes(s), *_aside(s), *_open(s))]
    return Group(made, Text(), *notes, *_endpoint(endpoint))


def _aside(s: Stats) -> Iterator[Text]:
    if s.parked or s.held:
        told = ", ".join(f"{number:,} {what}" for number, what in ((s.parked, "parked"), (s.held, "held")) if number)
        yield Text(f"{s.bank} has {told}: `consolidator parked{on(s.bank)}`", "yellow")


def _open(s: Stats) -> Iterator[Text]:
    parts = [(s.unembedded, "without a vector"), (s.open_plans, "open plans"), (s.open_tombstones, "memories being erased")]
    if told := ", ".join(f"{number:,} {what}" for number, what in parts if number):
        yield Text(f"{s.bank} has {told}: its next pass puts that right", "yellow")


def _endpoint(told: Mapping[str, str]) -> Iterator[Text]:
    where = f" at {plain(told['endpoint'])}: {plain(told['state'])}" if "endpoint" in told else ""
    yield Text(f"consolidates with {plain(told['proposer'])}{where}", "yellow" if "rests" in where else "bright_black")


def paused(bank: str) -> Text:
    return Text(f"{bank} is paused; `consolidator resume {bank}` ends that")


def resumed(bank: str, before: str | None) -> Text:
    return Text(f"{bank} is consolidated again; it was paused: {plain(before)}" if before else f"{bank} was not paused")
