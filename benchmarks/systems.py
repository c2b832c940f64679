"""The systems that `retrieval.py` measures: ours, three plain baselines, and other people's stores.

A system is opened anew for each conversation, keeps its turns session by session, and recalls the ids of turns. To measure
another one, write the two methods and name it in `SYSTEMS`.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol
from unittest import mock
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from benchmarks.locomo import Statement, Turn
from consolidator import blocking
from consolidator.config import Settings
from consolidator.models import Hit, Vector
from consolidator.words import STOP

Matrix = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
Encode = Callable[[Sequence[str]], Matrix]  # texts to unit vectors, [n, dimension]
DIMENSION = 384
BANK = "bank"
Observations = Literal["rules", "gold"]


class Memory(Protocol):
    def retain(self, turns: Sequence[Turn]) -> None:
        """Keep a session's turns; sessions come in their order."""
        ...

    def settle(self, statements: Sequence[Statement]) -> None:
        """All was told: do now what would be done in the background, if anything. statements: what was known from elsewhere."""
        return

    def recall(self, question: str, top_k: int) -> list[str]:
        """Ids of turns, best first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """differs: what it is, and how it differs from the others. needs: modules beside the project's own."""

    open: Callable[[Encode], AbstractContextManager[Memory]]
    differs: str
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        return [module for module in self.needs if find_spec(module) is None]


# Ours


class Shared:
    """The encoder of all systems as the engine wants it."""

    name = "benchmark"
    dimension = DIMENSION

    def __init__(self, encode: Encode) -> None:
        self._encode = encode

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        vectors: list[Vector] = self._encode(texts).tolist()
        return vectors

    async def forget(self, texts: Sequence[str]) -> None:
        """The cache ends with the benchmark."""

    async def close(self) -> None:
        """It outlives the engine."""


class Consolidator(Memory):
    """plain: the text that the other stores get, and no fields. observations: recall them, too, made by rules or the data's."""

    def __init__(self, bank: blocking.Bank, *, plain: bool, observations: Observations | None) -> None:
        self._bank = bank
        self._plain = plain
        self._observations = observations
        self._turns: dict[str, str] = {}

    def retain(self, turns: Sequence[Turn]) -> None:
        kept = self._bank.retain([self._fields(turn) for turn in turns], source=f"session-{turns[0].session}")
        self._turns |= {memory.id: str(memory.metadata["turn"]) for memory in kept.memories}

    def _fields(self, turn: Turn) -> dict[str, Any]:
        told: dict[str, Any] = {"metadata": {"turn": turn.id}}
        if self._plain:
            return told | {"text": turn.shown}
        return told | {"text": turn.text, "speaker": turn.speaker, "sequence": turn.position, "occurred_at": turn.at}

    def settle(self, statements: Sequence[Statement]) -> None:
        if self._observations == "gold":
            self._import(statements)
        elif self._observations:
            assert not self._bank.consolidate().left

    def _import(self, statements: Sequence[Statement]) -> None:
        lines = [json.loads(line) | {"state": "done"} for line in self._bank.export() if '"record": "memory"' in line]
        ids = {line["metadata"]["turn"]: line["id"] for line in lines}
        for number, told in enumerate(statements):
            rests = {"evidence": [{"memory_id": ids[turn]} for turn in told.evidence], "versions": [{"text": told.text}]}
            lines.append({"record": "observation", "id": str(number), **rests})
        self._bank.import_(lines)

    def recall(self, question: str, top_k: int) -> list[str]:
        kinds = ["memory", "observation"] if self._observations else ["memory"]
        hits = self._bank.recall(question, top_k=top_k, kinds=kinds)
        return list(dict.fromkeys(id for hit in hits for id in self._said(hit)))[:top_k]

    def _said(self, hit: Hit) -> Iterator[str]:
        """A statement takes as many places as it has evidence, which is in the order of its answers."""
        if hit.kind == "memory":
            yield self._turns[hit.id]
        yield from (self._turns[evidence.memory_id] for evidence in hit.evidence if evidence.supports)


@contextmanager
def consolidator(encode: Encode, *, plain: bool = False, observations: Observations | None = None) -> Iterator[Memory]:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate({"folder": folder, "worker": {"background": False}})
        with blocking.connect(settings=settings, embedder=Shared(encode)) as engine:
            yield Consolidator(engine.bank(BANK), plain=plain, observations=observations)


# Plain baselines


class Baseline(Memory):
    """Scores all turns for a question, and takes the best."""

    def __init__(self) -> None:
        self._ids: list[str] = []

    def retain(self, turns: Sequence[Turn]) -> None:
        self._ids += [turn.id for turn in turns]

    def scores(self, question: str) -> Scores:
        raise NotImplementedError

    def recall(self, question: str, top_k: int) -> list[str]:
        best = np.argsort(-self.scores(question), kind="stable")[:top_k]
        return [self._ids[i] for i in best]


class Dense(Baseline):
    """Exact: what every vector index approximates."""

    def __init__(self, encode: Encode) -> None:
        super().__init__()
        self._encode = encode
        self._vectors: Matrix = np.zeros((0, DIMENSION), np.float32)

    def retain(self, turns: Sequence[Turn]) -> None:
        super().retain(turns)
        self._vectors = np.vstack([self._vectors, self._encode([turn.shown for turn in turns])])

    def scores(self, question: str) -> Scores:
        scores: Scores = (self._vectors @ self._encode([question])[0]).astype(np.float64)
        return scores


class Words(Baseline):
    """bm25s has no index that grows: it is built anew after each session."""

    def __init__(self) -> None:
        super().__init__()
        self._bm25s, self._stemmer = import_module("bm25s"), import_module("Stemmer").Stemmer("english")
        self._texts: list[str] = []
        self._index: Any = None

    def retain(self, turns: Sequence[Turn]) -> None:
        super().retain(turns)
        self._texts += [turn.shown for turn in turns]
        self._index = self._bm25s.BM25(method="lucene", k1=1.2, b=0.5)
        self._index.index(self._tokens(self._texts), show_progress=False)

    def _tokens(self, texts: Sequence[str]) -> list[list[str]]:
        tokens: list[list[str]] = self._bm25s.tokenize(
            list(texts), stopwords=sorted(STOP), stemmer=self._stemmer, return_ids=False, show_progress=False
        )
        return tokens

    def scores(self, question: str) -> Scores:
        known = [token for token in self._tokens([question])[0] if token in self._index.vocab_dict]
        return np.asarray(self._index.get_scores(known), np.float64) if known else np.zeros(len(self._ids))


class Hybrid(Baseline):
    """Both scores in deviations from their means, summed; or by reciprocal ranks with k = 60, as most hybrid stores do."""

    def __init__(self, encode: Encode, *, by_ranks: bool) -> None:
        super().__init__()
        self._parts = (Dense(encode), Words())
        self._fused: Callable[[Scores], Scores] = reciprocal if by_ranks else standardised

    def retain(self, turns: Sequence[Turn]) -> None:
        super().retain(turns)
        for part in self._parts:
            part.retain(turns)

    def scores(self, question: str) -> Scores:
        one, other = (self._fused(part.scores(question)) for part in self._parts)
        return one + other


def standardised(scores: Scores) -> Scores:
    away: Scores = scores - scores.mean()
    return away / (float(scores.std()) + 1e-9)


def reciprocal(scores: Scores, constant: int = 60, depth: int = 200) -> Scores:
    order = np.argsort(-scores, kind="stable")[:depth]
    fused = np.zeros(len(scores))
    fused[order] = 1 / (constant + np.arange(1, len(order) + 1))
    return fused


@contextmanager
def baseline(encode: Encode, *, kind: str) -> Iterator[Memory]:
    match kind:
        case "dense":
            yield Dense(encode)
        case "bm25":
            yield Words()
        case _:
            yield Hybrid(encode, by_ranks=kind == "rrf")


# Other people's stores


class Mem0(Memory):
    """infer=False: each turn as it was said, and no model is asked."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    def retain(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            told = [{"role": "user", "content": turn.shown}]
            self._memory.add(told, user_id=BANK, metadata={"turn": turn.id}, infer=False)

    def recall(self, question: str, top_k: int) -> list[str]:
        found = self._memory.search(question, filters={"user_id": BANK}, top_k=top_k, threshold=0.0)
        return [hit["metadata"]["turn"] for hit in found["results"]]


class Mem0Encoder:
    """The encoder of all systems as mem0 wants it."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode

    def embed(self, text: str, memory_action: str | None = None) -> Vector:
        vector: Vector = self._encode([text])[0].tolist()
        return vector

    def embed_batch(self, texts: Sequence[str], memory_action: str = "add") -> list[Vector]:
        vectors: list[Vector] = self._encode(texts).tolist()
        return vectors


@contextmanager
def mem0(encode: Encode, *, words: bool) -> Iterator[Memory]:
    logging.getLogger("mem0").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stack.enter_context(_fastembed(Path(folder)) if words else mock.patch.dict(sys.modules, {"fastembed": None}))
        store = {"path": f"{folder}/vectors", "collection_name": BANK, "embedding_model_dims": DIMENSION, "on_disk": True}
        unused = {"provider": "openai", "config": {"api_key": "none"}}  # it wants both, and asks neither
        memory = import_module("mem0").Memory.from_config({
            "vector_store": {"provider": "qdrant", "config": store}, "embedder": unused, "llm": unused,
            "history_db_path": f"{folder}/history.db",
        })
        memory.embedding_model = Mem0Encoder(encode)
        stack.callback(memory.close)
        stack.callback(memory.vector_store.client.close)
        yield Mem0(memory)


def _fastembed(folder: Path) -> AbstractContextManager[object]:
    """What mem0 would download for its search by words is a list of stop words alone: it gets one here."""
    (folder / "english.txt").write_text("\n".join(sorted(STOP)), encoding="utf-8")
    encoder = import_module("fastembed").SparseTextEmbedding
    begin = functools.partialmethod(encoder.__init__, specific_model_path=str(folder))
    return mock.patch.object(encoder, "__init__", begin)


class LangGraph(Memory):
    def __init__(self, store: Any, put: Any) -> None:
        self._store = store
        self._put = put

    def retain(self, turns: Sequence[Turn]) -> None:
        self._store.batch([self._put((BANK,), turn.id, {"text": turn.shown}) for turn in turns])

    def recall(self, question: str, top_k: int) -> list[str]:
        return [hit.key for hit in self._store.search((BANK,), query=question, limit=top_k)]


@contextmanager
def langgraph(encode: Encode) -> Iterator[Memory]:
    def embed(texts: Sequence[str]) -> list[Vector]:
        vectors: list[Vector] = encode(texts).tolist()
        return vectors

    memory, base = import_module("langgraph.store.memory"), import_module("langgraph.store.base")
    index = {"dims": DIMENSION, "embed": embed, "fields": ["text"]}
    yield LangGraph(memory.InMemoryStore(index=index), base.PutOp)


class Chroma(Memory):
    def __init__(self, collection: Any, encode: Encode) -> None:
        self._collection = collection
        self._encode = encode

    def retain(self, turns: Sequence[Turn]) -> None:
        texts = [turn.shown for turn in turns]
        self._collection.add(ids=[turn.id for turn in turns], documents=texts, embeddings=self._encode(texts))

    def recall(self, question: str, top_k: int) -> list[str]:
        ids: list[str] = self._collection.query(query_embeddings=self._encode([question]), n_results=top_k)["ids"][0]
        return ids


@contextmanager
def chroma(encode: Encode) -> Iterator[Memory]:
    settings = import_module("chromadb.config").Settings(anonymized_telemetry=False)
    client = import_module("chromadb").EphemeralClient(settings)
    name = f"bank-{uuid4().hex}"  # clients of one process share their collections
    space = {"hnsw": {"space": "cosine"}}
    yield Chroma(client.create_collection(name, configuration=space, embedding_function=None), encode)
    client.delete_collection(name)


BM25S = ("bm25s", "Stemmer")
SYSTEMS: dict[str, System] = {
    "consolidator": System(
        open=consolidator,
        differs="meaning and words, their scores summed; speaker, session, position and time as fields, and terms that use "
        "them, chosen and weighed with LoCoMo in view; on disk when retain returns",
    ),
    "consolidator-plain": System(
        open=functools.partial(consolidator, plain=True),
        differs="the same engine, given no more than the others: one text, no fields",
    ),
    "consolidator+obs": System(
        open=functools.partial(consolidator, observations="rules"),
        differs="the same engine after consolidation by rules; a hit on an observation counts as its evidence, a place each; "
        "consolidation is not in retain's time",
    ),
    "consolidator+gold": System(
        open=functools.partial(consolidator, observations="gold"),
        differs="the same engine with LoCoMo's own observations imported: what good consolidation is worth",
    ),
    "mem0": System(
        open=functools.partial(mem0, words=True), needs=("mem0", "fastembed"),
        differs="infer=False; meaning, plus BM25 by fastembed with our stop words, as it would download its own; spaCy's "
        "lemmas not installed; embedded Qdrant, history in SQLite, one turn a call; on disk when add returns",
    ),
    "mem0-dense": System(
        open=functools.partial(mem0, words=False), needs=("mem0",),
        differs="the same without fastembed, as mem0ai alone installs: meaning only",
    ),
    "langgraph": System(
        open=langgraph, needs=("langgraph",), differs="InMemoryStore; meaning only, exact; nothing on disk",
    ),
    "chroma": System(
        open=chroma, needs=("chromadb",), differs="EphemeralClient; meaning only, HNSW with its defaults; nothing on disk",
    ),
    "dense": System(open=functools.partial(baseline, kind="dense"), differs="exact cosine in numpy; nothing on disk"),
    "bm25": System(
        open=functools.partial(baseline, kind="bm25"), needs=BM25S,
        differs="bm25s, k1 1.2, b 0.5, Snowball stems, our stop words, chosen on LoCoMo too; built anew each "
        "session; nothing on disk",
    ),
    "hybrid-rrf": System(
        open=functools.partial(baseline, kind="rrf"), needs=BM25S,
        differs="dense and bm25 by reciprocal ranks, k = 60, 200 of each; nothing on disk",
    ),
    "hybrid-z": System(
        open=functools.partial(baseline, kind="z"), needs=BM25S,
        differs="dense and bm25, their z-scores summed; nothing on disk",
    ),
}
