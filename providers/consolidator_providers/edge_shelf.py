"""Points as they were read of late. The folder has one owner, so that whatever changes one of them passes by here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from consolidator.ports import Point

MOST = 4_096  # points of a collection; about 10 to 20 MB
LONGEST = 4_000  # characters of a text; what is longer is read each time


class Shelved(NamedTuple):
    bank: str
    point: Point


class Shelf:
    """Of one collection, without vectors, each with its bank. Used where the shard is: one job at a time."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held: OrderedDict[str, Shelved] = OrderedDict()

    def of(self, ids: Iterable[str]) -> dict[str, Shelved]:
        """Those that are held."""
        found: dict[str, Shelved] = {}
        for id in ids:
            if (shelved := self._held.get(id)) is not None:
                self._held.move_to_end(id)
                found[id] = shelved
        return found

    def keep(self, read: Mapping[str, Shelved]) -> None:
        self._held.update((id, s) for id, s in read.items() if len(str(s.point.payload.get("text", ""))) <= LONGEST)
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    def drop(self, ids: Iterable[str]) -> None:
        """They are about to be written, or deleted."""
        for id in ids:
            self._held.pop(id, None)


def id_of(point: UUID | int | str) -> str:
    """A point's id as text. Making it costs more than anything else of a hit."""
    return _text(point.int) if isinstance(point, UUID) else str(point)


@lru_cache(maxsize=65_536)
def _text(number: int) -> str:
    return str(UUID(int=number))
