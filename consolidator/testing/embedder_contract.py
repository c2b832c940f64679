"""What every embedder promises, as tests. Inherit the class and give it the fixture `embedder`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from consolidator.models import Vector
from consolidator.ports import Embedder

TEXTS = (
    "Alice moved from Lisbon to Berlin in March.",
    "The deployment failed because the disk was full.",
    "Bob prefers green tea to coffee.",
)
NEAR = "In March Alice moved to Berlin."


def cosine(left: Vector, right: Vector) -> float:
    lengths = math.hypot(*left) * math.hypot(*right)
    return sum(a * b for a, b in zip(left, right, strict=True)) / lengths


def assert_same(left: Sequence[Vector], right: Sequence[Vector]) -> None:
    """Equal but for the rounding that comes with another composition of the batch."""
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) < 1e-5


class EmbedderContract:
    async def test_it_says_which_vectors_it_makes(self, embedder: Embedder) -> None:
        assert embedder.name
        assert embedder.dimension > 1

    async def test_vectors_are_finite_numbers_of_the_dimension(self, embedder: Embedder) -> None:
        for vector in await embedder.embed(TEXTS):
            assert len(vector) == embedder.dimension
            assert all(type(number) is float and math.isfinite(number) for number in vector)
            assert abs(math.hypot(*vector) - 1) < 1e-3

    async def test_vectors_come_in_the_order_of_the_texts(self, embedder: Embedder) -> None:
        forwards = await embedder.embed(TEXTS)
        backwards = await embedder.embed(TEXTS[::-1])
        assert_same(forwards, backwards[::-1])

    async def test_a_text_has_one_vector_alone_and_among_others(self, embedder: Embedder) -> None:
        together = await embedder.embed([*TEXTS, TEXTS[0]])
        alone = [vector for text in TEXTS for vector in await embedder.embed([text])]
        assert_same(together, [*alone, alone[0]])

    async def test_texts_that_say_the_same_are_near(self, embedder: Embedder) -> None:
        asked, *others = await embedder.embed([NEAR, *TEXTS])
        nearness = [cosine(asked, other) for other in others]
        assert nearness[0] > max(nearness[1:]) + 0.2

    async def test_no_texts_give_no_vectors(self, embedder: Embedder) -> None:
        assert await embedder.embed([]) == []

    async def test_any_text_has_a_vector(self, embedder: Embedder) -> None:
        odd = ["", " ", "\n", "日本語のテキスト", "a\x00b", "🙂" * 50, "\ud800", "word " * 3000]
        vectors = await embedder.embed(odd)
        assert [len(vector) for vector in vectors] == [embedder.dimension] * len(odd)
        assert all(math.isfinite(sum(vector)) for vector in vectors)

    async def test_more_texts_than_a_batch(self, embedder: Embedder) -> None:
        texts = [f"note {number} about {TEXTS[number % 3]}" for number in range(150)]
        vectors = await embedder.embed(texts)
        assert len(vectors) == len(texts)
        assert_same([vectors[149]], await embedder.embed([texts[149]]))

    async def test_calls_at_the_same_time_get_their_own_vectors(self, embedder: Embedder) -> None:
        calls = [[*TEXTS[start:], f"call {start}"] for start in range(3)] * 4
        answers = await asyncio.gather(*(embedder.embed(call) for call in calls))
        for call, answer in zip(calls, answers, strict=True):
            assert_same(answer, await embedder.embed(call))

    async def test_a_cancelled_call_harms_no_other(self, embedder: Embedder) -> None:
        given_up = asyncio.create_task(embedder.embed(["never mind", *TEXTS]))
        wanted = asyncio.create_task(embedder.embed(TEXTS))
        await asyncio.sleep(0)
        given_up.cancel()
        assert_same(await wanted, await embedder.embed(TEXTS))

    async def test_arguments_stay_as_they_were(self, embedder: Embedder) -> None:
        texts = list(TEXTS)
        for vector in await embedder.embed(texts):
            vector.clear()
        assert texts == list(TEXTS)
        assert [len(vector) for vector in await embedder.embed(texts)] == [embedder.dimension] * 3
