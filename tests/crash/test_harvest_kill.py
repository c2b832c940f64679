"""Kill a harvest at any write, and run it again with a model that words everything otherwise: nothing twice, nothing missing.

`HARVEST_KILLS=all` kills at every boundary.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from consolidator.engine import Bank, Engine
from consolidator.records import mark_of
from tests.crash.engine_child import WORD, nursery
from tests.crash.harvest_child import opened, session

pytestmark = pytest.mark.crash

EVERY = 1 if os.environ.get("HARVEST_KILLS") == "all" else 23
KILLED = -signal.SIGKILL
SHORT, LONG = 4, 8  # steps of the session, and of the same when it has grown


@dataclass(slots=True)
class World:
    """A folder, in which each life has a bank of its own, and the processes that live there."""

    folder: Path
    child: subprocess.Popen[str]
    runs: int = 0

    def wording(self) -> str:
        """One that no other run has."""
        self.runs += 1
        letters = "".join("abcdefghij"[int(digit)] for digit in str(self.runs))
        return f"Somebody{letters} has{letters} told{letters} that it is"

    def live(self, bank: str, steps: int, at: int | None) -> tuple[int, int]:
        order = {"folder": str(self.folder), "bank": bank, "steps": steps, "at": at, "wording": self.wording()}
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        print(json.dumps(order), file=self.child.stdin, flush=True)
        answer = json.loads(self.child.stdout.readline())
        assert answer["status"] in (0, KILLED), "the child failed by itself"
        return answer["status"], answer["boundaries"]


@pytest.fixture(scope="module")
def child() -> Iterator[subprocess.Popen[str]]:
    with nursery("tests.crash.harvest_child") as process:
        yield process


@pytest.fixture
def world(tmp_path: Path, child: subprocess.Popen[str]) -> World:
    return World(tmp_path / "memory", child)


async def wrong(bank: Bank, steps: int) -> list[str]:
    """What is wrong with a bank whose session was harvested to its end."""
    found = [it.what for it in await bank.check() if not it.warning]
    observations, memories = await bank.observations(), await bank.memories()
    words = Counter(word for o in observations for word in WORD.findall(o.text))
    found += [] if words == Counter(f"word{n}x" for n in range(0, steps, 2)) else [f"items: {dict(words)}"]
    told = Counter((m.sequence, m.tags) for m in memories if (mark := mark_of(m.metadata)) and mark.role == "quote")
    found += [f"the step {place} is quoted {times} times" for place, times in told.items() if times > 1]
    found += [f"{m.text[:20]} is {m.state.value}" for m in memories if m.state.value != "done"]
    found += [f"{o.text} has {len(o.evidence)} pieces of evidence" for o in observations if len(o.evidence) != 1]
    return found


async def recovered(world: World, engine: Engine, bank: Bank) -> None:
    """Harvest again, then once more: that is skipped whole."""
    await bank.harvest(session("s", LONG))
    assert await wrong(bank, LONG) == []
    again = await bank.harvest(session("s", LONG))
    assert (again.stretches, again.calls) == (0, 0)


async def test_d08_a_kill_at_each_boundary_leaves_nothing_twice_and_nothing_missing(world: World) -> None:
    status, boundaries = world.live("whole", LONG, None)
    assert status == 0
    assert boundaries > 60
    for at in range(1, boundaries + 1, EVERY):
        name = f"b{at}"
        assert world.live(name, LONG, at)[0] == KILLED
        if at % 3 == 0:  # and again, on the way back, when the session has grown shorter than it was read
            world.live(name, LONG, at // 2 + 1)
        async with opened(world.folder, world.wording()) as engine:
            await recovered(world, engine, engine.bank(name))


async def test_d08_a_session_that_grows_while_it_is_killed(world: World) -> None:
    for at in (19, 37):
        name = f"g{at}"
        assert world.live(name, SHORT, at)[0] == KILLED
        async with opened(world.folder, world.wording()) as engine:
            await recovered(world, engine, engine.bank(name))


async def test_d28_what_was_killed_is_erased_whole(world: World) -> None:
    """In a bank with an unfinished harvest as in any other."""
    receipts: dict[str, Any] = {}
    for at in (23, 37):
        assert world.live(f"f{at}", SHORT, at)[0] == KILLED
        async with opened(world.folder, world.wording()) as engine:
            bank = engine.bank(f"f{at}")
            receipts[bank.id] = await bank.forget(source="s")
            assert (receipts[bank.id].state == "nothing") or (await bank.verify(receipts[bank.id])).ok
            assert (await bank.memories(), await bank.observations()) == ([], [])
            await bank.harvest(session("s", SHORT))
            assert await wrong(bank, SHORT) == []
    assert any(receipt.memories for receipt in receipts.values())
