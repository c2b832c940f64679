"""What every log-probability model promises, as tests. Inherit the class and give it the fixture `logprob_model`, not verified.

A model that reads more than 20,000 tokens is not tried with a text that is longer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from consolidator.errors import ContextTooLong, ScoringError
from consolidator.ports import LogprobModel
from consolidator.transcripts import Scored, Segment, Target, Turn

MEMORY = "Alice moved from Lisbon to Berlin in March."
OTHER = "Bob prefers green tea to coffee."
QUESTION = "Where does Alice live?"
ANSWER = "I remember that Alice moved from Lisbon to Berlin in March."


def turn(*texts: str) -> Turn:
    return Turn(role="user", segments=tuple(Segment(text=text + "\n") for text in texts))


def target(*memories: str, response: str = ANSWER) -> Target:
    return Target(context=(turn(*memories, QUESTION),), response=response)


async def numbers(model: LogprobModel, *targets: Target) -> list[Scored]:
    outcomes = await model.score(targets)
    assert all(isinstance(outcome, Scored) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, Scored)]


def assert_near(left: Sequence[Scored], right: Sequence[Scored]) -> None:
    """Equal but for the rounding that comes with another composition of the batch."""
    assert [one.tokens for one in left] == [one.tokens for one in right]
    assert [one.total for one in left] == pytest.approx([one.total for one in right], rel=1e-3, abs=0.05)


class LogprobModelContract:
    async def test_it_proves_itself_and_says_what_it_can(self, logprob_model: LogprobModel) -> None:
        ability = await logprob_model.verify()
        assert ability.unit
        assert ability.max_context_tokens > 0
        assert ability.max_batch > 0

    async def test_the_unit_is_stable(self, logprob_model: LogprobModel) -> None:
        assert (await logprob_model.verify()).unit == (await logprob_model.verify()).unit

    async def test_nothing_is_scored_before_the_proof(self, logprob_model: LogprobModel) -> None:
        with pytest.raises(ScoringError):
            await logprob_model.score([target(MEMORY)])

    async def test_a_finite_number_for_each_target(self, logprob_model: LogprobModel) -> None:
        await logprob_model.verify()
        for one in await numbers(logprob_model, target(MEMORY), target(OTHER), target(MEMORY, OTHER)):
            assert math.isfinite(one.total)
            assert one.total <= 1e-6 * one.tokens
            assert one.tokens > 0
            if one.logprobs is not None:
                assert len(one.logprobs) == one.tokens
                assert math.fsum(one.logprobs) == pytest.approx(one.total, abs=1e-6)
            assert one.ids is None or len(one.ids) == one.tokens

    async def test_no_targets_give_no_numbers(self, logprob_model: LogprobModel) -> None:
        await logprob_model.verify()
        assert await logprob_model.score([]) == []

    async def test_numbers_come_in_the_order_of_the_targets(self, logprob_model: LogprobModel) -> None:
        await logprob_model.verify()
        targets = [target(MEMORY), target(OTHER), target(MEMORY, response=OTHER), target(OTHER, response=MEMORY)]
        forwards = await numbers(logprob_model, *targets)
        assert_near(forwards, (await numbers(logprob_model, *targets[::-1]))[::-1])

    async def test_more_targets_than_a_batch(self, logprob_model: LogprobModel) -> None:
        ability = await logprob_model.verify()
        targets = [target(OTHER)] * ability.max_batch + [target(MEMORY)]
        found = await numbers(logprob_model, *targets)
        assert len(found) == len(targets)
        assert max(found, key=lambda one: one.total) is found[-1]

    async def test_the_same_again_gives_the_same_numbers(self, logprob_model: LogprobModel) -> None:
        await logprob_model.verify()
        targets = [target(MEMORY), target(OTHER)]
        assert_near(await numbers(logprob_model, *targets), await numbers(logprob_model, *targets))

    async def test_what_a_response_repeats_makes_it_likelier(self, logprob_model: LogprobModel) -> None:
        await logprob_model.verify()
        shown, hidden = await numbers(logprob_model, target(OTHER, MEMORY), target(OTHER))
        assert (shown.tokens, shown.ids) == (hidden.tokens, hidden.ids)
        assert (shown.total - hidden.total) / shown.tokens > 0.1

    async def test_what_is_too_long_fails_alone(self, logprob_model: LogprobModel) -> None:
        ability = await logprob_model.verify()
        if ability.max_context_tokens > 20_000:
            pytest.skip("reads too much to be tried")
        long = target("word " * (ability.max_context_tokens + 100))
        before, failed, after = await logprob_model.score([target(MEMORY), long, target(OTHER)])
        assert isinstance(failed, ContextTooLong)
        assert isinstance(before, Scored)
        assert isinstance(after, Scored)

    async def test_an_empty_response_keeps_its_place(self, logprob_model: LogprobModel) -> None:
        await logprob_model.verify()
        first, empty, last = await numbers(logprob_model, target(MEMORY), target(MEMORY, response=""), target(OTHER))
        assert (empty.total, empty.tokens) == (0.0, 0)
        assert first.tokens > 0
        assert last.tokens > 0

    async def test_any_text_has_a_number_or_an_error_in_its_place(self, logprob_model: LogprobModel) -> None:
        await logprob_model.verify()
        odd = [" ", "\n", "日本語", "a\x00b", "🙂" * 9, "\ud800", "assistant\n", "<|im_end|>\n<|im_start|>assistant\n"]
        targets = [target(text) for text in odd] + [target(MEMORY, response=text) for text in odd] + [target(MEMORY)]
        outcomes = await logprob_model.score(targets)
        assert len(outcomes) == len(targets)
        assert all(isinstance(outcome, (Scored, ScoringError)) for outcome in outcomes)
        assert_near([one for one in outcomes[-1:] if isinstance(one, Scored)], await numbers(logprob_model, target(MEMORY)))

    async def test_calls_at_the_same_time_get_their_own_numbers(self, logprob_model: LogprobModel) -> None:
        await logprob_model.verify()
        calls = [(target(MEMORY),), (target(OTHER), target(MEMORY, OTHER)), (target(MEMORY, response=OTHER),)]
        found = await asyncio.gather(*(numbers(logprob_model, *call) for call in calls))
        for call, together in zip(calls, found, strict=True):
            assert_near(together, await numbers(logprob_model, *call))

    async def test_a_cancelled_call_harms_no_other(self, logprob_model: LogprobModel) -> None:
        await logprob_model.verify()
        given_up = asyncio.create_task(logprob_model.score([target(OTHER)] * 4))
        wanted = asyncio.create_task(numbers(logprob_model, target(MEMORY)))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert given_up.cancelled()
        assert_near(await wanted, await numbers(logprob_model, target(MEMORY)))

    async def test_turns_are_counted_one_by_one(self, logprob_model: LogprobModel) -> None:
        await logprob_model.verify()
        short, long, again = await logprob_model.count_tokens([turn(MEMORY), turn(MEMORY, OTHER, QUESTION), turn(MEMORY)])
        assert 0 < short < long
        assert short == again
        assert await logprob_model.count_tokens([]) == []

    async def test_arguments_stay_as_they_were(self, logprob_model: LogprobModel) -> None:
        await logprob_model.verify()
        targets = [target(MEMORY), target(OTHER)]
        (await logprob_model.score(targets)).clear()
        assert targets == [target(MEMORY), target(OTHER)]
        assert len(await logprob_model.score(targets)) == 2

    async def test_closed_it_says_so(self, logprob_model: LogprobModel) -> None:
        await logprob_model.verify()
        await logprob_model.close()
        await logprob_model.close()
        with pytest.raises(ScoringError):
            await logprob_model.score([target(MEMORY)])
        with pytest.raises(ScoringError):
            await logprob_model.verify()
