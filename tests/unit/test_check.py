"""The verb `check`: it takes the bank's turn, and looks at a bank at rest."""

from __future__ import annotations

from dataclasses import replace

from consolidator.engine import Bank, Engine
from consolidator.models import MemoryState, Observation, Version
from consolidator.parts import Parts
from consolidator.planning import evidence_of
from consolidator.plans import Change, Entry, Intent, MemoryMark
from consolidator.points import observation_point
from consolidator.ports import Point
from consolidator.testing import ScriptedProposer
from consolidator.testing.models import hash_vector
from tests.conftest import NOW
from tests.script import Teller

NOBODY = "5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11"


async def planned(bank: Bank, parts: Parts) -> Point:
    """Freeze a plan that nobody applies; returns what it is to write."""
    (memory,) = (await bank.retain("Alice lives in Lisbon.", source="a")).memories
    text, vector, evidence = memory.text, hash_vector(memory.text, 64), evidence_of(memory, 1)
    made = Observation(id=NOBODY, bank=bank.id, text=text, rev=1, evidence=(evidence,), created_at=NOW, updated_at=NOW)
    version = Version(observation_id=NOBODY, number=1, text=text, digest="d", lineage=frozenset({memory.id}), at=NOW)
    told = Entry(bank=bank.id, intent=NOBODY, at=NOW, action="created", observation_id=NOBODY, version=1, cites=(memory.id,))
    plan = Intent(
        id=NOBODY, bank=bank.id, kind="consolidate", created_at=NOW, entries=(told,),
        changes=(Change(after=made, vector=vector, version=version, lineage=version.lineage),),
        marks=(MemoryMark(memory_id=memory.id, rev=memory.rev, state=MemoryState.DONE),),
    )
    lease = await parts.ledger.claim(bank.id, parts.owner, 60)
    assert lease is not None
    await parts.ledger.commit(plan, lease)
    await parts.ledger.release(lease)
    return observation_point(made, vector, version.lineage)


async def test_check_finishes_what_was_left_open_before_it_looks(bank: Bank, engine: Engine) -> None:
    made = await planned(bank, engine._parts)
    assert await bank.check() == []
    assert await engine._parts.observations.get(bank.id, [made.id])


async def test_check_looks_though_what_was_left_open_cannot_be_finished(bank: Bank, engine: Engine) -> None:
    made = await planned(bank, engine._parts)
    older = replace(made, payload={**made.payload, "rev": 0})
    await engine._parts.observations.put(bank.id, [older])
    assert {it.kind for it in await bank.check()} == {"stuck", "unfinished", "differs", "revision"}


async def test_check_knows_what_was_acknowledged(bank: Bank, script: ScriptedProposer) -> None:
    kept = [(await bank.retain(f"Note {n}.", source=f"s{n}")).memories[0].id for n in range(2)]
    await bank.consolidate()
    await bank.forget(source="s1")
    assert await bank.check(acknowledged=kept) == []
    (lost,) = await bank.check(acknowledged=[*kept, NOBODY])
    assert (lost.kind, NOBODY in lost.what) == ("lost", True)


async def test_check_finds_a_point_that_was_taken_out_of_the_store(bank: Bank, engine: Engine, script: ScriptedProposer) -> None:
    made = await Teller(bank, script).believe("Alice lives in Lisbon.")
    assert await bank.check() == []
    await engine._parts.observations.delete(bank.id, [made.id])
    assert [it.kind for it in await bank.check()] == ["absent"]
