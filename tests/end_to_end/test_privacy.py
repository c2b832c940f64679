"""What the README says of privacy: logs hold no memory text, and nothing is sent anywhere that was not configured."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest

from consolidator.errors import BadReply
from consolidator.testing import ScriptedProposer
from consolidator.testing.proposers import word_for_word
from tests.conftest import Open

CANARY = "zanzibarquux"


@pytest.fixture
def store_kind() -> str:
    return "edge"


async def a_whole_round(open_engine: Open, script: ScriptedProposer) -> None:
    """Retain, fail once, consolidate, recall, forget: with the canary in every text that goes in."""
    async with open_engine() as engine:
        bank = engine.bank("alice")
        await bank.retain([f"{CANARY} lives in Lisbon.", f"{CANARY} paints."], source=f"chat-{CANARY}", speaker=CANARY)
        script.answer_with([BadReply("not understood", reply=CANARY), word_for_word, word_for_word])
        await bank.consolidate()
        assert await bank.recall(f"Where does {CANARY} live?", explain=True)
        receipt = await bank.forget(source=f"chat-{CANARY}")
        assert (await bank.verify(receipt)).ok


async def test_no_log_line_holds_memory_text(
    open_engine: Open, script: ScriptedProposer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await a_whole_round(open_engine, script)
    ours = [record for record in caplog.records if record.name.startswith("consolidator")]
    assert ours, "nothing was logged: this test would see nothing"
    assert not [record for record in caplog.records if CANARY in repr(record.__dict__) or CANARY in record.getMessage()]


async def test_nothing_is_sent_anywhere(open_engine: Open, script: ScriptedProposer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("something tried to reach the network")

    for verb in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, verb, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    await a_whole_round(open_engine, script)
