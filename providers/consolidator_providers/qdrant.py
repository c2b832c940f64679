"""A Qdrant server or cluster as the store.

A conditional write answers alike whether its condition held or not, so every write carries a fresh token in `op`, and what
is stored afterwards tells whose write it was. The same look settles a write whose answer was lost.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from consolidator import checks
from consolidator.errors import Conflict, InvalidInput, InvalidSettings, MissingProvider, StoreError, StoreUnavailable
from consolidator.models import Vector
from consolidator.ports import ANY, CollectionSpec, Equals, Expect, Found, Ids, Leg, Page, Point, PutOutcome, VectorStore, Where

try:
    from qdrant_client import AsyncQdrantClient, models
except ImportError as error:
    raise MissingProvider("the package qdrant-client is missing: pip install 'consolidator[qdrant]'") from error

from consolidator_providers.bm25 import Bm25Encoder, Bm25Settings
from consolidator_providers.qdrant_calls import Calls, Sleep
from consolidator_providers.qdrant_filters import bank_filter, request_of, sparse_of
from consolidator_providers.store_record import check_record, record_of

BATCH = 100  # points in one request
OLDEST_SERVER = (1, 19)  # from there on conditions are resolved before they are logged, and word rarity can be a bank's own
STRONG = models.WriteOrdering.STRONG
MAJORITY = models.ReadConsistencyType.MAJORITY

_INDEXES: dict[checks.FieldKind, models.PayloadSchemaType] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "float": models.PayloadSchemaType.FLOAT,
    "time": models.PayloadSchemaType.DATETIME,
}


class QdrantCollection:
    """`VectorStore` on one collection of a server. Nothing is left to flush: every write waits until it is applied."""

    def __init__(self, client: AsyncQdrantClient, calls: Calls, *, name: str, spec: CollectionSpec, timeout: int) -> None:
        self._client = client
        self._calls = calls
        self._name = name
        self._spec = spec
        self._timeout = timeout
        self._encoder = Bm25Encoder()

    async def ensure(self, spec: CollectionSpec) -> None:
        checks.field_kinds(spec)
        if not await self._calls.read(lambda: self._client.collection_exists(self._name)):
            await self._create(spec)
        info = await self._calls.read(lambda: self._client.get_collection(self._name))
        self._encoder = Bm25Encoder(self._settings(info, spec))
        self._spec = spec
        await self._complete(info, spec)

    async def put(self, bank: str, points: Sequence[Point], *, expect: Expect = ANY) -> list[PutOutcome]:
        checks.check_bank(bank)
        checks.check_expect(expect)
        sound = checks.sound_points(self._spec, points)
        structs = [self._struct(bank, point) for point in sound]
        outcomes: list[PutOutcome] = []
        for start in range(0, len(structs), BATCH):
            outcomes += await self._put(bank, structs[start : start + BATCH], expect)
        return outcomes

    async def get(self, bank: str, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        checks.check_bank(bank)
        checks.check_ids(ids)
        mine = await self._mine(bank, ids, True, ["dense"] if vectors else False)
        return [_point(mine[id]) for id in ids if id in mine]

    async def search(self, bank: str, legs: Sequence[Leg]) -> list[list[Found]]:
        checks.check_bank(bank)
        sound = checks.sound_legs(self._spec, legs)
        requests = [None if leg is None else request_of(bank, leg, self._encoder) for leg in sound]
        lists = iter(await self._query([request for request in requests if request is not None]))
        return [
            [] if leg is None or request is None else checks.ranked(map(_found, next(lists)), leg.limit)
            for leg, request in zip(sound, requests, strict=True)
        ]

    async def scan(
        self,
        bank: str,
        where: Where = (),
        *,
        order_by: str | None = None,
        descending: bool = False,
        after: str | None = None,
        limit: int = 256,
    ) -> Page:
        checks.check_bank(bank)
        checks.check_page(self._spec, order_by, after, limit)
        sound = checks.sound_where(self._spec, where)
        if sound is None:
            return Page([], None)
        records, following = await self._calls.read(
            lambda: self._client.scroll(
                self._name,
                bank_filter(bank, sound),
                limit=limit,
                order_by=_order(order_by, descending),
                offset=after,
                timeout=self._timeout,
            )
        )
        if order_by is not None:
            records = sorted(records, key=lambda record: str(record.id))
            records.sort(key=lambda record: cast("float", record.order_value), reverse=descending)
        return Page([_point(record) for record in records], None if following is None else str(following))

    async def count(self, bank: str, where: Where = ()) -> int:
        checks.check_bank(bank)
        sound = checks.sound_where(self._spec, where)
        if sound is None:
            return 0
        within = bank_filter(bank, sound)
        counted = await self._calls.read(lambda: self._client.count(self._name, within, exact=True, timeout=self._timeout))
        return counted.count

    async def facet(self, bank: str, key: str, where: Where = (), *, limit: int = 1000) -> dict[str, int]:
        checks.check_bank(bank)
        checks.check_facet(self._spec, key)
        checks.check_limit(limit)
        sound = checks.sound_where(self._spec, where)
        if sound is None:
            return {}
        return await self._facet(key, bank_filter(bank, sound), limit)

    async def tenants(self, where: Where, *, limit: int = 1000) -> dict[str, int]:
        checks.check_limit(limit)
        sound = checks.sound_where(self._spec, where)
        return {} if sound is None else await self._facet("bank", bank_filter(None, sound), limit)

    async def _facet(self, key: str, within: models.Filter, limit: int) -> dict[str, int]:
        answer = await self._calls.read(
            lambda: self._client.facet(self._name, key, within, limit=limit, exact=True, timeout=self._timeout)
        )
        return {str(hit.value): hit.count for hit in answer.hits if hit.count}

    async def patch(self, bank: str, id: str, changes: Mapping[str, Any], *, expect: int) -> bool:
        checks.check_bank(bank)
        checks.check_ids([id])
        token = uuid.uuid4().hex
        payload = {**checks.sound_changes(self._spec, changes), "rev": expect + 1, "op": token}
        chosen = bank_filter(bank, [Ids((id,)), Equals("rev", expect)])
        unsure = await self._calls.write(
            lambda: self._client.set_payload(self._name, payload, chosen, wait=True, ordering=STRONG, timeout=self._timeout)
        )
        outcome = _settled((await self._state([id])).get(id), bank, token, Expect(rev=expect), unsure)
        return outcome is PutOutcome.WRITTEN

    async def give_vector(self, bank: str, id: str, dense: Vector, changes: Mapping[str, Any], *, expect: int) -> bool:
        checks.check_bank(bank)
        checks.check_ids([id])
        sound = checks.sound_changes(self._spec, changes)
        vector = checks.sound_vector(self._spec, dense)
        record = (await self._mine(bank, [id], True, True)).get(id)
        if record is None or (record.payload or {}).get("rev") != expect:
            return False
        vectors = {**cast("dict[str, Any]", record.vector or {}), "dense": vector}
        payload = checks.patched(record.payload or {}, sound, expect + 1)
        struct = models.PointStruct(id=id, vector=vectors, payload=payload)
        return await self._put(bank, [struct], Expect(rev=expect)) == [PutOutcome.WRITTEN]

    async def delete(self, bank: str, ids: Sequence[str]) -> int:
        checks.check_bank(bank)
        checks.check_ids(ids)
        mine = tuple(await self._mine(bank, ids, ["bank"], False))
        if mine:
            chosen = models.FilterSelector(filter=bank_filter(bank, [Ids(mine)]))
            unsure = await self._calls.write(
                lambda: self._client.delete(self._name, chosen, wait=True, ordering=STRONG, timeout=self._timeout)
            )
            if unsure is not None and await self._mine(bank, mine, ["bank"], False):
                raise unsure
        return len(mine)

    async def flush(self) -> None:
        if self._calls.closed:
            raise StoreError("the store is closed")

    async def scrub(self) -> bool:
        return False

    async def close(self) -> None:
        """The connection is the storage's, and stays open."""

    async def _create(self, spec: CollectionSpec) -> None:
        try:
            await self._calls.once(
                lambda: self._client.create_collection(
                    self._name,
                    vectors_config={"dense": models.VectorParams(size=spec.dimension, distance=models.Distance.COSINE)},
                    sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
                    strict_mode_config=models.StrictModeConfig(
                        enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False
                    ),
                    metadata=record_of(spec.embedder, spec.dimension, Bm25Settings()),
                    timeout=self._timeout,
                )
            )
        except Conflict:  # another process was faster; what it made is checked like any other
            return

    def _settings(self, info: models.CollectionInfo, spec: CollectionSpec) -> Bm25Settings:
        try:
            return check_record(
                info.config.metadata or {}, spec.embedder, spec.dimension, where=self._name, elsewhere="another prefix"
            )
        except (KeyError, TypeError) as error:
            raise StoreError(f"the collection {self._name} was not made by consolidator: use another prefix") from error

    async def _complete(self, info: models.CollectionInfo, spec: CollectionSpec) -> None:
        wanted = {key: _INDEXES[kind] for key, kind in checks.field_kinds(spec).items()} | {
            "bank": models.PayloadSchemaType.KEYWORD
        }
        for key, kind in wanted.items():
            there = info.payload_schema.get(key)
            if there is not None and there.data_type != kind:
                raise StoreError(f"the field {key!r} of {self._name} is indexed as {there.data_type.value}, not as {kind.value}")
            if there is None:
                await self._index(key, kind)

    async def _index(self, key: str, kind: models.PayloadSchemaType) -> None:
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        schema: Any = tenant if key == "bank" else kind
        unsure = await self._calls.write(
            lambda: self._client.create_payload_index(self._name, key, schema, wait=True, timeout=self._timeout)
        )
        if unsure is not None:
            raise unsure

    async def _put(self, bank: str, structs: list[models.PointStruct], expect: Expect) -> list[PutOutcome]:
        token = uuid.uuid4().hex
        marked = [_marked(struct, bank, token) for struct in structs]
        unsure = await self._calls.write(
            lambda: self._client.upsert(
                self._name, marked, wait=True, ordering=STRONG, timeout=self._timeout, **_condition(bank, expect)
            )
        )
        stored = await self._state([str(struct.id) for struct in marked])
        return [_settled(stored.get(str(struct.id)), bank, token, expect, unsure) for struct in marked]

    def _struct(self, bank: str, point: Point) -> models.PointStruct:
        vectors: dict[str, Any] = {} if point.dense is None else {"dense": point.dense}
        words = self._encoder.document(point.lexical)
        if words is not None:
            vectors["bm25"] = sparse_of(words)
        return models.PointStruct(id=point.id, vector=vectors, payload=dict(point.payload))

    async def _query(self, requests: list[models.QueryRequest]) -> list[list[models.ScoredPoint]]:
        if not requests:
            return []
        answers = await self._calls.read(lambda: self._client.query_batch_points(self._name, requests, timeout=self._timeout))
        return [answer.points for answer in answers]

    async def _retrieve(self, ids: Sequence[str], fields: Any, vectors: Any) -> dict[str, models.Record]:
        if not ids:
            return {}
        unique = list(dict.fromkeys(ids))
        records = await self._calls.read(
            lambda: self._client.retrieve(
                self._name, unique, with_payload=fields, with_vectors=vectors, consistency=MAJORITY, timeout=self._timeout
            )
        )
        return {str(record.id): record for record in records}

    async def _mine(self, bank: str, ids: Sequence[str], fields: Any, vectors: Any) -> dict[str, models.Record]:
        stored = await self._retrieve(ids, fields, vectors)
        return {id: record for id, record in stored.items() if (record.payload or {}).get("bank") == bank}

    async def _state(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        stored = await self._retrieve(ids, ["bank", "op", "rev"], False)
        return {id: record.payload or {} for id, record in stored.items()}


def _marked(struct: models.PointStruct, bank: str, token: str) -> models.PointStruct:
    return models.PointStruct(id=struct.id, vector=struct.vector, payload={**(struct.payload or {}), "bank": bank, "op": token})


def _condition(bank: str, expect: Expect) -> dict[str, Any]:
    if expect.absent:
        return {"update_mode": models.UpdateMode.INSERT_ONLY}
    if expect.rev is None:
        return {"update_filter": bank_filter(bank)}
    return {"update_filter": bank_filter(bank, [Equals("rev", expect.rev)]), "update_mode": models.UpdateMode.UPDATE_ONLY}


def _settled(
    stored: Mapping[str, Any] | None, bank: str, token: str, expect: Expect, unsure: StoreUnavailable | None
) -> PutOutcome:
    """What became of one point of a conditional write, from what is stored after it. Raises `unsure` where that is open."""
    if stored is not None and stored.get("op") == token:
        return PutOutcome.WRITTEN
    if stored is not None and stored.get("bank") != bank:
        return PutOutcome.LOST
    if expect.absent and stored is not None:
        return PutOutcome.EXISTED
    if expect.rev is not None and (stored is None or stored.get("rev") != expect.rev):
        return PutOutcome.LOST
    if unsure is not None:
        raise unsure
    return PutOutcome.WRITTEN if expect.rev is None else PutOutcome.LOST


def _order(key: str | None, descending: bool) -> models.OrderBy | None:
    direction = models.Direction.DESC if descending else models.Direction.ASC
    return None if key is None else models.OrderBy(key=key, direction=direction)


def _found(hit: models.ScoredPoint) -> Found:
    return Found(str(hit.id), hit.score, checks.read_payload(hit.payload))


def _point(record: models.Record) -> Point:
    vectors = record.vector if isinstance(record.vector, dict) else {}
    dense = cast("Vector | None", vectors.get("dense"))
    return Point(id=str(record.id), payload=checks.read_payload(record.payload), dense=dense)


class QdrantStorage:
    """`Storage` on a server: two collections, one connection."""

    def __init__(self, client: AsyncQdrantClient, calls: Calls, collections: Mapping[str, QdrantCollection], where: str) -> None:
        self.memories: VectorStore = collections["memories"]
        self.observations: VectorStore = collections["observations"]
        self._client = client
        self._calls = calls
        self._where = where

    async def describe(self) -> dict[str, str]:
        info = await self._calls.read(self._client.info)
        return {"store": "qdrant", "where": self._where, "server": info.version}

    async def close(self) -> None:
        """Close the connection; repeating is harmless."""
        if not self._calls.closed:
            self._calls.closed = True
            await self._client.close()


async def open_qdrant(
    *,
    url: str,
    api_key: str | None,
    prefix: str,
    specs: Sequence[CollectionSpec],
    timeout: int = 10,  # noqa: ASYNC109 - it goes to the server too, with every call
    client: AsyncQdrantClient | None = None,
    sleep: Sleep = asyncio.sleep,
) -> QdrantStorage:
    """Connect, and make or complete `{prefix}memories` and `{prefix}observations`.

    timeout: whole seconds a call. client: one that is connected already; it is closed with the storage. Raises
    StoreUnavailable, WrongEmbedder, NewerFormat, StoreError for a server below 1.19, or InvalidInput for the arguments.
    """
    named = checks.check_specs(specs)
    _check_target(url, api_key, prefix)
    calls = Calls(sleep)
    connected = client or AsyncQdrantClient(url=url, api_key=api_key, timeout=timeout, check_compatibility=False)
    rooms = {
        name: QdrantCollection(connected, calls, name=prefix + name, spec=spec, timeout=timeout) for name, spec in named.items()
    }
    storage = QdrantStorage(connected, calls, rooms, url)
    try:
        _check_version((await storage.describe())["server"])
        for name, spec in named.items():
            await rooms[name].ensure(spec)
    except StoreUnavailable as error:
        await storage.close()
        raise StoreUnavailable(f"no Qdrant server answers at {url} (store.url): {error}") from error
    except BaseException:
        await storage.close()
        raise
    return storage


def _check_target(url: str, api_key: str | None, prefix: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", prefix):
        raise InvalidInput("a prefix has letters, digits, dashes and underscores")
    target = urlsplit(url)
    if api_key and target.scheme != "https" and target.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise InvalidSettings("an API key is sent over https alone: change the URL of the vector store")


def _check_version(version: str) -> None:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST_SERVER:
        raise StoreError(f"the Qdrant server is {version}; consolidator needs {OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or newer")
