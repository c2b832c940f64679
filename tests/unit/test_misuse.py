"""What a beginner does wrong at the door: one sentence each, and nothing hangs."""

from __future__ import annotations

from pathlib import Path

import pytest

import consolidator
from consolidator import blocking
from consolidator.config import Settings
from consolidator.engine import Bank, connect
from consolidator.errors import ConsolidatorError, InvalidInput
from consolidator.testing import HashEmbedder, ScriptedProposer
from tests.conftest import Open


async def test_use_after_close(open_engine: Open) -> None:
    async with open_engine() as engine:
        bank = engine.bank("a")
    with pytest.raises(ConsolidatorError, match="this engine is closed"):
        await bank.retain("x", source="s")
    with pytest.raises(ConsolidatorError, match="this engine is closed"):
        await bank.recall("x")
    await engine.close()  # twice is harmless


def test_blocking_use_after_close(tmp_path: Path) -> None:
    settings = Settings.model_validate({"folder": tmp_path, "store": {"kind": "memory"}})
    with blocking.connect(settings=settings, embedder=HashEmbedder(), proposer=ScriptedProposer()) as engine:
        bank = engine.bank("a")
    with pytest.raises(ConsolidatorError, match="this engine is closed"):
        bank.retain("x", source="s")


def test_with_instead_of_async_with(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="async with"), connect(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


async def test_await_instead_of_async_with(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="async with"):
        await connect(tmp_path)


async def test_verify_of_no_receipt(bank: Bank) -> None:
    with pytest.raises(InvalidInput, match="takes a Receipt"):
        await bank.verify("nope")  # type: ignore[arg-type]


def test_the_public_names_are_seen() -> None:
    assert {"connect", "Bank", "Engine", "Settings"} <= set(dir(consolidator))
    with pytest.raises(AttributeError, match="nonsense"):
        consolidator.nonsense  # noqa: B018


async def test_a_failed_opening_leaves_no_folder(tmp_path: Path) -> None:
    settings = Settings.model_validate({"folder": tmp_path / "new", "embedder": {"provider": "hash", "model": "no number"}})
    with pytest.raises(ConsolidatorError, match="dimension"):
        async with connect(settings=settings):
            pass
    assert not (tmp_path / "new").exists()


async def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_text("x")
    for folder in (tmp_path / "big.txt", tmp_path / "big.txt" / "below"):
        with pytest.raises(ConsolidatorError, match="a file; the memory's folder is a folder"):
            async with connect(folder):
                pass
