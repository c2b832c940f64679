"""The ledger's tables: one text for SQLite and PostgreSQL."""

from __future__ import annotations

from array import array
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
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

SCHEMA_VERSION = 4


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


def told(text: str) -> str:
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


class Told(TypeDecorator[str]):
    """Free text that others wrote, without the characters that not every database takes."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else told(value)


tables = MetaData()
Id = String(128)
Seconds = Float(53)  # bits: a time of today to the microsecond
Nats = Float(53)
Json = JSON(none_as_null=True)
PLANNED = text("state = 'planned'")

meta = Table("meta", tables, Column("key", String(32), primary_key=True), Column("value", Text, nullable=False))

bank = Table(
    "bank", tables,
    Column("id", Id, primary_key=True),
    Column("key", LargeBinary, nullable=False),  # of the bank's digests
    Column("owner", String(64)),
    Column("token", Integer, nullable=False, default=0),
    Column("lease_until", Seconds, nullable=False, default=0.0),  # only decides who may try
    Column("reading", Json),  # memories that a model is shown now
    # what is asked for; times are seconds of the ledger's clock
    Column("due_at", Seconds),
    Column("wanted_since", Seconds),
    Column("not_before", Seconds),
    Column("priority", Integer),
    Column("again", Json),  # what was asked for since the bank was claimed: it outlasts the pass
    Column("wakes", Integer, nullable=False, server_default="0"),  # memories that wakes have told of
    Column("taken", Integer, nullable=False, server_default="0"),  # wakes, as the bank was claimed
    Column("seen", Integer, nullable=False, server_default="0"),  # of them, those that a pass that ended well has found
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Told),
    Column("paused", Told),
    Index("bank_by_due", "due_at"),
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
    Column("contests", Id),
    Column("category", String(16)),
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
    Column("reason", Told),
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
    Column("reason", Told),
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

receipt_digest = Table(
    "receipt_digest", tables,  # texts that were erased, by the keyed digests of all receipts
    Column("digest", String(64), primary_key=True),
    Column("bank", Id, primary_key=True),
)

parked = Table(
    "parked", tables,
    Column("memory", Id, primary_key=True),
    Column("bank", Id, nullable=False),
    Column("state", String(16), nullable=False),  # trying, parked, held
    Column("attempts", Integer, nullable=False),
    Column("reason", Told, nullable=False),
    Column("reply", Told),
    Column("first_at", Utc, nullable=False),
    Column("last_at", Utc, nullable=False),
    Index("parked_by_bank", "bank"),
)

breaker = Table(
    "breaker", tables,
    Column("endpoint", Text, primary_key=True),
    Column("body", Json, nullable=False),
)

spend = Table(
    "spend", tables,
    Column("bank", Id, primary_key=True),
    Column("day", String(10), primary_key=True),  # in UTC, as 2026-01-31
    Column("calls", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("reply_tokens", BigInteger, nullable=False),
)

handed = Table(
    "handed", tables,  # texts that recall gave out, by their keyed digests
    Column("bank", Id, primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),  # the newest has the highest
    Column("at", Utc, nullable=False),
    Index("handed_by_bank", "bank", "seq"),
)

# importance: what waits to be scored, what was measured, what it comes to

transcript = Table(
    "transcript", tables,  # each waits: what was scored is dropped with its text
    Column("id", Told, primary_key=True),  # chosen by callers, so that two banks may have the same
    Column("bank", Id, primary_key=True),
    Column("turns", Integer, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("body", Text, nullable=False),
    Column("at", Utc, nullable=False),
    Index("transcript_by_bank", "bank", "at"),
)

showing = Table(
    "showing", tables,
    Column("item", Id, primary_key=True),  # its id; or the keyed digest of a line, by which an erased text is found
    Column("transcript", Told, primary_key=True),
    Column("bank", Id, primary_key=True),
    Index("showing_by_transcript", "transcript"),
)

score = Table(
    "score", tables,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("bank", Id, nullable=False),
    Column("digest", String(64), nullable=False, unique=True),  # of bank and key: a measurement is kept once
    Column("unit", Text, nullable=False),
    Column("response", Told, nullable=False),
    Column("value", Nats, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("how", String(16), nullable=False),
    Column("share", Nats, nullable=False),
    Column("counts", Boolean, nullable=False),
    Column("at", Utc, nullable=False),
    Index("score_by_bank", "bank", "at"),
    Index("score_by_response", "bank", "response"),
)

member = Table(
    "member", tables,  # the items of a score's group
    Column("score", Integer, primary_key=True, autoincrement=False),
    Column("item", Id, primary_key=True),
    Column("bank", Id, nullable=False),
    Column("position", Integer, nullable=False),
    Index("member_by_item", "item"),
)

importance = Table(
    "importance", tables,
    Column("item", Id, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("bank", Id, primary_key=True),
    Column("mean", Nats, nullable=False),
    Column("n", Nats, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("maximum", Nats, nullable=False),
    Column("last_scored", Utc, nullable=False),
    Column("updates", Integer, nullable=False),
    Index("importance_by_unit", "bank", "unit", "mean"),  # covers what each recall reads of a whole bank
)
