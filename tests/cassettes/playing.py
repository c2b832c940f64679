"""Playing a case of consolidation: values for what is said and what must hold, and the bank that comes of it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from consolidator.config import Settings
from consolidator.engine import Bank, connect
from consolidator.models import MemoryState, Observation, Trust, Version
from consolidator.plans import Entry, Report
from consolidator.ports import ChatModel, Completion, Message
from consolidator.proposing import ModelProposer
from consolidator.testing import HashEmbedder, ManualClock

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    text: str
    speaker: str = "Maren"
    source: str = "chat-1"
    at: str = "2026-05-04"
    trust: Trust = Trust.USER
    tags: tuple[str, ...] = ()

    def item(self) -> dict[str, Any]:
        when = datetime.fromisoformat(self.at).replace(tzinfo=UTC)
        fields = {"text": self.text, "speaker": self.speaker, "source": self.source, "trust": self.trust, "tags": self.tags}
        return {**fields, "occurred_at": when}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is retained before one call of `consolidate`. left: memories that it leaves pending, with their error."""

    said: tuple[Said, ...] = ()
    left: tuple[str, ...] = ()
    calls: int = 1  # 2: the first reply broke a rule and was sent back


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One live observation, the only one that has all these phrases. None: not looked at."""

    holds: tuple[str, ...]
    never: tuple[str, ...] = ()
    evidence: tuple[str, ...] | None = None  # exactly these
    wrong: tuple[str, ...] = ()  # evidence that gives no support
    changes: tuple[str, ...] | None = None  # of its versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    steps: tuple[Step, ...]
    held: tuple[Held, ...] = ()
    count: int | None = None  # of live observations; None: at least those in `held`
    never: tuple[str, ...] = ()  # in no live text
    nothing: tuple[str, ...] | None = ()  # declared without durable content, exactly; None: not looked at
    journal: Mapping[str, int] = field(default_factory=dict)  # entries for each of these actions, exactly


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a case left in its bank."""

    reports: tuple[Report, ...]
    pending: tuple[Mapping[str, str], ...]  # after each step: the memories that wait, with their error
    ids: Mapping[str, str]  # of the memories, by name
    observations: tuple[Observation, ...]
    histories: Mapping[str, Sequence[Version]]
    journal: tuple[Entry, ...]

    @property
    def actions(self) -> Counter[str]:
        return Counter(entry.action for entry in self.journal)


async def play(case: Case, model: ChatModel) -> Played:
    """Runs a case in a fresh bank."""
    told = {
        "store": {"kind": "memory"}, "consolidation": {"near_each": 200, "floor": -1},  # every candidate is shown
        "retain": {"quarantine": False},  # the model has to see even what would be held
    }
    clock = ManualClock(NOW)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate({"folder": Path(folder), **told})
        async with connect(settings=settings, clock=clock, embedder=HashEmbedder(), proposer=ModelProposer(model)) as engine:
            return await _play(case, engine.bank("cases"), clock)


async def _play(case: Case, bank: Bank, clock: ManualClock) -> Played:
    reports, pending, ids = list[Report](), list[Mapping[str, str]](), dict[str, str]()
    for number, step in enumerate(case.steps, start=1):
        clock.move(timedelta(hours=1))
        if step.said:
            kept = await bank.retain([said.item() for said in step.said])
            ids |= {f"{number}.{place}": memory.id for place, memory in enumerate(kept.memories, start=1)}
        reports.append(await bank.consolidate())
        pending.append(await _pending(bank, ids))
    live = await bank.observations()
    return Played(
        reports=tuple(reports), pending=tuple(pending), ids=ids, observations=tuple(live),
        histories={o.id: await bank.history(o.id) for o in live}, journal=tuple(await bank.journal()),
    )


async def _pending(bank: Bank, ids: Mapping[str, str]) -> dict[str, str]:
    waiting = {memory.id for memory in await bank.memories(state=MemoryState.PENDING)}
    errors = {row.memory_id: row.reason for row in await bank.parked()}
    return {name: errors.get(id, "") for name, id in ids.items() if id in waiting}


class Shared:
    """A model that several engines use; closing one of them leaves it open."""

    def __init__(self, model: ChatModel) -> None:
        self.name, self.endpoint, self._model = model.name, model.endpoint, model

    async def complete(self, messages: Sequence[Message], *, schema: Mapping[str, Any], max_tokens: int) -> Completion:
        return await self._model.complete(messages, schema=schema, max_tokens=max_tokens)

    async def close(self) -> None:
        pass


def told(*texts: str, speaker: str = "Maren", source: str = "chat-1", at: str = "2026-05-04", **fields: Any) -> Step:
    """A step in which one speaker says it all."""
    said = tuple(Said(text=text, speaker=speaker, source=source, at=at) for text in texts)
    return Step(said=said, **fields)
