"""Commands that change a memory: init, retain, consolidate, forget; and verify, which checks a receipt."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from consolidator.errors import InvalidInput, NotFound
from consolidator_adapters.cli import receipts, views
from consolidator_adapters.cli.call import Call, full_id, interruptible, moment
from consolidator_adapters.cli.places import reserved
from consolidator_adapters.cli.reading import memories_of

if TYPE_CHECKING:
    from rich.progress import Progress

    from consolidator.engine import Bank
    from consolidator.models import Receipt, Retained
    from consolidator.plans import Report
    from consolidator.retention import RetainPolicy

BATCH = 64
FIRST_LINES = 5
LOOK_EVERY = 0.2  # seconds
NAME_IT = "name the conversation or document that this comes from, as it may be forgotten"


async def init(
    call: Call,
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("consolidator.toml"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a settings file that names every setting."""
    try:
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(files("consolidator_adapters.cli").joinpath("template.toml").read_text(encoding="utf-8"))
    except FileExistsError:
        raise InvalidInput(f"{file} is there already; --force writes over it") from None
    call.answer({"written": str(file)}, lambda: Text(f"wrote {file}; use it with `consolidator --config {file} ...`"))


async def retain(
    call: Call,
    text: Annotated[str | None, typer.Argument(help="The text; - reads standard input.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option("--file", help="JSON Lines: a text, or a memory with its fields, a line.")] = None,
    source: Annotated[str | None, typer.Option("--source", "-s", help="Where it comes from, as it may be forgotten.")] = None,
    speaker: Annotated[str | None, typer.Option("--speaker", help="Who said it.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="When it happened: a date (UTC), or a time with its zone.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", help="A tag; give it again for more.")] = None,
    kind: Annotated[str, typer.Option("--kind", help="world, experience or lesson.")] = "world",
) -> None:
    """Keep a text, word for word."""
    if (text is None) == (file is None):
        raise InvalidInput("give either a text, or - for standard input, or --file with JSON Lines")
    if source is not None and not source.strip():
        raise InvalidInput(f"the source is empty; {NAME_IT}")
    items = list(_items(file)) if file else [{"text": _piped() if text == "-" else text}]
    when = moment(at, "--at")
    shared: dict[str, Any] = {"source": source, "speaker": speaker, "occurred_at": when, "tags": tag or [], "kind": kind}
    if source is None and any(item.get("source") is None for item in items):
        raise InvalidInput(f"--source is missing: {NAME_IT}")
    items = [{**shared, **item} for item in items]
    _check(items, call.settings().retain)
    async with call.memory(must_exist=False) as bank:
        kept = await _retained(call, bank, items)
    call.answer(kept, lambda: views.retained(kept))


def _check(items: list[dict[str, Any]], policy: RetainPolicy) -> None:
    """Refuse what the engine would refuse, all of it, before a folder is made or a text is kept."""
    from consolidator.clock import system_clock
    from consolidator.retention import checked_items

    for number, item in enumerate(items, start=1):
        try:
            checked_items([item], policy, system_clock())
        except InvalidInput as error:
            raise InvalidInput(f"entry {number}: {error}" if len(items) > 1 else str(error)) from None


def _items(file: Path) -> Iterator[dict[str, Any]]:
    """One for each line that is not blank; all are read before anything is kept."""
    lines = (_piped() if str(file) == "-" else _read(file)).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidInput(f"{file}, line {number} is no JSON: {error.msg} at column {error.colno}") from None
        item = {"text": item} if isinstance(item, str) else item
        if not isinstance(item, dict) or not isinstance(item.get("text"), str):
            raise InvalidInput(f'{file}, line {number} is no memory; write a text, or an object with "text"')
        yield item | ({"occurred_at": _dated(item["occurred_at"])} if "occurred_at" in item else {})


def _dated(told: object) -> object:
    """A plain date is read as UTC; everything else is left to the engine's check."""
    if isinstance(told, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", told):
        try:
            return datetime.combine(date.fromisoformat(told), time.min, tzinfo=UTC)
        except ValueError:
            return told
    return told


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {file}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None


def _piped() -> str:
    """Standard input, whatever the locale says: as UTF-8."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    try:
        with interruptible():
            return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"standard input is not UTF-8: {error.reason} at byte {error.start}") from None


async def _retained(call: Call, bank: Bank, items: list[dict[str, Any]]) -> Retained:
    from consolidator.models import Retained

    kept = Retained(memories=(), new=0)
    with call.progress() as bar:
        task = bar.add_task("retain", total=len(items))
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            try:
                more = await bank.retain(batch)
            except InvalidInput as error:
                before = f"entries 1 to {start} were kept; in those from {start + 1} on, " if start else ""
                raise InvalidInput(f"{before}{error}") from None
            kept = Retained(
                memories=kept.memories + more.memories, new=kept.new + more.new, embedded=kept.embedded and more.embedded,
                redacted=kept.redacted + more.redacted,
            )
            bar.advance(task, len(batch))
    return kept


async def consolidate(
    call: Call,
    limit: Annotated[int | None, typer.Option("--limit", "-n", help="At most so many memories; else all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Distil pending memories into observations."""
    if limit is not None and limit < 1:
        raise InvalidInput("--limit is a number from 1 on; leave it out for all")
    async with call.memory() as bank:
        with call.progress() as bar:
            done = await watched(bank, bar, limit=limit, dry_run=dry_run)
    call.answer(done, lambda: views.report(done))


async def watched(bank: Bank, bar: Progress, *, limit: int | None = None, dry_run: bool = False) -> Report:
    """One run, with a bar that follows what is pending."""
    work = asyncio.ensure_future(bank.consolidate(limit=limit, dry_run=dry_run))
    if bar.disable or dry_run:
        return await work
    try:
        pending = (await bank.stats()).pending
        task = bar.add_task("consolidate", total=min(pending, limit or pending))
        while not (await asyncio.wait([work], timeout=LOOK_EVERY))[0]:
            bar.update(task, completed=pending - (await bank.stats()).pending)
        return await work
    finally:
        if work.cancel():  # interrupted: the lease is given back before the engine closes
            await asyncio.gather(work, return_exceptions=True)


async def forget(
    call: Call,
    source: Annotated[str | None, typer.Option("--source", "-s", help="All that comes from it.")] = None,
    memory: Annotated[list[str] | None, typer.Option("--memory", "-m", help="A memory's id; give it again for more.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", help="All that has this tag.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    receipt: Annotated[Path | None, typer.Option("--receipt", help="Write the receipt to this file.")] = None,
) -> None:
    """Erase memories for good, and put right what rested on them."""
    if source is None and not memory and not tag:
        raise InvalidInput("say what to forget: --source, --memory or --tag")
    if not (dry_run or yes) and (call.json or not sys.stdin.isatty()):
        raise InvalidInput("forgetting is for good: give --yes where nobody can be asked, or --dry-run to see what would go")
    async with call.memory() as bank:
        with reserved(receipt):
            ids = [await full_id(bank, id) for id in memory] if memory else None
            done = await _forgotten(call, bank, {"source": source, "memory_ids": ids, "tags": tag or None}, dry_run, yes)
            unwritten = receipts.written(done, receipt) if done and receipt else None
    if done is None:
        call.out.print("nothing was erased")
        return
    if call.json or not dry_run:
        call.answer(done, lambda: _erased(done, None if unwritten else receipt))
    if unwritten:
        if not call.json:
            call.document(done)
        call.err.print(f"error: {unwritten}", soft_wrap=True)
        raise typer.Exit(1)


async def _forgotten(call: Call, bank: Bank, asked: dict[str, Any], dry_run: bool, yes: bool) -> Receipt | None:
    """The receipt; None where the person said no."""
    planned = await bank.forget(**asked, dry_run=True)
    if not planned.memories:
        raise NotFound(f'nothing in bank "{bank.id}" matches; nothing was erased')
    if (dry_run or not yes) and not call.json:
        call.out.print(await _would_go(bank, planned))
    if not (dry_run or yes or _agreed(planned)):
        return None
    return planned if dry_run else await bank.forget(**asked)


async def _would_go(bank: Bank, planned: Receipt) -> Group:
    head = f"{views.count(len(planned.memories), 'memory', 'memories')} of {', '.join(map(views.plain, planned.sources))}"
    first = await memories_of(bank, planned.memories[:FIRST_LINES])
    lines = [Text(f"  {views.cut(memory.spoken, 70)}") for memory in first.values()]
    if len(planned.memories) > FIRST_LINES:
        lines.append(Text(f"  … and {len(planned.memories) - FIRST_LINES:,} more"))
    return Group(Text(head, "bold"), *lines, Text(), views.erasure(planned))


def _agreed(planned: Receipt) -> bool:
    try:
        with interruptible():
            return typer.confirm(f"\nErase {views.count(len(planned.memories), 'memory', 'memories')} for good?", err=True)
    except typer.Abort:
        return False


def _erased(done: Receipt, file: Path | None) -> Group:
    waiting = Text("another worker holds the bank: the rollback follows with its next step", "yellow")
    how = Text(f"receipt {done.id}; check it with `consolidator verify {file or done.id}`", "bright_black")
    return Group(views.erasure(done), Text(), *([waiting] if done.state == "accepted" else []), how)


async def verify(
    call: Call, receipt: Annotated[str, typer.Argument(help="A receipt's file, or its id.", show_default=False)]
) -> None:
    """Search every store for what a receipt says was erased."""
    async with call.memory() as bank:
        checked = await receipts.check(bank, receipt)
    told = {**checked.outcome.model_dump(mode="json"), "ok": checked.ok, "note": checked.note}
    call.answer(told, lambda: views.verification(checked.outcome, checked.note, genuine=checked.genuine))
    if not checked.ok:
        raise typer.Exit(1)
