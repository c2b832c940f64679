"""One suite, five stores; and two of them side by side."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient

from consolidator.errors import StoreError, WrongEmbedder
from consolidator.ports import AnyOf, Either, Empty, Equals, Ids, Leg, Not, Point, Range, Storage, Where
from consolidator.testing.shared_store import open_shared
from consolidator.testing.store_cases import BANKS, DIMENSION, NOON, SPECS, every_id, number
from consolidator.testing.store_contract import VectorStoreContract
from consolidator.testing.stores import open_memory
from consolidator_providers.edge import EdgeStorage, open_edge
from consolidator_providers.qdrant import open_qdrant

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")


async def _wipe(storage: Storage) -> None:
    for store in (storage.memories, storage.observations):
        for bank in BANKS:
            await store.delete(bank, await every_id(store, bank))


class TestMemory(VectorStoreContract):
    @pytest.fixture
    async def storage(self) -> AsyncIterator[Storage]:
        storage = await open_memory(specs=SPECS)
        yield storage
        await storage.close()


class TestShared(VectorStoreContract):
    @pytest.fixture
    async def storage(self, tmp_path: Path) -> AsyncIterator[Storage]:
        storage = await open_shared(folder=tmp_path / "store", specs=SPECS)
        yield storage
        await storage.close()


async def test_shared_stores_on_one_file_write_each_revision_once(tmp_path: Path) -> None:
    stores = [await open_shared(folder=tmp_path / "store", specs=SPECS) for _ in range(4)]
    await stores[0].memories.put("alice", [Point(id=number(1), payload={"rev": 0})])
    for rev in range(20):
        patches = (it.memories.patch("alice", number(1), {"sequence": n}, expect=rev) for n, it in enumerate(stores))
        won = await asyncio.gather(*patches)
        assert sum(won) == 1
    (stored,) = await stores[3].memories.get("alice", [number(1)])
    assert stored.payload["rev"] == 20
    for store in stores:
        await store.close()


async def test_a_shared_store_refuses_another_embedder(tmp_path: Path) -> None:
    await (await open_shared(folder=tmp_path / "store", specs=SPECS)).close()
    with pytest.raises(WrongEmbedder):
        await open_shared(folder=tmp_path / "store", specs=[replace(spec, embedder="another") for spec in SPECS])


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EdgeStorage]]:
    """At most one open folder: opening takes a fifth of a second, so it stays open from test to test."""
    kept: list[EdgeStorage] = []
    yield kept
    for storage in kept:
        asyncio.run(storage.close())


class TestEdge(VectorStoreContract):
    @pytest.fixture
    async def storage(self, opened: list[EdgeStorage], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Storage]:
        if not opened:
            opened.append(await open_edge(folder=tmp_path_factory.mktemp("edge") / "store", specs=SPECS))
        yield opened[0]
        try:
            await opened[0].memories.ensure(SPECS[0])
            await _wipe(opened[0])
        except StoreError:  # the test closed it
            opened.clear()


class TestOracle(VectorStoreContract):
    """The remote store's code over the client's own in-memory stand-in for a server: good for answers."""

    @pytest.fixture
    async def storage(self) -> AsyncIterator[Storage]:
        storage = await open_qdrant(
            url="http://oracle", api_key=None, prefix="", specs=SPECS, client=AsyncQdrantClient(":memory:")
        )
        yield storage
        await storage.close()


Server = tuple[str, str | None]


NO_SERVER = "no Qdrant server: QDRANT_URL is not set, and no container engine answers"


def _engine_answers() -> bool:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        return True  # somebody named it on purpose
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(host.removeprefix("unix://")) == 0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Address and key: `QDRANT_URL` and `QDRANT_API_KEY`, else a container."""
    if url := os.environ.get("QDRANT_URL"):
        yield url, os.environ.get("QDRANT_API_KEY")
        return
    if not _engine_answers():
        pytest.fail(NO_SERVER)
    community = pytest.importorskip("testcontainers.community.qdrant")
    with community.QdrantContainer(image="qdrant/qdrant:v1.20.0") as container:
        yield f"http://{container.rest_host_address}", None


def _may_be_absent() -> bool:
    return not os.environ.get("QDRANT_URL") and os.environ.get("REQUIRE_QDRANT") != "1" and not _engine_answers()


# `skip`, not `skipif`: the summary then says it in one line
needs_a_server = pytest.mark.skip(reason=NO_SERVER) if _may_be_absent() else pytest.mark.usefixtures("server")


@needs_a_server
class TestRemote(VectorStoreContract):
    @pytest.fixture
    async def storage(self, server: Server) -> AsyncIterator[Storage]:
        url, key = server
        prefix = f"test-{uuid.uuid4().hex}-"
        storage = await open_qdrant(url=url, api_key=key, prefix=prefix, specs=SPECS)
        yield storage
        await storage.close()
        client = AsyncQdrantClient(url=url, api_key=key)
        for spec in SPECS:
            await client.delete_collection(prefix + spec.name)
        await client.close()


WORDS = ("tea", "coffee", "harbour", "lantern", "walked", "walking", "green", "the", "of", "moved", "Lisbon", "Berlin", "naïve")

CONGRUENT: tuple[Where, ...] = (
    (),
    (Equals("state", "live"),),
    (AnyOf("tags", ("a", "c")),),
    (Range("confidence", gte=0.3, lt=0.8),),
    (Range("occurred_at", gt=NOON + timedelta(hours=20)),),
    (Empty("tags"),),
    (Not(Empty("tags")), Not(Equals("sequence", 3))),
    (Not(AnyOf("source", ("s1", "s2"))), Equals("state", "live")),
    (Ids(tuple(number(n) for n in range(1, 60, 3))),),
    (Either((Ids(tuple(number(n) for n in range(1, 60, 7))), AnyOf("tags", ("c",)))), Equals("state", "live")),
)


def _random_point(n: int, dice: random.Random) -> Point:
    payload = {
        "rev": 0,
        "source": f"s{dice.randrange(5)}",
        "state": dice.choice(["live", "gone"]),
        "tags": dice.sample(["a", "b", "c"], dice.randrange(3)),
        "sequence": dice.randrange(6),
        "confidence": dice.random(),
        "occurred_at": NOON + timedelta(hours=dice.randrange(48)),
    }
    dense = [dice.gauss(0, 1) for _ in range(DIMENSION)] if dice.random() < 0.9 else None
    return Point(id=number(n), payload=payload, dense=dense, lexical=" ".join(dice.choices(WORDS, k=dice.randrange(12))))


async def test_edge_and_oracle_give_equal_answers(tmp_path: Path) -> None:
    dice = random.Random(20)
    points = {bank: [_random_point(start + n, dice) for n in range(200)] for bank, start in (("alice", 1), ("bob", 1001))}
    edge = await open_edge(folder=tmp_path / "store", specs=SPECS)
    oracle = await open_qdrant(url="http://oracle", api_key=None, prefix="", specs=SPECS, client=AsyncQdrantClient(":memory:"))
    try:
        for store in (edge.memories, oracle.memories):
            for bank, those in points.items():
                await store.put(bank, those)
        for where in CONGRUENT:
            legs = [
                Leg(name="dense", dense=[dice.gauss(0, 1) for _ in range(DIMENSION)], where=where, limit=40),
                Leg(name="lexical", lexical=" ".join(dice.choices(WORDS, k=3)), where=where, limit=40),
            ]
            await _compare(edge, oracle, where, legs)
    finally:
        await edge.close()
        await oracle.close()


async def _compare(one: Storage, other: Storage, where: Where, legs: list[Leg]) -> None:
    for bank in BANKS:
        assert await every_id(one.memories, bank, where) == await every_id(other.memories, bank, where)
        assert await one.memories.facet(bank, "tags", where) == await other.memories.facet(bank, "tags", where)
        found = zip(await one.memories.search(bank, legs), await other.memories.search(bank, legs), strict=True)
        for here, there in found:
            assert [hit.score for hit in here] == pytest.approx([hit.score for hit in there], abs=1e-5)
            assert {hit.id for hit in here} == {hit.id for hit in there}
            assert {hit.id: hit.payload for hit in here} == {hit.id: hit.payload for hit in there}
