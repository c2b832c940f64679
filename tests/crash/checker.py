"""Whether store and ledger hold what the outside was told, and nothing else: what `consolidator.invariants` finds, and what only
a witness can know.

The ledger is read by plain SELECTs, the store through its port. A bank is checked at rest: after a pass that ended well.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine, inspect

from consolidator import invariants
from consolidator.invariants import of_bank
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


def read_database(url: str, names: Sequence[str] = ()) -> Tables:
    """`read_ledger` for any database; names: only these tables."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    with engine.connect() as base:
        found = {name: base.exec_driver_sql(f'SELECT * FROM "{name}"') for name in names or inspect(base).get_table_names()}
        return {name: [dict(row) for row in rows.mappings()] for name, rows in found.items()}


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
    """Everything that is wrong, in words; empty when all holds. tables: of this bank, or of all."""
    memories, observations = await read_store(storage.memories, bank), await read_store(storage.observations, bank)
    witness.texts |= {id: str(point.payload["text"]) for id, point in memories.items()}
    witness.derived |= {str(point.payload.get("text", "")) for point in observations.values()}
    mine = of_bank(tables, bank, memories)
    found = invariants.violations(
        mine, bank=bank, memories=memories, observations=observations, now=datetime.now(UTC), acknowledged=witness.kept
    )
    view = _View(mine, memories, observations, witness, tombstoned(tables, bank))
    rules = (_forgotten, _digested, _once, _told, _grounded, _erased)
    return [it.what for it in found if not it.warning] + [problem for rule in rules for problem in rule(view)]


@dataclass(frozen=True, slots=True)
class _View:
    tables: Tables
    memories: dict[str, Point]
    observations: dict[str, Point]
    witness: Witness
    gone: set[str]
    sorted_by: dict[tuple[str, ...], dict[tuple[Any, ...], list[Row]]] = field(default_factory=dict)

    def rows(self, table: str, **equal: Any) -> list[Row]:
        """Each table is read once for all values of these keys: an old bank is asked for thousands."""
        if (rows := self.sorted_by.get((table, *equal))) is None:
            rows = self.sorted_by[table, *equal] = {}
            for row in self.tables[table]:
                rows.setdefault(tuple(row[key] for key in equal), []).append(row)
        return rows.get(tuple(equal.values()), [])


def _forgotten(view: _View) -> Iterator[str]:
    for id in view.witness.forgotten - view.gone:
        yield f"memory {id} was acknowledged as forgotten, and has no tombstone"


def _digested(view: _View) -> Iterator[str]:
    """The stand-in digests everything."""
    for id, point in view.memories.items():
        if point.payload["state"] not in ("pending", "done"):
            yield f"memory {id} is {point.payload['state']}"


def _once(view: _View) -> Iterator[str]:
    """Only the plan that consumed a memory rests on it: the stand-in cites no other."""
    digesting = {row["id"] for row in view.rows("intent", kind="consolidate")}
    maker = {row["seq"]: row["intent"] for row in view.tables["journal"] if row["intent"] in digesting}
    used = {(row["memory"], row["intent"]) for row in view.tables["use"]}
    cited = {(row["memory"], maker[row["seq"]]) for row in view.rows("cites", role="cited") if row["seq"] in maker}
    for memory, plan in cited - used:
        yield f"memory {memory} is cited by the plan {plan}, which did not consume it"


def _told(view: _View) -> Iterator[str]:
    """What the plan that consumed a memory last made of it was done once, and a retraction says why."""
    plans = {row["memory"]: row["intent"] for row in sorted(view.tables["use"], key=lambda row: row["rev"])}
    for id, point in view.memories.items():
        cited = {row["seq"] for row in view.rows("cites", memory=id, role="cited")}
        told = [row for row in view.rows("journal", intent=plans.get(id)) if row["seq"] in cited]
        done = point.payload["state"] == "done"
        for row in told:
            why = view.rows("lineage", observation=row["observation"], memory=id, role="why")
            if done and row["action"] == "deleted" and not why:
                yield f"memory {id} retracted {row['observation']}, and nothing says so"
        twice = Counter((row["action"], row["observation"]) for row in told if row["action"] in FED)
        yield from (f"memory {id} was applied twice: {what}" for what, times in twice.items() if times > 1)


def _grounded(view: _View) -> Iterator[str]:
    """Every word of a text comes from a memory of its lineage, which is part of the evidence: the stand-in cites all it uses.

    But for a text that another observation had before: that may have come from there.
    """
    for head in view.tables["observation"]:
        evidence = {row["memory"] for row in view.rows("evidence", observation=head["id"])}
        current = view.rows("lineage", observation=head["id"], number=head["version"], role="text")
        beyond = {row["memory"] for row in current} - evidence
        if beyond and not beyond <= _said_by_others(view, head["id"]):
            yield f"observation {head['id']} was derived from memories that are no evidence of it"
    for version in view.tables["version"]:
        lineage = view.rows("lineage", observation=version["observation"], number=version["number"], role="text")
        sources = words(view.witness.texts[row["memory"]] for row in lineage if row["memory"] in view.witness.texts)
        if foreign := words([version["text"] or ""]) - sources:
            yield f"version {version['number']} of {version['observation']} holds {sorted(foreign)}, which its lineage does not"


def _said_by_others(view: _View, observation: str) -> set[str]:
    """Origins of its texts where others say, or have said, the very same: whose text was shown may have lent it."""
    texts = {row["text"] for row in view.rows("version", observation=observation)} - {None}
    told = [row for row in view.tables["version"] if row["text"] in texts and row["observation"] != observation]
    lent = {(row["observation"], row["number"]) for row in told}
    return {row["memory"] for row in view.rows("lineage", role="text") if (row["observation"], row["number"]) in lent}


def _erased(view: _View) -> Iterator[str]:
    gone = view.witness.erased(view.gone)
    stored = [*view.memories.values(), *view.observations.values()]
    if found := gone & words(repr(point.payload) for point in stored):
        yield f"the store holds erased words: {sorted(found)}"
    for table, rows in view.tables.items():
        if found := gone & words(map(repr, rows)):
            yield f"the ledger's {table} holds erased words: {sorted(found)}"
