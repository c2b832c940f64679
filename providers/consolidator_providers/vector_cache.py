"""Vectors of texts that were embedded before, found by the text's digest; the texts themselves are never kept.

A cache can always be lost: whatever is wrong with its file, embedding goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import sqlite3
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from consolidator.errors import EmbedderUnavailable, StoreError
from consolidator.models import Vector
from consolidator.ports import Embedder

FILE_ROWS = 200_000  # 384 numbers each: about 350 MB
MEMORY_ROWS = 10_000
UNSURE_ROWS = 5_000  # the newest; what came before them was long kept, or given up
_ASKED_AT_ONCE = 500  # SQLite binds no more than 999 values in its older builds
_APPLICATION = 0x436F6E56  # "ConV", in the file's header: a database without it is somebody else's

T = TypeVar("T")
log = logging.getLogger(__name__)


class Vectors(Protocol):
    """Float32 bytes by digest; bounded."""

    key: bytes  # digests are keyed: a plain hash of a short sentence can be guessed

    def read(self, digests: Sequence[bytes]) -> dict[bytes, bytes]: ...

    def write(self, rows: Mapping[bytes, bytes]) -> None: ...

    def drop(self, digests: Sequence[bytes]) -> None: ...

    def keep(self) -> None: ...  # what was written outlasts the process

    def close(self) -> None: ...


class MemoryVectors:
    """In the process; the least recently used go first."""

    def __init__(self, rows: int = MEMORY_ROWS) -> None:
        self.key = secrets.token_bytes(32)
        self._rows = rows
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()

    def read(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        found = {digest: self._kept[digest] for digest in digests if digest in self._kept}
        for digest in found:
            self._kept.move_to_end(digest)
        return found

    def write(self, rows: Mapping[bytes, bytes]) -> None:
        self._kept.update(rows)
        while len(self._kept) > self._rows:
            self._kept.popitem(last=False)

    def drop(self, digests: Sequence[bytes]) -> None:
        for digest in digests:
            self._kept.pop(digest, None)

    def keep(self) -> None:
        return None

    def close(self) -> None:
        self._kept.clear()


class VectorCache:
    """In a SQLite file; the oldest go first. Used by one thread. Raises sqlite3.Error.

    What was dropped is overwritten in the file and its log, so that no bytes of it stay behind. Of what was written last by a
    process that died nobody knows whether its text was ever kept, so nobody could have it forgotten: that is dropped too.
    """

    def __init__(self, path: Path, rows: int = FILE_ROWS) -> None:
        self._rows = rows
        self._writer = secrets.token_bytes(8)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._base = sqlite3.connect(path, isolation_level=None, timeout=5)
        try:
            self.key = self._prepare()
        except BaseException:
            self._base.close()
            raise

    def _prepare(self) -> bytes:
        (mark,) = self._base.execute("PRAGMA application_id").fetchone()
        (tables,) = self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and mark != _APPLICATION:
            raise ForeignFile
        alone = self._is_alone()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON", f"application_id={_APPLICATION}"):
            self._base.execute(f"PRAGMA {pragma}").fetchall()
        self._base.execute("CREATE TABLE IF NOT EXISTS vectors (digest BLOB PRIMARY KEY, vector BLOB NOT NULL)")
        self._base.execute("CREATE TABLE IF NOT EXISTS unsure (digest BLOB PRIMARY KEY, writer BLOB NOT NULL)")
        self._base.execute("CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY CHECK (id = 1), key BLOB NOT NULL)")
        self._base.execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", (secrets.token_bytes(32),))
        if alone and (left := [digest for (digest,) in self._base.execute("SELECT digest FROM unsure")]):
            self.drop(left)
        key: bytes = self._base.execute("SELECT key FROM secret").fetchone()[0]
        return key

    def _is_alone(self) -> bool:
        """Only who is alone with a file can take it out of WAL mode."""
        try:
            (mode,) = self._base.execute("PRAGMA journal_mode=DELETE").fetchone()
        except sqlite3.OperationalError:
            return False
        return bool(mode == "delete")

    def read(self, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for start in range(0, len(digests), _ASKED_AT_ONCE):
            asked = digests[start : start + _ASKED_AT_ONCE]
            marks = ",".join("?" * len(asked))
            found.update(self._base.execute(f"SELECT digest, vector FROM vectors WHERE digest IN ({marks})", asked))
        return found

    def write(self, rows: Mapping[bytes, bytes]) -> None:
        self._all("INSERT OR REPLACE INTO unsure VALUES (?, ?)", [(digest, self._writer) for digest in rows])
        self._all("INSERT OR REPLACE INTO vectors VALUES (?, ?)", list(rows.items()))
        self._base.execute("DELETE FROM unsure WHERE rowid <= (SELECT max(rowid) FROM unsure) - ?", (UNSURE_ROWS,))
        self._base.execute("DELETE FROM vectors WHERE rowid <= (SELECT max(rowid) FROM vectors) - ?", (self._rows,))

    def drop(self, digests: Sequence[bytes]) -> None:
        for table in ("vectors", "unsure"):
            self._all(f"DELETE FROM {table} WHERE digest = ?", [(digest,) for digest in digests])
        (busy, *_) = self._base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("the log could not be emptied")

    def keep(self) -> None:
        self._base.execute("DELETE FROM unsure WHERE writer = ?", (self._writer,))

    def close(self) -> None:
        self._base.close()

    def _all(self, statement: str, values: Sequence[tuple[bytes, ...]]) -> None:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            self._base.executemany(statement, values)
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")


class ForeignFile(sqlite3.Error):
    """The file is a database of something else; it is left alone."""


def open_vectors(path: Path | None, rows: int | None = None) -> Vectors:
    """The cache at `path`; a broken file is made anew; where no file can be had, one in memory. None: in memory."""
    if path is None:
        return MemoryVectors(rows or MEMORY_ROWS)
    try:
        return _open_or_renew(path, rows or FILE_ROWS)
    except (sqlite3.Error, OSError, StoreError) as error:
        log.warning("the cache of vectors cannot be used (%s)", type(error).__name__, extra={"action": "vector_cache.off"})
        return MemoryVectors()


def _open_or_renew(path: Path, rows: int) -> Vectors:
    try:
        return VectorCache(path, rows)
    except sqlite3.DatabaseError as error:
        if not is_broken(error):
            raise
        _remove(path)
        return VectorCache(path, rows)


def is_broken(error: sqlite3.Error) -> bool:
    """The file itself is damaged, rather than locked, full or out of reach."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)


def _remove(path: Path) -> None:
    try:
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            name.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"the cache of vectors cannot be removed: {path}") from error


def is_ours(path: Path) -> bool:
    """The file may hold vectors of ours; its header says so, and one that cannot be read is not ruled out."""
    try:
        with path.open("rb") as file:
            header = file.read(72)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return not header.startswith(b"SQLite format 3") or int.from_bytes(header[68:72], "big") == _APPLICATION


class CachedEmbedder:
    """Any embedder, asked only for texts that it has not embedded before; see `ports.Embedder`.

    `path` None keeps vectors in memory. Numbers come back at float32 precision, the same ones whether cached or fresh.
    """

    def __init__(self, embedder: Embedder, path: Path | None = None, *, rows: int | None = None) -> None:
        self.name = embedder.name
        self.dimension = embedder.dimension
        self._embedder = embedder
        self._path = path
        self._rows = rows
        self._vectors: Vectors | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vector-cache")
        self._closed = False
        self._under_way = 0
        self._forgotten: set[str] = set()  # while texts are being embedded that may be among them

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        if self._closed:
            raise EmbedderUnavailable("the embedder is closed")
        self._under_way += 1
        try:
            return await self._embed(texts)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._forgotten.clear()

    async def forget(self, texts: Sequence[str]) -> None:
        """Remove these texts' vectors, also those under way, and their bytes. Raises StoreError if that cannot be done."""
        if self._under_way:
            self._forgotten.update(texts)
        await self._off_loop(lambda: self._drop(texts))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._embedder.close()
        await self._off_loop(self._keep)
        await asyncio.to_thread(self._thread.shutdown)

    async def _embed(self, texts: Sequence[str]) -> list[Vector]:
        wanted = dict.fromkeys(texts)
        known = await self._off_loop(lambda: self._read(list(wanted)))
        missing = [text for text in wanted if text not in known]
        if missing:
            fresh = dict(zip(missing, map(_pack, await self._embedder.embed(missing)), strict=True))
            known |= fresh
            await self._off_loop(lambda: self._write(fresh))
        unpacked = {text: array("f", packed).tolist() for text, packed in known.items()}
        return [list(unpacked[text]) for text in texts]

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # From here on: in the cache's own thread.

    def _read(self, texts: Sequence[str]) -> dict[str, bytes]:
        try:
            vectors = self._open()
            digests = {self._digest(text): text for text in texts}
            found = vectors.read(list(digests))
        except sqlite3.Error as error:
            self._give_up(error)
            return {}
        return {digests[digest]: packed for digest, packed in found.items() if len(packed) == 4 * self.dimension}

    def _write(self, fresh: Mapping[str, bytes]) -> None:
        try:
            vectors = self._open()
            vectors.write({self._digest(text): packed for text, packed in fresh.items() if text not in self._forgotten})
        except sqlite3.Error as error:
            self._give_up(error)

    def _drop(self, texts: Sequence[str]) -> None:
        """Nothing may stay of what is to be forgotten: where rows cannot be removed, the whole file is."""
        try:
            vectors = self._open()
            vectors.drop([self._digest(text) for text in texts])
            if isinstance(vectors, VectorCache) or self._path is None or not is_ours(self._path):
                return
        except sqlite3.Error as error:
            self._give_up(error)
        self._shut()
        if self._path is not None:
            _remove(self._path)

    def _keep(self) -> None:
        try:
            if self._vectors is not None:
                self._vectors.keep()
        except sqlite3.Error as error:
            return self._give_up(error)
        self._shut()

    def _open(self) -> Vectors:
        if self._vectors is None:
            self._vectors = open_vectors(self._path, self._rows)
        return self._vectors

    def _digest(self, text: str) -> bytes:
        said = f"{self.name}\0{self.dimension}\0{text}".encode(errors="surrogatepass")
        return hashlib.blake2b(said, digest_size=20, key=self._open().key).digest()

    def _give_up(self, error: sqlite3.Error) -> None:
        """Go on without an answer; the next call opens the file again, or makes it anew."""
        log.warning("the cache of vectors failed (%s)", type(error).__name__, extra={"action": "vector_cache.failed"})
        self._shut()
        if self._path is not None and is_broken(error):
            with contextlib.suppress(StoreError):
                _remove(self._path)

    def _shut(self) -> None:
        vectors, self._vectors = self._vectors, None
        if vectors is not None:
            vectors.close()


def _pack(vector: Vector) -> bytes:
    return array("f", vector).tobytes()
