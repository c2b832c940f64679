"""Recall: memories and observations ranked together, each hit with its evidence and its explanation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import Field

from consolidator.errors import EmbedderUnavailable, InvalidInput
from consolidator.models import Hit, Kind, Memory, Observation, ObservationState, Tags, Time, Trust, Value, Vector
from consolidator.parts import Parts
from consolidator.points import memory_of, observation_of, observation_point
from consolidator.ports import AnyOf, Equals, Found, Ids, Leg, Not, Range, VectorStore
from consolidator.provenance import without
from consolidator.ranking import (
    Candidate,
    Ranked,
    RecallWeights,
    asked_about,
    cohesion,
    fold,
    in_doubt,
    newer_first,
    rank,
    standings,
    without_names,
)
from consolidator.reranking import RerankPolicy, rerank_head
from consolidator.trends import trend_of
from consolidator.words import cost

Where = list[Equals | AnyOf | Range | Ids | Not]
HitKind = Literal["memory", "observation"]
KINDS = frozenset({"memory", "observation", *get_args(Kind)})
MAX_TOP_K = 100
SPEAKERS = 200  # names that are looked for in a question
SAMPLED_SOURCES, SAMPLED_TURNS = 4, 50  # on which a bank's cohesion is measured


class Query(Value):
    """A recall, checked. kinds: "memory", "observation", and kinds of memories."""

    text: str
    top_k: int = Field(default=10, strict=True)
    token_budget: int | None = Field(default=None, strict=True)
    kinds: frozenset[str] = frozenset({"memory", "observation"})
    tags: Tags = frozenset()  # a hit carries all of them
    since: Time | None = None
    until: Time | None = None
    as_of: Time | None = None
    explain: bool = False


def checked(query: Query) -> Query:
    """Raises InvalidInput with what would be right."""
    if not query.text.strip() or "\0" in query.text:
        raise InvalidInput("the query is blank, or holds a NUL character; ask a question")
    if not 1 <= query.top_k <= MAX_TOP_K:
        raise InvalidInput(f"top_k is {query.top_k}; it is a whole number from 1 to {MAX_TOP_K}")
    if query.token_budget is not None and query.token_budget < 1:
        raise InvalidInput(f"token_budget is {query.token_budget}; it is at least 1, or None for no limit")
    if unknown := query.kinds - KINDS:
        raise InvalidInput(f"unknown kinds {', '.join(sorted(unknown))}; known are {', '.join(sorted(KINDS))}")
    if query.since and query.until and query.since > query.until:
        raise InvalidInput("since lies after until")
    return query


class Recollection:
    """Answers from one deployment."""

    def __init__(self, parts: Parts, weights: RecallWeights, reranking: RerankPolicy) -> None:
        self._parts = parts
        self._weights = weights
        self._reranking = reranking
        self._speakers: dict[str, list[str]] = {}
        self._together: dict[str, float] = {}
        self._changes: Counter[str] = Counter()

    def changed(self, bank: str) -> None:
        """The bank's memories changed: its speakers are looked up anew, its cohesion after 1, 2, 4, 8 ... changes."""
        self._speakers.pop(bank, None)
        self._changes[bank] += 1
        if self._changes[bank].bit_count() == 1:
            self._together.pop(bank, None)

    async def recall(self, bank: str, query: Query) -> list[Hit]:
        """At most `top_k` hits within the token budget, best first. Without the embedder it searches by words alone."""
        query = checked(query)
        gone = frozenset(s.memory_id for s in await self._parts.ledger.tombstones(bank, open_only=True))
        speakers = await self._known_speakers(bank)
        found = await self._found(bank, query, await self._vector(without_names(query.text, speakers)), gone)
        standing = standings({id: pair for lists in found for id, pair in lists.pairs()}, self._weights)
        pool = await self._pool(bank, query, found, standing, gone)
        now = query.as_of or self._parts.clock()
        candidates = [self._candidate(entry, now) for entry in pool.values()]
        about = asked_about(query.text, speakers)
        together = await self._cohesion(bank)
        ranked = fold(rank(candidates, self._weights, about=about, now=now, standing=standing, together=together))
        if self._parts.reranker is not None:  # before the newer ones move up: no model's taste brings an outdated one back
            ranked = await rerank_head(self._parts.reranker, self._reranking, query.text, ranked)
        if self._weights.fresh:
            doubts = in_doubt(ranked)
            await self._give_vectors(bank, {c.id: c for doubt in doubts for c in (doubt.older, doubt.newer)})
            ranked = newer_first(ranked, doubts)
        return await self._hits(bank, query, ranked, pool, now)

    async def _known_speakers(self, bank: str) -> list[str]:
        if bank not in self._speakers:
            self._speakers[bank] = sorted(await self._parts.memories.facet(bank, "speaker", limit=SPEAKERS))
        return self._speakers[bank]

    async def _cohesion(self, bank: str) -> float:
        """Measured on the longest sources of the bank, and kept."""
        if bank not in self._together:
            sizes = await self._parts.memories.facet(bank, "source", limit=SPEAKERS)
            longest = sorted(sizes, key=lambda source: (-sizes[source], source))[:SAMPLED_SOURCES]
            self._together[bank] = cohesion([await self._run(bank, source) for source in longest])
        return self._together[bank]

    async def _run(self, bank: str, source: str) -> list[Vector]:
        """The vectors of a source's successive turns."""
        page = await self._parts.memories.scan(bank, [Equals("source", source)], order_by="sequence", limit=SAMPLED_TURNS)
        points = await self._parts.memories.get(bank, [point.id for point in page.points], vectors=True)
        return [point.dense for point in points if point.dense]

    async def _vector(self, text: str) -> Vector | None:
        try:
            return (await self._parts.embedder.embed([text]))[0]
        except EmbedderUnavailable:
            return None

    async def _found(self, bank: str, query: Query, vector: Vector | None, gone: Set[str]) -> list[_Lists]:
        """What the lists of each collection found, with both scores of everything."""
        entombed = sorted(gone)
        found: list[_Lists] = []
        if query.kinds != {"observation"}:
            found.append(await self._search(bank, "memory", query.text, vector, _memory_filter(query, entombed)))
        if "observation" in query.kinds:
            found.append(await self._search(bank, "observation", query.text, vector, _observation_filter(query, entombed)))
        return found

    async def _search(self, bank: str, kind: HitKind, text: str, vector: Vector | None, where: Where) -> _Lists:
        """Both lists, then for what only one of them found its score by the other: nothing is guessed."""
        store, depth = self._store(kind), self._weights.depth
        found = await _both(store, bank, text, vector, where, depth)
        lists = _Lists(kind=kind)
        for leg, hits in found.items():
            lists.scores[leg] = {hit.id: hit.score for hit in hits}
            lists.ranks[leg] = {hit.id: position for position, hit in enumerate(hits, start=1)}
        ids = lists.ids()
        missing = {leg: [id for id in ids if id not in lists.scores[leg]] for leg in found}
        if len(found.get("words", ())) < depth:
            missing.pop("words", None)  # the list was not cut: what it lacks shares no word
        again = await _both(store, bank, text, vector, [], depth * 2, only=missing)
        for leg, hits in again.items():
            lists.scores[leg] |= {hit.id: hit.score for hit in hits}
        return lists

    async def _pool(
        self, bank: str, query: Query, found: Sequence[_Lists], chosen: Mapping[str, object], gone: Set[str]
    ) -> dict[str, _Entry]:
        """The chosen ones with their payloads; memories that are being erased support none of them."""
        pool: dict[str, _Entry] = {}
        for lists in found:
            ids = [id for id in lists.ids() if id in chosen]
            for point in await self._store(lists.kind).get(bank, ids) if ids else []:
                pool[point.id] = _Entry(bank=bank, id=point.id, lists=lists, payload=_unsupported(point.payload, gone))
        if query.as_of is not None:
            await self._as_known(bank, pool, query.as_of, gone)
        return pool

    def _store(self, kind: str) -> VectorStore:
        return self._parts.memories if kind == "memory" else self._parts.observations

    async def _as_known(self, bank: str, pool: dict[str, _Entry], as_of: datetime, gone: Set[str]) -> None:
        """Put each observation's version of that time in its place; drop those that did not stand then."""
        ids = [entry.id for entry in pool.values() if entry.kind == "observation"]
        told = (without(h, gone) for h in await self._parts.ledger.histories(bank, ids))
        histories = {h.observation.id: h for h in told if h is not None}
        for id in ids:
            then = [v for v in histories[id].versions if v.at <= as_of and v.text is not None] if id in histories else []
            if not then or then[-1].state is not ObservationState.LIVE:
                del pool[id]
                continue
            now, version = histories[id].observation, then[-1]
            evidence = tuple(e for e in now.evidence if e.since_version <= version.number)
            fields = {"text": version.text, "version": version.number, "confidence": version.confidence, "evidence": evidence}
            then_told = now.model_copy(update={**fields, "state": version.state, "updated_at": version.at})
            pool[id].payload = observation_point(then_told, [], frozenset()).payload

    def _candidate(self, entry: _Entry, now: datetime) -> Candidate:
        """Straight from the payload: most candidates are never shown, and values cost time."""
        found = entry.payload
        candidate = Candidate(
            id=entry.id, kind=entry.kind, text=found["text"], time=_time(found.get("time") or found["last_time"]),
            dense=entry.lists.score("dense", entry.id), words=entry.lists.score("words", entry.id),
            dense_rank=entry.lists.rank("dense", entry.id), words_rank=entry.lists.rank("words", entry.id),
            source=found.get("source", ""), sequence=found.get("sequence"),
            speaker=found.get("speaker"), confidence=found.get("confidence"), trust=_trust(found),
            evidence=frozenset(e["memory_id"] for e in found.get("evidence", ()) if e["supports"]),
            outdated=frozenset(e["memory_id"] for e in found.get("evidence", ()) if e["since_version"] < found["version"]),
        )
        if self._weights.trend and entry.kind == "observation":
            candidate.trend = trend_of(entry.observation.evidence, now)
        return candidate

    async def _give_vectors(self, bank: str, candidates: Mapping[str, Candidate]) -> None:
        for kind in ("memory", "observation"):
            mine = {id: c for id, c in candidates.items() if c.kind == kind}
            for point in await self._store(kind).get(bank, list(mine), vectors=True) if mine else []:
                mine[point.id].vector = point.dense or []

    async def _hits(
        self, bank: str, query: Query, ranked: Sequence[Ranked], pool: dict[str, _Entry], now: datetime
    ) -> list[Hit]:
        hits: list[Hit] = []
        left = query.token_budget
        quotes = await self._quotes(bank, ranked[: query.top_k * 2], pool)
        for r in ranked:
            hit = _hit(r, pool[r.candidate.id], quotes.get(r.candidate.id), query.explain, now)
            if left is not None and hit.tokens > left:
                continue
            left = None if left is None else left - hit.tokens
            hits.append(hit)
            if len(hits) == query.top_k:
                break
        return hits

    async def _quotes(self, bank: str, ranked: Sequence[Ranked], pool: dict[str, _Entry]) -> dict[str, Memory]:
        """The best verbatim evidence of each observation: what ranked highest, else its newest."""
        chosen = {r.candidate.id: r.quote or _newest(pool[r.candidate.id].observation) for r in ranked
                  if r.candidate.kind == "observation"}
        missing = [id for id in chosen.values() if id and id not in pool]
        fetched = {p.id: memory_of(bank, p) for p in await self._parts.memories.get(bank, missing)} if missing else {}
        known = fetched | {id: pool[id].memory for id in chosen.values() if id and id in pool}
        return {observation: known[memory] for observation, memory in chosen.items() if memory in known}


@dataclass(slots=True, kw_only=True)
class _Lists:
    """What the lists of one collection found, by leg and id."""

    kind: HitKind
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    ranks: dict[str, dict[str, int]] = field(default_factory=dict)

    def ids(self) -> list[str]:
        return list(dict.fromkeys(id for scores in self.scores.values() for id in scores))

    def pairs(self) -> Iterator[tuple[str, tuple[float, float]]]:
        dense, words = self.scores.get("dense", {}), self.scores.get("words", {})
        return ((id, (dense.get(id, 0.0), words.get(id, 0.0))) for id in self.ids())

    def score(self, leg: str, id: str) -> float:
        return self.scores.get(leg, {}).get(id, 0.0)

    def rank(self, leg: str, id: str) -> int | None:
        return self.ranks.get(leg, {}).get(id)


@dataclass(slots=True, kw_only=True)
class _Entry:
    """A candidate's point, turned into a value when it is needed."""

    bank: str
    id: str
    lists: _Lists
    payload: Mapping[str, Any]

    @property
    def kind(self) -> HitKind:
        return self.lists.kind

    @property
    def memory(self) -> Memory:
        return memory_of(self.bank, Found(self.id, 0.0, self.payload))

    @property
    def observation(self) -> Observation:
        return observation_of(self.bank, Found(self.id, 0.0, self.payload))


def _unsupported(payload: Mapping[str, Any], gone: Set[str]) -> Mapping[str, Any]:
    if not gone or "evidence" not in payload:
        return payload
    return {**payload, "evidence": [e for e in payload["evidence"] if e["memory_id"] not in gone]}


def _trust(found: Mapping[str, Any]) -> int:
    return int(found["trust"]) if "trust" in found else max((e["trust"] for e in found["evidence"]), default=Trust.TOOL)


def _time(value: str | datetime) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


async def _both(
    store: VectorStore, bank: str, text: str, vector: Vector | None, where: Where, limit: int,
    *, only: dict[str, list[str]] | None = None,
) -> dict[str, list[Found]]:
    """The list by meaning and the list by words; with `only`, the scores of these points alone."""
    legs = []
    for name in ("dense", "words"):
        narrowed = (*where, Ids(tuple(only.get(name, ())))) if only is not None else tuple(where)
        if (name == "dense" and vector is None) or (only is not None and not only.get(name)):
            continue
        by_meaning, by_words = (vector, None) if name == "dense" else (None, text)
        legs.append(Leg(name=name, where=narrowed, limit=limit, dense=by_meaning, lexical=by_words, payload=False))
    lists = await store.search(bank, legs) if legs else []
    return {leg.name: hits for leg, hits in zip(legs, lists, strict=True)}


def _memory_filter(query: Query, entombed: Sequence[str]) -> Where:
    where: Where = [*_tagged(query)]
    if query.since or query.until:
        where.append(Range("time", gte=query.since, lte=query.until))
    if query.as_of:
        where.append(Range("retained_at", lte=query.as_of))
    kinds = query.kinds - {"memory", "observation"}
    if kinds and "memory" not in query.kinds:
        where.append(AnyOf("kind", tuple(sorted(kinds))))
    return [*where, Not(Ids(tuple(entombed)))] if entombed else where


def _observation_filter(query: Query, entombed: Sequence[str]) -> Where:
    where: Where = [*_tagged(query)]
    if query.since:
        where.append(Range("last_time", gte=query.since))
    if query.until:
        where.append(Range("first_time", lte=query.until))
    if query.as_of:
        where.append(Range("created_at", lte=query.as_of))
        where.append(Not(Equals("state", ObservationState.ERASED.value)))
    else:
        where.append(Equals("state", ObservationState.LIVE.value))
    if entombed:
        where.append(Not(AnyOf("lineage_memory_ids", tuple(entombed))))
    return where


def _tagged(query: Query) -> Iterable[Equals]:
    return (Equals("tags", tag) for tag in sorted(query.tags))


def _newest(observation: Observation) -> str | None:
    supporting = [e for e in observation.evidence if e.supports]
    return max(supporting, key=lambda e: (e.occurred_at, e.memory_id)).memory_id if supporting else None


def _hit(r: Ranked, entry: _Entry, quote: Memory | None, explain: bool, now: datetime) -> Hit:
    c = r.candidate
    common = {"id": c.id, "kind": c.kind, "text": c.text, "score": r.score, "occurred_at": c.time,
              "superseded_by": r.superseded_by, "explanation": r.explanation if explain else None}
    if entry.kind == "observation":
        o = entry.observation
        hit = Hit.model_validate({
            **common, "tags": o.tags, "evidence": o.evidence, "proof_count": o.proof_count, "confidence": o.confidence,
            "trend": trend_of(o.evidence, now), "version": o.version, "quote": quote, "contests": o.contests,
        })
    else:
        m = entry.memory
        common["superseded_by"] = r.superseded_by or m.corrected_by
        hit = Hit.model_validate({**common, "tags": m.tags, "source": m.source, "speaker": m.speaker, "metadata": m.metadata})
    return hit.model_copy(update={"tokens": cost(hit.line)})
