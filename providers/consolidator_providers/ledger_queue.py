"""The queue's side of a bank's row: asked for, claimed, read, finished, put off. Pure arithmetic on a row that is locked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, case, func, null, select, update

from consolidator.errors import LeaseLost
from consolidator.plans import Lease, Standing
from consolidator_providers import ledger_schema as t
from consolidator_providers.ledger_engines import Clock

b = t.bank.c
ANY_PRIORITY = 5  # of a bank that nothing has woken since its last pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    new: int
    delay: float
    at_most: float
    batch: int
    priority: int

    def due(self, now: float, *, since: float, waiting: int) -> float:
        return now if waiting >= self.batch else min(now + self.delay, since + self.at_most)


def held(lease: Lease) -> tuple[Any, ...]:
    """The lease is the bank's newest. Whether its time is up does not matter while nobody has taken over."""
    return (b.id == lease.bank, b.owner == lease.owner, b.token == lease.token)


def lock(db: Connection, *where: Any) -> Row[Any] | None:
    """A bank's row, whose writers wait until the transaction ends."""
    return db.execute(select(t.bank).where(*where).with_for_update()).one_or_none()


def wake(db: Connection, clock: Clock, bank: str, asked: Wake) -> None:
    row = lock(db, b.id == bank)
    assert row is not None
    now, wakes = clock(db), row.wakes + asked.new
    since = now if row.wanted_since is None else row.wanted_since
    due = _least(row.due_at, asked.due(now, since=since, waiting=wakes - row.seen))
    changes = {
        "wakes": wakes, "wanted_since": since, "priority": _least(row.priority, asked.priority),
        "due_at": max(due, row.not_before or 0.0),
    }
    if row.owner is not None:  # a pass runs, and may have looked already
        changes["again"] = _again(row, asked, now, wakes - row.taken)
    db.execute(update(t.bank).where(b.id == bank).values(changes))


def _again(row: Row[Any], asked: Wake, now: float, waiting: int) -> dict[str, Any]:
    before = row.again or {}
    since = before.get("wanted_since", now)
    due = _least(before.get("due_at"), asked.due(now, since=since, waiting=waiting))
    return {"wanted_since": since, "due_at": due, "priority": _least(before.get("priority"), asked.priority)}


def _least(before: Any, asked: Any) -> Any:
    return asked if before is None else min(before, asked)


def claim(db: Connection, clock: Clock, bank: str, owner: str, seconds: float, over: Sequence[str]) -> Lease | None:
    now = clock(db)
    row = lock(db, b.id == bank)
    if row is None:
        return None
    read = tuple(row.reading or ())
    if row.lease_until >= now and row.owner != owner and not {*over} & {*read}:
        return None
    token = row.token + 1
    values = {"owner": owner, "token": token, "lease_until": now + seconds, "taken": row.wakes, "again": null()}
    db.execute(update(t.bank).where(b.id == bank).values(values))
    died = row.lease_until < now or row.owner == owner  # whoever is alive was not killed by what it reads
    return Lease(bank=bank, owner=owner, token=token, wakes=row.wakes, reading=read if died else ())


def renew(db: Connection, clock: Clock, lease: Lease, seconds: float) -> bool:
    return db.execute(update(t.bank).where(*held(lease)).values(lease_until=clock(db) + seconds)).rowcount == 1


def release(db: Connection, lease: Lease) -> None:
    db.execute(update(t.bank).where(*held(lease)).values(lease_until=0.0, owner=None, reading=null()))


def reading(db: Connection, lease: Lease, ids: Sequence[str]) -> None:
    shown = list(ids) or null()
    if db.execute(update(t.bank).where(*held(lease)).values(reading=shown)).rowcount != 1:
        raise LeaseLost


def finish(db: Connection, clock: Clock, lease: Lease, *, more: bool) -> None:
    row = lock(db, *held(lease))
    if row is None:
        return
    left = {"due_at": None, "wanted_since": None, "priority": None, "seen": row.taken} | (row.again or {})
    if more:
        now = clock(db)
        left = {"due_at": now, "wanted_since": _first(row.wanted_since, now)}
    done = {"not_before": None, "attempts": 0, "last_error": None, "again": None, "reading": None, "taken": row.wakes}
    db.execute(update(t.bank).where(*held(lease)).values({**done, **left}))


def postpone(db: Connection, clock: Clock, lease: Lease, seconds: float, error: str, *, attempt: bool) -> None:
    row = lock(db, *held(lease))
    if row is None:
        return
    now = clock(db)
    put_off = {"due_at": now + seconds, "not_before": now + seconds, "wanted_since": _first(row.wanted_since, now)}
    told = {"attempts": row.attempts + attempt, "last_error": error, "again": None, "reading": None, "taken": row.wakes}
    db.execute(update(t.bank).where(*held(lease)).values({**put_off, **told}))


def pause(db: Connection, clock: Clock, bank: str, reason: str | None) -> None:
    row = lock(db, b.id == bank)
    assert row is not None
    changes: dict[str, Any] = {"paused": reason}
    if reason is None:
        now = clock(db)
        changes |= {"due_at": now, "not_before": None, "wanted_since": _first(row.wanted_since, now)}
    db.execute(update(t.bank).where(b.id == bank).values(changes))


def _first(before: float | None, now: float) -> float:
    return now if before is None else before


def queue(db: Connection, clock: Clock, limit: int) -> list[Standing]:
    now = clock(db)
    due = case((b.lease_until > b.due_at, b.lease_until), else_=b.due_at)
    urgency = case((due <= now, func.coalesce(b.priority, ANY_PRIORITY)), else_=10)  # after every priority: not due
    asked = select(t.bank).where(b.due_at.is_not(None), b.paused.is_(None))
    return [_standing(row, now) for row in db.execute(asked.order_by(urgency, due, b.id).limit(limit))]


def standing(db: Connection, clock: Clock, bank: str) -> Standing:
    row = db.execute(select(t.bank).where(b.id == bank)).one_or_none()
    return Standing(bank=bank) if row is None else _standing(row, clock(db))


def _standing(row: Row[Any], now: float) -> Standing:
    left = max(0.0, row.lease_until - now)
    return Standing(
        bank=row.id, due_in=None if row.due_at is None else max(row.due_at, row.lease_until) - now,
        priority=ANY_PRIORITY if row.priority is None else row.priority, waiting=row.wakes - row.seen, attempts=row.attempts,
        last_error=row.last_error, paused=row.paused, holder=row.owner if left else None, lease_left=left,
    )
