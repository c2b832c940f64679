"""The redo log's values: what a pass decided, frozen with full after-images before the first write."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from consolidator.models import MemoryState, Observation, Time, Value, Vector, Version

PlanKind = Literal["consolidate", "forget", "drop", "revise", "import"]


class Lease(Value):
    """The right to change a bank. Every commit is checked against `token`, never against a clock."""

    bank: str
    owner: str
    token: int
    wakes: int = 0  # of the bank, as the lease was taken
    reading: tuple[str, ...] = ()  # memories that the owner before was showing to a model when it died


class Standing(Value):
    """Where a bank stands in the queue of the workers. Times are seconds from now."""

    bank: str
    due_in: float | None = None  # 0 or less: due; None: nothing is asked for
    priority: int = 5  # 0 is served first, 9 last
    waiting: int = 0  # memories that were retained since a pass last found nothing more to do
    attempts: int = 0  # passes in a row that failed
    last_error: str | None = None
    paused: str | None = None  # why; nothing but a person ends it
    holder: str | None = None  # whose lease runs
    lease_left: float = 0.0


class Spent(Value):
    """What calls of a model cost."""

    calls: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.reply_tokens


class Breaker(Value):
    """What is known of an endpoint's health. Times are seconds of the ledger's clock; `consolidator.breakers` has the rules."""

    endpoint: str
    recent: tuple[bool, ...] = ()  # outcomes of the last calls, newest last
    rest: float = 0.0  # seconds of the last rest; doubles while probes fail
    open_until: float = 0.0  # nobody asks before
    probing: str | None = None  # who asks alone after a rest
    probe_until: float = 0.0
    reason: str | None = None  # why it rests


class MemoryMark(Value):
    """A memory's new state. `rev` is the revision that this plan consumes."""

    memory_id: str
    rev: int
    state: MemoryState
    corrected_by: str | None = None  # the memory in which a person put it right; "": none any more


class Change(Value):
    """An observation's after-image. `base_rev` None creates it; else it must be the revision that is stored."""

    after: Observation
    base_rev: int | None = None
    vector: Vector = Field(default_factory=list)
    lineage: frozenset[str] = frozenset()  # of the text as it is now
    version: Version | None = None  # set when the text or the state changed
    purge: tuple[int, ...] = ()  # versions that lose their text and lineage


class Entry(Value):
    """A row of the journal. Texts are None once they were erased; the digest stays."""

    seq: int = 0  # given by the ledger
    bank: str
    intent: str
    at: Time
    action: str
    observation_id: str | None = None
    version: int | None = None
    before: str | None = None
    after: str | None = None
    reason: str | None = ""
    cites: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()  # what its maker had read besides: its reason may quote that; written, not read back
    by: str = ""
    digest: str = ""


class Intent(Value):
    """A frozen plan. `shown` are the memories that its maker had read; a tombstone on one of them refuses it."""

    id: str
    bank: str
    kind: PlanKind
    created_at: Time
    shown: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    marks: tuple[MemoryMark, ...] = ()
    entries: tuple[Entry, ...] = ()
    erased: tuple[str, ...] = ()  # memories whose every trace in the ledger this plan scrubs
    by: str = ""
    prompt_digest: str = ""
    calls: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0


class History(Value):
    """An observation with all its versions, oldest first."""

    observation: Observation
    versions: tuple[Version, ...]
    vectors: dict[int, Vector] = Field(default_factory=dict)

    @property
    def current(self) -> Version:
        return self.versions[-1]


class Tombstone(Value):
    memory_id: str
    receipt: str
    open: bool


class Parked(Value):
    """A memory that is not digested yet, with what happened. `reply` is the model's last raw answer.

    state: `trying` again with the next pass; `parked` after too many failures; `held` in quarantine until a person decides.
    """

    memory_id: str
    state: Literal["trying", "parked", "held"] = "trying"
    attempts: int = 0
    reason: str
    reply: str = ""
    first_at: Time
    last_at: Time


class Done(Value):
    """What one pass did with one action of the proposal."""

    action: str
    observation_id: str | None = None
    before: str | None = None
    after: str | None = None
    evidence: tuple[str, ...] = ()
    reason: str = ""


class Report(Value):
    """What `consolidate` did. A memory ends in exactly one of `consolidated`, `nothing_durable`, `left`, `parked`, `held`."""

    dry_run: bool = False
    paused: str | None = None  # why nothing was done
    passes: int = 0
    consolidated: int = 0
    nothing_durable: int = 0
    left: int = 0  # still pending, with their error
    parked: int = 0
    held: int = 0  # in quarantine: the model refused
    created: int = 0
    updated: int = 0
    reinforced: int = 0
    deleted: int = 0
    merged: int = 0
    contested: int = 0  # less trusted sources contradict an observation: kept beside it
    skipped: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    actions: tuple[Done, ...] = ()
    faults: tuple[str, ...] = ()
