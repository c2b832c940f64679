"""What a pass looks at: the oldest new memories of one scope, what was said before them, and the observations near to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate

from pydantic import Field

from consolidator.models import Memory, MemoryState, ObservationState, Value, Vector, scope_key
from consolidator.parts import Parts
from consolidator.plans import History
from consolidator.points import memory_of
from consolidator.ports import Equals, Leg, Point, Range
from consolidator.proposals import Batch, Candidate, ShownMemory
from consolidator.records import REPORTS, reported

PENDING = (Equals("state", MemoryState.PENDING.value),)


class GatheringPolicy(Value):
    """batch: memories in one call, fewer where they have more than `batch_tokens`. candidates: observations shown beside them, at
    most. floor: least cosine of a candidate.
    """

    batch: int = Field(default=8, ge=1, le=64)
    batch_tokens: int = Field(default=3_000, ge=100)  # of the memories' texts, at four characters a token
    candidates: int = Field(default=15, ge=0, le=100)
    context: int = Field(default=2, ge=0, le=8)  # memories of the same source that were digested just before
    near_each: int = Field(default=5, ge=1)  # by meaning, for each memory; by words it is half as many
    floor: float = Field(default=0.2, ge=-1, le=1)


@dataclass(frozen=True, slots=True)
class Gathered:
    """echoes: memories that recall had handed out; they are accounted for, and shown to nobody."""

    batch: Batch
    known: Mapping[str, History]
    echoes: tuple[Memory, ...] = ()


class Gathering:
    """Reads for the passes of one deployment."""

    def __init__(self, parts: Parts, policy: GatheringPolicy) -> None:
        self._parts = parts
        self._policy = policy

    async def pending(self, bank: str) -> int:
        return await self._parts.memories.count(bank, PENDING)

    async def next(self, bank: str, size: int, seen: Set[str]) -> list[Point]:
        """The oldest pending memories of one scope, but for those in `seen`; at most `size`."""
        if size < 1:
            return []
        reach = len(seen) + 4 * self._policy.batch
        page = await self._parts.memories.scan(bank, PENDING, order_by="retained_at", limit=reach)
        stones = await self._parts.ledger.tombstones(bank, ids=[p.id for p in page.points])
        entombed = {stone.memory_id for stone in stones}
        if stray := [stone.memory_id for stone in stones if not stone.open]:
            # a retain that was killed before it looked for tombstones has brought back what was erased meanwhile
            await self._parts.memories.delete(bank, stray)
        open_ones = [p for p in page.points if p.id not in seen and p.id not in entombed]
        same = [p for p in open_ones if _kin(p) == _kin(open_ones[0])]
        fitting = _fitting(same[:size], 4 * self._policy.batch_tokens)
        return await self._parts.memories.get(bank, [p.id for p in fitting], vectors=True)

    async def batch(self, bank: str, points: Sequence[Point]) -> Gathered:
        told = [(memory_of(bank, point), point.dense or []) for point in points]
        fresh = [(memory, vector) for memory, vector in told if not memory.echo]
        echoes = tuple(memory for memory, _ in told if memory.echo)
        tags, now = told[0][0].tags, self._parts.clock()
        if not fresh:
            return Gathered(Batch(bank=bank, tags=tags, now=now, memories=()), {}, echoes)
        known = await self._candidates(bank, fresh)
        shown = (ShownMemory(alias=f"m{n}", memory=m, vector=v) for n, (m, v) in enumerate(fresh, 1))
        candidates = (
            Candidate(alias=f"o{n}", observation=h.observation, vector=h.vectors.get(h.current.number, []))
            for n, h in enumerate(known, 1)
        )
        batch = Batch(
            bank=bank, tags=tags, now=now, context=await self._context(bank, fresh[0][0]), memories=tuple(shown),
            candidates=tuple(candidates),
        )
        return Gathered(batch, {h.observation.id: h for h in known}, echoes)

    async def _context(self, bank: str, first: Memory) -> tuple[ShownMemory, ...]:
        """What the same source said just before."""
        if not self._policy.context:
            return ()
        of_source = (Equals("source", first.source), Equals("scope", scope_key(first.tags)))
        before = (*of_source, Equals("state", MemoryState.DONE.value), Range("retained_at", lt=first.retained_at))
        page = await self._parts.memories.scan(bank, before, order_by="retained_at", descending=True, limit=self._policy.context)
        stones = await self._parts.ledger.tombstones(bank, ids=[p.id for p in page.points]) if page.points else []
        gone = {stone.memory_id for stone in stones}
        told = [memory_of(bank, point) for point in reversed(page.points) if point.id not in gone]
        return tuple(ShownMemory(alias=f"c{n}", memory=memory) for n, memory in enumerate(told, 1))

    async def _candidates(self, bank: str, fresh: Sequence[tuple[Memory, Vector]]) -> list[History]:
        """By meaning first, so that the nearest twin is always shown; then by words."""
        where = (Equals("scope", scope_key(fresh[0][0].tags)), Equals("state", ObservationState.LIVE.value))
        each, floor = self._policy.near_each, self._policy.floor if not reported(fresh[0][0]) else -1.0
        near = [Leg(name="near", dense=v, where=where, limit=each) for _, v in fresh if v]
        words = [Leg(name="words", lexical=m.text, where=where, limit=max(1, each // 2)) for m, _ in fresh]
        lists = await self._parts.observations.search(bank, [*near, *words])
        places: dict[str, tuple[bool, float]] = {}
        for n, hits in enumerate(lists):
            by_words = n >= len(near)
            for hit in hits:
                if by_words or hit.score >= floor:
                    place = (by_words, -round(hit.score, 6))
                    places[hit.id] = min(place, places.get(hit.id, place))
        live = await self._live(bank, places)
        # ties go by text: equal batches give equal prompts, whatever ids they have
        return sorted(live, key=lambda h: (places[h.observation.id], h.observation.text))[: self._policy.candidates]

    async def nearest(self, batch: Batch, vectors: Iterable[Vector]) -> dict[str, History]:
        """What lies nearest to each new text, shown or not: a twin of it becomes evidence instead of a duplicate."""
        where = (Equals("scope", scope_key(batch.tags)), Equals("state", ObservationState.LIVE.value))
        legs = [Leg(name="twin", dense=vector, where=where, limit=3) for vector in vectors]
        lists = await self._parts.observations.search(batch.bank, legs) if legs else []
        ids = dict.fromkeys(hit.id for hits in lists for hit in hits)
        return {h.observation.id: h for h in await self._parts.ledger.histories(batch.bank, list(ids))}

    async def _live(self, bank: str, ids: Iterable[str]) -> list[History]:
        histories = await self._parts.ledger.histories(bank, list(ids))
        return [h for h in histories if h.observation.state is ObservationState.LIVE]


def _kin(point: Point) -> tuple[object, object]:
    """Memories of one batch agree in it: their scope, and who digests them."""
    role = point.payload.get("role")
    return point.payload["scope"], "report" if role in REPORTS else role


def _fitting(points: Sequence[Point], characters: int) -> Sequence[Point]:
    """The first ones, at least one."""
    sizes = accumulate(len(str(p.payload["text"])) for p in points)
    return points[: max(1, sum(size <= characters for size in sizes))]
