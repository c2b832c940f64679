"""Embeddings from any server that speaks OpenAI's protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consolidator.errors import EmbedderUnavailable, InvalidSettings, ModelError, ModelUnavailable
from consolidator.models import Vector
from consolidator.ports import Embedder
from consolidator_providers.openai_wire import error_for, fault_of, open_client, patiently, read_body
from consolidator_providers.vector_cache import CachedEmbedder

if TYPE_CHECKING:
    from openai import AsyncOpenAI

TRIES = 3
DEADLINE = 60.0  # seconds for a batch with all its tries


def read_vectors(raw: str, count: int) -> list[Vector]:
    """The vectors in a body of status 200, in the order of their texts, normalised. Raises ModelUnavailable."""
    rows = read_body(raw).get("data")
    try:
        by_place = {int(row["index"]): [float(number) for number in row["embedding"]] for row in rows or ()}
        vectors = [by_place[place] for place in range(count)]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelUnavailable("the server's answer holds no vectors") from error
    return [normalised(vector) for vector in vectors]


def normalised(vector: Vector) -> Vector:
    length = math.sqrt(sum(number * number for number in vector))
    if not math.isfinite(length):
        raise ModelUnavailable("the server's answer holds a vector that is not finite")
    return [number / length for number in vector] if length else vector


class OpenAIEmbedder:
    """An embedder; see `ports.Embedder`. `dimension` 0: not known yet."""

    def __init__(self, client: AsyncOpenAI, *, model: str, dimension: int, batch: int, deadline: float) -> None:
        self.name = f"openai:{model}"
        self.dimension = dimension
        self._client = client
        self._model = model
        self._batch = batch
        self._deadline = deadline
        self._asks_dimension = dimension > 0  # not every server knows this field; forgotten once it was refused

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        sound = [text.encode(errors="replace").decode() or " " for text in texts]  # empty texts are refused
        vectors: list[Vector] = []
        for start in range(0, len(sound), self._batch):
            vectors += await self._embed(sound[start : start + self._batch])
        return vectors

    async def probe(self) -> None:
        """Learn the dimension from the server."""
        self.dimension = len((await self._embed(["dimension"]))[0])

    async def forget(self, texts: Sequence[str]) -> None:
        """Nothing is kept here; the cache around it forgets."""

    async def close(self) -> None:
        await self._client.close()

    async def _embed(self, texts: list[str]) -> list[Vector]:
        async def attempt() -> list[Vector]:
            return read_vectors(await self._ask(texts), len(texts))

        try:
            vectors = await patiently(attempt, tries=TRIES, deadline=self._deadline)
        except ModelError as error:
            raise EmbedderUnavailable(f"the embedder {self.name} failed: {error}") from error
        length = self.dimension or len(vectors[0])
        if not length or any(len(vector) != length for vector in vectors):
            raise EmbedderUnavailable(f"the embedder {self.name} gave a vector that is not {length or 'some'} numbers long")
        return vectors

    async def _ask(self, texts: list[str]) -> str:
        create: Any = self._client.embeddings.with_raw_response.create
        while True:
            extra = {"dimensions": self.dimension} if self._asks_dimension else {}
            try:
                raw = await create(model=self._model, input=texts, encoding_format="float", **extra)
                body: str = raw.text
            except Exception as error:  # the border: vendors raise what they like
                fault = fault_of(error)
                if not extra or fault.status not in (400, 422):
                    raise error_for(fault) from error
                self._asks_dimension = False
            else:
                return body


async def open_openai_embedder(
    *,
    model: str,
    base_url: str | None = None,
    api_key: str | None = None,
    dimension: int | None = None,
    threads: int = 1,
    batch: int = 64,
    cache: Path | None = None,
    deadline: float = DEADLINE,
) -> Embedder:
    """An embedder at `base_url` (None: OpenAI).

    dimension: asked of the server where it can shorten its vectors; None: one text is embedded now to learn it.
    threads: without meaning here, so that one configuration fits every embedder. cache: a file for vectors; None keeps some
    in memory. Raises InvalidSettings; EmbedderUnavailable when the probe fails.
    """
    if batch < 1 or (dimension is not None and dimension < 1):
        raise InvalidSettings("the embedder's batch and dimension must be at least 1")
    client = await open_client(base_url=base_url, api_key=api_key, read_timeout=deadline / 2)
    embedder = OpenAIEmbedder(client, model=model, dimension=dimension or 0, batch=batch, deadline=deadline)
    if dimension is None:
        try:
            await embedder.probe()
        except EmbedderUnavailable:
            await embedder.close()
            raise
    return CachedEmbedder(embedder, cache)
