"""A bank's turn: its lease, what was left open, and then a pass; what went wrong becomes a time to try again."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import Field

from consolidator.breakers import asked_to_wait
from consolidator.consolidation import Consolidation
from consolidator.errors import (
    Conflict,
    ConsolidatorError,
    LeaseLost,
    ModelBusy,
    ModelDenied,
    StaleVersion,
    place_of,
)
from consolidator.events import PassDone
from consolidator.forgetting import Forgetting
from consolidator.importance import ImportanceService
from consolidator.leases import WAIT_SECONDS, lease_on
from consolidator.models import Value
from consolidator.parts import Parts
from consolidator.plans import Lease, Report
from consolidator.practice import Practice, joined
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
            return Later(max(policy.backoff / 5, asked_to_wait(error.after, policy.backoff)), attempt=False)
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
        importance: ImportanceService, practice: Practice, lot: Callable[[], float] = random.random,
    ) -> None:
        self._parts = parts
        self._policy = policy
        self._retainer = retainer
        self._consolidation = consolidation
        self._forgetting = forgetting
        self._importance = importance
        self._practice = practice
        self._lot = lot
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()  # who wants to change a bank, and cannot yet

    def erased(self, bank: str, ids: Iterable[str]) -> None:
        """Whoever in this process waits for a model over one of these need not wait."""
        self._consolidation.asking.erased(bank, frozenset(ids))

    def busy(self, bank: str) -> bool:
        """Something in this process is changing the bank now."""
        return bank in self._locks and self._locks[bank].locked()

    @asynccontextmanager
    async def changing(
        self, bank: str, *, wait: float = WAIT_SECONDS, over: Sequence[str] = ()
    ) -> AsyncIterator[Lease]:
        """The right to change a bank's observations, with everything that was left open finished first. Raises Conflict."""
        async with self._held(bank, wait, over) as lease:
            await self._put_right(bank, lease)
            yield lease

    @asynccontextmanager
    async def _held(self, bank: str, wait: float, over: Sequence[str] = ()) -> AsyncIterator[Lease]:
        async with self._alone(bank, wait), lease_on(
            self._parts, bank, seconds=self._policy.lease, wait=wait, over=over
        ) as lease:
            yield lease

    @asynccontextmanager
    async def _alone(self, bank: str, wait: float) -> AsyncIterator[None]:
        """Nothing else in this process changes the bank. Raises Conflict after `wait` seconds."""
        lock = self._locks.setdefault(bank, asyncio.Lock())
        self._waiting[bank] += 1
        try:
            if lock.locked() and wait:
                self._importance.give_way(bank)
            async with asyncio.timeout(wait):
                await lock.acquire()
        except TimeoutError:
            raise Conflict(f'bank "{bank}" is being consolidated; try again in a minute') from None
        finally:
            self._waiting[bank] -= 1
        try:
            yield
        finally:
            lock.release()

    async def settle(self, bank: str) -> None:
        """Finish what was left open, if nobody else has the bank."""
        with suppress(Conflict):
            async with self.changing(bank, wait=0.0):
                pass

    async def _put_right(self, bank: str, lease: Lease) -> None:
        """Finish what was left open: plans first, then erasures."""
        await self._consolidation.blame(bank, lease)
        await finish_open_plans(self._parts, bank)
        await self._forgetting.settle(bank, lease)

    async def consolidate(self, bank: str, *, limit: int | None, dry_run: bool) -> Report:
        """All that is pending, for somebody who waits for it."""
        async with self.changing(bank, wait=self._policy.lease) as lease:
            if reason := (await self._parts.ledger.standing(bank)).paused:
                await barrier(self._parts, bank)
                return Report(dry_run=dry_run, paused=reason)
            try:
                report = await self._consolidate(bank, lease, limit=limit, dry_run=dry_run, by_hand=True)
                if not dry_run and limit is None:
                    report = joined([report, *await self._practice.work(bank, lease, by_hand=True)])
            finally:
                await barrier(self._parts, bank)
            if not dry_run and not report.left:
                await self._parts.ledger.finish(lease, more=limit is not None)
            return report

    async def turn(self, bank: str) -> bool:
        """One pass, if nobody else has the bank; then its next time is set. Raises nothing but cancellation.

        False: its next time could not be set, so that the queue still holds it for due.
        """
        began, begun, problem, known = datetime.now(UTC), time.perf_counter(), None, False
        told: list[Report] = []
        try:
            async with self._held(bank, 0.0) as lease:
                standing = await self._parts.ledger.standing(bank)
                try:
                    await self._put_right(bank, lease)
                    if not standing.paused:
                        report = await self._consolidate(bank, lease, passes=1, told=told)
                        await self._finished(bank, lease, report, standing.attempts)
                except Exception as unforeseen:  # noqa: BLE001 (whatever it is, the bank needs a next time, and the worker lives on)
                    problem = unforeseen
                    await self._postponed(bank, lease, unforeseen, standing.attempts)
                known = True
        except Conflict as elsewhere:  # the queue knows until when
            problem, known = elsewhere, True
        except ConsolidatorError as refused:
            problem = refused
        await self._tell(PassDone(
            bank=bank, report=told[-1] if told else Report(), began=began, seconds=time.perf_counter() - begun,
            error=str(problem) if problem else None,
        ), problem)
        return known

    async def _tell(self, event: PassDone, problem: Exception | None) -> None:
        if problem is not None:
            told = {"action": "turn_failed", "bank": event.bank, "error": type(problem).__name__, "place": place_of(problem)}
            log.log(logging.WARNING if isinstance(problem, ConsolidatorError) else logging.ERROR, "turn_failed", extra=told)
        await self._parts.events.tell(event)

    async def _consolidate(
        self, bank: str, lease: Lease, *, limit: int | None = None, passes: int | None = None, dry_run: bool = False,
        by_hand: bool = False, told: list[Report] | None = None,
    ) -> Report:
        async def erase() -> None:
            await self._forgetting.settle(bank, lease)

        while not dry_run and await self._retainer.embed_waiting(bank):
            pass
        return await self._consolidation.run(
            bank, lease, erase=erase, limit=limit, passes=passes, dry_run=dry_run, by_hand=by_hand, told=told
        )

    async def _finished(self, bank: str, lease: Lease, report: Report, attempts: int) -> None:
        if report.left:  # they are tried again, but not at once
            reason = report.faults[-1] if report.faults else "a memory could not be digested"
            stuck = not report.passes  # where others were digested, those who are left keep nobody waiting
            seconds = backoff(attempts if stuck else 0, self._policy, self._lot())
            return await self._parts.ledger.postpone(lease, seconds, reason, attempt=stuck)
        more = await self._consolidation.pending(bank) > 0
        if not more:
            more = any(told.passes for told in await self._practice.work(bank, lease))
            await barrier(self._parts, bank)  # else with the next passes: to flush is dear
            more = await self._measure(bank, lease) or more
        await self._parts.ledger.finish(lease, more=more)

    async def _measure(self, bank: str, lease: Lease) -> bool:
        """A little of the importance that waits to be measured, when nothing else does; whether there is more of it."""
        if self._waiting[bank]:
            return True
        try:
            return await self._importance.work(bank, lease)
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is: what is not measured is unknown, and keeps nothing waiting)
            told = {"action": "not_measured", "bank": bank, "error": type(error).__name__, "place": place_of(error)}
            log.log(logging.WARNING if isinstance(error, ConsolidatorError) else logging.ERROR, "not_measured", extra=told)
            return False

    async def _postponed(self, bank: str, lease: Lease, error: Exception, attempts: int) -> None:
        if isinstance(error, LeaseLost):
            return  # it is another's to say when
        with suppress(ConsolidatorError):  # an erasure that was accepted meanwhile does not wait for the next time
            await self._forgetting.settle(bank, lease)
        when = later(error, attempts, self._policy, self._lot())
        reason = str(error) if isinstance(error, ConsolidatorError) else f"{type(error).__name__}; see the log"
        if when.seconds is None:
            log.error("bank_paused", extra={"action": "bank_paused", "bank": bank, "error": type(error).__name__})
            await self._parts.ledger.pause(bank, reason)
        else:
            await self._parts.ledger.postpone(lease, when.seconds, reason, attempt=when.attempt)
