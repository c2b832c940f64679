"""Engines for the two databases: SQLite in a file or in memory, PostgreSQL. All that differs between them stands here."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Float, cast, create_engine, event, extract, func, make_url, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import StaticPool
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from consolidator.errors import InvalidSettings, MissingProvider

Clock = Callable[[Connection], float]

PRAGMAS = (
    "PRAGMA busy_timeout=30000",
    "PRAGMA secure_delete=ON",
    "PRAGMA foreign_keys=ON",
)
# for one transaction each, so that nothing is left on a connection that a pooler hands to somebody else
LIMITS = {
    "idle_in_transaction_session_timeout": "5s",  # a client that was stopped in its transaction is thrown out of it
    "lock_timeout": "5s",
    "statement_timeout": "10s",
    "synchronous_commit": "on",  # a token that the server forgot in a crash would be given out twice
}
WRITERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """light: for writes that may be lost with the power, but not with the process. alone: there is one connection only."""

    writing: Engine
    light: Engine
    reading: Engine
    clock: Clock
    threads: int = 1
    alone: bool = False


def backend(url: str, now: Callable[[], float]) -> Backend:
    """Raises InvalidSettings, and MissingProvider where PostgreSQL's driver is not installed."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidSettings(
            "ledger.url is no database URL, such as postgresql://user:password@host/database; in the password, write : / and @"
            " as %3A, %2F and %40"
        ) from None  # its text may hold a part of the password
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return _sqlite(parsed, now)
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return _postgres(parsed.set(drivername="postgresql+psycopg"))
    raise InvalidSettings(
        f'ledger.url names "{parsed.drivername}"; the ledger is kept in sqlite:///PATH or postgresql://user:password@host/database'
    )


def _sqlite(url: URL, now: Callable[[], float]) -> Backend:
    in_memory = url.database in (None, "", ":memory:")
    pool: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {}
    engine = create_engine(url, hide_parameters=True, connect_args={"check_same_thread": False}, **pool)
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    light, reading = engine.execution_options(light=True), engine.execution_options(reading=True)
    return Backend(writing=engine, light=light, reading=reading, clock=lambda db: now(), alone=in_memory)


def _on_sqlite_connect(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # else the driver opens no transaction for a SELECT, and updates are lost
    for pragma in PRAGMAS:
        connection.execute(pragma)
    _write_ahead(connection)


@retry(
    retry=retry_if_exception(lambda error: isinstance(error, sqlite3.OperationalError) and "locked" in str(error)),
    wait=wait_random(0.005, 0.05), stop=stop_after_delay(30), reraise=True,
)
def _write_ahead(connection: sqlite3.Connection) -> None:
    """Where several open a new file at once, this one statement does not wait for the others."""
    connection.execute("PRAGMA journal_mode=WAL")


def _on_sqlite_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("reading"):
        connection.exec_driver_sql("BEGIN")
        return
    # a light commit waits for no disk; the next one that does takes it along
    connection.exec_driver_sql(f"PRAGMA synchronous={'NORMAL' if options.get('light') else 'FULL'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _postgres(url: URL) -> Backend:
    defaults = {"connect_timeout": "5", "application_name": "consolidator"}
    told = {name: value for name, value in defaults.items() if name not in url.query}
    try:
        engine = create_engine(
            url, hide_parameters=True, pool_pre_ping=True, pool_size=WRITERS + 1, max_overflow=0,  # one for the heartbeats
            connect_args={**told, "prepare_threshold": None}, use_native_hstore=False,  # both would need a session of our own
        )
    except ImportError as error:
        raise MissingProvider("a ledger in PostgreSQL needs: pip install 'consolidator[postgres]'") from error
    event.listen(engine, "begin", _on_postgres_begin)
    reading = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)  # its SELECTs agree
    return Backend(writing=engine, light=engine, reading=reading, clock=_postgres_clock, threads=WRITERS)


def _on_postgres_begin(connection: Connection) -> None:
    connection.execute(SET_LIMITS)


SET_LIMITS = select(*(func.set_config(name, value, True) for name, value in LIMITS.items()))
SECONDS = select(cast(extract("epoch", func.clock_timestamp()), Float(53)))


def _postgres_clock(db: Connection) -> float:
    return db.execute(SECONDS).scalar_one()
