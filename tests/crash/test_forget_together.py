"""Two processes forget at once, or one forgets what the other reads or tells: both calls return, and in the end all is settled,
each erased memory stands in a receipt that can be verified, nothing erased is served, and nothing else is lost.

`FORGET_ROUNDS` sets how often each is tried.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from consolidator.clock import system_clock
from consolidator.engine import Bank, Engine
from consolidator.invariants import of_bank
from consolidator.models import MemoryState, Receipt
from consolidator.parts import Parts
from consolidator.registry import open_parts
from consolidator.testing import HashEmbedder
from tests.crash.checker import read_database, read_store, words
from tests.crash.engine_child import item
from tests.crash.forget_child import Order, Scribe
from tests.crash.picture import Picture, served
from tests.crash.worker_child import settings_of

pytestmark = pytest.mark.crash

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("FORGET_ROUNDS", "3"))
PATIENCE = 30  # seconds until a process that does not answer has failed
AHEAD = 0.02  # seconds in which both have heard when to begin


class Actor:
    """A process with an engine of its own; it does one thing after the other."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.crash.forget_child", "actor"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def tell(self, **order: object) -> None:
        assert self.process.stdin is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)

    async def answer(self) -> Order:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), PATIENCE)
        answer: Order = json.loads(line)
        return answer


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[Actor, Actor]]:
    actors = Actor(), Actor()
    try:
        yield actors
    finally:
        for actor in actors:
            actor.process.kill()
            actor.process.communicate()


class Stage:
    """A deployment that two actors share with the test."""

    def __init__(self, engine: Engine, parts: Parts, url: str, actors: tuple[Actor, Actor]) -> None:
        self._engine, self._parts, self._url = engine, parts, url
        self.one, self.other = actors
        self.pictures: dict[str, Picture] = {}

    async def bank(self, name: str) -> tuple[Bank, dict[str, set[str]]]:
        """A bank that has digested what it was told, and its memories by source."""
        bank = self._engine.bank(name)
        for told in ("1a 2b 3c 11d", "4a 5b 12d", "13c 14b 6a 21a"):
            await bank.retain([item(int(one[:-1]), one[-1]) for one in told.split()])
            await bank.consolidate()
        picture = self.pictures[name] = await Picture.of(bank)
        return bank, {source: {m.id for m in picture.memories.values() if m.source == source} for source in "abcd"}

    async def together(self, bank: Bank, one: Order, other: Order) -> list[Order]:
        """Both at the same time, more or less; what they answer."""
        at = time.monotonic() + AHEAD
        for actor, order in ((self.one, one), (self.other, other)):
            actor.tell(**order, bank=bank.id, at=at + random.choice((0, random.uniform(0, 0.06))))
        return [await self.one.answer(), await self.other.answer()]

    async def wrong(self, bank: Bank, gone: set[str], answers: list[Order], *, still: bool = True) -> list[str]:
        """What is not as it should be once whoever comes next has had the bank."""
        picture = self.pictures[bank.id]
        told_since = {m.id: m for m in await bank.memories() if m.id not in gone}  # may say again what is erased
        picture = replace(picture, memories={**told_since, **picture.memories})
        found = [it.what for it in await bank.check()]
        receipts = await bank.receipts()
        found += [f"receipt {receipt.id} is {receipt.state}" for receipt in receipts if receipt.state != "settled"]
        for receipt in [*receipts, *receipts_of(answers)]:
            found += (await bank.verify(receipt)).found
        told = {id for receipt in receipts for id in receipt.memories}
        found += [] if told >= gone else [f"{len(gone - told)} memories are in no receipt"]
        found += [] if {r.id for r in receipts_of(answers)} <= {r.id for r in receipts} else ["a receipt is not kept"]
        found += await picture.lost(bank, gone, still=still)
        found += await served(bank, picture, gone, picture.moments()[::3])
        if left := picture.erased_words(gone) & words([await self._stored(bank.id)]):
            found.append(f"store or ledger holds {sorted(left)}")
        return found

    async def _stored(self, bank: str) -> str:
        memories, observations = await read_store(self._parts.memories, bank), await read_store(self._parts.observations, bank)
        return repr((memories, observations, of_bank(read_database(self._url), bank, memories)))


@pytest.fixture
async def stage(tmp_path: Path, ledger_url: str, processes: tuple[Actor, Actor]) -> AsyncIterator[Stage]:
    folder = tmp_path / "memory"
    settings = settings_of(folder, ledger_url)
    parts = await open_parts(settings, system_clock, embedder=HashEmbedder(), proposer=Scribe())
    try:
        for actor in processes:
            actor.tell(do="open", folder=str(folder), url=ledger_url)
            assert "opened" in await actor.answer()
        yield Stage(Engine(parts, settings), parts, ledger_url, processes)
        for actor in processes:
            actor.tell(do="close")
            assert "closed" in await actor.answer()
    finally:
        await parts.close()


def receipts_of(answers: list[Order]) -> list[Receipt]:
    """Of those that erased something."""
    receipts = [Receipt.model_validate(answer["receipt"]) for answer in answers if "receipt" in answer]
    return [receipt for receipt in receipts if receipt.state != "nothing"]


def forget(**request: object) -> Order:
    return {"do": "forget", "request": request}


async def test_a_source_is_forgotten_by_two_at_once(stage: Stage) -> None:
    for number in range(ROUNDS):
        bank, ids = await stage.bank(f"bank{number}")
        answers = await stage.together(bank, forget(source="a"), forget(source="a"))
        assert {answer["receipt"]["state"] for answer in answers} <= {"settled", "accepted", "nothing"}
        assert await stage.wrong(bank, ids["a"], answers) == []


async def test_two_forget_what_overlaps(stage: Stage) -> None:
    for number in range(ROUNDS):
        bank, ids = await stage.bank(f"bank{number}")
        some = {min(ids["a"]), min(ids["b"]), *ids["d"]}
        answers = await stage.together(bank, forget(source="a"), forget(memory_ids=sorted(some)))
        assert len(receipts_of(answers)) == 2
        assert await stage.wrong(bank, ids["a"] | some, answers) == []


async def test_one_tells_a_source_what_the_other_forgets(stage: Stage) -> None:
    for number in range(ROUNDS):
        bank, ids = await stage.bank(f"bank{number}")
        answers = await stage.together(bank, forget(source="a"), {"do": "retain", "items": [item(4, "a"), item(31, "a")]})
        (receipt,), kept = receipts_of(answers[:1]), {*answers[1].get("kept", ())}
        assert kept or answers[1] == {"refused": "Conflict"}
        assert await stage.wrong(bank, ids["a"] | {*receipt.memories}, answers) == []
        assert kept - {m.id for m in await bank.memories()} <= {*receipt.memories}


async def test_one_thinks_about_what_the_other_forgets(stage: Stage) -> None:
    bank, _ = await stage.bank("bank")
    await bank.retain([item(34, "d"), item(35, "e")])
    told = {m.id for m in await bank.memories(source="e")}
    stage.one.tell(do="consolidate", slow=True, bank=bank.id, at=0)
    assert told & {*(await stage.one.answer())["reading"]}
    stage.other.tell(**forget(source="e"), bank=bank.id, at=0)
    erased = await stage.other.answer()
    assert erased["receipt"]["state"] == "settled"  # it takes the bank over: nothing may come of that thought
    stage.one.tell(do="go on")
    assert await stage.one.answer() in ({"refused": "LeaseLost"}, {"refused": "Conflict"})
    assert await stage.wrong(bank, told, [erased]) == []
    await bank.consolidate()
    assert await stage.wrong(bank, told, [erased], still=False) == []
    assert await bank.memories(state=MemoryState.PENDING) == []


async def test_one_changes_what_rests_on_what_the_other_forgets(stage: Stage) -> None:
    bank, ids = await stage.bank("bank")
    await bank.retain([item(34, "e")])
    stage.one.tell(do="consolidate", slow=True, bank=bank.id, at=0)
    assert "reading" in await stage.one.answer()
    stage.other.tell(**forget(source="b"), bank=bank.id, at=0)
    erased = await stage.other.answer()
    assert erased["receipt"]["state"] == "accepted"  # none of it is read now
    assert await served(bank, stage.pictures[bank.id], ids["b"], ()) == []
    stage.one.tell(do="go on")
    assert "passes" in await stage.one.answer()
    assert await stage.wrong(bank, ids["b"], [erased], still=False) == []
    assert await bank.memories(state=MemoryState.PENDING) == []
