"""Plans, tombstones, receipts: what is decided once and for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from consolidator.errors import Conflict, ErasedMeanwhile, LeaseLost, StaleVersion
from consolidator.models import MemoryState, ObservationState, Receipt
from consolidator.plans import Change, Intent, Lease, Tombstone
from consolidator_providers import ledger_queue as queue
from consolidator_providers import ledger_rows as rows
from consolidator_providers import ledger_schema as t

PLAN_COLUMNS = {"id", "bank", "kind", "by", "prompt_digest", "calls", "prompt_tokens", "reply_tokens", "created_at"}


def commit(db: Connection, intent: Intent, lease: Lease) -> int:
    if queue.lock(db, *queue.held(lease)) is None:
        raise LeaseLost
    if intent.kind != "forget" and tombstones(db, intent.bank, intent.shown, open_only=False):
        raise ErasedMeanwhile
    _freeze(db, intent, lease)
    scrubbed = 0
    for change in intent.changes:
        _move_head(db, intent.bank, change)
        scrubbed += rows.write_change(db, intent, change)
    rows.write_entries(db, intent.entries)
    done = [mark.memory_id for mark in intent.marks if mark.state is MemoryState.DONE]
    for part in rows.chunks(done):  # what is digested has not failed
        db.execute(delete(t.parked).where(t.parked.c.bank == intent.bank, t.parked.c.memory.in_(part)))
    if intent.kind == "forget":
        _unscore(db, intent)
    return scrubbed + rows.scrub(db, intent.bank, intent.erased)


def _unscore(db: Connection, intent: Intent) -> None:
    """What was measured of an observation is not true of another text, and a purged one may stand in transcripts."""
    other = [c for c in intent.changes if c.version is not None or c.after.state is ObservationState.ERASED]
    rows.drop_scores(db, intent.bank, [change.after.id for change in other])
    rows.drop_transcripts(db, intent.bank, [change.after.id for change in (*other, *(c for c in intent.changes if c.purge))])


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


def unfinished(db: Connection, bank: str) -> list[Intent]:
    unclosed = (t.intent.c.bank == bank, t.intent.c.state.in_(("planned", "applied")))
    bodies = db.scalars(select(t.intent.c.body).where(*unclosed).order_by(t.intent.c.seq)).all()
    return [_thawed(db, body) for body in bodies if body]


def _thawed(db: Connection, body: str) -> Intent:
    intent = Intent.model_validate_json(body)
    changes = tuple(change.model_copy(update={"vector": _vector(db, change)}) for change in intent.changes)
    return intent.model_copy(update={"changes": changes})


def _vector(db: Connection, change: Change) -> list[float]:
    of = (t.version.c.observation == change.after.id, t.version.c.number == change.after.version)
    return db.scalar(select(t.version.c.vector).where(*of)) or []


def tombstones(db: Connection, bank: str, ids: Sequence[str] | None, *, open_only: bool) -> list[Tombstone]:
    of_bank = t.tombstone.c.bank == bank if ids is None else rows.in_bank(t.tombstone, bank)
    query = select(t.tombstone).where(of_bank).order_by(t.tombstone.c.memory)
    query = query.where(t.tombstone.c.open) if open_only else query
    parts = [query] if ids is None else [query.where(t.tombstone.c.memory.in_(part)) for part in rows.chunks(ids)]
    found = [row for part in parts for row in db.execute(part)]
    return [Tombstone(memory_id=row.memory, receipt=row.receipt, open=row.open) for row in found]


def entomb(db: Connection, receipt: Receipt, memory_ids: Sequence[str]) -> None:
    owner = queue.lock(db, t.bank.c.id == receipt.bank)
    assert owner is not None
    known = {stone.memory_id for stone in tombstones(db, receipt.bank, memory_ids, open_only=False)}
    shared = {"bank": receipt.bank, "receipt": receipt.id, "open": True}
    new = [memory for memory in dict.fromkeys(memory_ids) if memory not in known]
    rows.insert_all(db, t.tombstone, ({"memory": memory, **shared} for memory in new))
    db.execute(insert(t.receipt), _receipt_row(receipt))
    told = [id for part in rows.chunks(memory_ids) for id in db.scalars(rows.derived(receipt.bank, part))]
    _note_digests(db, receipt)
    if receipt.asked.get("everything"):
        rows.drop_all_measured(db, receipt.bank)
        return
    source = receipt.asked.get("source")
    rows.drop_transcripts(
        db, receipt.bank, [*memory_ids, *told, *receipt.digests],
        *rows.quoting(db, receipt.bank, owner.key, receipt.fingerprints), *([source] if isinstance(source, str) else ()),
    )
    rows.drop_scores(db, receipt.bank, memory_ids)


def _note_digests(db: Connection, receipt: Receipt) -> None:
    c = t.receipt_digest.c
    for part in rows.chunks(receipt.digests):
        known = set(db.scalars(select(c.digest).where(c.digest.in_(part), rows.in_bank(t.receipt_digest, receipt.bank))))
        rows.insert_all(db, t.receipt_digest, ({"digest": d, "bank": receipt.bank} for d in part if d not in known))


def settle(db: Connection, receipt: Receipt) -> None:
    queue.lock(db, t.bank.c.id == receipt.bank)
    db.execute(update(t.tombstone).where(t.tombstone.c.receipt == receipt.id).values(open=False))
    db.execute(update(t.receipt).where(t.receipt.c.id == receipt.id), _receipt_row(receipt))
    _note_digests(db, receipt)
    for part in rows.chunks(receipt.digests):
        db.execute(delete(t.handed).where(t.handed.c.bank == receipt.bank, t.handed.c.digest.in_(part)))


def _receipt_row(receipt: Receipt) -> dict[str, Any]:
    """Fingerprints are of six words at a time, which can be guessed one after the other: they stay with the caller."""
    body = receipt.model_dump_json(exclude={"fingerprints"})
    return {"id": receipt.id, "bank": receipt.bank, "state": receipt.state, "body": body, "at": receipt.at}
