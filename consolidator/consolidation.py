"""Consolidate: batches of new memories become changes of the observations, each batch one frozen plan."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from consolidator import lessons
from consolidator.asking import Asking, AskingPolicy
from consolidator.checks import is_id
from consolidator.errors import (
    BadReply,
    Conflict,
    ConsolidatorError,
    ErasedMeanwhile,
    ModelError,
    ModelRefused,
    ModelTooLong,
)
from consolidator.events import ObservationChanged
from consolidator.gathering import Gathered, Gathering, GatheringPolicy
from consolidator.lessons import PracticePolicy
from consolidator.models import Memory, MemoryState, ObservationState
from consolidator.parts import Parts
from consolidator.planning import Guards, Planned, Planner, intent_id, texts_to_embed
from consolidator.plans import Done, Intent, Lease, MemoryMark, Report
from consolidator.points import rev_of
from consolidator.ports import Equals, Point
from consolidator.proposals import Batch, Proposal
from consolidator.records import quoted, reported
from consolidator.redo import carry_out
from consolidator.requoting import proposed

log = logging.getLogger("consolidator.consolidation")

DIGESTIBLE = (BadReply, ModelTooLong, ModelRefused)  # a smaller batch may do better; the others say: later
DIED = "the process died while this memory was digested"
REFUSALS = 3  # in a row, of plans over something that is being erased; an erasure under way explains one


class ConsolidationPolicy(GatheringPolicy):
    """attempts: failures of a memory on its own before it is parked. deletes_day: of one bank, or a tenth of its observations
    where that is more; beyond, the bank pauses until a person has looked.
    """

    attempts: int = Field(default=5, ge=1)
    deletes_day: int = Field(default=20, ge=0)
    guards: Guards = Guards()


@dataclass(slots=True, kw_only=True)
class _Run:
    """What one call of `consolidate` has done so far."""

    bank: str
    lease: Lease
    size: int  # of the next batch: halved by failures, doubled again by successes
    room: int | None  # memories that may still be taken
    passes: int | None  # that may still be made
    dry: bool
    by_hand: bool
    tally: Counter[str] = field(default_factory=Counter)
    done: list[Done] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)  # memories that this run does not take again
    alone: int = 0  # memories that failed on their own
    refused: int = 0  # plans in a row, for something was erased meanwhile
    over: bool = False  # the bank has paused
    state: MemoryState | None = None  # of what was digested, where it is not what follows from its kind

    def enough(self, batch: int) -> bool:
        """A turn is one pass, or as many failures as a batch has memories: other banks wait."""
        return self.over or (self.passes is not None and (self.tally["passes"] >= self.passes or self.alone >= batch))

    @property
    def next_size(self) -> int:
        return self.size if self.room is None else min(self.size, self.room)

    def report(self) -> Report:
        told = {"dry_run": self.dry, "actions": tuple(self.done), "faults": tuple(self.faults)}
        return Report.model_validate({**told, **self.tally})


class Consolidation:
    """Digests the pending memories of a bank. Runs under the bank's lease."""

    def __init__(self, parts: Parts, policy: ConsolidationPolicy, asking: AskingPolicy, practice: PracticePolicy) -> None:
        self._parts = parts
        self._policy = policy
        self._practice = practice
        self._gathering = Gathering(parts, policy)
        self.asking = Asking(parts, asking)
        self._sizes: dict[str, int] = {}  # of the next batch, where a failure made it smaller

    async def run(
        self, bank: str, lease: Lease, *, erase: Callable[[], Awaitable[None]], limit: int | None = None,
        passes: int | None = None, dry_run: bool = False, by_hand: bool = False, told: list[Report] | None = None,
    ) -> Report:
        """What is pending, oldest first, up to `limit` memories and `passes` batches. told: gets the report, also on an error.

        A batch that cannot be digested is halved; a memory that fails alone is left, and parked after several runs. When
        something that a plan rests on is erased while the model thinks, `erase` finishes that, and the batch is made anew.
        Raises ModelUnavailable, ModelBusy, ModelDenied, EmbedderUnavailable: what was done until then is kept.
        """
        size = self._sizes.get(bank, self._policy.batch)
        run = _Run(bank=bank, lease=lease, size=size, room=limit, passes=passes, dry=dry_run, by_hand=by_hand)
        try:
            while not run.enough(self._policy.batch) and (points := await self._gathering.next(bank, run.next_size, run.seen)):
                await self._step(run, points)
                if await self._parts.ledger.receipts(bank, accepted_only=True):
                    await erase()  # what was accepted meanwhile does not wait for the last pass
        finally:
            self._sizes[bank] = run.size
            if told is not None:
                told.append(run.report())
        return run.report()

    async def carry(
        self, bank: str, lease: Lease, gathered: Gathered, proposal: Proposal, *, dry_run: bool = False,
        state: MemoryState | None = None,
    ) -> Report:
        """Carry out what was proposed elsewhere for a batch. state: what its memories are in then; None: as after any pass.

        Raises ErasedMeanwhile, Conflict, LeaseLost: then nothing was done.
        """
        size = len(gathered.batch.memories)
        run = _Run(bank=bank, lease=lease, size=size, room=None, passes=None, dry=dry_run, by_hand=True, state=state)
        _spent(run, proposal)
        await self._decide(run, gathered, proposal)
        return run.report()

    async def _step(self, run: _Run, points: Sequence[Point]) -> None:
        try:
            await self._digest(run, points)
            run.refused = 0
        except ErasedMeanwhile:
            run.refused += 1
            if run.refused == REFUSALS:
                raise
        except Exception as error:
            await self._broken(run, points, error)
            raise

    async def _broken(self, run: _Run, points: Sequence[Point], error: Exception) -> None:
        """Something in this batch breaks the code, or was consumed before: find out what, else the bank stands still for ever."""
        if run.dry or (isinstance(error, ConsolidatorError) and type(error) is not Conflict):
            return
        if len(points) > 1:
            run.size = len(points) // 2
            return
        revs = {points[0].id: rev_of(points[0].payload)}
        if isinstance(error, ConsolidatorError):  # its revision was consumed: no other try ends otherwise
            await self._failed(run.lease, run.tally, revs, str(error), "", park_after=1)
        else:
            await self._failed(run.lease, run.tally, revs, f"{type(error).__name__}; see the log", "")

    async def pending(self, bank: str) -> int:
        return await self._gathering.pending(bank)

    async def blame(self, bank: str, lease: Lease) -> None:
        """A process died over a batch. One of its memories may have killed it: count that, and find out which by halves.

        For whoever takes the bank next, whatever for: with the lease the knowledge of it ends.
        """
        if not lease.reading:
            return
        log.warning("reader_died", extra={"action": "reader_died", "memories": len(lease.reading)})
        pending = await self._parts.memories.get(bank, [id for id in lease.reading if is_id(id)])
        ids = [p.id for p in pending if p.payload["state"] == MemoryState.PENDING.value]
        if ids:  # else they were read to be measured
            self._sizes[bank] = max(1, len(ids) // 2)
            revs = {p.id: rev_of(p.payload) for p in pending}
            await self._failed(lease, Counter(), {id: revs[id] for id in ids}, DIED, "")
        await self._parts.ledger.reading(lease, ())

    async def _digest(self, run: _Run, points: Sequence[Point]) -> None:
        gathered = await self._gathering.batch(run.bank, points)
        proposal = Proposal()
        if gathered.batch.memories:
            try:
                proposal = await self._proposed(gathered.batch, run)
            except ModelError as error:
                _spent(run, error)
                if not isinstance(error, DIGESTIBLE):
                    raise
                return await self._indigestible(run, gathered.batch, error)
        _spent(run, proposal)
        await self._decide(run, gathered, proposal)

    async def _proposed(self, batch: Batch, run: _Run) -> Proposal:
        first = batch.memories[0].memory
        if reported(first):
            return lessons.propose(batch, self._practice)
        if quoted(first):
            return await proposed(self._parts, self.asking, batch, run.lease, by_hand=run.by_hand)
        return await self.asking.propose(batch, run.lease, by_hand=run.by_hand)

    async def _decide(self, run: _Run, gathered: Gathered, proposal: Proposal) -> None:
        bank, batch = run.bank, gathered.batch
        texts = texts_to_embed(proposal)
        vectors = dict(zip(texts, await self._parts.embedder.embed(texts), strict=True)) if texts else {}
        known = {**gathered.known, **await self._gathering.nearest(batch, vectors.values())}
        accounted = {alias for action in proposal.actions for alias in action.evidence} | {n.memory for n in proposal.nothing}
        taken = [*(shown.memory for shown in batch.memories if shown.alias in accounted), *gathered.echoes]
        intent = intent_id(bank, [(memory.id, memory.rev) for memory in taken])
        guards, over = await self._guards(bank, batch, proposal)
        planned = Planner(
            intent=intent, batch=batch, known=known, vectors=vectors, now=batch.now, by=proposal.by,
            digest=await self._parts.digest(bank), guards=guards, echoes=gathered.echoes,
        ).plan(proposal)
        if taken and not run.dry:
            await self._carry_out(_frozen(intent, batch, taken, planned, proposal, run.state), run.lease, texts)
            run.over = over is not None
            await self._told(bank, planned, over)
        _count(run, gathered, planned, proposal, len(taken), self._policy.batch)
        left = [shown.memory for shown in batch.memories if shown.alias not in accounted]
        run.seen |= {m.id for m in left} | ({m.id for m in taken} if run.dry else set())
        if left:
            problem = "; ".join(proposal.faults) or "the reply did not account for it"
            await self._left(run, left, problem, proposal.reply)

    async def _guards(self, bank: str, batch: Batch, proposal: Proposal) -> tuple[Guards, str | None]:
        """The guards of this pass, and why the bank has to pause after it."""
        guards, now = self._policy.guards, batch.now
        if batch.memories and (reported(batch.memories[0].memory) or quoted(batch.memories[0].memory)):
            guards = guards.model_copy(update=lessons.GUARDS)
        wanted = min(guards.max_deletes, sum(action.op == "delete" for action in proposal.actions))
        if not wanted:
            return guards, None
        live = await self._parts.observations.count(bank, [Equals("state", ObservationState.LIVE.value)])
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        allowed = max(self._policy.deletes_day, live // 10)
        left = max(0, allowed - await self._parts.ledger.deleted_since(bank, midnight))
        if wanted <= left:
            return guards, None
        told = f"consolidation has deleted {allowed} observations today and wants to delete more; look at the journal"
        return guards.model_copy(update={"max_deletes": left}), told

    async def _carry_out(self, intent: Intent, lease: Lease, texts: list[str]) -> None:
        try:
            await carry_out(self._parts, intent, lease)
        except ErasedMeanwhile:
            await self._parts.embedder.forget(texts)  # some were derived from what is gone
            raise

    async def _told(self, bank: str, planned: Planned, over: str | None) -> None:
        for done in planned.done:
            await self._parts.events.tell(ObservationChanged(bank=bank, done=done))
        if over:
            log.error("bank_paused", extra={"action": "bank_paused", "reason": "too many deletions"})
            await self._parts.ledger.pause(bank, over)

    async def _indigestible(self, run: _Run, batch: Batch, error: ModelError) -> None:
        run.faults.append(str(error))
        shown, *others = batch.memories
        if others:
            run.size = max(1, len(batch.memories) // 2)
            return
        memory = shown.memory
        run.seen.add(memory.id)
        run.alone += 1
        run.room = None if run.room is None else run.room - 1
        if isinstance(error, ModelRefused) and not run.dry:
            now = self._parts.clock()
            await self._parts.ledger.hold(run.bank, [memory.id], reason=str(error), at=now, lease=run.lease)
            await self._set_state(run.bank, memory.id, MemoryState.HELD, memory.rev)
            run.tally["held"] += 1
            return
        await self._left(run, [memory], str(error), error.reply if isinstance(error, BadReply) else "")

    async def _left(self, run: _Run, memories: Sequence[Memory], reason: str, reply: str) -> None:
        if run.dry:
            run.tally["left"] += len(memories)
        else:
            await self._failed(run.lease, run.tally, {m.id: m.rev for m in memories}, reason, reply)

    async def _failed(
        self, lease: Lease, tally: Counter[str], revs: Mapping[str, int], reason: str, reply: str, park_after: int | None = None
    ) -> None:
        """Counted for each; a memory that failed too often is parked, where a person can see and replay it.

        revs: as they were shown: what somebody else has done with a memory since is left alone.
        """
        rows = await self._parts.ledger.attempt_failed(
            lease.bank, list(revs), reason=reason, reply=reply, park_after=park_after or self._policy.attempts,
            at=self._parts.clock(), lease=lease,
        )
        for row in rows:
            tally["parked" if row.state == "parked" else "left"] += 1
            if row.state == "parked":
                await self._set_state(lease.bank, row.memory_id, MemoryState.PARKED, revs[row.memory_id])

    async def _set_state(self, bank: str, memory_id: str, state: MemoryState, rev: int) -> None:
        await self._parts.memories.patch(bank, memory_id, {"state": state.value}, expect=rev)


def _frozen(
    intent: str, batch: Batch, taken: Sequence[Memory], planned: Planned, proposal: Proposal, state: MemoryState | None
) -> Intent:
    shown = {s.memory.id for s in batch.shown} | {memory.id for memory in taken}
    rests_on = shown.union(*(change.lineage for change in planned.changes))
    return Intent(
        id=intent, bank=batch.bank, kind="consolidate", created_at=batch.now, shown=tuple(sorted(rests_on)),
        changes=planned.changes, entries=planned.entries,
        marks=tuple(MemoryMark(memory_id=m.id, rev=m.rev, state=state or lessons.state_after(m)) for m in taken),
        by=proposal.by, prompt_digest=proposal.prompt_digest, calls=proposal.calls, prompt_tokens=proposal.prompt_tokens,
        reply_tokens=proposal.reply_tokens,
    )


def _spent(run: _Run, told: Proposal | ModelError) -> None:
    run.tally.update(calls=told.calls, prompt_tokens=told.prompt_tokens, reply_tokens=told.reply_tokens)


def _count(run: _Run, gathered: Gathered, planned: Planned, proposal: Proposal, taken: int, full: int) -> None:
    cited = {alias for action in proposal.actions for alias in action.evidence}
    nothing = len({declared.memory for declared in proposal.nothing} - cited) + len(gathered.echoes)
    run.tally["passes"] += 1
    run.tally["nothing_durable"] += nothing
    run.tally["consolidated"] += taken - nothing
    for action in ("created", "updated", "reinforced", "deleted", "merged", "contested", "skipped"):
        run.tally[action] += planned.count(action)
    run.done += planned.done
    run.faults += proposal.faults
    shown = len(gathered.batch.memories) + len(gathered.echoes)
    run.size = min(full, max(run.size, 2 * shown))
    if run.room is not None:
        run.room -= shown
