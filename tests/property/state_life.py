"""A life of the stateful test: one folder with two banks, in a process that dies and begins again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import event, note
from hypothesis.stateful import RuleBasedStateMachine

from tests.property.state_model import Known, Row
from tests.property.state_process import Process
from tests.sparse import copy

BANKS = ("alice", "bob")
BEGIN = datetime(2026, 6, 1, 9, tzinfo=UTC)


class Living(RuleBasedStateMachine):
    """Asks the process, and looks at what it answers."""

    def __init__(self, process: Process, template: Path, folder: Path) -> None:
        super().__init__()
        copy(template, folder)
        self._process, self._folder = process, folder
        self._known = {bank: Known(bank) for bank in BANKS}
        self._observations: dict[str, list[str]] = {bank: [] for bank in BANKS}
        self._plans: dict[str, list[str]] = {bank: [] for bank in BANKS}
        self._at = self._latest = BEGIN
        self._trouble: list[str] = []
        self._down = False
        self._open()

    # the life and its deaths

    def _open(self) -> None:
        answer = self._process.ask(do="open", folder=str(self._folder), at=self._at.isoformat(), look=BANKS)
        self._trouble, self._down = [], False
        self._look(answer)
        for known in self._known.values():
            known.suspect = True

    def _ask(self, do: str, *, look: Iterable[str] = (), **order: Any) -> Row | None:
        """The answer; None where the life ended over it, and another has begun."""
        answer = self._process.ask(do=do, look=list(look), **order)
        if "ended" in answer:
            event(f"killed in {do}")
            note(f"killed in {do}")
            self._open()
            return None
        self._look(answer)
        return answer

    def _look(self, answer: Row) -> None:
        for bank, seen in answer["seen"].items():
            problems = list(self._known[bank].problems(seen))
            self._observations[bank] = [o["id"] for o in seen["observations"]]
            self._plans[bank] = list(dict.fromkeys(entry["intent"] for entry in seen["journal"]))
            assert not problems, f"{bank}: {problems}"

    def _of(self, bank: str, do: str, **order: Any) -> Row | None:
        return self._ask(do, bank=bank, look=(bank,), **order)

    def _chosen(self, bank: str, numbers: Iterable[int]) -> list[str]:
        ids = list(self._known[bank].kept)
        return list(dict.fromkeys(ids[n % len(ids)] for n in numbers)) if ids else []

    def _arm(self, after: int | None) -> None:
        """The life ends at the boundary of a write that is so many ahead; None: only when it is ended."""
        self._ask("arm", after=after)
