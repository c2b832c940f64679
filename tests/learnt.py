"""Banks with knowledge, sessions and attempts, made through the ordinary verbs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from consolidator.engine import Bank
from consolidator.models import Category, Memory, Observation, Tags
from consolidator.proposals import Action, Batch, Proposal
from consolidator.records import Mark, SessionRecord, project_scope
from consolidator.testing import ScriptedProposer
from tests.conftest import NOW

ANY_CONFIDENCE = {"floor": -1, "guards": {"min_confidence": 0.0}}
SHOP = project_scope("shop")


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


class Learner:
    """Says what sessions have taught, and keeps their records."""

    def __init__(self, bank: Bank, script: ScriptedProposer) -> None:
        self.bank = bank
        self._script = script

    async def learn(
        self, text: str, sources: Sequence[tuple[str, float]] = (("s1", 1),), *, category: Category = "fact",
        confidence: float = 0.9, tags: Tags = SHOP, contests: Observation | None = None, **fields: Any,
    ) -> Observation:
        """An item that sources told, each so many days ago."""
        kept: list[Memory] = []
        for source, days in sources:
            told = f"{source} showed: {text}"
            kept += (await self.bank.retain(told, source=source, occurred_at=ago(days), tags=tags, **fields)).memories
        mine = {memory.id for memory in kept}

        def answer(batch: Batch) -> Proposal:
            against = next((c.alias for c in batch.candidates if contests and c.observation.id == contests.id), None)
            told = {"op": "create", "text": text, "confidence": confidence, "category": category, "contests": against}
            aliases = [shown.alias for shown in batch.memories]
            actions = tuple(Action.model_validate({**told, "evidence": (alias,), "reason": "seen"}) for alias in aliases)
            return Proposal(actions=actions, extractive=True, by="script")

        self._script.answer_with([answer])
        await self.bank.consolidate()
        found = await self.bank.observations()
        return next(o for o in found if o.text == text and mine & {e.memory_id for e in o.evidence})

    async def session(
        self, id: str, days: float, *, project: str = "shop", first: int = 0, last: int = 10, **fields: Any
    ) -> None:
        """The record of a harvested stretch."""
        record = SessionRecord(session=id, project=project, first=first, last=last, digest=id, at=ago(days), **fields)
        mark = Mark(role="session", about=project, data=record.model_dump(mode="json"))
        await self.bank.retain(
            f"Session {id}, steps {first} to {last}.", source=id, tags=project_scope(project or None), metadata=mark.metadata()
        )

    async def attempt(self, id: str, days: float, score: float, *, task: str = "deploy") -> None:
        mark = Mark(role="episode", about=task, data={"episode": id, "score": score, "steps": 3})
        await self.bank.retain(
            f"Attempt {id}.", source=f"episode/{id}", occurred_at=ago(days), tags={"lesson"}, metadata=mark.metadata()
        )
