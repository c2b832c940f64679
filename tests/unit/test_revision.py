"""A person's hand on what the engine believes: revert, correct, undo; and what of it erasing takes away."""

from __future__ import annotations

import pytest

from consolidator.engine import Bank
from consolidator.errors import Conflict, InvalidInput, LeaseLost, NotFound
from consolidator.models import MemoryState, ObservationState
from consolidator.proposals import Batch, NothingDurable, Proposal
from consolidator.testing import ScriptedProposer
from consolidator.testing.proposers import word_for_word
from tests.conftest import NOW
from tests.script import Teller, create, delete, plan, update

LISBON, BERLIN = "Alice lives in Lisbon.", "Alice used to live in Lisbon and moved to Berlin."


@pytest.fixture
def teller(bank: Bank, script: ScriptedProposer) -> Teller:
    return Teller(bank, script)


async def sound(bank: Bank) -> None:
    assert await bank.check() == []


async def test_revert_makes_the_old_text_a_new_version_and_keeps_what_came_later(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe(LISBON)
    await teller.tell("I moved to Berlin.", "s1", belief, update("", BERLIN, change="state_change"))
    done = await bank.revert(belief.id, 1, reason="she only visited")
    assert (done.text, done.version, done.proof_count) == (LISBON, 3, 2)
    assert [(v.change, v.by, v.text) for v in await bank.history(belief.id)] == [
        ("create", "script", LISBON), ("state_change", "script", BERLIN), ("revert", "person", LISBON),
    ]
    entry = (await bank.journal())[-1]
    assert (entry.action, entry.reason, entry.before, entry.after) == ("reverted", "she only visited", BERLIN, LISBON)
    assert [hit.text for hit in await bank.recall("Lisbon", kinds={"observation"})] == [LISBON]
    await sound(bank)


async def test_a_deleted_observation_is_restored_by_its_last_version(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe(LISBON)
    await teller.tell("That was never so.", "s1", belief, delete(""))
    assert await bank.observations() == []
    with pytest.raises(InvalidInput, match="was retracted"):
        await bank.revert(belief.id, 2, reason="r")
    await bank.revert(belief.id, 1, reason="it was so")
    assert [o.text for o in await bank.observations()] == [LISBON]
    await sound(bank)


async def test_revert_refuses_what_is_not_there_and_what_was_erased(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe(LISBON)
    await teller.tell("I moved to Berlin.", "secret", belief, update("", BERLIN, change="state_change"))
    await bank.forget(source="secret")
    for number, error in ((2, Conflict), (9, NotFound), (3, InvalidInput)):
        with pytest.raises(error):
            await bank.revert(belief.id, number, reason="r")
    with pytest.raises(NotFound):
        await bank.revert("5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11", 1, reason="r")
    with pytest.raises(InvalidInput, match="reason is blank"):
        await bank.revert(belief.id, 1, reason=" ")


async def test_a_correction_wins_over_the_model_which_may_only_propose(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe("The concert is on the 4th.")
    correction = await bank.correct(belief.id, "The concert is on the 14th.")
    assert (correction.source, correction.state, correction.metadata) == ("correction", MemoryState.DONE, {"corrects": belief.id})
    (told,) = await bank.observations()
    assert (told.id, told.text, told.confidence, told.proof_count) == (belief.id, "The concert is on the 14th.", 1.0, 1)
    assert [e.supports for e in told.evidence] == [False, True]
    await teller.tell("It is on the 24th.", "s1", belief, update("", "The concert is on the 24th.", change="correction"))
    by_text = {o.text: o for o in await bank.observations()}
    assert by_text["The concert is on the 24th."].contests == belief.id
    assert by_text["The concert is on the 14th."].version == 2
    await teller.tell("There is no concert.", "s2", belief, delete(""))
    assert (await bank.observation(belief.id)).state is ObservationState.LIVE
    await sound(bank)


async def test_a_correction_stands_when_all_it_corrected_is_erased_and_goes_with_its_own_source(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe("The concert is on the 4th.", source="s0")
    await bank.correct(belief.id, "The concert is on the 14th.")
    receipt = await bank.forget(source="s0")
    assert [o.text for o in await bank.observations()] == ["The concert is on the 14th."]
    assert (await bank.verify(receipt)).ok
    assert [v.text for v in await bank.history(belief.id)] == [None, "The concert is on the 14th."]
    receipt = await bank.forget(source="correction")
    assert await bank.observations() == []
    assert (await bank.verify(receipt)).ok
    await sound(bank)


async def test_a_persons_word_stays_one_after_a_rollback(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe("The concert is on the 4th.")
    await bank.correct(belief.id, "The concert is on the 14th.")
    later = await bank.correct(belief.id, "The concert is on the 15th.", source="a slip")
    await bank.forget(memory_ids=[later.id])
    (told,) = await bank.observations()
    assert told.text == "The concert is on the 14th."
    await teller.tell("It is on the 24th.", "s1", belief, update("", "The concert is on the 24th.", change="correction"))
    assert (await bank.observation(belief.id)).text == "The concert is on the 14th."


async def test_a_wrong_memory_is_put_right_and_stays_as_it_was_said(teller: Teller, script: ScriptedProposer) -> None:
    bank = teller.bank
    belief = await teller.believe(LISBON, source="s0")
    said = await teller.tell("I moved to Bern.", "s1", belief, update("", "Alice moved to Bern.", change="state_change"))
    only = await teller.believe("Bern is where Alice works.", source="s1")
    correction = await bank.correct(said, "I moved to Berlin, not to Bern.", reason="misheard")
    wrong = await bank.memory(said)
    assert (wrong.text, wrong.state, wrong.corrected_by) == ("I moved to Bern.", MemoryState.DONE, correction.id)
    assert (correction.source, correction.state) == ("s1", MemoryState.PENDING)
    assert {o.id: o.text for o in await bank.observations()} == {belief.id: LISBON, only.id: only.text}
    script.answer_with([word_for_word])
    await bank.consolidate()
    assert "I moved to Berlin, not to Bern." in {o.text for o in await bank.observations()}
    hits = {hit.id: hit for hit in await bank.recall("I moved to Bern.", kinds={"memory"})}
    assert hits[said].superseded_by == correction.id
    await sound(bank)


async def test_a_pass_is_taken_back_whole(teller: Teller, script: ScriptedProposer) -> None:
    bank = teller.bank
    belief = await teller.believe(LISBON, source="s0")
    dog = await teller.believe("Alice has a dog.", source="s0")
    cat = await teller.believe("Alice has a cat.", source="s0")
    kept = await bank.retain(["I moved.", "No dog.", "A bike!", "A cat, yes.", "Hm."], source="s1")

    def answer(batch: Batch) -> Proposal:
        o = {c.observation.id: c.alias for c in batch.candidates}
        actions = plan(
            update(o[belief.id], BERLIN, "m1", change="state_change"), delete(o[dog.id], "m2"), create("Alice has a bike.", "m3"),
            update(o[cat.id], "Alice has a cat.", "m4", change="restate"),
        )
        return actions.model_copy(update={"nothing": (NothingDurable(memory="m5"),)})

    teller.say(answer)
    await bank.consolidate()
    done = (await bank.journal())[-1].intent
    before = {o.id: (o.text, o.proof_count) for o in (belief, dog, cat)}
    assert len(await bank.undo(done, reason="a bad model")) == 4
    assert {o.id: (o.text, o.proof_count) for o in await bank.observations()} == before
    states = {m.text: m.state for m in await bank.memories(source="s1")}
    assert set(states.values()) == {MemoryState.HELD}
    assert {row.reason for row in await bank.parked()} == {"its pass was taken back: a bad model"}
    with pytest.raises(Conflict, match="have changed since"):
        await bank.undo(done, reason="twice")
    await bank.replay()
    script.answer_with([word_for_word])
    assert (await bank.consolidate()).created == len(kept.memories)
    await sound(bank)


async def test_a_pass_whose_observations_moved_on_is_not_taken_back(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe(LISBON)
    first = (await bank.journal())[-1].intent
    await teller.tell("I moved to Berlin.", "s1", belief, update("", BERLIN, change="state_change"))
    before = await bank.observations()
    with pytest.raises(Conflict, match=belief.id):
        await bank.undo(first, reason="r")
    assert await bank.observations() == before
    with pytest.raises(NotFound):
        await bank.undo("no such pass", reason="r")


@pytest.mark.parametrize("text", ["", "  ", "x" * 500])
async def test_a_correction_is_one_statement(teller: Teller, text: str) -> None:
    belief = await teller.believe(LISBON)
    with pytest.raises(InvalidInput):
        await teller.bank.correct(belief.id, text)
    assert len(await teller.bank.memories()) == 1


async def test_a_correction_stays_in_its_scope_and_takes_the_place_of_what_was_said(bank: Bank, teller: Teller) -> None:
    belief = await teller.believe("The concert is on the 4th.", tags={"band"})
    assert (await bank.correct(belief.id, "The concert is on the 14th.")).tags == {"band"}
    (wrong,) = (await bank.retain("It is on the 5th.", source="s1", speaker="Bob", tags={"band"}, occurred_at=NOW)).memories
    right = await bank.correct(wrong.id, "It is on the 15th.")
    assert (right.tags, right.speaker, right.occurred_at, right.source) == (frozenset({"band"}), "Bob", NOW, "s1")
    await sound(bank)


async def test_an_erasure_is_not_undone_and_an_undo_is(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe(LISBON)
    await teller.tell("I moved to Berlin.", "secret", belief, update("", BERLIN, change="state_change"))
    await bank.forget(source="secret")
    erasure = (await bank.journal())[-1].intent
    with pytest.raises(InvalidInput, match="it cannot be taken back"):
        await bank.undo(erasure, reason="r")
    await teller.tell("In Lisbon, yes.", "s2", belief, update("", LISBON, change="restate"))
    await bank.undo((await bank.journal())[-1].intent, reason="a mistake")
    assert (await bank.observation(belief.id)).proof_count == 1
    await bank.undo((await bank.journal())[-1].intent, reason="no mistake")
    assert [v.text for v in await bank.history(belief.id)] == [LISBON, None, LISBON]
    await sound(bank)


async def test_an_undo_that_is_refused_holds_nothing(teller: Teller, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = teller.bank
    await teller.believe(LISBON)
    done = (await bank.journal())[-1].intent

    async def refused(*_: object) -> int:
        raise LeaseLost

    monkeypatch.setattr(bank._parts.ledger, "commit", refused)
    with pytest.raises(LeaseLost):
        await bank.undo(done, reason="r")
    assert await bank.parked() == []
    assert [m.state for m in await bank.memories()] == [MemoryState.DONE]


async def test_what_was_undone_rests_on_its_origins_when_it_comes_back(teller: Teller) -> None:
    """An undo takes the evidence away; whoever brings the text back all the same brings it with what it came from."""
    bank = teller.bank
    belief = await teller.believe(LISBON)
    made = (await bank.journal())[-1].intent
    await bank.undo(made, reason="a mistake")
    assert [o.evidence for o in await bank.observations(state="retracted")] == [()]
    back = await bank.revert(belief.id, 1, reason="no mistake")
    assert [e.memory_id for e in back.evidence] == [e.memory_id for e in belief.evidence]
    await sound(bank)


async def test_an_undo_can_be_undone(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe(LISBON)
    await bank.undo((await bank.journal())[-1].intent, reason="a mistake")
    (back,) = await bank.undo((await bank.journal())[-1].intent, reason="no mistake")
    assert (back.id, back.text, back.proof_count) == (belief.id, LISBON, 1)
    await sound(bank)


async def test_what_only_an_erased_correction_had_put_right_is_as_it_was_said(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe(LISBON)
    correction = await bank.correct(belief.evidence[0].memory_id, "I live in Porto.", source="slip")
    assert await bank.observations() == []
    receipt = await bank.forget(memory_ids=[correction.id])
    (said,) = await bank.memories()
    assert (said.corrected_by, said.state) == (None, MemoryState.PENDING)
    assert (await bank.verify(receipt)).ok
    (hit,) = await bank.recall("Lisbon")
    assert hit.superseded_by is None
    await sound(bank)
    (planted,) = await bank._parts.memories.get(bank.id, [said.id])
    await bank._parts.memories.patch(bank.id, said.id, {"corrected_by": correction.id}, expect=planted.payload["rev"])
    assert [f"memories/{said.id}: was put right by what was erased"] == [*(await bank.verify(receipt)).found]
