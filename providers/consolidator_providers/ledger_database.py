"""The ledger's transactions: each a job on a connection, on threads of its own, repeated where only a race was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from consolidator.errors import LedgerError
from consolidator_providers.ledger_engines import Backend

T = TypeVar("T")
Job = Callable[[Connection], T]

TRIES = 5
RACES = {"40001", "40P01", "42P07", "42710"}  # not serialised, deadlock; a table, or an index, that is there already
UNREACHABLE = ("08", "28", "3D", "53", "57P")  # connection, authorisation, no such database, full, shut down


class Database:
    """Jobs on a connection, each one transaction."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._threads = ThreadPoolExecutor(max_workers=backend.threads, thread_name_prefix="ledger")
        self.clock = backend.clock  # seconds, the same for all who share the database

    async def write(self, job: Job[T]) -> T:
        return await self._run(self._backend.writing, job)

    async def write_lightly(self, job: Job[T]) -> T:
        """What may be lost with the power, but not with the process."""
        return await self._run(self._backend.light, job)

    async def read(self, job: Job[T]) -> T:
        return await self._run(self._backend.reading, job)

    def beat(self, job: Job[T]) -> T:
        """A light write from a thread of the caller's, on a connection of its own; where there is only one, behind the others."""
        if self._backend.alone:
            return self._threads.submit(_transaction, self._backend.light, job).result()
        return _transaction(self._backend.light, job)

    async def _run(self, engine: Engine, job: Job[T]) -> T:
        try:
            done = asyncio.get_running_loop().run_in_executor(self._threads, _transaction, engine, job)
        except RuntimeError as error:  # the threads take nothing more
            raise LedgerError("the ledger is closed") from error
        return await asyncio.shield(done)  # a cancelled caller must not see a commit as undone that was made

    async def scrub(self) -> bool:
        """Empty SQLite's log: in the file itself, what was deleted is overwritten at once. PostgreSQL's log and backups stay."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _scrubbed, self._backend.writing)

    @property
    def place(self) -> str:
        """The URL without its secrets."""
        url = self._backend.writing.url
        return (url if url.get_backend_name() == "sqlite" else url.set(query={})).render_as_string(hide_password=True)

    async def close(self) -> None:
        """What runs comes to its end first: a connection that comes back to a pool that was emptied would stay open."""
        await asyncio.to_thread(self._threads.shutdown, wait=True)
        await asyncio.to_thread(self._backend.writing.dispose)


def _scrubbed(engine: Engine) -> bool:
    sqlite = engine.url.get_backend_name() == "sqlite"
    with _translated(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        raw = db.connection.driver_connection
        assert raw is not None
        if not sqlite:
            raw.execute("VACUUM")
            return False
        (busy, *_) = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy


def _transaction(engine: Engine, job: Job[T]) -> T:
    with _translated():
        for _ in range(TRIES - 1):
            try:
                return _once(engine, job)
            except DBAPIError as error:
                if not _is_race(error):
                    raise
        return _once(engine, job)


def _once(engine: Engine, job: Job[T]) -> T:
    with engine.begin() as db:
        return job(db)


def _is_race(error: DBAPIError) -> bool:
    """Rolled back, and right when it is repeated: somebody else was faster, and what they made is seen now."""
    return isinstance(error, IntegrityError) or _state(error) in RACES


def _state(error: SQLAlchemyError) -> str:
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise LedgerError(f"the ledger's database failed: {_reason(error)}") from error


def _reason(error: SQLAlchemyError) -> str:
    """Never a value of a statement: what a server says of a row quotes it."""
    cause, state = error.__cause__ or error, _state(error)
    if isinstance(error, OperationalError | InterfaceError) and (not state or state.startswith(UNREACHABLE)):
        return str(cause).partition("\n")[0]
    return f"{type(cause).__name__} ({state})" if state else type(cause).__name__
