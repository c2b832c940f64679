"""Re-ranking: what a model's scores do to the order, and that recall never depends on it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consolidator.config import Settings, load
from consolidator.engine import Engine
from consolidator.errors import InvalidSettings, RerankerUnavailable
from consolidator.models import Hit
from consolidator.ports import Reranker
from consolidator.ranking import Candidate, Ranked, RecallWeights, rank, score_of
from consolidator.registry import open_parts, open_reranker, provider
from consolidator.reranking import RerankPolicy, rerank_head, reranked
from consolidator.testing import HashEmbedder, ManualClock, OverlapReranker, ScriptedProposer

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TOLD = (
    "Alice moved to Berlin in spring.", "Berlin is large.", "Alice has a garden in Berlin.", "Bob visits Berlin each spring.",
    "Spring in Berlin is cold.", "Alice likes green tea.",
)
finite = st.floats(allow_nan=False, allow_infinity=False)


class Judge:
    """Gives prepared scores to texts that it knows, 0 to others; fails with what it is told to."""

    name = "judge"

    def __init__(self, likes: dict[str, float] | None = None, *, fails: Exception | None = None) -> None:
        self._likes = likes or {}
        self._fails = fails

    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        if self._fails:
            raise self._fails
        return [self._likes.get(text, 0.0) for text in texts]

    async def close(self) -> None: ...


class Blocked(Judge):
    """Never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = False

    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return []


class Broken(Judge):
    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self._scores = scores

    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        return self._scores


def ranking(count: int, *, confidence: float = 0.0) -> list[Ranked]:
    weights = RecallWeights(floor=-1, confidence=confidence)
    candidates = [
        Candidate(
            id=f"id{n:02}", kind="observation" if n % 3 else "memory", text=f"text {n}", time=NOW - timedelta(days=n),
            dense=0.9 - 0.05 * n, words=float(n % 4), source="s", sequence=n, confidence=(n % 10) / 10,
            speaker="Bob" if n % 2 else None,
        )
        for n in range(count)
    ]
    return rank(candidates, weights, about=None, now=NOW)


def order(ranked: Sequence[Ranked]) -> list[str]:
    return [r.candidate.id for r in ranked]


def judged(ranked: Sequence[Ranked]) -> dict[str, float]:
    return {r.candidate.id: share for r in ranked for name, share in r.terms if name == "reranker"}


# The blend


@given(
    count=st.integers(2, 12), scores=st.lists(finite, min_size=1, max_size=12), weight=st.floats(0, 10),
    confidence=st.floats(0, 1),
)
@settings(deadline=None)
def test_every_explanation_adds_up_on_any_scale(count: int, scores: list[float], weight: float, confidence: float) -> None:
    before = ranking(count, confidence=confidence)
    told = scores[:count]
    after = reranked(before, told, weight)
    assert sorted(order(after)) == sorted(order(before))
    assert all(r.score == score_of(r.explanation) and math.isfinite(r.score) for r in after)
    assert [r.score for r in after] == sorted((r.score for r in after), reverse=True)
    shares = judged(after)
    assert shares.keys() <= set(order(before)[: len(told)])
    assert math.fsum(shares.values()) == pytest.approx(0, abs=1e-6 * max(1.0, weight))
    assert all(abs(share) <= weight * math.sqrt(len(told)) + 1e-9 for share in shares.values())


@given(scores=st.lists(st.integers(-100, 100), min_size=8, max_size=8), scale=st.sampled_from([1e-300, 1e-9, 1e9, 1e300]))
@settings(deadline=None)
def test_the_scale_of_the_scores_does_not_matter(scores: list[int], scale: float) -> None:
    plain = judged(reranked(ranking(8), [float(score) for score in scores], 1.0))
    scaled = judged(reranked(ranking(8), [score * scale for score in scores], 1.0))
    assert all(scaled.get(id, 0) == pytest.approx(plain.get(id, 0), abs=1e-9) for id in plain.keys() | scaled.keys())


def test_the_ranking_that_is_given_stays_as_it_was() -> None:
    before = ranking(6)
    told = [(r.candidate.id, r.score, list(r.terms)) for r in before]
    reranked(before, [float(n) for n in range(6)], 3.0)
    assert [(r.candidate.id, r.score, list(r.terms)) for r in before] == told


def test_a_model_that_passes_everything_changes_nothing() -> None:
    before = ranking(6)
    assert reranked(before, [0.7] * 6, 5.0) == before


def test_what_was_not_read_is_neutral() -> None:
    before = ranking(8)
    after = reranked(before, [1.0, -9.0, 1.0], 2.0)
    assert judged(after).keys() == set(order(before)[:3])
    tail = [r for r in after if r.candidate.id in order(before)[3:]]
    assert [(r.candidate.id, r.score) for r in tail] == [(r.candidate.id, r.score) for r in before[3:]]
    assert order(after).index(order(before)[1]) > 2


# The bounded call


async def test_the_head_alone_is_read_with_its_speakers() -> None:
    reranker, before = OverlapReranker(), ranking(9)
    await rerank_head(reranker, RerankPolicy(top=4), "a question", before)
    ((query, texts),) = reranker.asked
    shown = [f"Bob: {r.candidate.text}" if r.candidate.speaker else r.candidate.text for r in before[:4]]
    assert (query, list(texts)) == ("a question", shown)


@pytest.mark.parametrize(("count", "weight"), [(0, 1.0), (1, 1.0), (5, 0.0)])
async def test_where_it_can_change_nothing_it_is_not_asked(count: int, weight: float) -> None:
    reranker, before = OverlapReranker(), ranking(count)
    assert await rerank_head(reranker, RerankPolicy(weight=weight), "a question", before) == before
    assert reranker.asked == []


@pytest.mark.parametrize(("reranker", "error"), [
    (Judge(fails=RerankerUnavailable()), "RerankerUnavailable"),
    (Judge(fails=TimeoutError()), "TimeoutError"),
    (Broken([1.0, 2.0]), "RerankerUnavailable"),
    (Broken([1.0, math.nan, 2.0, 3.0, 4.0]), "RerankerUnavailable"),
    (Broken([1.0, math.inf, 2.0, 3.0, 4.0]), "RerankerUnavailable"),
    (Broken([]), "RerankerUnavailable"),
], ids=range(6))
async def test_where_it_fails_the_order_without_it_stands(
    reranker: Judge, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = ranking(5)
    with caplog.at_level(logging.WARNING, "consolidator.reranking"):
        assert await rerank_head(reranker, RerankPolicy(), "a secret question", before) == before
    (record,) = caplog.records
    assert (record.__dict__["action"], record.__dict__["error"]) == ("reranker_left_out", error)
    assert "secret" not in str(record.__dict__)


async def test_where_it_is_late_it_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    before, blocked = ranking(5), Blocked()
    assert await rerank_head(blocked, RerankPolicy(timeout=0.01), "a question", before) == before
    assert blocked.cancelled
    assert [(r.__dict__["action"], r.__dict__["error"]) for r in caplog.records] == [("reranker_left_out", "TimeoutError")]


async def test_a_recall_that_is_cancelled_is_cancelled() -> None:
    waiting = asyncio.create_task(rerank_head(Blocked(), RerankPolicy(timeout=60), "a question", ranking(5)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# Recall


async def recalled(
    folder: Path, judge: Reranker | None = None, *, told: Sequence[str] = TOLD, asked: str = "What about Berlin in spring?",
    **sections: object,
) -> list[Hit]:
    """A fresh memory of what was told, asked once."""
    given = {"folder": folder, "store": {"kind": "memory"}, "worker": {"background": False}, "recall": {"floor": -1}, **sections}
    config, clock = Settings.model_validate(given), ManualClock(NOW)
    parts = await open_parts(config, clock, embedder=HashEmbedder(), proposer=ScriptedProposer(), reranker=judge)
    engine = Engine(parts, config)
    bank = engine.bank("alice")
    for n, text in enumerate(told):
        await bank.retain(text, source="s", sequence=n)
        clock.move(timedelta(minutes=1))
    hits = await bank.recall(asked, explain=True)
    await engine.close()
    return [hit.model_copy(update={"id": hit.text, "source": None}) for hit in hits]


def terms_of(hit: Hit) -> dict[str, float]:
    assert hit.explanation is not None
    return {term.name: term.share for term in hit.explanation.terms}


async def test_off_and_failing_and_late_are_the_same_to_the_bit(tmp_path: Path) -> None:
    off = await recalled(tmp_path / "off")
    assert len(off) == len(TOLD)
    assert not any("reranker" in terms_of(hit) for hit in off)
    late = await recalled(tmp_path / "late", Blocked(), reranker={"timeout": 0.01})
    failing = await recalled(tmp_path / "failing", Judge(fails=RerankerUnavailable()))
    alike = await recalled(tmp_path / "alike", Judge())
    set_and_off = await recalled(tmp_path / "set", reranker={"provider": "none", "weight": 9.0, "top": 5})
    assert late == failing == alike == set_and_off == off


async def test_what_the_model_likes_comes_first_and_says_why(tmp_path: Path) -> None:
    off = await recalled(tmp_path / "off")
    liked = off[-1].text
    hits = await recalled(tmp_path / "on", Judge({liked: 1.0}), reranker={"weight": 5.0})
    assert hits[0].text == liked
    assert terms_of(hits[0])["reranker"] == pytest.approx(5.0 * math.sqrt(len(TOLD) - 1))
    for hit in hits:
        assert hit.explanation is not None
        assert hit.score == score_of(hit.explanation)
        assert set(terms_of(hit)) - {"reranker"} == set(terms_of(next(o for o in off if o.text == hit.text)))


async def test_no_model_brings_back_what_is_outdated(tmp_path: Path) -> None:
    told = ("Alice lives in Lisbon.", "Alice lives in Berlin.")
    judge, asked = Judge({"Alice lives in Lisbon.": 1.0}), "Where does Alice live?"
    for weight in (0.0, 10.0):
        hits = await recalled(tmp_path / str(weight), judge, told=told, asked=asked, reranker={"weight": weight})
        assert [hit.text for hit in hits] == ["Alice lives in Berlin.", "Alice lives in Lisbon."]


# Settings


async def test_none_is_the_default(tmp_path: Path) -> None:
    assert await open_reranker(load(tmp_path, env={})) is None


async def test_the_section_opens_a_provider_and_the_engine_closes_it(tmp_path: Path) -> None:
    told = {"folder": tmp_path, "store": {"kind": "memory"}, "reranker": {"provider": "overlap"}, "worker": {"background": False}}
    config = Settings.model_validate(told)
    parts = await open_parts(config, ManualClock(NOW), embedder=HashEmbedder(), proposer=ScriptedProposer())
    assert isinstance(parts.reranker, OverlapReranker)
    await Engine(parts, config).close()
    with pytest.raises(RerankerUnavailable):
        await parts.reranker.rerank("?", ["a"])


@pytest.mark.parametrize(("env", "sentence"), [
    ({"PROVIDER": "magic"}, "no reranker \"magic\"; known are cross-encoder, none, overlap"),
    ({"PROVIDER": "cross-encoder"}, "cross-encoder's folder or a name on the hub, not ''"),
])
async def test_a_wrong_provider_gets_a_sentence(tmp_path: Path, env: dict[str, str], sentence: str) -> None:
    config = load(tmp_path / "m", env={f"CONSOLIDATOR_RERANKER__{key}": value for key, value in env.items()})
    with pytest.raises(InvalidSettings, match=sentence):
        await open_parts(config, ManualClock(NOW), embedder=HashEmbedder(), proposer=ScriptedProposer())


@pytest.mark.parametrize(("text", "sentence"), [
    ("modell = 'x'", r'no setting "reranker.modell"; did you mean "reranker.model"'),
    ("top = 1", r"reranker.top: .*greater than or equal to 2"),
    ("timeout = 0", r"reranker.timeout: .*greater than 0"),
    ("timeout = nan", r"reranker.timeout"),
    ("weight = -1", r"reranker.weight: .*greater than or equal to 0"),
    ("weight = inf", r"reranker.weight: .*less than or equal to 10"),
])
def test_a_wrong_setting_gets_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "my.toml"
    path.write_text(f"[reranker]\n{text}\n")
    with pytest.raises(InvalidSettings, match=sentence):
        load(path, env={})


@pytest.mark.parametrize("name", ["cross-encoder", "overlap"])
def test_every_reranker_can_be_found(name: str) -> None:
    assert callable(provider("rerankers", name))
