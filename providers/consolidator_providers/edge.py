"""The embedded store: Qdrant's engine in this process, one shard a collection, a folder on disk, one owner.

Every verb is one job on one thread: a read that decides a write, and that write, have nothing between them. Writes name ids,
never filters, because the engine's log would evaluate a filter again when it is replayed after a kill.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast

from consolidator import checks
from consolidator.errors import InvalidInput, MissingProvider, StoreError
from consolidator.models import Vector
from consolidator.ports import ANY, CollectionSpec, Expect, Found, Leg, Page, Point, PutOutcome, VectorStore, Where

try:
    import qdrant_edge as q
except ImportError as error:
    raise MissingProvider("the package qdrant-edge-py is missing: pip install 'consolidator'") from error

from consolidator_providers.bm25 import Bm25Encoder
from consolidator_providers.edge_filters import bank_filter, request_of
from consolidator_providers.edge_folder import FolderLock, make_folder, settle_record
from consolidator_providers.edge_shard import Shard, Writer
from consolidator_providers.edge_shelf import Shelf, Shelved, id_of
from consolidator_providers.store_record import refuse_other

T = TypeVar("T")
NOTHING: Mapping[str, Any] = MappingProxyType({})
Durability = Literal["process", "power"]
Fields = bool | list[str]

BATCH = 100  # points in one write: more would stop every thread of the process for too long
AT_ONCE = 300  # points that are read without a thread: 2 ms
FLUSH_AFTER = 5.0  # seconds from a first write to the flush that covers it, under "process"

logger = logging.getLogger(__name__)


class EdgeCollection:
    """`VectorStore` on one shard.

    durability: "process" acknowledges when the write survives a kill, and flushes within `flush_after` seconds and at
    every barrier; "power" acknowledges after a flush, which writers that wait at the same time share.
    """

    def __init__(
        self,
        folder: Path,
        *,
        writer: Writer,
        spec: CollectionSpec,
        encoder: Bm25Encoder,
        durability: Durability = "process",
        flush_after: float = FLUSH_AFTER,
    ) -> None:
        self._folder = folder
        self._writer = writer
        self._spec = spec
        self._encoder = encoder
        self._power = durability == "power"
        self._flush_after = flush_after
        self._shelf = Shelf()
        self._opened: Shard | None = None
        self._written = 1  # what the last process had not flushed was replayed, and is not on disk yet
        self._flushed = 0
        self._timer: asyncio.TimerHandle | None = None

    async def ensure(self, spec: CollectionSpec) -> None:
        checks.field_kinds(spec)
        made, asked = (self._spec.embedder, self._spec.dimension), (spec.embedder, spec.dimension)
        refuse_other(made, asked, where=str(self._folder.parent), elsewhere="another folder")
        self._spec = spec
        await self._writer.run(self._ensure)

    async def put(self, bank: str, points: Sequence[Point], *, expect: Expect = ANY) -> list[PutOutcome]:
        checks.check_bank(bank)
        checks.check_expect(expect)
        sound = checks.sound_points(self._spec, points)
        return await self._write(partial(self._put, bank, sound, expect))

    async def get(self, bank: str, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        checks.check_bank(bank)
        checks.check_ids(ids)
        look = self._writer.read if len(ids) <= AT_ONCE else self._writer.run
        return await look(partial(self._get, bank, list(ids), vectors))

    async def search(self, bank: str, legs: Sequence[Leg]) -> list[list[Found]]:
        checks.check_bank(bank)
        sound = checks.sound_legs(self._spec, legs)
        return await self._writer.read(partial(self._search, bank, sound))

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
        order = _order(order_by, descending)
        sound = checks.sound_where(self._spec, where)
        if sound is None:
            return Page([], None)
        request = q.ScrollRequest(limit=limit, offset=after, filter=bank_filter(bank, sound), order_by=order, with_payload=True)
        return await self._writer.run(partial(self._scan, request, descending))

    async def count(self, bank: str, where: Where = ()) -> int:
        checks.check_bank(bank)
        sound = checks.sound_where(self._spec, where)
        return 0 if sound is None else await self._writer.run(lambda: self._shard.count(bank_filter(bank, sound)))

    async def facet(self, bank: str, key: str, where: Where = (), *, limit: int = 1000) -> dict[str, int]:
        checks.check_bank(bank)
        checks.check_facet(self._spec, key)
        checks.check_limit(limit)
        sound = checks.sound_where(self._spec, where)
        return {} if sound is None else await self._writer.run(lambda: self._shard.facet(key, limit, bank_filter(bank, sound)))

    async def tenants(self, where: Where, *, limit: int = 1000) -> dict[str, int]:
        checks.check_limit(limit)
        sound = checks.sound_where(self._spec, where)
        return {} if sound is None else await self._writer.run(lambda: self._shard.facet("bank", limit, bank_filter(None, sound)))

    async def patch(self, bank: str, id: str, changes: Mapping[str, Any], *, expect: int) -> bool:
        checks.check_bank(bank)
        checks.check_ids([id])
        sound = checks.sound_changes(self._spec, changes)
        return await self._write(partial(self._patch, bank, id, sound, expect))

    async def give_vector(self, bank: str, id: str, dense: Vector, changes: Mapping[str, Any], *, expect: int) -> bool:
        checks.check_bank(bank)
        checks.check_ids([id])
        sound = checks.sound_changes(self._spec, changes)
        vector = checks.sound_vector(self._spec, dense)
        return await self._write(partial(self._give_vector, bank, id, vector, sound, expect))

    async def delete(self, bank: str, ids: Sequence[str]) -> int:
        checks.check_bank(bank)
        checks.check_ids(ids)
        return await self._write(partial(self._delete, bank, list(ids)))

    async def flush(self) -> None:
        await self._writer.run(self._flush)

    async def scrub(self) -> bool:
        await self._writer.run(lambda: self._shard.scrub())
        return True

    async def close(self) -> None:
        """Flush and close the shard; repeating is harmless."""
        if self._timer is not None:
            self._timer.cancel()
        await self._writer.run(self._close)

    async def _write(self, job: Callable[[], T]) -> T:
        if not self._power:
            self._flush_soon()
        result, written = await self._writer.run(partial(self._counted, job))
        if self._power:
            await self._writer.run(partial(self._flush, written))
        return result

    def _flush_soon(self) -> None:
        if self._timer is None and self._opened is not None:
            self._timer = asyncio.get_running_loop().call_later(self._flush_after, self._flush_now)

    def _flush_now(self) -> None:
        self._timer = None
        self._writer.submit(self._flush_quietly)

    # From here on: jobs, which run on the writer's thread.

    @property
    def _shard(self) -> Shard:
        if self._opened is None:
            raise StoreError("the store is closed")
        return self._opened

    def _ensure(self) -> None:
        if self._opened is None:
            self._opened = Shard.open(self._folder, self._spec.dimension)
        self._opened.complete(self._spec)

    def _counted(self, job: Callable[[], T]) -> tuple[T, int]:
        self._written += 1  # first: a write that failed half way is to be flushed too
        return job(), self._written

    def _flush(self, written: int | None = None) -> None:
        """Flush, unless a flush has covered write number `written` meanwhile: so do writers share one."""
        upto = self._written
        if self._flushed < (upto if written is None else written):
            self._shard.flush()
            self._flushed = upto

    def _flush_quietly(self) -> None:
        if self._opened is None or self._opened.poisoned:
            return
        try:
            self._flush()
        except StoreError:  # whoever waits for a barrier is told by its own flush
            logger.warning("a background flush failed", exc_info=True, extra={"action": "store.flush_failed"})

    def _close(self) -> None:
        if self._opened is None:
            return
        shard, self._opened = self._opened, None
        if not shard.poisoned:
            shard.flush()
        shard.close()

    def _write_points(self, ids: Sequence[str], operation: q.UpdateOperation) -> None:
        self._shelf.drop(ids)
        self._shard.write(operation)

    def _mine(self, bank: str, ids: list[str], fields: Fields, vectors: Fields = False) -> dict[str, q.Record]:
        stored = self._shard.retrieve(ids, fields, vectors)
        return {id: record for id, record in stored.items() if _payload(record).get("bank") == bank}

    def _put(self, bank: str, points: list[Point], expect: Expect) -> list[PutOutcome]:
        self._shard.refuse_if_poisoned()
        stored = self._shard.retrieve([point.id for point in points], ["bank", "rev"], False)
        there = {id: _payload(record) for id, record in stored.items()}
        outcomes = [checks.decide(there.get(point.id), bank, expect) for point in points]
        fresh = [point for point, outcome in zip(points, outcomes, strict=True) if outcome is PutOutcome.WRITTEN]
        records = [self._record(bank, point) for point in fresh]  # all of them first: what cannot be encoded stops the whole put
        for start in range(0, len(records), BATCH):
            part = slice(start, start + BATCH)
            self._write_points([point.id for point in fresh[part]], q.UpdateOperation.upsert_points(records[part]))
        return outcomes

    def _record(self, bank: str, point: Point) -> q.Point:
        vectors: dict[str, Any] = {} if point.dense is None else {"dense": point.dense}
        words = self._encoder.document(point.lexical)
        if words is not None:
            vectors["bm25"] = q.SparseVector(words.indices, words.values)
        return q.Point(point.id, vectors, {**point.payload, "bank": bank})

    def _get(self, bank: str, ids: list[str], vectors: bool) -> list[Point]:
        shard, known = self._shard, self._shelf.of(ids)
        missing = [id for id in ids if id not in known]
        stored = shard.retrieve(missing, True, False) if missing else {}
        read = {id: _shelved(record) for id, record in stored.items()}
        self._shelf.keep(read)
        mine = {id: point for id, (whose, point) in {**known, **read}.items() if whose == bank}
        for id, record in (shard.retrieve(list(mine), False, ["dense"]) if vectors and mine else {}).items():
            mine[id] = replace(mine[id], dense=_dense(record))
        return [mine[id] for id in ids if id in mine]

    def _search(self, bank: str, legs: list[Leg | None]) -> list[list[Found]]:
        requests = [None if leg is None else request_of(bank, leg, self._encoder) for leg in legs]
        lists = iter(self._shard.query([request for request in requests if request is not None]))
        return [
            [] if leg is None or request is None else _ranked(leg, next(lists))
            for leg, request in zip(legs, requests, strict=True)
        ]

    def _scan(self, request: q.ScrollRequest, descending: bool) -> Page:
        records, after = self._shard.scroll(request)
        if request.order_by is not None:
            records.sort(key=lambda record: str(record.id))
            records.sort(key=lambda record: cast("float", record.order_value), reverse=descending)
        points = [_point(str(record.id), _payload(record)) for record in records]
        return Page(points, None if after is None else str(after))

    def _patch(self, bank: str, id: str, changes: dict[str, Any], expect: int) -> bool:
        self._shard.refuse_if_poisoned()
        record = self._mine(bank, [id], ["bank", "rev"]).get(id)
        if record is None or _payload(record).get("rev") != expect:
            return False
        self._write_points([id], q.UpdateOperation.set_payload([id], {**changes, "rev": expect + 1}))
        return True

    def _give_vector(self, bank: str, id: str, dense: Vector, changes: dict[str, Any], expect: int) -> bool:
        """One upsert of the whole point: vector and payload change together, or neither does."""
        self._shard.refuse_if_poisoned()
        record = self._mine(bank, [id], True, True).get(id)
        if record is None or _payload(record).get("rev") != expect:
            return False
        vectors = {**cast("dict[str, Any]", record.vector), "dense": dense}
        payload = checks.patched(_payload(record), changes, expect + 1)
        self._write_points([id], q.UpdateOperation.upsert_points([q.Point(id, vectors, payload)]))
        return True

    def _delete(self, bank: str, ids: list[str]) -> int:
        self._shard.refuse_if_poisoned()
        mine = list(self._mine(bank, ids, ["bank"]))
        if mine:
            self._write_points(mine, q.UpdateOperation.delete_points(cast("list[q.PointId]", mine)))
        return len(mine)


def _ranked(leg: Leg, hits: Sequence[q.ScoredPoint]) -> list[Found]:
    """Every access to a hit makes a value: what is beyond a tie at the cut is not looked at."""
    end = leg.limit
    while end < len(hits) and checks.tied(hits[end].score, hits[leg.limit - 1].score):
        end += 1
    told = map(_found, hits[:end]) if leg.payload else [Found(id_of(hit.id), hit.score, NOTHING) for hit in hits[:end]]
    return checks.ranked(told, leg.limit)


def _payload(record: q.Record | q.ScoredPoint) -> dict[str, Any]:
    return record.payload or {}


def _found(hit: q.ScoredPoint) -> Found:
    return Found(id_of(hit.id), hit.score, checks.read_payload(hit.payload))


def _shelved(record: q.Record) -> Shelved:
    payload = _payload(record)  # it is converted each time it is asked for
    return Shelved(payload.get("bank", ""), _point(str(record.id), payload))


def _point(id: str, payload: Mapping[str, Any]) -> Point:
    return Point(id=id, payload=checks.read_payload(payload))


def _dense(record: q.Record) -> Vector | None:
    vectors = record.vector
    return cast("Vector | None", vectors.get("dense")) if isinstance(vectors, dict) else None


def _order(key: str | None, descending: bool) -> q.OrderBy | None:
    return None if key is None else q.OrderBy(key, q.Direction.Desc if descending else q.Direction.Asc)


class EdgeStorage:
    """`Storage` in a folder: two collections, one thread, one lock."""

    def __init__(self, folder: Path, lock: FolderLock, writer: Writer, collections: Mapping[str, EdgeCollection]) -> None:
        self.memories: VectorStore = collections["memories"]
        self.observations: VectorStore = collections["observations"]
        self._folder = folder
        self._lock = lock
        self._writer = writer
        self._closed = False

    async def describe(self) -> dict[str, str]:
        return {"store": "qdrant-edge", "where": str(self._folder)}

    async def close(self) -> None:
        """Flush, close and unlock; repeating is harmless."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.memories.close()
        finally:
            try:
                await self.observations.close()
            finally:
                self._writer.stop()
                self._lock.release()


async def open_edge(*, folder: Path, specs: Sequence[CollectionSpec], durability: str = "process") -> EdgeStorage:
    """Open the folder, or make it. Raises StoreLocked, WrongEmbedder, NewerFormat, or InvalidInput for the arguments."""
    if durability not in ("process", "power"):
        raise InvalidInput('durability is "process" or "power"')
    named = checks.check_specs(specs)
    shape = named["memories"]
    await asyncio.to_thread(make_folder, folder)
    lock = FolderLock(folder)
    try:
        settings = settle_record(folder, shape.embedder, shape.dimension)
    except BaseException:
        lock.release()
        raise
    writer = Writer()
    make = partial(EdgeCollection, writer=writer, encoder=Bm25Encoder(settings), durability=cast("Durability", durability))
    rooms = {name: make(folder / name, spec=spec) for name, spec in named.items()}
    storage = EdgeStorage(folder, lock, writer, rooms)
    try:
        for name, spec in named.items():
            await rooms[name].ensure(spec)
    except BaseException:
        await storage.close()
        raise
    return storage
