"""`export` and `import`: a bank as a file of JSON Lines, and back."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from consolidator.errors import InvalidInput
from consolidator_adapters.cli import views
from consolidator_adapters.cli.call import Call, known_bank
from consolidator_adapters.cli.writing import piped, read

if TYPE_CHECKING:
    from consolidator.engine import Bank
    from consolidator.portable import Imported

STREAM = Path("-")


async def export(
    call: Call,
    file: Annotated[Path, typer.Argument(help="Where to write it; - is standard output.")] = STREAM,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a bank as JSON Lines: memories, observations, their versions and evidence.

    What is erased later is still in the file: erase the file then, too.
    """
    if file == STREAM and call.json:
        raise InvalidInput("an export is JSON already, a line for each record; --json goes with a file")
    if file != STREAM and file.exists() and not force:
        raise InvalidInput(f"{file} is there already; --force writes over it")
    async with call.everything() as engine:
        bank = engine.bank(known_bank(call.bank or "default", await engine.banks()))
        if file == STREAM:
            async for line in bank.export():
                sys.stdout.write(line + "\n")
            return
        with call.spinner("exporting"):
            records = await _written(bank, file)
    told = {"written": str(file), "records": records}
    call.answer(told, lambda: Text(f"wrote {views.count(records, 'record', 'records')} of bank {bank.id} to {file}"))


async def _written(bank: Bank, file: Path) -> int:
    """Under its name when it is whole."""
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".part", dir=file.parent)  # for its owner's eyes
    records = 0
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as out:
            async for line in bank.export():
                out.write(line + "\n")
                records += 1
        os.replace(name, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    return records


async def import_(
    call: Call, file: Annotated[Path, typer.Argument(help="What `export` wrote; - is standard input.")]
) -> None:
    """Add an exported bank to this one. What is known already stays as it is; interrupted, run it again."""
    from consolidator.portable import parse

    lines = (piped() if file == STREAM else read(file)).split("\n")  # other line breaks may stand in texts
    parse(lines)  # before a folder is made
    async with call.memory(must_exist=False) as bank:
        with call.spinner("importing"):
            done = await bank.import_(lines)
    call.answer(done, lambda: Text("\n".join(_told(done))))


def _told(done: Imported) -> list[str]:
    known = [
        views.count(number, one, many)
        for number, one, many in (
            (done.known_memories, "memory", "memories"), (done.known_observations, "observation", "observations"),
        )
        if number
    ]
    told = [f"{views.count(done.memories, 'memory', 'memories')} and "
            f"{views.count(done.observations, 'observation', 'observations')} imported"]
    told += [f"known already: {', '.join(known)}"] if known else []
    told += [f"{done.redacted:,} secrets masked"] if done.redacted else []
    told += [f"{done.held:,} in quarantine; see `consolidator parked`"] if done.held else []
    told += [f"{done.pending:,} wait for consolidation"] if done.pending else []
    return told
