"""Workers that can be killed and frozen: `python -m tests.crash.worker_child` takes orders, one JSON object a line.

A worker is forked before anything was opened, so that a new one is there at once. The answer to "start" is its pid, that to
"reap" the exit status.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from consolidator.clock import system_clock
from consolidator.config import Settings
from consolidator.engine import Engine
from consolidator.parts import Parts
from consolidator.plans import Intent, Lease
from consolidator.ports import ANY, Expect, Point, PutOutcome
from consolidator.proposals import Batch, Proposal
from consolidator.registry import open_parts
from consolidator.testing import HashEmbedder
from tests.crash.engine_child import Follower, Wrapped, decided, ready_to_fork
from tests.crash.sabotage import Passing

with suppress(ImportError):
    import psycopg  # noqa: F401

LEASE = 0.5  # seconds
OWNER = re.compile(r"-(\d+)-[0-9a-f]+$")  # the pid in a lease's owner

Order = dict[str, Any]


def settings_of(folder: Path, url: str | None) -> Settings:
    """Small batches and short leases; no memory is given up because its readers are killed, no bank for its deletes.

    The hash embedder knows words alone: every candidate is shown.
    """
    often = {"lease": LEASE, "poll": 0.05, "debounce": 0.05, "max_delay": 0.2, "sweep": 1.0, "backoff": 0.1}
    return Settings.model_validate({
        "folder": folder, "store": {"kind": "shared"}, "ledger": {"url": url}, "worker": {**often, "background": False},
        "consolidation": {"batch": 3, "floor": -1, "attempts": 1000, "deletes_day": 1_000_000},
    })


class Slow(Follower):
    """A proposer that often thinks for longer than a lease lasts."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    async def propose(self, batch: Batch) -> Proposal:
        await asyncio.sleep(self._dice.choice((0.02, 0.05, 0.1, 1.5 * LEASE)))
        return decided(batch)


class Dawdling(Passing):
    """A ledger or a store that takes its time between commit and write; for some leases there is no heartbeat."""

    def __init__(self, port: Any, dice: random.Random) -> None:
        super().__init__(port)
        self._dice = dice

    async def _dawdle(self, share: float, seconds: float) -> None:
        if self._dice.random() < share:
            # the event loop stands still: whoever loses the lease meanwhile writes before it is told
            time.sleep(self._dice.uniform(0, seconds))  # noqa: ASYNC251

    async def commit(self, intent: Intent, lease: Lease) -> int:
        await self._dawdle(0.1, 2 * LEASE)
        scrubbed: int = await self._port.commit(intent, lease)
        await self._dawdle(0.3, 2 * LEASE)
        return scrubbed

    async def put(self, bank: str, points: Sequence[Point], *, expect: Expect = ANY) -> list[PutOutcome]:
        await self._dawdle(0.1, 2 * LEASE)
        outcomes: list[PutOutcome] = await self._port.put(bank, points, expect=expect)
        return outcomes

    async def patch(self, bank: str, id: str, changes: Mapping[str, Any], *, expect: int) -> bool:
        await self._dawdle(0.05, 2 * LEASE)
        done: bool = await self._port.patch(bank, id, changes, expect=expect)
        return done

    def beating(self, lease: Lease, seconds: float, lost: Callable[[], None]) -> AbstractContextManager[None]:
        if lease.token % 3 == 0:
            return nullcontext()
        beat: AbstractContextManager[None] = self._port.beating(lease, seconds, lost)
        return beat


@asynccontextmanager
async def opened(order: Order) -> AsyncIterator[Engine]:
    dice = random.Random(order["seed"])
    quick = order["do"] == "drain"
    settings = settings_of(Path(order["folder"]), order["url"])
    proposer = Follower() if quick else Slow(dice)
    parts = await open_parts(settings, system_clock, embedder=HashEmbedder(), proposer=proposer)
    try:
        yield Engine(parts if quick else dawdling(parts, dice), settings)
    finally:
        await parts.close()


def dawdling(parts: Parts, dice: random.Random) -> Parts:
    storage = Wrapped(parts.storage, lambda port: Dawdling(port, dice))
    return replace(parts, storage=storage, ledger=Dawdling(parts.ledger, dice))


async def drain(engine: Engine) -> None:
    """Until nothing is left to do, what was put off after a failure too."""
    async with asyncio.timeout(120):
        while left := await engine.drain():
            assert not any(bank.paused for bank in left), f"banks stand still: {left}"
            await asyncio.sleep(0.1)  # nothing wakes us: a time has to come


async def live(order: Order) -> None:
    async with opened(order) as engine:
        await (drain(engine) if order["do"] == "drain" else engine.work())


def fork(order: Order) -> int:
    """A process that lives by the order."""
    if child := os.fork():
        return child
    logging.disable(logging.ERROR)
    status = 1
    try:
        asyncio.run(live(order))
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def answer(order: Order) -> int:
    if order["do"] == "reap":
        return os.waitstatus_to_exitcode(os.waitpid(order["pid"], 0)[1])
    return fork(order)


def main() -> None:
    ready_to_fork()
    for line in sys.stdin:
        os.write(1, f"{answer(json.loads(line))}\n".encode())


if __name__ == "__main__":
    main()
