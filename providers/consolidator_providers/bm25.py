"""The one BM25 encoder for all Qdrant stores: a server's own would let ranks depend on the server's version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from consolidator.errors import InvalidInput, MissingProvider

try:
    import qdrant_edge
except ImportError as error:
    raise MissingProvider("the package qdrant-edge-py is missing: pip install 'consolidator'") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Bm25Settings:
    """Recorded with the collection: weights written under other settings cannot be compared.

    avg_len: mean length of a text in words. k: how soon a repeated word stops counting. b: how much length weighs.
    """

    language: str = "english"
    avg_len: float = 32.0
    k: float = 1.2
    b: float = 0.75

    def record(self) -> dict[str, str | float]:
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Bm25Settings:
        return cls(**{key: record[key] for key in ("language", "avg_len", "k", "b")})


@dataclass(frozen=True, slots=True)
class Sparse:
    """Word weights under word hashes; equally long, no index twice."""

    indices: list[int]
    values: list[float]


class Bm25Encoder:
    """Texts to sparse vectors; None for a text without a word that counts. The rarity of words is the store's to add."""

    def __init__(self, settings: Bm25Settings | None = None) -> None:
        self.settings = settings or Bm25Settings()
        self._bm25 = qdrant_edge.Bm25(qdrant_edge.Bm25Config(**self.settings.record()))  # type: ignore[arg-type]

    def document(self, text: str) -> Sparse | None:
        return _sparse(self._bm25.embed_document(text)) if text else None

    def query(self, text: str) -> Sparse | None:
        return _sparse(self._bm25.embed_query(text)) if text else None


def _sparse(encoded: Any) -> Sparse | None:
    sparse = Sparse(list(encoded.indices), list(encoded.values))
    if len(set(sparse.indices)) != len(sparse.values):  # such a vector would make the embedded store unreadable
        raise InvalidInput("the text cannot be encoded for the search by words")
    return sparse if sparse.indices else None
