"""Conditions and legs of the port as `qdrant_client` models. What it does not know it refuses, never drops."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from qdrant_client import models

from consolidator.checks import SPARE
from consolidator.clock import to_utc
from consolidator.errors import InvalidInput
from consolidator.ports import AnyOf, Condition, Either, Empty, Equals, Ids, Leg, Not, Range, Where
from consolidator_providers.bm25 import Bm25Encoder, Sparse


def condition_of(condition: Condition) -> Any:
    match condition:
        case Equals(key, value):
            return models.FieldCondition(key=key, match=models.MatchValue(value=value))
        case AnyOf(key, values):
            return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))
        case Range():
            return models.FieldCondition(key=condition.key, range=_range_of(condition))
        case Empty(key):
            return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
        case Ids(ids):
            return models.HasIdCondition(has_id=list(ids))
        case Either(several):
            return models.Filter(should=[condition_of(one) for one in several])
    raise InvalidInput(f"a {type(condition).__name__} is no condition here")


def _range_of(condition: Range) -> models.Range | models.DatetimeRange:
    bounds = {"gte": condition.gte, "lte": condition.lte, "gt": condition.gt, "lt": condition.lt}
    times = {name: to_utc(bound) for name, bound in bounds.items() if isinstance(bound, datetime)}
    numbers = {name: float(bound) for name, bound in bounds.items() if isinstance(bound, int | float)}
    return models.DatetimeRange(**times) if times else models.Range(**numbers)


def bank_filter(bank: str | None, where: Where = ()) -> models.Filter:
    """The bank, where one is given, and every condition."""
    must: list[Any] = [models.FieldCondition(key="bank", match=models.MatchValue(value=bank))] if bank is not None else []
    must += [condition_of(condition) for condition in where if not isinstance(condition, Not)]
    must_not = [condition_of(condition.condition) for condition in where if isinstance(condition, Not)]
    return models.Filter(must=must, must_not=must_not or None)


def sparse_of(words: Sparse) -> models.SparseVector:
    return models.SparseVector(indices=words.indices, values=words.values)


def request_of(bank: str, leg: Leg, encoder: Bm25Encoder) -> models.QueryRequest | None:
    """The query for one leg; None when its words are all stop words. A word's rarity is counted within the bank."""
    where, limit = bank_filter(bank, leg.where), leg.limit + SPARE
    if leg.dense is not None:
        return models.QueryRequest(query=leg.dense, using="dense", filter=where, limit=limit, with_payload=leg.payload)
    words = encoder.query(leg.lexical or "")
    if words is None:
        return None
    own = models.SearchParams(idf=models.IdfCorpusParams(corpus=bank_filter(bank)))
    told = {"limit": limit, "with_payload": leg.payload}
    return models.QueryRequest(query=sparse_of(words), using="bm25", filter=where, params=own, **told)
