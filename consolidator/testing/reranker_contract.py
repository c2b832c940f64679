"""What every re-ranker promises, as tests. Inherit the class and give it the fixture `reranker`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from consolidator.errors import RerankerUnavailable
from consolidator.ports import Reranker

QUESTION = "When did Alice move to Berlin?"
TEXTS = (
    "Bob prefers green tea to coffee.",
    "Alice moved from Lisbon to Berlin in March.",
    "The deployment failed because the disk was full.",
)
ANSWER = TEXTS[1]


def assert_near(left: Sequence[float], right: Sequence[float]) -> None:
    """Equal but for the rounding that comes with another composition of the batch."""
    assert left == pytest.approx(right, rel=1e-3, abs=1e-4)


class RerankerContract:
    async def test_it_has_a_name(self, reranker: Reranker) -> None:
        assert reranker.name

    async def test_a_finite_number_for_each_text(self, reranker: Reranker) -> None:
        scores = await reranker.rerank(QUESTION, TEXTS)
        assert len(scores) == len(TEXTS)
        assert all(type(score) is float and math.isfinite(score) for score in scores)

    async def test_what_answers_is_higher_than_the_rest(self, reranker: Reranker) -> None:
        scores = dict(zip(TEXTS, await reranker.rerank(QUESTION, TEXTS), strict=True))
        assert max(scores, key=lambda text: scores[text]) == ANSWER

    async def test_scores_come_in_the_order_of_the_texts(self, reranker: Reranker) -> None:
        forwards = await reranker.rerank(QUESTION, TEXTS)
        assert_near(forwards, (await reranker.rerank(QUESTION, TEXTS[::-1]))[::-1])

    async def test_no_texts_give_no_scores(self, reranker: Reranker) -> None:
        assert await reranker.rerank(QUESTION, []) == []

    @pytest.mark.parametrize("query", [QUESTION, "?", " ", "日本語", "\ud800", "word " * 3000], ids=range(6))
    async def test_any_text_has_a_score_for_any_question(self, reranker: Reranker, query: str) -> None:
        odd = ["", " ", "\n", "日本語のテキスト", "a\x00b", "🙂" * 50, "\ud800", "word " * 3000]
        scores = await reranker.rerank(query, odd)
        assert len(scores) == len(odd)
        assert all(map(math.isfinite, scores))

    async def test_more_texts_than_a_batch(self, reranker: Reranker) -> None:
        texts = [f"note {number}" for number in range(70)] + [ANSWER]
        scores = await reranker.rerank(QUESTION, texts)
        assert len(scores) == len(texts)
        assert max(scores) == scores[-1]

    async def test_calls_at_the_same_time_get_their_own_scores(self, reranker: Reranker) -> None:
        calls = [[*TEXTS[start:], f"call {start}"] for start in range(3)] * 4
        answers = await asyncio.gather(*(reranker.rerank(QUESTION, call) for call in calls))
        for call, answer in zip(calls, answers, strict=True):
            assert_near(answer, await reranker.rerank(QUESTION, call))

    async def test_a_cancelled_call_harms_no_other(self, reranker: Reranker) -> None:
        given_up = asyncio.create_task(reranker.rerank("never mind", TEXTS))
        wanted = asyncio.create_task(reranker.rerank(QUESTION, TEXTS))
        await asyncio.sleep(0)
        given_up.cancel()
        assert_near(await wanted, await reranker.rerank(QUESTION, TEXTS))

    async def test_arguments_stay_as_they_were(self, reranker: Reranker) -> None:
        texts = list(TEXTS)
        (await reranker.rerank(QUESTION, texts)).clear()
        assert texts == list(TEXTS)
        assert len(await reranker.rerank(QUESTION, texts)) == len(TEXTS)

    async def test_closed_it_says_so(self, reranker: Reranker) -> None:
        await reranker.close()
        await reranker.close()
        with pytest.raises(RerankerUnavailable):
            await reranker.rerank(QUESTION, TEXTS)
