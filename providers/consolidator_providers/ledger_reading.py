"""What is read of a bank as it stands: its rows, its texts, its counts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, Table, func, select

from consolidator.plans import Spent
from consolidator.transcripts import Transcript
from consolidator_providers import ledger_rows as rows
from consolidator_providers import ledger_schema as t

NEVER_TOLD = {("bank", "key"), ("version", "vector")}


def read_texts(db: Connection, bank: str) -> Iterable[tuple[str, str]]:
    """Every text of a bank with its place, `table/key/column`; of a transcript, each piece that may stand alone elsewhere."""
    of_bank = select(t.observation.c.id).where(t.observation.c.bank == bank)
    versions = select(t.version.c.observation, t.version.c.number, t.version.c.text, t.version.c.reason)
    for row in db.execute(versions.where(t.version.c.observation.in_(of_bank))):
        yield from _filled(f"version/{row.observation}/{row.number}", text=row.text, reason=row.reason)
    for row in db.execute(select(t.journal).where(t.journal.c.bank == bank)):
        yield from _filled(f"journal/{row.seq}", before=row.before, after=row.after, reason=row.reason)
    for row in db.execute(select(t.parked).where(t.parked.c.bank == bank)):
        yield from _filled(f"parked/{row.memory}", reason=row.reason, reply=row.reply)
    for row in db.execute(select(t.bank).where(t.bank.c.id == bank)):
        yield from _filled(f"bank/{row.id}", last_error=row.last_error, paused=row.paused)
    for plan, body in db.execute(select(t.intent.c.id, t.intent.c.body).where(t.intent.c.bank == bank)):
        yield from _filled(f"intent/{plan}", body=body)
    for id, body in db.execute(select(t.transcript.c.id, t.transcript.c.body).where(t.transcript.c.bank == bank)):
        yield from ((f"transcript/{id}", text) for text in rows.said(Transcript.model_validate_json(body)))


def _filled(place: str, **columns: str | None) -> Iterable[tuple[str, str]]:
    return [(f"{place}/{column}", value) for column, value in columns.items() if value]


def dump(db: Connection, bank: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of a bank by table, as JSON types, in the order of the primary key."""
    return {table.name: [_plain(row) for row in db.execute(query).mappings()] for table, query in _whole(bank)}


def _whole(bank: str) -> Iterable[tuple[Table, Select[Any]]]:
    """What has no column `bank` follows what it belongs to."""
    plans = select(t.intent.c.id).where(t.intent.c.bank == bank)
    heads = select(t.observation.c.id).where(t.observation.c.bank == bank)
    entries = select(t.journal.c.seq).where(t.journal.c.bank == bank)
    mine: dict[Table, Any] = {t.bank: t.bank.c.id == bank, t.use: t.use.c.intent.in_(plans), t.cites: t.cites.c.seq.in_(entries)}
    mine |= {table: table.c.observation.in_(heads) for table in (t.evidence, t.version, t.lineage)}
    mine |= {table: table.c.bank == bank for table in t.tables.sorted_tables if "bank" in table.c}
    for table, condition in mine.items():
        told = [column for column in table.c if (table.name, column.name) not in NEVER_TOLD]
        yield table, select(*told).where(condition).order_by(*table.primary_key)


def _plain(row: RowMapping) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def spent_on(db: Connection, bank: str, day: str) -> Spent:
    row = db.execute(select(t.spend).where(t.spend.c.bank == bank, t.spend.c.day == day)).one_or_none()
    return Spent() if row is None else Spent(calls=row.calls, prompt_tokens=row.prompt_tokens, reply_tokens=row.reply_tokens)


def spent(db: Connection, bank: str) -> dict[str, int]:
    s, of_bank = t.spend.c, t.intent.c.bank == bank
    sums = [func.coalesce(func.sum(column), 0) for column in (s.calls, s.prompt_tokens, s.reply_tokens)]
    calls, prompt, reply = (int(total) for total in db.execute(select(*sums).where(s.bank == bank)).one())
    return {
        "passes": _count(db, of_bank, t.intent.c.kind == "consolidate"), "calls": calls, "prompt_tokens": prompt,
        "reply_tokens": reply, "open_plans": _count(db, of_bank, t.intent.c.state == "planned"),
        "open_tombstones": _count(db, t.tombstone.c.bank == bank, t.tombstone.c.open),
    }


def deleted_since(db: Connection, bank: str, since: datetime) -> int:
    j = t.journal.c
    return _count(db, j.bank == bank, j.action == "deleted", j.at >= since)


def _count(db: Connection, *where: Any) -> int:
    return db.scalar(select(func.count()).where(*where)) or 0
