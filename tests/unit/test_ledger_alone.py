"""The ledger that remembers tombstones: what was erased through it is known at once, whatever happens to whoever erased it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consolidator.models import Receipt
from consolidator_providers import ledger_alone
from consolidator_providers.ledger import SqlLedger
from consolidator_providers.ledger_alone import AloneLedger, open_alone_ledger

BANK = "alice"
ONE, TWO = "5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11", "6f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b12"


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[AloneLedger]:
    opened = await open_alone_ledger(url=f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    await opened.close()


def receipt(*memories: str, id: str = "r1", bank: str = BANK) -> Receipt:
    return Receipt.model_validate({
        "id": id, "bank": bank, "asked": {}, "at": datetime(2026, 1, 1, tzinfo=UTC), "state": "accepted", "memories": memories,
        "sources": (),
    })


async def entombed(ledger: AloneLedger, **which: Any) -> list[str]:
    return [stone.memory_id for stone in await ledger.tombstones(BANK, **which)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The banks whose tombstones the database was asked for."""
    asked, original = list[str](), SqlLedger.tombstones

    async def counted(self: SqlLedger, bank: str, **which: Any) -> Any:
        asked.append(bank)
        return await original(self, bank, **which)

    monkeypatch.setattr(SqlLedger, "tombstones", counted)
    return asked


async def test_what_nobody_erases_is_read_once(ledger: AloneLedger, reads: list[str]) -> None:
    for _ in range(3):
        assert await entombed(ledger, open_only=True) == await entombed(ledger, ids=[ONE]) == []
    assert reads == [BANK]


async def test_an_erasure_is_known_at_once_and_so_is_its_end(ledger: AloneLedger, reads: list[str]) -> None:
    assert await entombed(ledger) == []
    await ledger.entomb(receipt(ONE, TWO), [ONE, TWO])
    assert await entombed(ledger, open_only=True) == [ONE, TWO]
    assert await entombed(ledger, ids=[TWO, "7f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b13"]) == [TWO]
    await ledger.settle(receipt(ONE, TWO))
    assert await entombed(ledger, open_only=True) == []
    assert await entombed(ledger, ids=[ONE]) == [ONE]
    assert len(reads) == 3


async def test_whoever_gives_up_on_an_erasure_leaves_no_outdated_answer(
    ledger: AloneLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, original = asyncio.Event(), SqlLedger.entomb

    async def late(self: SqlLedger, receipt: Receipt, ids: Any) -> None:
        await go.wait()
        await original(self, receipt, ids)

    monkeypatch.setattr(SqlLedger, "entomb", late)
    erasing = asyncio.create_task(ledger.entomb(receipt(ONE), [ONE]))
    await asyncio.sleep(0)
    erasing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await erasing
    assert await entombed(ledger) == []  # remembered, as it is true
    go.set()
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    assert await entombed(ledger) == [ONE]


async def test_what_was_read_across_an_erasure_is_not_remembered(
    ledger: AloneLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, go, original = asyncio.Event(), asyncio.Event(), SqlLedger.tombstones

    async def slow(self: SqlLedger, bank: str, **which: Any) -> Any:
        found = await original(self, bank, **which)
        read.set()
        await go.wait()
        return found

    monkeypatch.setattr(SqlLedger, "tombstones", slow)
    reading = asyncio.create_task(entombed(ledger))
    await read.wait()
    await ledger.entomb(receipt(ONE), [ONE])
    go.set()
    assert await reading == []  # begun before
    assert await entombed(ledger) == [ONE]


async def test_what_is_too_much_to_remember_is_read(
    ledger: AloneLedger, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_alone, "STONES", 1)
    await ledger.entomb(receipt(ONE, TWO), [ONE, TWO])
    assert await entombed(ledger, ids=[TWO]) == [TWO]
    assert await entombed(ledger, open_only=True) == [ONE, TWO]


async def test_only_so_many_banks_are_remembered(
    ledger: AloneLedger, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_alone, "BANKS", 2)
    for bank in ("a", "b", "c", "c", "b", "a"):
        await ledger.tombstones(bank)
    assert reads == ["a", "b", "c", "a"]
