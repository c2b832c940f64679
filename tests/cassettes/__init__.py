"""Replies that real judgement gave to the real prompt, replayed. A changed prompt fails by name: record it anew on purpose."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from consolidator.errors import ModelUnavailable
from consolidator.ports import Completion, Message
from consolidator.prompts import digest_of

CHANCE = re.compile(r"(?<=#)[0-9a-f]{4}(?=\])|(?<==== )[0-9a-f]{16}(?= ===)|(?<=\[K-)[0-9a-f]{8,}(?=\])")


def path_of(recording: str) -> Path:
    """Lines of {key, user, answer}: the prompt's key, its last user message and what the model replied."""
    return Path(__file__).parent / f"{recording}.jsonl"


def key_of(messages: Sequence[Message]) -> str:
    return digest_of(messages)[:16]


def key_apart_from_chance(messages: Sequence[Message]) -> str:
    """Without what hangs on a bank's own key: the digests in masks, the handles of observations, and so the fence."""
    return key_of([Message(role=m.role, content=CHANCE.sub("0", m.content)) for m in messages])


KEYS = {"sessions": key_apart_from_chance}  # recordings whose prompts hold such a thing


def answers_of(recording: str) -> dict[str, str]:
    """The answers by their prompts' keys."""
    rows = map(json.loads, path_of(recording).read_text(encoding="utf-8").splitlines())
    return {row["key"]: row["answer"] for row in rows}


class ReplayedChatModel:
    """Answers from a recording, by the digest of the prompt."""

    name = "replayed"
    endpoint = ""

    def __init__(self, recording: str) -> None:
        self._recording = path_of(recording).name
        self._key_of = KEYS.get(recording, key_of)
        self._answers = answers_of(recording)

    async def complete(self, messages: Sequence[Message], *, schema: Mapping[str, Any], max_tokens: int) -> Completion:
        key = self._key_of(messages)
        if key not in self._answers:
            raise ModelUnavailable(f"{self._recording} has no answer to the prompt {key}: prompt or pass changed, record it anew")
        return Completion(text=self._answers[key], model=self.name, prompt_tokens=sum(len(m.content) // 4 for m in messages))

    async def close(self) -> None:
        pass
