"""Texts that recall has handed out: an agent that sends one back tells nothing new."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress

from consolidator.errors import ConsolidatorError
from consolidator.models import Hit
from consolidator.parts import Parts
from consolidator.words import plain

log = logging.getLogger("consolidator.echoes")

KEPT = 5_000  # texts of one bank
TOGETHER = 0.5  # seconds that a recall's texts wait to be written, at most
LEAST_WORDS = 5  # shorter ones are said again by chance
QUOTED = re.compile(r"""\s*\((?:".*", )?\d\d \w+ \d{4}\)\s*$""")  # what `Hit.line` adds behind a text
BULLET = re.compile(r"^\s*[-*]\s+")


class Echoes:
    """Knows, by keyed digests alone, what was handed out."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # by bank, what is not written yet, with the memories that it rests on; what was given out last is last
        self._told: dict[str, dict[str, set[str]]] = {}
        self._writing: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()

    async def note(self, bank: str, hits: Sequence[Hit]) -> None:
        """Remember the hits' texts. Recall does not wait for it, and does not fail with it.

        What successive recalls hand out is written together: a write for each would cost more than half of a recall.
        """
        if not hits:
            return
        digest = await self._parts.digest(bank)
        told = self._told.setdefault(bank, {})
        for hit in hits:
            rests_on = {hit.id, *(e.memory_id for e in hit.evidence), *([hit.quote.id] if hit.quote else [])}
            lines = {line for text in _texts(hit) for line in text.splitlines() if _telling(line)}
            for one in {digest(plain(line)) for line in lines}:
                told[one] = told.pop(one, set[str]()) | rests_on
        if self._writing is None or self._writing.done():
            self._asked.clear()
            self._writing = asyncio.create_task(self._write_soon())

    async def _write_soon(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._asked.wait(), TOGETHER)
        while self._told:
            bank = next(iter(self._told))
            await self._write(bank, self._told.pop(bank))

    async def _write(self, bank: str, told: Mapping[str, Set[str]]) -> None:
        """Without what was erased since it was told."""
        ids = sorted(frozenset[str]().union(*told.values()))
        try:
            gone = {stone.memory_id for stone in await self._parts.ledger.tombstones(bank, ids=ids)}
            if digests := [digest for digest, rests_on in told.items() if gone.isdisjoint(rests_on)]:
                await self._parts.ledger.hand_out(bank, digests, self._parts.clock(), keep=KEPT)
        except ConsolidatorError as error:
            log.warning("not_noted", extra={"action": "not_noted", "error": type(error).__name__})

    async def settled(self) -> None:
        """Everything noted so far is written."""
        if self._writing:  # not awaited itself: whoever is cancelled here must not cancel it for all
            self._asked.set()
            await asyncio.wait([self._writing])

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
