"""What is counted: failures of a memory, an endpoint's health, what calls cost, what recall gave out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from consolidator.errors import LeaseLost
from consolidator.plans import Breaker, Lease, Parked, Spent
from consolidator_providers import ledger_plans as plans
from consolidator_providers import ledger_queue as queue
from consolidator_providers import ledger_rows as rows
from consolidator_providers import ledger_schema as t
from consolidator_providers.ledger_engines import Clock


def parked(db: Connection, bank: str) -> list[Parked]:
    found = db.execute(select(t.parked).where(t.parked.c.bank == bank).order_by(t.parked.c.first_at, t.parked.c.memory))
    return [
        Parked(memory_id=row.memory, state=row.state, attempts=row.attempts, reason=row.reason, reply=row.reply or "",
               first_at=row.first_at, last_at=row.last_at)
        for row in found
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """park_after None: no failure, but a quarantine."""

    reason: str
    reply: str = ""
    park_after: int | None
    at: datetime

    def counted(self, before: Parked | None, memory: str) -> Parked:
        row = before or Parked(memory_id=memory, reason="", first_at=self.at, last_at=self.at)
        told: dict[str, Any] = {"state": "held", "reason": self.reason, "last_at": self.at}
        if self.park_after is not None:
            attempts = row.attempts + 1
            state = "parked" if attempts >= self.park_after else "trying"
            told |= {"state": state, "attempts": attempts, "reply": self.reply}
        return row.model_copy(update=told)


def failed(db: Connection, bank: str, ids: Sequence[str], failure: Failure, lease: Lease | None) -> list[Parked]:
    if queue.lock(db, *(queue.held(lease) if lease else (t.bank.c.id == bank,))) is None:
        raise LeaseLost
    gone = {stone.memory_id for stone in plans.tombstones(db, bank, ids, open_only=False)}
    known = {row.memory_id: row for row in parked(db, bank)}
    counted = [failure.counted(known.get(i), i) for i in dict.fromkeys(ids) if i not in gone]
    cleared(db, bank, [row.memory_id for row in counted])
    kept = ({**row.model_dump(exclude={"memory_id"}), "memory": row.memory_id, "bank": bank} for row in counted)
    rows.insert_all(db, t.parked, kept)
    return counted


def cleared(db: Connection, bank: str, ids: Sequence[str]) -> None:
    for part in rows.chunks(ids):
        db.execute(delete(t.parked).where(t.parked.c.bank == bank, t.parked.c.memory.in_(part)))


def breaker(
    db: Connection, clock: Clock, endpoint: str, step: Callable[[Breaker, float], Breaker]
) -> tuple[Breaker, float]:
    of = t.breaker.c.endpoint == endpoint
    body = db.scalar(select(t.breaker.c.body).where(of).with_for_update())
    now = clock(db)
    after = step(Breaker(endpoint=endpoint) if body is None else Breaker.model_validate(body), now)
    values: dict[str, Any] = {"body": after.model_dump(mode="json")}
    if body is None:
        db.execute(insert(t.breaker), {"endpoint": endpoint, **values})
    else:
        db.execute(update(t.breaker).where(of), values)
    return after, now


def spend(db: Connection, bank: str, day: str, spent: Spent) -> None:
    s, told = t.spend.c, spent.model_dump()
    adding = update(t.spend).where(s.bank == bank, s.day == day).values({name: s[name] + more for name, more in told.items()})
    if db.execute(adding).rowcount == 0:
        db.execute(insert(t.spend), {"bank": bank, "day": day, **told})


def hand_out(db: Connection, bank: str, digests: Sequence[str], at: datetime, keep: int) -> None:
    queue.lock(db, t.bank.c.id == bank)
    h = t.handed.c
    newest = list(reversed(dict.fromkeys(reversed(digests))))  # each where it was given out last
    for part in rows.chunks(newest):
        db.execute(delete(t.handed).where(h.bank == bank, h.digest.in_(part)))
    start = (db.scalar(select(func.max(h.seq)).where(h.bank == bank)) or 0) + 1
    rows.insert_all(db, t.handed, ({"bank": bank, "digest": d, "seq": start + n, "at": at} for n, d in enumerate(newest)))
    beyond = select(h.seq).where(h.bank == bank).order_by(h.seq.desc()).offset(keep).limit(1)
    if (oldest := db.scalar(beyond)) is not None:
        db.execute(delete(t.handed).where(h.bank == bank, h.seq <= oldest))


def handed_out(db: Connection, bank: str, digests: Sequence[str]) -> set[str]:
    h = t.handed.c
    asked = (select(h.digest).where(h.bank == bank, h.digest.in_(part)) for part in rows.chunks(digests))
    return {digest for query in asked for digest in db.scalars(query)}
