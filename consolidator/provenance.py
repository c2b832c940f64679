"""Lineage: which memories a text was derived from, and what erasing some of them leaves. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from consolidator.models import PERSON, ErasureCase, Evidence, Observation, ObservationState, Version
from consolidator.plans import Change, History
from consolidator.words import names, numbers, stems

RECKONED_DAYS = 8  # from a memory to a date that its words ("last Friday") mean
RARE_LENGTH = 6  # letters of a stem; shorter words are common enough to be a coincidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What becomes of one observation.

    keep: the newest version that stays, None when no version is clean. purge: versions that lose their text and lineage.
    evidence: what is left. reopened: memories whose evidence goes although they stay, to be consolidated again. way_to: the
    observation that says the same already.
    """

    case: ErasureCase
    keep: Version | None
    purge: tuple[int, ...]
    evidence: tuple[Evidence, ...]
    reopened: frozenset[str]
    way_to: str | None = None


def tainted(version: Version, erased: Set[str]) -> bool:
    """Whether a version cannot stand without the erased memories: its text came from one, or nothing else justifies it."""
    return bool(version.lineage & erased) or bool(version.why and version.why <= erased)


def erase(history: History, erased: Set[str]) -> Erasure:
    """The three cases of forgetting.

    A memory that only supported goes from the evidence. Where a text was derived from it, the newest version free of it
    stands again, and what had been attached later is consolidated anew. Where no version is free, the observation goes.
    """
    bad = tuple(v.number for v in history.versions if v.text is not None and tainted(v, erased))
    left = tuple(e for e in history.observation.evidence if e.memory_id not in erased)
    if not bad:
        case = ErasureCase.SUPPORT_DROPPED if len(left) < len(history.observation.evidence) else ErasureCase.UNTOUCHED
        return Erasure(case=case, keep=history.current, purge=(), evidence=left, reopened=frozenset())
    clean = [v for v in history.versions if v.text is not None and v.number not in bad]
    if not clean:
        reopened = {e.memory_id for e in left} | _lineage(history.versions) - erased
        return Erasure(case=ErasureCase.ERASED, keep=None, purge=bad, evidence=(), reopened=frozenset(reopened))
    if clean[-1].number == history.current.number:
        return Erasure(case=ErasureCase.SUPPORT_DROPPED, keep=clean[-1], purge=bad, evidence=left, reopened=frozenset())
    return _rolled_back(history, clean[-1], erased, left)


def unsupported(observation: Observation, erased: Set[str]) -> Observation:
    """Without what supported it and is being erased."""
    left = tuple(e for e in observation.evidence if e.memory_id not in erased)
    return observation if len(left) == len(observation.evidence) else observation.model_copy(update={"evidence": left})


def without(history: History, erased: Set[str]) -> History | None:
    """What an erasure that is accepted, but not carried out yet, will leave to be read; None where that is nothing."""
    erasure = erase(history, erased)
    if erasure.keep is None:
        return None
    hidden: dict[str, object] = {"text": None, "reason": "", "lineage": frozenset(), "why": frozenset()}
    versions = tuple(v.model_copy(update=hidden) if v.number in erasure.purge else v for v in history.versions)
    fields: dict[str, object] = {"evidence": erasure.evidence}
    if erasure.keep.number != history.current.number:
        keep = erasure.keep
        fields |= {"text": keep.text, "version": keep.number, "state": keep.state, "confidence": keep.confidence}
    return history.model_copy(update={"observation": history.observation.model_copy(update=fields), "versions": versions})


def _rolled_back(history: History, keep: Version, erased: Set[str], left: tuple[Evidence, ...]) -> Erasure:
    gone = tuple(v.number for v in history.versions if v.number > keep.number or (v.text is not None and tainted(v, erased)))
    kept = tuple(e for e in left if e.since_version <= keep.number)
    later = _lineage(v for v in history.versions if v.number > keep.number) - keep.lineage
    reopened = {e.memory_id for e in left if e.since_version > keep.number} | later - {e.memory_id for e in kept}
    withdrawn = history.observation.state is ObservationState.RETRACTED and keep.state is ObservationState.LIVE
    case = ErasureCase.REOPENED if withdrawn else ErasureCase.ROLLED_BACK
    return Erasure(case=case, keep=keep, purge=gone, evidence=kept, reopened=frozenset(reopened - erased))


def comes_back(history: History, erasure: Erasure) -> bool:
    """Whether an earlier text is to be served again."""
    keep = erasure.keep
    return keep is not None and keep.number != history.current.number and keep.state is ObservationState.LIVE


def given_way(erasure: Erasure, other: str, lineage: frozenset[str]) -> Erasure:
    """The text that would come back stays away while another observation, of that lineage, says it; memories are told anew."""
    assert erasure.keep is not None
    keep = erasure.keep.model_copy(update={"state": ObservationState.RETRACTED, "why": lineage})
    told = erasure.reopened | {e.memory_id for e in erasure.evidence}
    return replace(erasure, case=ErasureCase.ROLLED_BACK, keep=keep, reopened=told, way_to=other)


def after_image(history: History, erasure: Erasure, at: datetime) -> Change:
    """An observation as an erasure leaves it; where an earlier text stands again, that is a new version."""
    before, keep = history.observation, erasure.keep
    fields: dict[str, object] = {"evidence": erasure.evidence, "rev": before.rev + 1, "updated_at": at}
    if keep is None:
        husk = {**fields, "text": "", "state": ObservationState.ERASED, "confidence": 0.0}
        return Change(after=before.model_copy(update=husk), base_rev=before.rev, purge=erasure.purge)
    version = None
    if keep.number != history.current.number:
        number, by = before.version + 1, keep.by if keep.by == PERSON else "forget"  # a person's word stays one
        fields |= {"text": keep.text, "state": keep.state, "confidence": keep.confidence, "version": number}
        back = f"back to version {keep.number}" + (f", which {erasure.way_to} says too" if erasure.way_to else "")
        told = {"number": number, "change": "rollback", "by": by, "at": at, "reason": back}
        version = keep.model_copy(update=told)
    return Change(
        after=before.model_copy(update=fields), base_rev=before.rev, vector=history.vectors.get(keep.number, []),
        lineage=keep.lineage, version=version, purge=erasure.purge,
    )


def _lineage(versions: Iterable[Version]) -> frozenset[str]:
    return frozenset().union(*(v.lineage | v.why for v in versions))


def uncited_origins(
    text: str, cited: Iterable[str], others: Mapping[str, str], times: Iterable[datetime] = ()
) -> list[str]:
    """Which of the `others` (key to text) a text draws on without citing them. times: of the cited memories.

    Numbers, names and rare words of `text` that stand in none of the `cited` texts, but in one other that was shown, came
    from there; a word that several of them share says nothing, nor does a date that the cited memories' own dates give.
    """
    foreign = _marks(text).difference(*(_marks(given) for given in cited), *(_reckoned(text, time) for time in times))
    marks = {key: _marks(other) & foreign for key, other in others.items()}
    shared = Counter(mark for found in marks.values() for mark in found)
    return [key for key, found in marks.items() if any(shared[mark] == 1 for mark in found)]


def _reckoned(text: str, time: datetime) -> frozenset[str]:
    """What somebody may write who counts from a memory's date: "last Friday", "in May", "yesterday"."""
    days = [time + timedelta(days=n) for n in range(-RECKONED_DAYS, RECKONED_DAYS + 1)]
    written = [day for day in days if re.search(rf"\b0?{day.day}(?:st|nd|rd|th)? {day:%B}\b|\b{day:%B} 0?{day.day}\b", text)]
    months = " ".join(f"{time + timedelta(days=n):%B}" for n in (-31, 0, 31))
    words = {f"{day:%A}" for day in days} | {str(day.day) for day in written} | {str(time.year + n) for n in (-1, 0, 1)}
    return frozenset(word.casefold() for word in words) | _marks(f"- {months} {' '.join(sorted(words))}")


def _marks(text: str) -> frozenset[str]:
    return numbers(text) | {name.casefold() for name in names(text)} | {s for s in stems(text) if len(s) >= RARE_LENGTH}
