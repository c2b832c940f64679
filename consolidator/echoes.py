"""Texts that recall has handed out: an agent that sends one back tells nothing new."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Sequence

from consolidator.errors import ConsolidatorError
from consolidator.models import Hit
from consolidator.parts import Parts
from consolidator.words import plain

log = logging.getLogger("consolidator.echoes")

KEPT = 5_000  # texts of one bank
LEAST_WORDS = 5  # shorter ones are said again by chance
QUOTED = re.compile(r"""\s*\((?:".*", )?\d\d \w+ \d{4}\)\s*$""")  # what `Hit.line` adds behind a text
BULLET = re.compile(r"^\s*[-*]\s+")


class Echoes:
    """Knows, by keyed digests alone, what was handed out."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._writing: set[asyncio.Task[None]] = set()

    async def note(self, bank: str, hits: Sequence[Hit]) -> None:
        """Remember the hits' texts. Recall does not wait for it, and does not fail with it."""
        digest = await self._parts.digest(bank)
        told = {line for hit in hits for text in _texts(hit) for line in text.splitlines() if _telling(line)}
        if digests := [digest(plain(line)) for line in sorted(told)]:
            task = asyncio.create_task(self._write(bank, digests))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _write(self, bank: str, digests: Sequence[str]) -> None:
        try:
            await self._parts.ledger.hand_out(bank, digests, self._parts.clock(), keep=KEPT)
        except ConsolidatorError as error:
            log.warning("not_noted", extra={"action": "not_noted", "error": type(error).__name__})

    async def settled(self) -> None:
        """Everything noted so far is written."""
        if self._writing:  # not gathered: whoever is cancelled here must not cancel them for all
            await asyncio.wait(self._writing)

    async def among(self, bank: str, texts: Sequence[str]) -> list[bool]:
        """For each text, whether all that it says was handed out before."""
        await self.settled()
        digest = await self._parts.digest(bank)
        parts = [[digest(plain(line)) for line in _lines(text)] for text in texts]
        known = await self._parts.ledger.handed_out(bank, sorted({d for digests in parts for d in digests}))
        return [bool(digests) and known.issuperset(digests) for digests in parts]


def _texts(hit: Hit) -> Iterable[str]:
    """In every form in which a prompt shows them."""
    yield hit.text
    if hit.speaker:
        yield f"{hit.speaker}: {hit.text}"
    if hit.quote:
        yield from (hit.quote.text, hit.quote.spoken)


def _telling(text: str) -> bool:
    return len(text.split()) >= LEAST_WORDS


def _lines(text: str) -> Iterable[str]:
    """The lines of a text, without what a list of hits adds; none where one is too short to tell."""
    found = [QUOTED.sub("", BULLET.sub("", line)) for line in text.splitlines() if line.strip()]
    return found if all(map(_telling, found)) else []
