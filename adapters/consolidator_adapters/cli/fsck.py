"""fsck: hold store and ledger against each other, and say for whatever is wrong what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from consolidator.errors import InvalidInput
from consolidator_adapters.cli.call import Call
from consolidator_adapters.cli.places import why
from consolidator_adapters.cli.views import count, plain

if TYPE_CHECKING:
    from consolidator.invariants import Kind, Violation

SHOWN = 5  # of one kind
RESTORED = "stop all workers; was the store or the ledger restored alone? put both back from copies of the same time"
AGAIN = "nothing of its words is lost; to have it digested, retain the text again under a source of its own"
REPORT = "that is a defect: keep a copy of store and ledger, and report this output"
WHAT_TO_DO: Mapping[Kind, str] = {
    "stuck": RESTORED,
    "unfinished": "`consolidator consolidate` finishes it, unless another worker is at it; look again afterwards",
    "open_plans": "stop all workers; " + REPORT,
    "lost": "look for it in the other banks and folders; else retain it again, and restore no copy that is older than this",
    "missing": RESTORED,
    "erased": "`consolidator consolidate` removes what was stored too late; if it stays, `consolidator verify` the receipt",
    "unconsumed": AGAIN,
    "uncited": AGAIN,
    "ineffective": AGAIN,
    "reopened": RESTORED,
    "revision": RESTORED,
    "state": REPORT,
    "stray_importance": REPORT,
    "unattended": "`consolidator consolidate` digests it; is a worker running?",
    "no_reason": "`consolidator parked` lists it: replay or drop it",
    "unknown": RESTORED,
    "absent": RESTORED,
    "differs": RESTORED,
    "husk": "an erased text may be back: forget its source again, then `consolidator verify` the receipt; " + REPORT,
    "proof": REPORT,
    "versions": REPORT,
    "twice": REPORT,
    "unexplained": REPORT,
    "orphan": REPORT,
    "lineage": "forgetting that memory would leave this text; " + REPORT,
    "scope": REPORT,
    "bank": "stop all workers; " + REPORT,
}


async def fsck(
    call: Call,
    acknowledged: Annotated[
        Path | None, typer.Option("--acknowledged", help="A file of memory ids, one a line, that must be stored or erased.")
    ] = None,
) -> None:
    """Check that nothing was lost, done twice, or left after an erasure. Changes nothing but what was left open.

    Exit code 1 when something is wrong; warnings alone are none.
    """
    ids = _ids(acknowledged) if acknowledged else None
    async with call.everything() as engine:
        banks = await call.banks(engine)
        if ids is not None and len(banks) != 1:
            raise InvalidInput(f"--acknowledged lists memories of one bank, and there are {len(banks)}: name it with --bank")
        found = {bank.id: await bank.check(acknowledged=ids) for bank in banks}
    sound = all(it.warning for violations in found.values() for it in violations)
    told = {bank: [_told(it) for it in violations] for bank, violations in found.items()}
    call.answer({"ok": sound, "banks": told}, lambda: _view(found))
    if not sound:
        raise typer.Exit(1)


def _ids(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {why(error) if isinstance(error, OSError) else 'it is not UTF-8'}") from None
    return [_id(file, number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def _id(file: Path, number: int, told: str) -> str:
    try:
        return str(UUID(told))
    except ValueError:
        raise InvalidInput(f"{file}, line {number} is no id; write one memory's id a line") from None


def _told(it: Violation) -> dict[str, Any]:
    return {"kind": it.kind, "what": it.what, "warning": it.warning, "do": WHAT_TO_DO[it.kind]}


def _view(found: Mapping[str, Sequence[Violation]]) -> RenderableType:
    if not found:
        return Text("no banks yet: nothing to check")
    return Group(*(line for bank, violations in found.items() for line in _bank(bank, violations)))


def _bank(bank: str, violations: Sequence[Violation]) -> list[RenderableType]:
    if not violations:
        return [Text.assemble((bank, "bold"), "  ", ("sound", "green"))]
    wrong = sum(not it.warning for it in violations)
    warned = len(violations) - wrong
    parts = [f"{count(wrong, 'thing')} wrong"] if wrong else []
    parts += [count(warned, "warning")] if warned else []
    lines: list[RenderableType] = [Text.assemble((bank, "bold"), "  ", (", ".join(parts), "bold red" if wrong else "yellow"))]
    kinds: list[Kind] = list(dict.fromkeys(it.kind for it in violations))
    return [*lines, *(line for kind in kinds for line in _kind(kind, [it for it in violations if it.kind == kind]))]


def _kind(kind: Kind, found: Sequence[Violation]) -> list[RenderableType]:
    lines = [Text(plain(it.what)) for it in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(Text(f"… and {len(found) - SHOWN:,} more: --json lists them", "bright_black"))
    lines.append(Text(f"→ {WHAT_TO_DO[kind]}", "yellow"))
    return [Text(f"  {kind.replace('_', ' ')}", "bold"), *(Padding(line, (0, 0, 0, 4), expand=False) for line in lines)]
