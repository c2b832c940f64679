"""Kill an agent that records episodes at any write, and let it do the same again: every lesson is there, and nothing is twice."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from consolidator.engine import Bank
from tests.crash.engine_child import Step, opened
from tests.crash.test_engine_kill import KILLED, World, child, world  # noqa: F401 (fixtures)

pytestmark = pytest.mark.crash

LIVES = 14  # of the boundaries, spread evenly


def episodes() -> list[Step]:
    told: list[dict[str, Any]] = [
        {"task": "sail", "score": 0.9, "id": "e1", "summary": "Left with the tide.", "successes": ["Leave with the tide."]},
        {"task": "sail", "score": 0.2, "id": "e2", "mistakes": ["Never checked the weather."],
         "cards": [{"mistake_type": "late", "lesson": "Check the weather."}]},
        {"task": "sail", "score": 0.95, "id": "e3", "summary": "Left with the tide again.", "successes": ["Leave with the tide."],
         "cards": [{"mistake_type": "late", "evidence": "it rained"}]},
    ]
    return [*({"do": "episode", "told": one} for one in told), {"do": "consolidate"}, {"do": "distil"}]


async def learnt(bank: Bank) -> list[tuple[str, int, int]]:
    """Each lesson with its proof, and how many memories prove it."""
    return sorted((o.text, o.proof_count, len(o.evidence)) for o in await bank.observations())


async def test_c01_a_kill_at_any_write_leaves_the_old_state_or_the_new_one(world: World) -> None:  # noqa: F811
    status, boundaries = world.live("whole", episodes(), None)
    assert (status, boundaries > 60) == (0, True)
    step = boundaries // LIVES
    banks = {}
    for at in range(random.randint(1, step), boundaries, step):
        banks[at] = f"life{at}"
        assert world.live(banks[at], episodes(), at) == (KILLED, 0), f"boundary {at}"
        assert world.live(banks[at], episodes(), None)[0] == 0, f"boundary {at}"
    async with opened(Path(world.folder)) as (engine, _):
        whole = await learnt(engine.bank("whole"))
        assert ("Leave with the tide.", 2, 2) in whole
        assert ("Check the weather.", 2, 2) in whole
        assert len(whole) == 5
        for at, name in banks.items():
            bank = engine.bank(name)
            assert await learnt(bank) == whole, f"boundary {at}"
            assert await bank.check() == [], f"boundary {at}"
            assert (await bank.practice()).episodes == 3, f"boundary {at}"
