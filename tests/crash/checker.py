"""Whether store and ledger hold what the outside was told, and nothing else. It knows the tables, and none of the engine's code.

The ledger is read by plain SELECTs, the store through its port. A bank is checked at rest: after a pass that ended well.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consolidator.ports import Point, Storage, VectorStore

WORD = re.compile(r"word\d+x")
FED = {"created", "updated", "reinforced"}  # what a memory does when it becomes evidence
Row = dict[str, Any]
Tables = dict[str, list[Row]]


@dataclass(slots=True)
class Witness:
    """What the outside knows of a bank: what was acknowledged to it, and every text that it has seen."""

    kept: set[str] = field(default_factory=set)  # memories that a retain returned
    forgotten: set[str] = field(default_factory=set)  # memories that a forget returned
    texts: dict[str, str] = field(default_factory=dict)  # of every memory seen, acknowledged or not
    derived: set[str] = field(default_factory=set)  # texts of observations seen

    def hear(self, returned: Mapping[str, Any]) -> Iterator[str]:
        """Take in what a step returned; yields what it should not have said."""
        self.texts |= returned.get("kept", {})
        self.kept |= returned.get("kept", {}).keys()
        self.forgotten |= set(returned.get("forgotten", ()))
        for word in words([returned.get("served", "")]) & self.erased(self.forgotten):
            yield f"recall served {word} after forget had returned"

    def erased(self, gone: Iterable[str]) -> set[str]:
        """Words of these memories that no other memory holds."""
        gone = set(gone)
        return words(self.texts[id] for id in gone if id in self.texts) - words(
            text for id, text in self.texts.items() if id not in gone
        )


def words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in WORD.findall(text)}


def read_ledger(path: Path) -> Tables:
    base = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        base.row_factory = sqlite3.Row
        names = [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: [dict(row) for row in base.execute(f'SELECT * FROM "{name}"')] for name in names}
    finally:
        base.close()


async def read_store(store: VectorStore, bank: str) -> dict[str, Point]:
    points: dict[str, Point] = {}
    after: str | None = None
    while True:
        page = await store.scan(bank, after=after)
        points |= {point.id: point for point in page.points}
        if (after := page.after) is None:
            return points


def tombstoned(tables: Tables, bank: str) -> set[str]:
    return {row["memory"] for row in tables["tombstone"] if row["bank"] == bank}


async def violations(tables: Tables, storage: Storage, bank: str, witness: Witness) -> list[str]:
    """Everything that is wrong, in words; empty when all holds."""
    memories, observations = await read_store(storage.memories, bank), await read_store(storage.observations, bank)
    witness.texts |= {id: str(point.payload["text"]) for id, point in memories.items()}
    witness.derived |= {str(point.payload.get("text", "")) for point in observations.values()}
    view = _View(_of_bank(tables, bank), memories, observations, witness, tombstoned(tables, bank))
    rules = (_kept, _gone, _consumed, _agreeing, _resting, _grounded, _erased)
    return [problem for rule in rules for problem in rule(view)]


@dataclass(frozen=True, slots=True)
class _View:
    tables: Tables
    memories: dict[str, Point]
    observations: dict[str, Point]
    witness: Witness
    gone: set[str]

    def rows(self, table: str, **equal: Any) -> list[Row]:
        return [row for row in self.tables[table] if all(row[key] == value for key, value in equal.items())]


def _of_bank(tables: Tables, bank: str) -> Tables:
    """The rows of one bank; those without the column follow what they belong to."""
    mine: Tables = {name: [row for row in rows if row.get("bank") == bank] for name, rows in tables.items()}
    plans, heads = {row["id"] for row in mine["intent"]}, {row["id"] for row in mine["observation"]}
    entries = {row["seq"] for row in mine["journal"]}
    mine["use"] = [row for row in tables["use"] if row["intent"] in plans]
    mine["cites"] = [row for row in tables["cites"] if row["seq"] in entries]
    for table in ("evidence", "version", "lineage"):
        mine[table] = [row for row in tables[table] if row["observation"] in heads]
    return mine


def _kept(view: _View) -> Iterator[str]:
    for id in view.witness.kept - view.memories.keys() - view.gone:
        yield f"memory {id} was acknowledged, and is neither stored nor tombstoned"
    for id in view.witness.forgotten - view.gone:
        yield f"memory {id} was acknowledged as forgotten, and has no tombstone"


def _gone(view: _View) -> Iterator[str]:
    for id in view.gone & view.memories.keys():
        yield f"memory {id} is tombstoned, and stored"
    for table in ("evidence", "lineage", "cites", "use", "parked"):
        for row in view.tables[table]:
            if row["memory"] in view.gone:
                yield f"{table} names the tombstoned memory {row['memory']}"
    for id, point in view.observations.items():
        if _named(point) & view.gone:
            yield f"observation {id} rests in the store on tombstoned memories"


def _named(point: Point) -> set[str]:
    return {*point.payload.get("evidence_memory_ids", ()), *point.payload.get("lineage_memory_ids", ())}


def _consumed(view: _View) -> Iterator[str]:
    """Each done memory was consumed by exactly one plan of consolidation since it last became pending, and had its effect."""
    plans = {row["id"]: row for row in view.tables["intent"]}
    for id, point in view.memories.items():
        state, rev = point.payload["state"], point.payload["rev"]
        used = {row["rev"]: plans[row["intent"]]["kind"] for row in view.rows("use", memory=id)}
        if max(used, default=-1) >= rev:
            yield f"memory {id} is at revision {rev} in the store, revision {max(used)} was consumed"
        if state == "pending" and used.get(rev - 1, "forget") != "forget":
            yield f"memory {id} is pending again though nothing re-opened it"
        if state == "done":
            yield from _effect(view, id, rev)


def _effect(view: _View, id: str, rev: int) -> Iterator[str]:
    consumed = view.rows("use", memory=id, rev=rev - 1)
    if len(consumed) != 1:
        yield f"memory {id} is done at revision {rev}, consumed by {len(consumed)} plans"
        return
    cited = {row["seq"] for row in view.rows("cites", memory=id, role="cited")}
    told = [row for row in view.rows("journal", intent=consumed[0]["intent"]) if row["seq"] in cited]
    if not told:
        yield f"memory {id} is done, but neither cited nor declared in its plan"
    for row in told:
        if row["action"] in FED and not view.rows("evidence", observation=row["observation"], memory=id):
            yield f"memory {id} {row['action']} {row['observation']}, and is no evidence of it"
        why = view.rows("lineage", observation=row["observation"], memory=id, role="why")
        if row["action"] == "deleted" and not why:
            yield f"memory {id} retracted {row['observation']}, and nothing says so"
    twice = Counter((row["action"], row["observation"]) for row in told if row["action"] in FED)
    yield from (f"memory {id} was applied twice: {what}" for what, times in twice.items() if times > 1)


def _agreeing(view: _View) -> Iterator[str]:
    """The store's observations are the ledger's, and only those."""
    heads = {row["id"]: row for row in view.tables["observation"]}
    for id in view.observations.keys() - heads.keys():
        yield f"observation {id} is stored, and unknown to the ledger"
    for id, head in heads.items():
        point = view.observations.get(id)
        if head["state"] == "erased":
            if point is not None and (point.payload["rev"] != head["rev"] or "text" in point.payload or _named(point)):
                yield f"observation {id} is erased, and more than its husk is stored"
        elif point is None:
            yield f"observation {id} is not stored"
        else:
            yield from (f"observation {id}: {what} differs" for what in _differences(view, head, point.payload))


def _differences(view: _View, head: Row, stored: Mapping[str, Any]) -> Iterator[str]:
    yield from (key for key in ("rev", "version", "state", "confidence") if stored[key] != head[key])
    (text,) = [row["text"] for row in view.rows("version", observation=head["id"], number=head["version"])] or [None]
    if stored["text"] != text:
        yield "text"
    evidence = view.rows("evidence", observation=head["id"])
    told = {(row["memory"], row["source"], row["since_version"], bool(row["supports"])) for row in evidence}
    held = {(e["memory_id"], e["source"], e["since_version"], e["supports"]) for e in stored["evidence"]}
    if told != held or {e["memory_id"] for e in stored["evidence"]} != set(stored["evidence_memory_ids"]):
        yield "evidence"
    if set(stored["evidence_sources"]) != {row["source"] for row in evidence}:
        yield "proof"
    lineage = view.rows("lineage", observation=head["id"], number=head["version"], role="text")
    if set(stored["lineage_memory_ids"]) != {row["memory"] for row in lineage}:
        yield "lineage"


def _resting(view: _View) -> Iterator[str]:
    """Nothing is left half done."""
    planned = len(view.rows("intent", state="planned"))
    if planned > 1:
        yield f"{planned} plans are open at once"
    for row in view.tables["intent"]:
        if row["state"] != "closed" or row["body"] is not None:
            yield f"the plan {row['id']} ({row['kind']}) is {row['state']}, not closed and empty"
    for row in view.rows("tombstone", open=1):
        yield f"the tombstone of {row['memory']} is open"
    for row in view.rows("receipt", state="accepted"):
        yield f"the receipt {row['id']} is not settled"
    for id, point in view.memories.items():
        if point.payload["state"] not in ("pending", "done"):
            yield f"memory {id} is {point.payload['state']}"


def _grounded(view: _View) -> Iterator[str]:
    """Every word of a text comes from a memory of its lineage; versions have no gaps; lineage is part of the evidence."""
    for head in view.tables["observation"]:
        numbers = sorted(row["number"] for row in view.rows("version", observation=head["id"]))
        if numbers != list(range(1, head["version"] + 1)):
            yield f"observation {head['id']} is at version {head['version']}, and has {numbers}"
        evidence = {row["memory"] for row in view.rows("evidence", observation=head["id"])}
        current = view.rows("lineage", observation=head["id"], number=head["version"], role="text")
        if not {row["memory"] for row in current} <= evidence:
            yield f"observation {head['id']} was derived from memories that are no evidence of it"
    for version in view.tables["version"]:
        lineage = view.rows("lineage", observation=version["observation"], number=version["number"], role="text")
        sources = words(view.witness.texts[row["memory"]] for row in lineage if row["memory"] in view.witness.texts)
        if foreign := words([version["text"] or ""]) - sources:
            yield f"version {version['number']} of {version['observation']} holds {sorted(foreign)}, which its lineage does not"


def _erased(view: _View) -> Iterator[str]:
    gone = view.witness.erased(view.gone)
    stored = [*view.memories.values(), *view.observations.values()]
    if found := gone & words(repr(point.payload) for point in stored):
        yield f"the store holds erased words: {sorted(found)}"
    for table, rows in view.tables.items():
        if found := gone & words(map(repr, rows)):
            yield f"the ledger's {table} holds erased words: {sorted(found)}"
