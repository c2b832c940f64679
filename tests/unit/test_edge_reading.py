"""Reading the embedded store: at once where nothing waits, in order where something does, and never what was before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from consolidator.errors import StoreError
from consolidator.ports import Equals, Leg
from consolidator.testing.store_cases import SPECS, axis, number, point
from consolidator_providers.edge import EdgeCollection, EdgeStorage, open_edge
from consolidator_providers.edge_shelf import LONGEST, Shelf, Shelved

FIRST = number(1)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[EdgeStorage]:
    storage = await open_edge(folder=tmp_path / "store", specs=SPECS)
    yield storage
    await storage.close()


@pytest.fixture
def memories(storage: EdgeStorage) -> EdgeCollection:
    assert isinstance(storage.memories, EdgeCollection)
    return storage.memories


class Watched:
    """The engine, telling on which thread it was asked, and what for; `failing` writes do not happen."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.threads: list[int] = []
        self.retrieved: list[list[str]] = []
        self.failing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def query_batch(self, requests: Any) -> Any:
        self.threads.append(threading.get_ident())
        return self._engine.query_batch(requests)

    def retrieve(self, ids: list[str], fields: Any, vectors: Any) -> Any:
        self.retrieved.append(list(ids))
        return self._engine.retrieve(ids, fields, vectors)

    def update(self, operation: Any) -> None:
        if self.failing:
            raise RuntimeError("the disk is full")
        self._engine.update(operation)


def watch(memories: EdgeCollection) -> Watched:
    watched = Watched(memories._shard._engine)
    memories._shard._engine = watched  # type: ignore[assignment]
    return watched


class Held:
    """The store's thread, busy until it is let go."""

    def __init__(self, storage: EdgeStorage) -> None:
        self._gate, self._begun = threading.Event(), threading.Event()
        self._job = storage._writer.submit(self._hold)

    def _hold(self) -> None:
        self._begun.set()
        self._gate.wait(30)

    async def begun(self) -> None:
        assert await asyncio.to_thread(self._begun.wait, 30)

    def let_go(self) -> None:
        self._gate.set()
        self._job.result(30)


LEGS = [Leg(name="near", dense=axis(0))]


async def test_where_nothing_waits_a_search_needs_no_other_thread(memories: EdgeCollection) -> None:
    await memories.put("alice", [point(1, dense=axis(0))])
    watched = watch(memories)
    assert [[hit.id for hit in hits] for hits in await memories.search("alice", LEGS)] == [[FIRST]]
    assert watched.threads == [threading.get_ident()]


async def test_a_read_comes_after_the_writes_before_it(storage: EdgeStorage, memories: EdgeCollection) -> None:
    held = Held(storage)
    await held.begun()
    writing = asyncio.create_task(memories.put("alice", [point(1, dense=axis(0), state="live")]))
    await asyncio.sleep(0)
    getting, searching = asyncio.create_task(memories.get("alice", [FIRST])), asyncio.create_task(memories.search("alice", LEGS))
    await asyncio.sleep(0)
    assert not any(task.done() for task in (writing, getting, searching))  # and the loop goes on
    held.let_go()
    assert (await getting)[0].payload["state"] == "live"
    assert len((await searching)[0]) == 1


async def test_a_write_that_was_given_up_is_waited_for_too(storage: EdgeStorage, memories: EdgeCollection) -> None:
    held = Held(storage)
    await held.begun()
    writing = asyncio.create_task(memories.put("alice", [point(1)]))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    reading = asyncio.create_task(memories.get("alice", [FIRST]))
    await asyncio.sleep(0)
    held.let_go()
    assert len(await reading) == 1


async def test_a_write_waits_for_a_read_in_another_thread(storage: EdgeStorage, memories: EdgeCollection) -> None:
    writer, order = storage._writer, list[str]()

    def read() -> None:
        job = writer.submit(lambda: order.append("write"))
        assert not job.done()
        order.append("read")

    await writer.read(read)
    await writer.run(lambda: None)
    assert order == ["read", "write"]


async def test_a_read_that_fails_lets_the_next_one_in(storage: EdgeStorage) -> None:
    def fail() -> None:
        raise StoreError("no")

    with pytest.raises(StoreError):
        await storage._writer.read(fail)
    assert await asyncio.wait_for(storage._writer.read(threading.get_ident), 30) == threading.get_ident()


Write = Callable[[EdgeCollection], Awaitable[object]]
WRITES: dict[str, Write] = {
    "put": lambda store: store.put("alice", [point(1, state="gone", rev=5)]),
    "patch": lambda store: store.patch("alice", FIRST, {"state": "gone"}, expect=0),
    "give_vector": lambda store: store.give_vector("alice", FIRST, axis(2), {"state": "gone"}, expect=0),
    "delete": lambda store: store.delete("alice", [FIRST]),
}


@pytest.mark.parametrize("verb", WRITES)
async def test_what_was_read_is_not_told_again_once_it_was_written(memories: EdgeCollection, verb: str) -> None:
    await memories.put("alice", [point(1, state="live")])
    assert (await memories.get("alice", [FIRST]))[0].payload["state"] == "live"
    await WRITES[verb](memories)
    told = await memories.get("alice", [FIRST])
    assert [p.payload["state"] for p in told] == ([] if verb == "delete" else ["gone"])
    assert told == (await memories.scan("alice")).points


@pytest.mark.parametrize("verb", WRITES)
async def test_a_write_that_failed_leaves_nothing_that_was_read(memories: EdgeCollection, verb: str) -> None:
    await memories.put("alice", [point(1, state="live")])
    await memories.get("alice", [FIRST])
    watched = watch(memories)
    watched.failing = True
    with pytest.raises(StoreError):
        await WRITES[verb](memories)
    watched.retrieved.clear()
    assert (await memories.get("alice", [FIRST]))[0].payload["state"] == "live"
    assert watched.retrieved == [[FIRST]]


async def test_what_was_read_is_read_once_and_of_its_bank_alone(memories: EdgeCollection) -> None:
    await memories.put("alice", [point(1, dense=axis(1), state="live"), point(2)])
    watched = watch(memories)
    first = await memories.get("alice", [FIRST, number(2), FIRST])
    assert [p.id for p in first] == [FIRST, number(2), FIRST]
    assert await memories.get("alice", [FIRST, number(2), FIRST]) == first
    assert watched.retrieved == [[FIRST, number(2)]]
    assert await memories.get("bob", [FIRST]) == []
    assert (await memories.get("alice", [FIRST], vectors=True))[0].dense == pytest.approx(axis(1))
    assert await memories.count("alice", [Equals("state", "live")]) == 1


def told(text: str) -> Shelved:
    return Shelved("alice", point(1, text=text))


def test_a_shelf_is_bounded_in_number_and_in_length() -> None:
    shelf = Shelf(most=2)
    shelf.keep({"long": told("x" * (LONGEST + 1)), "a": told("x" * LONGEST), "b": told("")})
    assert set(shelf.of(["a", "b", "long"])) == {"a", "b"}
    shelf.of(["a"])
    shelf.keep({"c": told("")})
    assert set(shelf.of(["a", "b", "c"])) == {"a", "c"}
    shelf.drop(["a", "never"])
    assert set(shelf.of(["a", "c"])) == {"c"}
