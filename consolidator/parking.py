"""Memories that consolidation has set aside: parked after failures, or held in quarantine. A person looks, and decides."""

from __future__ import annotations

from collections.abc import Sequence

from consolidator.errors import NotFound
from consolidator.models import Memory, MemoryState
from consolidator.parts import Parts
from consolidator.planning import intent_id
from consolidator.plans import Entry, Intent, Lease, MemoryMark, Parked
from consolidator.points import memory_of
from consolidator.ports import AnyOf, Point
from consolidator.redo import carry_out

ASIDE = (AnyOf("state", (MemoryState.PARKED.value, MemoryState.HELD.value)),)
AT_ONCE = 10_000


class Parking:
    """Lists and decides for the banks of one deployment."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def rows(self, bank: str) -> list[Parked]:
        """Whatever is tried again, parked or held, the first to fail first; also where a kill has swallowed the reason."""
        rows = await self._parts.ledger.parked(bank)
        known = {row.memory_id for row in rows}
        page = await self._parts.memories.scan(bank, ASIDE, limit=AT_ONCE)
        lost = [memory_of(bank, point) for point in page.points if point.id not in known]
        return [*rows, *(_without_reason(memory) for memory in lost)]

    async def replay(self, bank: str, ids: Sequence[str] | None) -> list[Memory]:
        """Give parked and held memories back to consolidation, with no failures counted. Raises NotFound for any other."""
        points = await self._aside(bank, ids)
        await self._parts.ledger.attempts_cleared(bank, [point.id for point in points])
        for point in points:
            state = MemoryState.PENDING if point.dense else MemoryState.UNEMBEDDED
            await self._parts.memories.patch(bank, point.id, {"state": state.value}, expect=memory_of(bank, point).rev)
        return [memory_of(bank, point) for point in await self._parts.memories.get(bank, [p.id for p in points])]

    async def drop(self, bank: str, ids: Sequence[str], reason: str, lease: Lease) -> list[Memory]:
        """Consolidation gives up on them: they stay as they were told, and become evidence of nothing. Raises NotFound."""
        if not ids:
            return []
        memories = [memory_of(bank, point) for point in await self._aside(bank, ids)]
        now, digest = self._parts.clock(), await self._parts.digest(bank)
        intent = intent_id(bank, [(m.id, m.rev) for m in memories])
        shared = {"bank": bank, "intent": intent, "at": now, "action": "dropped", "reason": reason, "by": "person"}
        entries = tuple(Entry.model_validate({**shared, "cites": (m.id,), "digest": digest(m.text)}) for m in memories)
        marks = tuple(MemoryMark(memory_id=m.id, rev=m.rev, state=MemoryState.DONE) for m in memories)
        plan = Intent(
            id=intent, bank=bank, kind="drop", created_at=now, shown=tuple(m.id for m in memories), marks=marks, entries=entries,
            by="person",
        )
        await carry_out(self._parts, plan, lease)
        return memories

    async def _aside(self, bank: str, ids: Sequence[str] | None) -> list[Point]:
        if ids is None:
            page = await self._parts.memories.scan(bank, ASIDE, limit=AT_ONCE)
            ids = [point.id for point in page.points]
        points = await self._parts.memories.get(bank, ids, vectors=True)
        aside = {point.id: point for point in points if point.payload["state"] in ("parked", "held")}
        if unknown := [id for id in ids if id not in aside]:
            raise NotFound(f"{unknown[0]} is no parked or held memory of this bank; `parked` lists them")
        return list(aside.values())


def _without_reason(memory: Memory) -> Parked:
    state, at = ("parked" if memory.state is MemoryState.PARKED else "held"), memory.retained_at
    return Parked.model_validate(
        {"memory_id": memory.id, "state": state, "reason": "the reason was not kept", "first_at": at, "last_at": at}
    )
