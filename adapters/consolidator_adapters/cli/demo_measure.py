"""What the demo counts: how much of what answers a question is among the first hits, and which phrases are still said. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consolidator.models import Hit

HEAD = 5  # hits that count


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Over `questions`: the mean share of answering turns in the first hits; how many questions have one there, or all.

    `recall` and `any` count a turn that an observation names as evidence; the verbatim ones only what a reader sees word for
    word, as a memory or as the quote of an observation.
    """

    questions: int
    recall: float
    recall_verbatim: float
    any: int
    any_verbatim: int
    all: int


@dataclass(frozen=True, slots=True)
class Said:
    """How many of the phrases stand in so many texts of one place."""

    place: str
    texts: int
    found: int


@dataclass(frozen=True, slots=True)
class Changed:
    """What an erasure did to an observation; no text: it is gone."""

    case: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Kept:
    """A question that an erasure must not cost its answer, and the rank of the first hit that brings it."""

    question: str
    answer: str
    rank: int | None
    text: str


def carried(hit: Hit, *, verbatim: bool = False) -> set[str]:
    """The memories that a hit brings: itself, its quote; its supporting evidence."""
    ids = {hit.id} if hit.kind == "memory" else set()
    ids |= {hit.quote.id} if hit.quote else set()
    return ids if verbatim else ids | {e.memory_id for e in hit.evidence if e.supports}


def share(found: Sequence[Hit], wanted: set[str], *, verbatim: bool = False) -> float:
    """The part of `wanted` that the first hits carry."""
    seen = set().union(*(carried(hit, verbatim=verbatim) for hit in found[:HEAD]))
    return len(seen & wanted) / len(wanted)


def measure(asked: Iterable[tuple[Sequence[Hit], set[str]]]) -> Measured:
    """For each question its hits and the ids of the memories that answer it, at least one."""
    pairs = list(asked)
    shares = [share(found, wanted) for found, wanted in pairs]
    words = [share(found, wanted, verbatim=True) for found, wanted in pairs]
    return Measured(
        questions=len(pairs), recall=sum(shares) / len(pairs), recall_verbatim=sum(words) / len(pairs),
        any=sum(s > 0 for s in shares), any_verbatim=sum(s > 0 for s in words), all=sum(s == 1 for s in shares),
    )


def said(phrases: Iterable[str], texts: Iterable[str]) -> list[str]:
    """The phrases that stand in any of the texts, without regard to case."""
    folded = "\n".join(texts).casefold()
    return [phrase for phrase in phrases if phrase.casefold() in folded]

