"""Kill `forget` at any instant: what it had accepted is never served again, what it had not is untouched, nothing else is lost.

`FORGET_KILLS` sets how many erasures are killed: most on a store that costs little to open, a fifth on the embedded one.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from consolidator.engine import Bank, Engine
from consolidator.errors import ConsolidatorError
from consolidator.invariants import of_bank
from consolidator.models import Receipt
from consolidator.parts import Parts
from consolidator.testing import HashEmbedder
from tests.crash.checker import Tables, read_ledger, read_store, tombstoned, words
from tests.crash.engine_child import item
from tests.crash.forget_child import Order, erase, opened, tell, tell_more
from tests.crash.picture import Picture, miscounted, served
from tests.crash.sabotage import Passing

pytestmark = pytest.mark.crash

log = logging.getLogger("tests.forget")

KILLS = int(os.environ.get("FORGET_KILLS", "20"))
KILLED = -signal.SIGKILL
LONGEST = 6  # generations
ROOT = Path(__file__).parents[2]
Wrap = Callable[[Parts], Parts]


def as_it_is(parts: Parts) -> Parts:
    return parts


def request_of(dice: random.Random, picture: Picture, first: int) -> tuple[Order, set[str]]:
    """What to ask for, and the memories that go."""
    memories = sorted(picture.memories.values(), key=lambda m: m.id)
    source = dice.choice(sorted({m.source for m in memories}))
    mine = [m for m in memories if m.source == source]
    match dice.choice(["source", "source", "ids", "tags", "edition", "edition"]):
        case "ids":
            gone = dice.sample(memories, dice.randint(1, 5))
            return {"memory_ids": [m.id for m in gone]}, {m.id for m in gone}
        case "tags" if tagged := {m.id for m in memories if "work" in m.tags}:
            return {"tags": ["work"]}, tagged
        case "edition" if len(mine) > 1:
            kept = [m for m in dice.sample(mine, len(mine) // 2) if not m.occurred_at]
            edition = [{"text": m.text, "source": source, "tags": sorted(m.tags)} for m in kept]
            return {"edition": [*edition, item(first + 300, source)]}, {m.id for m in mine} - {m.id for m in kept}
    return {"source": source}, {m.id for m in mine}


# lives that end


@dataclass(slots=True, kw_only=True)
class Target:
    """A bank, an erasure that it is asked for, and what came of it."""

    bank: str
    picture: Picture
    request: Order
    gone: set[str]  # what is to go
    tables: Tables
    points: dict[str, Any]
    receipts: list[Receipt] = field(default_factory=list)  # of those that returned
    phase: str = ""

    @property
    def accepted(self) -> bool:
        return self.phase != "not accepted"


@dataclass(slots=True)
class Nursery:
    """Processes that are killed, and how long an erasure takes when it is not."""

    process: subprocess.Popen[str]
    kills: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def live(self, folder: Path, store: str, target: Target, **end: Any) -> None:
        """end: `delay` in seconds, or `at` a boundary; none: it lives on."""
        order = {"folder": str(folder), "store": store, "bank": target.bank, "request": target.request}
        order |= {"at": None, "delay": None, "counted": "at" in end} | end
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        answer: Order = json.loads(self.process.stdout.readline())
        assert answer["status"] in (0, KILLED), "the child failed by itself"
        self.kills += answer["status"] == KILLED
        if answer.get("receipt"):
            target.receipts.append(Receipt.model_validate(answer["receipt"]))
        if answer["status"] == 0 and "at" not in end:
            self.seconds.setdefault(store, []).append(answer["seconds"])

    def strike(self, folder: Path, store: str, target: Target, dice: random.Random) -> None:
        """At any instant, three times of four; else just before or after any write. The first one of all lives on."""
        if store not in self.seconds:
            self.live(folder, store, target)
        elif dice.random() < 0.25:
            self.live(folder, store, target, at=dice.randint(1, 40))
        else:
            self.live(folder, store, target, delay=dice.uniform(0, 1.3 * median(self.seconds[store])))


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    command = [sys.executable, "-m", "tests.crash.forget_child"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield Nursery(process)
        finally:
            process.kill()


class World:
    """Banks in one folder. Time and again each is told something and then asked for an erasure, which is killed; then one engine
    finds what they left."""

    def __init__(self, folder: Path, store: str, banks: int, dice: random.Random) -> None:
        self._folder, self._store, self._dice = folder, store, dice
        self._told = dict.fromkeys((f"bank{n}" for n in range(banks)), 0)  # how often
        self.targets: list[Target] = []
        self.wrong: list[str] = []
        self.counted: Counter[str] = Counter()

    async def generation(self, nursery: Nursery) -> list[str]:
        """Everything that is wrong."""
        await self.prepare()
        for target in self.targets:
            nursery.strike(self._folder, self._store, target, self._dice)
        await self.recover()
        return self.wrong

    async def prepare(self) -> None:
        self.targets = []
        async with opened(self._folder, self._store) as (engine, parts, _):
            for number, (name, times) in enumerate(self._told.items()):
                bank, first = engine.bank(name), 1_000_000 * (number + 1) + 1_000 * times
                await (tell_more if times else tell)(bank, self._dice, first)
                self._told[name] += 1
                picture = await Picture.of(bank)
                request, gone = request_of(self._dice, picture, first)
                tables, points = await self._stored(name, parts)
                self.targets.append(
                    Target(bank=name, picture=picture, request=request, gone=gone, tables=tables, points=points)
                )
                self._say(self.targets[-1], picture.grounded(), "before")

    async def _stored(self, bank: str, parts: Parts) -> tuple[Tables, dict[str, Any]]:
        """All rows and all points of a bank."""
        memories, observations = await read_store(parts.memories, bank), await read_store(parts.observations, bank)
        return of_bank(read_ledger(self._folder / "ledger.db"), bank, memories), {**memories, **observations}

    def _say(self, target: Target, found: Iterable[str], when: str) -> None:
        self.wrong += [f"{self._store} {target.bank}, {target.phase}, {when}: {it}" for it in found]

    async def recover(self, wrap: Wrap = as_it_is) -> None:
        """Look at what was left, then put it right and look again."""
        async with opened(self._folder, self._store, wrap) as (engine, parts, asked):
            for target in self.targets:
                await self._look(engine.bank(target.bank), target, parts)
            modes = {t.bank: self._dice.choice(["consolidate", "check", "forget", "again", "drain"]) for t in self.targets}
            for target in sorted(self.targets, key=lambda target: modes[target.bank] == "drain"):  # that is for all banks
                mode = modes[target.bank]
                still = await self._put_right(engine, target, mode)
                self._say(target, await self._settled(engine.bank(target.bank), target, parts, still), f"after {mode}")
                self._say(target, await cached(parts, asked, target), f"after {mode}")

    async def _look(self, bank: Bank, target: Target, parts: Parts) -> None:
        tables, points = await self._stored(bank.id, parts)
        target.phase = phase_of(tables, target)
        self.counted[target.phase] += 1
        if target.accepted:
            new = tombstoned(tables, bank.id) - tombstoned(target.tables, bank.id)
            self._say(target, [] if new == target.gone else ["it has buried something else"], "as left")
            moments = target.picture.moments()
            chosen = self._dice.sample(moments, min(3, len(moments)))
            self._say(target, await served(bank, target.picture, target.gone, chosen), "as left")
        else:
            target.gone = set()
            self._say(target, unlike(target, tables, points), "as left")

    async def _put_right(self, engine: Engine, target: Target, mode: str) -> bool:
        """By what comes next. Returns whether observations stand as erasures have left them."""
        bank = engine.bank(target.bank)
        match mode:
            case "drain":
                await engine.drain()
            case "consolidate":
                await bank.consolidate()
            case "check":
                await bank.check()
            case "again":
                before = {m.id for m in await bank.memories()}
                if (receipt := await erase(bank, target.request)) and receipt.memories:
                    target.receipts.append(receipt)
                target.gone |= (before & target.picture.memories.keys()) - {m.id for m in await bank.memories()}
                if "edition" in target.request:  # where nothing was left to erase, to tell it again is no change
                    await bank.check()
            case _ if left := sorted(m.id for m in await bank.memories() if m.id in target.picture.memories):
                another = self._dice.choice(left)
                target.gone.add(another)
                target.receipts.append(await bank.forget(memory_ids=[another]))
        return mode not in ("drain", "consolidate")

    async def _settled(self, bank: Bank, target: Target, parts: Parts, still: bool) -> list[str]:
        receipts = await bank.receipts()
        found = [f"receipt {r.id} is {r.state}" for r in receipts if r.state != "settled"]
        found += await target.picture.lost(bank, target.gone, still=still)
        for receipt in [*receipts[-2:], *target.receipts[-1:]]:
            found += (await bank.verify(receipt)).found
        stored = repr(await self._stored(bank.id, parts))
        if left := target.picture.erased_words(target.gone) & words([stored]):
            found.append(f"store or ledger holds {sorted(left)}")
        return [*found, *await miscounted(bank), *(it.what for it in await bank.check())]


def phase_of(tables: Tables, target: Target) -> str:
    """How far the erasure had come when it was killed."""
    before = {row["id"] for row in target.tables["receipt"]}
    new = [row for row in tables["receipt"] if row["id"] not in before]
    if not new:
        return "not accepted"
    if new[0]["state"] == "settled":
        return "returned" if target.receipts else "settled"
    plans = {row["id"] for row in target.tables["intent"]}
    return "plan frozen" if any(row["kind"] == "forget" and row["id"] not in plans for row in tables["intent"]) else "accepted"


def unlike(target: Target, tables: Tables, points: Mapping[str, Any]) -> Iterator[str]:
    """What differs from how it was; but for what a new edition has brought."""
    new = points.keys() - target.points.keys() if "edition" in target.request else set()
    if {id: point for id, point in points.items() if id not in new} != target.points:
        yield "the store has changed"
    for table, rows in tables.items():
        if rows != target.tables[table] and not (table == "bank" and "edition" in target.request):
            yield f"the ledger's {table} has changed"


async def cached(parts: Parts, asked: HashEmbedder, target: Target) -> list[str]:
    """Erased texts whose vectors are in the cache: the embedder behind it is not asked for them."""
    erased = target.picture.erased_words(target.gone)
    texts = sorted({text for text in target.picture.texts() if words([text]) & erased})
    before = asked.embedded
    await parts.embedder.embed(texts)
    await parts.embedder.forget(texts)
    known = len(texts) - (asked.embedded - before)
    return [f"{known} of {len(texts)} erased texts are cached"] if known else []


def worlds(kills: int) -> Iterator[tuple[str, int, int]]:
    """Store, banks, generations. What a bank has lived through makes it slow to look at: none lives long."""
    for store, share in (("edge", kills // 6), ("shared", kills - kills // 6)):
        banks = max(3, min(10, share // 5))
        generations = max(1, round(share / banks))
        for begun in range(0, generations, LONGEST):
            yield store, banks, min(LONGEST, generations - begun)


async def test_a_forget_that_is_killed_at_any_instant_was_accepted_or_never_began(nursery: Nursery, tmp_path: Path) -> None:
    counted: Counter[str] = Counter()
    for number, (store, banks, generations) in enumerate(worlds(KILLS)):
        seed = random.randrange(10**9)
        world = World(tmp_path / f"{number}", store, banks, random.Random(seed))
        for generation in range(generations):
            assert await world.generation(nursery) == [], f"seed {seed}, generation {generation}"
        log.info("%s: %s", store, dict(world.counted))
        counted += world.counted
    took = {store: round(median(seconds), 3) for store, seconds in nursery.seconds.items()}
    log.info("%s kills, %s, median seconds %s", nursery.kills, dict(counted), took)
    if KILLS >= 100:
        assert {*counted} == {"not accepted", "accepted", "plan frozen", "settled", "returned"}


# each of these was found by a kill


async def test_what_quotes_the_erased_is_silent_at_once_and_who_repeats_an_erasure_finishes_it(
    nursery: Nursery, tmp_path: Path
) -> None:
    async with opened(tmp_path, "shared") as (engine, *_):
        bank = engine.bank("bank")
        await bank.retain([item(1, "a"), item(8, "b")])
        await bank.consolidate()
        await bank.retain([item(18, "b")])  # a fault of the reply to this quotes the observation
        await bank.consolidate()
        assert any("word1x" in row.reason for row in await bank.parked())
        assert "word1x" in repr(await bank.stats())
        picture = await Picture.of(bank)
    gone = {m.id for m in picture.memories.values() if m.source == "a"}
    target = Target(bank="bank", picture=picture, request={"source": "a"}, gone=gone, tables={}, points={})
    nursery.live(tmp_path, "shared", target, at=2, only=["entomb"])
    async with opened(tmp_path, "shared") as (engine, *_):
        bank = engine.bank("bank")
        assert await served(bank, picture, gone, picture.moments()) == []
        assert (await bank.forget(source="a")).state == "settled"  # the receipt of the one that died
        (receipt,) = await bank.receipts()
        assert receipt.state == "settled"
        assert (await bank.verify(receipt)).ok
        assert await served(bank, picture, gone, picture.moments()) == []
        assert {row.state for row in await bank.parked()} == {"parked"}


async def test_an_undone_confirmation_keeps_no_text_of_what_is_erased_later(tmp_path: Path) -> None:
    async with opened(tmp_path, "shared") as (engine, *_):
        bank = engine.bank("bank")
        await bank.retain([item(1, "a")])
        await bank.consolidate()
        await bank.retain([item(3, "b")])
        await bank.consolidate()
        confirmed = [entry for entry in await bank.journal() if entry.action == "reinforced"]
        await bank.undo(confirmed[0].intent, reason="not so")
        receipt = await bank.forget(source="a")
        assert (await bank.verify(receipt)).found == ()
        assert words([repr(await bank.journal())]) <= {"word3x"}


# the test sees what it is there for


class Blind(Passing):
    """A ledger that knows of no erasure under way, as if its tombstones were not read."""

    async def tombstones(self, *_: Any, **__: Any) -> list[Any]:
        return []


class Skipping(Passing):
    """A ledger that overlooks one of the observations that rest on what is erased, unless it is the only one."""

    async def resting_on(self, bank: str, memory_ids: Any) -> list[str]:
        found: list[str] = await self._port.resting_on(bank, memory_ids)
        return found[:-1] if len(found) > 1 else found


@pytest.mark.parametrize(("without", "seen"), [
    (Blind, r"accepted, as left: (recall|observations live|memories|journal|history) serves"),
    (Skipping, r"after \w+: (store or ledger holds|observation .* stands|.* rests on what was erased|observation .* is lost)"),
])
async def test_without_a_part_the_test_finds_what_it_lacks(
    nursery: Nursery, tmp_path: Path, without: type[Passing], seen: str
) -> None:
    world = World(tmp_path, "shared", 2, random.Random(5))
    await world.prepare()
    for target in world.targets:
        source = Counter(m.source for m in target.picture.memories.values()).most_common(1)[0][0]
        target.request, target.gone = {"source": source}, {m.id for m in target.picture.memories.values() if m.source == source}
        nursery.live(tmp_path, "shared", target, at=2, only=["entomb"])  # just after the point of no return
    with suppress(ConsolidatorError):
        await world.recover(lambda parts: replace(parts, ledger=without(parts.ledger)))
    assert {target.phase.partition(",")[0] for target in world.targets} == {"accepted"}
    assert any(re.search(seen, it) for it in world.wrong), world.wrong
