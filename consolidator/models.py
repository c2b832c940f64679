"""What the engine speaks of: memories, observations, evidence, versions, hits, receipts. Frozen, keyword-only, times in UTC."""

from __future__ import annotations

import json
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from consolidator.clock import to_utc

Time = Annotated[datetime, AfterValidator(to_utc)]
Vector = list[float]
Kind = Literal["world", "experience", "lesson"]
Tags = frozenset[str]
Category = Literal["fact", "pitfall", "pattern", "tool-quirk", "question", "rule", "mistake"]
PERSON = "person"  # who makes versions that no model overwrites


class Value(BaseModel):
    """Root of all values. Inputs never appear in validation errors: they may be private."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Trust(IntEnum):
    """How far a source is believed: 0 web or tool text, 1 agent, 2 user, 3 operator."""

    TOOL = 0
    AGENT = 1
    USER = 2
    OPERATOR = 3


class MemoryState(StrEnum):
    UNEMBEDDED = "unembedded"  # durable, found by its words, not yet by its meaning
    PENDING = "pending"  # awaits consolidation
    DONE = "done"
    PARKED = "parked"  # failed alone too often; visible and replayable
    HELD = "held"  # in quarantine
    WAITING = "waiting"  # an episode or a session: digested together with what comes, and by no ordinary pass


class ObservationState(StrEnum):
    LIVE = "live"
    RETRACTED = "retracted"  # deleted by consolidation or merged; restorable
    ERASED = "erased"  # a husk without text


class Trend(StrEnum):
    NEW = "new"
    STRENGTHENING = "strengthening"
    STABLE = "stable"
    WEAKENING = "weakening"
    STALE = "stale"


class Memory(Value):
    """Verbatim text, never rewritten."""

    id: str
    bank: str
    text: str
    source: str
    sequence: int | None = None  # position in the source
    part: int = 0  # position among the parts of a long text
    speaker: str | None = None
    tags: Tags = frozenset()
    kind: Kind = "world"
    occurred_at: Time | None = None  # event time
    retained_at: Time
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    trust: int = Trust.USER
    corrected_by: str | None = None  # the memory in which a person put it right
    echo: bool = False  # recall had handed this text out: it is no new evidence
    state: MemoryState = MemoryState.PENDING
    rev: int = 0

    @property
    def time(self) -> datetime:
        """When it happened; where that is unknown, when it was retained."""
        return self.occurred_at or self.retained_at

    @property
    def spoken(self) -> str:
        """The text with its speaker: what is embedded."""
        return f"{self.speaker}: {self.text}" if self.speaker else self.text

    @property
    def dated(self) -> str:
        """The text with date and speaker: what is searched by words."""
        return f"[{self.time:%d %B %Y}] {self.spoken}"


class Retained(Value):
    """What `retain` kept. `memories` is in the order given, one entry for each part of each text."""

    memories: tuple[Memory, ...]
    new: int  # how many were not known before
    embedded: bool = True  # False: the embedder failed; found by words at once, by meaning later
    redacted: int = 0  # secrets that were masked before anything was stored
    held: int = 0  # in quarantine until a person releases them
    replaced: Receipt | None = None  # what an earlier edition of the source had said besides, erased


class Evidence(Value):
    """A link from an observation to a memory that supports it."""

    memory_id: str
    source: str
    occurred_at: Time  # event time of the memory, else its retain time
    since_version: int = 1  # the observation's version at which it was attached
    trust: int = Trust.USER
    supports: bool = True  # False: a correction has shown it to be wrong


class Version(Value):
    """One change of an observation's text. `text` is None once purged; the digest stays."""

    observation_id: str
    number: int
    text: str | None
    digest: str
    state: ObservationState = ObservationState.LIVE
    confidence: float = 0.7
    lineage: frozenset[str] = frozenset()  # memories that the text was derived from
    why: frozenset[str] = frozenset()  # memories that justified a retraction or a merge
    change: str = "create"
    reason: str = ""
    by: str = ""  # the model, "rules", "person", "forget"
    at: Time


class Observation(Value):
    """One self-contained statement distilled from memories."""

    id: str
    bank: str
    text: str
    tags: Tags = frozenset()  # its scope
    state: ObservationState = ObservationState.LIVE
    confidence: float = 0.7
    version: int = 1
    rev: int = 0
    evidence: tuple[Evidence, ...] = ()
    created_at: Time
    updated_at: Time
    trend: Trend | None = None
    importance: float | None = None  # nats per token; None is unknown, which is not zero
    contests: str | None = None  # the observation that it contradicts on the word of less trusted sources
    category: Category | None = None  # of what was learnt from sessions and episodes

    @property
    def proof_count(self) -> int:
        """The number of distinct supporting sources: derived, never stored."""
        return len({e.source for e in self.evidence if e.supports})

    @property
    def trust(self) -> int:
        return max((e.trust for e in self.evidence), default=Trust.TOOL)


class LegShare(Value):
    """What one ranked list said about a hit and what that was worth."""

    leg: str
    rank: int | None  # from 1; None: scored, but not among the list's first
    score: float
    standardised: float
    weight: float

    @property
    def share(self) -> float:
        return self.standardised * self.weight


class Term(Value):
    """A named addend of a hit's base score."""

    name: str
    share: float


class Factor(Value):
    """A bounded multiplier, neutral (1.0) when its value is unknown or its weight is 0."""

    name: str
    value: str
    weight: float
    multiplier: float


class Explanation(Value):
    """Why a hit stands where it does: `score = logistic(sum of shares) * product of multipliers`, exactly."""

    legs: tuple[LegShare, ...]
    terms: tuple[Term, ...] = ()
    factors: tuple[Factor, ...] = ()
    moved: str | None = None  # what reordered it after scoring, in words

    @property
    def base(self) -> float:
        return sum(leg.share for leg in self.legs) + sum(term.share for term in self.terms)


class Hit(Value):
    """One answer of recall. An observation carries its best verbatim evidence in `quote`."""

    kind: Literal["memory", "observation"]
    id: str
    text: str
    score: float
    source: str | None = None
    speaker: str | None = None
    occurred_at: Time
    tags: Tags = frozenset()
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    proof_count: int | None = None
    confidence: float | None = None
    trend: Trend | None = None
    importance: float | None = None
    version: int | None = None
    contests: str | None = None  # the observation that it contradicts on the word of less trusted sources
    category: Category | None = None
    quote: Memory | None = None
    superseded_by: str | None = None  # a newer hit about the same thing stands above this one
    tokens: int = 0  # size of the hit as it is serialised for a prompt
    explanation: Explanation | None = None

    @property
    def line(self) -> str:
        """The hit as one line for a prompt."""
        said = f' ("{self.quote.spoken}", {self.quote.time:%d %B %Y})' if self.quote else f" ({self.occurred_at:%d %B %Y})"
        who = f"{self.speaker}: " if self.speaker and self.kind == "memory" else ""
        doubt = " [contradicts what a more trusted source said]" if self.contests else ""
        return f"- {who}{self.text}{doubt}{said}"


class ErasureCase(StrEnum):
    """What erasing memories does to an observation that cites them (`DESIGN.md` 8)."""

    UNTOUCHED = "untouched"
    SUPPORT_DROPPED = "support_dropped"
    ROLLED_BACK = "rolled_back"
    REOPENED = "reopened"  # only the erased memories had retracted it
    ERASED = "erased"


class ErasedObservation(Value):
    id: str
    case: ErasureCase
    version_before: int
    version_after: int | None
    purged_versions: tuple[int, ...] = ()


class Receipt(Value):
    """What an erasure removed, rolled back and queued. Digests are keyed: they say nothing to a stranger."""

    id: str
    bank: str
    asked: dict[str, JsonValue]
    at: Time
    state: Literal["planned", "nothing", "accepted", "settled", "scrubbed"] = "accepted"
    memories: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    observations: tuple[ErasedObservation, ...] = ()
    reopened: tuple[str, ...] = ()  # memories that wait for consolidation again
    digests: tuple[str, ...] = ()  # of every text that was erased or purged
    fingerprints: tuple[str, ...] = ()  # of their wordings; they stand in the caller's receipt alone, in no store
    journal_rows: int = 0  # rows that lost their text
    model_calls: int = 0


class Verification(Value):
    """The outcome of `verify(receipt)`; `ok` is True when `found` is empty."""

    receipt: str
    checked: dict[str, int]  # what was looked at, and how much of it
    found: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.found


class Stats(Value):
    bank: str
    memories: int
    observations: int
    pending: int
    unembedded: int
    parked: int
    held: int
    waiting: int = 0  # attempts that are not distilled yet, and sessions whose harvest did not end
    oldest_pending: Time | None = None
    open_plans: int = 0
    open_tombstones: int = 0
    passes: int = 0
    model_calls: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    last_error: str | None = None
    due_in: float | None = None  # seconds to the next pass; 0 or less: due; None: nothing is asked for
    attempts: int = 0  # passes in a row that failed
    paused: str | None = None  # why
    holder: str | None = None  # the worker that has the bank now
    unscored: int = 0  # transcripts that wait to be scored
    scored: int = 0  # memories and observations of which something was measured
    scorer_refused: str | None = None  # why the configured model does not measure, and words do


def scope_key(tags: Tags) -> str:
    """The set of tags as one keyword: sorted, each once, and no tag can imitate two."""
    return json.dumps(sorted(tags), ensure_ascii=False)


def dump(value: Any) -> Any:
    """A value, or a collection of values, as JSON types."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: dump(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [dump(item) for item in value]
    return value
