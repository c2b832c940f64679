"""What the engine needs from the outside, cut at domain verbs. Each port's promises stand in its docstrings;
`consolidator.testing` holds a contract suite for each, and every provider runs it.

A port's methods are safe to call from any task of one event loop, raise errors of `consolidator.errors` alone, and leave
their arguments as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Protocol

from consolidator.models import Receipt, Vector
from consolidator.plans import Entry, History, Intent, Lease, Parked, Tombstone
from consolidator.proposals import Batch, Proposal


@dataclass(frozen=True, slots=True)
class Equals:
    """The field is `value`; for an array field: it holds `value`. A keyword or an integer, never a boolean or a float."""

    key: str
    value: str | int


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field is, or the array field holds, one of `values`. No values: nothing matches."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The number or time lies in [gte, lte] and in (gt, lt), where given. A missing field never matches."""

    key: str
    gte: float | datetime | None = None
    lte: float | datetime | None = None
    gt: float | datetime | None = None
    lt: float | datetime | None = None


@dataclass(frozen=True, slots=True)
class Empty:
    """The field is missing, null or an empty array."""

    key: str


@dataclass(frozen=True, slots=True)
class Ids:
    """The point's id is one of these."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    condition: Equals | AnyOf | Range | Empty | Ids


Condition = Equals | AnyOf | Range | Empty | Ids | Not
Where = Sequence[Condition]  # all of them hold; none: every point of the bank


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A record of a collection. `rev` lives in the payload; the store adds `bank`.

    dense: a vector of the collection's dimension, or None (found by words alone). On reading it comes back normalised,
    and only when asked for. lexical: the text that the words leg searches; it is encoded, not stored, so it is "" on reading.
    """

    id: str
    payload: Mapping[str, Any]
    dense: Vector | None = None
    lexical: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One ranked list to ask for: by meaning (`dense`) or by words (`lexical`), exactly one of them.

    payload False: ids and scores alone, which is several times faster; `Found.payload` is empty then.
    """

    name: str
    dense: Vector | None = None
    lexical: str | None = None
    where: Where = ()
    limit: int = 50
    payload: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    id: str
    score: float
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    points: list[Point]
    after: str | None  # hand it back for the next page; None: this was the last


@dataclass(frozen=True, slots=True)
class Expect:
    """What must be stored already for a put to happen: anything, nothing, or revision `rev`."""

    rev: int | None = None
    absent: bool = False


ANY = Expect()
ABSENT = Expect(absent=True)


class PutOutcome(StrEnum):
    WRITTEN = "written"
    EXISTED = "existed"  # ABSENT was expected, and the id is there
    LOST = "lost"  # another revision is stored, or the id belongs to another bank


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSpec:
    """A collection's shape. `embedder` is recorded with it; another one is refused with WrongEmbedder."""

    name: Literal["memories", "observations"]
    dimension: int
    embedder: str
    keywords: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()
    times: tuple[str, ...] = ()


class VectorStore(Protocol):
    """One collection. Every verb on points names its bank first and neither sees nor touches any other bank's points.

    Bad input raises InvalidInput before anything is written: a vector of the wrong length or not finite, an id that is no
    UUID, a payload that is not JSON. A write has happened, whole, when its verb returns, and survives a kill of the process.
    """

    async def ensure(self, spec: CollectionSpec) -> None:
        """Make the collection, or complete what is missing of it. Repeating is harmless."""
        ...

    async def put(self, bank: str, points: Sequence[Point], *, expect: Expect = ANY) -> list[PutOutcome]:
        """Write whole points, each or not at all, by `expect`; the outcomes are in the order given."""
        ...

    async def get(self, bank: str, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        """In the order asked; what is not there, or is another bank's, is left out."""
        ...

    async def search(self, bank: str, legs: Sequence[Leg]) -> list[list[Found]]:
        """One ranked list for each leg, best first, ties by id. Words are weighed by their rarity in this bank."""
        ...

    async def scan(
        self, bank: str, where: Where = (), *, order_by: str | None = None, descending: bool = False,
        after: str | None = None, limit: int = 256,
    ) -> Page:
        """Points by id, or by a time or number field. With `order_by` there is one page only."""
        ...

    async def count(self, bank: str, where: Where = ()) -> int: ...

    async def facet(self, bank: str, key: str, where: Where = (), *, limit: int = 1000) -> dict[str, int]:
        """How many points hold each value of a keyword field."""
        ...

    async def patch(self, bank: str, id: str, changes: Mapping[str, Any], *, expect: int) -> bool:
        """Set payload fields and raise `rev` by one, if `rev` is `expect`. False: it is not, or there is no such point."""
        ...

    async def give_vector(self, bank: str, id: str, dense: Vector, changes: Mapping[str, Any], *, expect: int) -> bool:
        """`patch`, for a point that was stored without a dense vector and now gets one."""
        ...

    async def delete(self, bank: str, ids: Sequence[str]) -> int:
        """How many of them were there."""
        ...

    async def flush(self) -> None:
        """Return when all that was written is on disk."""
        ...

    async def close(self) -> None: ...


class Storage(Protocol):
    """The two collections of a deployment, opened together."""

    memories: VectorStore
    observations: VectorStore

    async def describe(self) -> dict[str, str]:
        """What it is and where, for `doctor`."""
        ...

    async def close(self) -> None: ...


class Ledger(Protocol):
    """Journal, plans, versions, tombstones: the relational record that decides. Each verb is one transaction."""

    async def bank_key(self, bank: str) -> bytes:
        """The bank's 32 random bytes for keyed digests; made on first use."""
        ...

    async def banks(self) -> list[str]: ...

    async def claim(self, bank: str, owner: str, seconds: float) -> Lease | None:
        """The right to change the bank, with a token higher than any before; None while another owner's lease runs."""
        ...

    async def renew(self, lease: Lease, seconds: float) -> bool:
        """False: it was taken over."""
        ...

    async def release(self, lease: Lease) -> None: ...

    async def commit(self, intent: Intent, lease: Lease) -> int:
        """Freeze a plan, with its versions and journal rows, and scrub what it erases; returns how many rows lost their text.

        Raises LeaseLost when the token is not the bank's newest; ErasedMeanwhile when a shown memory has a tombstone (but
        for a forget plan); Conflict when a memory's revision was consumed before, or another plan of this bank is open;
        StaleVersion when a head is not at its `base_rev`. Then nothing was written.
        """
        ...

    async def unfinished(self, bank: str) -> list[Intent]:
        """Plans that are not closed, oldest first, with their bodies."""
        ...

    async def mark_applied(self, intent_id: str) -> None:
        """The store took it all; another plan of this bank may be frozen."""
        ...

    async def close_applied(self, bank: str) -> int:
        """Empty the bodies of applied plans: call it when a flush begun after they were applied has returned."""
        ...

    async def histories(self, bank: str, ids: Sequence[str]) -> list[History]:
        """In the order asked; unknown ids are left out; erased observations too."""
        ...

    async def resting_on(self, bank: str, memory_ids: Sequence[str]) -> list[str]:
        """Observations with one of these in their evidence, or in the lineage or the why of any version."""
        ...

    async def journal(self, bank: str, *, observation_id: str | None = None, limit: int = 1000) -> list[Entry]:
        """Oldest first; with a limit, the newest of them."""
        ...

    async def entomb(self, receipt: Receipt, memory_ids: Sequence[str]) -> None:
        """Open tombstones and keep the receipt, in one step: the point of no return of an erasure."""
        ...

    async def tombstones(self, bank: str, *, ids: Sequence[str] | None = None, open_only: bool = False) -> list[Tombstone]: ...

    async def settle(self, receipt: Receipt) -> None:
        """Close the receipt's tombstones and keep the receipt as it is now."""
        ...

    async def receipts(self, bank: str, *, accepted_only: bool = False) -> list[Receipt]: ...

    async def attempt_failed(
        self, bank: str, ids: Sequence[str], *, reason: str, reply: str, park_after: int, at: datetime
    ) -> list[Parked]:
        """Count a failure for each; `parked` is True from the `park_after`-th on."""
        ...

    async def attempts_cleared(self, bank: str, ids: Sequence[str]) -> None: ...

    async def parked(self, bank: str) -> list[Parked]: ...

    async def spent(self, bank: str) -> dict[str, int]:
        """`passes`, `calls`, `prompt_tokens`, `reply_tokens` of all committed plans, `open_plans`, `open_tombstones`."""
        ...

    async def texts(self, bank: str) -> list[tuple[str, str]]:
        """Every text that the ledger holds of the bank, each with the place where it stands. For `verify`."""
        ...

    async def describe(self) -> dict[str, str]: ...

    async def close(self) -> None: ...


class Embedder(Protocol):
    """Texts to vectors. `name` identifies the vectors: equal names give equal vectors."""

    name: str
    dimension: int

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Finite vectors of length `dimension`, in the order given; off the event loop. Raises EmbedderUnavailable."""
        ...

    async def forget(self, texts: Sequence[str]) -> None:
        """Drop every cached trace of exactly these texts. Raises StoreError where that fails."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    text: str
    model: str
    prompt_tokens: int = 0
    reply_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str = field(repr=False)


class ChatModel(Protocol):
    """A model that answers in JSON. `name` says which, for the journal.

    Owns its retries: when an error comes out, there is no use in asking again at once.
    """

    name: str

    async def complete(self, messages: Sequence[Message], *, schema: Mapping[str, Any], max_tokens: int) -> Completion:
        """One reply, whole; the text is not promised to be valid. Raises the ModelError that fits."""
        ...

    async def close(self) -> None: ...


class Proposer(Protocol):
    """Proposes what to do with a batch of new memories. The engine's guards decide what is done."""

    name: str

    async def propose(self, batch: Batch) -> Proposal:
        """Every memory is cited by an action or declared without durable content, else it is left for another pass."""
        ...

    async def close(self) -> None: ...
