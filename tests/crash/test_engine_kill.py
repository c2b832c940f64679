"""Kill the engine at any write: nothing acknowledged is lost, nothing is applied twice, nothing erased is served or kept.

`ENGINE_KILLS=all` kills at every boundary of the small life, `CRASH_KILLS` sets how long the random one is.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from consolidator.engine import Bank, Engine
from consolidator.errors import ConsolidatorError, LeaseLost, NotFound
from consolidator.parts import Parts
from consolidator.plans import Intent, Tombstone
from consolidator.testing import HashEmbedder
from consolidator_providers.vector_cache import CachedEmbedder
from tests.crash.checker import Witness, read_ledger, read_store, tombstoned, violations, words
from tests.crash.engine_child import (
    Step,
    Wrapped,
    item,
    nursery,
    opened,
    perform,
    random_steps,
    settings_of,
    small_script,
)
from tests.crash.sabotage import Careless, Gate

pytestmark = pytest.mark.crash

EVERY = 1 if os.environ.get("ENGINE_KILLS") == "all" else 13  # of the small life's boundaries
KILLS = int(os.environ.get("CRASH_KILLS", "20"))
KILLED = -signal.SIGKILL


@dataclass(slots=True)
class World:
    """A folder, the processes that live on it, and what its banks have told the outside."""

    folder: Path
    child: subprocess.Popen[str]
    witnesses: dict[str, Witness] = field(default_factory=dict)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.db"

    def witness(self, bank: str) -> Witness:
        return self.witnesses.setdefault(bank, Witness())

    def live(self, bank: str, steps: list[Step], at: int | None, only: list[str] | None = None) -> tuple[int, int]:
        """A process that does the steps and dies at the boundary; its exit status, and how many boundaries it passed."""
        journal = self.folder.parent / "journal"
        journal.unlink(missing_ok=True)
        order = {"folder": str(self.folder), "bank": bank, "journal": str(journal), "at": at, "only": only, "steps": steps}
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        print(json.dumps(order), file=self.child.stdin, flush=True)
        answer = json.loads(self.child.stdout.readline())
        for line in journal.read_text().splitlines() if journal.exists() else []:
            assert list(self.witness(bank).hear(json.loads(line))) == []
        assert answer["status"] in (0, KILLED), "the child failed by itself"
        return answer["status"], answer["boundaries"]

    async def recover(self, *banks: str, wrap: Callable[[Parts], Parts] = lambda parts: parts) -> list[str]:
        """Open what a kill has left, look at what is served, finish what is open; everything that is wrong."""
        found = []
        async with opened(self.folder, wrap) as (engine, parts):
            for name in banks:
                await self.look(name, parts)
                found += await self.served(engine, name)
                await engine.bank(name).consolidate()
            tables = read_ledger(self.ledger)
            for name in banks:
                found += [f"{name}: {it}" for it in await violations(tables, parts.storage, name, self.witness(name))]
        for name in banks:  # closed: who opens the copy drops what a dead process may have left in it
            found += await self.cached(tombstoned(tables, name), self.witness(name))
        return found

    async def look(self, bank: str, parts: Parts) -> None:
        """See what an unacknowledged retain has left."""
        witness = self.witness(bank)
        witness.texts |= {id: str(p.payload["text"]) for id, p in (await read_store(parts.memories, bank)).items()}
        witness.derived |= {str(p.payload.get("text", "")) for p in (await read_store(parts.observations, bank)).values()}

    async def served(self, engine: Engine, name: str) -> list[str]:
        """Erased words that any reading verb gives out."""
        tables = read_ledger(self.ledger)
        gone = tombstoned(tables, name)
        erased = self.witness(name).erased(gone)
        told = await everything_served(engine.bank(name), [row["id"] for row in tables["observation"]], sorted(erased))
        found = [f"{name}: {verb} serves {sorted(erased & words([text]))}" for verb, text in told if erased & words([text])]
        for id in gone:
            with suppress(NotFound):
                found.append(f"{name}: memory {id} is served: {await engine.bank(name).memory(id)!r}")
        return found

    async def cached(self, gone: set[str], witness: Witness) -> list[str]:
        """Erased texts whose vectors are in the cache: an embedder behind a copy of it is not asked for them."""
        erased = witness.erased(gone)
        texts = sorted(text for text in {*witness.texts.values(), *witness.derived} if words([text]) & erased)
        copy = self.folder.parent / "cache"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for file in self.folder.glob("vectors.db*"):
            shutil.copy(file, copy)
        asked = HashEmbedder()
        embedder = CachedEmbedder(asked, copy / "vectors.db")
        await embedder.embed(texts)
        await embedder.close()
        return [f"{len(texts) - asked.embedded} of {len(texts)} erased texts are cached"] if asked.embedded < len(texts) else []


async def everything_served(bank: Bank, ids: list[str], erased: list[str]) -> list[tuple[str, str]]:
    told: list[tuple[str, Any]] = [("recall", await bank.recall(f"They spoke of {w}.", top_k=100)) for w in ["it", *erased[:3]]]
    told += [("observations", await bank.observations()), ("memories", await bank.memories())]
    told += [("journal", await bank.journal()), ("parked", await bank.parked())]
    for id in ids:
        with suppress(NotFound):
            told += [("observation", await bank.observation(id)), ("history", await bank.history(id))]
    return [(verb, repr(answer)) for verb, answer in told]


@pytest.fixture(scope="module")
def child() -> Iterator[subprocess.Popen[str]]:
    with nursery("tests.crash.engine_child") as process:
        yield process


@pytest.fixture
def world(tmp_path: Path, child: subprocess.Popen[str]) -> World:
    return World(tmp_path / "memory", child)


async def test_a_kill_at_each_boundary_loses_nothing_and_applies_nothing_twice(world: World) -> None:
    """Each life has a bank of its own in one folder; every third recovery is killed too."""
    status, boundaries = world.live("whole", small_script(7_000_000), None)
    assert status == 0
    assert boundaries > 200
    first = 1 if EVERY == 1 else random.randint(1, EVERY)
    banks = ["whole"]
    for life, at in enumerate(range(first, boundaries + 1, EVERY)):
        bank = f"life{at}"
        banks.append(bank)
        assert world.live(bank, small_script(7_000 * at), at) == (KILLED, 0), f"boundary {at}"
        if life % 3 == 0:
            world.live(bank, [{"do": "consolidate"}], random.randint(1, 20))
    assert await world.recover(*banks) == []


async def test_one_life_of_many_deaths(world: World) -> None:
    seed, first = random.randrange(10**6), 0
    for kill in range(KILLS):
        dice = random.Random(f"{seed}-{kill}")
        steps = list(islice(random_steps(seed, first), 12))
        world.live("alice", steps, dice.randint(1, 240))
        first += 24
        if dice.random() < 0.3:
            world.live("alice", [{"do": "consolidate"}], dice.randint(1, 20))
        assert await world.recover("alice") == [], f"seed {seed}, kill {kill}"


BELIEVED: list[Step] = [{"do": "retain", "items": [item(5, "a"), item(8, "b")]}, {"do": "consolidate"}]


async def test_an_accepted_erasure_is_obeyed_at_once_and_settled_by_the_next_change(world: World) -> None:
    for number, at in enumerate((1, 2, 3, 4)):  # before and after the point of no return, then around its first consequence
        bank = f"bank{number}"
        changed: list[Step] = [{"do": "retain", "items": [item(9, "c")]}, {"do": "consolidate"}]  # a text unlike its memory's
        steps = [*BELIEVED, *changed, {"do": "forget", "source": "c"}]
        assert world.live(bank, steps, at, ["entomb", "delete"])[0] == KILLED
        assert len(tombstoned(read_ledger(world.ledger), bank)) == (at > 1)
        assert await world.recover(bank) == []


@pytest.mark.parametrize(("seed", "steps"), [(253446, 12), (296123675, 17)])
async def test_a_text_that_another_observation_had_before_may_come_from_there(world: World, seed: int, steps: int) -> None:
    assert world.live("alice", list(islice(random_steps(seed, 0), steps)), None)[0] == 0
    assert await world.recover("alice") == []


async def test_what_is_erased_and_told_again_leaves_no_vector_if_it_is_not_kept(world: World) -> None:
    assert world.live("alice", [*BELIEVED, {"do": "forget", "source": "a"}], None)[0] == 0
    assert world.live("alice", [{"do": "retain", "items": [item(5, "c")]}], 2, ["embed"])[0] == KILLED
    assert await world.recover("alice") == []


@pytest.mark.parametrize("verb", ["commit", "put", "patch", "mark_applied", "flush", "close_applied"])
async def test_a_plan_that_was_frozen_is_redone(world: World, verb: str) -> None:
    for at in (1, 2):
        world.live(f"bank{at}", BELIEVED, at + (2 if verb == "put" else 0), [verb])
    assert await world.recover("bank1", "bank2") == []
    for at in (1, 2):
        used = [row for row in read_ledger(world.ledger)["use"] if row["memory"] in world.witness(f"bank{at}").kept]
        assert len(used) == 2


# the checker sees what it is there for


async def sleeping_writer(world: World, verb: str, careless: bool) -> list[str]:
    """A worker sleeps before its first `verb`; another takes over, and goes on; the sleeper wakes up and writes."""
    witness = world.witness("alice")
    async with opened(world.folder) as (engine, parts):
        awake = engine.bank("alice")
        for step in ({"do": "retain", "items": [item(5, "a")]}, {"do": "consolidate"}, {"do": "retain", "items": [item(8, "b")]}):
            assert list(witness.hear(await perform(awake, step))) == []
        store = parts.observations if verb == "put" else parts.memories
        gate = Gate(Careless(store) if careless else store, verb)
        storage = Wrapped(parts.storage, lambda port: gate if port is store else port)
        asleep = replace(parts, owner="asleep", storage=storage)
        writing = asyncio.create_task(Engine(asleep, settings_of(world.folder)).bank("alice").consolidate())
        await gate.reached.wait()
        lost = await parts.ledger.claim("alice", "asleep", 60)  # as when the sleeper's lease has run out
        assert lost is not None
        await parts.ledger.release(lost)
        await awake.consolidate()
        for step in ({"do": "retain", "items": [item(9, "c")]}, {"do": "consolidate"}, {"do": "forget", "source": "a"}):
            assert list(witness.hear(await perform(awake, step))) == []
        gate.resume.set()
        with suppress(LeaseLost):
            await writing
        found = await violations(read_ledger(world.ledger), parts.storage, "alice", witness)
        with suppress(ConsolidatorError):
            await awake.consolidate()
    return found


@pytest.mark.parametrize("verb", ["put", "patch"])
async def test_a_late_writer_changes_nothing(world: World, verb: str) -> None:
    assert await sleeping_writer(world, verb, careless=False) == []
    assert await world.recover("alice") == []


@pytest.mark.parametrize(("verb", "seen"), [("put", "more than its husk"), ("patch", "consumed by 0 plans")])
async def test_without_revisions_the_checker_finds_what_a_late_writer_did(world: World, verb: str, seen: str) -> None:
    assert any(seen in it for it in await sleeping_writer(world, verb, careless=True))


class Amnesiac:
    """A ledger with one verb that knows nothing."""

    def __init__(self, ledger: Any, verb: str) -> None:
        self._ledger, self._verb = ledger, verb

    def __getattr__(self, verb: str) -> Any:
        return self._nothing if verb == self._verb else getattr(self._ledger, verb)

    async def _nothing(self, *_: Any, **__: Any) -> list[Intent] | list[Tombstone]:
        return []


async def test_without_redo_the_checker_finds_the_open_plan(world: World) -> None:
    world.live("alice", BELIEVED, 2, ["commit"])
    with suppress(ConsolidatorError):  # the bank stands still
        await world.recover("alice", wrap=lambda parts: replace(parts, ledger=Amnesiac(parts.ledger, "unfinished")))
    async with opened(world.folder) as (_, parts):
        found = await violations(read_ledger(world.ledger), parts.storage, "alice", world.witness("alice"))
    assert any("is planned, not closed" in it for it in found)
    assert any("is not stored" in it for it in found)
    assert await world.recover("alice") == []


async def test_without_the_tombstones_the_checker_finds_what_is_served(world: World) -> None:
    world.live("alice", [*BELIEVED, {"do": "forget", "source": "a"}], 2, ["entomb"])
    async with opened(world.folder, lambda parts: replace(parts, ledger=Amnesiac(parts.ledger, "tombstones"))) as (engine, parts):
        await world.look("alice", parts)
        found = await world.served(engine, "alice")
    for verb in ("recall", "observations", "memories", "journal"):
        assert any(f": {verb} serves" in it for it in found)
    assert await world.recover("alice") == []


