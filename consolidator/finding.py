"""The lists of a recall: what is near by meaning and by words, the neighbours of that, and both scores of all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from consolidator.facts import Fact, Facts
from consolidator.models import Vector
from consolidator.parts import Parts
from consolidator.points import place_of
from consolidator.ports import AnyOf, Found, Ids, Leg, VectorStore
from consolidator.queries import Query, Where, memory_filter, observation_filter
from consolidator.ranking import RecallWeights

HitKind = Literal["memory", "observation"]
LEGS = ("dense", "words")


@dataclass(slots=True, kw_only=True)
class Lists:
    """What the lists of one collection found: scores and ranks by leg and id. near: what stands beside a find in its source."""

    kind: HitKind
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    ranks: dict[str, dict[str, int]] = field(default_factory=dict)
    near: frozenset[str] = frozenset()

    def ids(self) -> list[str]:
        """Of what was found, without neighbours."""
        return list(dict.fromkeys(chain.from_iterable(self.ranks.values())))

    def pairs(self, ids: Iterable[str]) -> Iterator[tuple[str, tuple[float, float]]]:
        dense, words = self.scores.get("dense", {}), self.scores.get("words", {})
        return ((id, (dense.get(id, 0.0), words.get(id, 0.0))) for id in ids)

    def score(self, leg: str, id: str) -> float:
        return self.scores.get(leg, {}).get(id, 0.0)

    def rank(self, leg: str, id: str) -> int | None:
        return self.ranks.get(leg, {}).get(id)


@dataclass(frozen=True, slots=True)
class _Question:
    """One collection, asked for one bank. vector None: by words alone."""

    store: VectorStore
    bank: str
    text: str
    vector: Vector | None
    where: Where

    async def legs(self, limit: int, only: Mapping[str, Sequence[Ids | AnyOf]] | None = None) -> dict[str, list[list[Found]]]:
        """By leg, a list; with `only`, a list for each of these conditions."""
        wanted = {name: [None] for name in LEGS} if only is None else only
        asked = [
            Leg(name=name, where=(*self.where, narrow) if narrow else self.where, limit=limit, payload=False,
                dense=self.vector if name == "dense" else None, lexical=self.text if name == "words" else None)
            for name, narrowed in wanted.items() if name == "words" or self.vector is not None for narrow in narrowed
        ]
        found: dict[str, list[list[Found]]] = {leg.name: [] for leg in asked}
        lists = await self.store.search(self.bank, asked) if asked else []
        for leg, hits in zip(asked, lists, strict=True):
            found[leg.name].append(hits)
        return found


class Finding:
    """Searches for one deployment. Two round trips to a collection, whatever its size."""

    def __init__(self, parts: Parts, weights: RecallWeights, facts: Facts) -> None:
        self._parts = parts
        self._weights = weights
        self._facts = facts

    async def find(self, bank: str, query: Query, vector: Vector | None, gone: Set[str]) -> list[Lists]:
        """gone: memories that are being erased."""
        entombed, wanted = sorted(gone), []
        if query.kinds != {"observation"}:
            where = memory_filter(query, entombed)
            wanted.append(self._lists("memory", _Question(self._parts.memories, bank, query.text, vector, where)))
        if "observation" in query.kinds:
            where = observation_filter(query, entombed)
            wanted.append(self._lists("observation", _Question(self._parts.observations, bank, query.text, vector, where)))
        return list(await asyncio.gather(*wanted))

    async def _lists(self, kind: HitKind, question: _Question) -> Lists:
        """Both lists; then, for what one of them found alone, its score by the other: nothing is guessed. And the neighbours."""
        lists, depth = Lists(kind=kind), self._weights.depth
        for leg, (hits,) in (await question.legs(depth)).items():
            lists.scores[leg] = {hit.id: hit.score for hit in hits}
            lists.ranks[leg] = {hit.id: position for position, hit in enumerate(hits, start=1)}
        ids = lists.ids()
        missing = {leg: [id for id in ids if id not in scores] for leg, scores in lists.scores.items()}
        if len(lists.ranks.get("words", ())) < depth:
            missing.pop("words", None)  # the list was not cut: what it lacks shares no word
        only: dict[str, list[Ids | AnyOf]] = {leg: [Ids(tuple(absent))] for leg, absent in missing.items() if absent}
        places = await self._places(question.bank, lists) if kind == "memory" else []
        for leg in lists.scores if places else ():
            only.setdefault(leg, []).append(AnyOf("place", tuple(places)))
        again = await question.legs(max(depth * 2, 2 * len(places)), only)
        for leg, told in again.items():
            lists.scores[leg] |= {hit.id: hit.score for hits in told for hit in hits}
        lists.near = frozenset(hit.id for told in again.values() for hits in told for hit in hits).difference(ids)
        return lists

    async def _places(self, bank: str, lists: Lists) -> list[str]:
        """Beside the first ones of each list, where nothing that was found stands."""
        if not self._weights.beside or not (self._weights.previous or self._weights.next):
            return []
        first = dict.fromkeys(id for ranks in lists.ranks.values() for id, rank in ranks.items() if rank <= self._weights.beside)
        facts = await self._facts.of(bank, list(first))
        beside = dict.fromkeys(place for fact in facts.values() for place in _beside(fact))
        taken = {place_of(fact.source, fact.sequence) for fact in facts.values()}
        return [place for place in beside if place not in taken]


def _beside(fact: Fact) -> Iterator[str]:
    if fact.sequence is not None:
        for sequence in (fact.sequence - 1, fact.sequence + 1):
            if sequence >= 0:
                yield place_of(fact.source, sequence)
