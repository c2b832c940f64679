"""Erasing: by whom and what, at once, everywhere, and to the last byte."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consolidator.engine import Bank, Engine
from consolidator.errors import InvalidInput
from consolidator.events import PassDone
from consolidator.models import MemoryState
from consolidator.ports import Point
from consolidator.proposals import Batch, NothingDurable, Proposal
from consolidator.testing import ManualClock, ScriptedProposer
from consolidator.testing.proposers import word_for_word
from tests.conftest import NOW, Open
from tests.script import Teller, update
from tests.sparse import written
from tests.unit.test_worker import Slow

BACKGROUND = {"debounce": 0, "max_delay": 0}


@pytest.fixture
def teller(bank: Bank, script: ScriptedProposer) -> Teller:
    return Teller(bank, script)


def day(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


# what


async def test_by_age_by_bank_and_by_several_at_once(bank: Bank) -> None:
    for n in (1, 2, 3):
        await bank.retain(f"Note of day {n}.", source=f"s{n % 2}", occurred_at=day(n), tags={"odd"} if n % 2 else ())
    planned = await bank.forget(before=day(3), dry_run=True)
    assert (planned.state, len(planned.memories), planned.asked) == ("planned", 2, {"before": "2026-01-03T00:00:00+00:00"})
    await bank.forget(before=day(3), tags={"odd"})
    assert [m.text for m in await bank.memories()] == ["Note of day 2.", "Note of day 3."]
    receipt = await bank.forget(everything=True)
    assert (receipt.asked, len(receipt.memories), await bank.memories()) == ({"everything": True}, 2, [])
    assert (await bank.verify(receipt)).ok


@pytest.mark.parametrize(
    "wrong", [{}, {"everything": True, "source": "s"}, {"before": datetime(2026, 1, 1)}, {"before": "yesterday"}, {"source": " "}]
)
async def test_what_is_not_said_clearly_erases_nothing(bank: Bank, wrong: dict[str, object]) -> None:
    await bank.retain("A note.", source="s")
    with pytest.raises(InvalidInput):
        await bank.forget(**wrong)  # type: ignore[arg-type]
    assert len(await bank.memories()) == 1


async def test_max_erased_stops_an_accident(bank: Bank) -> None:
    await bank.retain([f"Note {n}." for n in range(5)], source="s")
    with pytest.raises(InvalidInput, match="5 memories match, and max_erased is 4; nothing was erased"):
        await bank.forget(source="s", max_erased=4)
    assert len(await bank.memories()) == 5
    assert len((await bank.forget(source="s", max_erased=5)).memories) == 5


async def test_a_new_edition_erases_what_is_gone_keeps_what_is_the_same_and_adds_what_is_new(
    teller: Teller, script: ScriptedProposer
) -> None:
    bank = teller.bank
    kept = await teller.believe("The office opens at nine.", source="handbook")
    gone = await teller.believe("Parking is free.", source="handbook")
    other = await teller.believe("Lunch is at noon.", source="chat")
    edition = ["The office opens at nine.", "Parking costs two pounds."]
    told = await bank.retain(edition, source="handbook", replace=True)
    assert (told.new, [m.state.value for m in told.memories]) == (1, ["done", "pending"])
    assert told.replaced is not None
    assert [e.memory_id for e in gone.evidence] == list(told.replaced.memories)
    assert {o.id for o in await bank.observations()} == {kept.id, other.id}
    again = await bank.retain(edition, source="handbook", replace=True)
    assert (again.new, again.replaced) == (0, None)  # no work
    with pytest.raises(InvalidInput, match="one source at a time"):
        await bank.retain([{"text": "a", "source": "x"}, {"text": "b", "source": "y"}], replace=True)


# at once


async def test_a_model_that_reads_the_erased_is_not_waited_for(open_engine: Open) -> None:
    slow = Slow()
    async with open_engine(proposer=slow, worker=BACKGROUND) as engine:
        bank = engine.bank("alice")
        await bank.retain("Alice was at Southmead.", source="secret")
        await asyncio.wait_for(slow.asked.wait(), 10)
        receipt = await asyncio.wait_for(bank.forget(source="secret"), 5)
        assert (receipt.state, slow.cancelled) == ("settled", 1)
        assert (await bank.verify(receipt)).ok
        assert await bank.parked() == []  # nobody is to blame


async def test_a_model_that_reads_something_else_goes_on_and_the_erasure_follows(open_engine: Open) -> None:
    slow, done = Slow(), asyncio.Queue[PassDone]()
    async with open_engine(proposer=slow, worker=BACKGROUND) as engine:
        engine.on_pass(done.put)
        bank = engine.bank("alice")
        await bank.pause("first the memories")
        await bank.retain("Alice was at Southmead.", source="secret", tags={"private"})
        await bank.retain("Alice likes tea.", source="s")
        await bank.forget(memory_ids=[])  # nothing matches: nothing happens
        await bank.resume()
        await asyncio.wait_for(slow.asked.wait(), 10)
        receipt = await bank.forget(source="s")  # the other one is being read: its holder cannot be had in 2 s
        assert receipt.state == "accepted"
        assert await bank.recall("tea") == []
        slow.go.set()
        while (await bank.receipts())[0].state != "settled":
            await asyncio.wait_for(done.get(), 10)
        assert [o.text for o in await bank.observations()] == ["Alice was at Southmead."]


async def test_what_is_reopened_is_told_anew_by_itself(open_engine: Open, script: ScriptedProposer) -> None:
    done = asyncio.Queue[PassDone]()
    async with open_engine() as engine:
        bank = engine.bank("alice")
        teller = Teller(bank, script)
        belief = await teller.believe("Alice was at Southmead.", source="secret")
        await teller.tell("Yes, she told me.", "s1", belief, update("", "Alice was at Southmead.", change="restate"))
        script.answer_with([word_for_word])
        engine.on_pass(done.put)
        engine.start()
        await bank.forget(source="secret")
        while not [o.text for o in await bank.observations()]:
            await asyncio.wait_for(done.get(), 10)
        assert [o.text for o in await bank.observations()] == ["Yes, she told me."]


async def test_an_erasure_in_a_paused_bank_is_carried_out(open_engine: Open) -> None:
    async with open_engine() as engine:
        bank = engine.bank("alice")
        await bank.retain("Alice was at Southmead.", source="secret")
        await bank.pause("a look at the journal")
        memories = await bank.memories()
        await bank._services.forgetting.accept(bank.id, {"source": "secret"}, memories)  # and then its process is gone
        await engine.drain()
        assert [r.state for r in await bank.receipts()] == ["settled"]


# everywhere


async def test_a_receipt_finds_the_wording_of_the_erased_in_any_text(teller: Teller) -> None:
    bank = teller.bank
    said = "I was at the Southmead clinic on Friday because of my left knee."
    await teller.believe("Alice likes green tea.", source="s")
    (memory,) = (await bank.retain(said, source="secret")).memories
    receipt = await bank.forget(memory_ids=[memory.id])
    assert len(receipt.fingerprints) >= 5
    assert (await bank.receipts())[0].fingerprints == ()  # they stand in the caller's receipt alone
    assert (await bank.verify(receipt)).ok
    (belief,) = await bank.observations()
    stored = (await bank._parts.observations.get(bank.id, [belief.id], vectors=True))[0]
    tainted = {**stored.payload, "text": "Note: the Southmead clinic on Friday because of something."}
    await bank._parts.observations.put(bank.id, [Point(id=belief.id, payload=tainted, dense=stored.dense, lexical="x")])
    assert f"observations/{belief.id}: words of an erased text" in (await bank.verify(receipt)).found
    await bank.retain("She said: at the Southmead clinic on Friday because of it.", source="another")
    found = (await bank.verify(receipt)).found
    assert not [place for place in found if "words of" in place]  # somebody else says so, too


FOLDER_SECRETS = [b"Southmead", b"rheumatologist"]


def holding(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        told = written(path)
        if any(secret in told for secret in FOLDER_SECRETS):
            yield path.relative_to(folder).as_posix()


@pytest.mark.parametrize("store_kind", ["edge"])
async def test_scrub_leaves_no_byte_in_any_file(open_engine: Open, script: ScriptedProposer, tmp_path: Path) -> None:
    """Derived texts, journal, versions, parked replies, caches, logs of the stores: all of the folder is read."""
    folder = tmp_path / "memory"
    async with open_engine() as engine:
        bank = engine.bank("alice")
        teller = Teller(bank, script)
        belief = await teller.believe("Alice sees a doctor.", source="s0")
        refined = update("", "Alice sees a rheumatologist at Southmead.")
        await teller.tell("I see a rheumatologist at Southmead.", "secret", belief, refined)
        await teller.believe("The rheumatologist of Southmead has a beard.", source="secret")
        await bank.retain([f"Harmless note number {n}." for n in range(40)], source="s1")
        script.answer_with([word_for_word] * 9)
        await bank.consolidate()
        await bank.recall("Who is the rheumatologist?")
        assert len(set(holding(folder))) >= 3
        receipt = await bank.forget(source="secret", scrub=True)
        assert receipt.state == "scrubbed"
        assert list(holding(folder)) == []
        assert (await bank.verify(receipt)).ok
        assert len(await bank.observations()) == 41
    assert list(holding(folder)) == []
    async with open_engine() as engine:
        assert [o.text for o in await engine.bank("alice").observations()].count("Alice sees a doctor.") == 1
        assert await engine.bank("alice").check() == []


@pytest.mark.parametrize("store_kind", ["edge"])
async def test_the_worker_scrubs_by_itself_some_time_after_an_erasure(
    open_engine: Open, tmp_path: Path, clock: ManualClock
) -> None:
    async with open_engine() as engine:
        await engine.bank("alice").retain("I see a rheumatologist at Southmead.", source="secret")
        assert (await engine.bank("alice").forget(source="secret")).state == "settled"
        await engine._services.worker._maintain()
        assert list(holding(tmp_path / "memory"))  # not yet
        clock.move(timedelta(hours=1))
        await engine._services.worker._maintain()
        assert [r.state for r in await engine.bank("alice").receipts()] == ["scrubbed"]
        assert list(holding(tmp_path / "memory")) == []


async def test_twice_and_again(bank: Bank, script: ScriptedProposer) -> None:
    """Forgetting what is gone is no error; the same text told again is new."""
    await bank.retain("Alice was at Southmead.", source="secret")
    first, second = await asyncio.gather(bank.forget(source="secret"), bank.forget(source="secret"))
    assert {first.state, second.state} <= {"settled", "nothing"}
    assert (await bank.forget(source="secret")).state == "nothing"
    (again,) = (await bank.retain("Alice was at Southmead.", source="secret")).memories
    assert (again.state, again.id in first.memories) == (MemoryState.PENDING, False)
    script.answer_with([word_for_word])
    await bank.consolidate()
    assert len(await bank.observations()) == 1
    assert await bank.check() == []


async def test_an_erased_memory_is_in_no_context(bank: Bank, script: ScriptedProposer) -> None:
    script.answer_with([lambda batch: Proposal(nothing=(NothingDurable(memory="m1"),))] * 2)
    await bank.retain("A question about Southmead?", source="chat", sequence=0)
    await bank.consolidate()
    await bank.forget(source="chat")
    await bank.retain("Yes.", source="chat", sequence=1, occurred_at=NOW)
    await bank.consolidate()
    shown: list[Batch] = script.batches
    assert shown[-1].context == ()


# what comes back


async def moved_there_and_back(teller: Teller) -> tuple[str, str]:
    """One observation says that she is in Berlin; another has taken up since what the first one had said before."""
    first = await teller.believe("Alice lives in Lisbon.", source="s1")
    await teller.tell("I am in Berlin now.", "secret", first, update("", "Alice lives in Berlin.", change="state_change"))
    second = await teller.believe("Alice lives in Lisbon.", source="s2", occurred_at=day(3))
    return first.id, second.id


async def test_a_text_that_would_come_back_gives_way_to_one_that_says_it_already(teller: Teller) -> None:
    bank = teller.bank
    first, second = await moved_there_and_back(teller)
    receipt = await bank.forget(source="secret")
    assert [o.id for o in await bank.observations()] == [second]
    assert [o.id for o in await bank.observations(state="retracted")] == [first]
    assert (await bank.stats()).pending == 1  # what the first one rested on is told anew
    assert (await bank.verify(receipt)).ok
    assert await bank.check() == []


async def test_when_the_other_goes_it_comes_back_after_all(teller: Teller) -> None:
    bank = teller.bank
    first, _ = await moved_there_and_back(teller)
    await bank.forget(source="secret")
    await bank.forget(source="s2")
    assert [o.id for o in await bank.observations()] == [first]
    assert await bank.check() == []


async def test_two_that_would_come_back_with_one_text_are_one(teller: Teller) -> None:
    bank = teller.bank
    first, second = await moved_there_and_back(teller)
    there = {o.id: o for o in await bank.observations()}
    await teller.tell("All of us are in Porto now.", "secret", there[second], update("", "Alice lives in Porto."))
    await bank.forget(source="secret")
    (left,) = await bank.observations()
    assert left.id in (first, second)
    assert await bank.check() == []


async def test_g07_a_whole_bank_goes_and_its_neighbour_stays(engine: Engine, script: ScriptedProposer) -> None:
    alice, bob = engine.bank("alice"), engine.bank("bob")
    for bank in (alice, bob):
        await Teller(bank, script).believe("We live in Lisbon.", source="shared")
    before = [await bob.memories(), await bob.observations(), await bob.journal()]
    await alice.forget(everything=True)
    assert (await alice.memories(), await alice.observations()) == ([], [])
    assert [await bob.memories(), await bob.observations(), await bob.journal()] == before
