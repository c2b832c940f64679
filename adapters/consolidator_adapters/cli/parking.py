"""Commands for memories that consolidation has set aside: parked list, show, replay, drop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from consolidator.errors import InvalidInput, NotFound
from consolidator_adapters.cli import views
from consolidator_adapters.cli.call import Call, full_id
from consolidator_adapters.cli.reading import memories_of

if TYPE_CHECKING:
    from consolidator.engine import Bank
    from consolidator.models import Memory
    from consolidator.plans import Parked

ABOUT = "Memories that consolidation could not digest, and why; decide what becomes of them."
REPLY_LINES = 40
Ids = Annotated[list[str], typer.Argument(help="Ids, or their first 4 characters or more.", show_default=False)]


async def listed(call: Call) -> None:
    """List them: failed and tried again, parked after too many failures, held in quarantine."""
    async with call.memory() as bank:
        rows = await bank.parked()
        said = await memories_of(bank, (row.memory_id for row in rows))
    call.answer(rows, lambda: _rows(rows, said))


async def show(
    call: Call, id: Annotated[str, typer.Argument(help="An id, or its first 4 characters or more.", show_default=False)]
) -> None:
    """Show one: the memory, the reason, and the model's last raw reply."""
    async with call.memory() as bank:
        id = await _one(bank, id)
        row = next(row for row in await bank.parked() if row.memory_id == id)
        memory = await bank.memory(id)
    call.answer({"parked": row, "memory": memory}, lambda: _shown(row, memory))


async def replay(
    call: Call,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids, or their first 4 characters or more.", show_default=False)] = None,
    all: Annotated[bool, typer.Option("--all", help="Every parked and held one.")] = False,
) -> None:
    """Give memories back to consolidation, with no failures counted."""
    if bool(ids) == all:
        raise InvalidInput("say which: give the ids that `consolidator parked` lists, or --all")
    async with call.memory() as bank:
        given = await bank.replay(None if all else [await _one(bank, id) for id in ids or ()])
    told = f"{views.count(len(given), 'memory', 'memories')} given back: `consolidator consolidate`, or a worker, takes them up"
    call.answer(given, lambda: Text(told if given else "nothing is parked or held"))


async def drop(
    call: Call, ids: Ids,
    because: Annotated[str | None, typer.Option("--because", help="Why, for the journal.", show_default=False)] = None,
) -> None:
    """Give up on digesting memories: they stay word for word, and become evidence of nothing."""
    if because is None:
        raise InvalidInput('say why with --because "..."; the journal keeps it')
    async with call.memory() as bank:
        gone = await bank.drop([await _one(bank, id) for id in ids], reason=because)
    told = f"{views.count(len(gone), 'memory', 'memories')} dropped: recall finds them still; `consolidator forget` erases"
    call.answer(gone, lambda: Text(told))


WORKS: dict[str, Any] = {"list": listed, "show": show, "replay": replay, "drop": drop}


async def _one(bank: Bank, told: str) -> str:
    """The id of a row that it is the beginning of. Raises NotFound, InvalidInput."""
    rows = [row.memory_id for row in await bank.parked()]
    found = [id for id in rows if id.startswith(told.strip().lower())] if len(told.strip()) >= 4 else []
    if len(found) == 1:
        return found[0]
    id = await full_id(bank, told)
    if id not in rows:
        raise NotFound(f"{id} is no parked or held memory of this bank; `consolidator parked` lists them")
    return id


def _rows(rows: Sequence[Parked], memories: Mapping[str, Memory]) -> RenderableType:
    if not rows:
        return Text("nothing is parked or held, and nothing failed")
    made = views.table("memory", "state", "tries", "last", "text and reason", right=("tries",), wide="text and reason")
    for row in rows:
        said = memories.get(row.memory_id)
        text = Text.assemble(views.plain(said.text if said else None), "\n", (views.plain(row.reason), "yellow"))
        made.add_row(views.short(row.memory_id), row.state, str(row.attempts), views.minute(row.last_at), text)
    aside = any(row.state != "trying" for row in rows)
    what = "decide with `consolidator parked show | replay | drop`" if aside else "they are tried again by themselves"
    return Group(made, Text(f"\n{what}", "bright_black"))


def _shown(row: Parked, memory: Memory) -> RenderableType:
    tries = views.count(row.attempts, "try", "tries")
    facts: list[tuple[str, str | Text]] = [
        ("state", row.state), ("reason", Text(views.plain(row.reason), "yellow")),
        ("tries", f"{tries}, first {views.minute(row.first_at)}, last {views.minute(row.last_at)}"),
    ]
    return Group(views.memory(memory), Text(), views.facts(facts), *_reply(row.reply))


def _reply(reply: str) -> list[RenderableType]:
    """As it came, but for what could steer a terminal."""
    if not reply:
        return [Text("no reply of a model is kept", "bright_black")]
    lines = reply.splitlines()
    more = [Text(f"… and {len(lines) - REPLY_LINES:,} more lines: --json has them", "bright_black")]
    shown = [Padding(Text(views.plain_line(line)), (0, 0, 0, 2), expand=False) for line in lines[:REPLY_LINES]]
    return [Text("the model's last reply", "bright_black"), *shown, *(more if len(lines) > REPLY_LINES else [])]
