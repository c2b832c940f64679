"""A process that is killed while it writes: seeded operations on an embedded store, each noted once it is acknowledged.

The operations are a function of seed, number and the state before them, so that the parent can work out what must be there.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from consolidator.ports import Point, VectorStore
from consolidator.testing.store_cases import SPECS, axis, number, point
from consolidator_providers.edge import open_edge

BANK = "alice"
IDS = 400
START = datetime(2026, 1, 1, tzinfo=UTC)

State = dict[str, dict[str, Any]]  # payloads by id


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one operation asks of the store, and the state once it is done."""

    after: State
    points: tuple[Point, ...] = ()
    patch: tuple[str, dict[str, Any], int] | None = None
    vector: tuple[str, dict[str, Any], int] | None = None
    delete: tuple[str, ...] = ()
    flush: bool = False


def _fresh(dice: random.Random, n: int, rev: int) -> Point:
    fields = {
        "source": f"s{dice.randrange(6)}",
        "tags": dice.sample(["a", "b", "c"], dice.randrange(3)),
        "state": "pending",
        "sequence": dice.randrange(5),
        "confidence": dice.randrange(8) / 8,
        "occurred_at": (START + timedelta(microseconds=dice.randrange(10**12))).isoformat(timespec="microseconds")[:-6] + "Z",
    }
    dense = axis(dice.randrange(8), lean=dice.random()) if dice.random() < 0.8 else None
    return point(n, dense=dense, lexical=f"word{dice.randrange(9)} tea", rev=rev, **fields)


def step(seed: int, operation: int, state: Mapping[str, dict[str, Any]], *, flushing: bool = True) -> Step:
    """The operation with that number, on that state."""
    dice = random.Random(f"{seed}-{operation}")
    kind = dice.random()
    if kind < 0.45 or not state:
        numbers = dice.sample(range(1, IDS), dice.choice((1, 1, 5, 60)))
        points = tuple(_fresh(dice, n, state.get(number(n), {}).get("rev", -1) + 1) for n in numbers)
        return Step(after={**state, **{it.id: dict(it.payload) for it in points}}, points=points)
    if kind < 0.85:
        return _changing(dice, state)
    if kind < 0.95 or not flushing:
        gone = tuple(dice.sample(sorted(state), min(len(state), dice.choice((1, 3, 40)))))
        return Step(after={id: payload for id, payload in state.items() if id not in gone}, delete=gone)
    return Step(after=dict(state), flush=True)


def _changing(dice: random.Random, state: Mapping[str, dict[str, Any]]) -> Step:
    id = dice.choice(sorted(state))
    rev = state[id]["rev"]
    changes = {"state": dice.choice(["done", "parked"]), "sequence": dice.randrange(5), "source": f"s{dice.randrange(6)}"}
    after = {**state, id: {**state[id], **changes, "rev": rev + 1}}
    change = (id, changes, rev)
    return Step(after=after, patch=change) if dice.random() < 0.7 else Step(after=after, vector=change)


async def perform(store: VectorStore, todo: Step) -> None:
    if todo.points:
        await store.put(BANK, todo.points)
    if todo.patch is not None:
        id, changes, rev = todo.patch
        assert await store.patch(BANK, id, changes, expect=rev)
    if todo.vector is not None:
        id, changes, rev = todo.vector
        assert await store.give_vector(BANK, id, axis(1), changes, expect=rev)
    if todo.delete:
        assert await store.delete(BANK, todo.delete) == len(todo.delete)
    if todo.flush:
        await store.flush()


async def stored_state(store: VectorStore) -> State:
    state: State = {}
    after: str | None = None
    while True:
        page = await store.scan(BANK, after=after)
        state |= {it.id: dict(it.payload) for it in page.points}
        after = page.after
        if after is None:
            return state


async def main(folder: Path, journal: int, seed: int, begin: int, flushing: bool) -> None:
    os.write(1, b"opening\n")
    storage = await open_edge(folder=folder, specs=SPECS)
    state = await stored_state(storage.memories)
    os.write(1, b"ready\n")
    operation = begin
    while True:
        todo = step(seed, operation, state, flushing=flushing)
        await perform(storage.memories, todo)
        os.write(journal, f"{operation}\n".encode())
        state = todo.after
        operation += 1


if __name__ == "__main__":
    place, noted, *numbers = sys.argv[1:]
    opened = os.open(noted, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    asyncio.run(main(Path(place), opened, int(numbers[0]), int(numbers[1]), numbers[2] == "flushing"))
