"""Fakes and contract suites: what the project's own tests use, for providers and applications that are tested with it."""

from __future__ import annotations

from consolidator.testing.clocks import ManualClock
from consolidator.testing.models import (
    HashEmbedder,
    OverlapReranker,
    ScriptedChatModel,
    open_hash_embedder,
    open_overlap_reranker,
)
from consolidator.testing.proposers import ScriptedProposer
from consolidator.testing.scorers import ScriptedScorer
from consolidator.testing.stores import MemoryStorage

__all__ = [
    "HashEmbedder", "ManualClock", "MemoryStorage", "OverlapReranker", "ScriptedChatModel", "ScriptedProposer",
    "ScriptedScorer", "open_hash_embedder", "open_overlap_reranker",
]
