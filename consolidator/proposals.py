"""What a pass shows, and what is proposed in return. Aliases (`m1`, `o3`) stand for ids: a reply can name nothing else."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from consolidator.models import Category, Memory, Observation, Tags, Value, Vector

Op = Literal["create", "update", "delete"]
UpdateKind = Literal["restate", "refine", "state_change", "correction"]


class ShownMemory(Value):
    alias: str
    memory: Memory
    vector: Vector = Field(default_factory=list)


class Candidate(Value):
    """An observation shown beside the new memories, because it is near to one of them."""

    alias: str
    observation: Observation
    vector: Vector = Field(default_factory=list)


class Batch(Value):
    """New memories of one scope, oldest first, and the observations that they may touch.

    context: what the same source said just before (`c1`, `c2`), digested already; a batch's border must not cut a question
    from its answer. It may be cited beside a new memory.
    """

    bank: str
    tags: Tags = frozenset()
    memories: tuple[ShownMemory, ...]
    context: tuple[ShownMemory, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    now: datetime

    @property
    def shown(self) -> tuple[ShownMemory, ...]:
        """Every memory whose words the proposer has before it."""
        return self.context + self.memories

    def memory(self, alias: str) -> Memory:
        return next(shown.memory for shown in self.shown if shown.alias == alias)

    def candidate(self, alias: str) -> Candidate:
        return next(candidate for candidate in self.candidates if candidate.alias == alias)


class Action(Value):
    """One decision. `confidence` None: unchanged for an update, the default for a create."""

    op: Op
    observation: str | None = None  # alias of the target; None for a create
    change: UpdateKind | None = None
    text: str = ""
    confidence: float | None = None
    evidence: tuple[str, ...]  # aliases of the memories that it rests on
    contradicted: tuple[str, ...] = ()  # those of them that the text shows to be wrong: cited, but no support
    reason: str = ""
    category: Category | None = None  # of a create
    contests: str | None = None  # alias of an observation that a create contradicts, and stands beside


class NothingDurable(Value):
    memory: str
    reason: str = ""


class Proposal(Value):
    """Sound actions, memories without durable content, and what was refused on the way."""

    actions: tuple[Action, ...] = ()
    nothing: tuple[NothingDurable, ...] = ()
    extractive: bool = False  # its texts hold nothing but what they cite, and the text that they update
    faults: tuple[str, ...] = ()  # what the reply still broke after the repair turn
    by: str = "rules"
    prompt_digest: str = ""
    calls: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    reply: str = ""  # raw, kept with parked memories only
