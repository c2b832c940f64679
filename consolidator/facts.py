"""What ranking needs to know of a memory besides its scores. A memory is never rewritten, so it is read once and kept a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from consolidator.models import Trust
from consolidator.parts import Parts
from consolidator.points import time_of
from consolidator.ranking import asks, tells_a_time

MOST = 50_000  # memories; about 25 MB


class Fact(NamedTuple):
    """No text: an erased one must not linger here."""

    time: datetime
    source: str
    sequence: int | None
    speaker: str | None
    trust: int
    asks: bool
    timed: bool


class Facts:
    """Of the memories that were candidates of late, in all banks of one deployment."""

    def __init__(self, parts: Parts, most: int = MOST) -> None:
        self._parts = parts
        self._most = most
        self._known: OrderedDict[tuple[str, str], Fact] = OrderedDict()
        self._reading: dict[object, tuple[str, set[str]]] = {}  # by call: a bank, and the ids that may be kept

    async def of(self, bank: str, ids: Sequence[str]) -> dict[str, Fact]:
        """In no order; what is not there is left out."""
        known, missing = dict[str, Fact](), list[str]()
        for id in ids:
            if (fact := self._known.get((bank, id))) is None:
                missing.append(id)
            else:
                self._known.move_to_end((bank, id))
                known[id] = fact
        return known | await self._read(bank, missing) if missing else known

    async def _read(self, bank: str, ids: Sequence[str]) -> dict[str, Fact]:
        """What is dropped while it is read is told, but not kept."""
        call, may_stay = object(), set(ids)
        self._reading[call] = (bank, may_stay)
        try:
            points = await self._parts.memories.get(bank, ids)
        finally:
            del self._reading[call]
        read = {point.id: _fact(point.payload) for point in points}
        self._known.update(((bank, id), fact) for id, fact in read.items() if id in may_stay)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return read

    def drop(self, bank: str, ids: Iterable[str]) -> None:
        """They are being erased."""
        for id in ids:
            self._known.pop((bank, id), None)
            for of, may_stay in self._reading.values():
                if of == bank:
                    may_stay.discard(id)


def _fact(payload: Mapping[str, Any]) -> Fact:
    """Straight from the payload: values cost time."""
    text = payload["text"]
    return Fact(
        time_of(payload["time"]), payload["source"], payload.get("sequence"), payload.get("speaker"),
        payload.get("trust", Trust.USER), asks(text), tells_a_time(text),
    )
