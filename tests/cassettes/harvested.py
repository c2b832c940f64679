"""A team's sessions, harvested one after another by a model; then their attempts, distilled."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from consolidator.bootstrap import Briefing
from consolidator.config import Settings
from consolidator.engine import Bank, connect
from consolidator.harvest import Harvested
from consolidator.plans import Report
from consolidator.ports import ChatModel
from consolidator.testing import HashEmbedder, ManualClock
from consolidator.words import jaccard, stems
from consolidator_adapters.session_files import read_session
from tests.sessions import PATHS, REPEAT, SECRETS, SESSIONS, Planted, big, with_handles, with_secrets

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
PATIENCE = 3600.0  # seconds for one reply: a person may be the model
SEED = 7  # of the planted secrets
UNNAMED = "harbour-api"  # the project of the session that names none
FILES = 60  # of the big session: what is past them is all alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """A bank that has harvested every session. By the session's last word."""

    bank: Bank
    reports: dict[str, Harvested]
    planted: list[Planted]
    briefing: Briefing  # the one that the last session but one began with
    distilled: Report


@asynccontextmanager
async def harvested(model: ChatModel) -> AsyncIterator[Learnt]:
    """All sessions in the order of their times; the one that begins with a briefing gets the handles of what it was told."""
    asked = {
        "store": {"kind": "memory"}, "practice": {"every": 8},
        "worker": {"background": False, "pass_deadline": PATIENCE},
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate({"folder": Path(folder) / "memory", **asked})
        clock = ManualClock(NOW)
        async with connect(settings=settings, clock=clock, embedder=HashEmbedder(512), chat=model) as engine:
            bank = engine.bank("team")
            reports: dict[str, Harvested] = {}
            planted: list[Planted] = []
            briefing = Briefing()
            for path in _paths(Path(folder)):
                name = path.stem.split("_")[2]
                if name == SECRETS:
                    path, planted = with_secrets(Path(folder), SEED)
                if name == REPEAT:
                    briefing = await bank.bootstrap(project="harbour-api")
                    path = with_handles(Path(folder), await _ids(bank))
                log = read_session(path)
                reports[name] = await bank.harvest(log, project=None if log.projects else UNNAMED)
            yield Learnt(
                bank=bank, reports=reports, planted=planted, briefing=briefing, distilled=await _practised(bank, clock)
            )


async def _ids(bank: Bank) -> list[str]:
    """The items that are nearest in words to the lines of the briefing which the last session but one begins with."""
    lines = re.findall(r"\[K-\{\{handle:\d\}\}\] ([^\\\n]*)", SESSIONS[REPEAT].read_text())
    known = await bank.knowledge(project="harbour-api", archived=True)
    nearest = (max(known, key=lambda k: (jaccard(stems(line), stems(k.observation.text)), k.observation.text)) for line in lines)
    return [item.observation.id for item in nearest] if known else ["0" * 8] * len(lines)


def _paths(folder: Path) -> list[Path]:
    return sorted([*PATHS, big(folder, files=FILES)], key=lambda path: path.name)


ATTEMPTS = (
    ("migrate harbour-api", 0.95, "Stopped the worker, ran the migration, then the seed, started the worker; all tests passed."),
    ("migrate harbour-api", 0.30, "Seeded before migrating; the seed failed on a missing column and had to be undone by hand."),
    ("migrate harbour-api", 0.90, "Wrote the down migration first and tried it on a copy; the real run took four minutes."),
    ("release quay-web", 0.40, "Deployed without generating the API schema; the build passed, the page broke at run time."),
    ("release quay-web", 0.92, "Generated the API schema, ran the type checker, then deployed; nothing broke."),
    ("import gauges", 0.45, "Sent eight requests at once; the gauge server answered 429 and the import stopped half way."),
    ("import gauges", 0.90, "Sent four requests at a time with a retry; all readings were imported."),
    ("release tide-cli", 0.55, "Spent two hours on a static build before reading why the last attempt had failed."),
)


async def _practised(bank: Bank, clock: ManualClock) -> Report:
    for number, (task, score, summary) in enumerate(ATTEMPTS, start=1):
        clock.move(timedelta(hours=1))
        await bank.record_episode(task, score=score, steps=10 + number, summary=summary, id=f"attempt-{number}")
    return await bank.consolidate()


async def sessions(model: ChatModel) -> None:
    async with harvested(model):
        pass
