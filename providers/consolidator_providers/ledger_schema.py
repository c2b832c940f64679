"""The ledger's tables: one text for SQLite and PostgreSQL."""

from __future__ import annotations

from array import array
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

from consolidator.models import Vector

SCHEMA_VERSION = 1


class Utc(TypeDecorator[datetime]):
    """A time in UTC, on databases that keep no zone too."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=UTC if dialect.name != "sqlite" else None)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Floats(TypeDecorator[Vector]):
    """A vector as 32-bit floats."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Vector | None, dialect: Any) -> bytes | None:
        return array("f", value).tobytes() if value else None

    def process_result_value(self, value: bytes | None, dialect: Any) -> Vector | None:
        return list(array("f", value)) if value else None


tables = MetaData()
Id = String(128)
PLANNED = text("state = 'planned'")

meta = Table("meta", tables, Column("key", String(32), primary_key=True), Column("value", Text, nullable=False))

bank = Table(
    "bank", tables,
    Column("id", Id, primary_key=True),
    Column("key", LargeBinary, nullable=False),  # of the bank's digests
    Column("owner", String(64)),
    Column("token", Integer, nullable=False, default=0),
    Column("lease_until", Float, nullable=False, default=0.0),  # this host's clock; only decides who may try
)

intent = Table(
    "intent", tables,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", Id, nullable=False, unique=True),
    Column("bank", Id, nullable=False),
    Column("token", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),  # planned -> applied -> closed
    Column("body", Text),  # emptied when closed
    Column("by", Text, nullable=False),
    Column("prompt_digest", String(64), nullable=False),
    Column("calls", Integer, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("reply_tokens", Integer, nullable=False),
    Column("created_at", Utc, nullable=False),
    Index("one_plan_a_bank", "bank", unique=True, sqlite_where=PLANNED, postgresql_where=PLANNED),
    Index("intent_by_bank", "bank", "state"),
)

use = Table(
    "use", tables,  # a memory's revision is consumed once, ever
    Column("memory", Id, primary_key=True),
    Column("rev", Integer, primary_key=True, autoincrement=False),
    Column("intent", Id, nullable=False),
)

observation = Table(
    "observation", tables,  # the heads
    Column("id", Id, primary_key=True),
    Column("bank", Id, nullable=False),
    Column("tags", Text, nullable=False),  # its scope, as a JSON array
    Column("rev", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("confidence", Float, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("updated_at", Utc, nullable=False),
    Index("observation_by_bank", "bank", "state"),
)

evidence = Table(
    "evidence", tables,
    Column("observation", Id, primary_key=True),
    Column("memory", Id, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("source", Text, nullable=False),
    Column("occurred_at", Utc, nullable=False),
    Column("since_version", Integer, nullable=False),
    Column("trust", Integer, nullable=False),
    Column("supports", Boolean, nullable=False),
    Index("evidence_by_memory", "memory"),
)

version = Table(
    "version", tables,
    Column("observation", Id, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("text", Text),  # NULL once purged
    Column("digest", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("confidence", Float, nullable=False),
    Column("change", String(32), nullable=False),
    Column("reason", Text),
    Column("by", Text, nullable=False),
    Column("intent", Id, nullable=False),
    Column("vector", Floats),
    Column("at", Utc, nullable=False),
)

lineage = Table(
    "lineage", tables,
    Column("observation", Id, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("memory", Id, primary_key=True),
    Column("role", String(8), primary_key=True),  # text: derived from it; why: it justified a retraction
    ForeignKeyConstraint(["observation", "number"], ["version.observation", "version.number"]),
    Index("lineage_by_memory", "memory"),
)

journal = Table(
    "journal", tables,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("bank", Id, nullable=False),
    Column("intent", Id, nullable=False),
    Column("at", Utc, nullable=False),
    Column("action", String(32), nullable=False),
    Column("observation", Id),
    Column("version", Integer),
    Column("before", Text),
    Column("after", Text),
    Column("reason", Text),
    Column("by", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Index("journal_by_bank", "bank", "seq"),
    Index("journal_by_observation", "observation", "version"),
)

cites = Table(
    "cites", tables,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("memory", Id, primary_key=True),
    Column("role", String(8), primary_key=True),  # cited; shown: read beside it, so that a reason may quote it
    Index("cites_by_memory", "memory"),
)

tombstone = Table(
    "tombstone", tables,
    Column("memory", Id, primary_key=True),
    Column("bank", Id, nullable=False),
    Column("receipt", Id, nullable=False),
    Column("open", Boolean, nullable=False),
    Index("tombstone_by_bank", "bank", "open"),
    Index("tombstone_by_receipt", "receipt"),
)

receipt = Table(
    "receipt", tables,
    Column("id", Id, primary_key=True),
    Column("bank", Id, nullable=False),
    Column("state", String(16), nullable=False),
    Column("body", Text, nullable=False),
    Column("at", Utc, nullable=False),
    Index("receipt_by_bank", "bank", "state"),
)

parked = Table(
    "parked", tables,
    Column("memory", Id, primary_key=True),
    Column("bank", Id, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("parked", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("reply", Text),
    Column("first_at", Utc, nullable=False),
    Column("last_at", Utc, nullable=False),
    Index("parked_by_bank", "bank"),
)
