"""Ask the proposer: within the health of its endpoint and the budget of the bank, and with every token counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, time, timedelta

from consolidator.breakers import BreakerPolicy, busy, denied, entered, failed, succeeded, wait
from consolidator.errors import (
    BudgetSpent,
    LeaseLost,
    ModelBusy,
    ModelDenied,
    ModelError,
    ModelResting,
    ModelUnavailable,
)
from consolidator.models import Value
from consolidator.parts import Parts
from consolidator.plans import Breaker, Lease, Spent
from consolidator.proposals import Batch, Proposal

log = logging.getLogger("consolidator.asking")

WHEN_BUSY = 30.0  # seconds to wait where the server does not say


class AskingPolicy(Value):
    """deadline: seconds for one proposal with its repair turn. budget_tokens_day: of one bank; None is no limit."""

    deadline: float = 180.0
    budget_tokens_day: int | None = None
    breaker: BreakerPolicy = BreakerPolicy()


class Asking:
    """The way to the proposer of one deployment."""

    def __init__(self, parts: Parts, policy: AskingPolicy) -> None:
        self._parts = parts
        self._policy = policy

    async def propose(self, batch: Batch, lease: Lease, *, by_hand: bool) -> Proposal:
        """by_hand: somebody waits for it: asked though the endpoint rests.

        Raises BudgetSpent and ModelResting before anything was asked, and the proposer's errors.
        """
        await self._afford(batch.bank)
        who = f"{lease.owner} {lease.token} {batch.bank}"
        if not by_hand:
            await self._enter(who)
        async with self._shown(lease, [shown.memory.id for shown in batch.shown]):
            try:
                proposal = await self._in_time(batch)
            except ModelError as error:
                await self._heard(who, error)
                await self._paid(batch.bank, error)
                raise
        await self._heard(who, None)
        await self._paid(batch.bank, proposal)
        return proposal

    async def _in_time(self, batch: Batch) -> Proposal:
        try:
            async with asyncio.timeout(self._policy.deadline):
                return await self._parts.proposer.propose(batch)
        except TimeoutError as error:
            raise ModelUnavailable(f"{self._parts.proposer.name} gave no answer in {self._policy.deadline:.0f} s") from error

    async def _afford(self, bank: str) -> None:
        """Raises BudgetSpent with the seconds until midnight UTC."""
        budget = self._policy.budget_tokens_day
        if budget is None:
            return
        now = self._parts.clock()
        spent = await self._parts.ledger.spent_on(bank, f"{now:%Y-%m-%d}")
        if spent.tokens >= budget:
            told = f"{spent.tokens:,} of {budget:,} tokens are spent today; the bank goes on after midnight UTC"
            raise BudgetSpent(told, after=_until_midnight(now))

    async def _paid(self, bank: str, told: Proposal | ModelError) -> None:
        if told.calls:
            spent = Spent(calls=told.calls, prompt_tokens=told.prompt_tokens, reply_tokens=told.reply_tokens)
            await self._parts.ledger.spend(bank, f"{self._parts.clock():%Y-%m-%d}", spent)

    async def _enter(self, who: str) -> None:
        """Raises ModelResting with the seconds to wait."""
        endpoint = self._parts.proposer.endpoint
        if not endpoint:
            return
        policy = self._policy.breaker
        breaker, now = await self._parts.ledger.breaker(endpoint, lambda b, now: entered(b, now, who, policy))
        if seconds := wait(breaker, now, who):
            why = breaker.reason or "one probe is under way"
            raise ModelResting(f"{self._parts.proposer.name} is left alone for {seconds:.0f} s: {why}", after=seconds)

    async def _heard(self, who: str, error: ModelError | None) -> None:
        endpoint, policy = self._parts.proposer.endpoint, self._policy.breaker
        if not endpoint:
            return
        reason = str(error)

        def step(breaker: Breaker, now: float) -> Breaker:
            match error:
                case ModelBusy():
                    return busy(breaker, now, error.after or WHEN_BUSY)
                case ModelDenied():
                    return denied(breaker, now, reason, policy)
                case ModelUnavailable():
                    return failed(breaker, now, reason, policy)
            return succeeded(breaker, policy)

        breaker, now = await self._parts.ledger.breaker(endpoint, step)
        if seconds := wait(breaker, now, who):
            told = {"action": "endpoint_rests", "seconds": round(seconds), "error": type(error).__name__}
            log.warning("endpoint_rests", extra=told)

    @asynccontextmanager
    async def _shown(self, lease: Lease, ids: Sequence[str]) -> AsyncIterator[None]:
        """If the process dies inside, the next one knows over which memories."""
        await self._parts.ledger.reading(lease, ids)
        try:
            yield
        finally:
            with suppress(LeaseLost):
                await asyncio.shield(self._parts.ledger.reading(lease, ()))


def _until_midnight(now: datetime) -> float:
    return (datetime.combine(now.date() + timedelta(days=1), time.min, tzinfo=now.tzinfo) - now).total_seconds()
