"""What the store contract writes and asks: collections, points, conditions with what they find, and what must be refused."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from consolidator.ports import (
    AnyOf,
    CollectionSpec,
    Condition,
    Either,
    Empty,
    Equals,
    Ids,
    Not,
    Page,
    Point,
    Range,
    VectorStore,
    Where,
)

DIMENSION = 8
FIELDS: dict[str, tuple[str, ...]] = {
    "keywords": ("source", "tags", "state", "evidence"),
    "integers": ("sequence",),
    "floats": ("confidence",),
    "times": ("occurred_at",),
}
SPECS = (
    CollectionSpec(name="memories", dimension=DIMENSION, embedder="contract-embedder", **FIELDS),
    CollectionSpec(name="observations", dimension=DIMENSION, embedder="contract-embedder", **FIELDS),
)
BANKS = ("alice", "bob")  # where the suite writes
NOON = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def number(n: int) -> str:
    """The n-th id; ids sort as their numbers do."""
    return str(uuid.UUID(int=n))


def axis(n: int, *, lean: float = 0.0) -> list[float]:
    """A unit vector along an axis, leaning to the next one."""
    vector = [0.0] * DIMENSION
    vector[n % DIMENSION] = math.sqrt(1 - lean * lean)
    vector[(n + 1) % DIMENSION] = lean
    return vector


def point(n: int, *, dense: list[float] | None = None, lexical: str = "", rev: int = 0, **payload: Any) -> Point:
    return Point(id=number(n), payload={"rev": rev, **payload}, dense=dense, lexical=lexical)


async def every_id(store: VectorStore, bank: str, where: Where = (), *, limit: int = 256) -> list[str]:
    """All ids of a filter, page by page."""
    ids: list[str] = []
    after: str | None = None
    while True:
        page: Page = await store.scan(bank, where, after=after, limit=limit)
        ids += [it.id for it in page.points]
        after = page.after
        if after is None:
            return ids


FILTERED = (
    point(1, source="chat-1", tags=["a", "b"], state="live", sequence=1, confidence=0.25, occurred_at=NOON),
    point(2, source="chat-1", tags=["b"], state="gone", sequence=2, confidence=0.5, occurred_at=NOON + timedelta(microseconds=1)),
    point(3, source="chat-2", tags=[], state="live", sequence=3, confidence=0.75, occurred_at=NOON + timedelta(days=1)),
    point(4, source="chat-3", state="live"),
    point(5, source="Größe/茶 🍵", tags=["ünï"], state="live", sequence=-5, confidence=1, occurred_at=NOON - timedelta(days=400)),
)

WHERES: tuple[tuple[str, Where, set[int]], ...] = (
    ("nothing asked", (), {1, 2, 3, 4, 5}),
    ("equals", (Equals("source", "chat-1"),), {1, 2}),
    ("equals unicode", (Equals("source", "Größe/茶 🍵"),), {5}),
    ("equals is whole", (Equals("source", "chat"),), set()),
    ("equals integer", (Equals("sequence", 2),), {2}),
    ("equals negative", (Equals("sequence", -5),), {5}),
    ("array holds", (Equals("tags", "b"),), {1, 2}),
    ("any of", (AnyOf("source", ("chat-2", "chat-3", "chat-9")),), {3, 4}),
    ("array holds any of", (AnyOf("tags", ("a", "ünï")),), {1, 5}),
    ("any of none", (AnyOf("source", ()),), set()),
    ("number from", (Range("confidence", gte=0.5),), {2, 3, 5}),
    ("number above", (Range("confidence", gt=0.5),), {3, 5}),
    ("number between", (Range("confidence", gt=0.25, lt=0.75),), {2}),
    ("integer to", (Range("sequence", lte=2),), {1, 2, 5}),
    ("integer below", (Range("sequence", lt=2),), {1, 5}),
    ("time from", (Range("occurred_at", gte=NOON),), {1, 2, 3}),
    ("time after, to the microsecond", (Range("occurred_at", gt=NOON),), {2, 3}),
    ("time to, to the microsecond", (Range("occurred_at", lte=NOON),), {1, 5}),
    ("time before", (Range("occurred_at", lt=NOON),), {5}),
    ("time in another zone", (Range("occurred_at", gte=NOON.astimezone(timezone(timedelta(hours=-7)))),), {1, 2, 3}),
    ("empty or missing", (Empty("tags"),), {3, 4}),
    ("missing number", (Empty("confidence"),), {4}),
    ("ids", (Ids((number(2), number(4), number(99))),), {2, 4}),
    ("no ids", (Ids(()),), set()),
    ("not equals", (Not(Equals("source", "chat-1")),), {3, 4, 5}),
    ("not any of", (Not(AnyOf("tags", ("a", "b"))),), {3, 4, 5}),
    ("not any of none", (Not(AnyOf("tags", ())),), {1, 2, 3, 4, 5}),
    ("not in range, missing included", (Not(Range("confidence", gte=0.5)),), {1, 4}),
    ("not empty", (Not(Empty("tags")),), {1, 2, 5}),
    ("not ids", (Not(Ids((number(1),))),), {2, 3, 4, 5}),
    ("either", (Either((Ids((number(4),)), Equals("tags", "b"), AnyOf("source", ()))), Not(Equals("sequence", -7))), {1, 2, 4}),
    ("either of none", (Either(()),), set()),
    ("either of what nothing matches", (Either((Ids(()), AnyOf("tags", ()))),), set()),
    ("all of several", (Equals("state", "live"), Not(Empty("tags")), Range("confidence", lt=1)), {1}),
    ("two of one field", (Equals("tags", "a"), Equals("tags", "b")), {1}),
    ("revision", (Equals("rev", 0),), {1, 2, 3, 4, 5}),
)

BAD_POINTS: tuple[tuple[str, Point], ...] = (
    ("id", Point(id="m1", payload={"rev": 0})),
    ("id in capitals", Point(id=number(0xABC).upper(), payload={"rev": 0})),
    ("short vector", point(1, dense=[1.0] * (DIMENSION - 1))),
    ("empty vector", point(1, dense=[])),
    ("nan vector", point(1, dense=[math.nan] * DIMENSION)),
    ("infinite vector", point(1, dense=[math.inf] + [0.0] * (DIMENSION - 1))),
    ("huge vector", point(1, dense=[1e30] * DIMENSION)),
    ("vector of texts", point(1, dense=["x"] * DIMENSION)),  # type: ignore[list-item]
    ("no revision", Point(id=number(1), payload={"source": "x"})),
    ("boolean revision", point(1, rev=True)),
    ("revision of text", Point(id=number(1), payload={"rev": "1"})),
    ("bank", point(1, bank="other")),
    ("op", point(1, op="token")),
    ("nan", point(1, metadata={"x": [math.nan]})),
    ("set", point(1, metadata={"x"})),
    ("bytes", point(1, metadata=b"x")),
    ("key", point(1, metadata={1: "x"})),
    ("huge integer", point(1, metadata=2**64)),
    ("naive time", point(1, occurred_at=datetime(2026, 1, 1))),
    ("time as prose", point(1, occurred_at="yesterday")),
    ("keyword of the wrong type", point(1, source=7)),
    ("number of the wrong type", point(1, confidence="high")),
    ("boolean number", point(1, sequence=True)),
    ("half a surrogate pair", point(1, lexical="\ud800")),
)

BAD_WHERES: tuple[tuple[str, Condition], ...] = (
    ("boolean", Equals("state", True)),
    ("float", Equals("confidence", 0.5)),  # type: ignore[arg-type]
    ("unknown field", Equals("colour", "red")),
    ("the bank", Equals("bank", "bob")),
    ("integer for a keyword", Equals("source", 1)),
    ("keyword for an integer", Equals("sequence", "1")),
    ("range without bounds", Range("confidence")),
    ("range of nan", Range("confidence", gte=math.nan)),
    ("number for a time", Range("occurred_at", gte=5)),
    ("time for a number", Range("confidence", gte=NOON)),
    ("naive time", Range("occurred_at", gte=datetime(2026, 1, 1))),
    ("range of a keyword", Range("source", gte=1)),
    ("ids", Ids(("m1",))),
    ("not not", Not(Not(Empty("tags")))),  # type: ignore[arg-type]
    ("not either", Not(Either((Empty("tags"),)))),  # type: ignore[arg-type]
    ("either not", Either((Not(Empty("tags")),))),  # type: ignore[arg-type]
    ("either unknown", Either((Empty("tags"), Empty("colour")))),
    ("empty unknown", Empty("colour")),
)
