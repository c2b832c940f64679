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
from typing import Any, Literal, NamedTuple, Protocol

from consolidator.errors import ScoringError
from consolidator.ledgers import Ledger as Ledger
from consolidator.models import Vector
from consolidator.proposals import Batch, Proposal
from consolidator.transcripts import Scored, ScoringAbility, Target, Turn


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


Simple = Equals | AnyOf | Range | Empty | Ids


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    condition: Simple


@dataclass(frozen=True, slots=True)
class Either:
    """At least one of the conditions holds. No conditions: nothing matches."""

    conditions: tuple[Simple, ...]


Condition = Simple | Not | Either
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


class Found(NamedTuple):
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


class Reranker(Protocol):
    """Reads a question and a text together, which tells more than two vectors do, and costs more. `name` says which model."""

    name: str

    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        """A finite number for each text, in the order given; higher is better, the scale is its own. Off the event loop; a call
        that is cancelled harms no other. Raises RerankerUnavailable.
        """
        ...

    async def close(self) -> None:
        """Closing twice is harmless; afterwards `rerank` raises RerankerUnavailable."""
        ...


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


class LogprobModel(Protocol):
    """A model that tells how likely a given text is to it.

    Owns its retries. Equal targets get equal numbers, up to the noise of its arithmetic. No text of a target is logged.
    """

    async def verify(self) -> ScoringAbility:
        """Prove, by asking, that its numbers belong to the tokens of the response; what it can do. Costs a few calls.

        Raises ScoringUnsupported, ScoringMisaligned; ScoringUnavailable, also once it is closed.
        """
        ...

    async def count_tokens(self, turns: Sequence[Turn]) -> list[int]:
        """Of each turn, with what the template puts around it. Raises ScoringError before `verify` has passed."""
        ...

    async def score(self, targets: Sequence[Target]) -> list[Scored | ScoringError]:
        """One for each target, in order: its number, or why there is none. A turn without any segment is not sent.

        Raises ScoringUnsupported when nothing at all can be said, and ScoringError before `verify` has passed.
        """
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
