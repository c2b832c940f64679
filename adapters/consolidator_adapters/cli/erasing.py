"""Commands that erase for good: forget, scrub; and verify, which checks a receipt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from consolidator.errors import ConsolidatorError, InvalidInput, NotFound
from consolidator_adapters.cli import matching, places, receipts, views
from consolidator_adapters.cli.call import Call, full_id, interruptible, moment
from consolidator_adapters.cli.reading import memories_of

if TYPE_CHECKING:
    from consolidator.engine import Bank, Engine
    from consolidator.models import Memory, Receipt

FIRST_LINES = 5
REWRITING = "rewriting the files, so that no byte of what was erased is left in them ..."
NAMED = "--source, --memory, --tag, --before, --matching or --everything"
IN_SERVERS = "the files of a server, and its backups, may hold bytes of it: those are for its operator to rewrite"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What is to be forgotten, and with how much asking. `asked` goes to the engine as it is."""

    asked: dict[str, Any]
    words: str | None
    max_erased: int | None
    dry_run: bool
    yes: bool

    @property
    def asks(self) -> bool:
        return not (self.dry_run or self.yes)


async def forget(  # noqa: PLR0913 (one parameter for each way to say what, and how carefully)
    call: Call,
    source: Annotated[str | None, typer.Option("--source", "-s", help="All that comes from it.")] = None,
    memory: Annotated[list[str] | None, typer.Option("--memory", "-m", help="A memory's id; give it again for more.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", help="All that has this tag.")] = None,
    before: Annotated[str | None, typer.Option("--before", help="All that happened before this date or time.")] = None,
    matching: Annotated[
        str | None, typer.Option("--matching", help="List what has all these words (doctor* finds doctors), and choose from it.")
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="The whole bank.")] = False,
    max_erased: Annotated[int | None, typer.Option("--max-erased", help="Erase nothing where it would be more memories.")] = None,
    scrub: Annotated[bool, typer.Option("--scrub", help="Rewrite the files, too, so that they hold no byte of it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    receipt: Annotated[Path | None, typer.Option("--receipt", help="Write the receipt to this file.")] = None,
) -> None:
    """Erase memories for good, and put right what rested on them. What matches all that is given goes."""
    told = {"source": source, "memory_ids": memory or None, "tags": tag or None, "before": moment(before, "--before")}
    asked: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    asked |= {"everything": True} if everything else {}
    _refuse(asked, matching, max_erased, scrub=scrub, dry_run=dry_run)
    if not (dry_run or yes) and call.alone:
        raise InvalidInput("forgetting is for good: give --yes where nobody can be asked, or --dry-run to see what would go")
    async with call.everything() as engine:
        bank = engine.bank(call.bank or "default")
        with places.reserved(receipt):
            asked |= {"memory_ids": [await full_id(bank, id) for id in memory]} if memory else {}
            order = _Order(asked=asked, words=matching, max_erased=max_erased, dry_run=dry_run, yes=yes)
            done = await _forgotten(call, bank, order)
            trouble = [receipts.written(done, receipt)] if done and receipt else []
            if done and scrub:
                done, problem = await _scrubbed(call, engine, done)
                trouble = [problem, *([receipts.written(done, receipt)] if receipt else [])]
    _told(call, done, receipt, [problem for problem in trouble if problem], dry_run=dry_run)


def _refuse(asked: dict[str, Any], words: str | None, max_erased: int | None, *, scrub: bool, dry_run: bool) -> None:
    """Combinations that make no sense. Raises InvalidInput."""
    if not asked and words is None:
        raise InvalidInput(f"say what to forget: {NAMED}")
    if "everything" in asked and (len(asked) > 1 or words is not None):
        raise InvalidInput("--everything is the whole bank: give it alone, or leave it out to erase what the rest names")
    if words is not None and not matching.words_of(words):
        raise InvalidInput(f'--matching "{views.plain(words)}" holds no word; give words of the memories, such as "green tea"')
    if max_erased is not None and max_erased < 1:
        raise InvalidInput(f"--max-erased is {max_erased}; it is the most memories that may go, from 1 on")
    if scrub and dry_run:
        raise InvalidInput("--dry-run changes nothing, --scrub rewrites files: give one of them")


async def _forgotten(call: Call, bank: Bank, order: _Order) -> Receipt | None:
    """The receipt; None where the person said no."""
    asked: dict[str, Any] = order.asked
    if order.words is not None:
        chosen = await _chosen(call, bank, order, order.words)
        if not chosen:
            return None
        asked = {"memory_ids": [m.id for m in chosen]}
    planned = await bank.forget(**asked, dry_run=True)
    if not planned.memories:
        raise NotFound(f'nothing in bank "{bank.id}" matches; nothing was erased')
    if order.max_erased is not None and len(planned.memories) > order.max_erased:
        many = views.count(len(planned.memories), "memory matches", "memories match")
        raise InvalidInput(f"{many}, and --max-erased is {order.max_erased:,}; nothing was erased")
    if (order.dry_run or not order.yes) and not call.json:
        call.out.print(views.erasure(planned) if order.words else await _would_go(bank, planned))
    if order.asks and not _agreed(planned, bank.id, whole="everything" in asked):
        return None
    return planned if order.dry_run else await bank.forget(**asked, max_erased=order.max_erased)


async def _chosen(call: Call, bank: Bank, order: _Order, words: str) -> list[Memory]:
    """What holds the words, of all that matches the rest; where somebody can be asked, what of it is picked."""
    within = {*(await bank.forget(**order.asked, dry_run=True)).memories} if order.asked else None
    found = [m for m in await bank.memories() if (within is None or m.id in within) and matching.holds(m, words)]
    if not found:
        raise NotFound(f'no memory in bank "{bank.id}" that matches holds the words "{views.plain(words)}"; nothing was erased')
    if (order.dry_run or not order.yes) and not call.json:
        call.out.print(matching.numbered(found), Text())
    return matching.picked(call, found) if order.asks else found


async def _would_go(bank: Bank, planned: Receipt) -> Group:
    sources = [views.plain(source) for source in planned.sources[:FIRST_LINES]]
    more = len(planned.sources) - len(sources)
    of = ", ".join(sources) + (f" and {more:,} more" if more else "")
    head = f"{views.count(len(planned.memories), 'memory', 'memories')} of {of}"
    first = await memories_of(bank, planned.memories[:FIRST_LINES])
    lines = [Text(f"  {views.cut(memory.spoken, 70)}") for memory in first.values()]
    if len(planned.memories) > FIRST_LINES:
        lines.append(Text(f"  … and {len(planned.memories) - FIRST_LINES:,} more"))
    return Group(Text(head, "bold"), *lines, Text(), views.erasure(planned))


def _agreed(planned: Receipt, bank: str, *, whole: bool) -> bool:
    many = views.count(len(planned.memories), "memory", "memories")
    try:
        with interruptible():
            if not whole:
                return typer.confirm(f"\nErase {many} for good?", err=True)
            asked = f"\nThis empties the bank for good: {many}. Type its name, {bank}, to go on"
            told: str = typer.prompt(asked, default="", show_default=False, err=True)
            return told.strip() == bank
    except typer.Abort:
        return False


async def _scrubbed(call: Call, engine: Engine, done: Receipt) -> tuple[Receipt, str | None]:
    """The receipt as it is then; where rewriting fails, the sentence that says so: what was erased stays erased."""
    try:
        with call.spinner(REWRITING):
            scrubbed = {receipt.id for receipt in await engine.scrub()}
    except ConsolidatorError as error:
        return done, f"erased, but the files could not be rewritten: {error}; `consolidator scrub` tries again"
    return (done.model_copy(update={"state": "scrubbed"}) if done.id in scrubbed else done), None


def _told(call: Call, done: Receipt | None, file: Path | None, trouble: list[str], *, dry_run: bool) -> None:
    if done is None:
        call.out.print("nothing was erased")
        return
    unwritten = any(done.id in problem for problem in trouble)
    if call.json or not dry_run:
        own = places.own_files(call.settings())
        call.answer(done, lambda: _erased(done, None if unwritten else file, views.on(done.bank), own=own))
    if unwritten and not call.json:
        call.document(done)
    for problem in trouble:
        call.err.print(f"error: {problem}", soft_wrap=True)
    if trouble:
        raise typer.Exit(1)


def _erased(done: Receipt, file: Path | None, on: str, *, own: bool) -> Group:
    waiting = Text("another worker holds the bank: the rollback follows with its next step", "yellow")
    how = Text(f"receipt {done.id}; check it with `consolidator verify {file or done.id}{on}`", "bright_black")
    return Group(views.erasure(done), Text(), *([waiting] if done.state == "accepted" else []), left_in_files(done, own=own), how)


def left_in_files(done: Receipt, *, own: bool) -> Text:
    """own: the files are the engine's to rewrite."""
    if done.state == "scrubbed":
        return Text("the files were rewritten: no byte of it is left in them", "bright_black")
    if not own:
        return Text(IN_SERVERS, "yellow")
    return Text("bytes of it may linger in files: `consolidator scrub`, or `forget --scrub`", "bright_black")


async def scrub(call: Call) -> None:
    """Rewrite the files of all banks, so that they hold no byte of what was erased. Takes seconds in a large memory."""
    async with call.everything() as engine:
        with call.spinner(REWRITING):
            done = await engine.scrub()
    own = places.own_files(call.settings())
    call.answer(done, lambda: _rewritten(done, own=own))
    if not own:
        raise typer.Exit(1)


def _rewritten(done: list[Receipt], *, own: bool) -> RenderableType:
    if not own:
        return Text(IN_SERVERS.replace("of it", "of what was erased"), "yellow")
    if not done:
        return Text("the files were rewritten; no erasure was waiting for it")
    many = [views.count(len(receipt.memories), "memory", "memories") for receipt in done]
    lines = [Text(f"  {views.minute(r.at)}  {r.bank}, {told}, receipt {r.id}") for r, told in zip(done, many, strict=True)]
    return Group(Text(f"the files were rewritten: no byte is left of {views.count(len(done), 'erasure')}"), *lines)


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
