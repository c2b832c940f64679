"""Practice: attempts that wait are distilled into general rules, by a model, or by a rule of thumb where there is none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from consolidator import distilling
from consolidator.consolidation import Consolidation
from consolidator.dialogue import Answered, answered
from consolidator.errors import BadReply, ErasedMeanwhile, ModelError
from consolidator.gathering import Gathered, Gathering, GatheringPolicy
from consolidator.lessons import PracticePolicy
from consolidator.models import MemoryState
from consolidator.parts import Parts
from consolidator.plans import Lease, Report
from consolidator.ports import AnyOf, ChatModel, Equals, Point
from consolidator.proposals import Batch, Proposal

log = logging.getLogger("consolidator.practice")

WAITING = (AnyOf("state", (MemoryState.WAITING.value, MemoryState.PENDING.value)), Equals("role", "episode"))
NEVER = 1_000_000  # failures after which an attempt is parked: it is only told by rules


class Practice:
    """Distils for one deployment. Every verb needs the bank's lease."""

    def __init__(self, parts: Parts, policy: PracticePolicy, consolidation: Consolidation, gathering: GatheringPolicy) -> None:
        self._parts = parts
        self._policy = policy
        self._consolidation = consolidation
        self._gathering = Gathering(parts, gathering)

    async def waiting(self, bank: str) -> dict[str, int]:
        """How many attempts wait in each scope."""
        return await self._parts.memories.facet(bank, "scope", WAITING)

    async def work(self, bank: str, lease: Lease, *, by_hand: bool = False) -> list[Report]:
        """One distilling in each scope where it is due."""
        reports = []
        for scope, count in (await self.waiting(bank)).items():
            if count >= self._policy.every and await self._patient(bank, scope):
                reports.append(await self.distil(bank, scope, lease, by_hand=by_hand))
        return reports

    async def _patient(self, bank: str, scope: str) -> bool:
        """Whether a model that failed over these attempts may be asked again: after a while, or when as many are new."""
        failed = {row.memory_id: row.last_at for row in await self._parts.ledger.parked(bank)}
        points = await self._oldest(bank, scope)
        tried = [failed[p.id] for p in points if p.id in failed]
        fresh = len(points) - len(tried)
        patience = timedelta(seconds=self._policy.retry)
        return not tried or fresh >= self._policy.every or self._parts.clock() - max(tried) >= patience

    async def _oldest(self, bank: str, scope: str) -> list[Point]:
        page = await self._parts.memories.scan(
            bank, (*WAITING, Equals("scope", scope)), order_by="retained_at", limit=distilling.READ
        )
        stones = await self._parts.ledger.tombstones(bank, ids=[p.id for p in page.points]) if page.points else []
        gone = {stone.memory_id for stone in stones}
        return [p for p in page.points if p.id not in gone]

    async def distil(self, bank: str, scope: str, lease: Lease, *, by_hand: bool, dry_run: bool = False) -> Report:
        """The oldest attempts that wait in a scope, at most thirty.

        Where a model fails, the rule of thumb says what it can, once, and the attempts wait for the model. What is erased
        meanwhile is left out; nothing is done then, and the next call sees what is left.
        """
        points = await self._oldest(bank, scope)
        if not points:
            return Report(dry_run=dry_run)
        gathered = await self._gathered(bank, points)
        chat = self._parts.chat
        try:
            if chat is None:
                told = distilling.thumb(gathered.batch, self._policy)
                return await self._consolidation.carry(bank, lease, gathered, told, dry_run=dry_run, state=MemoryState.DONE)
            return await self._by_model(chat, lease, gathered, by_hand=by_hand, dry_run=dry_run)
        except ErasedMeanwhile:
            return Report(dry_run=dry_run, faults=("something was erased meanwhile; the next call sees what is left",))

    async def _by_model(self, chat: ChatModel, lease: Lease, gathered: Gathered, *, by_hand: bool, dry_run: bool) -> Report:
        batch = gathered.batch
        ids = [shown.memory.id for shown in batch.memories]
        try:
            told = await self._consolidation.asking.ask(chat, lambda: _asked(chat, batch), lease, ids, by_hand=by_hand)
        except ModelError as error:
            return await self._by_thumb(lease, gathered, error, dry_run=dry_run)
        made = distilling.proposal(told.value, batch).model_copy(update={
            "by": told.by, "prompt_digest": told.prompt_digest, "calls": told.calls, "prompt_tokens": told.prompt_tokens,
            "reply_tokens": told.reply_tokens, "faults": told.faults,
        })
        return await self._consolidation.carry(lease.bank, lease, gathered, made, dry_run=dry_run, state=MemoryState.DONE)

    async def _by_thumb(self, lease: Lease, gathered: Gathered, error: ModelError, *, dry_run: bool) -> Report:
        """Attempts that a rule of thumb has told of already are not told again: they wait for the model alone."""
        bank, ids = lease.bank, [shown.memory.id for shown in gathered.batch.memories]
        known = {row.memory_id for row in await self._parts.ledger.parked(bank)}
        told = distilling.thumb(gathered.batch, self._policy)
        spent = {"calls": error.calls, "prompt_tokens": error.prompt_tokens, "reply_tokens": error.reply_tokens}
        faults = (f"{error}; told by rule of thumb, and left for the model",)
        fresh = [a for a in told.actions if gathered.batch.memory(a.evidence[0]).id not in known]
        made = Proposal(actions=tuple(fresh), extractive=True, by="rules", faults=faults)
        report = Report(dry_run=dry_run, faults=faults)
        if fresh:
            cited = {alias for action in fresh for alias in action.evidence}
            some = tuple(s for s in gathered.batch.memories if s.alias in cited)
            part = Gathered(gathered.batch.model_copy(update={"memories": some}), gathered.known)
            report = await self._consolidation.carry(bank, lease, part, made, dry_run=dry_run, state=MemoryState.WAITING)
        if not dry_run:
            reply = error.reply if isinstance(error, BadReply) else ""
            await self._parts.ledger.attempt_failed(
                bank, ids, reason=str(error), reply=reply, park_after=NEVER, at=self._parts.clock(), lease=lease
            )
        log.warning("not_distilled", extra={"action": "not_distilled", "error": type(error).__name__, "episodes": len(ids)})
        return report.model_copy(update=spent)

    async def _gathered(self, bank: str, points: Sequence[Point]) -> Gathered:
        whole = await self._parts.memories.get(bank, [p.id for p in points], vectors=True)
        gathered = await self._gathering.batch(bank, whole)
        return Gathered(gathered.batch.model_copy(update={"context": ()}), gathered.known)


async def _asked(chat: ChatModel, batch: Batch) -> Answered[tuple[distilling.Rule, ...]]:
    return await answered(
        chat, distilling.render(batch), schema=distilling.schema(batch), read=lambda value: distilling.read(value, batch),
        max_tokens=distilling.REPLY_TOKENS,
    )


def joined(reports: Sequence[Report]) -> Report:
    """Several reports as one."""
    first, *others = reports
    told = first.model_dump()
    for other in others:
        for name, value in other.model_dump().items():
            if (isinstance(value, int) and not isinstance(value, bool)) or isinstance(value, tuple):
                told[name] += value
    return Report.model_validate(told)
