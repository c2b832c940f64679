"""Ports that sleep where it hurts, and ports that lack one part of the protocol: with them the checker must find something."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from sqlalchemy import Engine, event

from consolidator.plans import Intent, Lease
from consolidator.ports import ANY, Expect, Point, PutOutcome

OF_A_BANK = re.compile(r"SELECT\b.*\bFROM bank\b", re.DOTALL)


class Passing:
    """A port that passes on whatever it does not define."""

    def __init__(self, port: Any) -> None:
        self._port = port

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._port, verb)


class Gate(Passing):
    """The first call of one verb waits, as that of a process that the system has put to sleep."""

    def __init__(self, port: Any, verb: str) -> None:
        super().__init__(port)
        self._verb = verb
        self.reached, self.resume = asyncio.Event(), asyncio.Event()

    def __getattr__(self, verb: str) -> Any:
        return self._waiting if verb == self._verb else super().__getattr__(verb)

    async def _waiting(self, *args: Any, **options: Any) -> Any:
        self.reached.set()
        await self.resume.wait()
        return await getattr(self._port, self._verb)(*args, **options)


class Midway(Passing):
    """A ledger whose first commit stops inside its transaction, once it has seen that the lease is good.

    unlocked: and it holds no lock on that row meanwhile, where the database knows such locks.
    """

    def __init__(self, port: Any, *, unlocked: bool = False) -> None:
        super().__init__(port)
        self._unlocked = unlocked
        self.reached, self.resume = threading.Event(), threading.Event()

    async def commit(self, intent: Intent, lease: Lease) -> int:
        event.listen(Engine, "before_cursor_execute", self._unlock, retval=True)
        event.listen(Engine, "after_cursor_execute", self._stop)
        try:
            scrubbed: int = await self._port.commit(intent, lease)
        finally:
            event.remove(Engine, "before_cursor_execute", self._unlock)
            event.remove(Engine, "after_cursor_execute", self._stop)
        return scrubbed

    def _unlock(self, _c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        mine = self._unlocked and not self.reached.is_set()
        return statement.replace("FOR UPDATE", "") if mine else statement, parameters

    def _stop(self, _c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if OF_A_BANK.search(statement) and not self.reached.is_set():  # the others are still
            self.reached.set()
            self.resume.wait(20)


class Heartless(Passing):
    """A ledger whose leases are over at once and never renewed, as those of a process that sleeps long."""

    async def claim(self, bank: str, owner: str, _seconds: float, *, over: Sequence[str] = ()) -> Lease | None:
        lease: Lease | None = await self._port.claim(bank, owner, 0.0, over=over)
        return lease

    async def renew(self, _lease: Lease, _seconds: float) -> bool:
        return True

    def beating(self, *_: Any) -> AbstractContextManager[None]:
        return nullcontext()


# each lacks one part


class Careless(Passing):
    """A store that writes whatever revision is there."""

    async def put(self, bank: str, points: list[Point], *, expect: Expect = ANY) -> list[PutOutcome]:
        outcomes: list[PutOutcome] = await self._port.put(bank, points)
        return outcomes

    async def patch(self, bank: str, id: str, changes: Mapping[str, Any], *, expect: int) -> bool:
        for stored in await self._port.get(bank, [id]):
            expect = stored.payload["rev"]
        done: bool = await self._port.patch(bank, id, changes, expect=expect)
        return done


class Deleting(Passing):
    """A store that leaves no husk of an erased observation."""

    async def put(self, bank: str, points: list[Point], *, expect: Expect = ANY) -> list[PutOutcome]:
        gone = [point.id for point in points if point.payload["state"] == "erased"]
        await self._port.delete(bank, gone)
        left = [point for point in points if point.id not in gone]
        outcomes: list[PutOutcome] = await self._port.put(bank, left, expect=expect) if left else []
        return [*outcomes, *(PutOutcome.WRITTEN for _ in gone)]


class Adding(Passing):
    """A store to which an update is a delta: new evidence is added to what is there, whatever that is."""

    async def put(self, bank: str, points: list[Point], *, expect: Expect = ANY) -> list[PutOutcome]:
        added = [await self._added(bank, point) for point in points] if expect.rev is not None else points
        outcomes: list[PutOutcome] = await self._port.put(bank, added, expect=ANY if expect.rev is not None else expect)
        return outcomes

    async def _added(self, bank: str, point: Point) -> Point:
        (stored,) = await self._port.get(bank, [point.id])
        new = [e for e in point.payload["evidence"] if e["since_version"] == point.payload["version"]]
        changed = {"evidence": [*stored.payload["evidence"], *new], "rev": stored.payload["rev"] + 1}
        return replace(point, payload={**point.payload, **changed})


class Unfenced(Passing):
    """A ledger that takes a commit from whoever brings it: a lost lease is as good as the newest."""

    async def commit(self, intent: Intent, lease: Lease) -> int:
        fresh = await self._port.claim(lease.bank, lease.owner, 0.0)
        scrubbed: int = await self._port.commit(intent, fresh)
        return scrubbed


class Unused(Passing):
    """A ledger that does not note which revisions of memories a plan consumes."""

    async def commit(self, intent: Intent, lease: Lease) -> int:
        scrubbed: int = await self._port.commit(intent.model_copy(update={"marks": ()}), lease)
        return scrubbed
