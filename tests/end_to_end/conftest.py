"""What tests of the command line share: a folder, and a runner of commands on it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consolidator.blocking import connect
from consolidator.testing import HashEmbedder
from consolidator_adapters.cli import main
from tests.sparse import copy


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def hash_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CONSOLIDATOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("CONSOLIDATOR_EMBEDDER__PROVIDER", "hash")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "memory"


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on the test's own folder."""
    return runner(folder, capsys)


def runner(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def ran(*args: str) -> Ran:
        code = main(["--folder", str(folder), *args])
        told = capsys.readouterr()
        return Ran(code, told.out, told.err)

    return ran


@pytest.fixture(scope="module")
def three_sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory that no test changes."""
    return remembered(tmp_path_factory.mktemp("told") / "memory")


def remembered(folder: Path) -> Path:
    """A memory of three sentences, consolidated."""
    lisbon, berlin = datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 3, 20, tzinfo=UTC)
    with connect(folder, embedder=HashEmbedder()) as engine:
        bank = engine.bank("default")
        bank.retain("I live in Lisbon.", source="chat-1", speaker="Alice", occurred_at=lisbon)
        bank.retain("I live in Berlin now, I moved in March.", source="chat-2", speaker="Alice", occurred_at=berlin)
        bank.retain("I like green tea.", source="chat-2", speaker="Alice", occurred_at=berlin)
        bank.consolidate()
    return folder


@pytest.fixture
def told(three_sentences: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that looks."""
    return runner(three_sentences, capsys)


@pytest.fixture
def mine(three_sentences: Path, folder: Path, run: Run) -> Run:
    """Runs a command that changes such a memory, a copy."""
    copy(three_sentences, folder)
    return run
