"""Commands that fill a memory: init, retain, consolidate."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from consolidator.errors import InvalidInput
from consolidator_adapters.cli import editions, places, views
from consolidator_adapters.cli.call import Call, interruptible, moment

if TYPE_CHECKING:
    from rich.progress import Progress

    from consolidator.engine import Bank
    from consolidator.models import Retained
    from consolidator.plans import Report
    from consolidator.retention import RetainPolicy

BATCH = 64
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


async def retain(  # noqa: PLR0913 (one parameter for each field of a memory)
    call: Call,
    text: Annotated[str | None, typer.Argument(help="The text; - reads standard input.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option("--file", help="JSON Lines: a text, or a memory with its fields, a line.")] = None,
    source: Annotated[str | None, typer.Option("--source", "-s", help="Where it comes from, as it may be forgotten.")] = None,
    speaker: Annotated[str | None, typer.Option("--speaker", help="Who said it.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="When it happened: a date (UTC), or a time with its zone.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", help="A tag; give it again for more.")] = None,
    kind: Annotated[str, typer.Option("--kind", help="world, experience or lesson.")] = "world",
    replace: Annotated[bool, typer.Option("--replace", help="This is all the source says now: erase the rest of it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --replace: do not ask.")] = False,
) -> None:
    """Keep a text, word for word."""
    if (text is None) == (file is None):
        raise InvalidInput("give either a text, or - for standard input, or --file with JSON Lines")
    if source is not None and not source.strip():
        raise InvalidInput(f"the source is empty; {NAME_IT}")
    if yes and not replace:
        raise InvalidInput("--yes goes with --replace alone: nothing else is asked")
    items = list(_items(file)) if file else [{"text": piped() if text == "-" else text}]
    when = moment(at, "--at")
    shared: dict[str, Any] = {"source": source, "speaker": speaker, "occurred_at": when, "tags": tag or [], "kind": kind}
    if source is None and any(item.get("source") is None for item in items):
        raise InvalidInput(f"--source is missing: {NAME_IT}")
    items = [{**shared, **item} for item in items]
    _check(items, call.settings().retain)
    if replace:
        editions.check(call, items, piped="-" in (text, str(file)), yes=yes)
    async with call.memory(must_exist=False) as bank:
        kept = await _retained(call, bank, items)
        if replace:
            kept = await editions.replaced(call, bank, kept, yes=yes)
        waiting = None if call.json else (await bank.stats()).pending
    own = places.own_files(call.settings())
    view = partial(editions.view, own=own) if replace else views.retained
    call.answer(kept, lambda: view(kept, bank.id, waiting))


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
    lines = (piped() if str(file) == "-" else read(file)).splitlines()
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


def read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {file}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None


def piped() -> str:
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
                redacted=kept.redacted + more.redacted, held=kept.held + more.held,
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
    call.answer(done, lambda: views.report(done, bank.id))


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
