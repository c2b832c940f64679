"""Replies that real judgement gave to the real prompt, replayed. A changed prompt fails by name: record it anew on purpose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from consolidator.errors import ModelUnavailable
from consolidator.ports import Completion, Message
from consolidator.prompts import digest_of


class ReplayedChatModel:
    """Answers from a recording, by the digest of the prompt."""

    name = "replayed"

    def __init__(self, recording: str) -> None:
        path = Path(__file__).parent / f"{recording}.jsonl"
        self._path = path
        self._answers = {row["key"]: row["answer"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}

    async def complete(self, messages: Sequence[Message], *, schema: Mapping[str, Any], max_tokens: int) -> Completion:
        key = digest_of(messages)[:16]
        if key not in self._answers:
            raise ModelUnavailable(f"{self._path.name} has no answer to the prompt {key}: prompt or pass changed, record it anew")
        return Completion(text=self._answers[key], model=self.name, prompt_tokens=sum(len(m.content) // 4 for m in messages))

    async def close(self) -> None:
        pass
