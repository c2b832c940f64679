"""A bank's turn: its lease, what was left open, and then a pass; what went wrong becomes a time to try again."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import Field

from consolidator.consolidation import Consolidation
from consolidator.errors import (
    ConsolidatorError,
    LeaseLost,
    ModelBusy,
    ModelDenied,
    StaleVersion,
    place_of,
)
from consolidator.events import PassDone
from consolidator.forgetting import Forgetting
from consolidator.leases import WAIT_SECONDS, lease_on
from consolidator.models import Value
from consolidator.parts import Parts
from consolidator.plans import Lease, Report
from consolidator.redo import barrier, finish_open_plans
from consolidator.retention import Retainer

log = logging.getLogger("consolidator.jobs")

WHEN_DENIED = 600.0  # seconds; a key is not mended sooner


class JobPolicy(Value):
    """Times in seconds. lease: how long a bank stays another's after its worker has died. backoff: after a first failure; it
    doubles, up to `longest`, and each time a share of it is drawn by lot.
    """

    lease: float = Field(default=60.0, gt=0)
    backoff: float = Field(default=5.0, gt=0)
    longest: float = Field(default=1800.0, gt=0)


@dataclass(frozen=True, slots=True)
class Later:
    """When to try again, and whether that counts as a failure. `seconds` None: not before a person has looked."""

    seconds: float | None
    attempt: bool


def later(error: BaseException, attempts: int, policy: JobPolicy, lot: float) -> Later:
    """What an error means for the queue. attempts: failures in a row before this one. lot: from 0 to 1."""
    match error:
        case ModelBusy():
            return Later(error.after or policy.backoff, attempt=False)
        case ModelDenied():
            return Later(WHEN_DENIED, attempt=False)
        case StaleVersion():
            return Later(None, attempt=True)
    return Later(backoff(attempts, policy, lot), attempt=True)


def backoff(attempts: int, policy: JobPolicy, lot: float) -> float:
    """Doubling with full jitter, but never at once."""
    doubled: float = policy.backoff * 2.0 ** min(attempts, 30)
    return max(policy.backoff / 5, lot * min(policy.longest, doubled))


class Jobs:
    """Changes banks of one deployment, one owner at a time for each."""

    def __init__(
        self, parts: Parts, policy: JobPolicy, *, retainer: Retainer, consolidation: Consolidation, forgetting: Forgetting,
        lot: Callable[[], float] = random.random,
    ) -> None:
        self._parts = parts
        self._policy = policy
        self._retainer = retainer
        self._consolidation = consolidation
        self._forgetting = forgetting
        self._lot = lot
        self._locks: dict[str, asyncio.Lock] = {}

    def busy(self, bank: str) -> bool:
        """Something in this process is changing the bank now."""
        return bank in self._locks and self._locks[bank].locked()

    @asynccontextmanager
    async def changing(self, bank: str) -> AsyncIterator[Lease]:
        """The right to change a bank's observations, with everything that was left open finished first. Raises Conflict."""
        async with self._held(bank, WAIT_SECONDS) as lease:
            await self._put_right(bank, lease)
            yield lease

    @asynccontextmanager
    async def _held(self, bank: str, wait: float) -> AsyncIterator[Lease]:
        lock = self._locks.setdefault(bank, asyncio.Lock())
        async with lock, lease_on(self._parts, bank, seconds=self._policy.lease, wait=wait) as lease:
            yield lease

    async def _put_right(self, bank: str, lease: Lease) -> None:
        """Finish what was left open: plans first, then erasures."""
        await finish_open_plans(self._parts, bank)
        await self._forgetting.settle(bank, lease)

    async def consolidate(self, bank: str, *, limit: int | None, dry_run: bool) -> Report:
        """All that is pending, for somebody who waits for it."""
        async with self.changing(bank) as lease:
            if reason := (await self._parts.ledger.standing(bank)).paused:
                return Report(dry_run=dry_run, paused=reason)
            report = await self._consolidate(bank, lease, limit=limit, dry_run=dry_run, by_hand=True)
            if not dry_run and not report.left:
                await self._parts.ledger.finish(lease, more=limit is not None)
            return report

    async def turn(self, bank: str) -> None:
        """One pass, if nobody else has the bank; then its next time is set. Raises nothing but cancellation."""
        began, begun, report, problem = datetime.now(UTC), time.perf_counter(), Report(), None
        try:
            async with self._held(bank, 0.0) as lease:
                attempts = (await self._parts.ledger.standing(bank)).attempts
                try:
                    await self._put_right(bank, lease)
                    report = await self._consolidate(bank, lease, passes=1)
                except Exception as unforeseen:  # noqa: BLE001 (whatever it is, the bank needs a next time, and the worker lives on)
                    problem = unforeseen
                    await self._postponed(bank, lease, unforeseen, attempts)
                else:
                    await self._finished(bank, lease, report, attempts)
        except ConsolidatorError as refused:  # somebody else has the bank, or the ledger cannot be had: the sweep comes back
            problem = refused
        if problem is not None:
            told = {"action": "turn_failed", "bank": bank, "error": type(problem).__name__, "place": place_of(problem)}
            log.log(logging.WARNING if isinstance(problem, ConsolidatorError) else logging.ERROR, "turn_failed", extra=told)
        seconds, error = time.perf_counter() - begun, str(problem) if problem else None
        await self._parts.events.tell(PassDone(bank=bank, report=report, began=began, seconds=seconds, error=error))

    async def _consolidate(
        self, bank: str, lease: Lease, *, limit: int | None = None, passes: int | None = None, dry_run: bool = False,
        by_hand: bool = False,
    ) -> Report:
        async def erase() -> None:
            await self._forgetting.settle(bank, lease)

        while not dry_run and await self._retainer.embed_waiting(bank):
            pass
        try:
            return await self._consolidation.run(
                bank, lease, erase=erase, limit=limit, passes=passes, dry_run=dry_run, by_hand=by_hand
            )
        finally:
            await barrier(self._parts, bank)

    async def _finished(self, bank: str, lease: Lease, report: Report, attempts: int) -> None:
        if report.left:  # they are tried again, but not at once
            reason = report.faults[-1] if report.faults else "a memory could not be digested"
            seconds = backoff(attempts, self._policy, self._lot())
            return await self._parts.ledger.postpone(lease, seconds, reason, attempt=True)
        await self._parts.ledger.finish(lease, more=await self._consolidation.pending(bank) > 0)

    async def _postponed(self, bank: str, lease: Lease, error: Exception, attempts: int) -> None:
        if isinstance(error, LeaseLost):
            return  # it is another's to say when
        when = later(error, attempts, self._policy, self._lot())
        reason = str(error) if isinstance(error, ConsolidatorError) else f"{type(error).__name__}; see the log"
        if when.seconds is None:
            log.error("bank_paused", extra={"action": "bank_paused", "bank": bank, "error": type(error).__name__})
            await self._parts.ledger.pause(bank, reason)
        else:
            await self._parts.ledger.postpone(lease, when.seconds, reason, attempt=when.attempt)
