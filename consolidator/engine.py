"""The engine: banks of memories and their verbs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from consolidator.bank import Bank
from consolidator.clock import Clock, system_clock
from consolidator.config import Settings, load
from consolidator.errors import InvalidInput
from consolidator.events import Called, ObservationChanged, PassDone
from consolidator.models import Receipt
from consolidator.parts import Parts
from consolidator.plans import Standing
from consolidator.ports import ChatModel, Embedder, LogprobModel, Proposer, Reranker
from consolidator.registry import open_parts
from consolidator.services import Services

BANK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")


def connect(
    target: str | Path | None = None, *, settings: Settings | None = None, clock: Clock = system_clock,
    embedder: Embedder | None = None, proposer: Proposer | None = None, chat: ChatModel | None = None,
    reranker: Reranker | None = None, scorer: LogprobModel | None = None,
) -> Connection:
    """Open a memory: a folder (embedded), or a `*.toml` file. `CONSOLIDATOR_*` variables come on top of either.

    Use it as `async with connect(...) as engine`. embedder, proposer, chat, reranker, scorer: used instead of what the settings
    name, and closed with the engine; chat is the model that distils episodes and harvests sessions.
    Entering it raises InvalidSettings, MissingProvider, StoreLocked, WrongEmbedder, NewerFormat,
    StoreUnavailable.
    """

    async def opened() -> Engine:
        told = settings or load(target)
        parts = await open_parts(
            told, clock, embedder=embedder, proposer=proposer, chat=chat, reranker=reranker, scorer=scorer
        )
        engine = Engine(parts, told)
        if told.worker.background:
            engine.start()
        return engine

    return Connection(opened)


class Connection:
    """An engine to be opened by `async with`, and closed at its end."""

    def __init__(self, opened: Callable[[], Awaitable[Engine]]) -> None:
        self._opened = opened
        self._engine: Engine | None = None

    async def __aenter__(self) -> Engine:
        self._engine = await self._opened()
        return self._engine

    async def __aexit__(self, *_: object) -> None:
        if self._engine is not None:
            await self._engine.close()

    def __enter__(self) -> NoReturn:
        raise InvalidInput("use `async with consolidator.connect(...)`, or `with consolidator.blocking.connect(...)`")

    def __exit__(self, *_: object) -> None: ...

    def __await__(self) -> NoReturn:
        raise InvalidInput("use `async with consolidator.connect(...) as engine`: it has to be closed again")


class Engine:
    """A deployment's banks. Made by `connect`."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self._parts = parts
        self._services = Services(parts, settings)

    def bank(self, id: str) -> Bank:
        """The handle of a bank; no call on it can reach another one. It exists from its first retain on."""
        if not isinstance(id, str) or not BANK_ID.fullmatch(id):
            raise InvalidInput(
                "a bank's id starts with a letter or digit and goes on with letters, digits and . _ @ -, at most 128; no colon"
            )
        return Bank(self._services, id)

    def now(self) -> datetime:
        """The time of the engine's clock."""
        return self._parts.clock()

    async def banks(self) -> list[str]:
        return await self._parts.ledger.banks()

    async def describe(self) -> dict[str, dict[str, str]]:
        """What is in use, part by part."""
        embedder, proposer, reranker = self._parts.embedder, self._parts.proposer, self._parts.reranker
        return {
            "store": await self._parts.storage.describe(),
            "ledger": await self._parts.ledger.describe(),
            "embedder": {"name": embedder.name, "dimension": str(embedder.dimension)},
            "consolidation": {"proposer": proposer.name, **await self._endpoint(proposer.endpoint)},
            **({"reranker": {"name": reranker.name}} if reranker else {}),
        }

    async def _endpoint(self, endpoint: str) -> dict[str, str]:
        if not endpoint:
            return {}
        breaker, now = await self._parts.ledger.breaker(endpoint, lambda breaker, _: breaker)
        rests = f"rests for {breaker.open_until - now:.0f} s: {breaker.reason}" if breaker.open_until > now else "in use"
        return {"endpoint": endpoint, "state": rests}

    async def close(self) -> None:
        """Afterwards every call says that the engine is closed. Closing twice is harmless."""
        await self._services.close()

    def start(self) -> None:
        """Consolidate in the background, as `connect` does where `worker.background` is on."""
        self._services.worker.start()

    async def scrub(self) -> list[Receipt]:
        """Rewrite the files of store and ledger, so that what was erased before is in none of them.

        Costs by the size of the store, and keeps writers waiting; the worker does it by itself, some time after an erasure.
        Returns the receipts of which it is true now; none where the files are a server's.
        """
        return await self._services.scrub()

    async def drain(self) -> list[Standing]:
        """Consolidate until nothing is left to do now. Returns the banks that could not be finished: what failed is tried again
        later, what is paused waits for a person.
        """
        await self._services.worker.drain()
        standings = [await self._parts.ledger.standing(bank) for bank in await self._parts.ledger.banks()]
        return [s for s in standings if s.paused or s.due_in is not None]

    async def work(self) -> None:
        """Be a worker until `stop` is called."""
        await self._services.worker.run()

    async def stop(self, grace: float | None = None) -> None:
        """End the worker: nothing new is begun, and what is under way has `grace` seconds, else `worker.shutdown`."""
        await self._services.worker.stop(grace)

    def on_pass(self, listener: Callable[[PassDone], Awaitable[None] | None]) -> None:
        """Call `listener` after each turn of a bank in the background. It may be a coroutine function."""
        self._parts.events.listen(PassDone, listener)

    def on_call(self, listener: Callable[[Called], Awaitable[None] | None]) -> None:
        """Call `listener` after each retain, recall, consolidate and forget."""
        self._parts.events.listen(Called, listener)

    def on_observation(self, listener: Callable[[ObservationChanged], Awaitable[None] | None]) -> None:
        """Call `listener` for each durable change of an observation by consolidation."""
        self._parts.events.listen(ObservationChanged, listener)


__all__ = ["Bank", "Connection", "Engine", "connect"]
