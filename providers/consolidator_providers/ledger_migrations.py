"""The ledger's format: made where there is none, brought forward where it is older, refused where it is newer."""

from __future__ import annotations

from sqlalchemy import Connection, insert, inspect, select, update

from consolidator.errors import NewerFormat
from consolidator_providers import ledger_schema as t

# version 1 was kept in SQLite alone; what a migration does never changes again, so it is text
FROM_1 = (
    "ALTER TABLE bank ADD COLUMN reading JSON",
    "ALTER TABLE bank ADD COLUMN due_at FLOAT",
    "ALTER TABLE bank ADD COLUMN wanted_since FLOAT",
    "ALTER TABLE bank ADD COLUMN not_before FLOAT",
    "ALTER TABLE bank ADD COLUMN priority INTEGER",
    "ALTER TABLE bank ADD COLUMN again JSON",
    "ALTER TABLE bank ADD COLUMN wakes INTEGER DEFAULT '0' NOT NULL",
    "ALTER TABLE bank ADD COLUMN taken INTEGER DEFAULT '0' NOT NULL",
    "ALTER TABLE bank ADD COLUMN seen INTEGER DEFAULT '0' NOT NULL",
    "ALTER TABLE bank ADD COLUMN attempts INTEGER DEFAULT '0' NOT NULL",
    "ALTER TABLE bank ADD COLUMN last_error TEXT",
    "ALTER TABLE bank ADD COLUMN paused TEXT",
    "CREATE INDEX bank_by_due ON bank (due_at)",
    "ALTER TABLE observation ADD COLUMN contests VARCHAR(128)",
    "ALTER TABLE parked ADD COLUMN state VARCHAR(16) DEFAULT 'trying' NOT NULL",
    "UPDATE parked SET state = 'parked' WHERE parked",
    "ALTER TABLE parked DROP COLUMN parked",
    "CREATE TABLE breaker (endpoint TEXT NOT NULL PRIMARY KEY, body JSON NOT NULL)",
    "CREATE TABLE spend (bank VARCHAR(128) NOT NULL, day VARCHAR(10) NOT NULL, calls BIGINT NOT NULL, "
    "prompt_tokens BIGINT NOT NULL, reply_tokens BIGINT NOT NULL, PRIMARY KEY (bank, day))",
    "INSERT INTO spend SELECT bank, substr(created_at, 1, 10), sum(calls), sum(prompt_tokens), sum(reply_tokens) "
    "FROM intent GROUP BY 1, 2",
    "CREATE TABLE handed (bank VARCHAR(128) NOT NULL, digest VARCHAR(64) NOT NULL, seq BIGINT NOT NULL, "
    "at DATETIME NOT NULL, PRIMARY KEY (bank, digest))",
    "CREATE INDEX handed_by_bank ON handed (bank, seq)",
)
FROM_2 = (
    "CREATE TABLE receipt_digest (digest VARCHAR(64) NOT NULL, bank VARCHAR(128) NOT NULL, PRIMARY KEY (digest, bank))",
    "INSERT INTO receipt_digest SELECT DISTINCT told.value, receipt.bank FROM receipt, {digests}",
    "CREATE TABLE transcript (id TEXT NOT NULL, bank VARCHAR(128) NOT NULL, turns INTEGER NOT NULL, closed BOOLEAN NOT NULL, "
    "body TEXT NOT NULL, at {time} NOT NULL, PRIMARY KEY (id, bank))",
    "CREATE INDEX transcript_by_bank ON transcript (bank, at)",
    "CREATE TABLE showing (item VARCHAR(128) NOT NULL, transcript TEXT NOT NULL, bank VARCHAR(128) NOT NULL, "
    "PRIMARY KEY (item, transcript, bank))",
    "CREATE INDEX showing_by_transcript ON showing (transcript)",
    "CREATE TABLE score (seq {serial} NOT NULL, bank VARCHAR(128) NOT NULL, digest VARCHAR(64) NOT NULL, unit TEXT NOT NULL, "
    "response TEXT NOT NULL, value {double} NOT NULL, tokens BIGINT NOT NULL, how VARCHAR(16) NOT NULL, share {double} NOT NULL, "
    "counts BOOLEAN NOT NULL, at {time} NOT NULL, PRIMARY KEY (seq), UNIQUE (digest))",
    "CREATE INDEX score_by_bank ON score (bank, at)",
    "CREATE INDEX score_by_response ON score (bank, response)",
    "CREATE TABLE member (score INTEGER NOT NULL, item VARCHAR(128) NOT NULL, bank VARCHAR(128) NOT NULL, "
    "position INTEGER NOT NULL, PRIMARY KEY (score, item))",
    "CREATE INDEX member_by_item ON member (item)",
    "CREATE TABLE importance (item VARCHAR(128) NOT NULL, unit TEXT NOT NULL, bank VARCHAR(128) NOT NULL, "
    "mean {double} NOT NULL, n {double} NOT NULL, tokens BIGINT NOT NULL, maximum {double} NOT NULL, "
    "last_scored {time} NOT NULL, updates INTEGER NOT NULL, PRIMARY KEY (item, unit, bank))",
    "CREATE INDEX importance_by_unit ON importance (bank, unit, mean)",
)
FROM_3 = ("ALTER TABLE observation ADD COLUMN category VARCHAR(16)",)
MIGRATIONS = {1: FROM_1, 2: FROM_2, 3: FROM_3}
DIALECTS = {
    "sqlite": {
        "time": "DATETIME", "double": "FLOAT", "serial": "INTEGER", "digests": "json_each(receipt.body, '$.digests') AS told",
    },
    "postgresql": {
        "time": "TIMESTAMP WITH TIME ZONE", "double": "FLOAT(53)", "serial": "SERIAL",
        "digests": "json_array_elements_text(receipt.body::json -> 'digests') AS told(value)",
    },
}


def bring_up(db: Connection) -> None:
    """Tables of this version, in one transaction. Raises NewerFormat."""
    if not inspect(db).has_table("meta"):
        t.tables.create_all(db)
        db.execute(insert(t.meta), {"key": "schema", "value": str(t.SCHEMA_VERSION)})
        return
    row = t.meta.c.key == "schema"
    found = int(db.scalar(select(t.meta.c.value).where(row).with_for_update()) or 0)
    if found > t.SCHEMA_VERSION:
        known = t.SCHEMA_VERSION
        raise NewerFormat(f"the ledger has format {found}, this version knows {known}; install a newer consolidator")
    for version in range(found, t.SCHEMA_VERSION):
        for statement in MIGRATIONS[version]:
            db.exec_driver_sql(statement.format(**DIALECTS[db.dialect.name]))
    if found < t.SCHEMA_VERSION:
        db.execute(update(t.meta).where(row).values(value=str(t.SCHEMA_VERSION)))
