"""The ledger's contract, on SQLite in a file and in memory."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consolidator.errors import InvalidSettings, LedgerError, NewerFormat
from consolidator.ports import Ledger
from consolidator.testing.ledger_contract import BANK, LedgerContract, change, intent, observation
from consolidator_providers.ledger import open_ledger


@pytest.fixture(params=["file", "memory"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    opened = await open_ledger(url=f"sqlite:///{tmp_path / 'ledger.db'}" if request.param == "file" else "sqlite://")
    yield opened
    await opened.close()


class TestSqlite(LedgerContract):
    pass


async def test_what_was_committed_is_there_after_opening_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    first = await open_ledger(url=url)
    key = await first.bank_key(BANK)
    lease = await first.claim(BANK, "one", 60)
    assert lease is not None
    plan = intent("i1", change(observation()))
    await first.commit(plan, lease)
    await first.close()
    second = await open_ledger(url=url)
    assert await second.bank_key(BANK) == key
    assert await second.unfinished(BANK) == [plan]
    await second.close()


async def test_two_ledgers_on_one_file_never_hold_a_bank_together(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledgers = [await open_ledger(url=url) for _ in range(4)]
    claimed = await asyncio.gather(*(ledger.claim(BANK, f"owner {n}", 60) for n, ledger in enumerate(ledgers)))
    assert sum(lease is not None for lease in claimed) == 1
    for ledger in ledgers:
        await ledger.close()


async def test_a_newer_format_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await (await open_ledger(url=f"sqlite:///{path}")).close()
    with sqlite3.connect(path) as db:
        db.execute("update meta set value = '99'")
    db.close()
    with pytest.raises(NewerFormat, match="format 99, this version knows 1"):
        await open_ledger(url=f"sqlite:///{path}")


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("this is no database, but somebody's notes about something " * 40)
    with pytest.raises(LedgerError, match="database failed"):
        await open_ledger(url=f"sqlite:///{path}")
    assert path.read_text().startswith("this is no database")


async def test_another_database_is_refused_with_what_would_be_right() -> None:
    with pytest.raises(InvalidSettings, match="sqlite:///PATH"):
        await open_ledger(url="postgresql://localhost/x")
