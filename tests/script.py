"""Words for the tests' proposer: short ways to say what a pass should decide."""

from __future__ import annotations

from typing import Any

from consolidator.engine import Bank
from consolidator.models import Observation
from consolidator.proposals import Action, Batch, NothingDurable, Proposal
from consolidator.testing import ScriptedProposer


def create(text: str, *evidence: str, confidence: float | None = 0.8) -> Action:
    return Action(op="create", text=text, confidence=confidence, evidence=evidence or ("m1",), reason="told")


def update(target: str, text: str, *evidence: str, change: Any = "refine", confidence: float | None = None) -> Action:
    fields = {"text": text, "confidence": confidence, "evidence": evidence or ("m1",), "reason": "told"}
    return Action.model_validate({"op": "update", "observation": target, "change": change, **fields})


def delete(target: str, *evidence: str) -> Action:
    return Action(op="delete", observation=target, evidence=evidence or ("m1",), reason="told")


def plan(*actions: Action) -> Proposal:
    return Proposal(actions=actions, by="script")


class Teller:
    """Retains texts and says what becomes of each, one at a time."""

    def __init__(self, bank: Bank, script: ScriptedProposer) -> None:
        self.bank = bank
        self._script = script

    def say(self, *answers: Any) -> None:
        """The next answers of the proposer."""
        self._script.answer_with(answers)

    async def believe(self, text: str, *, source: str = "s0", **fields: Any) -> Observation:
        """Retain a text and make it an observation, word for word."""
        (memory,) = (await self.bank.retain(text, source=source, **fields)).memories

        def answer(batch: Batch) -> Proposal:
            others = (NothingDurable(memory=s.alias) for s in batch.memories if s.memory.id != memory.id)
            told = [create(text, s.alias) for s in batch.memories if s.memory.id == memory.id]
            return Proposal(actions=tuple(told), nothing=tuple(others), by="script")

        self.say(answer)
        await self.bank.consolidate()
        made = [o for o in await self.bank.observations() if memory.id in {e.memory_id for e in o.evidence}]
        return made[0]

    async def tell(self, text: str, source: str, target: Observation, action: Action, **fields: Any) -> str:
        """Retain a text, and let it do `action` to an observation; returns the memory's id."""
        (memory,) = (await self.bank.retain(text, source=source, **fields)).memories

        def answer(batch: Batch) -> Proposal:
            alias = next(c.alias for c in batch.candidates if c.observation.id == target.id)
            return plan(action.model_copy(update={"observation": alias}))

        self.say(answer)
        await self.bank.consolidate()
        return memory.id
