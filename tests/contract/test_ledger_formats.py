"""A ledger of an older format is brought forward, with all that stood in it; what was open stays open."""

from __future__ import annotations

import asyncio
import sqlite3
from array import array
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, inspect

from consolidator.errors import LedgerError
from consolidator.models import MemoryState
from consolidator.plans import Intent, MemoryMark, Spent
from consolidator.testing.ledger_contract import AT, BANK, change, entry, intent, observation, receipt
from consolidator.testing.ledger_scores_contract import UNIT, measured, score, transcript
from consolidator_providers.ledger import open_ledger
from tests.postgres import PostgresServer

# as version 0.1 of the package made it
VERSION_1 = """
CREATE TABLE meta ("key" VARCHAR(32) NOT NULL, value TEXT NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE bank (id VARCHAR(128) NOT NULL, "key" BLOB NOT NULL, owner VARCHAR(64), token INTEGER NOT NULL,
    lease_until FLOAT NOT NULL, PRIMARY KEY (id));
CREATE TABLE intent (seq INTEGER NOT NULL, id VARCHAR(128) NOT NULL, bank VARCHAR(128) NOT NULL, token INTEGER NOT NULL,
    kind VARCHAR(16) NOT NULL, state VARCHAR(16) NOT NULL, body TEXT, "by" TEXT NOT NULL, prompt_digest VARCHAR(64) NOT NULL,
    calls INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, reply_tokens INTEGER NOT NULL, created_at DATETIME NOT NULL,
    PRIMARY KEY (seq), UNIQUE (id));
CREATE UNIQUE INDEX one_plan_a_bank ON intent (bank) WHERE state = 'planned';
CREATE INDEX intent_by_bank ON intent (bank, state);
CREATE TABLE use (memory VARCHAR(128) NOT NULL, rev INTEGER NOT NULL, intent VARCHAR(128) NOT NULL, PRIMARY KEY (memory, rev));
CREATE TABLE observation (id VARCHAR(128) NOT NULL, bank VARCHAR(128) NOT NULL, tags TEXT NOT NULL, rev INTEGER NOT NULL,
    version INTEGER NOT NULL, state VARCHAR(16) NOT NULL, confidence FLOAT NOT NULL, created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL, PRIMARY KEY (id));
CREATE INDEX observation_by_bank ON observation (bank, state);
CREATE TABLE evidence (observation VARCHAR(128) NOT NULL, memory VARCHAR(128) NOT NULL, position INTEGER NOT NULL,
    source TEXT NOT NULL, occurred_at DATETIME NOT NULL, since_version INTEGER NOT NULL, trust INTEGER NOT NULL,
    supports BOOLEAN NOT NULL, PRIMARY KEY (observation, memory));
CREATE INDEX evidence_by_memory ON evidence (memory);
CREATE TABLE version (observation VARCHAR(128) NOT NULL, number INTEGER NOT NULL, text TEXT, digest VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL, confidence FLOAT NOT NULL, change VARCHAR(32) NOT NULL, reason TEXT, "by" TEXT NOT NULL,
    intent VARCHAR(128) NOT NULL, vector BLOB, at DATETIME NOT NULL, PRIMARY KEY (observation, number));
CREATE TABLE journal (seq INTEGER NOT NULL, bank VARCHAR(128) NOT NULL, intent VARCHAR(128) NOT NULL, at DATETIME NOT NULL,
    action VARCHAR(32) NOT NULL, observation VARCHAR(128), version INTEGER, "before" TEXT, "after" TEXT, reason TEXT,
    "by" TEXT NOT NULL, digest VARCHAR(64) NOT NULL, PRIMARY KEY (seq));
CREATE INDEX journal_by_bank ON journal (bank, seq);
CREATE INDEX journal_by_observation ON journal (observation, version);
CREATE TABLE cites (seq INTEGER NOT NULL, memory VARCHAR(128) NOT NULL, role VARCHAR(8) NOT NULL,
    PRIMARY KEY (seq, memory, role));
CREATE INDEX cites_by_memory ON cites (memory);
CREATE TABLE tombstone (memory VARCHAR(128) NOT NULL, bank VARCHAR(128) NOT NULL, receipt VARCHAR(128) NOT NULL,
    open BOOLEAN NOT NULL, PRIMARY KEY (memory));
CREATE INDEX tombstone_by_bank ON tombstone (bank, open);
CREATE INDEX tombstone_by_receipt ON tombstone (receipt);
CREATE TABLE receipt (id VARCHAR(128) NOT NULL, bank VARCHAR(128) NOT NULL, state VARCHAR(16) NOT NULL, body TEXT NOT NULL,
    at DATETIME NOT NULL, PRIMARY KEY (id));
CREATE INDEX receipt_by_bank ON receipt (bank, state);
CREATE TABLE parked (memory VARCHAR(128) NOT NULL, bank VARCHAR(128) NOT NULL, attempts INTEGER NOT NULL,
    parked BOOLEAN NOT NULL, reason TEXT NOT NULL, reply TEXT, first_at DATETIME NOT NULL, last_at DATETIME NOT NULL,
    PRIMARY KEY (memory));
CREATE INDEX parked_by_bank ON parked (bank);
CREATE TABLE lineage (observation VARCHAR(128) NOT NULL, number INTEGER NOT NULL, memory VARCHAR(128) NOT NULL,
    role VARCHAR(8) NOT NULL, PRIMARY KEY (observation, number, memory, role),
    FOREIGN KEY(observation, number) REFERENCES version (observation, number));
CREATE INDEX lineage_by_memory ON lineage (memory);
INSERT INTO meta VALUES ('schema', '1');
"""
FORMATS = Path(__file__).parent / "formats"
KEY = bytes(range(32))
CLOSED = intent("i0", calls=2, prompt_tokens=100, reply_tokens=10)
OPEN = intent(
    "i1", change(observation()), marks=(MemoryMark(memory_id="m1", rev=0, state=MemoryState.DONE),), entries=(entry(),),
    calls=1, prompt_tokens=10, reply_tokens=1,
).model_copy(update={"created_at": AT + timedelta(days=1)})


def stamp(n: int = 0) -> str:
    return f"{AT + timedelta(days=n):%Y-%m-%d %H:%M:%S.%f}"


def old_body(plan: Intent) -> str:
    """A plan as it was frozen then: what came later is not in it."""
    body = plan.model_dump_json(exclude={"changes": {"__all__": {"vector": True, "after": {"contests"}}}})
    assert "contests" not in body
    return body


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder's ledger as a process that was killed has left it: leased, a plan frozen, memories that failed."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(VERSION_1)
        _fill(db)
    return path


def _fill(db: sqlite3.Connection) -> None:
    spent = [(plan.calls, plan.prompt_tokens, plan.reply_tokens) for plan in (CLOSED, OPEN)]
    _insert(db, "bank", (BANK, KEY, "dead", 7, 0.0), ("bob", bytes(32), None, 0, 0.0))
    _insert(
        db, "intent", (1, "i0", BANK, 6, "consolidate", "closed", None, "", "", *spent[0], stamp()),
        (2, "i1", BANK, 7, "consolidate", "planned", old_body(OPEN), "", "", *spent[1], stamp(1)),
        (3, "i2", BANK, 7, "forget", "closed", None, "", "", 0, 0, 0, stamp(1)),
    )
    _insert(db, "use", ("m1", 0, "i1"))
    _insert(db, "observation", ("o1", BANK, "[]", 0, 1, "live", 0.7, stamp(), stamp()))
    _insert(db, "evidence", ("o1", "m1", 0, "source of m1", stamp(), 1, 2, 1))
    vector = OPEN.changes[0].vector
    _insert(db, "version", ("o1", 1, "Alice likes tea.", "d", "live", 0.7, "create", "", "test", "i1", _floats(vector), stamp()))
    _insert(db, "lineage", ("o1", 1, "m1", "text"))
    _insert(db, "journal", (1, BANK, "i1", stamp(), "created", None, None, None, None, "", "test", "d"))
    _insert(db, "tombstone", ("m9", BANK, "r1", 1))
    _insert(db, "receipt", ("r1", BANK, "accepted", receipt("r1", "m9").model_dump_json(), stamp()))
    _insert(
        db, "parked", ("m2", BANK, 2, 0, "fault", "raw", stamp(), stamp(1)), ("m3", BANK, 5, 1, "fault", None, stamp(1), stamp(1))
    )


def _insert(db: sqlite3.Connection, table: str, *rows: tuple[Any, ...]) -> None:
    db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def _floats(vector: list[float]) -> bytes:
    return array("f", vector).tobytes()


async def test_all_that_stood_in_version_1_is_there(path: Path) -> None:
    ledger = await open_ledger(url=f"sqlite:///{path}")
    assert await ledger.bank_key(BANK) == KEY
    assert await ledger.unfinished(BANK) == [OPEN]
    (history,) = await ledger.histories(BANK, ["o1"])
    assert history.observation == observation()
    assert [(row.memory_id, row.state, row.attempts, row.reply) for row in await ledger.parked(BANK)] == [
        ("m2", "trying", 2, "raw"), ("m3", "parked", 5, ""),
    ]
    assert [stone.memory_id for stone in await ledger.tombstones(BANK, open_only=True)] == ["m9"]
    assert await ledger.spent_on(BANK, f"{AT:%Y-%m-%d}") == Spent(calls=2, prompt_tokens=100, reply_tokens=10)
    assert await ledger.spent(BANK) == {
        "passes": 2, "calls": 3, "prompt_tokens": 110, "reply_tokens": 11, "open_plans": 1, "open_tombstones": 1,
    }
    assert (await ledger.standing(BANK)).due_in is None
    assert await ledger.queue() == []
    await ledger.close()


async def test_what_was_open_in_version_1_goes_on(path: Path) -> None:
    ledger = await open_ledger(url=f"sqlite:///{path}")
    lease = await ledger.claim(BANK, "new", 60)
    assert lease is not None
    assert (lease.token, lease.reading) == (8, ())
    await ledger.wake(BANK, new=1, delay=0, at_most=30, batch=8)
    await ledger.mark_applied("i1")
    assert await ledger.close_applied(BANK) == 1
    later = observation(text="Alice likes green tea.", version=2, rev=1, contests="o7")
    await ledger.commit(intent("i3", change(later, base_rev=0)), lease)
    (history,) = await ledger.histories(BANK, ["o1"])
    assert (history.observation.contests, [v.text for v in history.versions]) == ("o7", ["Alice likes tea.", later.text])
    await ledger.hold(BANK, ["m2"], reason="a look", at=AT)
    await ledger.hand_out(BANK, ["d"], AT, keep=1)
    await ledger.close()


async def test_a_ledger_that_was_brought_forward_is_like_a_new_one(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    for place in (path, path, new):  # the second time there is nothing to do
        await (await open_ledger(url=f"sqlite:///{place}")).close()
    assert _shape(path) == _shape(new)


def _shape(path: Path) -> dict[str, Any]:
    """Columns with type, obligation and place in the key; indexes; the format."""
    with closing(sqlite3.connect(path)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {table: {row[1:4] + row[5:] for row in db.execute(f'PRAGMA table_info("{table}")')} for table in tables}
        indexes = set(db.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))
        return {"columns": columns, "indexes": indexes, "format": list(db.execute("SELECT * FROM meta"))}


async def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE handed (in_the_way INTEGER)")
    before = _shape(path)
    with pytest.raises(LedgerError, match="database failed"):
        await open_ledger(url=f"sqlite:///{path}")
    assert _shape(path) == before
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE handed")
    ledger = await open_ledger(url=f"sqlite:///{path}")
    assert len(await ledger.parked(BANK)) == 2
    await ledger.close()


# from version 2 on also in PostgreSQL


@pytest.fixture(params=["sqlite", "postgres"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Of a database in format 2, and of an empty one."""
    told = (FORMATS / f"2_{request.param}.sql").read_text()
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        old, new = server.new_schema(), server.new_schema()
    else:
        old, new = (f"sqlite:///{tmp_path / name}.db" for name in ("old", "new"))
    _run(old, [*told.split(";\n"), *VERSION_2_ROWS])
    return old, new


VERSION_2_ROWS = (
    f"INSERT INTO tombstone VALUES ('m9', '{BANK}', 'r1', {{yes}})",
    f"INSERT INTO handed VALUES ('{BANK}', 'd', 1, '{AT:%Y-%m-%d %H:%M:%S.%f}')",
    f"INSERT INTO spend VALUES ('{BANK}', '{AT:%Y-%m-%d}', 2, 100, 10)",
    *(f"INSERT INTO receipt VALUES ('{r.id}', '{BANK}', 'settled', '{r.model_dump_json()}', '{r.at:%Y-%m-%d %H:%M:%S}')"
      for r in (receipt(f"r{n}").model_copy(update={"digests": told}) for n, told in enumerate([("a", "b"), ("b",), ()]))),
)


def _run(url: str, statements: list[str]) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    yes = "true" if engine.dialect.name == "postgresql" else "1"
    with engine.begin() as db:
        for statement in filter(str.strip, statements):
            db.exec_driver_sql(statement.replace("{yes}", yes))


async def test_all_that_stood_in_version_2_is_there_and_importance_beside_it(urls: tuple[str, str]) -> None:
    ledger = await open_ledger(url=urls[0])
    assert [stone.memory_id for stone in await ledger.tombstones(BANK, open_only=True)] == ["m9"]
    assert await ledger.handed_out(BANK, ["d"]) == {"d"}
    assert await ledger.spent_on(BANK, f"{AT:%Y-%m-%d}") == Spent(calls=2, prompt_tokens=100, reply_tokens=10)
    assert await ledger.keep_transcript(BANK, transcript("t1", "m1"))
    assert await measured(ledger, score("m1"), score("m9")) == [score("m1")]
    assert await ledger.score_units(BANK) == {UNIT: (1, 0.5)}
    assert [row["digest"] for row in (await ledger.dump(BANK))["receipt_digest"]] == ["a", "b"]
    assert (await ledger.describe())["schema"] == "4"
    await ledger.close()


async def test_of_several_that_open_version_2_one_brings_it_forward(urls: tuple[str, str]) -> None:
    opened = await asyncio.gather(*(open_ledger(url=url) for url in (urls[0], urls[0], urls[0], urls[1])))
    for ledger in opened:
        await ledger.close()
    assert _inspected(urls[0]) == _inspected(urls[1])


def _inspected(url: str) -> dict[str, Any]:
    """Columns with type, obligation and default, keys and indexes of every table."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    with engine.connect() as db:
        seen = inspect(db)
        shape: dict[str, Any] = {"format": db.exec_driver_sql("SELECT value FROM meta").scalar()}
        for table in sorted(seen.get_table_names()):
            columns = {c["name"]: (str(c["type"]), c["nullable"], _default(c["default"])) for c in seen.get_columns(table)}
            indexes = {(i["name"], tuple(i["column_names"]), i["unique"]) for i in seen.get_indexes(table)}
            shape[table] = columns, seen.get_pk_constraint(table)["constrained_columns"], indexes
        return shape


def _default(told: str | None) -> str | None:
    """Without the schema that a sequence stands in."""
    return "a sequence" if told and told.startswith("nextval") else told
