"""What rested on a session that was forgotten is told anew from the quotes of the others."""

from __future__ import annotations

from typing import Any

import pytest

from consolidator.engine import Bank
from consolidator.errors import ModelUnavailable
from consolidator.testing import ScriptedChatModel
from consolidator.testing.models import ChatRequest
from tests.conftest import Open
from tests.unit.test_harvest import PORT, fixing, item, session, talk

SAID = "The tests of shop talk to Postgres on port 5433, as compose.yaml says."


class Reader:
    """Says the same of every session; what is quoted again it reads by itself."""

    def __init__(self, *again: Any) -> None:
        self.again = list(again)
        self.harvesting = True

    def __call__(self, request: ChatRequest) -> Any:
        return {"items": [item(PORT, 0)]} if self.harvesting else self.again.pop(0)


async def told_twice(bank: Bank, reader: Reader) -> None:
    await bank.harvest(session("a", talk(f"{SAID} I looked it up.", "Good.")))
    await bank.harvest(session("b", talk(f"{SAID} It is so.", "Fine.")))
    (shared,) = await bank.knowledge()
    assert shared.observation.proof_count == 2
    reader.harvesting = False
    receipt = await bank.forget(source="session/a")
    assert (await bank.verify(receipt)).ok
    assert await bank.knowledge() == []


async def test_a_fact_of_two_sessions_survives_the_one_that_worded_it(open_engine: Open) -> None:
    reader = Reader({"items": [item("Postgres of shop listens on 5433.", 0, confidence=0.5)]})
    chat = ScriptedChatModel(reader)
    async with open_engine(chat=chat) as engine:
        bank = engine.bank("alice")
        await told_twice(bank, reader)
        report = await bank.consolidate()
        assert (report.created, report.calls) == (1, 1)
        (again,) = await bank.knowledge()
        told = again.observation
        assert (told.text, told.category, told.confidence) == ("Postgres of shop listens on 5433.", "fact", 0.5)
        assert {e.source for e in told.evidence} == {"session/b"}
        assert "I looked it up" not in chat.requests[-1].text
        assert '"role": "user"' in chat.requests[-1].text
        assert await bank.check() == []


async def test_what_a_quote_shows_no_more_by_itself_is_left_at_that(open_engine: Open) -> None:
    reader = Reader({"items": []})
    async with open_engine(chat=ScriptedChatModel(reader)) as engine:
        bank = engine.bank("alice")
        await told_twice(bank, reader)
        report = await bank.consolidate()
        assert (report.created, report.nothing_durable, (await bank.stats()).pending) == (0, 1, 0)
        assert await bank.check() == []


@pytest.mark.parametrize("reply", [ModelUnavailable("down"), "no JSON"])
async def test_a_model_that_fails_loses_no_quote(open_engine: Open, reply: Any) -> None:
    reader = Reader(reply, reply)
    async with open_engine(chat=ScriptedChatModel(reader)) as engine:
        bank = engine.bank("alice")
        await told_twice(bank, reader)
        if isinstance(reply, str):
            assert (await bank.consolidate()).left == 1
        else:
            with pytest.raises(ModelUnavailable):
                await bank.consolidate()
        assert (await bank.stats()).pending == 1


async def test_without_a_model_the_rules_read_them(open_engine: Open) -> None:
    async with open_engine() as engine:
        bank = engine.bank("alice")
        first = await bank.harvest(session("a", fixing()))
        assert sum(first.items.values()) == 1
        await bank.harvest(session("b", fixing()))
        (shared,) = await bank.knowledge(archived=True)
        assert shared.observation.proof_count == 2
        await bank.forget(source="session/a")
        await bank.consolidate()
        assert (await bank.stats()).pending == 0
        assert all({e.source for e in k.observation.evidence} == {"session/b"} for k in await bank.knowledge(archived=True))
        assert await bank.check() == []


async def test_an_error_and_its_fix_stay_with_the_session_that_is_left(open_engine: Open) -> None:
    async with open_engine() as engine:
        bank = engine.bank("alice")
        for name in ("a", "b"):
            await bank.harvest(session(name, fixing()))
        (before,) = await bank.knowledge(archived=True)
        await bank.forget(source="session/a")
        report = await bank.consolidate()
        (after,) = await bank.knowledge(archived=True)
        assert report.created == 1
        assert (after.observation.text, after.category) == (before.observation.text, "pitfall")
        assert {e.source for e in after.observation.evidence} == {"session/b"}
