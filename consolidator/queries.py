"""What a recall asks for, checked, and the filters that say it to a store. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, get_args

from pydantic import AfterValidator, Field

from consolidator.clock import to_utc
from consolidator.errors import InvalidInput
from consolidator.models import Kind, ObservationState, Tags, Time, Value
from consolidator.ports import AnyOf, Equals, Ids, Not, Range

Where = list[Equals | AnyOf | Range | Ids | Not]
KINDS = frozenset({"memory", "observation", *get_args(Kind)})
MAX_TOP_K = 100


def _with_zone(value: datetime) -> datetime:
    to_utc(value)
    return value


Zoned = Annotated[datetime, AfterValidator(_with_zone)]  # as it was given: days begin at midnight in its own zone


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
    asked_at: Zoned | None = None  # against which "last spring" is understood; None: as_of, else now
    explain: bool = False


def checked(query: Query) -> Query:
    """Raises InvalidInput with what would be right."""
    if not query.text.strip() or "\0" in query.text:
        raise InvalidInput("the query is blank, or holds a NUL character; ask a question")
    if not 1 <= query.top_k <= MAX_TOP_K:
        raise InvalidInput(f"top_k is {query.top_k}; it is a whole number from 1 to {MAX_TOP_K}")
    if query.token_budget is not None and query.token_budget < 1:
        raise InvalidInput(f"token_budget is {query.token_budget}; it is at least 1, or None for no limit")
    if not query.kinds:
        raise InvalidInput(f"kinds is empty; name at least one of {', '.join(sorted(KINDS))}")
    if unknown := query.kinds - KINDS:
        raise InvalidInput(f"unknown kinds {', '.join(sorted(unknown))}; known are {', '.join(sorted(KINDS))}")
    if query.since and query.until and query.since > query.until:
        raise InvalidInput("since lies after until")
    return query


def memory_filter(query: Query, entombed: Sequence[str]) -> Where:
    """entombed: memories that are being erased."""
    where: Where = [*_tagged(query)]
    if query.since or query.until:
        where.append(Range("time", gte=query.since, lte=query.until))
    if query.as_of:
        where.append(Range("retained_at", lte=query.as_of))
    kinds = query.kinds - {"memory", "observation"}
    if kinds and "memory" not in query.kinds:
        where.append(AnyOf("kind", tuple(sorted(kinds))))
    return [*where, Not(Ids(tuple(entombed)))] if entombed else where


def observation_filter(query: Query, entombed: Sequence[str]) -> Where:
    """entombed: memories that are being erased; no text that was derived from them passes."""
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
