"""Recall: memories and observations ranked together, each hit with its evidence and its explanation."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from consolidator.archive import Archive
from consolidator.contexts import gist
from consolidator.errors import EmbedderUnavailable
from consolidator.facts import Facts
from consolidator.feedback import FeedbackPolicy, decayed, factor, shrunk
from consolidator.finding import Finding, HitKind, Lists
from consolidator.folding import fold
from consolidator.freshness import in_doubt, newer_first, unsettled
from consolidator.keeping import Kept
from consolidator.lexical import LEXICAL_UNIT
from consolidator.models import Hit, Memory, Observation, Trust, Vector
from consolidator.moments import asked_period
from consolidator.parts import Parts
from consolidator.points import memory_of, observation_of, observation_point, time_of
from consolidator.ports import Equals, Found, Point
from consolidator.provenance import without
from consolidator.queries import Query, checked
from consolidator.ranking import (
    HEAD,
    Candidate,
    Ranked,
    RecallWeights,
    Standing,
    Worth,
    asked_about,
    bits_of,
    cohesion,
    rank,
    relevant,
    standings,
    tells_a_time,
    without_names,
)
from consolidator.reranking import RerankPolicy, rerank_head
from consolidator.serving import as_known, named, without_erased
from consolidator.transcripts import Importance
from consolidator.trends import trend_of
from consolidator.words import cost

APART = 30  # finds
SPEAKERS = 200  # names that are looked for in a question
SPEAKERS_STAY, UNIT_STAYS, COHESION_STAYS = 30.0, 30.0, 600.0  # seconds: another process may write to the bank
SAMPLED_SOURCES, SAMPLED_TURNS = 4, 50  # on which a bank's cohesion is measured


class Recollection:
    """Answers from one deployment."""

    def __init__(
        self, parts: Parts, weights: RecallWeights, reranking: RerankPolicy, feedback: FeedbackPolicy, *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = parts
        self._weights = weights
        self._reranking = reranking
        self._feedback = feedback
        self._units = Kept[tuple[str, float] | None](UNIT_STAYS, monotonic)  # that importance is read in, with its prior
        self._facts = Facts(parts)
        self._archive = Archive(parts, monotonic=monotonic)
        self._finding = Finding(parts, weights, self._facts)
        self._speakers = Kept[dict[str, int]](SPEAKERS_STAY, monotonic)  # with their turns
        self._together = Kept[float](COHESION_STAYS, monotonic)
        self._changes: Counter[str] = Counter()

    def changed(self, bank: str, *, gone: Iterable[str] = ()) -> None:
        """The bank's memories changed: its speakers are looked up anew, its cohesion after 1, 2, 4, 8 ... changes.

        gone: memories that were erased.
        """
        self._facts.drop(bank, gone)
        self._speakers.drop(bank)
        self._archive.changed(bank)
        self.measured(bank)
        self._changes[bank] += 1
        if self._changes[bank].bit_count() == 1:
            self._together.drop(bank)

    def measured(self, bank: str) -> None:
        """Importance in the bank has changed."""
        self._units.drop(bank)

    async def recall(self, bank: str, query: Query) -> list[Hit]:
        """At most `top_k` hits within the token budget, best first. Without the embedder it searches by words alone."""
        query = checked(query)
        speakers, now = await self._speakers.of(bank, self._read_speakers), query.as_of or self._parts.clock()
        stones, vector = await asyncio.gather(  # before anything is searched
            self._parts.ledger.tombstones(bank, open_only=True), self._vector(without_names(query.text, speakers))
        )
        gone = frozenset(stone.memory_id for stone in stones)
        self._facts.drop(bank, gone)
        found = await self._finding.find(bank, query, vector, gone)
        standing = self._standing(found)
        told, remembered = await asyncio.gather(
            self._observations(bank, query, found, standing, gone), self._memories(bank, found, standing)
        )
        archived = await self._archive.among(bank, {id: entry.payload for id, entry in told.items()}, now)
        told = {id: entry for id, entry in told.items() if id not in archived}
        candidates = [*remembered, *(self._observed(entry, now) for entry in told.values())]
        await self._weigh(bank, query, candidates, now)
        period = asked_period(query.text, query.asked_at or now)
        about, together = asked_about(query.text, sorted(speakers)), await self._together.of(bank, self._read_cohesion)
        every = rank(
            candidates, self._weights, about=about, now=now, standing=standing, together=together, period=period,
            bits=bits_of(about, speakers),
        )
        places = {r.candidate.id: place for place, r in enumerate(every)}
        ranked = fold(every)
        head = max(HEAD, 2 * query.top_k, self._reranking.top if self._parts.reranker else 0)
        pool = told | await self._read(bank, query.as_of, found, ranked[:head])
        if vector is not None and not relevant(query.text, ranked, self._weights):
            return []
        if self._parts.reranker is not None:  # before the newer ones move up: no model's taste brings an outdated one back
            ranked = await rerank_head(self._parts.reranker, self._reranking, query.text, ranked)
        if self._weights.fresh:
            doubts = unsettled(ranked, in_doubt(ranked, period))
            await self._give_vectors(bank, {c.id: c for doubt in doubts for c in (doubt.older, doubt.newer)})
            ranked = newer_first(ranked, doubts)
        hits = await self._hits(bank, query, ranked, found, pool, now)
        return await self._standing_still(bank, [_best_first(hit, places) for hit in hits], pool, now)

    async def _weigh(self, bank: str, query: Query, candidates: Sequence[Candidate], now: datetime) -> None:
        """Give candidates what is believed of their importance. As of a time that is past, nothing is: nobody kept that."""
        known = await self._units.of(bank, self._read_unit) if self._weights.importance and not query.as_of else None
        if known is None:
            return
        unit, prior = known
        states = await self._parts.ledger.importances(bank, unit, [c.id for c in candidates])
        worth = {id: self._worth(state, prior, now) for id, state in states.items()}
        for c in candidates:  # an observation says what its evidence says: what is known of that is known of it
            told = [worth[id] for id in c.evidence if id in worth] if c.id not in worth else [worth[c.id]]
            c.worth = max(told, default=None)

    def _worth(self, state: Importance, prior: float, now: datetime) -> Worth:
        nats, n = shrunk(state, prior, now, self._feedback), decayed(state, now, self._feedback)
        told = f"{nats:.3f} nats a token, {n:.1f} measured, {state.unit.split('/')[0]}"
        return Worth(nats, told, factor(state, prior, now, 1.0, self._feedback) - 1)

    async def _read_unit(self, bank: str) -> tuple[str, float] | None:
        """A model's numbers before those of words, then the unit with the most items: they are never ranked side by side."""
        units = await self._parts.ledger.score_units(bank)
        unit = max(units, key=lambda unit: (unit != LEXICAL_UNIT, units[unit][0], unit), default=None)
        return None if unit is None else (unit, units[unit][1])

    async def _standing_still(self, bank: str, hits: list[Hit], pool: Mapping[str, _Entry], now: datetime) -> list[Hit]:
        """Without what was erased since the search began: the last thing that a recall looks at."""
        lineages = {hit.id: frozenset[str](pool[hit.id].payload.get("lineage_memory_ids", ())) for hit in hits}
        ids = sorted(named(hits, lineages))
        stones = await self._parts.ledger.tombstones(bank, ids=ids) if ids else []
        gone = frozenset(stone.memory_id for stone in stones)
        self._facts.drop(bank, gone)
        return without_erased(hits, lineages, gone, now)

    def _standing(self, found: Sequence[Lists]) -> dict[str, Standing]:
        """Statements and turns are not alike in how near they come: each are measured by their own, where there are enough."""
        apart = len(found) > 1 and all(len(lists.ids()) >= APART for lists in found)
        parts = [[lists] for lists in found] if apart else [found]
        standing: dict[str, Standing] = {}
        for part in parts:
            scores = {id: pair for lists in part for id, pair in lists.pairs(lists.ids())}
            near = {id: pair for lists in part for id, pair in lists.pairs(lists.near)}
            most = self._weights.statements if apart and part[0].kind == "observation" else None
            standing |= standings(scores, self._weights, near, most)
        return standing

    async def _read_speakers(self, bank: str) -> dict[str, int]:
        return await self._parts.memories.facet(bank, "speaker", limit=SPEAKERS)

    async def _read_cohesion(self, bank: str) -> float:
        """Measured on the longest sources of the bank."""
        sizes = await self._parts.memories.facet(bank, "source", limit=SPEAKERS)
        longest = sorted(sizes, key=lambda source: (-sizes[source], source))[:SAMPLED_SOURCES]
        return cohesion([await self._run(bank, source) for source in longest])

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

    async def _memories(
        self, bank: str, found: Sequence[Lists], standing: Mapping[str, object]
    ) -> list[Candidate]:
        """Without their texts: most candidates are never shown."""
        candidates: list[Candidate] = []
        for lists in found:
            if lists.kind != "memory":
                continue
            ids = [id for id in (*lists.ids(), *sorted(lists.near)) if id in standing]
            for id, fact in (await self._facts.of(bank, ids)).items():
                dense, words, dense_rank, words_rank = lists.places(id)
                candidates.append(Candidate(
                    id=id, kind="memory", text="", time=fact.time, dense=dense, words=words, dense_rank=dense_rank,
                    words_rank=words_rank, source=fact.source, sequence=fact.sequence, speaker=fact.speaker, trust=fact.trust,
                    asks=fact.asks, timed=fact.timed,
                ))
        return candidates

    async def _observations(
        self, bank: str, query: Query, found: Sequence[Lists], standing: Mapping[str, object], gone: Set[str]
    ) -> dict[str, _Entry]:
        """Those among the chosen, as they are or were; memories that are being erased support none of them."""
        pool: dict[str, _Entry] = {}
        for lists in found:
            ids = [id for id in lists.ids() if lists.kind == "observation" and id in standing]
            for point in await self._parts.observations.get(bank, ids) if ids else []:
                payload = _unsupported(point.payload, gone)
                pool[point.id] = _Entry(bank=bank, id=point.id, lists=lists, payload=payload)
        if query.as_of is not None:
            await self._as_known(bank, pool, query.as_of, gone)
        return pool

    async def _read(
        self, bank: str, as_of: datetime | None, found: Sequence[Lists], ranked: Sequence[Ranked]
    ) -> dict[str, _Entry]:
        """The memories among these, whole; what was erased meanwhile is left out."""
        wanted = {r.candidate.id: r.candidate for r in ranked if r.candidate.kind == "memory" and not r.candidate.text}
        read: dict[str, _Entry] = {}
        lists = next((lists for lists in found if lists.kind == "memory"), None)
        for point in await self._points(bank, as_of, list(wanted)) if lists else []:
            read[point.id] = _Entry(bank=bank, id=point.id, lists=lists or Lists(kind="memory"), payload=point.payload)
            wanted[point.id].text = str(point.payload["text"])
        return read

    async def _points(self, bank: str, as_of: datetime | None, ids: Sequence[str]) -> list[Point]:
        """Memories; as of a time, without corrections that nobody had made by then."""
        points = await self._parts.memories.get(bank, ids) if ids else []
        corrections = {by for p in points if (by := p.payload.get("corrected_by"))} if as_of else set[str]()
        unmade = corrections - await self._retained_by(bank, corrections, as_of) if as_of else corrections
        return [replace(p, payload=_uncorrected(p.payload)) if p.payload.get("corrected_by") in unmade else p for p in points]

    async def _retained_by(self, bank: str, ids: Iterable[str], as_of: datetime) -> frozenset[str]:
        points = await self._parts.memories.get(bank, wanted) if (wanted := sorted(ids)) else []
        return frozenset(p.id for p in points if time_of(p.payload["retained_at"]) <= as_of)

    async def _as_known(self, bank: str, pool: dict[str, _Entry], as_of: datetime, gone: Set[str]) -> None:
        """Put each observation's version of that time in its place; drop those that did not stand then."""
        ids = [entry.id for entry in pool.values() if entry.kind == "observation"]
        left = (without(h, gone) for h in await self._parts.ledger.histories(bank, ids))
        histories = {h.observation.id: h for h in left if h is not None}
        told = await self._retained_by(bank, {e.memory_id for h in histories.values() for e in h.observation.evidence}, as_of)
        for id in ids:
            if (then := as_known(histories[id], as_of, told) if id in histories else None) is None:
                del pool[id]
            else:
                observation, lineage = then
                pool[id].payload = observation_point(observation, [], lineage).payload

    def _observed(self, entry: _Entry, now: datetime) -> Candidate:
        """Straight from the payload: values cost time."""
        found, told, version = entry.payload, entry.payload["evidence"], entry.payload["version"]
        dense, words, dense_rank, words_rank = entry.lists.places(entry.id)
        candidate = Candidate(
            id=entry.id, kind="observation", text=found["text"], time=time_of(found["last_time"]),
            dense=dense, words=words, dense_rank=dense_rank, words_rank=words_rank,
            confidence=found["confidence"], trust=max([e["trust"] for e in told], default=Trust.TOOL),
            evidence=frozenset([e["memory_id"] for e in told if e["supports"]]),
            outdated=frozenset([e["memory_id"] for e in told if e["since_version"] < version or not e["supports"]]),
            timed=tells_a_time(found["text"]), contested=found.get("contests") is not None,
        )
        if self._weights.trend:
            candidate.trend = trend_of(entry.observation.evidence, now)
        return candidate

    async def _give_vectors(self, bank: str, candidates: Mapping[str, Candidate]) -> None:
        """To few: vectors are dear to read."""
        for kind, store in (("memory", self._parts.memories), ("observation", self._parts.observations)):
            mine = [id for id, c in candidates.items() if c.kind == kind]
            for point in await store.get(bank, mine, vectors=True) if mine else []:
                candidates[point.id].vector = point.dense or []

    async def _hits(
        self, bank: str, query: Query, ranked: Sequence[Ranked], found: Sequence[Lists], pool: dict[str, _Entry], now: datetime
    ) -> list[Hit]:
        """The first ones that fit the budget, each thing once; texts are read as far as they are needed."""
        hits, said = list[Hit](), set[object]()
        left, step = query.token_budget, max(HEAD, 2 * query.top_k)
        for start in range(0, len(ranked), step):
            part = ranked[start : start + step]
            pool |= await self._read(bank, query.as_of, found, part)
            there = [r for r in part if r.candidate.id in pool]  # what was erased meanwhile is not
            quotes = await self._quotes(bank, query.as_of, there, pool)
            for r in there:
                hit = _hit(r, pool[r.candidate.id], quotes.get(r.candidate.id), query.explain, now)
                if (what := gist(hit)) in said or (left is not None and hit.tokens > left):
                    continue
                said.add(what)
                left = None if left is None else left - hit.tokens
                hits.append(hit)
                if len(hits) == query.top_k:
                    return hits
        return hits

    async def _quotes(
        self, bank: str, as_of: datetime | None, ranked: Sequence[Ranked], pool: dict[str, _Entry]
    ) -> dict[str, Memory]:
        """The best verbatim evidence of each observation: what ranked highest, else its newest."""
        chosen = {r.candidate.id: r.quote or _newest(pool[r.candidate.id].observation) for r in ranked
                  if r.candidate.kind == "observation"}
        missing = [id for id in chosen.values() if id and id not in pool]
        fetched = {p.id: memory_of(bank, p) for p in await self._points(bank, as_of, missing)}
        known = fetched | {id: pool[id].memory for id in chosen.values() if id and id in pool}
        return {observation: known[memory] for observation, memory in chosen.items() if memory in known}


@dataclass(slots=True, kw_only=True)
class _Entry:
    """A candidate's point, turned into a value when it is needed."""

    bank: str
    id: str
    lists: Lists
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


def _uncorrected(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: value for key, value in payload.items() if key != "corrected_by"}


def _best_first(hit: Hit, places: Mapping[str, int]) -> Hit:
    """Its evidence in the order in which it answers this question; what is quoted is the first."""
    if len(hit.evidence) < 2:
        return hit
    quoted = hit.quote.id if hit.quote else None
    told = sorted(hit.evidence, key=lambda e: (e.memory_id != quoted, places.get(e.memory_id, len(places))))
    return hit.model_copy(update={"evidence": tuple(told)})


def _newest(observation: Observation) -> str | None:
    supporting = [e for e in observation.evidence if e.supports]
    return max(supporting, key=lambda e: (e.occurred_at, e.memory_id)).memory_id if supporting else None


def _hit(r: Ranked, entry: _Entry, quote: Memory | None, explain: bool, now: datetime) -> Hit:
    c = r.candidate
    common = {"id": c.id, "kind": c.kind, "text": c.text, "score": r.score, "occurred_at": c.time,
              "superseded_by": r.superseded_by, "importance": c.worth.nats if c.worth else None,
              "explanation": r.explanation if explain else None}
    if entry.kind == "observation":
        o = entry.observation
        hit = Hit.model_validate({
            **common, "tags": o.tags, "evidence": o.evidence, "proof_count": o.proof_count, "confidence": o.confidence,
            "trend": trend_of(o.evidence, now), "version": o.version, "quote": quote, "contests": o.contests,
            "category": o.category,
        })
    else:
        m = entry.memory
        common["superseded_by"] = r.superseded_by or m.corrected_by
        hit = Hit.model_validate({**common, "tags": m.tags, "source": m.source, "speaker": m.speaker, "metadata": m.metadata})
    return hit.model_copy(update={"tokens": cost(hit.line)})
