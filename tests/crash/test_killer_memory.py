"""A memory that kills its worker must not kill workers for ever, nor take its neighbours with it."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from consolidator.engine import connect
from consolidator.testing import HashEmbedder, ScriptedProposer
from tests.crash.killer_child import settings_of

ROOT = Path(__file__).parents[2]


@pytest.mark.crash
async def test_a_killer_memory_is_found_by_halves_and_parked(tmp_path: Path) -> None:
    """hindsight#2675, #2834: the worker that dies over a batch cannot count a failure; the one after it does."""
    folder = tmp_path / "memory"

    texts = [f"Harmless note {n}." for n in range(12)]
    async with connect(settings=settings_of(folder), embedder=HashEmbedder(), proposer=ScriptedProposer()) as engine:
        await engine.bank("alice").retain([*texts[:5], "A deadly text.", *texts[5:]], source="s")
    ends: list[int] = []
    while not ends or ends[-1] == -signal.SIGKILL:
        assert len(ends) < 10, "it kills its workers for ever"
        worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.crash.killer_child", str(folder), cwd=ROOT)
        ends.append(await asyncio.wait_for(worker.wait(), 60))
    assert ends == [-signal.SIGKILL] * 5 + [0]
    async with connect(settings=settings_of(folder), embedder=HashEmbedder(), proposer=ScriptedProposer()) as engine:
        bank = engine.bank("alice")
        (row,) = await bank.parked()
        assert (row.state, row.attempts, row.reason) == ("parked", 5, "the process died while this memory was digested")
        assert (await bank.memory(row.memory_id)).text == "A deadly text."
        stats = await bank.stats()
        assert (stats.observations, stats.pending, stats.parked) == (12, 0, 1)
