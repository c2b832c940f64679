"""A value for each bank that is kept a while: other processes change banks, too, and tell nobody here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
MOST = 1_000  # banks


@dataclass(slots=True)
class _Slot(Generic[T]):
    since: float
    values: tuple[T, ...] = ()  # one, or none yet


class Kept(Generic[T]):
    """Reads a bank's value, and keeps it for so many seconds, unless it is dropped before. clock: monotonic, in seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float], most: int = MOST) -> None:
        self._seconds = seconds
        self._clock = clock
        self._most = most
        self._slots: dict[str, _Slot[T]] = {}  # the oldest first

    async def of(self, bank: str, read: Callable[[str], Awaitable[T]]) -> T:
        self._expire()
        if (slot := self._slots.get(bank)) and slot.values:
            return slot.values[0]
        self._slots.pop(bank, None)
        slot = self._slots[bank] = _Slot(self._clock())
        value = await read(bank)
        slot.values = (value,)  # into a slot that is no longer there, where it was dropped meanwhile
        return value

    def drop(self, bank: str) -> None:
        """It changed: what is being read now is not kept either."""
        self._slots.pop(bank, None)

    def _expire(self) -> None:
        oldest = self._clock() - self._seconds
        while self._slots:
            bank, slot = next(iter(self._slots.items()))
            if slot.since > oldest and len(self._slots) <= self._most:
                return
            del self._slots[bank]
