"""Between the ledger's rows and the engine's values."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    String,
    Table,
    and_,
    cast,
    delete,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from consolidator.models import Evidence, Observation, ObservationState, Version
from consolidator.plans import Change, Entry, History, Intent
from consolidator.transcripts import Transcript
from consolidator.words import wordings
from consolidator_providers import ledger_schema as t

CHUNK = 500  # bound parameters in one statement

Rows = Sequence[Row[Any]]
K = TypeVar("K", str, int)


def chunks(ids: Iterable[K]) -> Iterable[list[K]]:
    known = list(dict.fromkeys(ids))
    for start in range(0, len(known), CHUNK):
        yield known[start : start + CHUNK]


def insert_all(db: Connection, table: Any, rows: Iterable[Mapping[str, Any]]) -> None:
    if found := [dict(row) for row in rows]:
        db.execute(insert(table), found)


def head_row(bank: str, after: Observation) -> dict[str, Any]:
    plain = {"id", "rev", "version", "state", "confidence", "contests", "category", "created_at", "updated_at"}
    fields = after.model_dump(include=plain)
    return {**fields, "state": after.state.value, "bank": bank, "tags": json.dumps(sorted(after.tags))}


def write_change(db: Connection, intent: Intent, change: Change) -> int:
    """Everything of an after-image but its head; returns how many journal rows lost text."""
    after, purged = change.after, 0
    db.execute(delete(t.evidence).where(t.evidence.c.observation == after.id))
    insert_all(db, t.evidence, (_evidence_row(after.id, n, e) for n, e in enumerate(after.evidence)))
    if change.purge:
        purged = purge(db, after.id, change.purge)
    if change.version is not None:
        db.execute(insert(t.version), _version_row(intent.id, change))
        insert_all(db, t.lineage, _lineage_rows(change.version))
    return purged


def _evidence_row(observation: str, position: int, e: Evidence) -> dict[str, Any]:
    return {
        "observation": observation, "position": position, "memory": e.memory_id, "source": e.source, "occurred_at": e.occurred_at,
        "since_version": e.since_version, "trust": e.trust, "supports": e.supports,
    }


def _version_row(intent: str, change: Change) -> dict[str, Any]:
    version = change.version
    assert version is not None
    fields = version.model_dump(exclude={"observation_id", "lineage", "why", "state"})
    place = {"observation": version.observation_id, "intent": intent}
    return {**fields, **place, "state": version.state.value, "vector": change.vector}


def _lineage_rows(version: Version) -> Iterable[dict[str, Any]]:
    for role, memories in (("text", version.lineage), ("why", version.why)):
        for memory in sorted(memories):
            yield {"observation": version.observation_id, "number": version.number, "memory": memory, "role": role}


def purge(db: Connection, observation: str, numbers: Sequence[int]) -> int:
    """Versions lose text, vector and lineage; journal rows that made them or started from them lose the text."""
    of = and_(t.version.c.observation == observation, t.version.c.number.in_(numbers))
    db.execute(update(t.version).where(of).values(text=None, reason=None, vector=None))
    db.execute(delete(t.lineage).where(t.lineage.c.observation == observation, t.lineage.c.number.in_(numbers)))
    made = and_(t.journal.c.observation == observation, t.journal.c.version.in_(numbers))
    rows = db.execute(update(t.journal).where(made).values(before=None, after=None, reason=None)).rowcount
    after = and_(t.journal.c.observation == observation, t.journal.c.version.in_([n + 1 for n in numbers]))
    db.execute(update(t.journal).where(after).values(before=None))
    return rows


def scrub(db: Connection, bank: str, erased: Sequence[str]) -> int:
    """Every other trace of erased memories; returns how many journal rows lost their text."""
    if not erased:
        return 0
    rows = 0
    holding = or_(t.journal.c.before.is_not(None), t.journal.c.after.is_not(None), t.journal.c.reason.is_not(None))
    for ids in chunks(erased):
        rows += _untell(db, bank, _rows_with("cited", ids), holding, before=None, after=None, reason=None)
        # what was read beside may stand in a reason, and in a text that was never made a version
        shown = _rows_with("shown", ids)
        rows += _untell(db, bank, shown, t.journal.c.reason.is_not(None), reason=None)
        made = select(t.journal.c.observation, t.journal.c.version).where(t.journal.c.seq.in_(shown))
        db.execute(update(t.version).where(tuple_(t.version.c.observation, t.version.c.number).in_(made)).values(reason=None))
        rows += _untell(db, bank, shown, and_(t.journal.c.version.is_(None), t.journal.c.after.is_not(None)), after=None)
        for table in (t.cites, t.evidence, t.lineage, t.use, t.parked):
            db.execute(delete(table).where(table.c.memory.in_(ids)))
    # a reply may quote what it was shown, and a reason or an error the reply
    quoting = (t.parked.c.bank == bank, t.parked.c.reply != "")
    db.execute(update(t.parked).where(*quoting).values(reply=None, reason="what was said of it was erased"))
    db.execute(update(t.bank).where(t.bank.c.id == bank).values(last_error=None))
    return rows


def _rows_with(role: str, memories: Sequence[str]) -> Any:
    return select(t.cites.c.seq).where(t.cites.c.memory.in_(memories), t.cites.c.role == role)


def _untell(db: Connection, bank: str, seqs: Any, holding: Any, **values: None) -> int:
    told = update(t.journal).where(t.journal.c.bank == bank, t.journal.c.seq.in_(seqs), holding)
    return db.execute(told.values(**values)).rowcount


def said(transcript: Transcript) -> Iterator[str]:
    """Each piece of it that may be a text of its own elsewhere: segments, and lines."""
    pieces = (piece for turn in transcript.turns for text in (turn.text, *(s.text for s in turn.segments))
              for piece in (text, *text.splitlines()))
    yield from dict.fromkeys(piece for piece in pieces if piece.strip())


def quoting(db: Connection, bank: str, key: bytes, fingerprints: Sequence[str]) -> list[str]:
    """Transcripts with a wording of what is erased. fingerprints: the beginnings of keyed digests."""
    if not fingerprints:
        return []
    gone, size, c = frozenset(fingerprints), len(fingerprints[0]), t.transcript.c
    found = []
    for id, body in db.execute(select(c.id, c.body).where(c.bank == bank)):
        runs = frozenset().union(*map(wordings, said(Transcript.model_validate_json(body))))
        if any(hmac.digest(key, run.encode(), "sha256").hex()[:size] in gone for run in runs):
            found.append(id)
    return found


def drop_transcripts(db: Connection, bank: str, items: Iterable[str], *ids: str) -> None:
    """Those with these ids, and those that show one of the items, with their texts. items: ids, and keyed digests of lines."""
    s, shown = t.showing.c, set(ids)
    for part in chunks(items):
        shown.update(db.scalars(select(s.transcript).where(s.item.in_(part), in_bank(t.showing, bank))))
    for part in chunks(shown):
        db.execute(delete(t.showing).where(s.transcript.in_(part), in_bank(t.showing, bank)))
        db.execute(delete(t.transcript).where(t.transcript.c.id.in_(part), in_bank(t.transcript, bank)))


def drop_all_measured(db: Connection, bank: str) -> None:
    """Every transcript, score and importance of a bank."""
    kept = select(t.transcript.c.id).where(t.transcript.c.bank == bank)
    db.execute(delete(t.showing).where(t.showing.c.transcript.in_(kept), in_bank(t.showing, bank)))
    scores = select(t.score.c.seq).where(t.score.c.bank == bank)
    db.execute(delete(t.member).where(t.member.c.score.in_(scores)))
    for table in (t.transcript, t.score, t.importance):
        db.execute(delete(table).where(table.c.bank == bank))


def drop_scores(db: Connection, bank: str, items: Sequence[str]) -> None:
    """Those whose group has one of these; and all that is known of whatever was in such a group, so that it is measured anew."""
    m, moved = t.member.c, set(items)
    for seqs in chunks(_scores_of(db, bank, items)):
        moved.update(db.scalars(select(m.item).where(m.score.in_(seqs))))
        _drop_rows(db, seqs)
    for part in chunks(moved):
        db.execute(delete(t.importance).where(t.importance.c.item.in_(part), in_bank(t.importance, bank)))
    for seqs in chunks(_scores_of(db, bank, moved)):
        _leave(db, seqs, moved)


def _scores_of(db: Connection, bank: str, items: Iterable[str]) -> set[int]:
    m = t.member.c
    parts = (select(m.score).where(m.item.in_(part), in_bank(t.member, bank)) for part in chunks(items))
    return {seq for query in parts for seq in db.scalars(query)}


def _leave(db: Connection, seqs: Sequence[int], items: Iterable[str]) -> None:
    """What was measured of others together with these stays theirs alone, under a key that keeps no measurement away."""
    m = t.member.c
    for part in chunks(items):
        db.execute(delete(t.member).where(m.score.in_(seqs), m.item.in_(part)))
    left = set(db.scalars(select(m.score).where(m.score.in_(seqs)).distinct()))
    _drop_rows(db, [seq for seq in seqs if seq not in left])
    apart = literal("apart/", String).concat(cast(t.score.c.seq, String))
    db.execute(update(t.score).where(t.score.c.seq.in_(left)).values(digest=apart))


def _drop_rows(db: Connection, seqs: Sequence[int]) -> None:
    db.execute(delete(t.member).where(t.member.c.score.in_(seqs)))
    db.execute(delete(t.score).where(t.score.c.seq.in_(seqs)))


def write_entries(db: Connection, entries: Iterable[Entry]) -> None:
    for entry in entries:
        fields = entry.model_dump(exclude={"seq", "cites", "shown", "observation_id"})
        result = db.execute(insert(t.journal), {**fields, "observation": entry.observation_id})
        (seq,) = result.inserted_primary_key or (None,)
        roles = (("cited", entry.cites), ("shown", entry.shown))
        found = [(memory, role) for role, memories in roles for memory in dict.fromkeys(memories)]
        insert_all(db, t.cites, ({"seq": seq, "memory": memory, "role": role} for memory, role in found))


def read_histories(db: Connection, bank: str, ids: Sequence[str]) -> list[History]:
    heads = _by_id(db, select(t.observation).where(in_bank(t.observation, bank)), t.observation.c.id, ids)
    live = [i for i in dict.fromkeys(ids) if i in heads and heads[i][0].state != ObservationState.ERASED]
    evidence = _by_id(db, select(t.evidence).order_by(t.evidence.c.position), t.evidence.c.observation, live)
    versions = _by_id(db, select(t.version).order_by(t.version.c.number), t.version.c.observation, live)
    lineage = _by_id(db, select(t.lineage), t.lineage.c.observation, live)
    return [_history(heads[i][0], evidence.get(i, []), versions[i], lineage.get(i, [])) for i in live]


def _by_id(db: Connection, query: Any, column: Any, ids: Iterable[str]) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = {}
    for part in chunks(ids):
        for row in db.execute(query.where(column.in_(part))):
            found.setdefault(getattr(row, column.key), []).append(row)
    return found


def _history(head: Row[Any], evidence: Rows, versions: Rows, lineage: Rows) -> History:
    kept = tuple(_version(row, lineage) for row in versions)
    current = kept[-1]
    observation = Observation(
        id=head.id, bank=head.bank, text=current.text or "", tags=frozenset(json.loads(head.tags)),
        state=ObservationState(head.state), confidence=head.confidence, version=head.version, rev=head.rev,
        evidence=tuple(_evidence(row) for row in evidence), contests=head.contests, category=head.category,
        created_at=head.created_at, updated_at=head.updated_at,
    )
    return History(observation=observation, versions=kept, vectors={row.number: row.vector for row in versions if row.vector})


def _evidence(row: Row[Any]) -> Evidence:
    return Evidence(
        memory_id=row.memory, source=row.source, occurred_at=row.occurred_at, since_version=row.since_version,
        trust=row.trust, supports=row.supports,
    )


def _version(row: Row[Any], lineage: Rows) -> Version:
    mine = [line for line in lineage if line.number == row.number]
    return Version(
        observation_id=row.observation, number=row.number, text=row.text, digest=row.digest, state=ObservationState(row.state),
        confidence=row.confidence, change=row.change, reason=row.reason or "", by=row.by, at=row.at,
        lineage=frozenset(line.memory for line in mine if line.role == "text"),
        why=frozenset(line.memory for line in mine if line.role == "why"),
    )


def read_entries(db: Connection, bank: str, observation_id: str | None, limit: int) -> list[Entry]:
    query = select(t.journal).where(t.journal.c.bank == bank).order_by(t.journal.c.seq.desc()).limit(limit)
    if observation_id is not None:
        query = query.where(t.journal.c.observation == observation_id)
    rows = list(reversed(list(db.execute(query))))
    cited: dict[int, list[str]] = {}
    for start in range(0, len(rows), CHUNK):
        seqs = [row.seq for row in rows[start : start + CHUNK]]
        cites = select(t.cites).where(t.cites.c.seq.in_(seqs), t.cites.c.role == "cited").order_by(t.cites.c.memory)
        for cite in db.execute(cites):
            cited.setdefault(cite.seq, []).append(cite.memory)
    return [_entry(row, cited.get(row.seq, [])) for row in rows]


def _entry(row: Row[Any], cited: Sequence[str]) -> Entry:
    return Entry(
        seq=row.seq, bank=row.bank, intent=row.intent, at=row.at, action=row.action, observation_id=row.observation,
        version=row.version, before=row.before, after=row.after, reason=row.reason, cites=tuple(cited), by=row.by,
        digest=row.digest,
    )


def read_tellers(db: Connection, bank: str, memories: Sequence[str]) -> list[tuple[int, str | None, int | None]]:
    """Journal rows that cite one of the memories, or whose maker was shown it."""
    found: dict[int, tuple[int, str | None, int | None]] = {}
    for ids in chunks(memories):
        seqs = select(t.cites.c.seq).where(t.cites.c.memory.in_(ids))
        told = select(t.journal.c.seq, t.journal.c.observation, t.journal.c.version)
        for seq, observation, version in db.execute(told.where(t.journal.c.bank == bank, t.journal.c.seq.in_(seqs))):
            found[seq] = (seq, observation, version)
    return [found[seq] for seq in sorted(found)]


def in_bank(table: Table, bank: str) -> ColumnElement[bool]:
    """For rows that are named by their keys besides: no index serves this, so that none is chosen that reads the whole bank."""
    return table.c.bank.concat("") == bank


def derived(bank: str, ids: Sequence[str]) -> Any:
    """Observations with a text, of any version, that was derived from one of these memories."""
    told = select(t.lineage.c.observation).where(t.lineage.c.memory.in_(ids), t.lineage.c.role == "text")
    return select(t.observation.c.id).where(t.observation.c.id.in_(told), in_bank(t.observation, bank))


def naming(bank: str, ids: Sequence[str]) -> Any:
    """Observations that rest on one of these memories, in evidence or in any version."""
    cited = select(t.evidence.c.observation).where(t.evidence.c.memory.in_(ids))
    derived = select(t.lineage.c.observation).where(t.lineage.c.memory.in_(ids))
    return select(t.observation.c.id).where(t.observation.c.id.in_(cited.union(derived)), in_bank(t.observation, bank))
