"""The ledger in a relational database, through SQLAlchemy Core: SQLite in the folder, or PostgreSQL for a fleet."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, insert, select, update

from consolidator.models import Receipt
from consolidator.plans import Breaker, Entry, History, Intent, Lease, Parked, Spent, Standing, Tombstone
from consolidator.transcripts import Importance, Score, Transcript
from consolidator_providers import ledger_counts as counts
from consolidator_providers import ledger_migrations as migrations
from consolidator_providers import ledger_plans as plans
from consolidator_providers import ledger_queue as queue
from consolidator_providers import ledger_reading as reading
from consolidator_providers import ledger_rows as rows
from consolidator_providers import ledger_schema as t
from consolidator_providers import ledger_scores as scored
from consolidator_providers.ledger_beats import Heartbeats
from consolidator_providers.ledger_database import Database
from consolidator_providers.ledger_engines import backend

log = logging.getLogger("consolidator.ledger")


async def open_ledger(*, url: str, now: Callable[[], float] = time.time) -> SqlLedger:
    """The ledger at `sqlite:////folder/ledger.db` or `postgresql://user:password@host/database`; its tables are made where they
    are missing, and brought forward where they are older. Raises InvalidSettings, MissingProvider, NewerFormat, LedgerError.

    now: the clock of a SQLite ledger, in seconds; PostgreSQL has its own.
    """
    return await created(SqlLedger(Database(backend(url, now))))


async def created(ledger: L) -> L:
    """With its tables; closed where that fails."""
    try:
        await ledger.create()
    except BaseException:
        await ledger.close()
        raise
    return ledger


L = TypeVar("L", bound="SqlLedger")


class SqlLedger:
    """Each verb is one transaction, run on the database's own threads."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._clock = database.clock
        self._beats = Heartbeats(lambda lease, seconds: database.beat(lambda db: queue.renew(db, self._clock, lease, seconds)))
        self._keys: dict[str, bytes] = {}

    async def create(self) -> None:
        await self._db.write(migrations.bring_up)

    async def bank_key(self, bank: str) -> bytes:
        if bank not in self._keys:
            self._keys[bank] = await self._db.write(lambda db: _bank_key(db, bank))
        return self._keys[bank]

    async def banks(self) -> list[str]:
        return sorted(await self._db.read(lambda db: db.scalars(select(t.bank.c.id)).all()))

    async def unsettled(self) -> list[str]:
        plans = select(t.intent.c.bank).where(t.intent.c.state.in_(("planned", "applied")))
        erasures = select(t.tombstone.c.bank).where(t.tombstone.c.open)
        return sorted(await self._db.read(lambda db: db.scalars(plans.union(erasures)).all()))

    # the queue

    async def wake(self, bank: str, *, new: int, delay: float, at_most: float, batch: int, priority: int = 5) -> None:
        await self.bank_key(bank)
        asked = queue.Wake(new=new, delay=delay, at_most=at_most, batch=batch, priority=priority)
        await self._db.write_lightly(lambda db: queue.wake(db, self._clock, bank, asked))

    async def queue(self, limit: int = 100) -> list[Standing]:
        return await self._db.read(lambda db: queue.queue(db, self._clock, limit))

    async def standing(self, bank: str) -> Standing:
        return await self._db.read(lambda db: queue.standing(db, self._clock, bank))

    async def claim(self, bank: str, owner: str, seconds: float, *, over: Sequence[str] = ()) -> Lease | None:
        await self.bank_key(bank)
        return await self._db.write_lightly(lambda db: queue.claim(db, self._clock, bank, owner, seconds, over))

    async def renew(self, lease: Lease, seconds: float) -> bool:
        return await self._db.write_lightly(lambda db: queue.renew(db, self._clock, lease, seconds))

    def beating(self, lease: Lease, seconds: float, lost: Callable[[], None]) -> AbstractContextManager[None]:
        return self._beats.beating(lease, seconds, lost)

    async def reading(self, lease: Lease, ids: Sequence[str]) -> None:
        await self._db.write_lightly(lambda db: queue.reading(db, lease, ids))

    async def finish(self, lease: Lease, *, more: bool) -> None:
        await self._db.write_lightly(lambda db: queue.finish(db, self._clock, lease, more=more))

    async def postpone(self, lease: Lease, seconds: float, error: str, *, attempt: bool) -> None:
        await self._db.write_lightly(lambda db: queue.postpone(db, self._clock, lease, seconds, error, attempt=attempt))

    async def release(self, lease: Lease) -> None:
        await self._db.write_lightly(lambda db: queue.release(db, lease))

    async def pause(self, bank: str, reason: str | None) -> None:
        await self.bank_key(bank)
        await self._db.write(lambda db: queue.pause(db, self._clock, bank, reason))

    async def breaker(self, endpoint: str, step: Callable[[Breaker, float], Breaker]) -> tuple[Breaker, float]:
        return await self._db.write_lightly(lambda db: counts.breaker(db, self._clock, endpoint, step))

    async def spend(self, bank: str, day: str, spent: Spent) -> None:
        await self._db.write(lambda db: counts.spend(db, bank, day, spent))

    async def spent_on(self, bank: str, day: str) -> Spent:
        return await self._db.read(lambda db: reading.spent_on(db, bank, day))

    # plans

    async def commit(self, intent: Intent, lease: Lease) -> int:
        scrubbed = await self._db.write(lambda db: plans.commit(db, intent, lease))
        log.info("plan_frozen", extra={"action": "plan_frozen", "intent": intent.id, "kind": intent.kind})
        return scrubbed

    async def unfinished(self, bank: str) -> list[Intent]:
        return await self._db.read(lambda db: plans.unfinished(db, bank))

    async def mark_applied(self, intent_id: str) -> None:
        applied = update(t.intent).where(t.intent.c.id == intent_id, t.intent.c.state == "planned").values(state="applied")
        await self._db.write(lambda db: db.execute(applied))

    async def close_applied(self, bank: str) -> int:
        applied = update(t.intent).where(t.intent.c.bank == bank, t.intent.c.state == "applied")
        return await self._db.write(lambda db: db.execute(applied.values(state="closed", body=None)).rowcount)

    async def histories(self, bank: str, ids: Sequence[str]) -> list[History]:
        return await self._db.read(lambda db: rows.read_histories(db, bank, ids))

    async def resting_on(self, bank: str, memory_ids: Sequence[str]) -> list[str]:
        def job(db: Connection) -> list[str]:
            return sorted({i for part in rows.chunks(memory_ids) for i in db.scalars(rows.naming(bank, part))})

        return await self._db.read(job)

    async def journal(self, bank: str, *, observation_id: str | None = None, limit: int = 1000) -> list[Entry]:
        return await self._db.read(lambda db: rows.read_entries(db, bank, observation_id, limit))

    async def told_by_readers_of(self, bank: str, memory_ids: Sequence[str]) -> list[tuple[int, str | None, int | None]]:
        return await self._db.read(lambda db: rows.read_tellers(db, bank, memory_ids))

    # erasure

    async def entomb(self, receipt: Receipt, memory_ids: Sequence[str]) -> None:
        await self.bank_key(receipt.bank)
        await self._db.write(lambda db: plans.entomb(db, receipt, memory_ids))

    async def consumed_by(self, intent_id: str) -> list[str]:
        used = select(t.use.c.memory).where(t.use.c.intent == intent_id).order_by(t.use.c.memory)
        return await self._db.read(lambda db: list(db.scalars(used)))

    async def tombstones(self, bank: str, *, ids: Sequence[str] | None = None, open_only: bool = False) -> list[Tombstone]:
        return await self._db.read(lambda db: plans.tombstones(db, bank, ids, open_only=open_only))

    async def settle(self, receipt: Receipt) -> None:
        await self._db.write(lambda db: plans.settle(db, receipt))

    async def receipts(self, bank: str, *, accepted_only: bool = False) -> list[Receipt]:
        query = select(t.receipt.c.body).where(t.receipt.c.bank == bank).order_by(t.receipt.c.at, t.receipt.c.id)
        query = query.where(t.receipt.c.state == "accepted") if accepted_only else query
        return await self._db.read(lambda db: [Receipt.model_validate_json(body) for body in db.scalars(query)])

    async def unscrubbed(self) -> list[Receipt]:
        settled = select(t.receipt.c.body).where(t.receipt.c.state == "settled").order_by(t.receipt.c.at, t.receipt.c.id)
        return await self._db.read(lambda db: [Receipt.model_validate_json(body) for body in db.scalars(settled)])

    async def scrub(self) -> bool:
        return await self._db.scrub()

    # what is counted

    async def attempt_failed(
        self, bank: str, ids: Sequence[str], *, reason: str, reply: str, park_after: int, at: datetime, lease: Lease | None = None
    ) -> list[Parked]:
        await self.bank_key(bank)
        failure = counts.Failure(reason=reason, reply=reply, park_after=park_after, at=at)
        return await self._db.write(lambda db: counts.failed(db, bank, ids, failure, lease))

    async def hold(self, bank: str, ids: Sequence[str], *, reason: str, at: datetime, lease: Lease | None = None) -> None:
        await self.bank_key(bank)
        failure = counts.Failure(reason=reason, park_after=None, at=at)
        await self._db.write(lambda db: counts.failed(db, bank, ids, failure, lease))

    async def attempts_cleared(self, bank: str, ids: Sequence[str]) -> None:
        await self._db.write(lambda db: counts.cleared(db, bank, ids))

    async def parked(self, bank: str) -> list[Parked]:
        return await self._db.read(lambda db: counts.parked(db, bank))

    async def hand_out(self, bank: str, digests: Sequence[str], at: datetime, *, keep: int) -> None:
        await self.bank_key(bank)
        await self._db.write_lightly(lambda db: counts.hand_out(db, bank, digests, at, keep))

    async def handed_out(self, bank: str, digests: Sequence[str]) -> set[str]:
        return await self._db.read(lambda db: counts.handed_out(db, bank, digests))

    async def deleted_since(self, bank: str, since: datetime) -> int:
        return await self._db.read(lambda db: reading.deleted_since(db, bank, since))

    # importance

    async def keep_transcript(self, bank: str, transcript: Transcript) -> bool:
        await self.bank_key(bank)
        return await self._db.write(lambda db: scored.keep_transcript(db, bank, transcript))

    async def transcripts(self, bank: str, *, limit: int = 100) -> list[Transcript]:
        return await self._db.read(lambda db: scored.transcripts(db, bank, limit))

    async def unscored(self) -> list[str]:
        return await self._db.read(scored.unscored)

    async def transcript_scored(self, bank: str, transcript: Transcript) -> None:
        await self._db.write(lambda db: scored.transcript_scored(db, bank, transcript))

    async def keep_scores(
        self, bank: str, scores: Sequence[Score], step: Callable[[Importance | None, Score, str], Importance]
    ) -> list[Score]:
        await self.bank_key(bank)
        return await self._db.write(lambda db: scored.keep_scores(db, bank, scores, step))

    async def scores(
        self, bank: str, *, item: str | None = None, keys: Sequence[str] | None = None, limit: int = 100
    ) -> list[Score]:
        return await self._db.read(lambda db: scored.scores(db, bank, item, keys, limit))

    async def importances(self, bank: str, unit: str, items: Sequence[str] | None = None) -> dict[str, Importance]:
        return await self._db.read(lambda db: scored.importances(db, bank, unit, items))

    async def score_units(self, bank: str) -> dict[str, tuple[int, float]]:
        return await self._db.read(lambda db: scored.score_units(db, bank))

    async def scoring(self, bank: str) -> dict[str, int]:
        return await self._db.read(lambda db: scored.scoring(db, bank))

    # what stands there

    async def spent(self, bank: str) -> dict[str, int]:
        return await self._db.read(lambda db: reading.spent(db, bank))

    async def dump(self, bank: str) -> dict[str, list[dict[str, Any]]]:
        return await self._db.read(lambda db: reading.dump(db, bank))

    async def texts(self, bank: str) -> list[tuple[str, str]]:
        return await self._db.read(lambda db: list(reading.read_texts(db, bank)))

    async def describe(self) -> dict[str, str]:
        return {"ledger": self._db.place, "schema": str(t.SCHEMA_VERSION)}

    async def close(self) -> None:
        await asyncio.to_thread(self._beats.close)
        await self._db.close()


def _bank_key(db: Connection, bank: str) -> bytes:
    key: bytes | None = db.scalar(select(t.bank.c.key).where(t.bank.c.id == bank))
    if key is None:
        key = secrets.token_bytes(32)
        db.execute(insert(t.bank), {"id": bank, "key": key})
    return key
