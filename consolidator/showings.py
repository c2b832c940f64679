"""What a transcript shows of a bank, and before which answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from consolidator.checks import is_id
from consolidator.divergence import groups_of
from consolidator.models import Memory
from consolidator.parts import Parts
from consolidator.points import memory_of, observation_of
from consolidator.transcripts import Group, Transcript


@dataclass(frozen=True, slots=True)
class Shown:
    """The items of a transcript that the bank knows, in order of appearance, with what has to be known of them."""

    items: tuple[str, ...]
    evidence: Mapping[str, Collection[str]]
    texts: Mapping[str, str]  # as they were said
    lines: Mapping[str, str] = field(repr=False)  # with date and speaker

    def groups(self, items: Iterable[str] | None = None) -> list[Group]:
        wanted = None if items is None else {*items}
        every = groups_of(self.items, self.evidence, self.texts)
        return [group for group in every if wanted is None or wanted & {*group.items}]


async def shown_in(parts: Parts, bank: str, transcript: Transcript) -> Shown:
    """Items that are not there, or are being erased, are plain text."""
    items = [item for item in transcript.items if is_id(item)]
    gone = {stone.memory_id for stone in await parts.ledger.tombstones(bank, open_only=True)}
    memories = {p.id: memory_of(bank, p) for p in await parts.memories.get(bank, items) if p.id not in gone}
    told = await parts.observations.get(bank, items)
    observations = {p.id: observation_of(bank, p) for p in told if not gone & {*p.payload["lineage_memory_ids"]}}
    known = {id: memory.text for id, memory in memories.items()} | {id: o.text for id, o in observations.items()}
    return Shown(
        tuple(item for item in items if item in known),
        {id: {e.memory_id for e in o.evidence} for id, o in observations.items()}, known,
        {id: line_of(memory) for id, memory in memories.items()} | {id: o.text for id, o in observations.items()},
    )


def members(transcript: Transcript, group: Group, place: int) -> tuple[str, ...]:
    """Those of a group that were shown before a response: the others earn nothing by it."""
    return tuple(item for item in group.items if transcript.showings.get(item, (place,))[0] < place)


def line_of(memory: Memory) -> str:
    return f"{memory.time:%d %B %Y} {memory.spoken}"
