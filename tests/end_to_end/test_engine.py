"""The whole way through, on the embedded store and the real ledger: a life of a memory, and the errors at the door."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from consolidator.config import Settings
from consolidator.engine import connect
from consolidator.errors import InvalidInput, NewerFormat, StoreLocked, WrongEmbedder
from consolidator.testing import HashEmbedder, ManualClock, ScriptedProposer
from tests.conftest import Open
from tests.script import Teller, update


@pytest.fixture
def store_kind() -> str:
    return "edge"


async def test_a_life_of_a_memory(open_engine: Open, script: ScriptedProposer, clock: ManualClock) -> None:
    async with open_engine() as engine:
        teller = Teller(engine.bank("alice"), script)
        coffee = await teller.believe("Tobias drinks a flat white every morning.", source="breakfast")
        now = update("", "Tobias used to drink flat white, now rooibos.", change="state_change")
        await teller.tell("It's rooibos now.", "secret", coffee, now)
        await teller.believe("Tobias plays the cello.", source="concert", tags={"music"})
    async with open_engine() as engine:  # everything is there after opening again
        bank = engine.bank("alice")
        hits = await bank.recall("What does Tobias drink?", explain=True)
        assert hits[0].text == "Tobias used to drink flat white, now rooibos."
        receipt = await bank.forget(source="secret")
        assert (await bank.verify(receipt)).ok
    async with open_engine() as engine:
        bank = engine.bank("alice")
        assert {o.text for o in await bank.observations()} == {
            "Tobias drinks a flat white every morning.", "Tobias plays the cello.",
        }
        assert "rooibos" not in repr(await bank.recall("What does Tobias drink?", top_k=100))
        assert (await bank.verify(receipt)).ok
        assert (await engine.describe())["embedder"] == {"name": "hash:64", "dimension": "64"}
        assert (await bank.stats()).open_plans == 0


async def test_a_folder_that_another_process_holds(open_engine: Open, tmp_path: Path) -> None:
    code = (
        "import asyncio, sys, consolidator\n"
        "from consolidator.testing import HashEmbedder, ScriptedProposer\n"
        "async def main():\n"
        f"    folder = {str(tmp_path / 'memory')!r}\n"
        "    async with consolidator.connect(folder, embedder=HashEmbedder(), proposer=ScriptedProposer()):\n"
        "        pass\n"
        "try:\n    asyncio.run(main())\n"
        "except consolidator.ConsolidatorError as error:\n    print(type(error).__name__, error)\n"
    )
    async with open_engine():
        told = await asyncio.to_thread(subprocess.check_output, [sys.executable, "-c", code], text=True)
        assert told.startswith("StoreLocked")
        assert "process" in told
        with pytest.raises(StoreLocked):
            async with open_engine():
                pass
    async with open_engine() as engine:  # and the failed attempts have broken nothing
        await engine.bank("a").retain("x y z", source="s")


async def test_another_embedder_is_refused_and_nothing_is_lost(open_engine: Open, tmp_path: Path) -> None:
    async with open_engine() as engine:
        await engine.bank("a").retain("Alice lives in Lisbon.", source="s")
    settings = Settings(folder=tmp_path / "memory")
    with pytest.raises(WrongEmbedder, match=r"hash:64.*hash:32"):
        async with connect(settings=settings, embedder=HashEmbedder(32), proposer=ScriptedProposer()):
            pass
    async with open_engine() as engine:
        assert len(await engine.bank("a").memories()) == 1


async def test_a_folder_of_a_newer_version_is_refused_untouched(open_engine: Open, tmp_path: Path) -> None:
    async with open_engine() as engine:
        await engine.bank("a").retain("Alice lives in Lisbon.", source="s")
    record = tmp_path / "memory" / "store.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps({**told, "format": 99}))
    with pytest.raises(NewerFormat, match="99"):
        async with open_engine():
            pass
    record.write_text(json.dumps(told))
    async with open_engine() as engine:
        assert len(await engine.bank("a").memories()) == 1


async def test_a_vector_of_the_wrong_size_is_refused(open_engine: Open) -> None:
    """G35: an embedder that does not keep its word."""
    async with open_engine() as engine:
        embedder = engine._parts.embedder
        assert isinstance(embedder, HashEmbedder)
        embedder.dimension = 32
        with pytest.raises(InvalidInput, match="64"):
            await engine.bank("a").retain("Alice lives in Lisbon.", source="s")
        embedder.dimension = 64
        assert await engine.bank("a").memories() == []


async def test_times_survive_to_the_microsecond(open_engine: Open) -> None:
    when = datetime(2025, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
    async with open_engine() as engine:
        (memory,) = (await engine.bank("a").retain("Alice moved.", source="s", occurred_at=when)).memories
        assert (await engine.bank("a").memory(memory.id)).occurred_at == when
