"""How the engine asks its model: whether it may, and how long it waits."""

from __future__ import annotations

import asyncio

import pytest

from consolidator.errors import ModelBusy, ModelDenied, ModelUnavailable
from consolidator.proposals import Batch, Proposal
from consolidator.testing import ScriptedProposer
from consolidator.testing.proposers import word_for_word
from tests.conftest import Open


@pytest.fixture
def endpoint(script: ScriptedProposer) -> ScriptedProposer:
    script.endpoint = "http://127.0.0.1:1/v1 a-model"
    return script


async def test_after_five_failures_the_endpoint_is_left_alone_by_all_banks(open_engine: Open, endpoint: ScriptedProposer) -> None:
    endpoint.answer_with([ModelUnavailable("down")] * 5)
    async with open_engine(worker={"background": False, "at_once": 1}) as engine:
        for n in range(7):
            await engine.bank(f"b{n}").retain("Something was said here.", source="s")
        left = await engine.drain()
        assert len(endpoint.batches) == 5
        assert [s.attempts for s in sorted(left, key=lambda s: s.bank)] == [1, 1, 1, 1, 1, 0, 0]
        rested = [s.last_error for s in left if not s.attempts]
        assert all(told and told.startswith("script is left alone for 30 s: down") for told in rested)
        described = (await engine.describe())["consolidation"]
        assert described["state"].startswith("rests for ")

        endpoint.answer_with([word_for_word] * 3)  # somebody who waits is not held up, and an answer ends the rest
        assert (await engine.bank("b0").consolidate()).created == 1
        assert (await engine.describe())["consolidation"]["state"] == "in use"


async def test_a_rate_limit_makes_all_banks_of_the_endpoint_wait(open_engine: Open, endpoint: ScriptedProposer) -> None:
    endpoint.answer_with([ModelBusy("rate limit", after=17.0)])
    async with open_engine(worker={"background": False, "at_once": 1}) as engine:
        for n in range(3):
            await engine.bank(f"b{n}").retain("Something was said here.", source="s")
        left = await engine.drain()
        assert len(endpoint.batches) == 1
        assert all(s.due_in is not None and 15 < s.due_in <= 17 and s.attempts == 0 for s in left)


async def test_a_denied_key_rests_ten_minutes_unless_somebody_asks(open_engine: Open, endpoint: ScriptedProposer) -> None:
    endpoint.answer_with([ModelDenied("the key is refused")] * 2)
    async with open_engine() as engine:
        bank = engine.bank("alice")
        await bank.retain("Something was said here.", source="s")
        with pytest.raises(ModelDenied):
            await bank.consolidate()
        with pytest.raises(ModelDenied):  # the same error, not one about a rest
            await bank.consolidate()
        await engine.drain()
        assert len(endpoint.batches) == 2


async def test_an_answer_that_never_comes_is_cut_off(open_engine: Open) -> None:
    class Silent:
        name, endpoint = "silent", ""

        async def propose(self, batch: Batch) -> Proposal:
            await asyncio.Event().wait()
            raise AssertionError

        async def close(self) -> None:
            pass

    async with open_engine(proposer=Silent(), worker={"background": False, "pass_deadline": 0.05}) as engine:
        bank = engine.bank("alice")
        await bank.retain("Something was said here.", source="s")
        with pytest.raises(ModelUnavailable, match="silent gave no answer"):
            await bank.consolidate()
        assert (await bank.stats()).pending == 1
