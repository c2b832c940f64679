"""The ledger in a relational database, through SQLAlchemy Core: SQLite in the folder."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, make_url, select, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from consolidator.errors import Conflict, ErasedMeanwhile, InvalidSettings, LeaseLost, LedgerError, NewerFormat, StaleVersion
from consolidator.models import Receipt
from consolidator.plans import Change, Entry, History, Intent, Lease, Parked, Tombstone
from consolidator_providers import ledger_rows as rows
from consolidator_providers import ledger_schema as t

log = logging.getLogger("consolidator.ledger")
T = TypeVar("T")

PLAN_COLUMNS = {"id", "bank", "kind", "by", "prompt_digest", "calls", "prompt_tokens", "reply_tokens", "created_at"}
PRAGMAS = (
    "PRAGMA busy_timeout=30000",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA secure_delete=ON",
    "PRAGMA foreign_keys=ON",
)


async def open_ledger(*, url: str) -> SqlLedger:
    """The ledger at a database URL, such as `sqlite:////folder/ledger.db`; its tables are made where they are missing."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        backend = parsed.get_backend_name()
        raise InvalidSettings(f'ledger.url names "{backend}"; this version keeps its ledger in SQLite: sqlite:///PATH')
    ledger = SqlLedger(_engine(parsed))
    await ledger.create()
    return ledger


def _engine(url: URL) -> Engine:
    in_memory = url.database in (None, "", ":memory:")
    pool: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {}
    engine = create_engine(url, connect_args={"check_same_thread": False}, **pool)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # else the driver opens no transaction for a SELECT, and updates are lost
    for pragma in PRAGMAS:
        connection.execute(pragma)


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("reading") else "BEGIN IMMEDIATE")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise LedgerError(f"the ledger's database failed: {type(error.__cause__ or error).__name__}") from error


class SqlLedger:
    """Each verb is one transaction, run on the ledger's own thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(reading=True)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._keys: dict[str, bytes] = {}

    async def _run(self, engine: Engine, job: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            with _translated(), engine.begin() as db:
                return job(db)

        # shielded: a cancelled caller must not see a commit as undone that was made
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, transaction))

    async def _write(self, job: Callable[[Connection], T]) -> T:
        return await self._run(self._engine, job)

    async def _read(self, job: Callable[[Connection], T]) -> T:
        return await self._run(self._reader, job)

    async def create(self) -> None:
        await self._write(_create)

    async def bank_key(self, bank: str) -> bytes:
        if bank not in self._keys:
            self._keys[bank] = await self._write(lambda db: _bank_key(db, bank))
        return self._keys[bank]

    async def banks(self) -> list[str]:
        return await self._read(lambda db: list(db.scalars(select(t.bank.c.id).order_by(t.bank.c.id))))

    async def claim(self, bank: str, owner: str, seconds: float) -> Lease | None:
        await self.bank_key(bank)
        now = time.time()
        free = (t.bank.c.lease_until < now) | (t.bank.c.owner == owner)
        taking = update(t.bank).where(t.bank.c.id == bank, free)
        taken = taking.values(owner=owner, token=t.bank.c.token + 1, lease_until=now + seconds).returning(t.bank.c.token)
        token = await self._write(lambda db: db.scalar(taken))
        return None if token is None else Lease(bank=bank, owner=owner, token=token)

    async def renew(self, lease: Lease, seconds: float) -> bool:
        longer = update(t.bank).where(*_held(lease)).values(lease_until=time.time() + seconds)
        return await self._write(lambda db: db.execute(longer).rowcount == 1)

    async def release(self, lease: Lease) -> None:
        freed = update(t.bank).where(*_held(lease)).values(lease_until=0.0, owner=None)
        await self._write(lambda db: db.execute(freed))

    async def commit(self, intent: Intent, lease: Lease) -> int:
        scrubbed = await self._write(lambda db: _commit(db, intent, lease))
        log.info("plan_frozen", extra={"action": "plan_frozen", "intent": intent.id, "kind": intent.kind})
        return scrubbed

    async def unfinished(self, bank: str) -> list[Intent]:
        unclosed = (t.intent.c.bank == bank, t.intent.c.state != "closed")
        query = select(t.intent.c.body).where(*unclosed).order_by(t.intent.c.seq)
        return await self._read(lambda db: [_thawed(db, body) for body in db.scalars(query).all() if body])

    async def mark_applied(self, intent_id: str) -> None:
        applied = update(t.intent).where(t.intent.c.id == intent_id, t.intent.c.state == "planned").values(state="applied")
        await self._write(lambda db: db.execute(applied))

    async def close_applied(self, bank: str) -> int:
        applied = update(t.intent).where(t.intent.c.bank == bank, t.intent.c.state == "applied")
        return await self._write(lambda db: db.execute(applied.values(state="closed", body=None)).rowcount)

    async def histories(self, bank: str, ids: Sequence[str]) -> list[History]:
        return await self._read(lambda db: rows.read_histories(db, bank, ids))

    async def resting_on(self, bank: str, memory_ids: Sequence[str]) -> list[str]:
        def job(db: Connection) -> list[str]:
            return sorted({i for part in rows.chunks(memory_ids) for i in db.scalars(rows.naming(bank, part))})

        return await self._read(job)

    async def journal(self, bank: str, *, observation_id: str | None = None, limit: int = 1000) -> list[Entry]:
        return await self._read(lambda db: rows.read_entries(db, bank, observation_id, limit))

    async def entomb(self, receipt: Receipt, memory_ids: Sequence[str]) -> None:
        def job(db: Connection) -> None:
            known = {stone.memory_id for stone in _tombstones(db, receipt.bank, memory_ids, open_only=False)}
            shared = {"bank": receipt.bank, "receipt": receipt.id, "open": True}
            rows.insert_all(db, t.tombstone, ({"memory": m, **shared} for m in memory_ids if m not in known))
            db.execute(insert(t.receipt), _receipt_row(receipt))

        await self._write(job)

    async def tombstones(self, bank: str, *, ids: Sequence[str] | None = None, open_only: bool = False) -> list[Tombstone]:
        return await self._read(lambda db: _tombstones(db, bank, ids, open_only=open_only))

    async def settle(self, receipt: Receipt) -> None:
        def job(db: Connection) -> None:
            db.execute(update(t.tombstone).where(t.tombstone.c.receipt == receipt.id).values(open=False))
            db.execute(update(t.receipt).where(t.receipt.c.id == receipt.id), _receipt_row(receipt))

        await self._write(job)

    async def receipts(self, bank: str, *, accepted_only: bool = False) -> list[Receipt]:
        query = select(t.receipt.c.body).where(t.receipt.c.bank == bank).order_by(t.receipt.c.at, t.receipt.c.id)
        query = query.where(t.receipt.c.state == "accepted") if accepted_only else query
        return await self._read(lambda db: [Receipt.model_validate_json(body) for body in db.scalars(query)])

    async def attempt_failed(
        self, bank: str, ids: Sequence[str], *, reason: str, reply: str, park_after: int, at: datetime
    ) -> list[Parked]:
        def job(db: Connection) -> list[Parked]:
            known = {row.memory_id: row for row in _parked(db, bank)}
            failed = [_failed_again(known.get(i), i, reason=reason, reply=reply, park_after=park_after, at=at) for i in ids]
            for row in failed:
                _save_parked(db, bank, row, known=row.memory_id in known)
            return failed

        return await self._write(job)

    async def attempts_cleared(self, bank: str, ids: Sequence[str]) -> None:
        def job(db: Connection) -> None:
            for part in rows.chunks(ids):
                db.execute(t.parked.delete().where(t.parked.c.bank == bank, t.parked.c.memory.in_(part)))

        await self._write(job)

    async def parked(self, bank: str) -> list[Parked]:
        return await self._read(lambda db: _parked(db, bank))

    async def spent(self, bank: str) -> dict[str, int]:
        return await self._read(lambda db: _spent(db, bank))

    async def texts(self, bank: str) -> list[tuple[str, str]]:
        return await self._read(lambda db: list(rows.read_texts(db, bank)))

    async def describe(self) -> dict[str, str]:
        return {"ledger": self._engine.url.render_as_string(hide_password=True), "schema": str(t.SCHEMA_VERSION)}

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown(wait=True)


def _create(db: Connection) -> None:
    if inspect(db).has_table("meta"):
        found = int(db.scalar(select(t.meta.c.value).where(t.meta.c.key == "schema")) or 0)
        if found > t.SCHEMA_VERSION:
            known = t.SCHEMA_VERSION
            raise NewerFormat(f"the ledger has format {found}, this version knows {known}; install a newer consolidator")
        return
    t.tables.create_all(db)
    db.execute(insert(t.meta), {"key": "schema", "value": str(t.SCHEMA_VERSION)})


def _bank_key(db: Connection, bank: str) -> bytes:
    key: bytes | None = db.scalar(select(t.bank.c.key).where(t.bank.c.id == bank))
    if key is None:
        key = secrets.token_bytes(32)
        db.execute(insert(t.bank), {"id": bank, "key": key, "token": 0, "lease_until": 0.0})
    return key


def _held(lease: Lease) -> tuple[Any, ...]:
    return (t.bank.c.id == lease.bank, t.bank.c.owner == lease.owner, t.bank.c.token == lease.token)


def _commit(db: Connection, intent: Intent, lease: Lease) -> int:
    if db.scalar(select(t.bank.c.token).where(*_held(lease)).with_for_update()) is None:
        raise LeaseLost
    if intent.kind != "forget" and _tombstones(db, intent.bank, intent.shown, open_only=False):
        raise ErasedMeanwhile
    _freeze(db, intent, lease)
    scrubbed = 0
    for change in intent.changes:
        _move_head(db, intent.bank, change)
        scrubbed += rows.write_change(db, intent, change)
    rows.write_entries(db, intent.entries)
    return scrubbed + rows.scrub(db, intent.bank, intent.erased)


def _freeze(db: Connection, intent: Intent, lease: Lease) -> None:
    fields = intent.model_dump(include=PLAN_COLUMNS)
    body = intent.model_dump_json(exclude={"changes": {"__all__": {"vector"}}})  # vectors stand with their versions
    try:
        db.execute(insert(t.intent), {**fields, "token": lease.token, "state": "planned", "body": body})
        rows.insert_all(db, t.use, ({"memory": mark.memory_id, "rev": mark.rev, "intent": intent.id} for mark in intent.marks))
    except IntegrityError as error:
        raise Conflict("this plan, or another one over the same memories, is in the ledger already") from error


def _move_head(db: Connection, bank: str, change: Change) -> None:
    row = rows.head_row(bank, change.after)
    if change.base_rev is None:
        try:
            db.execute(insert(t.observation), row)
        except IntegrityError as error:
            raise StaleVersion(f"observation {change.after.id} exists already") from error
        return
    at_base = (t.observation.c.id == change.after.id, t.observation.c.bank == bank, t.observation.c.rev == change.base_rev)
    if db.execute(update(t.observation).where(*at_base), row).rowcount != 1:
        raise StaleVersion(f"observation {change.after.id} is no longer at revision {change.base_rev}")


def _thawed(db: Connection, body: str) -> Intent:
    intent = Intent.model_validate_json(body)
    changes = tuple(change.model_copy(update={"vector": _vector(db, change)}) for change in intent.changes)
    return intent.model_copy(update={"changes": changes})


def _vector(db: Connection, change: Change) -> list[float]:
    of = (t.version.c.observation == change.after.id, t.version.c.number == change.after.version)
    return db.scalar(select(t.version.c.vector).where(*of)) or []


def _tombstones(db: Connection, bank: str, ids: Sequence[str] | None, *, open_only: bool) -> list[Tombstone]:
    query = select(t.tombstone).where(t.tombstone.c.bank == bank).order_by(t.tombstone.c.memory)
    query = query.where(t.tombstone.c.open) if open_only else query
    parts = [query] if ids is None else [query.where(t.tombstone.c.memory.in_(part)) for part in rows.chunks(ids)]
    found = [row for part in parts for row in db.execute(part)]
    return [Tombstone(memory_id=row.memory, receipt=row.receipt, open=row.open) for row in found]


def _receipt_row(receipt: Receipt) -> dict[str, Any]:
    return {"id": receipt.id, "bank": receipt.bank, "state": receipt.state, "body": receipt.model_dump_json(), "at": receipt.at}


def _parked(db: Connection, bank: str) -> list[Parked]:
    found = db.execute(select(t.parked).where(t.parked.c.bank == bank).order_by(t.parked.c.first_at, t.parked.c.memory))
    return [
        Parked(memory_id=row.memory, attempts=row.attempts, parked=row.parked, reason=row.reason, reply=row.reply or "",
               first_at=row.first_at, last_at=row.last_at)
        for row in found
    ]


def _failed_again(before: Parked | None, memory: str, *, reason: str, reply: str, park_after: int, at: datetime) -> Parked:
    attempts = before.attempts + 1 if before else 1
    return Parked(
        memory_id=memory, attempts=attempts, parked=attempts >= park_after, reason=reason, reply=reply,
        first_at=before.first_at if before else at, last_at=at,
    )


def _save_parked(db: Connection, bank: str, row: Parked, *, known: bool) -> None:
    fields = row.model_dump(exclude={"memory_id"})
    if known:
        db.execute(update(t.parked).where(t.parked.c.memory == row.memory_id), fields)
    else:
        db.execute(insert(t.parked), {**fields, "memory": row.memory_id, "bank": bank})


def _spent(db: Connection, bank: str) -> dict[str, int]:
    counted = (t.intent.c.calls, t.intent.c.prompt_tokens, t.intent.c.reply_tokens)
    sums = [func.coalesce(func.sum(column), 0) for column in counted]
    passes = select(func.count(), *sums).where(t.intent.c.bank == bank, t.intent.c.kind == "consolidate")
    count, calls, prompt, reply = tuple(db.execute(passes).one())
    plans = select(func.count()).select_from(t.intent).where(t.intent.c.bank == bank, t.intent.c.state == "planned")
    stones = select(func.count()).select_from(t.tombstone).where(t.tombstone.c.bank == bank, t.tombstone.c.open)
    return {
        "passes": count, "calls": calls, "prompt_tokens": prompt, "reply_tokens": reply,
        "open_plans": db.scalar(plans) or 0, "open_tombstones": db.scalar(stones) or 0,
    }
