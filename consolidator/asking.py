"""Ask the proposer: within the health of its endpoint and the budget of the bank, and with every token counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence, Set
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any, Protocol, TypeVar

from consolidator.breakers import BreakerPolicy, asked_to_wait, busy, denied, entered, failed, succeeded, wait
from consolidator.errors import (
    BadReply,
    BudgetSpent,
    ErasedMeanwhile,
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
from consolidator.proposals import Action, Batch, Proposal

log = logging.getLogger("consolidator.asking")

WHEN_BUSY = 30.0  # seconds to wait where the server does not say


class AskingPolicy(Value):
    """deadline: seconds for one proposal with its repair turn. budget_tokens_day: of one bank; None is no limit."""

    deadline: float = 180.0
    budget_tokens_day: int | None = None
    breaker: BreakerPolicy = BreakerPolicy()


class Priced(Protocol):
    """What an answer has cost."""

    @property
    def calls(self) -> int: ...

    @property
    def prompt_tokens(self) -> int: ...

    @property
    def reply_tokens(self) -> int: ...


class Asked(Protocol):
    """A model, or what asks one. endpoint: empty for one that works in the process."""

    name: str
    endpoint: str


Answer = TypeVar("Answer", bound=Priced)


@dataclass(slots=True, eq=False)
class _Call:
    bank: str
    shown: frozenset[str]
    task: asyncio.Future[Any]
    void: bool = False


class Asking:
    """The way to the proposer and the chat model of one deployment."""

    def __init__(self, parts: Parts, policy: AskingPolicy) -> None:
        self._parts = parts
        self._policy = policy
        self._calls: list[_Call] = []

    async def propose(self, batch: Batch, lease: Lease, *, by_hand: bool) -> Proposal:
        """As `ask`; raises BadReply for what no plan can be made of, too."""
        proposer, shown = self._parts.proposer, [s.memory.id for s in batch.shown]
        proposal = await self.ask(proposer, lambda: proposer.propose(batch), lease, shown, by_hand=by_hand)
        if faults := tuple(_faults(proposal, batch)):
            raise _useless(f"{self._parts.proposer.name} proposed what cannot be done: {faults[0]}", faults, proposal)
        return proposal

    async def ask(
        self, model: Asked, work: Callable[[], Awaitable[Answer]], lease: Lease, shown: Sequence[str], *, by_hand: bool
    ) -> Answer:
        """What `work` brings, which shows these memories to the model. by_hand: somebody waits: asked though the endpoint rests.

        Raises BudgetSpent and ModelResting before anything was asked, the model's errors, and LeaseLost when another has
        taken the bank meanwhile: nothing may be noted of the answer then.
        """
        await self._afford(lease.bank)
        who = f"{lease.owner} {lease.token} {lease.bank}"
        if not by_hand:
            await self._enter(model, who)
        async with self._shown(lease, shown):
            try:
                answer = await self._in_time(model, work, lease.bank, frozenset(shown))
            except ModelError as error:
                await self._paid(lease.bank, error)
                await self._heard(model, who, error)
                raise
            await self._paid(lease.bank, answer)
            await self._heard(model, who, None)
        return answer

    def erased(self, bank: str, ids: Set[str]) -> None:
        """Whoever waits for a model over one of these memories of the bank need not: nothing may come of it."""
        for call in self._calls:
            if call.bank == bank and call.shown & ids:
                call.void = True
                call.task.cancel()

    async def _in_time(self, model: Asked, work: Callable[[], Awaitable[Answer]], bank: str, shown: frozenset[str]) -> Answer:
        """Raises ErasedMeanwhile when `erased` said so."""
        task = asyncio.ensure_future(work())
        call = _Call(bank, shown, task)
        self._calls.append(call)
        try:
            async with asyncio.timeout(self._policy.deadline):
                return await task
        except TimeoutError as error:
            late = ModelUnavailable(f"{model.name} gave no answer in {self._policy.deadline:.0f} s")
            late.calls = 1  # at least; what they cost is not known
            raise late from error
        except asyncio.CancelledError as error:
            holder = asyncio.current_task()
            if holder and holder.cancelling():
                raise
            if call.void:
                raise ErasedMeanwhile from None
            raise ModelUnavailable(f"{model.name} gave up by itself") from error
        finally:
            task.cancel()
            self._calls.remove(call)

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

    async def _paid(self, bank: str, told: Priced) -> None:
        if told.calls:
            spent = Spent(calls=told.calls, prompt_tokens=told.prompt_tokens, reply_tokens=told.reply_tokens)
            await self._parts.ledger.spend(bank, f"{self._parts.clock():%Y-%m-%d}", spent)

    async def _enter(self, model: Asked, who: str) -> None:
        """Raises ModelResting with the seconds to wait."""
        endpoint = model.endpoint
        if not endpoint:
            return
        policy = self._policy.breaker
        breaker, now = await self._parts.ledger.breaker(endpoint, lambda b, now: entered(b, now, who, policy))
        if seconds := wait(breaker, now, who):
            why = breaker.reason or "one probe is under way"
            raise ModelResting(f"{model.name} is left alone for {seconds:.0f} s: {why}", after=seconds)

    async def _heard(self, model: Asked, who: str, error: ModelError | None) -> None:
        endpoint, policy = model.endpoint, self._policy.breaker
        if not endpoint:
            return
        reason = str(error)

        def step(breaker: Breaker, now: float) -> Breaker:
            match error:
                case ModelBusy():
                    return busy(breaker, now, asked_to_wait(error.after, WHEN_BUSY))
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
        except BaseException as error:
            with suppress(LeaseLost) if not isinstance(error, ModelError) else nullcontext():
                await asyncio.shield(self._parts.ledger.reading(lease, ()))
            raise
        await self._parts.ledger.reading(lease, ())


def _faults(proposal: Proposal, batch: Batch) -> Iterator[str]:
    """What no plan can be made of, whoever proposed it."""
    new = {shown.alias for shown in batch.memories}
    for action in proposal.actions:
        yield from _action_faults(action, new, batch)
    targets = [action.observation for action in proposal.actions if action.op != "create"]
    if len(targets) > len(set(targets)):
        yield "an observation has several actions"
    if any(declared.memory not in new for declared in proposal.nothing):
        yield "a memory is declared that was not asked about"


def _useless(message: str, faults: tuple[str, ...], proposal: Proposal) -> BadReply:
    error = BadReply(message, faults=faults, reply=proposal.reply)
    error.calls, error.prompt_tokens, error.reply_tokens = proposal.calls, proposal.prompt_tokens, proposal.reply_tokens
    return error


def _action_faults(action: Action, new: set[str], batch: Batch) -> Iterator[str]:
    citable = {shown.alias for shown in batch.shown}
    if not new.intersection(action.evidence) or not citable.issuperset((*action.evidence, *action.contradicted)):
        yield "an action cites no new memory, or one that was not shown"
    if action.op != "create" and action.observation not in {candidate.alias for candidate in batch.candidates}:
        yield "an action changes an observation that was not shown"
    if action.op != "delete" and not action.text.strip():
        yield "a text is missing"
    if action.confidence is not None and not 0 <= action.confidence <= 1:
        yield "a confidence does not lie between 0 and 1"


def _until_midnight(now: datetime) -> float:
    return (datetime.combine(now.date() + timedelta(days=1), time.min, tzinfo=now.tzinfo) - now).total_seconds()
