"""The ledger of a process that nobody shares: it remembers the tombstones, which every recall asks for twice."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from consolidator.models import Receipt
from consolidator.plans import Tombstone
from consolidator_providers.ledger import SqlLedger, created
from consolidator_providers.ledger_database import Database
from consolidator_providers.ledger_engines import backend

BANKS, STONES = 1_000, 10_000  # remembered: banks, and tombstones of one


async def open_alone_ledger(*, url: str, now: Callable[[], float] = time.time) -> AloneLedger:
    """As `open_ledger`, for a store that no other process can have open."""
    return await created(AloneLedger(Database(backend(url, now))))


class AloneLedger(SqlLedger):
    """`SqlLedger`, as long as no other process erases in its database."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._stones: OrderedDict[str, Mapping[str, Tombstone]] = OrderedDict()
        self._erasures = 0  # begun and ended: what was read across one is not remembered

    async def tombstones(
        self, bank: str, *, ids: Sequence[str] | None = None, open_only: bool = False
    ) -> list[Tombstone]:
        if (known := self._stones.get(bank)) is None:
            known = await self._read(bank)
        if known is None:
            return await super().tombstones(bank, ids=ids, open_only=open_only)
        found = known.values() if ids is None else (known[id] for id in sorted({*ids} & known.keys()))
        return [stone for stone in found if stone.open or not open_only]

    async def _read(self, bank: str) -> Mapping[str, Tombstone] | None:
        """None: there are too many to be kept."""
        before = self._erasures
        stones = {stone.memory_id: stone for stone in await super().tombstones(bank)}
        if len(stones) > STONES:
            return None
        if before == self._erasures:
            self._stones[bank] = stones
            while len(self._stones) > BANKS:
                self._stones.popitem(last=False)
        return stones

    async def entomb(self, receipt: Receipt, memory_ids: Sequence[str]) -> None:
        await self._erasing(receipt.bank, super().entomb(receipt, memory_ids))

    async def settle(self, receipt: Receipt) -> None:
        await self._erasing(receipt.bank, super().settle(receipt))

    async def _erasing(self, bank: str, write: Coroutine[Any, Any, None]) -> None:
        """A caller that is cancelled leaves a write that may yet come about: what is remembered until then goes with its end."""
        self._changed(bank)
        task = asyncio.create_task(write)
        task.add_done_callback(lambda done: self._ended(bank, done))
        await asyncio.shield(task)

    def _ended(self, bank: str, done: asyncio.Task[None]) -> None:
        self._changed(bank)
        if not done.cancelled():
            done.exception()  # a caller that was cancelled will not fetch it

    def _changed(self, bank: str) -> None:
        self._erasures += 1
        self._stones.pop(bank, None)
