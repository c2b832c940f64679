"""What must hold between the ledger's rows and the store's points, whatever code wrote them. Pure, and knows none of that code.

A bank is looked at while it is at rest: under its lease, with what was left open finished. Then everything that these rules
find is wrong, but for a warning: that says that a reason, and nothing else, was lost.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from consolidator.models import Value
from consolidator.ports import Point

Kind = Literal[
    "stuck", "unfinished", "open_plans", "lost", "missing", "erased", "unconsumed", "uncited", "ineffective", "reopened",
    "revision", "state", "unattended", "no_reason", "unknown", "absent", "differs", "husk", "proof", "versions", "twice",
    "unexplained", "orphan", "lineage", "scope", "bank", "stray_importance",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
WARNINGS: frozenset[Kind] = frozenset({"no_reason"})
STATES = ("unembedded", "pending", "done", "parked", "held", "waiting")
OWED, ASIDE = ("unembedded", "pending"), ("parked", "held")
DIGESTING = ("consolidate", "drop", "import")  # plans that leave a memory done; "forget" gives it back, "revise" does either
FED = ("created", "contested", "updated", "reinforced", "imported")  # what makes a memory evidence
PATIENCE = timedelta(hours=1)  # how long a memory may wait without anybody having been asked

Row = dict[str, Any]
Tables = Mapping[str, Sequence[Row]]
Told = Iterator[tuple[Kind, str]]


class Violation(Value):
    """Something that must not be. `kind` is stable, `what` is for people, without any text of a memory."""

    kind: Kind
    what: str

    @property
    def warning(self) -> bool:
        return self.kind in WARNINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Books:
    """A bank's rows, by what they belong to."""

    bank: str
    tables: Tables
    memories: Mapping[str, Point]
    observations: Mapping[str, Point]
    gone: frozenset[str]  # memories whose erasure is finished
    going: frozenset[str]  # and those whose erasure is under way
    plans: Mapping[str, Row]
    heads: Mapping[str, Row]
    uses: Mapping[str, list[Row]]  # by memory
    evidence: Mapping[str, list[Row]]  # by observation, as versions
    versions: Mapping[str, list[Row]]
    journal: Mapping[str, list[Row]]  # by plan
    cites: Mapping[int, list[Row]]  # by row of the journal
    lineage: Mapping[tuple[str, int], set[str]]  # of the text, by observation and number

    def cited(self, entry: Row) -> set[str]:
        return {row["memory"] for row in self.cites.get(entry["seq"], ()) if row["role"] == "cited"}


def violations(
    tables: Tables, *, bank: str, memories: Mapping[str, Point], observations: Mapping[str, Point], now: datetime,
    limit: timedelta = PATIENCE, acknowledged: Collection[str] = (),
) -> list[Violation]:
    """Everything that is wrong with a bank.

    tables: its rows, as `Ledger.dump` gives them. memories, observations: all its points.
    limit: how long a memory may be pending while nobody is asked to digest it. acknowledged: memories that a retain returned.
    """
    books = _books(tables, bank, memories, observations)
    rules = (
        _unfinished, _rested, _named, _consumed, _in_line, _set_aside, _agreeing, _husks, _proven, _versions, _owned, _derived,
        _at_home, _forgotten, _measured,
    )
    told = [*_kept(books, acknowledged), *_attended(books, now - limit), *(it for rule in rules for it in rule(books))]
    return [Violation(kind=kind, what=what) for kind, what in told]


def of_bank(tables: Tables, bank: str, memories: Collection[str] = ()) -> dict[str, list[Row]]:
    """The rows of one bank among those of all: what has no column `bank` follows what it belongs to.

    memories: ids in the bank's store; of these, rows that belong to no plan at all are the bank's too.
    """
    mine = {name: [row for row in rows if row.get("bank") == bank] for name, rows in tables.items()}
    mine["bank"] = [row for row in tables["bank"] if row["id"] == bank]
    plans, heads = {row["id"] for row in mine["intent"]}, {row["id"] for row in mine["observation"]}
    entries, anybody = {row["seq"] for row in mine["journal"]}, {row["id"] for row in tables["intent"]}
    stray = {row["memory"] for row in tables["use"] if row["intent"] not in anybody} & set(memories)
    mine["use"] = [row for row in tables["use"] if row["intent"] in plans or row["memory"] in stray]
    mine["cites"] = [row for row in tables["cites"] if row["seq"] in entries]
    return mine | {t: [row for row in tables[t] if row["observation"] in heads] for t in ("evidence", "version", "lineage")}


def _books(tables: Tables, bank: str, memories: Mapping[str, Point], observations: Mapping[str, Point]) -> _Books:
    lineage: dict[tuple[str, int], set[str]] = {}
    for row in tables["lineage"]:
        if row["role"] == "text":
            lineage.setdefault((row["observation"], row["number"]), set()).add(row["memory"])
    return _Books(
        bank=bank, tables=tables, memories=memories, observations=observations,
        gone=frozenset(row["memory"] for row in tables["tombstone"] if not row["open"]),
        going=frozenset(row["memory"] for row in tables["tombstone"] if row["open"]),
        plans={row["id"]: row for row in tables["intent"]}, heads={row["id"]: row for row in tables["observation"]},
        uses=_grouped(tables["use"], "memory"), evidence=_grouped(tables["evidence"], "observation"),
        versions=_grouped(tables["version"], "observation"), journal=_grouped(tables["journal"], "intent"),
        cites=_grouped(tables["cites"], "seq"), lineage=lineage,
    )


def _grouped(rows: Iterable[Row], key: str) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found


# what is under way


def _unfinished(books: _Books) -> Told:
    for plan in books.tables["intent"]:
        if plan["state"] != "closed" or plan["body"] is not None:
            yield "unfinished", f"the plan {plan['id']} ({plan['kind']}) is {plan['state']}, not closed and empty"
    for memory in sorted(books.going):
        yield "unfinished", f"the tombstone of {memory} is open"
    for receipt in books.tables["receipt"]:
        if receipt["state"] == "accepted":
            yield "unfinished", f"the receipt {receipt['id']} is not settled"


def _rested(books: _Books) -> Told:
    if (planned := sum(row["state"] == "planned" for row in books.tables["intent"])) > 1:
        yield "open_plans", f"{planned} plans are open at once"


# memories


def _kept(books: _Books, acknowledged: Iterable[str]) -> Told:
    for id in sorted(set(acknowledged) - books.memories.keys() - books.gone - books.going):
        yield "lost", f"memory {id} was acknowledged, and is neither stored nor tombstoned"


def _named(books: _Books) -> Told:
    """What names a memory names one that is there; what was erased is named nowhere."""
    named = [(table, row["memory"]) for table in ("evidence", "lineage", "cites", "use", "parked") for row in books.tables[table]]
    for table, memory in dict.fromkeys(named):
        if memory in books.gone:
            yield "erased", f"{table} names the tombstoned memory {memory}"
        elif memory not in books.memories and memory not in books.going:
            yield "missing", f"{table} names the memory {memory}, which is not stored"
    for id in sorted(books.gone & books.memories.keys()):
        yield "erased", f"memory {id} is tombstoned, and stored"
    for id, point in books.observations.items():
        if _resting_on(point) & books.gone:
            yield "erased", f"observation {id} rests in the store on tombstoned memories"


def _resting_on(point: Point) -> set[str]:
    return {*point.payload.get("evidence_memory_ids", ()), *point.payload.get("lineage_memory_ids", ())}


def _present(books: _Books) -> Iterator[tuple[str, str, int]]:
    """Id, state and revision of each memory that is not being erased."""
    for id, point in books.memories.items():
        if id not in books.gone and id not in books.going:
            yield id, str(point.payload.get("state")), point.payload.get("rev", 0)


def _consumed(books: _Books) -> Told:
    """A memory is done because one plan has digested it since it last became pending, and then it has had its effect."""
    for id, state, rev in _present(books):
        uses = books.uses.get(id, ())
        highest = max((row["rev"] for row in uses), default=-1)
        if state not in STATES:
            yield "state", f"memory {id} is in no known state: {state}"
        elif highest >= rev:
            yield "revision", f"memory {id} is at revision {rev} in the store, revision {highest} was consumed"
        elif state == "done":
            yield from _digested(books, id, rev, [row for row in uses if row["rev"] == rev - 1])
        elif state != "waiting" and any(_kind(books, row) in DIGESTING for row in uses if row["rev"] == rev - 1):
            yield "reopened", f"memory {id} is {state} again though nothing re-opened it"


def _kind(books: _Books, use: Row) -> str:
    return str(books.plans.get(use["intent"], {}).get("kind", ""))


def _digested(books: _Books, id: str, rev: int, uses: Sequence[Row]) -> Told:
    known = [row for row in uses if row["intent"] in books.plans]
    if len(uses) != 1 or any(_kind(books, row) not in (*DIGESTING, "revise") for row in known):
        by = ", ".join(f"a {_kind(books, row)} plan" for row in known) if len(uses) == 1 else f"{len(uses)} plans"
        yield "unconsumed", f"memory {id} is done at revision {rev}, consumed by {by}"
    elif known:
        told = [entry for entry in books.journal.get(uses[0]["intent"], ()) if id in books.cited(entry)]
        if not told:
            yield "uncited", f"memory {id} is done, but neither cited nor declared in its plan"
        for entry in told:
            if entry["action"] in FED and id not in {row["memory"] for row in books.evidence.get(entry["observation"], ())}:
                yield "ineffective", f"memory {id} {entry['action']} {entry['observation']}, and is no evidence of it"


def _in_line(books: _Books) -> Told:
    """A revision counts the plans that made it: there are no fewer than versions."""
    for id, head in books.heads.items():
        if head["rev"] < head["version"] - 1:
            yield "revision", f"observation {id} is at revision {head['rev']}, and has {head['version']} versions"


def _attended(books: _Books, since: datetime) -> Told:
    """Who waits for long, waits for something: a time, or a person."""
    if any(row["due_at"] is not None or row["paused"] is not None for row in books.tables["bank"] if row["id"] == books.bank):
        return
    for id, state, _ in _present(books):
        retained_at = books.memories[id].payload.get("retained_at")
        if state in OWED and (retained_at is None or _instant(retained_at) < since):
            yield "unattended", f"memory {id} is {state} for long, and nobody is asked to digest it"


def _set_aside(books: _Books) -> Told:
    rows = {row["memory"]: row["state"] for row in books.tables["parked"]}
    for id, state, _ in _present(books):
        told = rows.get(id)
        if state in ASIDE and told != state:
            yield "no_reason", f"memory {id} is {state}, and nobody noted why"
        if (state == "done" and told is not None) or (state in OWED and told in ASIDE):
            yield "no_reason", f"memory {id} is {state}, but noted as {told}"


# observations


def _agreeing(books: _Books) -> Told:
    """The store's observations are the ledger's, and only those."""
    for id in books.observations.keys() - books.heads.keys():
        yield "unknown", f"observation {id} is stored, and unknown to the ledger"
    for id, head in books.heads.items():
        if head["state"] == "erased":
            continue
        if id not in books.observations:
            yield "absent", f"observation {id} is not stored"
            continue
        for what in _differences(books, head, books.observations[id].payload):
            yield "differs", f"observation {id}: {what} differs"


def _differences(books: _Books, head: Row, stored: Mapping[str, Any]) -> Iterator[str]:
    yield from (key for key in ("rev", "version", "state", "confidence", "contests", "category") if stored.get(key) != head[key])
    texts = [row["text"] for row in books.versions.get(head["id"], ()) if row["number"] == head["version"]]
    if texts and stored.get("text") != texts[0]:
        yield "text"
    if set(stored.get("tags", ())) != set(json.loads(head["tags"])):
        yield "scope"
    rows, held = books.evidence.get(head["id"], ()), stored.get("evidence", ())
    if Counter(map(_link, rows)) != Counter(_link({"memory": e.get("memory_id"), **e}) for e in held):
        yield "evidence"
    elif {row["memory"] for row in rows} != set(stored.get("evidence_memory_ids", ())):
        yield "index of evidence"
    elif {row["source"] for row in rows} != set(stored.get("evidence_sources", ())):
        yield "index of sources"
    if set(stored.get("lineage_memory_ids", ())) != books.lineage.get((head["id"], head["version"]), set()):
        yield "lineage"


def _link(e: Mapping[str, Any]) -> tuple[Any, ...]:
    told, at = [e.get(key) for key in ("memory", "source", "since_version", "trust")], e.get("occurred_at")
    return *told, bool(e.get("supports")), _instant(at) if at else None


def _instant(value: Any) -> datetime:
    """A time as stores and databases give it; without a zone it is UTC."""
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _husks(books: _Books) -> Told:
    """Of an erased observation nothing is left but its id and revision; the store may have dropped these too."""
    for id, head in books.heads.items():
        if head["state"] != "erased":
            continue
        point = books.observations.get(id)
        if point is not None and (point.payload.get("rev") != head["rev"] or "text" in point.payload or _resting_on(point)):
            yield "husk", f"observation {id} is erased, and more than its husk is stored"
        if books.evidence.get(id) or any(row["text"] is not None for row in books.versions.get(id, ())):
            yield "husk", f"observation {id} is erased, and more than its husk is in the ledger"


def _proven(books: _Books) -> Told:
    """Proof counts sources: each is that of a memory which is there, and of the observation's own scope."""
    for id, rows in books.evidence.items():
        scope = set(json.loads(books.heads[id]["tags"])) if id in books.heads else None
        for row in rows:
            if (point := books.memories.get(row["memory"])) is None:
                continue
            if point.payload.get("source") != row["source"]:
                yield "proof", f"observation {id} counts a source of memory {row['memory']} which that does not come from"
            if scope is not None and set(point.payload.get("tags", ())) != scope:
                yield "scope", f"observation {id} rests on memory {row['memory']}, which is of another scope"


def _versions(books: _Books) -> Told:
    """Versions are gapless, the last one is the head's, and each is the work of one plan, which says so."""
    told = {(row["intent"], row["observation"], row["version"]) for row in books.tables["journal"]}
    for id, head in books.heads.items():
        rows = sorted(books.versions.get(id, ()), key=lambda row: row["number"])
        if [row["number"] for row in rows] != list(range(1, head["version"] + 1)):
            yield "versions", f"observation {id} is at version {head['version']}, and has {[row['number'] for row in rows]}"
        elif head["state"] != "erased" and (rows[-1]["text"] is None or rows[-1]["state"] != head["state"]):
            yield "versions", f"observation {id} is {head['state']}, and its last version is not, or has no text"
        for plan, times in Counter(row["intent"] for row in rows).items():
            if times > 1:
                yield "twice", f"the plan {plan} has made {times} versions of observation {id}"
        for row in rows:
            if row["intent"] in books.plans and (row["intent"], id, row["number"]) not in told:
                yield "unexplained", f"version {row['number']} of observation {id} is in no row of the journal"


def _owned(books: _Books) -> Told:
    """What belongs to something belongs to something that is there."""
    entries = {row["seq"] for row in books.tables["journal"]}
    numbers = {(row["observation"], row["number"]) for row in books.tables["version"]}
    stray: dict[str, set[str]] = {
        "plan": {row["intent"] for table in ("use", "version", "journal") for row in books.tables[table]} - books.plans.keys(),
        "entry of the journal": {str(row["seq"]) for row in books.tables["cites"] if row["seq"] not in entries},
        "observation": {*books.evidence, *books.versions} - books.heads.keys(),
        "version": {f"{id}/{number}" for id, number in books.lineage.keys() - numbers},
        "transcript": _ids(books, "showing", "transcript") - _ids(books, "transcript", "id"),
        "score": _ids(books, "member", "score") - _ids(books, "score", "seq"),
    }
    for what, ids in stray.items():
        for id in sorted(ids):
            yield "orphan", f"rows belong to the {what} {id}, which is not there"


def _ids(books: _Books, table: str, column: str) -> set[str]:
    return {str(row[column]) for row in books.tables[table]}


def _derived(books: _Books) -> Told:
    """A text was derived from what its observation rests on, from what its maker had read, or from an earlier text's origins."""
    read: dict[tuple[str, int], set[str]] = {}
    for entry in books.tables["journal"]:
        shown = {row["memory"] for row in books.cites.get(entry["seq"], ())}
        read.setdefault((entry["observation"], entry["version"]), set()).update(shown)
    for id, head in books.heads.items():
        known = {row["memory"] for row in books.evidence.get(id, ())}
        if head["state"] == "live" and not books.lineage.get((id, head["version"])):
            yield "lineage", f"observation {id} is live, and derived from nothing"
        for row in sorted(books.versions.get(id, ()), key=lambda row: row["number"]):
            lineage = books.lineage.get((id, row["number"]), set())
            if foreign := lineage - known - read.get((id, row["number"]), set()):
                yield "lineage", f"version {row['number']} of observation {id} is derived from {min(foreign)}, no evidence of it"
            known |= lineage


# importance


def _forgotten(books: _Books) -> Told:
    """No transcript and no measurement names what was erased."""
    gone = books.gone | {id for id, head in books.heads.items() if head["state"] == "erased"}
    for table, what in (("showing", "transcript"), ("member", "score"), ("importance", "unit")):
        for row in books.tables[table]:
            if row["item"] in gone:
                yield "erased", f"{table} names {row['item']} with the {what} {row[what]}, and that was erased"


def _measured(books: _Books) -> Told:
    """What was measured was measured of something, and what has an importance has a score in the same unit."""
    units = {row["seq"]: row["unit"] for row in books.tables["score"]}
    known = books.memories.keys() | books.heads.keys() | books.going | books.gone
    scored = {(row["item"], units.get(row["score"])) for row in books.tables["member"]}
    for item in sorted((_ids(books, "member", "item") | _ids(books, "importance", "item")) - known):
        yield "stray_importance", f"there is a score or an importance of {item}, which is no memory and no observation"
    for row in books.tables["importance"]:
        if (row["item"], row["unit"]) not in scored:
            yield "stray_importance", f"{row['item']} has an importance in {row['unit']}, and no score"
    for seq in sorted(units.keys() - {row["score"] for row in books.tables["member"]}):
        yield "stray_importance", f"the score {seq} is of no item"


def _at_home(books: _Books) -> Told:
    """Nothing of another bank."""
    for table, rows in books.tables.items():
        foreign = sum(row.get("id" if table == "bank" else "bank", books.bank) != books.bank for row in rows)
        if foreign:
            yield "bank", f"{foreign} rows of {table} are of another bank"
    for id, point in [*books.memories.items(), *books.observations.items()]:
        if point.payload.get("bank", books.bank) != books.bank:
            yield "bank", f"the point {id} is of another bank"
