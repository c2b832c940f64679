"""The head of a ranking, read once more by a model: how its judgement bears on the scores, and how long it is waited for."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from consolidator.errors import ConsolidatorError, RerankerUnavailable
from consolidator.models import Value
from consolidator.ports import Reranker
from consolidator.ranking import Candidate, Ranked, standardise

log = logging.getLogger("consolidator.reranking")


class RerankPolicy(Value):
    """top: hits that are read. timeout: seconds that recall waits. weight: what a standard deviation of the model's scores adds
    to a hit's base score; where all its scores are alike, nothing.
    """

    top: int = Field(default=30, ge=2, le=200)
    timeout: float = Field(default=1.0, gt=0, le=60)
    weight: float = Field(default=1.0, ge=0, le=10)


async def rerank_head(reranker: Reranker, policy: RerankPolicy, query: str, ranked: Sequence[Ranked]) -> list[Ranked]:
    """The hits by their scores with the model's judgement; as they were where it fails or is late."""
    head = ranked[: policy.top]
    if len(head) < 2 or not policy.weight:
        return list(ranked)
    try:
        async with asyncio.timeout(policy.timeout):
            scores = await reranker.rerank(query, [_shown(r.candidate) for r in head])
        if len(scores) != len(head) or not all(map(math.isfinite, scores)):
            raise RerankerUnavailable("the re-ranker's scores are not one finite number for each text")
    except (ConsolidatorError, TimeoutError) as error:
        log.warning("reranker_left_out", extra={"action": "reranker_left_out", "error": type(error).__name__})
        return list(ranked)
    return reranked(ranked, scores, policy.weight)


def reranked(ranked: Sequence[Ranked], scores: Sequence[float], weight: float) -> list[Ranked]:
    """Best first: each of the first hits with the term `reranker`. The others stay as they were, neutral: the mean adds nothing.

    scores: of the first hits, in their order, at least one, finite, on any scale.
    """
    peak = max(map(abs, scores)) or 1.0  # else the squares of large scores overflow, and small ones seem equal
    shares = [weight * deviation for deviation in standardise([score / peak for score in scores])]
    judged = [_with(r, share) for r, share in zip(ranked, shares, strict=False)]
    return sorted([*judged, *ranked[len(judged) :]], key=lambda r: (-r.score, r.candidate.id))


def _with(r: Ranked, share: float) -> Ranked:
    return replace(r, terms=[*r.terms, ("reranker", share)]) if share else r


def _shown(c: Candidate) -> str:
    return f"{c.speaker}: {c.text}" if c.speaker else c.text
