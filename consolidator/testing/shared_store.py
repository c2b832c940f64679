"""A vector store that several processes share: the fake's search over rows of one SQLite file, for tests of many workers.

It stands in for a server: each verb is one transaction, so a comparison of `rev` and the write that follows are one step.
Every search reads the bank's rows, which is well for some thousand points.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from consolidator import checks
from consolidator.errors import StoreError, StoreUnavailable, WrongEmbedder
from consolidator.models import Vector
from consolidator.ports import ANY, CollectionSpec, Expect, Found, Leg, Page, Point, PutOutcome, VectorStore, Where
from consolidator.testing.stores import MemoryCollection, Record

T = TypeVar("T")
Job = Callable[[MemoryCollection], Coroutine[Any, Any, T]]

FILE = "store.db"
PRAGMAS = ("PRAGMA busy_timeout=30000", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", "PRAGMA secure_delete=ON")
TABLES = (
    "CREATE TABLE IF NOT EXISTS made (embedder TEXT NOT NULL, dimension INTEGER NOT NULL)",
    *(
        f"CREATE TABLE IF NOT EXISTS {name}"
        " (id TEXT PRIMARY KEY, bank TEXT NOT NULL, payload TEXT NOT NULL, dense BLOB, words TEXT NOT NULL)"
        for name in ("memories", "observations")
    ),
    *(f"CREATE INDEX IF NOT EXISTS {name}_by_bank ON {name} (bank)" for name in ("memories", "observations")),
)
# a reader sees one moment and holds nobody up; a writer that began as a reader could not go on after another's write
READ, WRITE = "BEGIN", "BEGIN IMMEDIATE"


class _Database:
    """One connection with its own thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = False
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shared-store")
        for pragma in PRAGMAS:
            self._db.execute(pragma)

    async def run(self, begin: str, job: Callable[[sqlite3.Connection], T]) -> T:
        """The job in a transaction of its own. Shielded: a cancelled caller must not see a write as undone that was made."""
        if self.closed:
            raise StoreError("the store is closed")
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, begin, job))

    def _transaction(self, begin: str, job: Callable[[sqlite3.Connection], T]) -> T:
        with _translated():
            self._db.execute(begin)
            try:
                result = job(self._db)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            return result

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
            self._thread.shutdown()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the shared store's file failed: {error}") from error


class _Rows(MutableMapping[str, Record]):
    """Records as one transaction sees them: any by its id, those of one bank when iterated over."""

    def __init__(self, db: sqlite3.Connection, table: str, bank: str) -> None:
        self._db, self._table, self._bank = db, table, bank
        self._read: dict[str, Record] = {}
        self._whole = False  # the bank's rows are all in `_read`

    def __getitem__(self, id: str) -> Record:
        if id not in self._read:
            self._load("id", id)
        return self._read[id]

    def __setitem__(self, id: str, record: Record) -> None:
        dense = None if record.dense is None else array("d", record.dense).tobytes()
        row = (id, record.bank, json.dumps(record.payload), dense, json.dumps(record.words))
        self._db.execute(f"INSERT OR REPLACE INTO {self._table} VALUES (?, ?, ?, ?, ?)", row)
        self._read[id] = record

    def __delitem__(self, id: str) -> None:
        self._db.execute(f"DELETE FROM {self._table} WHERE id = ?", (id,))
        self._read.pop(id, None)

    def __iter__(self) -> Iterator[str]:
        if not self._whole:
            self._load("bank", self._bank)
            self._whole = True
        return iter([id for id, record in self._read.items() if record.bank == self._bank])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _load(self, column: str, value: str) -> None:
        for id, bank, payload, dense, words in self._db.execute(f"SELECT * FROM {self._table} WHERE {column} = ?", (value,)):
            vector = None if dense is None else list(array("d", dense))
            self._read[id] = Record(bank, json.loads(payload), vector, Counter(json.loads(words)))


def _finished(verb: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that waits for nothing."""
    try:
        verb.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the fake waited for something")


class SharedCollection:
    """`VectorStore` over a table."""

    def __init__(self, database: _Database, spec: CollectionSpec) -> None:
        self._database = database
        self._spec = spec

    async def _run(self, begin: str, bank: str, job: Job[T]) -> T:
        spec = self._spec
        return await self._database.run(begin, lambda db: _finished(job(MemoryCollection(spec, _Rows(db, spec.name, bank)))))

    async def ensure(self, spec: CollectionSpec) -> None:
        await self._run(READ, "", lambda c: c.ensure(spec))
        self._spec = spec

    async def put(self, bank: str, points: Sequence[Point], *, expect: Expect = ANY) -> list[PutOutcome]:
        return await self._run(WRITE, bank, lambda c: c.put(bank, points, expect=expect))

    async def get(self, bank: str, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        return await self._run(READ, bank, lambda c: c.get(bank, ids, vectors=vectors))

    async def search(self, bank: str, legs: Sequence[Leg]) -> list[list[Found]]:
        return await self._run(READ, bank, lambda c: c.search(bank, legs))

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
        order: dict[str, Any] = {"order_by": order_by, "descending": descending, "after": after, "limit": limit}
        return await self._run(READ, bank, lambda c: c.scan(bank, where, **order))

    async def count(self, bank: str, where: Where = ()) -> int:
        return await self._run(READ, bank, lambda c: c.count(bank, where))

    async def facet(self, bank: str, key: str, where: Where = (), *, limit: int = 1000) -> dict[str, int]:
        return await self._run(READ, bank, lambda c: c.facet(bank, key, where, limit=limit))

    async def tenants(self, where: Where, *, limit: int = 1000) -> dict[str, int]:
        checks.check_limit(limit)
        named = f"SELECT DISTINCT bank FROM {self._spec.name}"
        banks = await self._database.run(READ, lambda db: [bank for (bank,) in db.execute(named)])
        held = {bank: await self.count(bank, where) for bank in sorted(banks)}
        return {bank: n for bank, n in held.items() if n}

    async def patch(self, bank: str, id: str, changes: Mapping[str, Any], *, expect: int) -> bool:
        return await self._run(WRITE, bank, lambda c: c.patch(bank, id, changes, expect=expect))

    async def give_vector(self, bank: str, id: str, dense: Vector, changes: Mapping[str, Any], *, expect: int) -> bool:
        return await self._run(WRITE, bank, lambda c: c.give_vector(bank, id, dense, changes, expect=expect))

    async def delete(self, bank: str, ids: Sequence[str]) -> int:
        return await self._run(WRITE, bank, lambda c: c.delete(bank, ids))

    async def flush(self) -> None:
        await self._run(READ, "", lambda c: c.flush())

    async def scrub(self) -> bool:
        return False

    async def close(self) -> None:
        await self._database.close()


class SharedStorage:
    """`Storage` over one file. The connection is shared by both collections."""

    def __init__(self, database: _Database, specs: Mapping[str, CollectionSpec]) -> None:
        self._database = database
        self.memories: VectorStore = SharedCollection(database, specs["memories"])
        self.observations: VectorStore = SharedCollection(database, specs["observations"])

    async def describe(self) -> dict[str, str]:
        return {"store": "shared", "where": str(self._database.path)}

    async def close(self) -> None:
        await self._database.close()


async def open_shared(*, folder: Path, specs: Sequence[CollectionSpec]) -> SharedStorage:
    """The file in the folder, made where it is missing. Raises WrongEmbedder; StoreUnavailable where it cannot be opened."""
    named = checks.check_specs(specs)
    with _translated():
        database = _Database(folder / FILE)
    try:
        await database.run(WRITE, lambda db: _make(db, specs[0]))
    except BaseException:
        await database.close()
        raise
    return SharedStorage(database, named)


def _make(db: sqlite3.Connection, spec: CollectionSpec) -> None:
    for statement in TABLES:
        db.execute(statement)
    wanted = (spec.embedder, spec.dimension)
    made = db.execute("SELECT embedder, dimension FROM made").fetchone()
    if made is None:
        db.execute("INSERT INTO made VALUES (?, ?)", wanted)
    elif made != wanted:
        raise WrongEmbedder(f"made with {made[0]}, not with {spec.embedder}; use the same embedder")
