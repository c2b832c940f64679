"""Lives of an engine that end by SIGKILL: `python -m tests.crash.engine_child` takes orders, one JSON object a line.

Each order is carried out by a fresh process, forked before anything was opened; the answer is one line: its exit status and
how many boundaries it passed. What a step returned is noted in the order's journal once the call has returned.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from consolidator.clock import system_clock
from consolidator.config import Settings
from consolidator.engine import Bank, Engine
from consolidator.parts import Parts
from consolidator.ports import Storage, VectorStore
from consolidator.proposals import Action, Batch, Candidate, NothingDurable, Proposal
from consolidator.registry import Group, open_parts, provider
from consolidator.testing import HashEmbedder
from consolidator.testing.killing import Killing
from consolidator_providers.vector_cache import CachedEmbedder

WORD = re.compile(r"word\d+x")  # in one memory's text alone, unless it is told again on purpose
WRITES = frozenset(
    "put patch give_vector delete flush commit mark_applied close_applied entomb settle attempt_failed attempts_cleared "  # noqa: SIM905
    "claim release bank_key embed forget".split()
)  # between two of these nothing on disk changes: to die before and after each is to die everywhere

Step = dict[str, Any]


class Follower:
    """A proposer whose every decision is a function of the batch: what a memory does follows from the number in its word."""

    name = "follower"
    endpoint = ""

    async def propose(self, batch: Batch) -> Proposal:
        return decided(batch)

    async def close(self) -> None:
        return None


def decided(batch: Batch) -> Proposal:
    actions: list[Action] = []
    nothing: list[NothingDurable] = []
    free = list(batch.candidates)
    for shown in batch.memories:
        (word,) = WORD.findall(shown.memory.text)
        number = int(word[4:-1])
        if number % 7 == 0:
            nothing.append(NothingDurable(memory=shown.alias, reason=f"small talk about {word}"))
        elif number % 7 < 5 and free:
            actions.append(_changing(number, word, shown.alias, free.pop(number % len(free))))
        else:
            fields = {"text": shown.memory.text, "confidence": 0.8, "reason": f"{word} was told"}
            actions.append(Action(op="create", evidence=(shown.alias,), **fields))
    return Proposal(actions=tuple(actions), nothing=tuple(nothing), by="follower", calls=1)


def _changing(number: int, word: str, alias: str, target: Candidate) -> Action:
    text, common = target.observation.text, {"observation": target.alias, "evidence": (alias,), "reason": f"because of {word}"}
    if number % 7 == 4:
        return Action.model_validate({"op": "delete", **common})
    if number % 7 == 3:
        return Action.model_validate({"op": "update", "change": "restate", "text": text, **common})
    told = f"Once {' and '.join(WORD.findall(text)[-3:])}, now {word}."
    return Action.model_validate({"op": "update", "change": "state_change", "text": told, **common})


def item(number: int, source: str, tags: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"text": f"They spoke of word{number}x at length.", "source": source, "tags": list(tags)}


def small_script(first: int) -> list[Step]:
    """Ten memories, two erasures; every kind of action, a rollback, an erased and a re-opened observation among them."""
    told = [item(first + n, source) for n, source in zip((5, 6, 12, 8, 9, 3, 13, 4, 2, 7), "aababcbacb", strict=True)]
    return [
        {"do": "retain", "items": told[:4]},
        {"do": "consolidate"},
        {"do": "retain", "items": told[4:8]},
        {"do": "consolidate", "limit": 3},
        {"do": "forget", "source": "b"},
        {"do": "recall", "query": "They spoke of it at length."},
        {"do": "retain", "items": told[8:]},
        {"do": "consolidate"},
        {"do": "forget", "source": "a"},
        {"do": "consolidate"},
    ]


def random_steps(seed: int, first: int) -> Iterator[Step]:
    """An endless life. Words are numbered from `first` on; now and then an old one is told again, by another source."""
    dice, number = random.Random(f"{seed}-{first}"), first
    while True:
        kind = dice.random()
        if kind < 0.45:
            items = []
            for _ in range(dice.randint(1, 3)):
                again = number > 3 and dice.random() < 0.2
                about = dice.randrange(max(0, number - 30), number) if again else number
                number += 0 if again else 1
                items.append(item(about, f"s{dice.randrange(6)}", dice.choice(((), (), ("work",)))))
            yield {"do": "retain", "items": items}
        elif kind < 0.7:
            yield {"do": "consolidate", "limit": dice.choice((None, None, 2))}
        elif kind < 0.85:
            yield {"do": "forget", "source": f"s{dice.randrange(6)}"}
        else:
            yield {"do": "recall", "query": f"They spoke of word{dice.randrange(number + 1)}x."}


def settings_of(folder: Path) -> Settings:
    """Small batches, so that a pass has several plans; the hash embedder knows words alone, so all candidates are shown."""
    return Settings.model_validate({"folder": folder, "consolidation": {"batch": 3, "floor": -1, "deletes_day": 10_000}})


@asynccontextmanager
async def opened(folder: Path, wrap: Callable[[Parts], Parts] = lambda parts: parts) -> AsyncIterator[tuple[Engine, Parts]]:
    """The engine on the embedded store, and the parts as they are without `wrap`."""
    settings, embedder = settings_of(folder), CachedEmbedder(HashEmbedder(), folder / "vectors.db")
    parts = await open_parts(settings, system_clock, embedder=embedder, proposer=Follower())
    try:
        yield Engine(wrap(parts), settings), parts
    finally:
        await parts.close()


class Wrapped:
    """A storage whose collections are wrapped."""

    def __init__(self, storage: Storage, wrap: Callable[[VectorStore], Any]) -> None:
        self.memories: VectorStore = wrap(storage.memories)
        self.observations: VectorStore = wrap(storage.observations)
        self.describe, self.close = storage.describe, storage.close


def killing(parts: Parts, at: int | None, calls: Counter[str], only: list[str] | None) -> Parts:
    def wrap(port: Any) -> Any:
        return Killing(port, at, calls, only=WRITES if only is None else only)

    return replace(
        parts, storage=Wrapped(parts.storage, wrap), ledger=wrap(parts.ledger), embedder=wrap(parts.embedder)
    )


async def perform(bank: Bank, step: Step) -> dict[str, Any]:
    """Do a step; what it returned, as the outside sees it."""
    match step["do"]:
        case "retain":
            kept = await bank.retain(step["items"])
            return {"kept": {memory.id: memory.text for memory in kept.memories}}
        case "consolidate":
            return {"report": (await bank.consolidate(limit=step.get("limit"))).passes}
        case "forget":
            return {"forgotten": list((await bank.forget(source=step["source"])).memories)}
        case "episode":
            return {"episode": (await bank.record_episode(**step["told"])).id}
        case "distil":
            return {"report": (await bank.distil()).passes}
        case _:
            return {"served": repr(await bank.recall(step["query"], top_k=100, explain=True))}


async def live(order: dict[str, Any], calls: Counter[str]) -> None:
    journal = os.open(order["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    async with opened(Path(order["folder"]), lambda parts: killing(parts, order["at"], calls, order.get("only"))) as (engine, _):
        for step in order["steps"]:
            returned = await perform(engine.bank(order["bank"]), step)
            os.write(journal, json.dumps(returned).encode() + b"\n")


Live = Callable[[dict[str, Any], Counter[str]], Coroutine[Any, Any, None]]


def carry_out(order: dict[str, Any], live: Live = live) -> dict[str, int]:
    """In a process of its own."""
    answer, told = os.pipe()
    child = os.fork()
    if child == 0:
        calls: Counter[str] = Counter()
        status = 1
        try:
            asyncio.run(live(order, calls))
            os.write(told, str(calls["boundaries"]).encode())
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    os.close(told)
    _, ended = os.waitpid(child, 0)
    passed = os.read(answer, 32).decode()
    os.close(answer)
    return {"status": os.waitstatus_to_exitcode(ended), "boundaries": int(passed or 0)}


USED: tuple[tuple[Group, str], ...] = (
    ("storages", "edge"), ("storages", "shared"), ("ledgers", "alone"), ("ledgers", "sql")
)


def ready_to_fork() -> None:
    """What an engine would import and look up is there before, so that no forked process does it again."""
    for group, name in USED:
        provider(group, name)


def main(live: Live = live) -> None:
    ready_to_fork()
    for line in sys.stdin:
        os.write(1, json.dumps(carry_out(json.loads(line), live)).encode() + b"\n")


@contextmanager
def nursery(module: str) -> Iterator[subprocess.Popen[str]]:
    """A process of a module whose `main` takes orders."""
    command, root = [sys.executable, "-m", module], Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            yield process
        finally:
            process.kill()


if __name__ == "__main__":
    main()
