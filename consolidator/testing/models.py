"""Stand-ins for models: they need no vendor, no network and no time."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consolidator.errors import EmbedderUnavailable, InvalidSettings, ModelError, RerankerUnavailable
from consolidator.models import Vector
from consolidator.ports import Completion, Embedder, Message, Reranker
from consolidator.words import stems

_PLACES = 4  # numbers of a vector that one stem moves


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What a model was asked."""

    messages: tuple[Message, ...]
    schema: Mapping[str, Any]
    max_tokens: int

    @property
    def text(self) -> str:
        """All messages as one text."""
        return "\n".join(message.content for message in self.messages)


Answer = str | Mapping[str, Any] | ModelError


class ScriptedChatModel:
    """A chat model that gives prepared answers: one after another from a sequence, or what a function makes of each request.

    A mapping is given as JSON, an error is raised. `requests` holds what was asked, in order. A sequence that has run out
    fails the test with AssertionError.
    """

    def __init__(self, answers: Iterable[Answer] | Callable[[ChatRequest], Answer], *, name: str = "scripted") -> None:
        self.name = name
        self.endpoint = name
        self.requests: list[ChatRequest] = []
        self.closed = False
        self._answer = answers if callable(answers) else _one_after_another(answers)

    async def complete(self, messages: Sequence[Message], *, schema: Mapping[str, Any], max_tokens: int) -> Completion:
        request = ChatRequest(messages=tuple(messages), schema=schema, max_tokens=max_tokens)
        self.requests.append(request)
        answer = self._answer(request)
        if isinstance(answer, ModelError):
            raise answer
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return Completion(text=text, model=self.name, prompt_tokens=_about(request.text), reply_tokens=_about(text))

    async def close(self) -> None:
        self.closed = True


def _one_after_another(answers: Iterable[Answer]) -> Callable[[ChatRequest], Answer]:
    waiting = iter(tuple(answers))

    def answer(_: ChatRequest) -> Answer:
        for prepared in waiting:
            return prepared
        raise AssertionError("the model was asked more often than answers were prepared")

    return answer


def _about(text: str) -> int:
    return math.ceil(len(text) / 4)


def hash_vector(text: str, dimension: int) -> Vector:
    """A unit vector: the sum of four signed places for each stem. Texts that share words are near one another."""
    vector = [0.0] * dimension
    for stem in sorted(stems(text)) or [text]:
        digest = hashlib.blake2b(stem.encode(errors="replace"), digest_size=4 * _PLACES).digest()
        for start in range(0, len(digest), 4):
            number = int.from_bytes(digest[start : start + 4], "big")
            vector[(number >> 1) % dimension] += 1.0 if number & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else [1.0, *vector[1:]]


class HashEmbedder:
    """An embedder of words, not of meaning; see `ports.Embedder`. `down` makes it fail until it is set to False."""

    def __init__(self, dimension: int = 64) -> None:
        self.name = f"hash:{dimension}"
        self.dimension = dimension
        self.down = False
        self.embedded = 0  # texts

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        if self.down:
            raise EmbedderUnavailable
        self.embedded += len(texts)
        return [hash_vector(text, self.dimension) for text in texts]

    async def forget(self, texts: Sequence[str]) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        return None


async def open_hash_embedder(
    *, model: str = "default", threads: int = 1, batch: int = 64, cache: Path | None = None
) -> Embedder:
    """`model` is the dimension, "default" 64. The rest is there so that one configuration fits every embedder."""
    if model != "default" and not (model.isdecimal() and 2 <= int(model) <= 65_536):
        raise InvalidSettings(f"the hash embedder's model must be its dimension, such as '64', not {model!r}")
    return HashEmbedder(64 if model == "default" else int(model))


class OverlapReranker:
    """A re-ranker of words: the share of the question's stems that a text has, the shorter text first; see `ports.Reranker`.

    `down` makes it fail until it is set to False. `asked` holds each question with its texts, in order.
    """

    def __init__(self) -> None:
        self.name = "overlap"
        self.down = False
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        if self.down:
            raise RerankerUnavailable
        self.asked.append((query, tuple(texts)))
        return [_overlap(stems(query), stems(text)) for text in texts]

    async def close(self) -> None:
        self.down = True


def _overlap(asked: frozenset[str], told: frozenset[str]) -> float:
    return len(asked & told) / (len(asked) + 0.01 * len(told)) if asked else 0.0


async def open_overlap_reranker(*, model: str = "", threads: int = 1, batch: int = 8, max_length: int = 128) -> Reranker:
    """The options are there so that one configuration fits every re-ranker."""
    return OverlapReranker()
