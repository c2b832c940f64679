"""The command that takes knowledge out of agents' sessions: harvest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from consolidator.errors import Conflict, InvalidInput
from consolidator_adapters.cli.call import Call
from consolidator_adapters.cli.views import count, cut, plain, table

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from consolidator.engine import Bank
    from consolidator.harvest import Harvested
    from consolidator.records import SessionLog

SESSION, PROJECT, TEXT = 40, 24, 100  # characters that are shown of a session's name, a project's, and of an item
ROWS = 200  # sessions that are shown
CATEGORIES = ("fact", "pitfall", "pattern", "tool-quirk", "question")
Files = Annotated[list[Path], typer.Argument(metavar="FILES...", help="Sessions, or folders that hold some.", show_default=False)]


@dataclass(slots=True)
class _Work:
    """What was harvested, and what could not be read."""

    done: list[Harvested] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


async def harvest(
    call: Call, where: Files,
    project: Annotated[
        str | None, typer.Option("--project", help="Their project; else the one that each names most.", show_default=False)
    ] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="Which agent; else as the file says.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be found, by rules; nothing is kept.")] = False,
    ask: Annotated[bool, typer.Option("--ask", help="With --dry-run: ask the model, too.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", help="At most so many sessions that hold something new.")] = None,
) -> None:
    """Take durable knowledge out of agents' sessions: facts, pitfalls, patterns, quirks of tools, open questions.

    Secrets are masked before anything is sent or kept. Run it again to go on: what was harvested before is skipped.
    """
    if limit is not None and limit < 1:
        raise InvalidInput("--limit is a number from 1 on; leave it out for all")
    if ask and not dry_run:
        raise InvalidInput("--ask goes with --dry-run: without it the model is asked anyway, if there is one")
    files = found(where)
    work = _Work()
    options: dict[str, Any] = {"project": project, "agent": agent, "dry_run": dry_run, "ask": ask or not dry_run}
    async with call.rehearsal() if dry_run else call.memory(must_exist=False) as bank:
        with call.progress() as bar:
            await _harvested(bank, files, work, bar, limit=limit, options=options)
    call.answer({"sessions": work.done, "failed": work.failed, **totals(work.done)}, lambda: _view(work, dry_run=dry_run))
    for name, why in work.failed.items():
        call.err.print(Text(f"error: {plain(why)}" if name in why else f"error: {plain(name)}: {plain(why)}"))
    if work.failed:
        raise typer.Exit(1)


def found(where: Sequence[Path]) -> list[Path]:
    """The files, each once. Raises InvalidInput for a place that is not there, and where there is none."""
    from consolidator_adapters.session_files import find

    files: dict[Path, None] = {}
    for place in where:
        try:
            files |= dict.fromkeys(find(place))
        except FileNotFoundError:
            raise InvalidInput(f"there is no file or folder {place}") from None
    if not files:
        raise InvalidInput(f"there are no sessions (*.jsonl, *.json) in {', '.join(map(str, where))}")
    return list(files)


async def _harvested(
    bank: Bank, files: Sequence[Path], work: _Work, bar: Progress, *, limit: int | None, options: dict[str, Any]
) -> None:
    """One after another. A file that is no session, or holds what may not be kept, does not stop the others."""
    from consolidator_adapters.session_files import read_session

    task, fresh = bar.add_task("harvest", total=len(files)), 0
    for path in files:
        if limit is not None and fresh >= limit:
            break
        try:
            done = await _one(bank, read_session(path), bar, task, options)
        except (InvalidInput, Conflict) as error:
            work.failed[str(path)] = str(error).replace('project="shop"', "--project shop")
        else:
            work.done.append(done)
            fresh += bool(done.stretches)
        bar.update(task, advance=1, description="harvest")


async def _one(bank: Bank, log: SessionLog, bar: Progress, task: TaskID, options: dict[str, Any]) -> Harvested:
    def told(done: int, of: int) -> None:
        bar.update(task, description=f"{cut(log.id, SESSION)} {done}/{of}")

    return await bank.harvest(log, on_stretch=told, **options)


def totals(done: Sequence[Harvested]) -> dict[str, Any]:
    """Over all sessions."""
    sums = Counter[str]()
    for one in done:
        sums.update({name: getattr(one, name) for name in COUNTED})
    return {"totals": {name: sums[name] for name in COUNTED} | {"items": dict(_summed(one.items for one in done))}}


COUNTED = (
    "stretches", "skipped", "confirmed", "corrected", "contested", "redacted", "calls", "prompt_tokens", "reply_tokens",
)


def _summed(counts: Iterable[dict[str, int]]) -> Counter[str]:
    found = Counter[str]()
    for counted in counts:
        found.update(counted)
    return found


# how it looks


def _view(work: _Work, *, dry_run: bool) -> RenderableType:
    fresh = [done for done in work.done if done.stretches]
    parts: list[RenderableType] = [_table(fresh[:ROWS])] if fresh else []
    parts += [Text(f"and {len(fresh) - ROWS:,} more")] if len(fresh) > ROWS else []
    parts += [_planned(done) for done in fresh if dry_run and done.planned]
    return Group(*parts, Text("\n".join(_summary(work, dry_run=dry_run))))


def _table(done: Sequence[Harvested]) -> RenderableType:
    made = table("session", "project", "found", wide="found")
    for one in done:
        told = {name: one.items.get(name, 0) for name in CATEGORIES}
        told |= {"confirmed": one.confirmed, "corrected": one.corrected, "contested": one.contested}
        told["dropped"] = sum(one.dropped.values())
        words = ", ".join(f"{number:,} {name}" for name, number in told.items() if number)
        made.add_row(cut(one.session, SESSION), cut(one.project, PROJECT), words or "nothing")
    return made


def _planned(done: Harvested) -> RenderableType:
    lines = [f"{cut(done.session, SESSION)}:"]
    lines += [f"  {item.confidence:.1f} {item.category}: {cut(item.text, TEXT)}" for item in done.planned]
    return Text("\n".join([*lines, ""]))


def _summary(work: _Work, *, dry_run: bool) -> list[str]:
    fresh = sum(bool(done.stretches) for done in work.done)
    items = _summed(done.items for done in work.done).total()
    would = "would be " if dry_run else ""
    told = [f"{count(fresh, 'session')} {would}harvested, {count(items, 'new item')}"]
    old = len(work.done) - fresh
    told += [f"{count(old, 'session')} skipped: harvested before"] if old else []
    named = {"confirmed": "known items confirmed", "corrected": "put right", "contested": "contested", "redacted": "masked"}
    sums = totals(work.done)["totals"]
    told += [f"{sums[name]:,} {words}" for name, words in named.items() if sums[name]]
    readers = _summed(done.by for done in work.done)
    if readers:
        told.append("read by " + ", ".join(f"{plain(name)} ({number:,})" for name, number in readers.most_common()))
    if sums["calls"]:
        told.append(f"{count(sums['calls'], 'call')}, {sums['prompt_tokens']:,} prompt and {sums['reply_tokens']:,} reply tokens")
    return told
