"""Commands by which a person puts right what the engine believes: correct, revert, undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from consolidator.errors import InvalidInput, NotFound
from consolidator_adapters.cli import views
from consolidator_adapters.cli.call import Call, full_id, only
from consolidator_adapters.cli.reading import Id, memory_of, observation_of

if TYPE_CHECKING:
    from consolidator.engine import Bank
    from consolidator.models import Memory, Observation

ENTRIES = 100_000
AS_SAID = "a memory stays as it was said"
Because = Annotated[str | None, typer.Option("--because", help="Why; the history keeps it.", show_default=False)]


async def correct(
    call: Call, id: Id, text: Annotated[str | None, typer.Argument(help="What is right.", show_default=False)] = None,
    because: Because = None,
    source: Annotated[str | None, typer.Option("--source", "-s", help="Where the correction comes from.")] = None,
) -> None:
    """Put an observation, or a memory, right: your word, which no model overwrites.

    An observation says your text from now on. A memory stays as it was said; what was derived from it is told anew.
    """
    if text is None:
        raise InvalidInput(f'say what is right: consolidator correct {id} "..."')
    if source is not None and not source.strip():
        raise InvalidInput("the source is empty; leave it out, or name where the correction comes from")
    told = {"reason": because} if because is not None else {}
    async with call.memory() as bank:
        id = await full_id(bank, id)
        before = await observation_of(bank, id) or await memory_of(bank, id)
        correction = await bank.correct(id, text, source=source, **told)
        after = await observation_of(bank, id)
        waiting = (await bank.stats()).pending
    call.answer(correction, lambda: _corrected(before.text, after, correction, bank.id, waiting))


def _corrected(before: str, after: Observation | None, correction: Memory, bank: str, waiting: int) -> RenderableType:
    rows: list[tuple[str, str | Text]] = [("before", views.plain(before)), ("now", Text(views.plain(correction.text), "bold"))]
    kept = f"your word is memory {views.short(correction.id)} of {views.plain(correction.source)}"
    if after:
        note = f"version {after.version} of {views.short(after.id)}; no model overwrites it; {kept}"
        return Group(views.facts(rows), Text(note, "bright_black"))
    note = f"{AS_SAID}, and names its correction; {kept}; what was derived from the old words was taken back"
    again = f"{views.count(waiting, 'memory waits', 'memories wait')} to be told anew: `consolidator consolidate{views.on(bank)}`"
    return Group(views.facts(rows), Text(note, "bright_black"), *([Text(again, "bright_black")] if waiting else []))


async def revert(
    call: Call, id: Id,
    version: Annotated[str | None, typer.Argument(help="The number of the version.", show_default=False)] = None,
    because: Because = None,
) -> None:
    """Let an earlier version of an observation stand again; a deleted one comes back. Its evidence stays."""
    if version is None:
        raise InvalidInput(f"say which version: `consolidator history {id}` lists them")
    number, why = _number(version, id), _said(because)
    async with call.memory() as bank:
        id = await full_id(bank, id)
        before = await observation_of(bank, id)
        if before is None:
            memory = await memory_of(bank, id)
            raise InvalidInput(f'{AS_SAID}; put it right with: consolidator correct {views.short(memory.id)} "..."')
        done = await bank.revert(id, number, reason=why)
    call.answer(done, lambda: _reverted(before, done, number, bank.id))


def _number(told: str, id: str) -> int:
    bare = told.lower().removeprefix("v")
    if not bare.isascii() or not bare.isdigit():
        raise InvalidInput(f'"{views.plain(told)}" is no version; `consolidator history {id}` numbers them')
    return int(bare)


def _reverted(before: Observation, done: Observation, version: int, bank: str) -> RenderableType:
    gone = [] if before.state == "live" else [Text(" (deleted)", "yellow")]
    was = Text.assemble(views.plain(before.text), *gone)
    rows: list[tuple[str, str | Text]] = [("before", was), ("now", Text(views.plain(done.text), "bold"))]
    note = f"version {version} stands again, as version {done.version}; no model overwrites it"
    back = f"`consolidator history {views.short(done.id)}{views.on(bank)}` tells the story"
    return Group(views.facts(rows), Text(f"{note}; {back}", "bright_black"))


async def undo(
    call: Call,
    named: Annotated[str, typer.Argument(help="A pass, as the journal names it.", metavar="PASS", show_default=False)],
    because: Because = None,
) -> None:
    """Take a whole pass back: its observations are as before it, and its memories are held until you replay them."""
    why = _said(because)
    async with call.memory() as bank:
        intent = await _pass(bank, named)
        held = {row.memory_id for row in await bank.parked() if row.state == "held"}
        done = await bank.undo(intent, reason=why)
        now = {row.memory_id for row in await bank.parked() if row.state == "held"}
    call.answer(done, lambda: _undone(intent, done, len(now - held), bank.id))


async def _pass(bank: Bank, told: str) -> str:
    """The pass that a unique beginning of its id stands for; one that erased is refused. Raises NotFound, InvalidInput."""
    told, entries = told.strip().lower(), await bank.journal(limit=ENTRIES)
    names = f"`consolidator journal{views.on(bank.id)}` names the passes"
    if len(told) < 4:
        raise NotFound(f'"{views.plain(told)}" is no pass; write its id, or the first 4 characters or more: {names}')
    passes = {entry.intent for entry in entries}
    if not any(intent.startswith(told) for intent in passes) and any((e.observation_id or "").startswith(told) for e in entries):
        raise InvalidInput(f"{told} is an observation, and a pass is meant: {names}")
    intent = only(told, passes, f'bank "{bank.id}" has no pass {views.plain(told)}; {names}')
    if any(entry.by == "forget" for entry in entries if entry.intent == intent):
        raise InvalidInput(f"pass {views.short(intent)} put right what rested on erased memories: erasing is for good")
    return intent


def _undone(intent: str, done: list[Observation], held: int, bank: str) -> RenderableType:
    head = f"pass {views.short(intent)} is taken back: {views.count(len(done), 'observation')} as before it"
    lines = []
    for o in done:
        gone = ("", "") if o.state == "live" else (" (gone again)", "yellow")
        lines.append(Text.assemble((f"  {views.short(o.id)}  ", "bright_black"), views.plain(o.text), gone))
    again = f"`consolidator parked replay --all{views.on(bank)}`"
    note = f"{views.count(held, 'memory is', 'memories are')} held; {again} has them consolidated anew"
    return Group(Text(head, "bold"), *lines, *([Text(note, "bright_black")] if held else []))


def _said(because: str | None) -> str:
    if because is None:
        raise InvalidInput('say why with --because "..."; the history keeps it')
    return because
