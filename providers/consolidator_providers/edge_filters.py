"""Conditions and legs of the port as `qdrant_edge` types. What it does not know it refuses, never drops."""

from __future__ import annotations

from datetime import datetime

import qdrant_edge as q

from consolidator.checks import SPARE, rfc3339
from consolidator.errors import InvalidInput
from consolidator.ports import AnyOf, Condition, Either, Empty, Equals, Ids, Leg, Not, Range, Where
from consolidator_providers.bm25 import Bm25Encoder

EdgeCondition = q.FieldCondition | q.HasIdCondition | q.IsEmptyCondition | q.Filter


def condition_of(condition: Condition) -> EdgeCondition:
    match condition:
        case Equals(key, value):
            return q.FieldCondition(key, match=q.MatchValue(value))
        case AnyOf(key, values):
            return q.FieldCondition(key, match=q.MatchAny(list(values)))
        case Range():
            return q.FieldCondition(condition.key, range=_range_of(condition))
        case Empty(key):
            return q.IsEmptyCondition(key)
        case Ids(ids):
            return q.HasIdCondition(set(ids))
        case Either(several):
            return q.Filter(should=[condition_of(one) for one in several])
    raise InvalidInput(f"a {type(condition).__name__} is no condition here")


def _range_of(condition: Range) -> q.RangeFloat | q.RangeDateTime:
    bounds = {"gte": condition.gte, "lte": condition.lte, "gt": condition.gt, "lt": condition.lt}
    times = {name: rfc3339(bound) for name, bound in bounds.items() if isinstance(bound, datetime)}
    numbers = {name: float(bound) for name, bound in bounds.items() if isinstance(bound, int | float)}
    return q.RangeDateTime(**times) if times else q.RangeFloat(**numbers)


def bank_filter(bank: str | None, where: Where = ()) -> q.Filter:
    """The bank, where one is given, and every condition."""
    must: list[q.ConditionType] = [q.FieldCondition("bank", match=q.MatchValue(bank))] if bank is not None else []
    must += [condition_of(condition) for condition in where if not isinstance(condition, Not)]
    must_not: list[q.ConditionType] = [condition_of(condition.condition) for condition in where if isinstance(condition, Not)]
    return q.Filter(must=must, must_not=must_not or None)


def request_of(bank: str, leg: Leg, encoder: Bm25Encoder) -> q.QueryRequest | None:
    """The query for one leg; None when its words are all stop words. A word's rarity is counted within the bank."""
    where, limit = bank_filter(bank, leg.where), leg.limit + SPARE
    if leg.dense is not None:
        nearest = q.Query.Nearest(leg.dense, using="dense")
        return q.QueryRequest(limit=limit, query=nearest, filter=where, with_payload=leg.payload)
    words = encoder.query(leg.lexical or "")
    if words is None:
        return None
    query = q.Query.Nearest(q.SparseVector(words.indices, words.values), using="bm25")
    own = q.SearchParams(idf=q.IdfParams(bank_filter(bank)))
    return q.QueryRequest(limit=limit, query=query, filter=where, params=own, with_payload=leg.payload)
