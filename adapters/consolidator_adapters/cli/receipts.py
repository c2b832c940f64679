"""Receipts: written to a file, read back, and held against what the memory itself keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from consolidator.errors import InvalidInput, NotFound
from consolidator_adapters.cli.places import why

if TYPE_CHECKING:
    from consolidator.engine import Bank
    from consolidator.models import Receipt, Verification

STRANGE = "this memory did not issue this receipt"
DIFFERENT = "this file differs from the receipt that the memory keeps; what is kept was checked too"
UNFINISHED = "this file is from before the erasure was finished; what is kept was checked too"
IDENTITY = ("id", "bank", "asked", "at", "memories", "sources")


@dataclass(frozen=True, slots=True)
class Checked:
    """`note`: what is to be said of the receipt itself. `genuine` False: it is not the one that the memory keeps."""

    outcome: Verification
    note: str | None = None
    genuine: bool = True

    @property
    def ok(self) -> bool:
        return self.outcome.ok and self.genuine


async def check(bank: Bank, told: str) -> Checked:
    """Verify a receipt, from a file or by its id; a file is not believed where the memory knows better."""
    kept = {receipt.id: receipt for receipt in await bank.receipts()}
    given = from_file(Path(told))
    if given is None:
        if told not in kept:
            raise NotFound(f'there is no file {told}, and bank "{bank.id}" has no receipt of that id')
        return Checked(await bank.verify(kept[told]))
    outcome, own = await bank.verify(given), kept.get(given.id)
    if own is None or _same(given, own):
        return Checked(outcome, STRANGE if own is None else None)
    both, genuine = _both(outcome, await bank.verify(own)), grew_into(given, own)
    return Checked(both, UNFINISHED if genuine else DIFFERENT, genuine)


def _same(given: Receipt, own: Receipt) -> bool:
    """But for what stands in the caller's copy alone, and for what the files' rewriting has added."""
    bare = {"fingerprints": ()} | ({"state": own.state} if (given.state, own.state) == ("settled", "scrubbed") else {})
    return given.model_copy(update=bare) == own.model_copy(update={"fingerprints": ()})


def grew_into(given: Receipt, own: Receipt) -> bool:
    """An erasure that another worker finished has added to the receipt that was handed out when it was accepted."""
    same = all(getattr(given, name) == getattr(own, name) for name in IDENTITY)
    return same and given.state == "accepted" and set(given.digests) <= set(own.digests)


def _both(one: Verification, other: Verification) -> Verification:
    return other.model_copy(update={"found": tuple(dict.fromkeys([*other.found, *one.found]))})


def from_file(file: Path) -> Receipt | None:
    """None where there is no such file. Raises InvalidInput for one that holds no receipt."""
    from pydantic import ValidationError

    from consolidator.models import Receipt

    if not file.is_file():
        return None
    try:
        return Receipt.model_validate_json(file.read_bytes())
    except ValidationError:
        raise InvalidInput(f"{file} holds no receipt; `consolidator forget --receipt FILE` writes one") from None


def written(receipt: Receipt, file: Path) -> str | None:
    """Write a receipt to a file; where that fails, the sentence that says so."""
    try:
        file.write_text(receipt.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        return f"{file} cannot be written: {why(error)}; the receipt {receipt.id} is printed instead"
    return None
