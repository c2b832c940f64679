"""The real prompt, the real passes, and replies that real judgement gave."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from consolidator.config import Settings
from consolidator.engine import connect
from consolidator.proposing import ModelProposer
from consolidator.testing import HashEmbedder, ManualClock
from consolidator_adapters.conversation import load_conversation
from tests.cassettes import ReplayedChatModel


async def test_the_first_sessions_of_the_conversation(tmp_path: Path) -> None:
    sessions = load_conversation().sessions[:2]
    clock = ManualClock(sessions[-1].start + timedelta(days=1))
    every = {"near_each": 40}  # no list is cut: a cut through a tie would fall by chance
    settings = Settings.model_validate({"folder": tmp_path / "memory", "store": {"kind": "memory"}, "consolidation": every})
    proposer = ModelProposer(ReplayedChatModel("first_sessions"))
    async with connect(settings=settings, clock=clock, embedder=HashEmbedder(), proposer=proposer) as engine:
        bank = engine.bank("demo")
        for session in sessions:
            await bank.retain(list(session.items()), source=session.source)
            report = await bank.consolidate()
            assert (report.left, report.skipped, report.faults) == (0, 0, ())  # each reply was sound, nothing was held back
        told = {o.text: o for o in await bank.observations()}
        assert len(told) == 21
        moved = told["Maren and Idris moved into their flat on 28 August 2025; the viewing was on 23 August."]
        # the slip and its correction, in one pass; and the turn that alone names Idris, uncited but drawn on
        assert len(moved.evidence) == 3
        stats = await bank.stats()
        assert (stats.pending, stats.model_calls) == (0, 4)
        assert stats.prompt_tokens / stats.memories < 450

        receipt = await bank.forget(source=sessions[1].source)
        assert (await bank.verify(receipt)).ok
        left = {o.text for o in await bank.observations()}
        assert len(left) == 11  # what the first session said stands, all of it
        assert not {text for text in left if "cello" in text or "flat white" in text}
