"""What was learnt from sessions, as it stands at a time: how certain it still is, what contradicts it, what it is worth. Pure.

Nothing of this is stored: it follows from evidence, its times, and the times at which work went on.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from statistics import median_low

from consolidator.contexts import one_line
from consolidator.models import Category, Observation, Tags, Time, Trust, Value
from consolidator.records import KNOWLEDGE
from consolidator.words import WORD, jaccard, names, plain, says_the_same, stems

WEEK = timedelta(weeks=1)
ORDER: tuple[Category, ...] = ("pitfall", "mistake", "tool-quirk", "rule", "pattern", "fact", "question")
NEAR = 0.8  # shared share of content words from which on two items are one, where names, numbers and negations agree
EXACT = 4  # places to which confidence is counted, so that 0.7 less eight weeks is 0.3 and not a little below

class KnowledgePolicy(Value):
    """loss: of confidence, for a week without confirmation. archived: below it, an item is kept and not given out. told: only
    above it, an item is given to a session. quality: from there on.
    """

    loss: float = 0.05
    archived: float = 0.3
    told: float = 0.7
    quality: float = 0.5


POLICY = KnowledgePolicy()


class Quality(Value):
    """Each part and the score lie in [0, 1]."""

    specificity: float
    actionability: float
    freshness: float
    source: float
    score: float


class Knowledge(Value):
    """An item as it stands at a time. confidence: what is left of the observation's own.

    disputed: the item that says otherwise, the most certain of them; outweighed: that one is the more certain.
    """

    observation: Observation
    confidence: float
    confirmed: Time
    archived: bool
    quality: Quality
    disputed: str | None = None
    outweighed: bool = False

    @property
    def id(self) -> str:
        return self.observation.id

    @property
    def category(self) -> Category:
        return self.observation.category or "fact"

    @property
    def sources(self) -> int:
        return self.observation.proof_count


# how certain an item still is


@dataclass(frozen=True, slots=True)
class Work:
    """When work went on, oldest first. sums: of the time between each and the first, of which no gap counts for over a week."""

    times: Sequence[datetime] = ()
    sums: Sequence[timedelta] = ()

    @classmethod
    def at(cls, times: Iterable[datetime]) -> Work:
        told = sorted(times)
        gaps = (min(later - earlier, WEEK) for earlier, later in pairwise(told))
        return cls(told, list(accumulate(gaps, initial=timedelta())))

    def between(self, since: datetime, until: datetime, *, to_the_end: bool = False) -> timedelta:
        """As far as work went on: up to the last time within, and at most a week before each. to_the_end: up to `until`."""
        start, end = bisect_right(self.times, since), bisect_right(self.times, until)
        if start >= end:
            return min(until - since, WEEK) if to_the_end else timedelta()
        inside = min(self.times[start] - since, WEEK) + self.sums[end - 1] - self.sums[start]
        return inside + min(until - self.times[end - 1], WEEK) if to_the_end else inside


Activity = Mapping[str, Work]  # by the tag of a scope


def activity_of(sessions: Iterable[tuple[str, datetime]]) -> Activity:
    """From (project, time) of sessions. What holds everywhere goes by all of them."""
    times: dict[str, list[datetime]] = defaultdict(list)
    for project, time in sessions:
        times[KNOWLEDGE].append(time)
        if project:
            times[f"project:{project}"].append(time)
    return {tag: Work.at(found) for tag, found in times.items()}


def projects_of(tags: Tags) -> list[str]:
    return sorted(tag.removeprefix("project:") for tag in tags if tag.startswith("project:"))


def confirmations(item: Observation, now: datetime) -> list[datetime]:
    """When each distinct source first supported it, oldest first: a source confirms nothing twice."""
    first: dict[str, datetime] = {}
    for e in item.evidence:
        if e.supports and e.occurred_at <= now:
            first[e.source] = min(e.occurred_at, first.get(e.source, e.occurred_at))
    return sorted(first.values()) or [min(item.created_at, now)]


def overdue(item: Observation, activity: Activity, now: datetime) -> timedelta:
    """Time of work without confirmation, beyond what is usual between its confirmations."""
    confirmed, work = confirmations(item, now), _work(item.tags, activity)
    usual = median_low([work.between(*pair, to_the_end=True) for pair in pairwise(confirmed)] or [timedelta()])
    return max(timedelta(), work.between(confirmed[-1], now) - usual)


def _work(tags: Tags, activity: Activity) -> Work:
    """Of its project; else of all. What belongs to neither does not age."""
    tag = next((f"project:{project}" for project in projects_of(tags)), KNOWLEDGE if KNOWLEDGE in tags else "")
    return activity.get(tag, Work())


def effective(item: Observation, activity: Activity, now: datetime, policy: KnowledgePolicy = POLICY) -> float:
    """Its confidence, less the loss for each whole week that it is overdue; never below 0."""
    weeks = overdue(item, activity, now) // WEEK
    return round(max(0.0, item.confidence - policy.loss * weeks), EXACT) if weeks else item.confidence


# all of them


def standing(
    items: Iterable[Observation], activity: Activity, now: datetime, policy: KnowledgePolicy = POLICY
) -> list[Knowledge]:
    """Items as they stand, in the order in which they are told: by category, then by confidence."""
    every = [_one(item, activity, now, policy) for item in items]
    return sorted(_with_disputes(every), key=rank)


def rank(item: Knowledge) -> tuple[int, float, int, str]:
    return ORDER.index(item.category), -item.confidence, -item.sources, item.id


def _one(item: Observation, activity: Activity, now: datetime, policy: KnowledgePolicy) -> Knowledge:
    left = effective(item, activity, now, policy)
    fresh = left / item.confidence if item.confidence else 0.0
    quality = quality_of(
        item.text, item.category or "fact", freshness=fresh, sources=item.proof_count, trust=item.trust
    )
    confirmed = confirmations(item, now)[-1]
    return Knowledge(observation=item, confidence=left, confirmed=confirmed, archived=left < policy.archived, quality=quality)


def _with_disputes(items: Sequence[Knowledge]) -> list[Knowledge]:
    """Of two that contradict each other the more certain stands; what is archived disputes nothing."""
    live = {item.id: item for item in items if not item.archived}
    against: dict[str, list[Knowledge]] = defaultdict(list)
    for item in live.values():
        if other := live.get(item.observation.contests or ""):
            against[item.id].append(other)
            against[other.id].append(item)
    return [_disputed(item, max(against[item.id], key=certainty)) if item.id in against else item for item in items]


def _disputed(item: Knowledge, other: Knowledge) -> Knowledge:
    return item.model_copy(update={"disputed": other.id, "outweighed": certainty(other) > certainty(item)})


def certainty(item: Knowledge) -> tuple[bool, float, int, bool, str]:
    """The greater one stands. What a person said is not outweighed by what an agent or a tool said; of equals, the one that was
    there first.
    """
    o = item.observation
    return o.trust >= Trust.USER, item.confidence, item.sources, o.contests is None, item.id


def withheld(item: Knowledge, policy: KnowledgePolicy = POLICY) -> str | None:
    """Why an item is not given to a session, in one word; None: it may be."""
    told = {
        "archived": item.archived, "confidence": item.confidence <= policy.told, "contested": item.outweighed,
        "quality": item.quality.score < policy.quality,
    }
    return next((why for why, holds in told.items() if holds), None)


def distinct(items: Iterable[Knowledge]) -> tuple[list[Knowledge], int]:
    """Each statement once, from the item with the most sources, in the order given; and how many were left out."""
    given = list(items)
    words = {item.id: stems(item.observation.text) or frozenset({plain(item.observation.text)}) for item in given}
    seen = Counter(word for found in words.values() for word in found)
    kept: dict[str, list[Knowledge]] = defaultdict(list)  # by the words of which two that are near share at least one
    stays: set[str] = set()
    for item in sorted(given, key=lambda item: (-item.sources, *rank(item))):
        mine = words[item.id]
        rare = sorted(mine, key=lambda word: (seen[word], word))[: int((1 - NEAR) * len(mine)) + 1]
        if not any(_same(item, other, words) for word in rare for other in kept[word]):
            stays.add(item.id)
            for word in rare:
                kept[word].append(item)
    return [item for item in given if item.id in stays], len(given) - len(stays)


def _same(one: Knowledge, other: Knowledge, words: Mapping[str, frozenset[str]]) -> bool:
    near = jaccard(words[one.id], words[other.id]) >= NEAR
    return near and says_the_same(one.observation.text, other.observation.text)


# what an item is worth

VAGUE_WORDS = """something somehow sometimes somewhere someone anything stuff thing things various several maybe perhaps
probably possibly generally usually often good bad better nice properly proper appropriate careful carefully important etc"""
VAGUE = frozenset(VAGUE_WORDS.split())
CONCRETE = re.compile(
    r"`[^`]+`|\"[^\"]+\"|--?[a-z][\w-]+|[\w.~-]*[/\\][\w./\\-]+|\w+\(\)|\b\w+_\w+|\b[a-z]+[A-Z]\w*|\b[A-Z]{2,}\b|"
    r"\b\w+\.\w{1,5}\b|\d[\d.,:]*"
)
TELLING = re.compile(
    r"\b(?:use|run|set|call|pass|add|avoid|never|always|must|should|needs?|requires?|before|after|instead|unless|until|first|only|"
    r"when|if|because|fails?|breaks?|cannot|do not|don['’]t|can['’]t)\b", re.IGNORECASE,
)
USE: Mapping[Category, float] = {"pattern": 0.6, "rule": 0.6, "fact": 0.4}  # of a category as such; of the others, 0.5
READ = 2_000  # characters of a text by which it is judged
WEIGHTS = {"specificity": 0.3, "actionability": 0.3, "freshness": 0.2, "source": 0.2}


def quality_of(text: str, category: Category, *, freshness: float = 1.0, sources: int = 1, trust: int = Trust.AGENT) -> Quality:
    """The quality gate's parts. freshness: the share of its confidence that is left."""
    parts = {
        "specificity": specificity(text), "actionability": actionability(text, category), "freshness": freshness,
        "source": source_quality(sources, trust),
    }
    score = sum(WEIGHTS[name] * value for name, value in parts.items())
    return Quality.model_validate({**{name: round(value, EXACT) for name, value in parts.items()}, "score": round(score, EXACT)})


def specificity(text: str) -> float:
    """Names, numbers, paths and code, and how much is said at all; less for each vague word."""
    text = text[:READ]
    marks = len({*CONCRETE.findall(text)} | names(text))
    vague = sum(word in VAGUE for word in WORD.findall(plain(text)))
    return _share(0.5 * min(1.0, marks / 2) + 0.5 * min(1.0, len(stems(text)) / 6) - 0.25 * vague)


def actionability(text: str, category: Category) -> float:
    """What a category tells one to do as such, and words that say what to do, when, and what happens else."""
    return _share(USE.get(category, 0.5) + 0.25 * len({word.casefold() for word in TELLING.findall(text[:READ])}))


def source_quality(sources: int, trust: int) -> float:
    """Half of what is missing with each further source; the rest is how far they are believed."""
    return _share(0.7 * (1 - 0.5**sources) + 0.3 * trust / Trust.OPERATOR)


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


# how an item is named in a briefing

HANDLE = re.compile(r"\[K-([0-9a-f]{8,32})\]")
BLANK = r"[\s\u200c\u200d]*"
LOOKALIKE = re.compile(rf"[\[［【〔](?={BLANK}[KkＫｋκΚкК]{BLANK}[-_‐‑‒–—―−－﹣])")  # what could pass for a handle
OPENING = re.compile(r"[<＜﹤‹](?=[\s\u200c\u200d/]*briefing)", re.IGNORECASE)


def handles(ids: Iterable[str]) -> dict[str, str]:
    """id -> "K-" and the first 8 hex digits of the id, or as many as tell it from the others."""
    told: dict[str, str] = {}
    left = {id: id.replace("-", "") for id in ids}
    for length in range(8, 33, 4):
        taken = Counter(digits[:length] for digits in left.values())
        alone = {id for id, digits in left.items() if taken[digits[:length]] == 1}
        told |= {id: f"K-{left.pop(id)[:length]}" for id in sorted(alone)}
    return told


def named_in(text: str, ids: Iterable[str]) -> list[str]:
    """Those of the items whose handles stand in a text, in the order of their ids; a handle that fits several names none."""
    known = sorted({id.replace("-", ""): id for id in ids}.items())
    digits = [hex for hex, _ in known]
    found: set[str] = set()
    for told in {*HANDLE.findall(text)}:
        start, end = bisect_left(digits, told), bisect_right(digits, told + "g")
        found |= {known[start][1]} if end - start == 1 else set()
    return sorted(found)


def as_data(text: str) -> str:
    """An item's text as it may stand in a briefing: on one line, and neither a handle nor the fence can be forged in it."""
    return OPENING.sub("(", LOOKALIKE.sub("(", one_line(text)))
