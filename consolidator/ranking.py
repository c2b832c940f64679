"""The order of what recall found, and why. Pure.

Each candidate has both scores, by meaning and by words. They are standardised over all candidates and summed with weights,
not fused by reciprocal ranks: on the same lists RRF with k = 60 finds less than BM25 alone, the standardised sum a quarter
more. Where a source has structure, neighbours, session and speaker add their terms. Then bounded factors.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydantic import Field

from consolidator.models import Explanation, Factor, LegShare, Term, Trend, Value, Vector
from consolidator.words import STOP, jaccard, stems

SOFTNESS = 4.0  # of the logistic: one standard deviation at the top is then worth about 5 % of the score
HEAD = 20  # hits among which a newer statement is put before an older one
TREND_VALUE = {Trend.STRENGTHENING: 0.75, Trend.NEW: 0.55, Trend.STABLE: 0.5, Trend.WEAKENING: 0.35, Trend.STALE: 0.2}
TIME_WORD = re.compile(r"\b(?:yesterday|last|ago|next|tomorrow|weekend|this week|month|year|today|recently|just)\b", re.I)
FIRST_PERSON = re.compile(r"\b(?:i|my|me|mine|i['’](?:ve|m|d|ll))\b", re.IGNORECASE)
UNKNOWN = 0.5


class RecallWeights(Value):
    """Weights of the parts of a score; 0 switches a part off. The addends are one set for chats and documents alike, measured.

    trend, confidence, recency bound a factor: 1 + weight * (value - 0.5). They are off until a benchmark supports them.
    """

    dense: float = Field(default=0.7, ge=0)
    words: float = Field(default=0.3, ge=0)
    previous: float = 0.3
    next: float = 0.2
    session: float = 0.3
    speaker: float = 2.0
    question: float = -0.3
    time_word: float = 0.2
    trend: float = Field(default=0.0, ge=0, le=1)
    confidence: float = Field(default=0.0, ge=0, le=1)
    recency: float = Field(default=0.0, ge=0, le=1)
    recency_half_life: float = Field(default=90.0, gt=0)  # days
    depth: int = Field(default=100, ge=10, le=1000)  # candidates of each list
    floor: float = Field(default=0.1, ge=-1, le=1)  # cosine below which a candidate needs a shared word
    fresh: bool = True  # of two statements about the same thing the newer comes first


@dataclass(slots=True, kw_only=True)
class Candidate:
    """Something that a list found. Ranks count from 1; None: another list found it."""

    id: str
    kind: Literal["memory", "observation"]
    text: str
    time: datetime
    dense: float = 0.0
    words: float = 0.0
    dense_rank: int | None = None
    words_rank: int | None = None
    source: str = ""
    sequence: int | None = None
    speaker: str | None = None
    evidence: frozenset[str] = frozenset()  # of an observation: its memories
    trend: Trend | None = None
    confidence: float | None = None
    vector: Vector = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Ranked:
    candidate: Candidate
    score: float
    explanation: Explanation
    quote: str | None = None  # of an observation: the memory that speaks for it best
    superseded_by: str | None = None


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x / SOFTNESS))


def standardise(values: Sequence[float]) -> list[float]:
    """In deviations from the mean; all 0 where the values do not differ."""
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / deviation if deviation > 1e-9 else 0.0 for value in values]


def named(query: str, speakers: Iterable[str]) -> list[str]:
    """The speakers that a question names. 'Mel' names Melanie; a short name must match whole."""
    words = set(re.findall(r"[^\W\d_]+", query.casefold()))
    return [speaker for speaker in speakers if any(_names(word, speaker.casefold()) for word in words)]


def _names(word: str, name: str) -> bool:
    return word in name.split() or (len(name) > 5 and len(word) >= 3 and word not in STOP and name.startswith(word))


def asked_about(query: str, speakers: Sequence[str]) -> str | None:
    """The one speaker that the question is about; 'I' and 'my' mean the user of an assistant."""
    found = named(query, speakers)
    if not found and FIRST_PERSON.search(query):
        found = [speaker for speaker in speakers if speaker.casefold() == "user"]
    return found[0] if len(found) == 1 else None


def without_names(query: str, speakers: Iterable[str]) -> str:
    """The question for the embedder: a person's name would dominate its vector, so the speaker term hears it instead."""
    pattern = "|".join(re.escape(speaker) for speaker in sorted(speakers, key=len, reverse=True))
    cut = re.sub(rf"\b(?:{pattern})\b(?:['’]s)?", " ", query) if pattern else query
    cut = " ".join(cut.split())
    return cut if stems(cut) else query


def rank(candidates: Sequence[Candidate], weights: RecallWeights, *, about: str | None, now: datetime) -> list[Ranked]:
    """Best first, ties by id. Every score can be recomputed from its explanation."""
    pool = [c for c in candidates if c.words > 0 or c.dense >= weights.floor]
    if not pool:
        return []
    shares = _leg_shares(pool, weights)
    fused = {c.id: sum(leg.share for leg in shares[c.id]) for c in pool}
    structure = _Structure(pool, fused)
    ranked = []
    for c in pool:
        terms = tuple(term for term in structure.terms(c, weights, about) if term.share)
        factors = tuple(_factors(c, weights, now))
        explanation = Explanation(legs=shares[c.id], terms=terms, factors=factors)
        ranked.append(Ranked(candidate=c, score=score_of(explanation), explanation=explanation))
    return sorted(ranked, key=_order)


def _order(ranked: Ranked) -> tuple[float, str]:
    return (-ranked.score, ranked.candidate.id)


def score_of(explanation: Explanation) -> float:
    """`logistic(sum of shares) * product of multipliers`."""
    return logistic(explanation.base) * math.prod(factor.multiplier for factor in explanation.factors)


def _leg_shares(pool: Sequence[Candidate], weights: RecallWeights) -> dict[str, tuple[LegShare, ...]]:
    dense, words = standardise([c.dense for c in pool]), standardise([c.words for c in pool])
    shares: dict[str, tuple[LegShare, ...]] = {}
    for c, by_meaning, by_words in zip(pool, dense, words, strict=True):
        where = "memories" if c.kind == "memory" else "observations"
        shares[c.id] = (
            LegShare(leg=f"{where}.dense", rank=c.dense_rank, score=c.dense, standardised=by_meaning, weight=weights.dense),
            LegShare(leg=f"{where}.words", rank=c.words_rank, score=c.words, standardised=by_words, weight=weights.words),
        )
    return shares


class _Structure:
    """What the place of a turn in its session says. Silent for sources without sequence."""

    def __init__(self, pool: Sequence[Candidate], fused: Mapping[str, float]) -> None:
        self._fused = fused
        self._places: dict[tuple[str, int], float] = {}
        self._sessions: dict[str, float] = {}
        for c in pool:
            if c.kind == "memory" and c.sequence is not None:
                place = (c.source, c.sequence)
                self._places[place] = max(fused[c.id], self._places.get(place, -math.inf))
                self._sessions[c.source] = max(fused[c.id], self._sessions.get(c.source, -math.inf))

    def terms(self, c: Candidate, weights: RecallWeights, about: str | None) -> Iterable[Term]:
        if c.kind == "observation":
            yield Term(name="session", share=weights.session * self._fused[c.id])
            spoken_of = about is not None and bool(named(c.text, [about]))
        else:
            yield from self._neighbours(c, weights)
            yield Term(name="question", share=weights.question * c.text.rstrip().endswith("?"))
            spoken_of = about is not None and c.speaker == about
        yield Term(name="time word", share=weights.time_word * bool(TIME_WORD.search(c.text)))
        yield Term(name=f"about {about}", share=weights.speaker * spoken_of)

    def _neighbours(self, c: Candidate, weights: RecallWeights) -> Iterable[Term]:
        if c.sequence is None:
            return
        yield Term(name="previous turn", share=weights.previous * self._places.get((c.source, c.sequence - 1), 0.0))
        yield Term(name="next turn", share=weights.next * self._places.get((c.source, c.sequence + 1), 0.0))
        yield Term(name="session", share=weights.session * self._sessions[c.source])


def _factors(c: Candidate, weights: RecallWeights, now: datetime) -> Iterable[Factor]:
    if c.kind == "observation":
        trend = TREND_VALUE[c.trend] if c.trend else UNKNOWN
        yield _factor("trend", c.trend or "unknown", trend, weights.trend)
        confidence = UNKNOWN if c.confidence is None else c.confidence
        yield _factor("confidence", "unknown" if c.confidence is None else f"{c.confidence:.2f}", confidence, weights.confidence)
    if weights.recency:
        days = max(0.0, (now - c.time).total_seconds() / 86400)
        yield _factor("recency", f"{days:.0f} days", 0.5 ** (days / weights.recency_half_life), weights.recency)


def _factor(name: str, told: str, value: float, weight: float) -> Factor:
    return Factor(name=name, value=told, weight=weight, multiplier=1 + weight * (value - UNKNOWN))


def fold(ranked: Sequence[Ranked]) -> list[Ranked]:
    """One hit for an observation and its evidence: the statement with its best verbatim witness.

    The hit stands where the better of the two stood. Other evidence is left out, unless it outranks the statement itself.
    """
    memories = {r.candidate.id: r for r in ranked if r.candidate.kind == "memory"}
    taken: set[str] = set()
    folded = []
    for r in ranked:
        if r.candidate.kind == "memory":
            continue
        witnesses = [memories[id] for id in r.candidate.evidence if id in memories and id not in taken]
        best = min(witnesses, key=_order, default=None)
        taken |= {w.candidate.id for w in witnesses if w is best or w.score <= r.score}
        folded.append(_lifted(r, best) if best else r)
    folded += [r for id, r in memories.items() if id not in taken]
    return sorted(folded, key=_order)


def _lifted(r: Ranked, best: Ranked) -> Ranked:
    r.quote = best.candidate.id
    ahead = best.explanation.base - r.explanation.base
    if ahead > 0:
        terms = (*r.explanation.terms, Term(name="its evidence ranks higher", share=ahead))
        r.explanation = r.explanation.model_copy(update={"terms": terms})
        r.score = score_of(r.explanation)
    return r


def newer_first(ranked: Sequence[Ranked]) -> list[Ranked]:
    """Among the first hits: of two short statements about the same thing, the newer takes the better place."""
    order = list(ranked)
    said = {r.candidate.id: stems(r.candidate.text) for r in order[:HEAD]}
    for a in range(min(HEAD, len(order))):
        for b in range(a + 1, min(HEAD, len(order))):
            older, newer = order[a], order[b]
            if newer.candidate.time > older.candidate.time and _same_thing(older.candidate, newer.candidate, said):
                order[a], order[b] = newer, older
                older.superseded_by = newer.candidate.id
                _tell(newer, "put before an older statement about the same thing")
                _tell(older, "put after a newer statement about the same thing")
    return order


def _tell(ranked: Ranked, moved: str) -> None:
    ranked.explanation = ranked.explanation.model_copy(update={"moved": moved})


def _same_thing(one: Candidate, other: Candidate, said: Mapping[str, frozenset[str]]) -> bool:
    """Cosine >= .5 and a Jaccard of the stems >= .4, of short statements by one speaker: of long ones it is not known."""
    if one.speaker != other.speaker or not one.vector or not other.vector:
        return False
    mine, theirs = said[one.id], said[other.id]
    if not 0 < len(mine) <= 30 or not 0 < len(theirs) <= 30:
        return False
    near = sum(a * b for a, b in zip(one.vector, other.vector, strict=True))
    return near >= 0.5 and jaccard(mine, theirs) >= 0.4
