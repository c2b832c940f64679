"""The worker: takes the banks that are due, a few at a time, one pass each, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import Field

from consolidator.errors import ConsolidatorError, place_of
from consolidator.jobs import JobPolicy, Jobs
from consolidator.models import MemoryState, Receipt
from consolidator.parts import Parts
from consolidator.plans import Standing
from consolidator.ports import AnyOf

log = logging.getLogger("consolidator.worker")

OWED = (AnyOf("state", (MemoryState.PENDING.value, MemoryState.UNEMBEDDED.value)),)
MANY = 1_000_000
LAST = 9  # priority: whatever else asks for the bank decides
HELD_ELSEWHERE = 0.2  # seconds between two looks at a bank that another process has


class WorkerPolicy(JobPolicy):
    """Times in seconds. background: consolidate in this process, beside the application. debounce: from a retain to its pass, so
    that more may come, but no longer than `max_delay`; a full batch does not wait. sweep: between two looks for banks whose
    wake-up was lost. poll: between two looks for what other processes have asked for. at_once: passes in one process.
    scrub: from an erasure to the rewriting of the files. pass_deadline: for a proposal with its repair turn. shutdown: what a
    pass under way is given to end.
    """

    background: bool = True
    debounce: float = Field(default=2.0, ge=0)
    max_delay: float = Field(default=30.0, ge=0)
    sweep: float = Field(default=60.0, gt=0)
    poll: float = Field(default=2.0, gt=0)
    at_once: int = Field(default=4, ge=1)
    scrub: float = Field(default=3600.0, ge=0)
    pass_deadline: float = Field(default=180.0, gt=0)
    shutdown: float = Field(default=25.0, ge=0)


class Worker:
    """Works for one deployment. Any number of them, in any number of processes, share a ledger."""

    def __init__(
        self, parts: Parts, policy: WorkerPolicy, jobs: Jobs, *, alone: bool, scrub: Callable[[], Awaitable[Sequence[Receipt]]]
    ) -> None:
        self._parts = parts
        self._policy = policy
        self._jobs = jobs
        self._alone = alone  # no other process can ask for anything
        self._scrub = scrub
        self._can_scrub = True
        self._turns: dict[str, asyncio.Task[bool]] = {}
        self._refused: Counter[str] = Counter()  # turns in a row after which the ledger took no next time
        self._resting: dict[str, float] = {}  # and until when this process leaves the bank alone
        self._nudged = asyncio.Event()
        self._stopping = False
        self._loop: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    def start(self) -> None:
        """Work in the background until `stop`."""
        if self._loop is None:
            self._loop = asyncio.create_task(self.run(), name="consolidator worker")

    def nudge(self) -> None:
        """The queue changed: look at it now."""
        self._nudged.set()

    async def run(self) -> None:
        """Work until `stop`. Errors of ledger and store are waited out."""
        swept = float("-inf")
        clock = asyncio.get_running_loop().time
        while not self._stopping:
            wait = self._policy.poll
            try:
                if clock() - swept >= self._policy.sweep:
                    await self.sweep()
                    await self._maintain()
                    swept = clock() - random.uniform(0, self._policy.sweep / 10)  # so that workers do not sweep in step
                due_in = await self._start_due()
                next_sweep = swept + self._policy.sweep - clock()
                wait = min(due_in, next_sweep) if self._alone else min(due_in, next_sweep, self._policy.poll)
            except Exception as error:  # noqa: BLE001 (a defect elsewhere must not end the background for good, unseen)
                told = {"action": "worker_waits", "error": type(error).__name__, "place": place_of(error)}
                log.log(logging.WARNING if isinstance(error, ConsolidatorError) else logging.ERROR, "worker_waits", extra=told)
            await self._sleep(max(0.0, wait))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
        except TimeoutError:
            pass
        self._nudged.clear()

    async def sweep(self, *, at_once: bool = False) -> None:
        """Wake every bank that has something to do and is not asked for: a lost wake-up costs delay alone. at_once: hasten those
        that are asked for, too.
        """
        asked = {standing.bank for standing in await self._parts.ledger.queue(MANY)}
        unsettled = await self._parts.ledger.unsettled()
        owing = {*await self._parts.memories.tenants(OWED, limit=MANY), *unsettled, *await self._parts.ledger.unscored()}
        for bank in unsettled:
            if (await self._parts.ledger.standing(bank)).paused:  # it gets no turn, and yet what is erased must go
                await self._jobs.settle(bank)
        for bank in sorted(owing | asked if at_once else owing - asked):
            delay = 0.0 if at_once else self._policy.debounce
            await self._parts.ledger.wake(bank, new=0, delay=delay, at_most=self._policy.max_delay, batch=MANY, priority=LAST)

    async def _maintain(self) -> None:
        """Some time after an erasure, when nothing else is to do, rewrite the files that may hold its bytes."""
        if self._turns or not self._can_scrub:
            return
        settled = await self._parts.ledger.unscrubbed()
        if settled and (self._parts.clock() - settled[0].at).total_seconds() >= self._policy.scrub:
            self._can_scrub = bool(await self._scrub())

    async def _start_due(self) -> float:
        """Begin turns of banks that are due, as far as there is room. Returns the seconds until the next one is due."""
        soonest = float("inf")
        async with self._starting:
            for standing in await self._parts.ledger.queue():
                if standing.bank in self._turns:
                    continue
                if self._jobs.busy(standing.bank):  # by hand, and nobody says when that is over
                    soonest = min(soonest, HELD_ELSEWHERE)
                    continue
                if (wait := self._wait(standing)) > 0:
                    soonest = min(soonest, wait)
                    continue
                if self._stopping or len(self._turns) >= self._policy.at_once:
                    break
                self._begin(standing.bank)
        return soonest

    def _wait(self, standing: Standing) -> float:
        """Until a bank can be had. A lease in this process's own name, of which it knows nothing, is that of a dead one."""
        due_in = 0.0 if standing.holder == self._parts.owner else standing.due_in or 0.0
        return max(due_in, self._resting.get(standing.bank, 0.0) - asyncio.get_running_loop().time())

    def _begin(self, bank: str) -> None:
        task = asyncio.create_task(self._jobs.turn(bank), name=f"turn of {bank}")
        self._turns[bank] = task

        def ended(turn: asyncio.Task[bool]) -> None:
            self._turns.pop(bank, None)
            self._rest(bank, known=not turn.cancelled() and turn.exception() is None and turn.result())
            self.nudge()

        task.add_done_callback(ended)

    def _rest(self, bank: str, *, known: bool) -> None:
        """A bank whose next time is not known stays due in the queue: it is left alone here, for longer each time."""
        if known:
            self._refused.pop(bank, None)
            self._resting.pop(bank, None)
            return
        seconds = min(self._policy.sweep, self._policy.poll * 2.0 ** min(self._refused[bank], 30))
        self._refused[bank] += 1
        self._resting[bank] = asyncio.get_running_loop().time() + seconds

    async def drain(self) -> None:
        """Return when nothing is left to do now: every bank has been consolidated, or waits after a failure, or is paused.

        Works whether or not the background is on; a bank that another process has is waited for.
        """
        self._resting.clear()
        await self.sweep(at_once=True)
        while not self._stopping:
            elsewhere = await self._elsewhere()  # first: what is given back after that is begun now
            await self._start_due()
            if self._turns:
                await asyncio.wait(list(self._turns.values()), return_when=asyncio.FIRST_COMPLETED)
            elif elsewhere:
                await asyncio.sleep(HELD_ELSEWHERE)
            else:
                return

    async def _elsewhere(self) -> bool:
        """Somebody else is at work on a bank that is asked for."""
        mine = (None, self._parts.owner)
        return any(s.holder not in mine or self._jobs.busy(s.bank) for s in await self._parts.ledger.queue())

    async def stop(self, grace: float | None = None) -> None:
        """Claim nothing more; what is under way has `grace` seconds (`shutdown` where none is given), then it is cancelled.

        Nothing is durable before it is decided, so that costs a call of the model and no memory.
        """
        self._stopping = True
        self.nudge()
        mine = asyncio.current_task()  # a listener, say, that has had enough
        begun: list[asyncio.Task[Any] | None] = [*self._turns.values(), self._loop]
        tasks = [task for task in begun if task is not None and task is not mine]
        if tasks:
            await asyncio.wait(tasks, timeout=self._policy.shutdown if grace is None else grace)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
