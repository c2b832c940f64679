"""What an erasure has to leave: a bank as its reading verbs showed it before, held against what they show after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from consolidator.engine import Bank
from consolidator.errors import NotFound
from consolidator.models import Hit, Memory, MemoryState, Observation, Tags, Version
from tests.crash.checker import words


@dataclass(frozen=True, slots=True)
class Picture:
    """A bank at rest, as its reading verbs show it."""

    memories: Mapping[str, Memory]
    observations: Mapping[str, tuple[Observation, list[Version]]]

    @classmethod
    async def of(cls, bank: Bank) -> Picture:
        live, retracted = await bank.observations(), await bank.observations(state="retracted")
        told = {o.id: (await bank.observation(o.id), await bank.history(o.id)) for o in [*live, *retracted]}
        return cls({m.id: m for m in await bank.memories()}, told)

    def erased_words(self, gone: Iterable[str]) -> set[str]:
        """Words that nothing but these memories has told."""
        gone = set(gone)
        mine = words(memory.text for id, memory in self.memories.items() if id in gone)
        return mine - words(memory.text for id, memory in self.memories.items() if id not in gone)

    def texts(self) -> list[str]:
        versions = (v for _, versions in self.observations.values() for v in versions)
        return [*(m.text for m in self.memories.values()), *(v.text for v in versions if v.text)]

    def resting_on(self, gone: Set[str]) -> set[str]:
        """Observations that name one of these memories, or tell its word, in whatever version."""
        erased, found = words(self.memories[id].text for id in gone & self.memories.keys()), set[str]()
        for id, (observation, versions) in self.observations.items():
            named = {e.memory_id for e in observation.evidence}.union(*(v.lineage | v.why for v in versions))
            if named & gone or erased & words(v.text or "" for v in versions):
                found.add(id)
        return found

    def moments(self) -> list[datetime]:
        return sorted({v.at for _, versions in self.observations.values() for v in versions})

    def grounded(self) -> Iterator[str]:
        """That a text names what it was derived from: the words are a second account of the lineage."""
        for id, (_, versions) in self.observations.items():
            for v in versions:
                origins = words(self.memories[m].text for m in v.lineage)
                if v.text is not None and not words([v.text]) <= origins:
                    yield f"version {v.number} of {id} holds words of none of its origins"

    async def lost(self, bank: Bank, gone: Iterable[str], *, still: bool) -> list[str]:
        """What an erasure of these memories should have left, and has not. still: nothing was consolidated since."""
        erased, now = frozenset(gone), {m.id: m for m in await bank.memories()}
        live, retracted = await bank.observations(), await bank.observations(state="retracted")
        shown, said = {o.id: o for o in [*live, *retracted]}, {(o.tags, o.text): o.id for o in live}
        kept = {id: m for id, m in self.memories.items() if id not in erased}
        found = [f"memory {id} is lost" for id, m in kept.items() if id not in now or now[id].text != m.text]
        for id in self.observations.keys() - self.resting_on(erased):
            if id not in shown or (still and _shape(shown[id]) != _shape(self.observations[id][0])):
                found.append(f"observation {id} had nothing to do with it, and has changed or is lost")
        for id in self.resting_on(erased):
            was, versions = self.observations[id]
            clean = [v for v in versions if v.text is not None and _is_clean(v, erased)]
            try:
                stands, history = await bank.observation(id), await bank.history(id)
            except NotFound:
                found += [f"observation {id} is lost, with {len(clean)} clean versions"] if clean else []
                continue
            wrong = [*_versions_lost(clean, history)]
            if still:
                wrong += _misplaced(was, stands, clean, said) if clean else ["it stands, and no version was clean"]
                wrong += _detached(was, stands, clean[-1], erased, now) if clean else []
            found += [f"observation {id}: {it}" for it in wrong]
        return found


def _shape(o: Observation) -> tuple[object, ...]:
    return o.text, o.state, o.version, o.confidence, {e.memory_id for e in o.evidence}


def _is_clean(version: Version, erased: frozenset[str]) -> bool:
    return not version.lineage & erased and not (version.why and version.why <= erased)


def _versions_lost(clean: Iterable[Version], history: Iterable[Version]) -> Iterator[str]:
    left = {v.number: (v.text, v.state, v.lineage) for v in history}
    for version in clean:
        if left.get(version.number) != (version.text, version.state, version.lineage):
            yield f"version {version.number} is lost"


def _misplaced(
    was: Observation, stands: Observation, clean: Sequence[Version], said: Mapping[tuple[Tags, str], str]
) -> Iterator[str]:
    best = clean[-1]
    stood = best.number == was.version
    if stands.text != best.text or (stood and stands.version != was.version):
        yield f"it does not stand at version {best.number}"
    # where another came to say the same, it gives way to that one
    if stands.state is not best.state and (stood or said.get((was.tags, best.text or ""), was.id) == was.id):
        yield f"it is {stands.state}, and version {best.number} was {best.state}"


def _detached(
    was: Observation, stands: Observation, best: Version, erased: frozenset[str], now: Mapping[str, Memory]
) -> Iterator[str]:
    left = {e.memory_id for e in was.evidence} - erased
    stood = best.number == was.version
    attached = {e.memory_id for e in was.evidence if stood or e.since_version <= best.number} - erased
    if {e.memory_id for e in stands.evidence} != attached:
        yield "its evidence is not what was attached to the version that stands"
    for id in left - attached:
        if now[id].state is MemoryState.DONE:
            yield f"memory {id} is evidence no more, and nobody is asked to digest it anew"


async def everything_served(bank: Bank, picture: Picture, gone: set[str], moments: Iterable[datetime]) -> list[tuple[str, Any]]:
    """What each reading verb says."""
    about = [f"They spoke of {word}." for word in ["it at length", *sorted(picture.erased_words(gone))[:2]]]
    told: list[tuple[str, Any]] = [("recall", await bank.recall(words, top_k=100, explain=True)) for words in about]
    told += [("recall as of", await bank.recall(about[0], top_k=100, as_of=moment, explain=True)) for moment in moments]
    told += [(f"observations {state}", await bank.observations(state=state)) for state in ("live", "retracted")]
    told += [("memories", await bank.memories()), ("journal", await bank.journal()), ("parked", await bank.parked())]
    told += [("stats", await bank.stats()), ("sources", await bank.sources()), ("receipts", await bank.receipts())]
    for id in picture.resting_on(gone):
        with suppress(NotFound):
            told += [("observation", await bank.observation(id)), ("history", await bank.history(id))]
    return told


async def served(bank: Bank, picture: Picture, gone: set[str], moments: Iterable[datetime]) -> list[str]:
    """Erased words, memories and counts of them, that any reading verb gives out."""
    erased, found = picture.erased_words(gone), list[str]()
    for verb, answer in await everything_served(bank, picture, gone, moments):
        if out := erased & words([repr(answer)]):
            found.append(f"{verb} serves {sorted(out)}")
        told = answer if isinstance(answer, list) else [answer]
        if gone & {e.memory_id for it in told if isinstance(it, Hit | Observation) for e in it.evidence}:
            found.append(f"{verb} counts what is erased as evidence")
    for id in gone:
        with suppress(NotFound):
            found.append(f"memory serves {(await bank.memory(id)).id}")
    return found + await miscounted(bank)


async def miscounted(bank: Bank) -> list[str]:
    told, stats = Counter(m.source for m in await bank.memories()), await bank.stats()
    counted = {"sources": await bank.sources(), "memories": stats.memories, "observations": stats.observations}
    there = {"sources": dict(told), "memories": told.total(), "observations": len(await bank.observations())}
    return [f"{what}: {counted[what]} are counted, {there[what]} are there" for what in there if counted[what] != there[what]]
