"""Harvests that end by SIGKILL: `python -m tests.crash.harvest_child` takes orders, one JSON object a line.

Each order is carried out by a fresh process, forked before anything was opened; the answer is its exit status, and how many
boundaries it passed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from consolidator.clock import system_clock
from consolidator.config import Settings
from consolidator.engine import Engine
from consolidator.parts import Parts
from consolidator.ports import Completion, Message
from consolidator.records import SessionLog, Step
from consolidator.registry import open_parts
from consolidator.testing import HashEmbedder
from consolidator_providers import detect_secrets, tokens
from consolidator_providers.vector_cache import CachedEmbedder
from tests.crash.engine_child import WORD, WRITES, Follower, killing, main

BOUNDARIES = sorted(WRITES | {"reading", "spend"})
BEGUN = datetime(2026, 5, 1, tzinfo=UTC)
FILLER = "the gauge of the pier and what it said " * 9


class Rewording:
    """A model that takes an item out of every step with a word, in a wording of its own that no other run has."""

    def __init__(self, wording: str) -> None:
        self.name = self.endpoint = "rewording"
        self._wording = wording

    async def complete(self, messages: Sequence[Message], *, schema: Mapping[str, Any], max_tokens: int) -> Completion:
        rows = [json.loads(line) for line in messages[1].content.split("\n") if line.startswith('{"id": "s')]
        items = [self._item(row["id"], WORD.findall(row["text"])[0]) for row in rows if WORD.search(row["text"])]
        return Completion(text=json.dumps({"items": items}), model=self.name, prompt_tokens=9, reply_tokens=9)

    def _item(self, step: str, word: str) -> dict[str, Any]:
        text, everywhere = f"{self._wording} {word}.", int(word[4:-1]) % 3 == 0
        return {"text": text, "category": "fact", "confidence": 0.7, "steps": [step], "everywhere": everywhere,
                "confirms": None, "contradicts": None}

    async def close(self) -> None:
        return None


def session(id: str, steps: int) -> SessionLog:
    """Steps of a user with a word each, and answers without one."""
    told = (f"It is word{n}x. {FILLER}" if n % 2 == 0 else "I see." for n in range(steps))
    roles: tuple[Any, Any] = ("user", "assistant")
    return SessionLog(
        id=id, projects=("pier",),
        steps=tuple(Step(line=n + 1, role=roles[n % 2], text=text, at=BEGUN) for n, text in enumerate(told)),
    )


@asynccontextmanager
async def opened(
    folder: Path, wording: str, wrap: Callable[[Parts], Parts] = lambda parts: parts
) -> AsyncIterator[Engine]:
    settings = Settings.model_validate({"folder": folder, "harvest": {"window_tokens": 500}, "worker": {"background": False}})
    embedder = CachedEmbedder(HashEmbedder(), folder / "vectors.db")
    parts = await open_parts(settings, system_clock, embedder=embedder, proposer=Follower(), chat=Rewording(wording))
    try:
        yield Engine(wrap(parts), settings)
    finally:
        await parts.close()


async def live(order: dict[str, Any], calls: Counter[str]) -> None:
    async with opened(
        Path(order["folder"]), order["wording"], lambda parts: killing(parts, order["at"], calls, BOUNDARIES)
    ) as engine:
        await engine.bank(order["bank"]).harvest(session("s", order["steps"]))


if __name__ == "__main__":
    tokens.count(FILLER)  # their tables take half a second, which no forked process spends again
    detect_secrets.find(FILLER)
    main(live)
