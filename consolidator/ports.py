"""What the engine needs from the outside, cut at domain verbs. Each port's promises stand in its docstrings;
`consolidator.testing` holds a contract suite for each, and every provider runs it.

A port's methods are safe to call from any task of one event loop, raise errors of `consolidator.errors` alone, and leave
their arguments as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Protocol

from consolidator.models import Receipt, Vector
from consolidator.plans import Breaker, Entry, History, Intent, Lease, Parked, Spent, Standing, Tombstone
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
    """One collection. Every verb on points names its bank first and neither sees nor touches any other bank's points; `tenants`
    alone looks across banks, and counts.

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

    async def tenants(self, where: Where, *, limit: int = 1000) -> dict[str, int]:
        """How many points of each bank match; banks without one are left out."""
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

    async def scrub(self) -> bool:
        """Rewrite the files, so that no byte of what was deleted or replaced before can be read from them. Costs by the size of
        the collection.

        False: it cannot do that, the files are somebody else's.
        """
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
    """Journal, plans, versions, tombstones, queue: the relational record that decides. Each verb is one transaction.

    Every time that is compared is the ledger's own: the database's where several hosts share it, else the host's.
    """

    async def bank_key(self, bank: str) -> bytes:
        """The bank's 32 random bytes for keyed digests; made on first use."""
        ...

    async def banks(self) -> list[str]: ...

    async def unsettled(self) -> list[str]:
        """Banks with a plan that is not closed, or an erasure that is not settled."""
        ...

    # the queue: one row for each bank

    async def wake(self, bank: str, *, new: int, delay: float, at_most: float, batch: int, priority: int = 5) -> None:
        """Ask for a pass: `delay` seconds from now, but at most `at_most` after it was first asked for; at once when `batch`
        memories wait. Never later than a wake before has asked for, never earlier than `postpone` allows. The most urgent
        priority counts until the pass.
        """
        ...

    async def queue(self, limit: int = 100) -> list[Standing]:
        """Banks that are asked for and not paused, the next one first: due ones by priority, then the others by time.

        For one whose lease runs, `due_in` is not before the lease ends.
        """
        ...

    async def standing(self, bank: str) -> Standing:
        """Of a bank that the ledger does not know: that nothing is asked for."""
        ...

    async def claim(self, bank: str, owner: str, seconds: float, *, over: Sequence[str] = ()) -> Lease | None:
        """The right to change the bank, with a token higher than any before; None while another owner's lease runs, but for one
        whose owner shows one of `over` to a model: nothing may come of that.
        """
        ...

    async def renew(self, lease: Lease, seconds: float) -> bool:
        """False: it was taken over."""
        ...

    def beating(self, lease: Lease, seconds: float, lost: Callable[[], None]) -> AbstractContextManager[None]:
        """While inside, the lease is renewed for `seconds`, every quarter of that, by a thread and a connection of their own: an
        event loop that is blocked must not look dead. `lost` is called once, from that thread, when it was taken over.
        """
        ...

    async def reading(self, lease: Lease, ids: Sequence[str]) -> None:
        """Note which memories a model is shown from now on; none: the call is over. Raises LeaseLost."""
        ...

    async def finish(self, lease: Lease, *, more: bool) -> None:
        """A pass ended well: failures are forgotten. more: the bank is due again at once; else no longer, unless it was woken
        since the lease was claimed. Does nothing when the lease is lost.
        """
        ...

    async def postpone(self, lease: Lease, seconds: float, error: str, *, attempt: bool) -> None:
        """The bank is due in `seconds`, and not before, whatever wakes it. attempt: count a failure. Does nothing when the lease
        is lost.
        """
        ...

    async def release(self, lease: Lease) -> None: ...

    async def pause(self, bank: str, reason: str | None) -> None:
        """No pass until `pause(bank, None)`; then the bank is due at once."""
        ...

    async def breaker(self, endpoint: str, step: Callable[[Breaker, float], Breaker]) -> tuple[Breaker, float]:
        """Change an endpoint's breaker by a pure function of what it is and of the time, so that no two workers do at once.

        Returns what it is now, and the time. An endpoint that is not known begins as `Breaker(endpoint=...)`.
        """
        ...

    async def spend(self, bank: str, day: str, spent: Spent) -> None:
        """Add to what the bank has cost on a day, such as 2026-01-31."""
        ...

    async def spent_on(self, bank: str, day: str) -> Spent: ...

    async def commit(self, intent: Intent, lease: Lease) -> int:
        """Freeze a plan, with its versions and journal rows, and scrub what it erases; returns how many rows lost their text.
        Failures of memories that it marks as done are forgotten.

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

    async def consumed_by(self, intent_id: str) -> list[str]:
        """The memories that a plan has marked."""
        ...

    async def tombstones(self, bank: str, *, ids: Sequence[str] | None = None, open_only: bool = False) -> list[Tombstone]: ...

    async def settle(self, receipt: Receipt) -> None:
        """Close the receipt's tombstones and keep the receipt as it is now."""
        ...

    async def receipts(self, bank: str, *, accepted_only: bool = False) -> list[Receipt]: ...

    async def unscrubbed(self) -> list[Receipt]:
        """Of all banks, the settled ones, whose texts may linger in files; the oldest first."""
        ...

    async def scrub(self) -> bool:
        """As `VectorStore.scrub`, for the ledger's own files."""
        ...

    async def attempt_failed(
        self, bank: str, ids: Sequence[str], *, reason: str, reply: str, park_after: int, at: datetime, lease: Lease | None = None
    ) -> list[Parked]:
        """Count a failure for each; its state is `parked` from the `park_after`-th on. Memories with a tombstone are left out: a
        reply may quote them. Raises LeaseLost when a lease is given that is not the bank's newest.
        """
        ...

    async def hold(self, bank: str, ids: Sequence[str], *, reason: str, at: datetime, lease: Lease | None = None) -> None:
        """Rows in state `held`, whatever they were before; else as `attempt_failed`."""
        ...

    async def attempts_cleared(self, bank: str, ids: Sequence[str]) -> None:
        """The rows are gone."""
        ...

    async def parked(self, bank: str) -> list[Parked]:
        """All rows, in whatever state, the first to fail first."""
        ...

    async def hand_out(self, bank: str, digests: Sequence[str], at: datetime, *, keep: int) -> None:
        """Note texts, by their keyed digests, as given out by recall; only the newest `keep` of a bank stay known."""
        ...

    async def handed_out(self, bank: str, digests: Sequence[str]) -> set[str]:
        """Those of them that are known."""
        ...

    async def deleted_since(self, bank: str, since: datetime) -> int:
        """How many observations consolidation has deleted, by the journal; those merged into others are not lost."""
        ...

    async def spent(self, bank: str) -> dict[str, int]:
        """`passes` that were committed; `calls`, `prompt_tokens`, `reply_tokens` of all that was spent, on failures too;
        `open_plans`, `open_tombstones`.
        """
        ...

    async def dump(self, bank: str) -> dict[str, list[dict[str, Any]]]:
        """Every row of a bank by table, as it stands there, but for its key and vectors. For `fsck`."""
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
    """A model that answers in JSON. `name` says which, for the journal; `endpoint`, what fails together: server and model.

    Owns its retries: when an error comes out, there is no use in asking again at once.
    """

    name: str
    endpoint: str

    async def complete(self, messages: Sequence[Message], *, schema: Mapping[str, Any], max_tokens: int) -> Completion:
        """One reply, whole; the text is not promised to be valid. Raises the ModelError that fits."""
        ...

    async def close(self) -> None: ...


class Proposer(Protocol):
    """Proposes what to do with a batch of new memories. The engine's guards decide what is done.

    endpoint: what it asks, and fails together with; empty for one that works in the process.
    """

    name: str
    endpoint: str

    async def propose(self, batch: Batch) -> Proposal:
        """Every memory is cited by an action or declared without durable content, else it is left for another pass."""
        ...

    async def close(self) -> None: ...
