"""What a store remembers of how it was made: beside the folder's shards, or in a collection's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consolidator.errors import NewerFormat, WrongEmbedder
from consolidator_providers.bm25 import Bm25Settings

FORMAT = 1


def record_of(embedder: str, dimension: int, bm25: Bm25Settings) -> dict[str, Any]:
    return {"format": FORMAT, "embedder": embedder, "dimension": dimension, "bm25": bm25.record()}


def check_record(record: Mapping[str, Any], embedder: str, dimension: int, *, where: str, elsewhere: str) -> Bm25Settings:
    """The word weights that the store was made with. Raises NewerFormat or WrongEmbedder."""
    if record["format"] > FORMAT:
        raise NewerFormat(f"{where} has format {record['format']}, this version reads up to {FORMAT}: use a newer consolidator")
    refuse_other((record["embedder"], record["dimension"]), (embedder, dimension), where=where, elsewhere=elsewhere)
    return Bm25Settings.of(record["bm25"])


def refuse_other(made: tuple[str, int], asked: tuple[str, int], *, where: str, elsewhere: str) -> None:
    """Raise WrongEmbedder unless both are the same embedder and dimension."""
    if made != asked:
        raise WrongEmbedder(
            f"{where} was made with {made[0]} ({made[1]} numbers), not with {asked[0]} ({asked[1]} numbers):"
            f" use the same embedder, or {elsewhere}"
        )
