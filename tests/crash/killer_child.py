"""A worker that dies over a text: `python -m tests.crash.killer_child FOLDER` drains, and is gone when it is shown that text."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from consolidator.config import Settings
from consolidator.engine import connect
from consolidator.proposals import Batch, Proposal
from consolidator.testing import HashEmbedder
from consolidator.testing.proposers import word_for_word


class Mortal:
    name = "mortal"
    endpoint = ""

    async def propose(self, batch: Batch) -> Proposal:
        if any("deadly" in shown.memory.text for shown in batch.memories):
            os.kill(os.getpid(), signal.SIGKILL)
        return word_for_word(batch)

    async def close(self) -> None:
        pass


def settings_of(folder: Path) -> Settings:
    worker = {"background": False, "backoff": 0.001, "longest": 0.001}
    shown = {"floor": -1}
    return Settings.model_validate({"folder": folder, "store": {"kind": "edge"}, "worker": worker, "consolidation": shown})


async def live(folder: Path) -> None:
    async with connect(settings=settings_of(folder), embedder=HashEmbedder(), proposer=Mortal()) as engine:
        await engine.drain()


if __name__ == "__main__":
    asyncio.run(live(Path(sys.argv[1])))
