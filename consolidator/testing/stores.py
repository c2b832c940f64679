"""A vector store in plain memory: the promises of the port without a vendor, for tests."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt, mul
from typing import Any

from consolidator import checks
from consolidator.errors import StoreError, WrongEmbedder
from consolidator.models import Vector
from consolidator.ports import (
    ANY,
    AnyOf,
    CollectionSpec,
    Condition,
    Either,
    Empty,
    Equals,
    Expect,
    Found,
    Ids,
    Leg,
    Not,
    Page,
    Point,
    PutOutcome,
    Range,
    VectorStore,
    Where,
)

_STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such "  # noqa: SIM905 - a list would be one word a line
    "that the their then there these they this to was will with".split()
)
_K, _B, _MEAN_LENGTH = 1.2, 0.75, 32.0


@dataclass(frozen=True, slots=True)
class Record:
    """A point as it is kept: its payload in stored form, its vector normalised, its words counted."""

    bank: str
    payload: dict[str, Any]
    dense: Vector | None
    words: Counter[str]


def _words(text: str) -> Counter[str]:
    return Counter(word for word in re.findall(r"\w+", text.lower()) if word not in _STOP_WORDS)


def _normalised(vector: Vector) -> Vector:
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector] if norm else list(vector)


def _values(payload: Mapping[str, Any], key: str) -> list[Any]:
    value = payload.get(key)
    return value if isinstance(value, list) else [] if value is None else [value]


def _in_range(condition: Range, value: Any) -> bool:
    at = checks.instant(value) if isinstance(value, str) else value
    bounds = ((ge, condition.gte), (le, condition.lte), (gt, condition.gt), (lt, condition.lt))
    return all(bound is None or compare(at, bound) for compare, bound in bounds)


def _holds(id: str, payload: Mapping[str, Any], condition: Condition) -> bool:
    match condition:
        case Equals(key, wanted):
            return wanted in _values(payload, key)
        case AnyOf(key, several):
            return any(value in several for value in _values(payload, key))
        case Range(key):
            return any(_in_range(condition, value) for value in _values(payload, key))
        case Empty(key):
            return not _values(payload, key)
        case Ids(ids):
            return id in ids
        case Not(inner):
            return not _holds(id, payload, inner)
        case Either(several):
            return any(_holds(id, payload, one) for one in several)


class MemoryCollection:
    """`VectorStore` in a mapping, by default a dictionary: nothing survives the process. No verb waits for anything."""

    def __init__(self, spec: CollectionSpec, records: MutableMapping[str, Record] | None = None) -> None:
        self._spec = spec
        self._records: MutableMapping[str, Record] = {} if records is None else records
        self._closed = False

    async def ensure(self, spec: CollectionSpec) -> None:
        checks.field_kinds(spec)
        if (spec.embedder, spec.dimension) != (self._spec.embedder, self._spec.dimension):
            raise WrongEmbedder(f"made with {self._spec.embedder}, not with {spec.embedder}; use the same embedder")
        self._spec = spec

    async def put(self, bank: str, points: Sequence[Point], *, expect: Expect = ANY) -> list[PutOutcome]:
        self._check(bank)
        checks.check_expect(expect)
        outcomes = []
        for point in checks.sound_points(self._spec, points):
            outcomes.append(checks.decide(self._stored(point.id), bank, expect))
            if outcomes[-1] is PutOutcome.WRITTEN:
                dense = None if point.dense is None else _normalised(point.dense)
                self._records[point.id] = Record(bank, dict(point.payload), dense, _words(point.lexical))
        return outcomes

    async def get(self, bank: str, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        self._check(bank)
        checks.check_ids(ids)
        mine = [(id, record) for id in ids if (record := self._mine(bank, id)) is not None]
        return [Point(id=id, payload=checks.read_payload(r.payload), dense=r.dense if vectors else None) for id, r in mine]

    async def search(self, bank: str, legs: Sequence[Leg]) -> list[list[Found]]:
        self._check(bank)
        return [[] if leg is None else self._ranked(bank, leg) for leg in checks.sound_legs(self._spec, legs)]

    async def scan(
        self,
        bank: str,
        where: Where = (),
        *,
        order_by: str | None = None,
        descending: bool = False,
        after: str | None = None,
        limit: int = 256,
    ) -> Page:
        self._check(bank)
        checks.check_page(self._spec, order_by, after, limit)
        ids = self._matching(bank, where)
        if order_by is not None:
            return Page(self._points(_in_order(self._records, ids, order_by, descending)[:limit]), None)
        rest = sorted(id for id in ids if after is None or id >= after)
        return Page(self._points(rest[:limit]), rest[limit] if len(rest) > limit else None)

    async def count(self, bank: str, where: Where = ()) -> int:
        self._check(bank)
        return len(self._matching(bank, where))

    async def facet(self, bank: str, key: str, where: Where = (), *, limit: int = 1000) -> dict[str, int]:
        self._check(bank)
        checks.check_facet(self._spec, key)
        checks.check_limit(limit)
        held: Counter[str] = Counter()
        for id in self._matching(bank, where):
            held.update(set(_values(self._records[id].payload, key)))
        return dict(sorted(held.items(), key=lambda item: (-item[1], item[0]))[:limit])

    async def tenants(self, where: Where, *, limit: int = 1000) -> dict[str, int]:
        checks.check_limit(limit)
        held = {bank: len(self._matching(bank, where)) for bank in sorted({record.bank for record in self._records.values()})}
        return {bank: n for bank, n in held.items() if n}

    async def patch(self, bank: str, id: str, changes: Mapping[str, Any], *, expect: int) -> bool:
        return self._patch(bank, id, changes, expect, None)

    async def give_vector(self, bank: str, id: str, dense: Vector, changes: Mapping[str, Any], *, expect: int) -> bool:
        return self._patch(bank, id, changes, expect, checks.sound_vector(self._spec, dense))

    async def delete(self, bank: str, ids: Sequence[str]) -> int:
        self._check(bank)
        checks.check_ids(ids)
        mine = {id for id in ids if self._mine(bank, id) is not None}
        for id in mine:
            del self._records[id]
        return len(mine)

    async def flush(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")

    async def scrub(self) -> bool:
        return True  # it has no files

    async def close(self) -> None:
        self._closed = True

    def _check(self, bank: str) -> None:
        if self._closed:
            raise StoreError("the store is closed")
        checks.check_bank(bank)

    def _stored(self, id: str) -> dict[str, Any] | None:
        record = self._records.get(id)
        return None if record is None else {"bank": record.bank, "rev": record.payload["rev"]}

    def _mine(self, bank: str, id: str) -> Record | None:
        record = self._records.get(id)
        return record if record is not None and record.bank == bank else None

    def _matching(self, bank: str, where: Where) -> list[str]:
        sound = checks.sound_where(self._spec, where)
        if sound is None:
            return []
        mine = ((id, record.payload) for id, record in self._records.items() if record.bank == bank)
        return [id for id, payload in mine if all(_holds(id, payload, condition) for condition in sound)]

    def _points(self, ids: Iterable[str]) -> list[Point]:
        return [Point(id=id, payload=checks.read_payload(self._records[id].payload)) for id in ids]

    def _patch(self, bank: str, id: str, changes: Mapping[str, Any], expect: int, dense: Vector | None) -> bool:
        self._check(bank)
        checks.check_ids([id])
        sound = checks.sound_changes(self._spec, changes)
        record = self._mine(bank, id)
        if record is None or record.payload["rev"] != expect:
            return False
        vector = record.dense if dense is None else _normalised(dense)
        self._records[id] = Record(bank, checks.patched(record.payload, sound, expect + 1), vector, record.words)
        return True

    def _ranked(self, bank: str, leg: Leg) -> list[Found]:
        ids = self._matching(bank, leg.where)
        scores = self._near(ids, leg.dense) if leg.dense is not None else self._worded(bank, ids, leg.lexical or "")
        found = (Found(id, score, self._told(id) if leg.payload else {}) for id, score in scores.items())
        return checks.ranked(found, leg.limit)

    def _told(self, id: str) -> dict[str, Any]:
        return checks.read_payload(self._records[id].payload)

    def _near(self, ids: Iterable[str], query: Vector) -> dict[str, float]:
        unit = _normalised(query)
        vectors = ((id, self._records[id].dense) for id in ids)
        return {id: sum(map(mul, unit, dense)) for id, dense in vectors if dense is not None}

    def _worded(self, bank: str, ids: Iterable[str], query: str) -> dict[str, float]:
        corpus = [record.words for record in self._records.values() if record.bank == bank and record.words]
        rarity = {}
        for word in _words(query):
            holding = sum(word in words for words in corpus)
            rarity[word] = math.log(1 + (len(corpus) - holding + 0.5) / (holding + 0.5))
        scores = {id: _bm25(self._records[id].words, rarity) for id in ids}
        return {id: score for id, score in scores.items() if score > 0}


def _bm25(words: Counter[str], rarity: Mapping[str, float]) -> float:
    length = 1 - _B + _B * words.total() / _MEAN_LENGTH
    return sum(rare * words[word] * (_K + 1) / (words[word] + _K * length) for word, rare in rarity.items() if words[word])


def _in_order(records: Mapping[str, Record], ids: Iterable[str], key: str, descending: bool) -> list[str]:
    held = ((id, values[0]) for id in ids if (values := _values(records[id].payload, key)))
    by_id = sorted(held)
    return [id for id, _ in sorted(by_id, key=lambda item: item[1], reverse=descending)]


class MemoryStorage:
    """`Storage` in memory."""

    def __init__(self, specs: Sequence[CollectionSpec]) -> None:
        named = checks.check_specs(specs)
        self.memories: VectorStore = MemoryCollection(named["memories"])
        self.observations: VectorStore = MemoryCollection(named["observations"])

    async def describe(self) -> dict[str, str]:
        return {"store": "memory", "where": "this process"}

    async def close(self) -> None:
        await self.memories.close()
        await self.observations.close()


async def open_memory(*, specs: Sequence[CollectionSpec]) -> MemoryStorage:
    """A fresh, empty storage."""
    return MemoryStorage(specs)
