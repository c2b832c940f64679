"""Conversations for the tests of importance: memories of words that nothing else has, and answers that repeat them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from consolidator.config import Settings
from consolidator.engine import Bank, Engine, connect
from consolidator.models import Memory
from consolidator.ports import LogprobModel, Proposer
from consolidator.testing import HashEmbedder, ManualClock, ScriptedProposer
from consolidator.transcripts import Role, Segment, Transcript, Turn
from tests.conftest import NOW

WORTH = 3.0  # nats per token that an answer loses with the one memory that it repeats, by `ScriptedScorer`


def opened(
    folder: Path, clock: ManualClock, scorer: LogprobModel | None, *, proposer: Proposer | None = None, **sections: Any
) -> AbstractAsyncContextManager[Engine]:
    by_hand = {"store": {"kind": "memory"}, "worker": {"background": False}, "consolidation": {"floor": -1}}
    settings = Settings.model_validate({"folder": folder, **by_hand, **sections})
    return connect(
        settings=settings, clock=clock, embedder=HashEmbedder(), proposer=proposer or ScriptedProposer(), scorer=scorer
    )


def words(number: int) -> str:
    return f"alpha{number} beta{number} gamma{number} delta{number}"


async def facts(bank: Bank, count: int, *, source: str = "s") -> list[Memory]:
    """The n-th says `words(n)`."""
    return list((await bank.retain([words(n) for n in range(count)], source=source)).memories)


def turn(role: Role, *said: str | tuple[str, str], token_ids: tuple[int, ...] | None = None) -> Turn:
    """A segment is a text, or a text with the ids that it shows, apart by spaces."""
    told = [Segment(text=s) if isinstance(s, str) else Segment(text=s[0], items=frozenset(s[1].split())) for s in said]
    return Turn(role=role, segments=tuple(told), token_ids=token_ids)


def showing(memories: Iterable[Memory], role: Role = "system") -> Turn:
    return turn(role, *((f"{memory.text}\n", memory.id) for memory in memories))


def talk(*turns: Turn, id: str = "t", closed: bool = True) -> Transcript:
    return Transcript(id=id, turns=turns, closed=closed, at=NOW)


def answers(*texts: str) -> list[Turn]:
    """Each after a question of its own."""
    return [each for text in texts for each in (turn("user", "so?"), turn("assistant", text))]


def told_of(memories: Sequence[Memory], *golds: int, id: str = "t", closed: bool = True) -> Transcript:
    """All are shown first, then each answer repeats one of them."""
    return talk(showing(memories), *answers(*map(words, golds)), id=id, closed=closed)
