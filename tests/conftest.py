"""What the tests share: engines on every store that needs no server, with a clock that stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consolidator.config import Settings
from consolidator.engine import Bank, Engine, connect
from consolidator.ports import ChatModel, Proposer
from consolidator.testing import HashEmbedder, ManualClock, ScriptedProposer
from tests.postgres import postgres_server, postgres_url  # noqa: F401 (fixtures)
from tests.room import prefer_memory

Open = Callable[..., AbstractAsyncContextManager[Engine]]
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def pytest_configure() -> None:
    prefer_memory()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, however they were shuffled: where several processes share the work, none is left with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("crash") is None)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def script() -> ScriptedProposer:
    return ScriptedProposer()


@pytest.fixture
def store_kind() -> str:
    """The fake, which the contract suite holds to the same promises; end-to-end tests take the embedded store."""
    return "memory"


@pytest.fixture
def open_engine(tmp_path: Path, store_kind: str, clock: ManualClock, script: ScriptedProposer) -> Open:
    """Opens the same folder each time it is called."""

    def opened(
        *, proposer: Proposer | None = None, chat: ChatModel | None = None, **sections: object
    ) -> AbstractAsyncContextManager[Engine]:
        near = {"floor": -1}  # the hash embedder knows words alone: show every candidate
        by_hand = {"background": False}  # a pass comes when a test asks for it
        parts = {"store": {"kind": store_kind}, "consolidation": near, "worker": by_hand}
        told = {"folder": tmp_path / "memory", **parts, **sections}
        settings = Settings.model_validate(told)
        return connect(settings=settings, clock=clock, embedder=HashEmbedder(), proposer=proposer or script, chat=chat)

    return opened


@pytest.fixture
async def engine(open_engine: Open) -> AsyncIterator[Engine]:
    async with open_engine() as engine:
        yield engine


@pytest.fixture
def bank(engine: Engine) -> Bank:
    return engine.bank("alice")
