"""The lists of a recall: what is near by meaning and by words, the neighbours of that, and both scores of all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from consolidator.facts import Fact, Facts
from consolidator.models import Vector
from consolidator.parts import Parts
from consolidator.points import place_of
from consolidator.ports import AnyOf, Either, Found, Ids, Leg, VectorStore
from consolidator.queries import Query, Where, memory_filter, observation_filter
from consolidator.ranking import RecallWeights, standings

HitKind = Literal["memory", "observation"]
LEGS = ("dense", "words")


@dataclass(slots=True, kw_only=True)
class Lists:
    """What the lists of one collection found: scores and ranks by leg and id. near: what stands beside a find in its source."""

    kind: HitKind
    scores: dict[str, dict[str, float]] = field(default_factory=lambda: {leg: {} for leg in LEGS})
    ranks: dict[str, dict[str, int]] = field(default_factory=lambda: {leg: {} for leg in LEGS})
    near: frozenset[str] = frozenset()

    def ids(self) -> list[str]:
        """Of what was found, without neighbours."""
        return list(dict.fromkeys(chain.from_iterable(self.ranks.values())))

    def pairs(self, ids: Iterable[str]) -> Iterator[tuple[str, tuple[float, float]]]:
        dense, words = self.scores["dense"], self.scores["words"]
        return ((id, (dense.get(id, 0.0), words.get(id, 0.0))) for id in ids)

    def guessed(self) -> dict[str, tuple[float, float]]:
        """Both scores of what was found; what a list lacks has the least that it tells."""
        least = {leg: min(scores.values(), default=0.0) for leg, scores in self.scores.items()}
        dense, words = self.scores["dense"], self.scores["words"]
        return {id: (dense.get(id, least["dense"]), words.get(id, least["words"])) for id in self.ids()}

    def places(self, id: str) -> tuple[float, float, int | None, int | None]:
        """Both scores and both ranks: by meaning, and by words."""
        scores, ranks = self.scores, self.ranks
        return scores["dense"].get(id, 0.0), scores["words"].get(id, 0.0), ranks["dense"].get(id), ranks["words"].get(id)


@dataclass(frozen=True, slots=True)
class _Question:
    """One collection, asked for one bank. vector None: by words alone."""

    store: VectorStore
    bank: str
    text: str
    vector: Vector | None
    where: Where

    async def legs(self, limit: int, only: Mapping[str, Either] | None = None) -> dict[str, list[Found]]:
        """A list by leg; with `only`, of the legs that it names, narrowed."""
        asked = [
            Leg(name=name, where=(*self.where, only[name]) if only else self.where, limit=limit, payload=False,
                dense=self.vector if name == "dense" else None, lexical=self.text if name == "words" else None)
            for name in (LEGS if only is None else only) if name == "words" or self.vector is not None
        ]
        lists = await self.store.search(self.bank, asked) if asked else []
        return {leg.name: hits for leg, hits in zip(asked, lists, strict=True)}


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
        lists, depth = Lists(kind=kind), self._weights.depth if kind == "memory" else self._weights.observed
        for leg, hits in (await question.legs(depth)).items():
            lists.scores[leg] = {hit.id: hit.score for hit in hits}
            lists.ranks[leg] = {hit.id: position for position, hit in enumerate(hits, start=1)}
        ids = lists.ids()
        missing = {leg: [id for id in ids if id not in scores] for leg, scores in lists.scores.items()}
        if len(lists.ranks["words"]) < depth:
            missing.pop("words", None)  # the list was not cut: what it lacks shares no word
        places = tuple(await self._places(question.bank, lists)) if kind == "memory" else ()
        beside = (AnyOf("place", places),) if places else ()
        only = {leg: Either((Ids(tuple(missing.get(leg, ()))), *beside)) for leg in LEGS if missing.get(leg) or beside}
        again = await question.legs(len(ids) + 2 * len(places), only) if only else {}
        for leg, hits in again.items():
            lists.scores[leg] |= {hit.id: hit.score for hit in hits}
        lists.near = frozenset(hit.id for hits in again.values() for hit in hits).difference(ids)
        return lists

    async def _places(self, bank: str, lists: Lists) -> list[str]:
        """Beside the first ones, where nothing that was found stands."""
        if not self._weights.beside or not (self._weights.previous or self._weights.next):
            return []
        likely = list(standings(lists.guessed(), self._weights))
        facts = await self._facts.of(bank, likely)
        first = likely[: self._weights.beside]
        beside = dict.fromkeys(place for id in first if id in facts for place in _beside(facts[id]))
        taken = {place_of(fact.source, fact.sequence) for fact in facts.values()}
        return [place for place in beside if place not in taken]


def _beside(fact: Fact) -> Iterator[str]:
    if fact.sequence is not None:
        for sequence in (fact.sequence - 1, fact.sequence + 1):
            if sequence >= 0:
                yield place_of(fact.source, sequence)
