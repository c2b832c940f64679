"""Re-ranking in the process, by a cross-encoder of sentence-transformers. A folder needs no network."""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from consolidator.errors import InvalidSettings, RerankerUnavailable
from consolidator.ports import Reranker
from consolidator_providers.sentence_transformers import ModelSource, demand_library, located, quiet_library

Pair = tuple[str, str]

_RULE = "the reranker's model must be a cross-encoder's folder or a name on the hub"
_JUDGES = ("ForSequenceClassification", "ForCausalLM")  # heads that give scores; any other head would be made up at random


def find_cross_encoder(model: str) -> ModelSource:
    """A folder, or a name on the hub; loads nothing. Raises MissingProvider, and InvalidSettings for what is no cross-encoder."""
    demand_library()
    source = located(model, _RULE)
    if source.local and (fault := _fault_of(Path(source.where))):
        raise InvalidSettings(f"{_RULE}; {model!r} is none: {fault}")
    return source


def _fault_of(folder: Path) -> str | None:
    """What the configuration in a folder says against it."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        modules = (folder / "modules.json").read_text() if (folder / "modules.json").is_file() else ""
    except (OSError, ValueError):
        return None  # not plain to see: the library says when it loads the model
    if not _judges(config.get("architectures")):
        return None if "Dense" in modules else "it makes vectors, not scores"
    labels = len(config.get("id2label") or ("no", "yes"))  # two, where a configuration does not say
    return f"it has {labels} scores, not one" if labels != 1 and "ForCausalLM" not in config["architectures"][0] else None


def _judges(architectures: Sequence[str] | None) -> bool:
    return any(name.endswith(_JUDGES) for name in architectures or ())


class PairScorer:
    """Loads the model when it is first needed. Every method runs in one and the same thread."""

    def __init__(self, source: ModelSource, *, threads: int, batch: int, max_length: int, device: str) -> None:
        self._source = source
        self._threads = threads
        self._batch = batch
        self._max_length = max_length
        self._device = device
        self._model: Any = None

    def score(self, pairs: Sequence[Pair], unwanted: Callable[[], bool]) -> list[float]:
        """A number for each pair, before any activation. It ends between two batches once it is unwanted.

        Raises RerankerUnavailable.
        """
        name = self._source.name
        try:
            scores = self._score(pairs, unwanted)
        except RerankerUnavailable:
            raise
        except Exception as error:  # the border: torch and transformers raise what they like
            raise RerankerUnavailable(f"the model {name} failed ({type(error).__name__})") from error
        if not all(map(math.isfinite, scores)):
            raise RerankerUnavailable(f"the model {name} gave scores that are no finite numbers")
        return scores

    def _score(self, pairs: Sequence[Pair], unwanted: Callable[[], bool]) -> list[float]:
        if self._model is None:
            self._model = self._load()
        scores = [math.nan] * len(pairs)
        by_length = sorted(range(len(pairs)), key=lambda position: -len(pairs[position][1]))  # a batch is as long as its longest
        for start in range(0, len(pairs), self._batch):
            if unwanted():
                raise RerankerUnavailable("nobody waits for these scores")
            batch = by_length[start : start + self._batch]
            for position, score in zip(batch, self._predict([pairs[position] for position in batch]), strict=True):
                scores[position] = score
        return scores

    def _predict(self, pairs: list[Pair]) -> list[float]:
        matrix = self._model.predict(pairs, batch_size=len(pairs), show_progress_bar=False, convert_to_numpy=True)
        scores: list[float] = matrix.tolist()
        return scores

    def _load(self) -> Any:
        library = quiet_library(threads=self._threads, local=self._source.local)
        model = library.CrossEncoder(
            self._source.where,
            device=self._device,
            trust_remote_code=False,
            local_files_only=self._source.local,
            model_kwargs={"use_safetensors": True},
            activation_fn=importlib.import_module("torch").nn.Identity(),  # a sigmoid would make the best ones equal
        )
        bare = len(list(model.children())) == 1
        if model.num_labels != 1 or (bare and not _judges(getattr(model.config, "architectures", None))):
            raise RerankerUnavailable(f"the model {self._source.name} is no cross-encoder with one score")
        model.tokenizer.model_max_length = min(model.tokenizer.model_max_length, self._max_length)
        return model


class CrossEncoderReranker:
    """A re-ranker with the model in the process; see `ports.Reranker`.

    One prediction at a time: calls wait in line. One that is given up leaves the line, or ends with the batch under way, so a
    model that is too slow does not pile up work.
    """

    def __init__(self, scorer: PairScorer, thread: ThreadPoolExecutor, *, name: str) -> None:
        self.name = name
        self._scorer = scorer
        self._thread = thread
        self._closed = False

    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        if self._closed:
            raise RerankerUnavailable("the re-ranker is closed")
        if not texts:
            return []
        pairs = [(_sound(query), _sound(text)) for text in texts]
        given_up = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._scorer.score, pairs, lambda: given_up.is_set() or self._closed
            )
        finally:
            given_up.set()

    async def close(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)


def _sound(text: str) -> str:
    return text.encode(errors="replace").decode()  # the tokenizer refuses lone surrogates


async def open_cross_encoder(
    *, model: str, threads: int = 1, batch: int = 8, max_length: int = 128, device: str = "cpu"
) -> Reranker:
    """A re-ranker for a cross-encoder's folder, or a name on the hub, loaded when the first texts come.

    threads: of torch, in the whole process. batch: pairs at once. max_length: tokens of a pair; what is longer is cut off.
    Raises MissingProvider, InvalidSettings.
    """
    if threads < 1 or batch < 1 or max_length < 1:
        raise InvalidSettings("the reranker's threads, batch and max_length must be at least 1")
    source = await asyncio.to_thread(find_cross_encoder, model)
    if not source.local:
        os.environ.setdefault("HF_HUB_OFFLINE", "0")  # an embedder that is loaded first would switch the hub off
    scorer = PairScorer(source, threads=threads, batch=batch, max_length=max_length, device=device)
    return CrossEncoderReranker(scorer, ThreadPoolExecutor(1, thread_name_prefix="reranker"), name=f"cross-encoder:{source.name}")
