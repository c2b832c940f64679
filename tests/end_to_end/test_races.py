"""Races inside one process: tasks that overlap, tasks that are cancelled, and what a careless caller hands in.

Whatever happened, the crash tests' checker must find store and ledger in order at the end.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from consolidator.engine import Bank, Engine, connect
from consolidator.errors import Conflict, InvalidInput, NotFound, StoreLocked
from consolidator.models import MemoryState
from consolidator.parts import Parts
from consolidator.proposals import Batch, Proposal
from consolidator.testing import HashEmbedder, ScriptedProposer
from consolidator.testing.killing import Striking
from tests.crash.checker import Witness, read_ledger, violations, words
from tests.crash.engine_child import WRITES, Follower, Wrapped, item, opened, perform, random_steps, settings_of, small_script
from tests.script import Teller, create, delete, plan, update


@dataclass(slots=True)
class Place:
    """An engine on the embedded store, its raw parts, and what one bank has told."""

    engine: Engine
    parts: Parts
    folder: Path
    witness: Witness
    told: Counter[str] = field(default_factory=Counter)  # how often each word was sent to retain

    @property
    def bank(self) -> Bank:
        return self.engine.bank("alice")

    async def settled(self) -> list[str]:
        """What is wrong once everything that was left open has been finished."""
        await self.bank.consolidate()
        return await violations(read_ledger(self.folder / "ledger.db"), self.parts.storage, "alice", self.witness)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with opened(tmp_path) as (engine, parts):
        yield Place(engine, parts, tmp_path, Witness())


@pytest.fixture
def teller(bank: Bank, script: ScriptedProposer) -> Teller:
    return Teller(bank, script)


# tasks that overlap


async def one_user(place: Place, seed: int, first: int, steps: int) -> list[str]:
    """Random steps; an erased word must not come out of a recall that began after the forget had returned."""
    found = []
    for step in islice(random_steps(seed, first), steps):
        known = place.witness.erased(place.witness.forgotten)
        place.told.update(words(item["text"] for item in step.get("items", ())))
        try:
            returned = await perform(place.bank, step)
        except Conflict:  # a text that is told while it is being erased
            continue
        if "served" in returned:
            again = {word for word, times in place.told.items() if times > 1}  # a retain that has not returned may say it, too
            found += sorted(known & words([returned["served"]]) & place.witness.erased(place.witness.forgotten) - again)
            continue
        found += place.witness.hear(returned)
    return found


async def test_many_users_of_one_bank_at_once(place: Place) -> None:
    seed = random.randrange(10**6)
    users = [one_user(place, seed, first, 25) for first in (0, 5, 10, 1_000, 2_000)]
    assert [word for found in await asyncio.gather(*users) for word in found] == [], f"seed {seed}"
    assert await place.settled() == [], f"seed {seed}"


async def test_a_text_sent_many_times_at_once_is_one_memory(place: Place) -> None:
    sent = [place.bank.retain([item(5, "a"), item(6, "a")]) for _ in range(8)]
    kept = await asyncio.gather(*sent, place.bank.retain([item(6, "a"), item(5, "a"), item(5, "a")]))
    assert len({memory.id for retained in kept for memory in retained.memories}) == 2
    assert sum(retained.new for retained in kept) == 2
    assert len(await place.bank.memories()) == 2


async def test_a_bank_consolidated_many_times_at_once_is_consolidated_once(place: Place) -> None:
    await place.bank.retain([item(n, f"s{n}") for n in (5, 6, 12, 13, 19, 20)])
    reports = await asyncio.gather(*(place.bank.consolidate() for _ in range(5)))
    assert sum(report.consolidated for report in reports) == 6
    assert len(await place.bank.observations()) == 6
    assert await place.settled() == []


async def test_retain_and_forget_of_one_text_end_in_one_order_or_the_other(place: Place) -> None:
    for turn in range(6):
        one = [item(5 + 7 * turn, "a")]
        await place.bank.retain(one)
        tasks = (place.bank.retain(one), place.bank.forget(source="a"), place.bank.retain(one), place.bank.consolidate())
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(it, Conflict) for it in ended if isinstance(it, BaseException))
    assert await place.settled() == []


async def test_what_a_retain_brought_back_behind_an_erasure_is_dropped(place: Place) -> None:
    (memory,) = (await place.bank.retain([item(5, "a")])).memories
    (point,) = await place.parts.memories.get("alice", [memory.id], vectors=True)
    await place.bank.forget(source="a")
    await place.parts.memories.put("alice", [point])  # of the same text, killed before it looked for tombstones
    place.witness.texts[memory.id] = memory.text
    assert await place.settled() == []
    assert await place.bank.memories() == []


async def test_half_the_evidence_is_forgotten_while_another_pass_runs(place: Place) -> None:
    for source in "abcdef":  # one observation, told by six
        await place.bank.retain([item(5, source)])
    await place.bank.consolidate()
    await place.bank.retain([item(8, "g"), item(9, "h")])
    forgetting = (place.bank.forget(source=source) for source in "ace")
    receipts = (await asyncio.gather(place.bank.consolidate(), *forgetting, place.bank.consolidate()))[1:-1]
    assert await place.settled() == []
    for receipt in receipts:
        assert (await place.bank.verify(receipt)).ok  # type: ignore[arg-type]
    sources = {e.source for o in await place.bank.observations() for e in o.evidence}
    assert sources == set("bdfgh")


async def test_two_engines_cannot_have_one_folder(tmp_path: Path) -> None:
    async with opened(tmp_path) as (engine, _):
        await engine.bank("alice").retain("Alice has a cat.", source="a")
        with pytest.raises(StoreLocked):
            async with connect(settings=settings_of(tmp_path), embedder=HashEmbedder(), proposer=Follower()):
                pass
        assert (await engine.bank("alice").forget(source="a")).state == "settled"


# tasks that are cancelled


class Cancelling(Striking):
    """Cancels the task that makes the call, at a chosen boundary; the call itself may be under way in its thread."""

    def strike(self) -> None:
        if (task := asyncio.current_task()) is not None:
            task.cancel()


def cancelling(parts: Parts, at: int) -> Parts:
    calls: Counter[str] = Counter()

    def wrap(port: Any) -> Any:
        return Cancelling(port, at, calls, only=WRITES)

    return replace(parts, storage=Wrapped(parts.storage, wrap), ledger=wrap(parts.ledger), embedder=wrap(parts.embedder))


async def test_a_step_cancelled_anywhere_loses_nothing_and_applies_nothing_twice(place: Place) -> None:
    for at in range(random.randint(1, 20), 240, 20):
        bank, witness = f"bank{at}", Witness()
        alice = Engine(cancelling(place.parts, at), settings_of(place.folder)).bank(bank)
        for step in small_script(7_000 * at):
            task = asyncio.create_task(perform(alice, step))
            await asyncio.wait([task])
            if not task.cancelled():
                assert list(witness.hear(task.result())) == [], f"boundary {at}"
        await place.engine.bank(bank).consolidate()  # by an engine that nothing cancels, however late the boundary is
        found = await violations(read_ledger(place.folder / "ledger.db"), place.parts.storage, bank, witness)
        assert found == [], f"boundary {at}"


async def test_steps_that_run_out_of_time(place: Place) -> None:
    seed = random.randrange(10**6)
    dice = random.Random(seed)
    for step in islice(random_steps(seed, 0), 60):
        try:
            returned = await asyncio.wait_for(perform(place.bank, step), dice.uniform(0.0005, 0.03))
        except (TimeoutError, Conflict):
            continue
        assert list(place.witness.hear(returned)) == [], f"seed {seed}"
    assert await place.settled() == [], f"seed {seed}"


async def test_a_cancelled_forget_that_was_accepted_serves_nothing(teller: Teller, engine: Engine) -> None:
    bank = teller.bank
    belief = await teller.believe("Alice was diagnosed at Southmead.", source="secret")
    later = await teller.believe("Bob plays the viola.", source="s1")
    changed = update("", "Bob used to play the viola, now the flute.", change="state_change")
    await teller.tell("Bob plays the flute.", "secret", later, changed)
    memory = belief.evidence[0].memory_id
    hasty = Engine(cancelling(engine._parts, 1), settings_of(Path())).bank("alice")
    forgetting = asyncio.create_task(hasty.forget(source="secret"))
    # its first write is the point of no return, which is under way when the cancellation comes
    assert isinstance((await asyncio.gather(forgetting, return_exceptions=True))[0], asyncio.CancelledError)
    stats = await bank.stats()
    assert (stats.open_tombstones, stats.memories) == (2, 1)
    served = [repr(await bank.recall("Alice at Southmead, Bob on the flute")), repr(await bank.observations())]
    assert not any(word in text for word in ("Southmead", "flute") for text in served)
    assert [m.text for m in await bank.memories()] == ["Bob plays the viola."]
    assert (await bank.observation(later.id)).text == "Bob plays the viola."
    assert [v.text for v in await bank.history(later.id)] == ["Bob plays the viola.", None]
    for verb, id in ((bank.memory, memory), (bank.observation, belief.id), (bank.history, belief.id)):
        with pytest.raises(NotFound):
            await verb(id)
    journal = repr(await bank.journal())
    assert not any(word in journal for word in ("Southmead", "flute"))
    await bank.consolidate()
    assert (await bank.stats()).open_tombstones == 0


# one plan, several actions


async def two_beliefs(teller: Teller) -> tuple[str, str]:
    berlin, lisbon = "Alice lives in Berlin.", "Alice lives in Lisbon now."
    for source, text in (("a", berlin), ("b", lisbon)):
        await teller.believe(text, source=source)
    await teller.bank.retain([{"text": "Lisbon it is.", "source": "c"}, {"text": "Or Porto.", "source": "d"}])
    return berlin, lisbon


async def every_history_is_whole(bank: Bank) -> None:
    for id in {entry.observation_id for entry in await bank.journal() if entry.observation_id}:
        assert (versions := [v.number for v in await bank.history(id)]) == list(range(1, len(versions) + 1))


async def test_an_update_that_drifts_onto_another_target_of_the_plan_leaves_it_its_action(teller: Teller) -> None:
    berlin, lisbon = await two_beliefs(teller)

    def answer(batch: Batch) -> Proposal:
        by = {c.observation.text: c.alias for c in batch.candidates}
        return plan(update(by[berlin], lisbon, "m1"), update(by[lisbon], "Alice lives in Porto.", "m2"))

    teller.say(answer)
    await teller.bank.consolidate()
    found = {o.text: {e.source for e in o.evidence} for o in await teller.bank.observations()}
    assert found == {lisbon: {"a", "c"}, "Alice lives in Porto.": {"b", "d"}}
    await every_history_is_whole(teller.bank)


async def test_a_create_does_not_support_what_the_same_plan_deletes(teller: Teller) -> None:
    berlin, lisbon = await two_beliefs(teller)

    def answer(batch: Batch) -> Proposal:
        by = {c.observation.text: c.alias for c in batch.candidates}
        return plan(create(lisbon, "m1"), delete(by[lisbon], "m2"))

    teller.say(answer)
    await teller.bank.consolidate()
    found = {o.text: {e.source for e in o.evidence} for o in await teller.bank.observations()}
    assert found == {berlin: {"a"}, lisbon: {"c"}}
    await every_history_is_whole(teller.bank)


async def test_replies_that_account_for_nothing_leave_everything_pending(teller: Teller) -> None:
    await teller.bank.retain("Alice has a cat.", source="a")
    for _ in range(3):
        teller.say(Proposal(by="script"))
        report = await teller.bank.consolidate()
        assert (report.left, report.consolidated) == (1, 0)
    (memory,) = await teller.bank.memories()
    assert memory.state is MemoryState.PENDING


# careless callers


@pytest.mark.parametrize("bad", [b"Alice", [3], [None], 3, None, ["fine", b"not"]])
async def test_what_is_no_text_is_refused(bank: Bank, bad: Any) -> None:
    with pytest.raises(InvalidInput):
        await bank.retain(bad, source="a")
    assert await bank.memories() == []


async def test_a_mapping_alone_is_one_item(bank: Bank) -> None:
    (kept,) = (await bank.retain({"text": "Alice has a cat.", "source": "a"})).memories
    assert (kept.text, kept.source) == ("Alice has a cat.", "a")


@pytest.mark.parametrize("source", ["", " ", "\u3000", "\t\n", "a\0b", "\ud800"])
async def test_a_source_that_nobody_could_name_again_is_refused(bank: Bank, source: str) -> None:
    with pytest.raises(InvalidInput):
        await bank.retain("Alice has a cat.", source=source)


SOURCES = ("caf\u00e9", "cafe\u0301", "a/b:c*?[x]", "' OR 1=1 --", "\u202eevil", "\U0001f9e0", " padded ", "A", "a", "x" * 99)


async def test_each_of_many_strange_sources_is_forgotten_alone(place: Place) -> None:
    await place.bank.retain([item(5, source) for source in SOURCES])  # one text, so that all support one observation
    await place.bank.consolidate()
    left = [*SOURCES]
    while left:
        receipt = await place.bank.forget(source=left.pop())
        assert len(receipt.memories) == 1
        assert (await place.bank.verify(receipt)).ok
        assert set(await place.bank.sources()) == set(left)
        await place.bank.consolidate()
        assert {e.source for o in await place.bank.observations() for e in o.evidence} == set(left)
    assert await place.settled() == []
