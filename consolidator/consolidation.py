"""Consolidate: batches of new memories become changes of the observations, each batch one frozen plan."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from consolidator.errors import BadReply, ErasedMeanwhile, ModelError, ModelRefused, ModelTooLong
from consolidator.models import Memory, MemoryState, ObservationState, Value, Vector, scope_key
from consolidator.parts import Parts
from consolidator.planning import Guards, Planned, Planner, intent_id, texts_to_embed
from consolidator.plans import Done, History, Intent, Lease, MemoryMark, Report
from consolidator.points import memory_of, rev_of
from consolidator.ports import Equals, Leg, Point
from consolidator.proposals import Batch, Candidate, Proposal, ShownMemory
from consolidator.redo import carry_out

log = logging.getLogger("consolidator.consolidation")

DIGESTIBLE = (BadReply, ModelTooLong, ModelRefused)  # a smaller batch may do better; the others say: later


class ConsolidationPolicy(Value):
    """batch: memories in one call. candidates: observations shown beside them, at most. floor: least cosine of a candidate.
    attempts: failures of a memory on its own before it is parked.
    """

    batch: int = Field(default=8, ge=1, le=64)
    candidates: int = Field(default=15, ge=0, le=100)
    near_each: int = Field(default=5, ge=1)  # by meaning, for each memory; by words it is half as many
    floor: float = Field(default=0.2, ge=-1, le=1)
    attempts: int = Field(default=5, ge=1)
    guards: Guards = Guards()


@dataclass(slots=True)
class _Run:
    """What one call of `consolidate` has done so far."""

    dry: bool
    size: int  # of the next batch: halved by failures, doubled again by successes
    room: int | None  # memories that may still be taken
    tally: Counter[str] = field(default_factory=Counter)
    done: list[Done] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)  # memories that this run does not take again

    def report(self) -> Report:
        return Report(dry_run=self.dry, actions=tuple(self.done), faults=tuple(self.faults), **self.tally)


class Consolidation:
    """Digests the pending memories of a bank. Runs under the bank's lease."""

    def __init__(self, parts: Parts, policy: ConsolidationPolicy) -> None:
        self._parts = parts
        self._policy = policy

    async def run(
        self, bank: str, lease: Lease, *, erase: Callable[[], Awaitable[None]], limit: int | None = None, dry_run: bool = False
    ) -> Report:
        """All that is pending, oldest first, up to `limit` memories.

        A batch that cannot be digested is halved; a memory that fails alone is left, and parked after several runs. When
        something that a plan rests on is erased while the model thinks, `erase` finishes that, and the batch is made anew.
        Raises ModelUnavailable, ModelBusy, ModelDenied, EmbedderUnavailable: what was done until then is kept.
        """
        run = _Run(dry=dry_run, size=self._policy.batch, room=limit)
        while memories := await self._next(bank, run):
            try:
                await self._digest(bank, lease, run, memories)
            except ErasedMeanwhile:
                await erase()
        return run.report()

    async def _next(self, bank: str, run: _Run) -> list[Point]:
        """The oldest pending memories of one scope."""
        size = run.size if run.room is None else min(run.size, run.room)
        if size < 1:
            return []
        pending = (Equals("state", MemoryState.PENDING.value),)
        reach = len(run.seen) + 4 * self._policy.batch
        page = await self._parts.memories.scan(bank, pending, order_by="retained_at", limit=reach)
        stones = await self._parts.ledger.tombstones(bank, ids=[p.id for p in page.points])
        entombed = {stone.memory_id for stone in stones}
        if stray := [stone.memory_id for stone in stones if not stone.open]:
            # a retain that was killed before it looked for tombstones has brought back what was erased meanwhile
            await self._parts.memories.delete(bank, stray)
        open_ones = [p for p in page.points if p.id not in run.seen and p.id not in entombed]
        same = [p.id for p in open_ones if p.payload["scope"] == open_ones[0].payload["scope"]]
        return await self._parts.memories.get(bank, same[:size], vectors=True)

    async def _digest(self, bank: str, lease: Lease, run: _Run, points: Sequence[Point]) -> None:
        batch, known = await self._batch(bank, points)
        try:
            proposal = await self._parts.proposer.propose(batch)
        except DIGESTIBLE as error:
            run.tally["calls"] += 1
            return await self._indigestible(bank, run, batch, error)
        await self._decide(bank, lease, run, batch, known, proposal)

    async def _batch(self, bank: str, points: Sequence[Point]) -> tuple[Batch, dict[str, History]]:
        memories = [memory_of(bank, point) for point in points]
        vectors = [point.dense or [] for point in points]
        places = await self._candidates(bank, memories, vectors)
        histories = await self._parts.ledger.histories(bank, list(places))
        found = [h for h in histories if h.observation.state is ObservationState.LIVE]
        # ties go by text: equal batches give equal prompts, whatever ids they have
        live = sorted(found, key=lambda h: (places[h.observation.id], h.observation.text))[: self._policy.candidates]
        known = {h.observation.id: h for h in live}
        batch = Batch(
            bank=bank, tags=memories[0].tags, now=self._parts.clock(),
            memories=tuple(
                ShownMemory(alias=f"m{n}", memory=m, vector=v) for n, (m, v) in enumerate(zip(memories, vectors, strict=True), 1)
            ),
            candidates=tuple(
                Candidate(alias=f"o{n}", observation=h.observation, vector=h.vectors.get(h.current.number, []))
                for n, h in enumerate(live, 1)
            ),
        )
        return batch, known

    async def _candidates(
        self, bank: str, memories: Sequence[Memory], vectors: Sequence[Vector]
    ) -> dict[str, tuple[bool, float]]:
        """Ids with their places: by meaning first, so that the nearest twin is always shown; then by words."""
        where = (Equals("scope", scope_key(memories[0].tags)), Equals("state", ObservationState.LIVE.value))
        each = self._policy.near_each
        near = [Leg(name="near", dense=v, where=where, limit=each) for v in vectors if v]
        words = [Leg(name="words", lexical=m.text, where=where, limit=max(1, each // 2)) for m in memories]
        lists = await self._parts.observations.search(bank, [*near, *words])
        found: dict[str, tuple[bool, float]] = {}
        for n, hits in enumerate(lists):
            by_words = n >= len(near)
            for hit in hits:
                if by_words or hit.score >= self._policy.floor:
                    place = (by_words, -round(hit.score, 6))
                    found[hit.id] = min(place, found.get(hit.id, place))
        return found

    async def _decide(
        self, bank: str, lease: Lease, run: _Run, batch: Batch, known: dict[str, History], proposal: Proposal
    ) -> None:
        texts = texts_to_embed(proposal)
        vectors = dict(zip(texts, await self._parts.embedder.embed(texts), strict=True)) if texts else {}
        known = known | await self._nearest(bank, batch, vectors)
        accounted = {alias for action in proposal.actions for alias in action.evidence} | {n.memory for n in proposal.nothing}
        taken = [shown.memory for shown in batch.memories if shown.alias in accounted]
        intent = intent_id(bank, [(memory.id, memory.rev) for memory in taken])
        planned = Planner(
            intent=intent, batch=batch, known=known, vectors=vectors, now=batch.now, by=proposal.by,
            digest=await self._parts.digest(bank), guards=self._policy.guards,
        ).plan(proposal)
        if taken and not run.dry:
            await self._parts.ledger.attempts_cleared(bank, [memory.id for memory in taken])  # first: once done, nobody would
            await self._carry_out(_frozen(intent, batch, taken, planned, proposal), lease, texts)
        _count(run, batch, planned, proposal, len(taken), self._policy.batch)
        left = [shown.memory for shown in batch.memories if shown.alias not in accounted]
        run.seen |= {m.id for m in left} | ({m.id for m in taken} if run.dry else set())
        if left:
            problem = "; ".join(proposal.faults) or "the reply did not account for it"
            await self._failed(bank, run, [m.id for m in left], problem, proposal.reply)

    async def _carry_out(self, intent: Intent, lease: Lease, texts: list[str]) -> None:
        try:
            await carry_out(self._parts, intent, lease)
        except ErasedMeanwhile:
            await self._parts.embedder.forget(texts)  # some were derived from what is gone
            raise

    async def _nearest(self, bank: str, batch: Batch, vectors: dict[str, Vector]) -> dict[str, History]:
        """What lies nearest to each new text, shown or not: a twin of it becomes evidence instead of a duplicate."""
        where = (Equals("scope", scope_key(batch.tags)), Equals("state", ObservationState.LIVE.value))
        legs = [Leg(name="twin", dense=vector, where=where, limit=3) for vector in vectors.values()]
        lists = await self._parts.observations.search(bank, legs) if legs else []
        ids = list(dict.fromkeys(hit.id for hits in lists for hit in hits))
        return {h.observation.id: h for h in await self._parts.ledger.histories(bank, ids)}

    async def _indigestible(self, bank: str, run: _Run, batch: Batch, error: ModelError) -> None:
        run.faults.append(str(error))
        shown, *others = batch.memories
        if others:
            run.size = max(1, len(batch.memories) // 2)
            return
        memory = shown.memory
        run.seen.add(memory.id)
        if isinstance(error, ModelRefused) and not run.dry:
            await self._parts.memories.patch(bank, memory.id, {"state": MemoryState.HELD.value}, expect=memory.rev)
        reply = error.reply if isinstance(error, BadReply) else ""
        await self._failed(bank, run, [memory.id], str(error), reply)

    async def _failed(self, bank: str, run: _Run, ids: list[str], reason: str, reply: str) -> None:
        """Counted for each; a memory that failed too often is parked, where a person can see and replay it."""
        if run.dry:
            run.tally["left"] += len(ids)
            return
        rows = await self._parts.ledger.attempt_failed(
            bank, ids, reason=reason, reply=reply, park_after=self._policy.attempts, at=self._parts.clock()
        )
        for row in rows:
            run.tally["parked" if row.parked else "left"] += 1
            if row.parked:
                await self._park(bank, row.memory_id)

    async def _park(self, bank: str, memory_id: str) -> None:
        for point in await self._parts.memories.get(bank, [memory_id]):
            changes = {"state": MemoryState.PARKED.value}
            await self._parts.memories.patch(bank, memory_id, changes, expect=rev_of(point.payload))


def _frozen(intent: str, batch: Batch, taken: Sequence[Memory], planned: Planned, proposal: Proposal) -> Intent:
    rests_on = {s.memory.id for s in batch.memories}.union(*(change.lineage for change in planned.changes))
    return Intent(
        id=intent, bank=batch.bank, kind="consolidate", created_at=batch.now, shown=tuple(sorted(rests_on)),
        changes=planned.changes, entries=planned.entries,
        marks=tuple(MemoryMark(memory_id=m.id, rev=m.rev, state=MemoryState.DONE) for m in taken),
        by=proposal.by, prompt_digest=proposal.prompt_digest, calls=proposal.calls, prompt_tokens=proposal.prompt_tokens,
        reply_tokens=proposal.reply_tokens,
    )


def _count(run: _Run, batch: Batch, planned: Planned, proposal: Proposal, taken: int, full: int) -> None:
    nothing = len({declared.memory for declared in proposal.nothing})
    run.tally["passes"] += 1
    run.tally["nothing_durable"] += nothing
    run.tally["consolidated"] += taken - nothing
    for action in ("created", "updated", "reinforced", "deleted", "merged", "skipped"):
        run.tally[action] += planned.count(action)
    for spent in ("calls", "prompt_tokens", "reply_tokens"):
        run.tally[spent] += getattr(proposal, spent)
    run.done += planned.done
    run.faults += proposal.faults
    run.size = min(full, max(run.size, 2 * len(batch.memories)))
    if run.room is not None:
        run.room -= len(batch.memories)

