"""Of two statements about the same thing the newer comes first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import ceil, dist
from typing import NamedTuple

from consolidator.models import Vector
from consolidator.periods import Period, closeness
from consolidator.ranking import HEAD, Candidate, Ranked
from consolidator.words import jaccard, stem_list

SAME_BEGINNING, SAME_WORDS = 0.5, 0.4  # of two statements about the same thing: shares of their stems
SHORT = 30  # stems


class Doubt(NamedTuple):
    """Two candidates that may state values of the same thing: they do if their vectors are as near as `cosine`."""

    older: Candidate
    newer: Candidate
    cosine: float


def in_doubt(ranked: Sequence[Ranked], period: Period | None = None) -> list[Doubt]:
    """Pairs among the first hits that may state values of the same thing: short, by one speaker, and worded alike.

    Alike are texts that begin alike (half of the shorter one's stems), or share many (Jaccard 0.4; then their vectors have
    to be nearer). Of long texts it is not known what they state. Where the question names a period, what is nearer to it
    counts, not what is newer.
    """
    said = [(r.candidate, stem_list(r.candidate.text)) for r in ranked[:HEAD]]
    short = [(c, told, frozenset(told)) for c, told in said if 0 < len(told) <= SHORT]
    doubts = []
    for (one, mine, words), (other, theirs, their_words) in combinations(short, 2):
        if one.speaker != other.speaker or one.time == other.time:
            continue
        if needed := 0.6 if _begin_alike(mine, theirs) else 0.7 if jaccard(words, their_words) >= SAME_WORDS else None:
            older, newer = (one, other) if one.time < other.time else (other, one)
            asked_for = period is None or closeness(newer.time, period) >= closeness(older.time, period)
            if newer.trust >= older.trust and asked_for:  # what is trusted less replaces nothing
                doubts.append(Doubt(older, newer, needed))
    return doubts


def _begin_alike(mine: Sequence[str], theirs: Sequence[str]) -> bool:
    enough = ceil(SAME_BEGINNING * min(len(mine), len(theirs)))
    return mine[:enough] == theirs[:enough]


def _cosine(one: Vector, other: Vector) -> float:
    """Of vectors of length 1, as a store hands them out: by their distance, which is faster than a sum of products."""
    return 1 - dist(one, other) ** 2 / 2 if one and other else 0.0


def unsettled(ranked: Sequence[Ranked], doubts: Sequence[Doubt]) -> list[Doubt]:
    """Those that may move something: an older statement stands before a newer one, here or where both have a part."""
    places = {r.candidate.id: place for place, r in enumerate(ranked[:HEAD])}
    moving = {id for d in doubts if places[d.older.id] < places[d.newer.id] for id in (d.older.id, d.newer.id)}
    while more := {id for d in doubts if {d.older.id, d.newer.id} & moving for id in (d.older.id, d.newer.id)} - moving:
        moving |= more
    return [d for d in doubts if d.older.id in moving]


def newer_first(ranked: Sequence[Ranked], doubts: Iterable[Doubt]) -> list[Ranked]:
    """Of each pair whose vectors agree, the newer takes the better place."""
    by_id = {r.candidate.id: r for r in ranked[:HEAD]}
    order = list(by_id)
    for older, newer, cosine in doubts:
        a, b = order.index(older.id), order.index(newer.id)
        if a < b and _cosine(older.vector, newer.vector) >= cosine:
            order[a], order[b] = newer.id, older.id
            by_id[older.id].superseded_by = newer.id
            by_id[newer.id].moved = "put before an older statement about the same thing"
            by_id[older.id].moved = "put after a newer statement about the same thing"
    return [*(by_id[id] for id in order), *ranked[HEAD:]]
