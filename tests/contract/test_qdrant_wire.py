"""What the remote store sends, and what it makes of the answers: a stand-in server behind the client's own HTTP layer.

The stand-in parses every body with the client's models and lets the client's in-memory mode answer. It proves what is sent;
how a real server takes it is for the tests that need one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from qdrant_client import AsyncQdrantClient, models

from consolidator.errors import (
    Conflict,
    ConsolidatorError,
    InvalidInput,
    InvalidSettings,
    NewerFormat,
    NotFound,
    StoreError,
    StoreUnavailable,
    WrongEmbedder,
)
from consolidator.ports import ABSENT, CollectionSpec, Equals, Expect, Leg, PutOutcome, Storage, VectorStore
from consolidator.testing.store_cases import DIMENSION, NOON, SPECS, axis, number, point
from consolidator.testing.store_contract import VectorStoreContract
from consolidator_providers.qdrant import QdrantStorage, open_qdrant
from consolidator_providers.qdrant_calls import StoreBusy
from tests.contract.qdrant_stand_in import Fault, StandIn, plain, split

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")


class Naps:
    """Notes how long it was asked to sleep, and does not."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


async def connect(server: StandIn, naps: Naps | None = None, specs: tuple[CollectionSpec, ...] = SPECS) -> QdrantStorage:
    client = AsyncQdrantClient(url="http://store", check_compatibility=False, transport=httpx.MockTransport(server))
    return await open_qdrant(
        url="http://store", api_key=None, prefix="pre-", specs=specs, timeout=7, client=client, sleep=naps or Naps()
    )


@pytest.fixture
async def server() -> AsyncIterator[StandIn]:
    server = StandIn()
    yield server
    await server.oracle.close()


@pytest.fixture
def naps() -> Naps:
    return Naps()


@pytest.fixture
async def storage(server: StandIn, naps: Naps) -> AsyncIterator[Storage]:
    storage = await connect(server, naps)
    server.sent.clear()
    yield storage
    await storage.close()


@pytest.fixture
def store(storage: Storage) -> VectorStore:
    return storage.memories


class TestWire(VectorStoreContract):
    """Every promise of the port, through HTTP bodies that the client's models accept."""

    @pytest.fixture
    async def storage(self, storage: Storage) -> Storage:
        return storage


def on(method: str, path: str, *answers: httpx.Response | Exception) -> Fault:
    """Give the answers, one for each request to that place, then none."""
    left = list(answers)

    def fault(request: httpx.Request) -> httpx.Response | Exception | None:
        here = request.method == method and split(request.url.path)[1] == path
        return left.pop(0) if here and left else None

    return fault


def banks_in(where: dict[str, Any]) -> list[str]:
    return [leaf["match"]["value"] for leaf in where["must"] if leaf.get("key") == "bank"]


def is_write(method: str, path: str) -> bool:
    return method == "PUT" or path in ("/points/payload", "/points/delete")


# what is sent


async def test_every_write_waits_and_is_ordered(server: StandIn, store: VectorStore) -> None:
    await store.put("alice", [point(1, lexical="tea")])
    await store.patch("alice", number(1), {"state": "live"}, expect=0)
    await store.give_vector("alice", number(1), axis(0), {}, expect=1)
    await store.delete("alice", [number(1)])
    writes = [(path, params) for method, path, params, _ in server.sent if is_write(method, path)]
    assert [path for path, _ in writes] == ["/points", "/points/payload", "/points", "/points/delete"]
    for _, params in writes:
        assert params == {"wait": "true", "ordering": "strong", "timeout": "7"}


async def test_the_bank_is_in_every_leaf(server: StandIn, store: VectorStore) -> None:
    where = [Equals("state", "live")]
    await store.put("alice", [point(1)])
    await store.put("alice", [point(1, rev=1)], expect=Expect(rev=0))
    await store.patch("alice", number(1), {}, expect=1)
    await store.delete("alice", [number(1)])
    await store.count("alice", where)
    await store.scan("alice", where)
    await store.scan("alice", where, order_by="occurred_at")
    await store.facet("alice", "state", where)
    await store.search("alice", [Leg(name="d", dense=axis(0), where=where), Leg(name="w", lexical="tea", where=where)])
    filters = [body[key] for *_, body in server.sent if body for key in ("filter", "update_filter") if key in body]
    batch = server.sent[-1][3]["searches"]
    filters += [search["filter"] for search in batch] + [batch[1]["params"]["idf"]["corpus"]]
    assert len(filters) == 2 + 1 + 1 + 4 + 3
    assert [banks_in(where) for where in filters] == [["alice"]] * len(filters)


async def test_conditions_of_conditional_writes(server: StandIn, store: VectorStore) -> None:
    await store.put("alice", [point(1)], expect=ABSENT)
    await store.put("alice", [point(1, rev=4)], expect=Expect(rev=3))
    await store.patch("alice", number(1), {"state": "live"}, expect=8)
    create, _, replace, _, patch, _ = (body for *_, body in server.sent)
    assert (create["update_mode"], create.get("update_filter")) == ("insert_only", None)
    assert replace["update_mode"] == "update_only"
    assert {"key": "rev", "match": {"value": 3}} in replace["update_filter"]["must"]
    assert {"has_id": [number(1)]} in patch["filter"]["must"]
    assert {"key": "rev", "match": {"value": 8}} in patch["filter"]["must"]
    assert (patch["payload"]["rev"], patch["payload"]["state"]) == (9, "live")


async def test_every_write_carries_a_fresh_token_and_looks_for_it(server: StandIn, store: VectorStore) -> None:
    for _ in range(2):
        await store.put("alice", [point(1)])
    first, look, second, again = server.sent
    tokens = {sent[3]["points"][0]["payload"]["op"] for sent in (first, second)}
    assert len(tokens) == 2
    for method, path, params, body in (look, again):
        assert (method, path, params["consistency"]) == ("POST", "/points", "majority")
        assert body["with_payload"] == ["bank", "op", "rev"]


async def test_the_token_is_the_stores_own(store: VectorStore) -> None:
    await store.put("alice", [point(1, dense=axis(0))])
    (read,) = await store.get("alice", [number(1)])
    ((hit,),) = await store.search("alice", [Leg(name="d", dense=axis(0))])
    assert read.payload == hit.payload == {"rev": 0}


async def test_a_collection_is_made_whole(server: StandIn) -> None:
    storage = await connect(server)
    created = [body for method, path, _, body in server.sent if (method, path) == ("PUT", "")]
    indexed = [(body["field_name"], body["field_schema"]) for method, path, _, body in server.sent if path == "/index"]
    assert created[0]["metadata"]["embedder"] == "contract-embedder"
    assert created[0]["strict_mode_config"] == {
        "enabled": True, "unindexed_filtering_retrieve": False, "unindexed_filtering_update": False,
    }  # fmt: skip
    assert ("bank", {"type": "keyword", "is_tenant": True}) in indexed
    assert {
        ("tags", "keyword"),
        ("sequence", "integer"),
        ("confidence", "float"),
        ("occurred_at", "datetime"),
        ("rev", "integer"),
    } <= {pair for pair in indexed if isinstance(pair[1], str)}
    assert all(params["wait"] == "true" for _, path, params, _ in server.sent if path == "/index")
    await storage.close()


async def test_times_go_out_exact_and_in_utc(server: StandIn, store: VectorStore) -> None:
    await store.put("alice", [point(1, occurred_at=NOON)])
    assert server.sent[0][3]["points"][0]["payload"]["occurred_at"] == "2026-01-31T12:00:00.123456Z"


async def test_many_points_go_in_hundreds(server: StandIn, store: VectorStore) -> None:
    await store.put("alice", [point(n) for n in range(1, 251)])
    assert [len(body["points"]) for method, path, _, body in server.sent if is_write(method, path)] == [100, 100, 50]


# what became of a write whose answer was lost


def timed_out() -> Exception:
    return httpx.ReadTimeout("no answer")


UNHEARD = (timed_out(), httpx.Response(500), httpx.Response(408), httpx.Response(200, text="<html>a proxy's page</html>"))


@pytest.mark.parametrize("answer", UNHEARD)
async def test_a_write_that_happened_unheard_is_recognised(server: StandIn, store: VectorStore, answer: Any) -> None:
    server.late = on("PUT", "/points", answer)
    assert await store.put("alice", [point(1)], expect=ABSENT) == [PutOutcome.WRITTEN]
    server.late = on("POST", "/points/payload", answer)
    assert await store.patch("alice", number(1), {"state": "live"}, expect=0) is True
    server.late = on("POST", "/points/delete", answer)
    assert await store.delete("alice", [number(1)]) == 1
    writes = [path for method, path, *_ in server.sent if is_write(method, path)]
    assert writes == ["/points", "/points/payload", "/points/delete"]


@pytest.mark.parametrize("status", ["acknowledged", "wait_timeout"])
async def test_a_status_short_of_completed_is_looked_into(server: StandIn, store: VectorStore, status: str) -> None:
    def answer() -> httpx.Response:
        return httpx.Response(200, json={"result": {"operation_id": 1, "status": status}, "status": "ok", "time": 0})

    server.late = on("PUT", "/points", answer())
    assert await store.put("alice", [point(1)]) == [PutOutcome.WRITTEN]
    server.fault = on("PUT", "/points", answer())
    with pytest.raises(StoreUnavailable):
        await store.put("alice", [point(2)])


async def test_a_write_that_did_not_happen_is_not_claimed(server: StandIn, store: VectorStore) -> None:
    await store.put("alice", [point(1)])
    for expect in (Expect(), Expect(rev=0)):
        server.fault = on("PUT", "/points", timed_out())
        with pytest.raises(StoreUnavailable):
            await store.put("alice", [point(1, rev=1, state="new")], expect=expect)
    server.fault = on("PUT", "/points", timed_out())
    with pytest.raises(StoreUnavailable):
        await store.put("alice", [point(2)], expect=ABSENT)
    server.fault = on("POST", "/points/payload", timed_out())
    with pytest.raises(StoreUnavailable):
        await store.patch("alice", number(1), {"state": "new"}, expect=0)
    server.fault = on("POST", "/points/delete", timed_out())
    with pytest.raises(StoreUnavailable):
        await store.delete("alice", [number(1)])
    assert [it.payload for it in await store.get("alice", [number(1), number(2)])] == [{"rev": 0}]


async def test_an_unheard_write_that_had_lost_anyway_has_lost(server: StandIn, store: VectorStore) -> None:
    await store.put("alice", [point(1, rev=5)])
    await store.put("bob", [point(2)])
    server.fault = on("PUT", "/points", timed_out(), timed_out(), timed_out())
    assert await store.put("alice", [point(1)], expect=ABSENT) == [PutOutcome.EXISTED]
    assert await store.put("alice", [point(1)], expect=Expect(rev=4)) == [PutOutcome.LOST]
    assert await store.put("alice", [point(2)]) == [PutOutcome.LOST]
    server.fault = on("POST", "/points/payload", timed_out())
    assert await store.patch("alice", number(1), {}, expect=4) is False


# errors


def status(code: int, **headers: str) -> httpx.Response:
    return httpx.Response(code, json={"status": {"error": "no"}}, headers=headers)


TABLE = (
    (status(400), InvalidInput),
    (status(413), InvalidInput),
    (status(422), InvalidInput),
    (status(401), StoreError),
    (status(403), StoreError),
    (status(404), NotFound),
    (status(409), Conflict),
    (status(507), StoreError),
    (status(429), StoreBusy),
    (httpx.Response(429, headers={"Retry-After": "3"}), StoreBusy),
    (httpx.Response(429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), StoreBusy),
    (status(500), StoreUnavailable),
    (status(502), StoreUnavailable),
    (status(503), StoreUnavailable),
    (status(408), StoreUnavailable),
    (httpx.Response(200, text="<html>a proxy's page</html>"), StoreUnavailable),
    (httpx.Response(200, json={"result": {"count": "many"}}), StoreUnavailable),
    (httpx.Response(200, content=b"\xff\xfe\xfd"), StoreUnavailable),
    (httpx.Response(200, json={"time": 0, "status": "ok"}), StoreUnavailable),
    (httpx.ConnectError("refused"), StoreUnavailable),
    (httpx.ConnectTimeout("slow"), StoreUnavailable),
    (httpx.ReadTimeout("slow"), StoreUnavailable),
    (httpx.RemoteProtocolError("cut"), StoreUnavailable),
)


@pytest.mark.parametrize(("answer", "expected"), TABLE)
async def test_every_failure_has_its_error(
    server: StandIn, store: VectorStore, naps: Naps, answer: Any, expected: type[ConsolidatorError]
) -> None:
    server.fault = on("POST", "/points/count", *[answer] * 9)
    with pytest.raises(expected) as raised:
        await store.count("alice")
    assert type(raised.value) is expected
    assert raised.value.__cause__ is not None
    retried = issubclass(expected, StoreUnavailable)
    assert len([path for _, path, *_ in server.sent if path == "/points/count"]) == (3 if retried else 1)
    assert len(naps.taken) == (2 if retried else 0)


async def test_reads_are_repeated(server: StandIn, store: VectorStore, naps: Naps) -> None:
    await store.put("alice", [point(1)])
    server.fault = on("POST", "/points/count", status(503), httpx.ConnectError("refused"))
    assert await store.count("alice") == 1
    assert all(0 <= nap <= 2 for nap in naps.taken)
    assert len(naps.taken) == 2


async def test_the_servers_wish_to_wait_is_granted(server: StandIn, store: VectorStore, naps: Naps) -> None:
    server.fault = on("POST", "/points/count", httpx.Response(429, headers={"Retry-After": "4"}))
    assert await store.count("alice") == 0
    assert naps.taken == [4.0]


# connecting


async def test_an_old_server_is_refused(server: StandIn) -> None:
    server.version = "1.18.3"
    with pytest.raises(StoreError, match=r"1\.18\.3.*1\.19"):
        await connect(server)


async def test_two_processes_may_create_at_once(server: StandIn) -> None:
    await (await connect(server)).close()
    server.fault = on("GET", "/exists", httpx.Response(200, json={"result": {"exists": False}, "status": "ok", "time": 0}))
    server.fault = _both(server.fault, on("PUT", "", status(409)))
    storage = await connect(server)
    assert await storage.memories.count("alice") == 0
    await storage.close()


def _both(one: Fault, other: Fault) -> Fault:
    return lambda request: one(request) or other(request)


async def test_another_embedder_is_refused(server: StandIn) -> None:
    await (await connect(server)).close()
    other = tuple(CollectionSpec(name=spec.name, dimension=DIMENSION, embedder="other") for spec in SPECS)
    with pytest.raises(WrongEmbedder, match=r"contract-embedder.*other.*same embedder"):
        await connect(server, specs=other)


@pytest.mark.parametrize(("metadata", "expected"), [(None, StoreError), ({"format": 2}, NewerFormat)])
async def test_a_collection_that_is_not_ours_is_refused(server: StandIn, metadata: Any, expected: type[StoreError]) -> None:
    vectors = {"dense": models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)}
    await server.oracle.create_collection("pre-memories", vectors_config=vectors, metadata=metadata)
    with pytest.raises(expected, match="pre-memories"):
        await connect(server)


async def test_an_index_of_another_type_is_refused(server: StandIn) -> None:
    await (await connect(server)).close()
    info = plain(await server.oracle.get_collection("pre-memories"))
    info["payload_schema"] = {"source": {"data_type": "integer", "points": 0}}
    server.fault = on("GET", "", httpx.Response(200, json={"result": info, "status": "ok", "time": 0}))
    with pytest.raises(StoreError, match="source"):
        await connect(server)


@pytest.mark.parametrize(
    ("url", "key", "prefix", "expected"),
    [("http://far.example", "secret", "", InvalidSettings), ("http://localhost", None, "a/b", InvalidInput)],
)
async def test_bad_targets_are_refused(url: str, key: str | None, prefix: str, expected: type[InvalidInput]) -> None:
    with pytest.raises(expected) as raised:
        await open_qdrant(url=url, api_key=key, prefix=prefix, specs=SPECS)
    assert "secret" not in str(raised.value)
