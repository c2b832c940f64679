"""What a bank shows: its memories, its observations, their history, its work. Nothing that is being erased is in any of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from consolidator import arguments
from consolidator.errors import ConsolidatorError, InvalidInput, NotFound
from consolidator.events import Events
from consolidator.forgetting import readable
from consolidator.models import Memory, MemoryState, Observation, ObservationState, Receipt, Stats, Trend, Version
from consolidator.paging import pages
from consolidator.parts import Parts
from consolidator.plans import Entry, History, Parked
from consolidator.points import memory_of, observation_of
from consolidator.portable import written
from consolidator.ports import AnyOf, Condition, Equals, Ids, Not
from consolidator.provenance import unsupported
from consolidator.services import Services
from consolidator.trends import trend_of


class ReadOnlyBank:
    """One isolated memory, to be read."""

    def __init__(self, services: Services, id: str) -> None:
        self._shared = services
        self.id = id

    @property
    def events(self) -> Events:
        return self._shared.parts.events

    @property
    def _services(self) -> Services:
        if self._shared.closed:
            raise ConsolidatorError("this engine is closed; open it again with connect")
        return self._shared

    @property
    def _parts(self) -> Parts:
        return self._services.parts

    async def receipts(self) -> list[Receipt]:
        return await self._parts.ledger.receipts(self.id)

    async def observations(
        self, *, tags: Iterable[str] = (), trend: Trend | str | None = None, state: ObservationState | str = "live"
    ) -> list[Observation]:
        """By creation. trend: only those. state: "live", or "retracted" for what was deleted or merged and can be reverted."""
        standing = arguments.one_of(ObservationState, state, "state") or ObservationState.LIVE
        if standing is ObservationState.ERASED:
            raise InvalidInput('what was erased is not there any more; state is "live" or "retracted"')
        tagged = (Equals("tags", tag) for tag in arguments.tag_set(tags))
        where: list[Condition] = [Equals("state", standing.value), *tagged]
        entombed = await self._entombed()
        found = [p async for p in pages(self._parts.observations, self.id, where)]
        served = [observation_of(self.id, p) for p in found if not entombed & {*p.payload["lineage_memory_ids"]}]
        told = [self._told(unsupported(o, entombed)) for o in served]
        wanted = arguments.one_of(Trend, trend, "trend")
        return sorted((o for o in told if wanted in (None, o.trend)), key=lambda o: (o.created_at, o.id))

    def _told(self, observation: Observation) -> Observation:
        return observation.model_copy(update={"trend": trend_of(observation.evidence, self._parts.clock())})

    async def observation(self, id: str) -> Observation:
        """Raises NotFound; erased ones are not there."""
        return self._told((await self._history(id)).observation)

    async def history(self, id: str) -> list[Version]:
        """Its versions, oldest first; purged ones without their text. Raises NotFound."""
        return list((await self._history(id)).versions)

    async def _history(self, id: str) -> History:
        told = await readable(self._parts, self.id, [arguments.id_of(id)])
        if not told:
            raise NotFound(f'bank "{self.id}" has no observation {id}')
        return told[0]

    async def _entombed(self) -> set[str]:
        """Memories whose erasure is under way. Read before anything else: what is read later may be put right already."""
        return {stone.memory_id for stone in await self._parts.ledger.tombstones(self.id, open_only=True)}

    async def journal(self, *, observation_id: str | None = None, limit: int = 1000) -> list[Entry]:
        """What was decided, why, on which evidence, by whom; oldest first."""
        gone = await self._entombed()
        resting = set(await self._parts.ledger.resting_on(self.id, sorted(gone))) if gone else set()
        entries = await self._parts.ledger.journal(self.id, observation_id=observation_id, limit=limit)
        read = {seq for seq, *_ in await self._parts.ledger.told_by_readers_of(self.id, sorted(gone))} if gone else set()
        withheld = {"before": None, "after": None, "reason": None}
        return [e.model_copy(update=withheld) if e.observation_id in resting or e.seq in read else e for e in entries]

    async def memory(self, id: str) -> Memory:
        """Raises NotFound."""
        gone = await self._entombed()
        points = await self._parts.memories.get(self.id, [arguments.id_of(id)])
        if not points or points[0].id in gone:
            raise NotFound(f'bank "{self.id}" has no memory {id}')
        return memory_of(self.id, points[0])

    async def memories(self, *, source: str | None = None, state: MemoryState | str | None = None) -> list[Memory]:
        """In the order in which they were retained."""
        where = [Equals("source", source)] if source is not None else []
        wanted = arguments.one_of(MemoryState, state, "state")
        where += [Equals("state", wanted.value)] if wanted is not None else []
        gone = await self._entombed()
        found = [memory_of(self.id, p) async for p in pages(self._parts.memories, self.id, where) if p.id not in gone]
        return sorted(found, key=lambda m: (m.retained_at, m.id))

    async def sources(self) -> dict[str, int]:
        """How many memories each source has."""
        return await self._parts.memories.facet(self.id, "source", await self._standing(), limit=10_000)

    async def _standing(self) -> list[Condition]:
        """Memories that are not being erased."""
        gone = await self._entombed()
        return [Not(Ids(tuple(sorted(gone))))] if gone else []

    async def parked(self) -> list[Parked]:
        """Memories that failed in consolidation, with what happened."""
        gone = await self._entombed()
        rows = [row for row in await self._services.parking.rows(self.id) if row.memory_id not in gone]
        unsaid = {"reply": "", "reason": ""}  # a reply may quote what it was shown, and a reason the reply
        return [row.model_copy(update=unsaid) if gone and row.reply else row for row in rows]

    async def export(self) -> AsyncIterator[str]:
        """Lines of JSON from which `import_` makes the bank again: memories, observations, their versions and evidence.

        A page at a time, so that a large bank takes little memory. Vectors, journal and receipts stay here.
        """
        async for line in self._services.transfer.export(self.id):
            yield written(line)

    async def stats(self) -> Stats:
        gone = await self._entombed()
        where: list[Condition] = [Not(Ids(tuple(sorted(gone))))] if gone else []
        live: list[Condition] = [Equals("state", ObservationState.LIVE.value)]
        live += [Not(AnyOf("lineage_memory_ids", tuple(sorted(gone))))] if gone else []
        states = await self._parts.memories.facet(self.id, "state", where)
        pending = [Equals("state", MemoryState.PENDING.value), *where]
        oldest = await self._parts.memories.scan(self.id, pending, order_by="retained_at", limit=1)
        spent = await self._parts.ledger.spent(self.id)
        trouble = [row for row in await self.parked() if row.reason]
        failed = max(trouble, key=lambda row: row.last_at).reason if trouble else None
        standing, scoring = await self._parts.ledger.standing(self.id), await self._parts.ledger.scoring(self.id)
        return Stats(
            bank=self.id, memories=sum(states.values()),
            observations=await self._parts.observations.count(self.id, live),
            pending=states.get("pending", 0), unembedded=states.get("unembedded", 0), parked=states.get("parked", 0),
            held=states.get("held", 0), waiting=states.get("waiting", 0),
            oldest_pending=memory_of(self.id, oldest.points[0]).retained_at if oldest.points else None,
            last_error=None if gone else standing.last_error or failed,
            due_in=standing.due_in, attempts=standing.attempts, paused=standing.paused, holder=standing.holder,
            open_plans=spent["open_plans"],
            open_tombstones=spent["open_tombstones"], passes=spent["passes"], model_calls=spent["calls"],
            prompt_tokens=spent["prompt_tokens"], reply_tokens=spent["reply_tokens"], unscored=scoring["transcripts"],
            scored=scoring["items"],
            scorer_refused=self._services.importance.refused,
        )
