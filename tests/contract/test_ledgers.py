"""The ledger's contract, on SQLite in a file and in memory, and on PostgreSQL."""

from __future__ import annotations

import asyncio
import builtins
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from consolidator.errors import InvalidSettings, LedgerError, MissingProvider, NewerFormat
from consolidator.ports import Ledger
from consolidator.testing.ledger_contract import BANK, LedgerContract, change, intent, observation
from consolidator.testing.ledger_erasure_contract import LedgerErasureContract
from consolidator.testing.ledger_queue_contract import LedgerQueueContract
from consolidator.testing.ledger_scores_contract import UNIT, LedgerScoresContract, measured, score, transcript
from consolidator_providers.ledger import open_ledger
from consolidator_providers.ledger_alone import open_alone_ledger
from consolidator_providers.ledger_schema import SCHEMA_VERSION
from tests.postgres import PASSWORD, PostgresServer, execute

WORKERS, ROUNDS = 4, 12
# stands before the server's own on the search path, so that tests can move the clock that all clients go by
MOVABLE_CLOCK = """
CREATE TABLE moved (by float8 NOT NULL);
INSERT INTO moved VALUES (0);
CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT pg_catalog.clock_timestamp() + make_interval(secs => (SELECT by FROM moved))'
"""


class MovableClock:
    def __init__(self) -> None:
        self.moved = 0.0

    def __call__(self) -> float:
        return time.time() + self.moved

    def later(self, seconds: float) -> None:
        self.moved += seconds


@pytest.fixture
def moving() -> MovableClock:
    return MovableClock()


class TestSqliteFile(LedgerContract, LedgerQueueContract, LedgerScoresContract, LedgerErasureContract):
    @pytest.fixture
    async def ledger(self, tmp_path: Path, moving: MovableClock) -> AsyncIterator[Ledger]:
        opened = await open_ledger(url=f"sqlite:///{tmp_path / 'ledger.db'}", now=moving)
        yield opened
        await opened.close()

    @pytest.fixture
    def later(self, moving: MovableClock) -> Callable[[float], None]:
        return moving.later


class TestSqliteMemory(TestSqliteFile):
    @pytest.fixture
    async def ledger(self, moving: MovableClock) -> AsyncIterator[Ledger]:
        opened = await open_ledger(url="sqlite://", now=moving)
        yield opened
        await opened.close()


class TestAlone(TestSqliteFile):
    """With tombstones remembered."""

    @pytest.fixture
    async def ledger(self, tmp_path: Path, moving: MovableClock) -> AsyncIterator[Ledger]:
        opened = await open_alone_ledger(url=f"sqlite:///{tmp_path / 'ledger.db'}", now=moving)
        yield opened
        await opened.close()


class TestPostgres(LedgerContract, LedgerQueueContract, LedgerScoresContract, LedgerErasureContract):
    @pytest.fixture
    async def ledger(self, postgres_url: str) -> AsyncIterator[Ledger]:
        execute(postgres_url, MOVABLE_CLOCK)
        opened = await open_ledger(url=postgres_url)
        yield opened
        await opened.close()

    @pytest.fixture
    def later(self, postgres_url: str) -> Callable[[float], None]:
        return lambda seconds: execute(postgres_url, f"UPDATE moved SET by = by + {seconds}")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where several ledgers, or several processes, meet."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'ledger.db'}"


async def test_what_was_committed_is_there_after_opening_again(url: str) -> None:
    first = await open_ledger(url=url)
    key = await first.bank_key(BANK)
    lease = await first.claim(BANK, "one", 60)
    assert lease is not None
    plan = intent("i1", change(observation()))
    await first.commit(plan, lease)
    await first.close()
    second = await open_ledger(url=url)
    assert await second.bank_key(BANK) == key
    assert await second.unfinished(BANK) == [plan]
    await second.close()


async def test_ledgers_that_are_opened_at_once_share_tables_keys_and_leases(url: str) -> None:
    ledgers = await asyncio.gather(*(open_ledger(url=url) for _ in range(4)))
    assert len(set(await asyncio.gather(*(ledger.bank_key(BANK) for ledger in ledgers)))) == 1
    claimed = await asyncio.gather(*(ledger.claim(BANK, f"owner {n}", 60) for n, ledger in enumerate(ledgers)))
    assert sum(lease is not None for lease in claimed) == 1
    for ledger in ledgers:
        await ledger.close()


async def test_four_processes_lose_no_update(url: str) -> None:
    """Each reads what stands there, and writes what follows from it, in turns that nothing but the ledger keeps."""
    racers = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.contract.ledger_racer", url, f"owner {n}", str(ROUNDS))
        for n in range(WORKERS)
    ]
    assert await asyncio.gather(*(racer.wait() for racer in racers)) == [0] * WORKERS
    ledger = await open_ledger(url=url)
    total = WORKERS * ROUNDS
    (history,) = await ledger.histories(BANK, ["o1"])
    assert (history.observation.rev, len(history.versions)) == (total - 1, total)
    assert (await ledger.breaker("endpoint", lambda before, now: before))[0].rest == total
    assert (await ledger.spent(BANK))["calls"] == total
    assert (await ledger.standing(BANK)).waiting == total
    assert [row.attempts for row in await ledger.parked(BANK)] == [total]
    await ledger.close()


async def test_of_two_processes_that_measure_the_same_each_measurement_moves_once(url: str) -> None:
    racers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.contract.score_racer", url, str(ROUNDS), stdout=asyncio.subprocess.PIPE
        )
        for _ in range(2)
    ]
    told = [out.decode() for out, _ in await asyncio.gather(*(racer.communicate() for racer in racers))]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert sum(map(int, told)) == 2 * ROUNDS
    ledger = await open_ledger(url=url)
    assert len(await ledger.scores(BANK)) == 2 * ROUNDS
    moved = await ledger.importances(BANK, UNIT)
    assert {item: (it.updates, it.tokens) for item, it in moved.items()} == {
        "m1": (ROUNDS, 10 * ROUNDS), "m2": (2 * ROUNDS, 20 * ROUNDS),
    }
    await ledger.close()


async def test_a09_what_was_measured_is_there_after_a_restart(url: str) -> None:
    first = await open_ledger(url=url)
    one = score("m1")
    await first.keep_transcript(BANK, transcript("t1", "m1"))
    await measured(first, one)
    second = await open_ledger(url=url)  # the first was not closed: a process that was killed closes nothing
    assert (await second.importances(BANK, UNIT))["m1"].last_scored == one.at
    assert await measured(second, one) == []
    assert [it.id for it in await second.transcripts(BANK)] == ["t1"]
    for ledger in (first, second):
        await ledger.close()


async def test_a10_a_ledger_that_cannot_be_read_is_an_error_and_not_never_scored(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = await open_ledger(url=f"sqlite:///{path}")
    await measured(ledger, score("m1"))
    with closing(sqlite3.connect(path)) as db:
        for table in ("importance", "score", "transcript"):
            db.execute(f"alter table {table} rename to {table}_away")
    asked = (
        ledger.importances(BANK, UNIT, ["m1"]), ledger.scores(BANK, item="m1"), ledger.transcripts(BANK),
        ledger.score_units(BANK), ledger.scoring(BANK), measured(ledger, score("m2")),
    )
    for reading in asked:
        with pytest.raises(LedgerError, match="database failed"):
            await reading
    await ledger.close()


async def test_closing_waits_for_a_job_that_nobody_waits_for(postgres_url: str) -> None:
    """Its connection would come back to a pool that was emptied, and stay open."""
    ledger, begun, gate, used = await open_ledger(url=postgres_url), threading.Event(), threading.Event(), list[Any]()

    def job(db: Connection) -> None:
        used.append(db.connection.driver_connection)
        begun.set()
        gate.wait(30)

    working = asyncio.create_task(ledger._db.write(job))
    assert await asyncio.to_thread(begun.wait, 30)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    closing = asyncio.create_task(ledger.close())
    await asyncio.wait([closing], timeout=0.2)
    assert not closing.done()
    gate.set()
    await closing
    assert [connection.closed for connection in used] == [True]


async def test_a_newer_format_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await (await open_ledger(url=f"sqlite:///{path}")).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("update meta set value = '99'")
    with pytest.raises(NewerFormat, match=f"format 99, this version knows {SCHEMA_VERSION}"):
        await open_ledger(url=f"sqlite:///{path}")


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("this is no database, but somebody's notes about something " * 40)
    with pytest.raises(LedgerError, match="database failed"):
        await open_ledger(url=f"sqlite:///{path}")
    assert path.read_text().startswith("this is no database")


@pytest.mark.parametrize("url", ["mysql://localhost/x", "postgresql+asyncpg://localhost/x", "sqlite+aiosqlite://"])
async def test_another_database_is_refused_with_what_would_be_right(url: str) -> None:
    with pytest.raises(InvalidSettings, match=r"sqlite:///PATH or postgresql://"):
        await open_ledger(url=url)


@pytest.mark.parametrize("url", ["", "hunter2", "postgresql://me:hunter2@localhost:port/x"])
async def test_what_is_no_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidSettings, match="no database URL") as refused:
        await open_ledger(url=url)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_a_missing_driver_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "psycopg":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingProvider, match=r"pip install 'consolidator\[postgres\]'"):
        await open_ledger(url="postgresql://localhost/x")


async def test_a_database_error_is_met_again_at_the_next_beat(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "ledger.db"
    ledger = await open_ledger(url=f"sqlite:///{path}")
    lost = threading.Event()
    lease = await ledger.claim(BANK, "one", 60)
    assert lease is not None
    with closing(sqlite3.connect(path)) as db, ledger.beating(lease, 0.2, lost.set):
        db.execute("alter table bank rename to away")
        await _said(caplog, "heartbeat_failed")
        db.execute("alter table away rename to bank")
        assert not lost.is_set()
        with db:
            db.execute("update bank set token = token + 1")
        assert await asyncio.to_thread(lost.wait, 10)
    await ledger.close()
    with pytest.raises(LedgerError, match="closed"), ledger.beating(lease, 60, lost.set):
        pass


async def _said(caplog: pytest.LogCaptureFixture, action: str) -> None:
    async with asyncio.timeout(10):
        while action not in {getattr(record, "action", None) for record in caplog.records}:  # noqa: ASYNC110 (a thread says it)
            await asyncio.sleep(0.01)


class TestPostgresAway:
    """A server that is not there, or not any more."""

    @pytest.fixture
    async def ledger(self, postgres_url: str) -> AsyncIterator[Ledger]:
        opened = await open_ledger(url=postgres_url.replace("postgresql://", "postgresql+psycopg://"))
        yield opened
        await opened.close()

    @pytest.fixture
    def stopped(self, postgres_server: PostgresServer) -> Iterator[PostgresServer]:
        yield postgres_server
        if not postgres_server.running:
            postgres_server.start()

    async def test_the_place_is_told_without_the_password(self, ledger: Ledger) -> None:
        told = await ledger.describe()
        assert told["ledger"].startswith("postgresql+psycopg://tests:***@127.0.0.1")
        assert PASSWORD not in str(told)

    async def test_a_wrong_password_is_told_and_not_repeated(self, postgres_url: str) -> None:
        with pytest.raises(LedgerError, match="password authentication failed") as failed:
            await open_ledger(url=postgres_url.replace(PASSWORD, "hunter2"))
        assert "hunter2" not in str(failed.value)

    async def test_a_server_that_is_away_is_an_error_and_its_return_heals(self, ledger: Ledger, stopped: PostgresServer) -> None:
        key = await ledger.bank_key(BANK)
        stopped.stop()
        with pytest.raises(LedgerError, match="connection") as failed:
            await ledger.standing(BANK)
        assert PASSWORD not in str(failed.value)
        stopped.start()
        assert await ledger.banks() == [BANK]
        lease = await ledger.claim(BANK, "one", 60)
        assert lease is not None
        assert await ledger.bank_key(BANK) == key

    async def test_a_heartbeat_outlives_a_restart(self, ledger: Ledger, postgres_url: str, stopped: PostgresServer) -> None:
        lost = threading.Event()
        lease = await ledger.claim(BANK, "one", 60)
        assert lease is not None
        with ledger.beating(lease, 0.4, lost.set):
            stopped.restart()
            assert (await ledger.standing(BANK)).holder == "one"
            assert not lost.is_set()
            execute(postgres_url, "UPDATE bank SET owner = 'two', token = token + 1")
            assert await asyncio.to_thread(lost.wait, 10)

    async def test_what_a_row_holds_is_not_in_the_error(self, ledger: Ledger) -> None:
        lease = await ledger.claim(BANK, "one", 60)
        assert lease is not None
        with pytest.raises(LedgerError) as failed:
            await ledger.commit(intent("i1", change(observation(text="a secret\0of Alice"))), lease)
        assert "secret" not in str(failed.value)
        with pytest.raises(LedgerError) as failed:
            await ledger.commit(intent("i1", change(observation(tags=frozenset("x"), contests="secret" * 100))), lease)
        assert "secret" not in str(failed.value)
        assert await ledger.unfinished(BANK) == []

    async def test_limits_are_set_for_a_transaction_alone(self, ledger: Ledger) -> None:
        """Nothing is set for the session, so that a pooler may hand its connection to others."""
        told = await ledger._db.write(lambda db: _settings(db))  # type: ignore[attr-defined]
        assert told == ["5s", "5s", "10s", "on", "read committed", "off"]
        told = await ledger._db.read(lambda db: _settings(db))  # type: ignore[attr-defined]
        assert told[4:] == ["repeatable read", "on"]
        with ledger._db._backend.writing.connect().execution_options(isolation_level="AUTOCOMMIT") as plain:  # type: ignore[attr-defined]
            assert plain.exec_driver_sql("SHOW lock_timeout").scalar() == "0"


def _settings(db: Any) -> list[str]:
    names = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout", "synchronous_commit")
    shown = (*names, "transaction_isolation", "transaction_read_only")
    return [str(db.exec_driver_sql(f"SHOW {name}").scalar()) for name in shown]
