"""An embedded store's folder: who may open it, what it was made with, and what happens when the engine fails inside."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge

from consolidator.errors import InvalidInput, NewerFormat, StoreError, StoreLocked, StorePoisoned, WrongEmbedder
from consolidator.ports import Equals, Leg
from consolidator.testing.store_cases import SPECS, axis, number, point
from consolidator_providers.edge import EdgeCollection, EdgeStorage, open_edge
from consolidator_providers.edge_shard import Shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "store"


@pytest.fixture
async def storage(folder: Path) -> AsyncIterator[EdgeStorage]:
    storage = await open_edge(folder=folder, specs=SPECS)
    yield storage
    await storage.close()


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def shard_of(storage: EdgeStorage) -> Shard:
    collection = storage.memories
    assert isinstance(collection, EdgeCollection)
    return collection._shard


# the lock

OPEN_TOO = """
import asyncio, sys
from pathlib import Path
from consolidator.errors import StoreLocked
from consolidator.testing.store_cases import SPECS
from consolidator_providers.edge import open_edge

try:
    asyncio.run(open_edge(folder=Path(sys.argv[1]), specs=SPECS))
except StoreLocked as error:
    print(error)
"""


async def test_another_process_is_refused_and_told_who_holds_the_folder(folder: Path, storage: EdgeStorage) -> None:
    other = await asyncio.to_thread(run, OPEN_TOO, folder)
    assert f"process {os.getpid()} has {folder} open" in other.stdout
    assert "server" in other.stdout


async def test_the_same_process_is_refused_too(folder: Path, storage: EdgeStorage) -> None:
    with pytest.raises(StoreLocked, match="this process"):
        await open_edge(folder=folder, specs=SPECS)
    assert await storage.memories.count("alice") == 0


async def test_a_closed_folder_opens_again_with_everything_in_it(folder: Path) -> None:
    storage = await open_edge(folder=folder, specs=SPECS)
    await storage.memories.put("alice", [point(1, dense=axis(0), lexical="green tea", source="s")])
    await storage.close()
    again = await open_edge(folder=folder, specs=SPECS)
    legs = [Leg(name="d", dense=axis(0)), Leg(name="w", lexical="tea", where=[Equals("source", "s")])]
    found = await again.memories.search("alice", legs)
    await again.close()
    assert [[hit.id for hit in leg] for leg in found] == [[number(1)], [number(1)]]


async def test_the_folder_is_its_owners_alone(folder: Path, storage: EdgeStorage) -> None:
    for place in (folder, folder / "memories", folder / "observations"):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert (await storage.describe())["where"] == str(folder)


# the record


async def test_the_record_says_what_the_store_was_made_with(folder: Path, storage: EdgeStorage) -> None:
    assert json.loads((folder / "store.json").read_text()) == {
        "format": 1,
        "embedder": "contract-embedder",
        "dimension": 8,
        "bm25": {"language": "english", "avg_len": 32.0, "k": 1.2, "b": 0.75},
    }


@pytest.mark.parametrize("change", [{"embedder": "other"}, {"dimension": 16}])
async def test_another_embedder_is_refused_and_nothing_is_lost(folder: Path, change: dict[str, Any]) -> None:
    storage = await open_edge(folder=folder, specs=SPECS)
    await storage.memories.put("alice", [point(1)])
    await storage.close()
    with pytest.raises(WrongEmbedder, match=r"contract-embedder \(8 numbers\).*use the same embedder, or another folder"):
        await open_edge(folder=folder, specs=[replace(spec, **change) for spec in SPECS])
    storage = await open_edge(folder=folder, specs=SPECS)
    assert await storage.memories.count("alice") == 1
    await storage.close()


def write_record(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "store.json").write_text(text)


async def test_a_newer_format_is_refused(folder: Path) -> None:
    write_record(folder, '{"format": 2, "anything": "else"}')
    with pytest.raises(NewerFormat, match="format 2"):
        await open_edge(folder=folder, specs=SPECS)
    assert not (folder / "memories").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', '{"format": "one"}'])
async def test_a_broken_record_is_refused(folder: Path, text: str) -> None:
    write_record(folder, text)
    with pytest.raises(StoreError, match=r"store\.json"):
        await open_edge(folder=folder, specs=SPECS)


async def test_data_without_a_record_is_refused(folder: Path) -> None:
    await (await open_edge(folder=folder, specs=SPECS)).close()
    (folder / "store.json").unlink()
    with pytest.raises(StoreError, match="backup"):
        await open_edge(folder=folder, specs=SPECS)


async def test_bad_arguments_are_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="durability"):
        await open_edge(folder=folder, specs=SPECS, durability="maybe")
    with pytest.raises(InvalidInput, match="two collections"):
        await open_edge(folder=folder, specs=SPECS[:1])
    with pytest.raises(InvalidInput, match="same embedder"):
        await open_edge(folder=folder, specs=[SPECS[0], replace(SPECS[1], embedder="other")])
    assert list(folder.parent.parent.iterdir()) == []


# what was begun and not finished


def half_made(folder: Path, fields: dict[str, Any]) -> None:
    """A shard as a kill in the middle of making it leaves it."""
    vectors = {"dense": qdrant_edge.EdgeVectorParams(size=8, distance=qdrant_edge.Distance.Cosine)}
    sparse = {"bm25": qdrant_edge.EdgeSparseVectorParams(modifier=qdrant_edge.Modifier.Idf)}
    shard = qdrant_edge.EdgeShard.create(str(folder), qdrant_edge.EdgeConfig(vectors=vectors, sparse_vectors=sparse))
    for key, kind in fields.items():
        shard.update(qdrant_edge.UpdateOperation.create_field_index(key, kind))
    shard.close()


async def test_an_interrupted_making_is_completed(folder: Path) -> None:
    await (await open_edge(folder=folder, specs=SPECS)).close()
    record = (folder / "store.json").read_text()
    other = folder.parent / "other"
    write_record(other, record)
    (other / "observations").mkdir()
    half_made(other / "memories", {"bank": qdrant_edge.KeywordIndexParams(is_tenant=True)})
    storage = await open_edge(folder=other, specs=SPECS)
    assert set(shard_of(storage)._engine.info().payload_schema) == {
        *("bank", "rev", "source", "tags", "state", "evidence", "sequence", "confidence", "occurred_at")
    }
    await storage.observations.put("alice", [point(1, source="s")])
    assert await storage.observations.facet("alice", "source") == {"s": 1}
    await storage.close()


async def test_an_index_of_another_type_is_refused(folder: Path) -> None:
    await (await open_edge(folder=folder, specs=SPECS)).close()
    moved = [replace(spec, keywords=("tags",), integers=("source",)) for spec in SPECS]
    with pytest.raises(StoreError, match="'source'"):
        await open_edge(folder=folder, specs=moved)
    await (await open_edge(folder=folder, specs=SPECS)).close()


# processes

FORK = """
import asyncio, os, sys
from pathlib import Path
from consolidator.errors import StoreError
from consolidator.testing.store_cases import SPECS
from consolidator_providers.edge import open_edge

async def main():
    storage = await open_edge(folder=Path(sys.argv[1]), specs=SPECS)
    child = os.fork()
    if child == 0:
        try:
            await storage.memories.count("alice")
        except StoreError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(await storage.memories.count("alice"), flush=True)
    await storage.close()

asyncio.run(main())
"""


async def test_a_forked_child_is_refused_and_the_parent_goes_on(folder: Path) -> None:
    told = await asyncio.to_thread(run, FORK, folder)
    assert told.returncode == 0, told.stderr
    refusal, count = told.stdout.splitlines()
    assert "fork" in refusal
    assert count == "0"


LIGHT = """
import asyncio, sys
from pathlib import Path
from consolidator.ports import Equals, Leg, Not, Range
from consolidator.testing.store_cases import SPECS, point
from consolidator_providers.edge import open_edge

async def main():
    storage = await open_edge(folder=Path(sys.argv[1]), specs=SPECS)
    await storage.memories.put("alice", [point(1, lexical="tea")])
    await storage.memories.search("alice", [Leg(name="w", lexical="tea", where=[Not(Range("confidence", gt=1))])])
    await storage.close()
    print(sorted(name for name in sys.modules if name.split(".")[0] in ("qdrant_client", "httpx", "torch", "openai")))

asyncio.run(main())
"""


async def test_the_embedded_store_does_not_import_the_client(folder: Path) -> None:
    told = await asyncio.to_thread(run, LIGHT, folder)
    assert (told.stdout, told.stderr) == ("[]\n", "")


# failures inside


class PanicException(BaseException):
    """Named like the one that the engine raises, which cannot be imported."""


class Panicking:
    """The engine, but writing panics."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def update(self, operation: Any) -> None:
        raise PanicException("index out of bounds")


async def test_after_a_panic_reads_go_on_and_writes_are_refused(folder: Path) -> None:
    storage = await open_edge(folder=folder, specs=SPECS)
    await storage.memories.put("alice", [point(1, dense=axis(0), lexical="tea")])
    shard = shard_of(storage)
    healthy, shard._engine = shard._engine, Panicking(shard._engine)  # type: ignore[assignment]
    with pytest.raises(StorePoisoned):
        await storage.memories.put("alice", [point(2)])
    shard._engine = healthy
    refused = (
        storage.memories.put("alice", [point(2)]),
        storage.memories.patch("alice", number(1), {}, expect=0),
        storage.memories.give_vector("alice", number(1), axis(0), {}, expect=0),
        storage.memories.delete("alice", [number(1)]),
        storage.memories.flush(),
    )
    for write in refused:
        with pytest.raises(StorePoisoned, match="reads go on"):
            await write
    assert [it.payload for it in await storage.memories.get("alice", [number(1), number(2)])] == [{"rev": 0}]
    assert [len(leg) for leg in await storage.memories.search("alice", [Leg(name="w", lexical="tea")])] == [1]
    await storage.observations.put("alice", [point(1)])
    await storage.close()
    again = await open_edge(folder=folder, specs=SPECS)
    assert await again.memories.put("alice", [point(2)]) == ["written"]
    assert await again.memories.count("alice") == 2
    await again.close()


async def test_an_ordinary_failure_is_translated_with_its_cause(storage: EdgeStorage) -> None:
    shard = shard_of(storage)
    with pytest.raises(StoreError, match="embedded store failed") as raised:
        shard.write(qdrant_edge.UpdateOperation.set_payload([number(9)], {"rev": 1}))
    assert raised.value.__cause__ is not None
    assert not shard.poisoned


# flushing and cancelling


class Watched:
    """The engine, telling when it flushes; `gate` holds the writer's thread back."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.flushed = threading.Event()
        self.flushes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def flush(self) -> None:
        self._engine.flush()
        self.flushes += 1
        self.flushed.set()


def watch(storage: EdgeStorage) -> Watched:
    shard = shard_of(storage)
    watched = Watched(shard._engine)
    shard._engine = watched  # type: ignore[assignment]
    return watched


async def test_a_write_is_flushed_without_being_asked(storage: EdgeStorage) -> None:
    watched = watch(storage)
    storage.memories._flush_after = 0.0  # type: ignore[attr-defined]
    await storage.memories.put("alice", [point(1)])
    assert await asyncio.to_thread(watched.flushed.wait, 30)


async def test_a_barrier_flushes_what_was_written_and_nothing_twice(storage: EdgeStorage) -> None:
    await storage.memories.flush()
    watched = watch(storage)
    await storage.memories.flush()
    assert watched.flushes == 0
    await storage.memories.put("alice", [point(1)])
    await storage.memories.flush()
    assert watched.flushes == 1


async def test_a_store_just_opened_has_something_to_flush(storage: EdgeStorage) -> None:
    watched = watch(storage)
    await storage.memories.flush()
    assert watched.flushes == 1


async def test_power_acknowledges_after_a_flush_that_writers_share(folder: Path) -> None:
    storage = await open_edge(folder=folder, specs=SPECS, durability="power")
    watched = watch(storage)
    await storage.memories.put("alice", [point(1)])
    assert watched.flushes == 1
    await asyncio.gather(*(storage.memories.put("alice", [point(n)]) for n in range(2, 22)))
    assert watched.flushes < 10
    assert await storage.memories.patch("alice", number(1), {}, expect=0)
    before = watched.flushes
    await storage.memories.delete("alice", [number(1)])
    assert watched.flushes == before + 1
    await storage.close()


async def test_a_cancelled_caller_does_not_cut_its_write_in_two(storage: EdgeStorage) -> None:
    gate, begun = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        gate.wait(30)

    holding = storage._writer.submit(hold)
    await asyncio.to_thread(begun.wait, 30)
    writing = asyncio.create_task(storage.memories.put("alice", [point(n) for n in range(1, 251)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    gate.set()
    holding.result(30)
    assert await storage.memories.count("alice") == 250
