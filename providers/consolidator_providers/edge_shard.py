"""The one place that calls a shard: made and opened here, its failures translated, its panics contained."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import qdrant_edge as q

from consolidator.checks import FieldKind, field_kinds
from consolidator.errors import StoreError, StoreLocked, StorePoisoned
from consolidator.ports import CollectionSpec

T = TypeVar("T")
NOBODY = list(range(10**12, 10**12 + 10**6))  # ids of no point: they fill the log
MOST_ROLLS = 20

_INDEXES: dict[FieldKind, Any] = {
    "keyword": q.PayloadSchemaType.Keyword,
    "integer": q.PayloadSchemaType.Integer,
    "float": q.PayloadSchemaType.Float,
    "time": q.PayloadSchemaType.Datetime,
}


class Writer:
    """One thread for every shard of a folder: calls keep their order, and no call is cut in two by a cancelled task."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="consolidator-store")
        self._process = os.getpid()
        self._turn = threading.Lock()  # whoever holds it calls the engine
        self._counting = threading.Lock()
        self._jobs = 0  # on the thread, or waiting for it

    async def read(self, job: Callable[[], T]) -> T:
        """Run a short read: where no other job is there, at once, on the caller's own thread.

        The engine holds the interpreter while it searches, so that another thread would win nothing, and cost the way there.
        """
        self._refuse_if_forked()
        if self._jobs or not self._turn.acquire(blocking=False):
            return await self.run(job)
        try:
            return job()
        finally:
            self._turn.release()

    async def run(self, job: Callable[[], T]) -> T:
        """Run the job to its end, even when the caller is cancelled meanwhile."""
        submitted, loop = self.submit(job), asyncio.get_running_loop()
        waiting: asyncio.Future[T] = loop.create_future()
        submitted.add_done_callback(partial(_tell, loop, waiting))  # the bridge of asyncio costs more than most reads
        return await waiting

    def submit(self, job: Callable[[], T]) -> Future[T]:
        self._refuse_if_forked()
        self._count(1)
        try:
            return self._executor.submit(self._in_turn, job)
        except RuntimeError as error:
            self._count(-1)
            raise StoreError("the store is closed") from error

    def _in_turn(self, job: Callable[[], T]) -> T:
        try:
            with self._turn:
                return job()
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._counting:
            self._jobs += change

    def _refuse_if_forked(self) -> None:
        if os.getpid() != self._process:  # a forked child has the shard's memory without its threads: it would hang
            raise StoreError("the store was opened before this process was forked: spawn, and open it in the child")

    def stop(self) -> None:
        """Whoever waits for it sees no thread left behind. Every job has been waited for, so that it is a moment."""
        self._executor.shutdown(wait=True)


def _tell(loop: asyncio.AbstractEventLoop, waiting: asyncio.Future[T], done: Future[T]) -> None:
    with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
        loop.call_soon_threadsafe(_hand_over, waiting, done)


def _hand_over(waiting: asyncio.Future[T], done: Future[T]) -> None:
    if waiting.cancelled():
        return
    if (error := done.exception()) is not None:
        waiting.set_exception(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)  # a future takes none
    else:
        waiting.set_result(done.result())


class Shard:
    """An open shard. Used on the writer's thread alone; after a panic it still reads, and refuses to write."""

    def __init__(self, folder: Path, engine: q.EdgeShard) -> None:
        self._folder = folder
        self._engine = engine
        self.poisoned = False

    @classmethod
    def open(cls, folder: Path, dimension: int) -> Shard:
        """Load the shard, or make it where there is none."""
        return cls(folder, _guarded(lambda: _load_or_create(folder, dimension)))

    def complete(self, spec: CollectionSpec) -> None:
        """Add every index of the spec that is not there. An index of another type is refused."""
        there = self.call(self._engine.info).payload_schema
        wanted = {key: _INDEXES[kind] for key, kind in field_kinds(spec).items()} | {"bank": q.PayloadSchemaType.Keyword}
        for key, kind in wanted.items():
            if key in there and there[key].data_type != kind:
                raise StoreError(f"the field {key!r} of {self._folder} is indexed as {there[key].data_type}, not as {kind}")
            if key not in there:
                params = q.KeywordIndexParams(is_tenant=True) if key == "bank" else kind
                self.write(q.UpdateOperation.create_field_index(key, params))

    def call(self, verb: Callable[..., T], *arguments: Any) -> T:
        try:
            return _guarded(lambda: verb(*arguments))
        except StorePoisoned:
            self.poisoned = True
            raise

    def write(self, operation: q.UpdateOperation) -> None:
        self.refuse_if_poisoned()
        self.call(self._engine.update, operation)

    def refuse_if_poisoned(self) -> None:
        if self.poisoned:
            raise StorePoisoned()

    def flush(self) -> None:
        self.refuse_if_poisoned()
        self.call(self._engine.flush)

    def scrub(self) -> None:
        """Rewrite every segment that holds something deleted or replaced, then fill the log until its present files are gone."""
        # what was replaced in place is no reason to rewrite a segment; what was deleted is, if it is one in 10,000 points
        count = self.count(q.Filter())
        spare = cast("list[q.PointId]", NOBODY[: 2 + count // 2_000])
        self.write(q.UpdateOperation.upsert_points([q.Point(id, {}, {}) for id in spare]))
        self.write(q.UpdateOperation.delete_points(spare))
        self.flush()
        self.call(self._engine.optimize)
        log = self._folder / "wal"
        old = {(path.name, path.stat().st_ino) for path in log.iterdir()}
        for _ in range(MOST_ROLLS):
            self.write(q.UpdateOperation.delete_points(cast("list[q.PointId]", NOBODY)))
            self.flush()
            if not old & {(path.name, path.stat().st_ino) for path in log.iterdir()}:
                return
        raise StoreError("the store's log did not let go of its old files; what was deleted may still stand in them")

    def retrieve(self, ids: list[str], fields: bool | list[str], vectors: bool | list[str]) -> dict[str, q.Record]:
        """By id, of any bank: the caller compares the bank."""
        records = self.call(self._engine.retrieve, list(dict.fromkeys(ids)), fields, vectors)
        return {str(record.id): record for record in records}

    def query(self, requests: list[q.QueryRequest]) -> list[list[q.ScoredPoint]]:
        return self.call(self._engine.query_batch, q.QueryBatchRequest(requests)) if requests else []

    def scroll(self, request: q.ScrollRequest) -> tuple[list[q.Record], Any]:
        return self.call(self._engine.scroll, request)

    def count(self, where: q.Filter) -> int:
        return self.call(self._engine.count, q.CountRequest(exact=True, filter=where))

    def facet(self, key: str, limit: int, where: q.Filter) -> dict[str, int]:
        answer = self.call(self._engine.facet, q.FacetRequest(key, limit=limit, exact=True, filter=where))
        return {str(hit.value): hit.count for hit in answer.hits if hit.count}

    def close(self) -> None:
        self.call(self._engine.close)


def _config(dimension: int) -> q.EdgeConfig:
    return q.EdgeConfig(
        vectors={"dense": q.EdgeVectorParams(size=dimension, distance=q.Distance.Cosine)},
        sparse_vectors={"bm25": q.EdgeSparseVectorParams(modifier=q.Modifier.Idf)},
        # no graph: building it holds the interpreter for minutes, and exact search inside a bank is fast; and a deleted
        # point's text leaves the disk at the next optimisation, however few were deleted
        optimizers=q.EdgeOptimizersConfig(indexing_threshold=0, deleted_threshold=1e-9, vacuum_min_vector_number=1),
        max_search_threads=1,
    )


def _load_or_create(folder: Path, dimension: int) -> q.EdgeShard:
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        return q.EdgeShard.load(str(folder))
    except Exception as error:
        if "no segments were loaded" not in str(error) and "does not exist" not in str(error):
            raise
    return q.EdgeShard.create(str(folder), _config(dimension))


def _guarded(call: Callable[[], T]) -> T:
    try:
        return call()
    except BaseException as error:
        if isinstance(error, Exception):
            raise _translated(error) from error
        if type(error).__name__ != "PanicException":  # a panic in Rust: no Exception, and its class cannot be imported
            raise
        raise StorePoisoned() from error


def _translated(error: Exception) -> StoreError:
    said = str(error)
    if "WouldBlock" in said:
        return StoreLocked("another process has this folder open: close it there, or use a server that both can reach")
    if "not initialized" in said:
        return StoreError("the store is closed")
    return StoreError(f"the embedded store failed: {said}")
