"""The redo log's values: what a pass decided, frozen with full after-images before the first write."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from consolidator.models import MemoryState, Observation, Time, Value, Vector, Version

PlanKind = Literal["consolidate", "forget"]


class Lease(Value):
    """The right to change a bank. Every commit is checked against `token`, never against a clock."""

    bank: str
    owner: str
    token: int


class MemoryMark(Value):
    """A memory's new state. `rev` is the revision that this plan consumes."""

    memory_id: str
    rev: int
    state: MemoryState


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
    """A memory that consolidation could not digest, with what happened. `reply` is the model's last raw answer."""

    memory_id: str
    attempts: int
    parked: bool
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
    """What `consolidate` did. Each memory ends in exactly one of `consolidated`, `nothing_durable`, `left`, `parked`."""

    dry_run: bool = False
    passes: int = 0
    consolidated: int = 0
    nothing_durable: int = 0
    left: int = 0  # still pending, with their error
    parked: int = 0
    created: int = 0
    updated: int = 0
    reinforced: int = 0
    deleted: int = 0
    merged: int = 0
    skipped: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    actions: tuple[Done, ...] = ()
    faults: tuple[str, ...] = ()
