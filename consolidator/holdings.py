"""What a bank holds of sessions, attempts and what was learnt from them. Nothing that is being erased is in any of it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from pydantic import ValidationError

from consolidator.models import Memory, Observation, ObservationState, Time, Value
from consolidator.paging import PAGE, pages
from consolidator.parts import Parts
from consolidator.plans import History
from consolidator.points import memory_of, observation_of
from consolidator.ports import Condition, Equals, Not
from consolidator.provenance import unsupported, without
from consolidator.records import KNOWLEDGE, SessionRecord, marked

LIVE = Equals("state", ObservationState.LIVE.value)
LEARNT: tuple[Condition, ...] = (LIVE, Equals("tags", KNOWLEDGE))


class Attempt(Value):
    """An episode, as far as it is measured."""

    episode: str
    task: str
    score: float
    at: Time


@dataclass(frozen=True, slots=True)
class Held:
    """An observation, with the memories that its text was derived from."""

    observation: Observation
    lineage: frozenset[str]

    @property
    def named(self) -> frozenset[str]:
        """All memories whose erasure bears on it."""
        return self.lineage.union(e.memory_id for e in self.observation.evidence)


async def entombed(parts: Parts, bank: str) -> set[str]:
    """Memories whose erasure is under way. Read before anything else: what is read later may be put right already."""
    return {stone.memory_id for stone in await parts.ledger.tombstones(bank, open_only=True)}


async def held(parts: Parts, bank: str, where: Sequence[Condition], gone: Set[str]) -> list[Held]:
    """Observations, by creation."""
    points = [p async for p in pages(parts.observations, bank, where) if not gone & {*p.payload["lineage_memory_ids"]}]
    found = [Held(unsupported(observation_of(bank, p), gone), frozenset(p.payload["lineage_memory_ids"])) for p in points]
    return sorted(found, key=lambda h: (h.observation.created_at, h.observation.id))


async def sessions(parts: Parts, bank: str, gone: Set[str]) -> list[SessionRecord]:
    """Every harvested stretch, with its time, once."""
    told = [_record(m) for m in await _marked(parts, bank, "session", gone)]
    return list({(r.session, r.first, r.last): r for r in told if r is not None}.values())


async def attempts(parts: Parts, bank: str, gone: Set[str]) -> list[Attempt]:
    """Every attempt at a task, once."""
    told = [_attempt(m) for m in await _marked(parts, bank, "episode", gone)]
    return list({attempt.episode: attempt for attempt in told if attempt is not None}.values())


async def histories(parts: Parts, bank: str, gone: Set[str]) -> list[History]:
    """Of all that was learnt, also of what was retracted since."""
    kept: tuple[Condition, ...] = (Not(Equals("state", ObservationState.ERASED.value)), Equals("tags", KNOWLEDGE))
    ids = [p.id async for p in pages(parts.observations, bank, kept)]
    found: list[History] = []
    for start in range(0, len(ids), PAGE):
        read = await parts.ledger.histories(bank, ids[start : start + PAGE])
        found += [left for history in read if (left := without(history, gone)) is not None]
    return found


async def _marked(parts: Parts, bank: str, role: str, gone: Set[str]) -> list[Memory]:
    points = [p async for p in pages(parts.memories, bank, (Equals("role", role),)) if p.id not in gone]
    return [memory_of(bank, p) for p in points]


def _record(memory: Memory) -> SessionRecord | None:
    """None: somebody else's mark."""
    mark = marked(memory)
    try:
        record = SessionRecord.model_validate(mark.data if mark else {})
    except ValidationError:
        return None
    return record if record.at else record.model_copy(update={"at": memory.time})


def _attempt(memory: Memory) -> Attempt | None:
    mark = marked(memory)
    data = mark.data if mark else {}
    episode, score = data.get("episode"), data.get("score")
    if mark is None or not isinstance(episode, str) or not isinstance(score, int | float) or not 0 <= score <= 1:
        return None
    return Attempt(episode=episode, task=mark.about, score=score, at=memory.time)
