"""`retain --replace`: a new edition of a source, which erases what the source does not say any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from consolidator.errors import InvalidInput
from consolidator_adapters.cli import views
from consolidator_adapters.cli.call import Call, interruptible
from consolidator_adapters.cli.erasing import left_in_files

if TYPE_CHECKING:
    from consolidator.engine import Bank
    from consolidator.models import Memory, Retained

SHOWN = 10


def check(call: Call, items: Sequence[Mapping[str, Any]], *, piped: bool, yes: bool) -> None:
    """Refuse, before anything is kept, what cannot be an edition of one source. piped: the text came by standard input."""
    sources = {str(item["source"]) for item in items}
    if not sources:
        raise InvalidInput("there is nothing in it, and nothing was erased; `consolidator forget --source` empties a source")
    if len(sources) > 1:
        named = ", ".join(sorted(views.plain(source) for source in sources)[:3])
        raise InvalidInput(f"--replace takes one source at a time; these are of {len(sources)}: {named}")
    if (piped or call.alone) and not yes:
        raise InvalidInput("--replace erases for good what its source does not say now: give --yes where nobody can be asked")


async def replaced(call: Call, bank: Bank, kept: Retained, *, yes: bool) -> Retained:
    """The new edition is kept; what else the source had said is erased, unless a person says no."""
    edition = {m.id for m in kept.memories}
    gone = [m for m in await bank.memories(source=kept.memories[0].source) if m.id not in edition]
    if not gone or not (yes or _agreed(call, gone)):
        return kept
    return kept.model_copy(update={"replaced": await bank.forget(memory_ids=[m.id for m in gone])})


def _agreed(call: Call, gone: Sequence[Memory]) -> bool:
    many, source = views.count(len(gone), "memory", "memories"), views.plain(gone[0].source)
    call.out.print(Text(f"{many} that {source} does not say any more:", "bold"))
    for memory in gone[:SHOWN]:
        call.out.print(f"  {views.cut(memory.spoken, 70)}")
    if len(gone) > SHOWN:
        call.out.print(f"  … and {len(gone) - SHOWN:,} more")
    try:
        with interruptible():
            agreed: bool = typer.confirm(f"\nErase {views.count(len(gone), 'memory', 'memories')} for good?", err=True)
    except typer.Abort:
        agreed = False
    if not agreed:
        call.out.print("nothing was erased: the new edition stands beside the old")
    return agreed


def view(kept: Retained, bank: str, waiting: int | None, *, own: bool) -> RenderableType:
    gone, receipt = len(kept.replaced.memories) if kept.replaced else 0, kept.replaced
    known = len({m.id for m in kept.memories}) - kept.new
    told = f"{known:,} kept as they were, {kept.new:,} added, {gone:,} erased"
    if receipt is None:
        return views.retained(kept, bank, waiting, told)
    how = Text(f"receipt {receipt.id}; check it with `consolidator verify {receipt.id}{views.on(bank)}`", "bright_black")
    return Group(views.retained(kept, bank, waiting, told), left_in_files(receipt, own=own), how)
