"""Erasures in processes of their own: `python -m tests.crash.forget_child` takes orders, one JSON object a line.

As a nursery (no argument) it carries each order out in a fresh process, forked before anything was opened, and kills that at an
instant which only the order knows. As an actor (argument "actor") it keeps an engine open on a store and a ledger that it shares.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from consolidator.clock import system_clock
from consolidator.config import Settings
from consolidator.engine import Bank, Engine
from consolidator.errors import Conflict, InvalidInput, NotFound
from consolidator.models import MemoryState, Receipt
from consolidator.parts import Parts
from consolidator.proposals import Action, Batch, NothingDurable, Proposal
from consolidator.registry import open_parts
from consolidator.testing import HashEmbedder
from consolidator_providers.vector_cache import CachedEmbedder
from tests.crash import worker_child
from tests.crash.engine_child import WORD, WRITES, Follower, item, killing, ready_to_fork

Order = dict[str, Any]
SOURCES = "abcd"
QUOTED = 40  # characters of a reply that a fault repeats


def settings_of(folder: Path, store: str) -> Settings:
    """Small batches; a memory that fails alone is parked at once. The hash embedder knows words alone: all are shown."""
    digesting = {"batch": 3, "floor": -1, "deletes_day": 10_000, "attempts": 1}
    return Settings.model_validate({"folder": folder, "store": {"kind": store}, "consolidation": digesting})


class Scribe(Follower):
    """A proposer that derives observations in every way there is; a text names every memory that it comes from."""

    name = "scribe"

    async def propose(self, batch: Batch) -> Proposal:
        pen = _Pen(batch)
        for shown in batch.memories:
            pen.write(shown.alias, int(WORD.findall(shown.memory.text)[0][4:-1]))
        said = [*(c.observation.text for c in batch.candidates), *(s.memory.text for s in batch.shown)]
        faults = (f'action 9: evidence names "{said[0][:QUOTED]}", which is no memory shown',)
        told = {"by": self.name, "calls": 1} | ({"faults": faults, "reply": json.dumps(said)} if pen.stuck else {})
        return Proposal(actions=tuple(pen.actions), nothing=tuple(pen.nothing), **told)


class _Pen:
    def __init__(self, batch: Batch) -> None:
        self.actions: list[Action] = []
        self.nothing: list[NothingDurable] = []
        self.stuck = False
        self._batch = batch
        self._free = list(batch.candidates)

    def write(self, alias: str, number: int) -> None:
        word, kind = f"word{number}x", number % 10
        text = self._batch.memory(alias).text
        if kind == 0:
            self.nothing.append(NothingDurable(memory=alias, reason=f"small talk about {word}"))
        elif kind == 8:
            self.stuck = True  # it stays unaccounted for
        elif 3 <= kind < 8 and self._free:
            target = self._free.pop(number % len(self._free))
            self._change(kind, alias, word, target.alias, target.observation.text)
        else:
            others = [s.memory.text for s in self._batch.memories if s.alias != alias]
            drawn = f" They thought of {WORD.findall(others[0])[0]}." if kind == 9 and others else ""  # and cites it not
            self._act("create", alias, word, text=f"{text}{drawn}", confidence=0.8)

    def _change(self, kind: int, alias: str, word: str, target: str, text: str) -> None:
        if kind == 6:
            return self._act("delete", alias, word, observation=target)
        told, change = f"Once {' and '.join(WORD.findall(text))}, now {word}.", "state_change"
        if kind == 3:
            told, change = text, "restate"
        elif kind == 7 and self._free:  # it drifts onto another one: they are merged
            told, change = self._free.pop(0).observation.text, "refine"
        self._act("update", alias, word, observation=target, change=change, text=told)

    def _act(self, op: str, alias: str, word: str, **fields: Any) -> None:
        self.actions.append(Action.model_validate({"op": op, "evidence": (alias,), "reason": f"because of {word}", **fields}))


@asynccontextmanager
async def opened(
    folder: Path, store: str, wrap: Callable[[Parts], Parts] = lambda parts: parts
) -> AsyncIterator[tuple[Engine, Parts, HashEmbedder]]:
    """The engine, the parts as they are without `wrap`, and the embedder behind the cache.

    Whoever opens the folder has it alone, so the lease of one that was killed is nobody's to wait for.
    """
    settings, asked = settings_of(folder, store), HashEmbedder()
    embedder = CachedEmbedder(asked, folder / "vectors.db")
    parts = replace(await open_parts(settings, system_clock, embedder=embedder, proposer=Scribe()), owner=f"{store} alone")
    try:
        yield Engine(wrap(parts), settings), parts, asked
    finally:
        await parts.close()


async def erase(bank: Bank, request: Order) -> Receipt | None:
    """By what the request names; `edition`: by telling all that the source says now."""
    if "edition" in request:
        return (await bank.retain(request["edition"], replace=True)).replaced
    return await bank.forget(**request)


# what a bank is told before


async def tell(bank: Bank, dice: random.Random, first: int) -> None:
    """Each number decides what becomes of its memory; see `Scribe`."""
    numbers = [first + n for n in (1, 2, *dice.sample(range(3, 10), 7), 11, *dice.sample(range(12, 30), 7))]
    told = [item(n, dice.choice(SOURCES), ("work",) if dice.random() < 0.15 else ()) for n in numbers]
    await bank.retain(told[:9])
    await bank.consolidate()
    await bank.recall("They spoke of it at length.", top_k=3)
    again = [{**one, "source": dice.choice(SOURCES)} for one in dice.sample(told[:9], 2)]
    await bank.retain([*told[9:], *again])
    await bank.consolidate()
    await meddle(bank, dice, first + 100)


async def tell_more(bank: Bank, dice: random.Random, first: int) -> None:
    numbers = [first + n for n in (1, *dice.sample(range(2, 20), 4))]
    await bank.retain([item(n, dice.choice(SOURCES), ("work",) if dice.random() < 0.15 else ()) for n in numbers])
    if dice.random() < 0.8:  # else they wait
        await bank.consolidate()
        await meddle(bank, dice, first + 100)


async def meddle(bank: Bank, dice: random.Random, first: int) -> None:
    """A person's hand: an observation or a memory is corrected, a version comes back, a pass is undone."""
    believed = await bank.observations()
    told = [m for m in await bank.memories() if m.state is MemoryState.DONE]
    passes = [entry.intent for entry in await bank.journal() if entry.by == "scribe"]
    source = dice.choice(SOURCES)
    with suppress(Conflict, InvalidInput, NotFound, IndexError):
        match dice.choice(["observation", "memory", "revert", "undo", "nothing"]):
            case "observation":
                await bank.correct(dice.choice(believed).id, f"It was word{first}x that they meant.", source=source)
            case "memory":
                await bank.correct(dice.choice(told).id, f"It was word{first + 1}x that they spoke of.", source=source)
            case "revert":
                chosen = dice.choice([o for o in believed if o.version > 1])
                await bank.revert(chosen.id, chosen.version - 1, reason="a person knows")
            case "undo":
                await bank.undo(dice.choice(passes[-6:]), reason="not so")


# the nursery


async def live(order: Order, told: int) -> None:
    calls: Counter[str] = Counter()
    only = order.get("only", sorted(WRITES))
    wrap = (lambda parts: killing(parts, order["at"], calls, only)) if order["counted"] else (lambda parts: parts)
    async with opened(Path(order["folder"]), order["store"], wrap) as (engine, *_):
        os.write(told, b"begun\n")
        began = time.perf_counter()
        receipt = await erase(engine.bank(order["bank"]), order["request"])
        seconds, said = time.perf_counter() - began, receipt and receipt.model_dump(mode="json")
        os.write(told, json.dumps({"receipt": said, "seconds": seconds, "boundaries": calls["boundaries"]}).encode())


def carry_out(order: Order) -> Order:
    """In a process of its own, which is killed `delay` seconds after its erasure has begun, or at boundary `at`."""
    answer, told = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(live(order, told))
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    os.close(told)
    with os.fdopen(answer, "rb", buffering=0) as pipe:
        begun = pipe.read(len(b"begun\n"))
        if begun and order["delay"] is not None:
            time.sleep(order["delay"])
            os.kill(child, signal.SIGKILL)
        said = pipe.read(-1)
    _, ended = os.waitpid(child, 0)
    return {"status": os.waitstatus_to_exitcode(ended), **(json.loads(said) if said else {})}


def nurse() -> None:
    ready_to_fork()
    for line in sys.stdin:
        os.write(1, json.dumps(carry_out(json.loads(line))).encode() + b"\n")


# the actor


class Thinking(Scribe):
    """Says that it was shown something, and thinks until it is told to go on."""

    def __init__(self, told: asyncio.Queue[Order]) -> None:
        self._told = told
        self.slow = False

    async def propose(self, batch: Batch) -> Proposal:
        if self.slow:
            self.slow = False
            _say({"reading": [shown.memory.id for shown in batch.memories]})
            assert (await self._told.get())["do"] == "go on"
        return await super().propose(batch)


def _say(said: Order) -> None:
    os.write(1, json.dumps(said).encode() + b"\n")


async def act() -> None:
    """Orders come one after the other; but "go on" reaches whoever thinks."""
    told: asyncio.Queue[Order] = asyncio.Queue()
    hearing = asyncio.create_task(_hear(told))
    while (order := await told.get())["do"] != "end":
        settings, proposer = worker_child.settings_of(Path(order["folder"]), order["url"]), Thinking(told)
        parts = await open_parts(settings, system_clock, embedder=HashEmbedder(), proposer=proposer)
        try:
            _say({"opened": os.getpid()})
            await _serve(Engine(parts, settings), proposer, told)
        finally:
            await parts.close()
        _say({"closed": os.getpid()})
    await hearing


async def _hear(told: asyncio.Queue[Order]) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        told.put_nowait(json.loads(line))
    told.put_nowait({"do": "end"})


async def _serve(engine: Engine, proposer: Thinking, told: asyncio.Queue[Order]) -> None:
    while (order := await told.get())["do"] != "close":
        if order["do"] == "go on":
            continue  # who thought was told already that nothing may come of it
        proposer.slow = order.get("slow", False)
        await asyncio.sleep(order["at"] - time.monotonic())  # one clock for all processes of a host: they begin together
        try:
            _say(await _acted(engine.bank(order["bank"]), order))
        except Conflict as refused:
            _say({"refused": type(refused).__name__})


async def _acted(bank: Bank, order: Order) -> Order:
    match order["do"]:
        case "retain":
            kept = await bank.retain(order["items"])
            return {"kept": {memory.id: memory.text for memory in kept.memories}}
        case "consolidate":
            return {"passes": (await bank.consolidate()).passes}
        case _:
            receipt = await bank.forget(**order["request"])
            return {"receipt": receipt.model_dump(mode="json")}


if __name__ == "__main__":
    if sys.argv[1:] == ["actor"]:
        asyncio.run(act())
    else:
        nurse()
