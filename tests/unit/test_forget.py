"""Forgetting: three cases by lineage, nothing derived is served, and the receipt can be checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from consolidator.engine import Bank, Engine
from consolidator.errors import ErasedMeanwhile, InvalidInput
from consolidator.models import ErasureCase, MemoryState, ObservationState
from consolidator.ports import Point
from consolidator.proposals import Batch, NothingDurable, Proposal
from consolidator.testing import ScriptedProposer
from consolidator.testing.proposers import nothing_durable, word_for_word
from tests.script import Teller, create, delete, plan, update


@pytest.fixture
def teller(bank: Bank, script: ScriptedProposer) -> Teller:
    return Teller(bank, script)


async def everything_served(bank: Bank, queries: Sequence[str]) -> str:
    """All text that any reading verb gives out."""
    told: list[Any] = [await bank.recall(q, top_k=100, explain=True) for q in queries]
    observations = await bank.observations()
    told += [observations, await bank.memories(), await bank.journal(), await bank.parked()]
    ids = {o.id for o in observations} | {e.observation_id for e in await bank.journal() if e.observation_id}
    for id in ids:
        try:
            told.append(await bank.history(id))
        except Exception:  # noqa: BLE001 (an erased observation is not there)
            continue
    return repr(told)


async def test_e18_a_supporting_source_goes_and_the_observation_stays_as_it_is(teller: Teller, script: ScriptedProposer) -> None:
    bank = teller.bank
    belief = await teller.believe("Alice lives in Lisbon.", source="s0")
    await teller.tell("Alice, you know, still in Lisbon.", "s1", belief, update("", "Alice lives in Lisbon.", change="restate"))
    asked = len(script.batches)
    receipt = await bank.forget(source="s1")
    (kept,) = await bank.observations()
    assert (kept.id, kept.text, kept.version, kept.proof_count) == (belief.id, "Alice lives in Lisbon.", 1, 1)
    assert [row.case for row in receipt.observations] == [ErasureCase.SUPPORT_DROPPED]
    assert (receipt.state, receipt.model_calls, receipt.reopened) == ("settled", 0, ())
    assert len(script.batches) == asked  # no model was asked
    assert (await bank.verify(receipt)).ok


async def test_e18_a_text_that_knew_it_is_rolled_back(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe("Tobias drinks flat white.", source="s0")
    changed = update("", "Tobias used to drink flat white, now rooibos.", change="state_change")
    await teller.tell("I drink rooibos now.", "secret", belief, changed)
    later = await teller.tell("Tobias takes it without sugar.", "s2", belief, update("", "Tobias drinks rooibos without sugar."))
    receipt = await bank.forget(source="secret")
    (kept,) = await bank.observations()
    assert (kept.id, kept.text) == (belief.id, "Tobias drinks flat white.")
    assert kept.version == 4  # the way back is a version too
    assert receipt.reopened == (later,)
    assert (await bank.memory(later)).state is MemoryState.PENDING
    (row,) = receipt.observations
    assert (row.case, row.purged_versions) == (ErasureCase.ROLLED_BACK, (2, 3))
    texts = [v.text for v in await bank.history(belief.id)]
    assert texts == ["Tobias drinks flat white.", None, None, "Tobias drinks flat white."]
    assert "rooibos" not in await everything_served(bank, ["What does Tobias drink?"])
    assert (await bank.verify(receipt)).ok


async def test_e17_an_observation_of_the_erased_source_alone_is_erased(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe("Alice was diagnosed at Southmead.", source="secret")
    same = update("", "Alice was diagnosed at Southmead.", change="restate")
    support = await teller.tell("Alice's diagnosis, yes.", "s1", belief, same)
    receipt = await bank.forget(source="secret")
    assert await bank.observations() == []
    assert (receipt.reopened, [r.case for r in receipt.observations]) == ((support,), [ErasureCase.ERASED])
    assert "Southmead" not in await everything_served(bank, ["diagnosis", "Southmead"])
    assert (await bank.verify(receipt)).ok


async def test_what_the_erased_memory_alone_had_deleted_is_reopened(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe("Alice has a dog.", source="s0")
    await teller.tell("There never was a dog.", "secret", belief, delete(""))
    assert await bank.observations() == []
    receipt = await bank.forget(source="secret")
    (back,) = await bank.observations()
    assert (back.id, back.text, back.state) == (belief.id, "Alice has a dog.", ObservationState.LIVE)
    assert [r.case for r in receipt.observations] == [ErasureCase.REOPENED]


async def test_what_others_confirm_stays_deleted(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe("Alice has a dog.", source="s0")
    await bank.retain(["There never was a dog."], source="secret")
    await bank.retain(["Right, no dog ever."], source="s2")
    teller.say(lambda batch: plan(delete(batch.candidates[0].alias, "m1", "m2")))
    await bank.consolidate()
    await bank.forget(source="secret")
    assert await bank.observations() == []
    assert (await bank.observation(belief.id)).state is ObservationState.RETRACTED


async def test_e32_a_plan_whose_memory_was_erased_meanwhile_is_discarded(teller: Teller, script: ScriptedProposer) -> None:
    bank = teller.bank
    await bank.retain(["Alice was at Southmead."], source="secret")
    await bank.retain(["Alice likes tea."], source="s1")

    class Racing(ScriptedProposer):
        async def propose(self, batch: Batch) -> Proposal:
            self.batches.append(batch)
            if len(self.batches) == 1:  # the source is erased while the model thinks
                memories = await bank.memories(source="secret")
                await bank._services.forgetting.accept(bank.id, {"source": "secret"}, memories)
            return word_for_word(batch)

    racing = Racing()
    object.__setattr__(bank._parts, "proposer", racing)
    await bank.consolidate()
    assert [o.text for o in await bank.observations()] == ["Alice likes tea."]
    assert [{s.memory.text for s in b.memories} for b in racing.batches] == [
        {"Alice was at Southmead.", "Alice likes tea."}, {"Alice likes tea."},
    ]
    assert {r.state for r in await bank.receipts()} == {"settled"}
    assert "Southmead" not in await everything_served(bank, ["Southmead"])


async def test_an_accepted_erasure_is_safe_at_once(teller: Teller) -> None:
    """Between the acceptance and the rollback nothing that rests on it is served."""
    bank = teller.bank
    belief = await teller.believe("Tobias drinks flat white.", source="s0")
    await teller.tell("Rooibos now.", "secret", belief, update("", "Tobias drinks rooibos now.", change="state_change"))
    memories = await bank.memories(source="secret")
    await bank._services.forgetting.accept(bank.id, {"source": "secret"}, memories)
    assert await bank.observations() == []  # withheld, not rolled back yet
    hits = await bank.recall("What does Tobias drink?")
    assert [h.text for h in hits] == ["Tobias drinks flat white."]
    await bank.consolidate()
    assert [o.text for o in await bank.observations()] == ["Tobias drinks flat white."]


async def test_nothing_durable_and_skipped_rows_lose_their_text_too(teller: Teller) -> None:
    bank = teller.bank
    await bank.retain(["Alice was at Southmead.", "Doctor Okonjo, perhaps."], source="secret")
    teller.say(Proposal(
        actions=(create("Alice was at Southmead.", "m1", confidence=0.1),),
        nothing=(NothingDurable(memory="m2", reason="Okonjo is only a name"),), by="script",
    ))
    await bank.consolidate()
    receipt = await bank.forget(source="secret")
    assert receipt.journal_rows == 2
    journal = await bank.journal()
    assert [e.action for e in journal] == ["skipped", "nothing_durable"]
    assert all(e.after is None and e.reason is None and e.digest for e in journal)
    assert (await bank.verify(receipt)).ok


async def test_a_dry_run_shows_the_receipt_that_would_be(teller: Teller) -> None:
    bank = teller.bank
    await teller.believe("Alice was at Southmead.", source="secret")
    planned = await bank.forget(source="secret", dry_run=True)
    assert (planned.state, len(planned.memories), [r.case for r in planned.observations]) == ("planned", 1, [ErasureCase.ERASED])
    assert len(await bank.observations()) == 1
    assert len(await bank.memories()) == 1
    assert not (await bank.verify(planned)).ok  # and verification sees that nothing was done


async def test_verify_finds_what_was_left(teller: Teller) -> None:
    bank = teller.bank
    belief = await teller.believe("Alice was at Southmead.", source="secret")
    (memory,) = await bank.memories()
    receipt = await bank.forget(source="secret")
    assert (await bank.verify(receipt)).ok
    point = (await bank._parts.observations.get(bank.id, [belief.id]))[0]
    left = Point(id=belief.id, payload={**point.payload, "evidence_memory_ids": [memory.id]})
    await bank._parts.observations.put(bank.id, [left])
    found = (await bank.verify(receipt)).found
    assert found == (f"observations/{belief.id}: rests on what was erased",)


async def test_forgetting_what_is_not_there_changes_nothing(teller: Teller) -> None:
    bank = teller.bank
    await teller.believe("Alice lives in Lisbon.")
    receipt = await bank.forget(source="never told")
    assert (receipt.memories, receipt.state) == ((), "nothing")
    assert (await bank.verify(receipt)).found == ("receipt: it erased nothing",)  # a mistyped source proves nothing
    assert len(await bank.observations()) == 1


async def test_forgetting_twice(teller: Teller) -> None:
    bank = teller.bank
    await teller.believe("Alice was at Southmead.", source="secret")
    first = await bank.forget(source="secret")
    second = await bank.forget(source="secret")
    assert (len(first.memories), second.memories) == (1, ())
    assert (await bank.verify(first)).ok


async def test_a_text_told_again_after_it_was_forgotten_is_new(teller: Teller) -> None:
    bank = teller.bank
    (old,) = (await bank.retain("Alice was at Southmead.", source="chat")).memories
    receipt = await bank.forget(source="chat")
    again = await bank.retain("Alice was at Southmead.", source="chat")
    assert again.new == 1
    assert again.memories[0].id != old.id
    teller.say(word_for_word)
    await bank.consolidate()
    assert [o.text for o in await bank.observations()] == ["Alice was at Southmead."]
    assert (await bank.verify(receipt)).ok  # it is known from the new telling alone


@pytest.mark.parametrize("chosen", ["ids", "tags", "source and tags"])
async def test_memories_are_chosen_by_all_that_is_given(bank: Bank, chosen: str) -> None:
    one = (await bank.retain("One.", source="a", tags={"x"})).memories[0]
    two = (await bank.retain("Two.", source="a", tags={"x", "y"})).memories[0]
    three = (await bank.retain("Three.", source="b", tags={"y"})).memories[0]
    requests: dict[str, dict[str, Any]] = {
        "ids": {"memory_ids": [one.id, three.id]}, "tags": {"tags": {"y"}}, "source and tags": {"source": "a", "tags": {"y"}},
    }
    expected = {"ids": {one.id, three.id}, "tags": {two.id, three.id}, "source and tags": {two.id}}[chosen]
    assert set((await bank.forget(**requests[chosen])).memories) == expected


async def test_forget_says_what_it_needs(bank: Bank) -> None:
    with pytest.raises(InvalidInput, match="memory_ids, source, tags or before"):
        await bank.forget()
    with pytest.raises(InvalidInput, match="source is blank"):
        await bank.forget(source=" ")


async def test_unknown_filters_are_refused_with_the_known_ones(bank: Bank) -> None:
    with pytest.raises(InvalidInput, match='no state "bogus"; known are unembedded, pending'):
        await bank.memories(state="bogus")
    with pytest.raises(InvalidInput, match='no trend "bogus"; known are new, strengthening'):
        await bank.observations(trend="bogus")


async def test_a_receipt_belongs_to_its_bank(engine: Engine, bank: Bank) -> None:
    await bank.retain("One.", source="a")
    receipt = await bank.forget(source="a")
    with pytest.raises(InvalidInput, match='of bank "alice"'):
        await engine.bank("bob").verify(receipt)


async def test_e09_every_dependent_of_a_source_is_reached(bank: Bank, script: ScriptedProposer) -> None:
    """More dependents than a page of the store, and more than one plan takes."""
    texts = [f"Alice owns object number {n} of her collection." for n in range(300)]
    await bank.retain(texts, source="secret")
    script.answer_with([word_for_word] * 100)
    await bank.consolidate()
    assert len(await bank.observations()) == 300
    receipt = await bank.forget(source="secret")
    assert await bank.observations() == []
    assert len(receipt.observations) == 300
    assert (await bank.verify(receipt)).ok


async def test_g26_an_erased_memory_feeds_no_later_pass(teller: Teller, script: ScriptedProposer) -> None:
    bank = teller.bank
    await bank.retain(["Alice was at Southmead."], source="secret")
    await bank.forget(source="secret")
    teller.say(nothing_durable)
    await bank.consolidate()
    assert script.batches == []


def test_the_error_is_a_conflict() -> None:
    assert "erased meanwhile" in str(ErasedMeanwhile())


async def test_a_reason_may_not_keep_what_was_read_beside(teller: Teller) -> None:
    """A model can quote one memory in the reason of an action that cites another, or in a text that is held back."""
    bank = teller.bank
    await bank.retain(["Alice was at Southmead."], source="secret")
    await bank.retain(["Alice likes tea.", "Alice paints."], source="s1")
    quoting = create("Alice likes tea.", "m2").model_copy(update={"reason": "not about Southmead"})
    held_back = create("Alice paints, since Southmead.", "m3", confidence=0.1)
    teller.say(Proposal(actions=(quoting, held_back), nothing=(NothingDurable(memory="m1"),), by="script"))
    await bank.consolidate()
    await bank.forget(source="secret")
    assert "Southmead" not in await everything_served(bank, ["Southmead"])
    assert not [text for _, text in await bank._parts.ledger.texts(bank.id) if "Southmead" in text]
    assert [o.text for o in await bank.observations()] == ["Alice likes tea."]
