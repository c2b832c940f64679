"""Importance: transcripts that wait to be scored, what was measured, and what each item's measurements come to."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from consolidator.errors import InvalidInput
from consolidator.models import ObservationState
from consolidator.transcripts import Importance, Score, Transcript
from consolidator.words import plain
from consolidator_providers import ledger_plans as plans
from consolidator_providers import ledger_queue as queue
from consolidator_providers import ledger_rows as rows
from consolidator_providers import ledger_schema as t

Step = Callable[[Importance | None, Score, str], Importance]
Place = tuple[str, str]  # unit and item
Once = tuple[str, str, str]  # unit, response and item
MOST_LETTERS = 128  # of an item's id

# transcripts


def keep_transcript(db: Connection, bank: str, transcript: Transcript) -> bool:
    _demand_ids(transcript.items)
    owner = queue.lock(db, t.bank.c.id == bank)
    assert owner is not None
    mine = (t.transcript.c.id == transcript.id, t.transcript.c.bank == bank)
    before = db.execute(select(t.transcript.c.closed, t.transcript.c.turns).where(*mine)).one_or_none()
    again = before is not None and before.closed and transcript.closed and before.turns == len(transcript.turns)
    lines = {hmac.digest(owner.key, plain(line).encode(), "sha256").hex() for line in rows.said(transcript)}
    if again or _withheld(db, bank, transcript.items) or _erased(db, bank, lines) or _outdated(db, bank, transcript):
        return False
    values = {**_state(transcript), "body": transcript.model_dump_json()}
    if before is None:
        db.execute(insert(t.transcript), {"id": transcript.id, "bank": bank, **values})
    else:
        db.execute(update(t.transcript).where(*mine), values)
    _show(db, bank, transcript, lines)
    return True


def _demand_ids(items: Iterable[str]) -> None:
    """Raises InvalidInput for what is no id in any database."""
    for item in items:
        if not _is_id(item):
            raise InvalidInput(f"an item is named by its id, of 1 to {MOST_LETTERS} whole characters")


def _is_id(item: str) -> bool:
    return 0 < len(item) <= MOST_LETTERS and t.told(item) == item


def _state(transcript: Transcript) -> dict[str, Any]:
    """What changes whenever something is added."""
    return {"turns": len(transcript.turns), "closed": transcript.closed, "at": transcript.at}


def _show(db: Connection, bank: str, transcript: Transcript, lines: Set[str]) -> None:
    """Note what it shows: items, and lines, for what somebody said may be a memory, and be erased, without being marked."""
    s = t.showing.c
    mine = (s.transcript == transcript.id, s.bank == bank)
    before, now = set(db.scalars(select(s.item).where(*mine))), {*transcript.items, *lines}
    for part in rows.chunks(before - now):
        db.execute(delete(t.showing).where(*mine, s.item.in_(part)))
    place = {"transcript": transcript.id, "bank": bank}
    rows.insert_all(db, t.showing, ({"item": item, **place} for item in sorted(now - before)))


def transcripts(db: Connection, bank: str, limit: int) -> list[Transcript]:
    c = t.transcript.c
    query = select(c.body).where(c.bank == bank).order_by(c.at, c.id).limit(limit)
    return [Transcript.model_validate_json(body) for body in db.scalars(query)]


def unscored(db: Connection) -> list[str]:
    return sorted(db.scalars(select(t.transcript.c.bank).distinct()))


def transcript_scored(db: Connection, bank: str, transcript: Transcript) -> None:
    queue.lock(db, t.bank.c.id == bank)
    c = t.transcript.c
    as_it_was = (c[name] == value for name, value in _state(transcript).items())
    mine = (c.id == transcript.id, c.bank == bank)
    if db.scalar(select(c.id).where(*mine, *as_it_was)) is not None:
        db.execute(delete(t.showing).where(t.showing.c.transcript == transcript.id, t.showing.c.bank == bank))
        db.execute(delete(t.transcript).where(*mine))


def _erased(db: Connection, bank: str, lines: Iterable[str]) -> bool:
    """Whether one of these is an erased text. The ledger knows no memory's text, so that one that was told again counts too."""
    c = t.receipt_digest.c
    parts = (select(c.digest).where(c.digest.in_(part), rows.in_bank(t.receipt_digest, bank)) for part in rows.chunks(lines))
    return any(db.scalars(query.limit(1)).first() is not None for query in parts)


def _outdated(db: Connection, bank: str, transcript: Transcript) -> bool:
    """Whether it shows an observation that has lost a version to an erasure, and not as one of those that stand."""
    v, o = t.version.c, t.observation.c
    stands: dict[str, list[str]] = {}
    for part in rows.chunks(transcript.items):
        mine = select(o.id).where(o.id.in_(part), rows.in_bank(t.observation, bank))
        lost = set(db.scalars(select(v.observation).where(v.observation.in_(mine), v.text.is_(None))))
        stands |= {id: [] for id in lost}
        for id, text in db.execute(select(v.observation, v.text).where(v.observation.in_(lost), v.text.is_not(None))):
            stands[id].append(plain(text))
    shown = ((plain(s.text), stands[id]) for turn in transcript.turns for s in turn.segments for id in s.items if id in stands)
    return any(not any(text in said for text in texts) for said, texts in shown)


def _withheld(db: Connection, bank: str, items: Iterable[str]) -> set[str]:
    """Of these: memories with a tombstone, erased observations, and those with a text from a memory whose tombstone is open."""
    asked = [item for item in items if _is_id(item)]
    gone = {stone.memory_id for stone in plans.tombstones(db, bank, asked, open_only=False)}
    o, told, stone = t.observation.c, t.lineage.c, t.tombstone.c
    going = select(told.observation).join(t.tombstone, stone.memory == told.memory).where(told.role == "text", stone.open)
    for part in rows.chunks(asked):
        erased = select(o.id).where(o.id.in_(part), o.state == ObservationState.ERASED.value, rows.in_bank(t.observation, bank))
        tainted = going.where(told.observation.in_(part), rows.in_bank(t.tombstone, bank))
        gone |= {*db.scalars(erased), *db.scalars(tainted)}
    return gone


# scores


def keep_scores(db: Connection, bank: str, scores: Sequence[Score], step: Step) -> list[Score]:
    _demand_ids(item for score in scores for item in score.items)
    queue.lock(db, t.bank.c.id == bank)
    asked: dict[str, Score] = {}
    for score in scores:
        asked.setdefault(_digest(bank, score.key), score)
    digest = t.score.c.digest
    known = {told for part in rows.chunks(asked) for told in db.scalars(select(digest).where(digest.in_(part)))}
    fresh = {told: score for told, score in asked.items() if told not in known}
    gone = _withheld(db, bank, {item for score in fresh.values() for item in (*score.items, *score.context)})
    kept = {told: score for told, score in fresh.items() if not gone & {*score.items, *score.context}}
    counting = [score for score in kept.values() if score.counts]
    moved = _moved(db, bank, counting)
    _insert(db, bank, kept)
    _move(db, bank, counting, step, moved)
    return list(kept.values())


def _digest(bank: str, key: str) -> str:
    return hashlib.sha256(f"{bank}\n{key}".encode()).hexdigest()


def _insert(db: Connection, bank: str, kept: Mapping[str, Score]) -> None:
    if not kept:
        return
    told = [{**s.model_dump(exclude={"items", "context"}), "bank": bank, "digest": digest} for digest, s in kept.items()]
    seqs = db.scalars(insert(t.score).returning(t.score.c.seq, sort_by_parameter_order=True), told)
    groups = zip(seqs, kept.values(), strict=True)
    rows.insert_all(db, t.member, (row for seq, score in groups for row in _members(bank, seq, score)))


def _members(bank: str, seq: int, score: Score) -> Iterator[dict[str, Any]]:
    for position, item in enumerate(dict.fromkeys(score.items)):
        yield {"score": seq, "item": item, "bank": bank, "position": position}


def _moved(db: Connection, bank: str, scores: Iterable[Score]) -> set[Once]:
    """Which items the responses of these scores have moved, whatever was left out with them."""
    s, m = t.score.c, t.member.c
    query = select(s.unit, s.response, m.item).join(t.member, m.score == s.seq).where(s.bank == bank, s.counts)
    parts = (query.where(s.response.in_(part)) for part in rows.chunks(score.response for score in scores))
    return {(unit, response, item) for part in parts for unit, response, item in db.execute(part)}


def _move(db: Connection, bank: str, scores: Sequence[Score], step: Step, moved: set[Once]) -> None:
    """A response moves an item once, also where its group has changed since. moved: what it has moved; is added to."""
    before: dict[Place, Importance] = {}
    for unit in {score.unit for score in scores}:
        items = {item for score in scores if score.unit == unit for item in score.items}
        before |= {(unit, item): state for item, state in importances(db, bank, unit, sorted(items)).items()}
    now: dict[Place, Importance] = {}
    for score in scores:
        for item in dict.fromkeys(score.items):
            place, once = (score.unit, item), (score.unit, t.told(score.response), item)
            if once not in moved:
                now[place] = step(now.get(place) or before.get(place), score, item)
                moved.add(once)
    rows.insert_all(db, t.importance, (_row(bank, p, state) for p, state in now.items() if p not in before))
    if changed := [_row(bank, p, state, "of_") for p, state in now.items() if p in before]:
        i = t.importance.c
        here = (i.bank == bindparam("of_bank"), i.unit == bindparam("of_unit"), i.item == bindparam("of_item"))
        db.execute(update(t.importance).where(*here), changed)


def _row(bank: str, place: Place, state: Importance, mark: str = "") -> dict[str, Any]:
    """mark: before the names of the key, where they name the row to be changed."""
    unit, item = place
    key = {f"{mark}bank": bank, f"{mark}unit": unit, f"{mark}item": item}
    return {**state.model_dump(exclude={"unit", "item"}), **key}


def scores(db: Connection, bank: str, item: str | None, keys: Sequence[str] | None, limit: int) -> list[Score]:
    s, m = t.score.c, t.member.c
    query = select(t.score).order_by(s.at.desc(), s.seq.desc()).limit(limit)
    if item is None and keys is None:
        return _with_groups(db, list(db.execute(query.where(s.bank == bank))))
    query = query.where(rows.in_bank(t.score, bank))
    if item is not None:
        query = query.where(s.seq.in_(select(m.score).where(m.item == item)))
    if keys is None:
        return _with_groups(db, list(db.execute(query)))
    parts = rows.chunks(_digest(bank, key) for key in keys)
    found = [row for part in parts for row in db.execute(query.where(s.digest.in_(part)))]
    return _with_groups(db, sorted(found, key=lambda row: (row.at, row.seq), reverse=True)[:limit])


def _with_groups(db: Connection, found: Sequence[Row[Any]]) -> list[Score]:
    groups: dict[int, list[str]] = {}
    for part in rows.chunks([row.seq for row in found]):
        members = select(t.member).where(t.member.c.score.in_(part)).order_by(t.member.c.score, t.member.c.position)
        for member in db.execute(members):
            groups.setdefault(member.score, []).append(member.item)
    return [_score(row, groups.get(row.seq, ())) for row in found]


def _score(row: Row[Any], items: Sequence[str]) -> Score:
    return Score(
        unit=row.unit, response=row.response, items=tuple(items), context=frozenset(), value=row.value, tokens=row.tokens,
        how=row.how, share=row.share, counts=row.counts, at=row.at,
    )


# importance


def importances(db: Connection, bank: str, unit: str, items: Sequence[str] | None) -> dict[str, Importance]:
    i = t.importance.c
    query = select(t.importance).where(i.unit == unit)
    of_all = query.where(i.bank == bank)
    of_some = query.where(rows.in_bank(t.importance, bank))
    parts = [of_all] if items is None else [of_some.where(i.item.in_(part)) for part in rows.chunks(items)]
    return {row.item: _importance(row) for part in parts for row in db.execute(part)}


def _importance(row: Row[Any]) -> Importance:
    return Importance(
        item=row.item, unit=row.unit, mean=row.mean, n=row.n, tokens=row.tokens, maximum=row.maximum,
        last_scored=row.last_scored, updates=row.updates,
    )


def score_units(db: Connection, bank: str) -> dict[str, tuple[int, float]]:
    i = t.importance.c
    found = db.execute(select(i.unit, func.count(), func.avg(i.mean)).where(i.bank == bank).group_by(i.unit))
    return {unit: (count, mean) for unit, count, mean in found}


def scoring(db: Connection, bank: str) -> dict[str, int]:
    c, s = t.transcript.c, t.score.c
    measured = select(func.count(t.member.c.item.distinct())).join(t.score, s.seq == t.member.c.score).where(s.bank == bank)
    return {
        "transcripts": db.scalar(select(func.count()).where(c.bank == bank)) or 0,
        "scores": db.scalar(select(func.count()).where(s.bank == bank)) or 0,
        "items": db.scalar(measured) or 0,
    }
