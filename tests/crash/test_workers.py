"""Four workers over one store and one ledger are killed and frozen while memories are told, recalled and forgotten: nothing
acknowledged is lost, nothing is applied twice, nothing erased is served or kept. `CHAOS_SECONDS` sets for how long.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from consolidator import jobs
from consolidator.clock import system_clock
from consolidator.engine import Engine
from consolidator.parts import Parts
from consolidator.registry import open_parts
from consolidator.testing import HashEmbedder
from tests.crash.checker import Row, Witness, read_database, violations, words
from tests.crash.engine_child import Follower, item
from tests.crash.worker_child import LEASE, OWNER, settings_of

pytestmark = pytest.mark.crash

log = logging.getLogger("tests.chaos")

SECONDS = float(os.environ.get("CHAOS_SECONDS", "12"))
WORKERS = 4
BANKS = ("alice", "bob")  # fewer than workers: they meet
SOURCES = 12  # of a bank
ROOT = Path(__file__).parents[2]


class Fleet:
    """Worker processes by pid."""

    def __init__(self, nursery: subprocess.Popen[str], folder: Path, url: str) -> None:
        self._nursery, self._url = nursery, url
        self._order = {"folder": str(folder), "url": url}
        self._seed = 0
        self.pids: list[int] = []

    def _answer(self, **order: Any) -> int:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        print(json.dumps({**self._order, **order}), file=self._nursery.stdin, flush=True)
        return int(self._nursery.stdout.readline())

    def start(self) -> None:
        self._seed += 1
        self.pids.append(self._answer(do="start", seed=self._seed))

    def kill(self, *pids: int) -> None:
        for pid in pids:
            self.pids.remove(pid)
            os.kill(pid, signal.SIGKILL)
        ended = {self._answer(do="reap", pid=pid) for pid in pids}
        assert ended <= {-signal.SIGKILL}, "a worker failed by itself"

    def drain(self) -> None:
        """A fresh process finishes what is left."""
        assert self._answer(do="reap", pid=self._answer(do="drain", seed=0)) == 0, "the last worker failed"

    async def leases(self) -> dict[str, Row]:
        tables = await asyncio.to_thread(read_database, self._url, ["bank"])
        return {row["id"]: row for row in tables["bank"]}

    async def holders(self) -> dict[int, str]:
        """The banks that workers hold, by pid."""
        owned = [(bank, OWNER.search(row["owner"] or "")) for bank, row in (await self.leases()).items()]
        found = {int(owner[1]): bank for bank, owner in owned if owner}
        return {pid: bank for pid, bank in found.items() if pid in self.pids}

    async def freeze(self, pid: int, bank: str) -> bool:
        """Until another has had the bank for a while, or for four leases. True: another did while this one held it."""
        os.kill(pid, signal.SIGSTOP)
        try:
            token, asleep = (await self.leases())[bank]["token"], (await self.holders()).get(pid) == bank
            for _ in range(40):
                if (await self.leases())[bank]["token"] > token:
                    await asyncio.sleep(random.uniform(0, 4 * LEASE))  # to write what the sleeper knows nothing of
                    return asleep
                await asyncio.sleep(LEASE / 10)
            return False
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class Chaos:
    """What happens at once, and what came of it."""

    def __init__(self, engine: Engine, fleet: Fleet) -> None:
        self._engine, self._fleet = engine, fleet
        self._dice = random.Random()
        self._number = 0
        self._until = asyncio.get_running_loop().time() + SECONDS
        self.witnesses = {bank: Witness() for bank in BANKS}
        self.counted: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def rage(self) -> None:
        async with asyncio.TaskGroup() as group:
            for bank in BANKS:
                group.create_task(self._often(0.4, self._tell, bank))
                group.create_task(self._often(0.15, self._ask, bank))
                group.create_task(self._often(0.5, self._forget, bank))
            group.create_task(self._often(0.8, self._kill))
            group.create_task(self._often(0.2, self._freeze))

    async def _often(self, pause: float, deed: Callable[..., Coroutine[Any, Any, None]], *about: str) -> None:
        while asyncio.get_running_loop().time() < self._until:
            await deed(*about)
            await asyncio.sleep(self._dice.uniform(0, 2 * pause))

    async def _tell(self, bank: str) -> None:
        items = []
        for _ in range(self._dice.randint(1, 3)):
            self._number += 1
            items.append(item(self._number, f"s{self._dice.randrange(SOURCES)}", self._dice.choice(((), (), ("work",)))))
        kept = await self._engine.bank(bank).retain(items)
        self._hear(bank, {"kept": {memory.id: memory.text for memory in kept.memories}})
        self.counted["told"] += len(kept.memories)

    async def _forget(self, bank: str) -> None:
        receipt = await self._engine.bank(bank).forget(source=f"s{self._dice.randrange(SOURCES)}")
        self._hear(bank, {"forgotten": list(receipt.memories)})
        self.counted["forgotten"] += len(receipt.memories)
        self.counted[f"erasures {receipt.state}"] += 1
        texts = self.witnesses[bank].texts
        for word in sorted(words(texts[id] for id in receipt.memories))[:3]:
            await self._ask(bank, word)

    async def _ask(self, bank: str, about: str = "it") -> None:
        witness = self.witnesses[bank]
        erased = witness.erased(witness.forgotten)
        hits = await self._engine.bank(bank).recall(f"They spoke of {about} at length.", top_k=50, explain=True)
        self.wrong += [f"recall served {word} after forget had returned" for word in words([repr(hits)]) & erased]
        self.counted["recalls"] += 1

    def _hear(self, bank: str, returned: dict[str, Any]) -> None:
        self.wrong += self.witnesses[bank].hear(returned)

    async def _kill(self) -> None:
        holders = await self._fleet.holders()
        self._fleet.kill(self._dice.choice([*holders] or self._fleet.pids))
        self._fleet.start()
        self.counted["kills"] += 1

    async def _freeze(self) -> None:
        holders = await self._fleet.holders()
        if holders:
            pid = self._dice.choice([*holders])
            overtaken = await self._fleet.freeze(pid, holders[pid])
            self.counted["freezes"] += 1
            self.counted["overtaken"] += overtaken


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.crash.worker_child"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


@asynccontextmanager
async def opened(folder: Path, url: str) -> AsyncIterator[tuple[Engine, Parts]]:
    settings = settings_of(folder, url)
    parts = await open_parts(settings, system_clock, embedder=HashEmbedder(), proposer=Follower())
    try:
        yield Engine(parts, settings), parts
    finally:
        await parts.close()


async def test_workers_that_are_killed_and_frozen_lose_nothing_and_do_nothing_twice(
    nursery: subprocess.Popen[str], tmp_path: Path, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "WAIT_SECONDS", 2 * LEASE)  # an erasure that waits for no worker is as good: they settle it
    fleet = Fleet(nursery, tmp_path / "memory", ledger_url)
    try:
        async with opened(tmp_path / "memory", ledger_url) as (engine, _):
            chaos = Chaos(engine, fleet)
            for _ in range(WORKERS):
                fleet.start()
            await chaos.rage()
    finally:
        fleet.kill(*fleet.pids)
    chaos.counted.update(f"{row['kind']} plans" for row in read_database(ledger_url, ["intent"])["intent"])
    await asyncio.to_thread(fleet.drain)
    log.info("%s", dict(chaos.counted))
    assert chaos.wrong == []
    async with opened(tmp_path / "memory", ledger_url) as (engine, parts):
        tables = read_database(ledger_url)
        for bank, witness in chaos.witnesses.items():
            assert await violations(tables, parts.storage, bank, witness) == []
            assert await engine.bank(bank).memories(state="pending") == []
    for what in ("told", "forgotten", "recalls", "kills", "freezes", "overtaken", "consolidate plans"):
        assert chaos.counted[what], f"nothing was tried: {chaos.counted}"
