"""Episodes to lessons: what their memories say, and what rules and cards are made of them. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from consolidator.models import Memory, MemoryState, Value
from consolidator.proposals import Batch, NothingDurable, Proposal

GUARDS: dict[str, Any] = {"min_confidence": 0.0, "twin_cosine": 0.92}


class PracticePolicy(Value):
    """every: episodes that are distilled together. works, avoid: scores from which on a success, and below which a mistake,
    becomes a rule.
    """

    every: int = Field(default=20, ge=1, le=200)
    works: float = Field(default=0.85, ge=0, le=1)
    avoid: float = Field(default=0.5, ge=0, le=1)


def state_after(memory: Memory) -> MemoryState:
    """Of a memory that a pass has digested."""
    return MemoryState.DONE


def propose(batch: Batch, policy: PracticePolicy) -> Proposal:
    """What the memories of episodes and sessions come to, by rules."""
    return Proposal(nothing=tuple(NothingDurable(memory=s.alias) for s in batch.memories), extractive=True)
