"""Forgetting costs what it touches: no statement of it reads a whole bank. Plans of queries, not times."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import event

from consolidator.testing import ScriptedProposer
from consolidator.testing.proposers import word_for_word
from tests.conftest import Open

GROWING = ("observation", "evidence", "version", "lineage", "journal", "cites", "use", "intent", "tombstone")  # with the bank
SMALL = ("open=?", "state=?", "seq=?")  # conditions that leave few rows of a bank


@pytest.fixture
def statements() -> Iterator[dict[str, Any]]:
    """What the ledger is asked, each once, with its arguments."""
    asked: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, arguments: Any, _context: Any, many: bool) -> None:
        if not many:
            asked.setdefault(statement, arguments)

    event.listen(Database, "before_cursor_execute", note)
    yield asked
    event.remove(Database, "before_cursor_execute", note)


def wide(step: str) -> bool:
    """Whether a step of a query plan reads a table, or all of a bank's rows in one that grows with it."""
    table = step.split()[1] if step.split()[0] in ("SCAN", "SEARCH") else ""
    by_bank = "_by_bank" in step and not any(narrow in step for narrow in SMALL)
    return table in GROWING and (step.startswith("SCAN") or by_bank)


async def test_no_statement_of_an_erasure_reads_a_whole_bank(
    open_engine: Open, script: ScriptedProposer, statements: dict[str, Any], tmp_path: Path
) -> None:
    async with open_engine() as engine:
        bank = engine.bank("alice")
        await bank.retain([f"Alice owns object {n}." for n in range(20)], source="secret")
        await bank.retain([f"Bob owns object {n}." for n in range(40)], source="s")
        script.answer_with([word_for_word] * 20)
        await bank.consolidate()
        statements.clear()
        await bank.forget(source="secret")
    database = sqlite3.connect(tmp_path / "memory" / "ledger.db")
    plans = {s: [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {s}", given)] for s, given in statements.items()
             if s.startswith(("SELECT", "UPDATE", "DELETE"))}
    database.close()
    assert len(plans) > 20
    assert {s: steps for s, steps in plans.items() if any(map(wide, steps))} == {}
