"""The order of what recall found, and why. Pure.

Each candidate has both scores, by meaning and by words. They are standardised over all candidates and summed with weights,
not fused by reciprocal ranks: on the same lists RRF with k = 60 finds less than BM25 alone, the standardised sum a quarter
more. Where a source has structure, neighbours, session and speaker add their terms. Then bounded factors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from operator import mul
from typing import Annotated, Literal, NamedTuple

from pydantic import ConfigDict, Field

from consolidator.models import Explanation, Factor, LegShare, Term, Trend, Trust, Value, Vector
from consolidator.periods import Period, closeness
from consolidator.words import STOP, WORD, stems

SOFTNESS = 4.0  # of the logistic: one standard deviation at the top is then worth about 5 % of the score
FEW = 8  # pairs, below which cohesion is taken for granted
ENOUGH_COHESION = 0.5  # deviations; chats have 0.7 to 2, batches of facts about 0
ASKED_IN = 40  # words; a longer text that ends with a question says something besides
MOST_BITS = 2.0  # that a speaker's name tells
HEAD = 20  # hits among which a newer statement is put before an older one
TREND_VALUE = {Trend.STRENGTHENING: 0.75, Trend.NEW: 0.55, Trend.STABLE: 0.5, Trend.WEAKENING: 0.35, Trend.STALE: 0.2}
TIME_WORDS = frozenset(
    ["yesterday", "last", "ago", "next", "tomorrow", "weekend", "month", "year", "today", "recently", "just"]
)
FIRST_PERSON = re.compile(r"\b(?:i|my|me|mine|i['’](?:ve|m|d|ll))\b", re.IGNORECASE)
UNKNOWN = 0.5
MOST_WEIGHT = 10.0  # of a term, either way: beyond it nothing else counts any more
Weight = Annotated[float, Field(ge=-MOST_WEIGHT, le=MOST_WEIGHT)]


class RecallWeights(Value):
    """Weights of the parts of a score; 0 switches a part off. The addends are one set for chats and documents alike, measured.

    trend, confidence, recency bound a factor: 1 + weight * (value - 0.5). They are off until a benchmark supports them.
    importance bounds one that is exactly 1 for what was never measured: see `feedback`.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    dense: float = Field(default=0.65, ge=0, le=MOST_WEIGHT)
    words: float = Field(default=0.35, ge=0, le=MOST_WEIGHT)
    previous: Weight = 0.2
    answer: Weight = 0.3  # besides, where the previous turn asks
    next: Weight = 0.2
    session: Weight = 0.3
    speaker: Weight = 1.25  # for each bit that the name tells
    question: Weight = -0.3
    cited: float = Field(default=0.75, ge=0, le=1)  # of what an observation stands above the memories it rests on
    time_word: Weight = 0.2
    period: Weight = 0.5  # of what happened when the question says
    trend: float = Field(default=0.0, ge=0, le=1)
    confidence: float = Field(default=0.0, ge=0, le=1)
    recency: float = Field(default=0.0, ge=0, le=1)
    importance: float = Field(default=0.05, ge=0, le=1)
    recency_half_life: float = Field(default=90.0, gt=0, le=1e6)  # days
    depth: int = Field(default=70, ge=10, le=1000)  # candidates of each list of memories
    observed: int = Field(default=50, ge=10, le=1000)  # and of each list of observations
    beside: int = Field(default=30, ge=0, le=1000)  # best ones whose neighbours are looked at, too
    pool: int = Field(default=100, ge=10, le=1000)  # of all these, as many are looked at closely
    statements: int = Field(default=40, ge=1, le=1000)  # and as many observations, where there are enough
    floor: float = Field(default=0.1, ge=-1, le=1)  # cosine below which a candidate needs a shared word
    least: float = Field(default=0.2, ge=-1, le=1)  # where no cosine is higher, a hit has to have half of the question's words
    fresh: bool = True  # of two statements about the same thing the newer comes first


class Worth(NamedTuple):
    """What is believed of an item's importance: nats per token, in words, and how far above the bank's prior it signals."""

    nats: float
    told: str
    signal: float


@dataclass(slots=True, kw_only=True, eq=False)
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
    outdated: frozenset[str] = frozenset()  # memories that its text has moved on from, or contradicts
    contested: bool = False  # it contradicts what a more trusted source said
    trend: Trend | None = None
    confidence: float | None = None
    trust: int = Trust.USER
    asks: bool = False  # it ends with a question mark
    timed: bool = False  # it has a word such as "yesterday"
    vector: Vector = field(default_factory=list)
    worth: Worth | None = None


class Standing(NamedTuple):
    """Both scores of a candidate in deviations from the mean, and their weighted sum."""

    dense: float
    words: float
    fused: float


@dataclass(slots=True, eq=False)
class Ranked:
    """A candidate with what its score is made of."""

    candidate: Candidate
    standing: Standing
    weights: RecallWeights
    terms: list[tuple[str, float]]
    factors: list[tuple[str, str, float, float]]  # name, value, weight, multiplier
    base: float = 0.0
    score: float = 0.0
    quote: str | None = None  # of an observation: the memory that speaks for it best
    superseded_by: str | None = None
    moved: str | None = None

    def __post_init__(self) -> None:
        self.weigh()

    @property
    def fused(self) -> float:
        """What both lists say, without terms."""
        return self.standing.fused

    def weigh(self) -> None:
        """Make the score of its parts."""
        self.base = self.standing[2] + sum([share for _, share in self.terms])
        self.score = logistic(self.base)
        if self.factors:
            self.score *= math.prod(multiplier for *_, multiplier in self.factors)

    @property
    def explanation(self) -> Explanation:
        c, stands, weights = self.candidate, self.standing, self.weights
        where = "memories" if c.kind == "memory" else "observations"
        legs = (
            LegShare(leg=f"{where}.dense", rank=c.dense_rank, score=c.dense, standardised=stands.dense, weight=weights.dense),
            LegShare(leg=f"{where}.words", rank=c.words_rank, score=c.words, standardised=stands.words, weight=weights.words),
        )
        factors = (Factor(name=n, value=value, weight=weight, multiplier=by) for n, value, weight, by in self.factors)
        terms = (Term(name=name, share=share) for name, share in self.terms)
        return Explanation(legs=legs, terms=tuple(terms), factors=tuple(factors), moved=self.moved)


def logistic(x: float) -> float:
    """From 0 to 1, for any number: the exponential never overflows."""
    small = math.exp(-abs(x) / SOFTNESS)
    return (1 if x >= 0 else small) / (1 + small)


def standardise(values: Sequence[float]) -> list[float]:
    """In deviations from the mean; all 0 where the values do not differ."""
    return list(map(_standardiser(values), values))


def _standardiser(values: Sequence[float]) -> Callable[[float], float]:
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return lambda value: (value - mean) / deviation if deviation > 1e-9 else 0.0


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


def standings(
    scores: Mapping[str, tuple[float, float]], weights: RecallWeights, beside: Mapping[str, tuple[float, float]] | None = None,
    most: int | None = None,
) -> dict[str, Standing]:
    """Of what was found, by id with both scores: the best, standardised over all that is near enough to count.

    most: how many, else `pool`. beside: of neighbours, which are standardised by the same mean and deviation, and all stay.
    """
    found = {id: pair for id, pair in scores.items() if pair[1] > 0 or pair[0] >= weights.floor}
    if not found:
        return {}
    dense = _standardiser([pair[0] for pair in found.values()])
    words = _standardiser([pair[1] for pair in found.values()])

    def standing(pair: tuple[float, float]) -> Standing:
        d, w = dense(pair[0]), words(pair[1])
        return Standing(d, w, weights.dense * d + weights.words * w)

    told = sorted(((id, standing(pair)) for id, pair in found.items()), key=lambda pair: (-pair[1].fused, pair[0]))
    near = {id: standing(pair) for id, pair in (beside or {}).items() if id not in found}
    return dict(told[: most or weights.pool]) | near


def cohesion(runs: Sequence[Sequence[Vector]]) -> float:
    """How far neighbours in a source belong together, from 0 (a mere batch) to 1 (talk).

    runs: vectors of successive turns, a run for each source. Adjacent pairs are compared with pairs from anywhere, in
    deviations of the latter; half a deviation is enough for 1.
    """
    every = [vector for run in runs for vector in run]
    near = [_dot(a, b) for run in runs for a, b in pairwise(run)]
    far = [_dot(vector, every[(n * 7 + len(every) // 2) % len(every)]) for n, vector in enumerate(every)]
    far = [cosine for cosine in far if cosine < 1 - 1e-6]
    if len(near) < FEW or len(far) < FEW:
        return 1.0
    mean = math.fsum(far) / len(far)
    deviation = math.sqrt(math.fsum((cosine - mean) ** 2 for cosine in far) / len(far))
    closer = (math.fsum(near) / len(near) - mean) / deviation if deviation > 1e-9 else 0.0
    return min(1.0, max(0.0, closer / ENOUGH_COHESION))


def _dot(one: Vector, other: Vector) -> float:
    return math.fsum(map(mul, one, other))


def rank(
    candidates: Sequence[Candidate], weights: RecallWeights, *, about: str | None, now: datetime,
    standing: Mapping[str, Standing] | None = None, together: float = 1.0, period: Period | None = None, bits: float = 1.0,
) -> list[Ranked]:
    """Best first, ties by id. Every score can be recomputed from its explanation.

    standing: made of the candidates if None. together: what `cohesion` says of the bank; it scales neighbours and session.
    period: that the question names. bits: what the name of `about` tells, as `bits_of` says.
    """
    if standing is None:
        standing = standings({c.id: (c.dense, c.words) for c in candidates}, weights)
    pool = [c for c in candidates if c.id in standing]
    structure = _Structure(pool, standing, weights, together=together, about=about, bits=bits, period=period)
    factors = weights.trend or weights.confidence or weights.recency
    ranked = []
    for c in pool:
        stands = standing[c.id]
        told = list(_factors(c, weights, now)) if factors or c.worth else []
        ranked.append(Ranked(c, stands, weights, structure.terms(c, stands.fused), told))
    return sorted(ranked, key=order_of)


def order_of(ranked: Ranked) -> tuple[float, str]:
    return (-ranked.score, ranked.candidate.id)


def score_of(explanation: Explanation) -> float:
    """`logistic(sum of shares) * product of multipliers`."""
    return logistic(explanation.base) * math.prod(factor.multiplier for factor in explanation.factors)


class _Structure:
    """What the place of a turn in its session says. Silent for sources without sequence."""

    def __init__(
        self, pool: Sequence[Candidate], standing: Mapping[str, Standing], weights: RecallWeights, *, together: float,
        about: str | None, bits: float, period: Period | None,
    ) -> None:
        self._weights = weights
        self._together = together
        self._about = about
        self._spoken = weights.speaker * bits
        self._period = period
        self._places: dict[tuple[str, int], float] = {}
        self._sessions: dict[str, float] = {}
        self._questions: set[tuple[str, int]] = set()
        self._cited: dict[str, float] = {}
        for c in pool:
            fused = standing[c.id].fused
            for id in c.evidence:
                self._cited[id] = max(fused, self._cited.get(id, -math.inf))
            if c.kind == "memory" and c.sequence is not None:
                place = (c.source, c.sequence)
                self._places[place] = max(fused, self._places.get(place, -math.inf))
                self._sessions[c.source] = max(fused, self._sessions.get(c.source, -math.inf))
                if c.asks:
                    self._questions.add(place)

    def terms(self, c: Candidate, fused: float) -> list[tuple[str, float]]:
        """Each with its share, where it has one."""
        weights, told = self._weights, list[tuple[str, float]]()
        if c.kind == "observation":
            told.append(("session", self._together * weights.session * fused))
            spoken_of = self._about is not None and self._about in c.text
        else:
            if c.sequence is not None:
                self._place(c.source, c.sequence, told)
            if c.asks:
                told.append(("question", weights.question))
            if (above := self._cited.get(c.id, fused) - fused) > 0:
                told.append(("an observation rests on it", weights.cited * above))
            spoken_of = self._about is not None and c.speaker == self._about
        if c.timed:
            told.append(("time word", weights.time_word))
        if self._period is not None:
            told.append(("asked-for time", weights.period * closeness(c.time, self._period)))
        if spoken_of:
            told.append((f"about {self._about}", self._spoken))
        return [(name, share) for name, share in told if share]

    def _place(self, source: str, sequence: int, told: list[tuple[str, float]]) -> None:
        """What the turns beside it say, and its session."""
        weights, together, before = self._weights, self._together, (source, sequence - 1)
        if beside := self._places.get(before):
            told.append(("previous turn", together * weights.previous * beside))
            if before in self._questions:
                told.append(("answers the previous turn", together * weights.answer * beside))
        if beside := self._places.get((source, sequence + 1)):
            told.append(("next turn", together * weights.next * beside))
        told.append(("session", together * weights.session * self._sessions[source]))


def relevant(query: str, ranked: Sequence[Ranked], weights: RecallWeights) -> bool:
    """Whether anything answers at all: something is near enough, or has at least half of the question's words.

    On five LoCoMo conversations 0.4 % of their own questions are refused, and 90 % of questions about other things.
    """
    if any(r.candidate.dense >= weights.least for r in ranked):
        return True
    asked = stems(query)
    return any(2 * len(asked & stems(r.candidate.text)) >= len(asked) for r in ranked[:HEAD])


def bits_of(about: str | None, turns: Mapping[str, int]) -> float:
    """What a speaker's name tells: nothing where nobody else speaks, one bit of two who speak alike, two at most.

    turns: of each speaker in the bank.
    """
    return min(MOST_BITS, math.log2(sum(turns.values()) / turns[about])) if about and turns.get(about) else 1.0


def asks(text: str) -> bool:
    return text.rstrip().endswith("?") and len(WORD.findall(text)) <= ASKED_IN


def tells_a_time(text: str) -> bool:
    return not TIME_WORDS.isdisjoint(text.casefold().replace(",", " ").replace(".", " ").split())


def _factors(c: Candidate, weights: RecallWeights, now: datetime) -> Iterable[tuple[str, str, float, float]]:
    if weights.trend and c.kind == "observation":
        yield _factor("trend", c.trend or "unknown", TREND_VALUE[c.trend] if c.trend else UNKNOWN, weights.trend)
    if weights.confidence and c.kind == "observation":
        confidence = UNKNOWN if c.confidence is None else c.confidence
        yield _factor("confidence", "unknown" if c.confidence is None else f"{c.confidence:.2f}", confidence, weights.confidence)
    if weights.recency:
        days = max(0.0, (now - c.time).total_seconds() / 86400)
        yield _factor("recency", f"{days:.0f} days", 0.5 ** (days / weights.recency_half_life), weights.recency)
    if weights.importance and c.worth:
        yield "importance", c.worth.told, weights.importance, 1 + weights.importance * c.worth.signal


def _factor(name: str, told: str, value: float, weight: float) -> tuple[str, str, float, float]:
    return name, told, weight, 1 + weight * (value - UNKNOWN)
