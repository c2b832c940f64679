"""Consolidation: guards, accounting, and what a plan may never do. The proposer says what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from consolidator.consolidation import ConsolidationPolicy
from consolidator.engine import Bank
from consolidator.errors import BadReply, ModelRefused, ModelTooLong, ModelUnavailable
from consolidator.models import MemoryState, Observation, ObservationState, Trust
from consolidator.proposals import Batch, NothingDurable, Proposal
from consolidator.testing import ManualClock, ScriptedProposer
from consolidator.testing.proposers import nothing_durable, word_for_word
from tests.script import Teller, create, delete, plan, update

Say = Callable[..., None]
Believe = Callable[..., Awaitable[Observation]]


@pytest.fixture
def say(script: ScriptedProposer) -> Say:
    """Put the next answers into the proposer's mouth."""
    return lambda *answers: script.answer_with(answers)


@pytest.fixture
def believe(bank: Bank, script: ScriptedProposer) -> Believe:
    """Retain a text and make it an observation, word for word."""
    return Teller(bank, script).believe


async def test_a_create_becomes_an_observation_with_its_evidence(bank: Bank, say: Say) -> None:
    (memory,) = (await bank.retain("I moved to Berlin.", source="chat", speaker="Alice")).memories
    say(plan(create("Alice moved to Berlin.", confidence=0.9)))
    report = await bank.consolidate()
    (made,) = await bank.observations()
    assert (made.text, made.confidence, made.version, made.proof_count) == ("Alice moved to Berlin.", 0.9, 1, 1)
    assert [(e.memory_id, e.source) for e in made.evidence] == [(memory.id, "chat")]
    assert (report.created, report.consolidated, report.passes) == (1, 1, 1)
    assert (await bank.memory(memory.id)).state is MemoryState.DONE


async def test_e20_an_update_keeps_the_id_and_its_history_can_be_read(bank: Bank, say: Say, believe: Believe) -> None:
    old = await believe("Alice lives in Lisbon.")
    await bank.retain("Alice lives in Berlin now.", source="s1")
    say(plan(update("o1", "Alice used to live in Lisbon and lives in Berlin now.", change="state_change")))
    await bank.consolidate()
    (new,) = await bank.observations()
    assert (new.id, new.version, new.proof_count) == (old.id, 2, 2)
    versions = await bank.history(new.id)
    assert [v.text for v in versions] == ["Alice lives in Lisbon.", "Alice used to live in Lisbon and lives in Berlin now."]
    assert [v.change for v in versions] == ["create", "state_change"]


async def test_e31_creation_and_update_times_are_kept_apart(bank: Bank, say: Say, clock: ManualClock, believe: Believe) -> None:
    old = await believe("Alice lives in Lisbon.")
    clock.move(timedelta(days=3))
    await bank.retain("Alice lives in Lisbon, by the river.", source="s1")
    say(plan(update("o1", "Alice lives in Lisbon, by the river.")))
    await bank.consolidate()
    (new,) = await bank.observations()
    assert (new.created_at, new.updated_at) == (old.created_at, clock())


async def test_e08_proof_counts_distinct_sources(bank: Bank, say: Say, believe: Believe) -> None:
    await believe("Alice lives in Lisbon.")
    for n, source in enumerate(["s0", "s0", "s1"]):
        await bank.retain(f"Alice still lives in Lisbon, {n}.", source=source)
        say(plan(update("o1", "Alice lives in Lisbon.", change="restate")))
        await bank.consolidate()
    (kept,) = await bank.observations()
    assert (kept.proof_count, len(kept.evidence), kept.version) == (2, 4, 1)


async def test_e05_min_confidence_holds_for_creates_and_updates(bank: Bank, say: Say, believe: Believe) -> None:
    await believe("Alice lives in Lisbon.")
    await bank.retain(["Perhaps Alice lives in Rome.", "Perhaps she paints."], source="s1")
    say(plan(update("o1", "Alice lives in Rome.", confidence=0.01), create("Alice paints.", "m2", confidence=0.3)))
    report = await bank.consolidate()
    assert [o.text for o in await bank.observations()] == ["Alice lives in Lisbon."]
    assert (report.skipped, report.updated, report.created) == (2, 0, 0)
    assert {e.action for e in await bank.journal()} >= {"skipped"}


async def test_e27_an_update_without_confidence_leaves_it(bank: Bank, say: Say, believe: Believe) -> None:
    await believe("Alice lives in Lisbon.")
    await bank.retain("Alice lives in the old town of Lisbon.", source="s1")
    say(plan(update("o1", "Alice lives in the old town of Lisbon.")))
    await bank.consolidate()
    assert (await bank.observations())[0].confidence == 0.8


async def test_e26_two_equal_creates_are_one_observation(bank: Bank, say: Say) -> None:
    await bank.retain(["Alice likes tea.", "She likes tea, Alice does."], source="s")
    say(plan(create("Alice likes tea.", "m1"), create("alice  likes TEA.", "m2")))
    report = await bank.consolidate()
    (only,) = await bank.observations()
    assert len(only.evidence) == 2
    assert (report.created, report.reinforced) == (1, 1)


async def test_e26_a_create_that_says_what_is_known_becomes_evidence(bank: Bank, say: Say, believe: Believe) -> None:
    known = await believe("Alice likes tea.")
    await bank.retain("As ever, Alice likes her tea.", source="s1")
    say(plan(create("Alice likes tea.")))
    await bank.consolidate()
    (only,) = await bank.observations()
    assert (only.id, only.proof_count) == (known.id, 2)


async def test_g13_similar_is_not_equal(bank: Bank, say: Say, believe: Believe) -> None:
    await believe("Alice paid 120 euros for the desk.")
    await bank.retain("Alice paid 125 euros for the desk.", source="s1")
    say(plan(create("Alice paid 125 euros for the desk.")))
    await bank.consolidate()
    assert len(await bank.observations()) == 2


async def test_g12_an_update_that_drifts_onto_another_observation_is_merged(bank: Bank, say: Say, believe: Believe) -> None:
    one = await believe("Alice drinks green tea.", source="s0")
    other = await believe("Alice has a hot drink at work.", source="s1")
    await bank.retain("At work Alice drinks green tea.", source="s2")

    def drift(batch: Batch) -> Proposal:
        alias = next(c.alias for c in batch.candidates if c.observation.id == other.id)
        return plan(update(alias, "Alice drinks green tea."))

    say(drift)
    report = await bank.consolidate()
    (left,) = await bank.observations()
    assert (left.id, left.proof_count, report.merged) == (other.id, 3, 1)
    assert [v.change for v in await bank.history(one.id)] == ["create", "merge"]


async def test_e25_a_delete_is_a_version_and_can_be_read(bank: Bank, say: Say, believe: Believe) -> None:
    gone = await believe("Alice has a dog.")
    await bank.retain("Alice never had a dog, that was a joke.", source="s1")
    say(plan(delete("o1")))
    report = await bank.consolidate()
    assert report.deleted == 1
    assert await bank.observations() == []
    assert not [h for h in await bank.recall("Alice dog") if h.kind == "observation"]
    assert (await bank.observation(gone.id)).state is ObservationState.RETRACTED
    assert [v.change for v in await bank.history(gone.id)] == ["create", "delete"]


async def test_e25_deletes_are_capped_in_a_pass(bank: Bank, say: Say, believe: Believe) -> None:
    for n, pet in enumerate(["dog", "cat", "fish"]):
        await believe(f"Alice has a {pet}.", source=f"s{n}")
    await bank.retain("Alice has no dog, no cat and no fish.", source="s9")
    say(lambda batch: plan(*(delete(c.alias) for c in batch.candidates)))
    report = await bank.consolidate()
    assert (report.deleted, report.skipped) == (2, 1)
    assert len(await bank.observations()) == 1


async def test_e25_much_proof_is_not_deleted_on_the_word_of_one(bank: Bank, say: Say, believe: Believe) -> None:
    await believe("Alice has a dog.")
    for n in range(1, 5):
        await bank.retain(f"Alice walks her dog, day {n}.", source=f"s{n}")
        say(plan(update("o1", "Alice has a dog.", change="restate")))
        await bank.consolidate()
    await bank.retain("There is no dog.", source="s9")
    say(plan(delete("o1")))
    report = await bank.consolidate()
    assert (report.deleted, report.skipped) == (0, 1)
    assert len(await bank.observations()) == 1


async def test_low_trust_deletes_nothing_that_higher_trust_said(bank: Bank, say: Say, believe: Believe) -> None:
    await believe("Alice owns the house.")
    await bank.retain("Alice sold the house.", source="web", trust=Trust.TOOL)
    say(plan(delete("o1")))
    report = await bank.consolidate()
    assert report.skipped == 1
    assert [o.text for o in await bank.observations()] == ["Alice owns the house."]


async def test_low_trust_overwrites_nothing_that_higher_trust_said(bank: Bank, say: Say, believe: Believe) -> None:
    """What it says stands beside, names what it contradicts, and is never put before it for being newer."""
    old = await believe("Alice owns the house.")
    for source in ("web", "another page"):  # the second one supports the first: still no third observation
        await bank.retain("Alice sold the house.", source=source, trust=Trust.TOOL)
        say(lambda batch: plan(update(alias_of(batch, old), "Alice sold the house.")))
        await bank.consolidate()
    kept, contested = sorted(await bank.observations(), key=lambda o: o.text)
    assert (kept.text, kept.version, kept.evidence) == ("Alice owns the house.", 1, old.evidence)
    assert (contested.text, contested.contests, contested.proof_count) == ("Alice sold the house.", old.id, 2)
    hits = {hit.id: hit for hit in await bank.recall("Who owns the house of Alice?")}
    assert hits[old.id].superseded_by is None
    assert "contradicts what a more trusted source said" in hits[contested.id].line
    await bank.forget(source="s0")  # what it was said against is gone, and with it the text that restates it
    assert [o.text for o in await bank.observations()] in ([], ["Alice sold the house."])


def alias_of(batch: Batch, observation: Observation) -> str:
    return next(c.alias for c in batch.candidates if c.observation.id == observation.id)


async def test_g21_a_correction_leaves_the_old_evidence_as_contradiction(bank: Bank, say: Say, believe: Believe) -> None:
    await believe("The concert is on the 4th.")
    await bank.retain("No wait, the concert is on the 14th.", source="s1")
    say(plan(update("o1", "The concert is on the 14th.", change="correction")))
    await bank.consolidate()
    (kept,) = await bank.observations()
    assert (kept.proof_count, [e.supports for e in kept.evidence]) == (1, [False, True])


async def test_e13_scopes_never_mix(bank: Bank, script: ScriptedProposer, say: Say, believe: Believe) -> None:
    await believe("Alice earns 52,400.", tags={"private"})
    await bank.retain("Alice earns well.", source="s1", tags={"public"})
    say(nothing_durable)
    await bank.consolidate()
    assert script.batches[-1].candidates == ()  # the private observation was not even shown
    hits = await bank.recall("What does Alice earn?", tags={"public"})
    assert [h.text for h in hits] == ["Alice earns well."]


async def test_e36_a_batch_holds_one_scope(bank: Bank, script: ScriptedProposer, clock: ManualClock) -> None:
    for n, tags in enumerate([{"a|b"}, {"a", "b"}, {"a", "b"}, set()]):
        await bank.retain(f"Fact {n}.", source="s", tags=tags)
        clock.move(timedelta(seconds=1))
    await bank.consolidate()
    assert [[s.memory.text for s in b.memories] for b in script.batches] == [["Fact 0."], ["Fact 1.", "Fact 2."], ["Fact 3."]]


async def test_e21_what_is_shown_may_be_named_nearest_first(
    bank: Bank, script: ScriptedProposer, say: Say, believe: Believe
) -> None:
    for n in range(20):
        await believe(f"Item {n} is in drawer {n}, says the list of drawers.", source=f"s{n}")
    await believe("Alice keeps bees on the roof.", source="bees")
    await bank.retain("On the roof Alice keeps bees, as ever.", source="s99")
    say(nothing_durable)
    await bank.consolidate()
    shown = script.batches[-1].candidates
    assert shown[0].observation.text == "Alice keeps bees on the roof."
    assert len(shown) <= ConsolidationPolicy().candidates


async def test_the_lineage_takes_in_what_was_read_without_being_cited(bank: Bank, say: Say) -> None:
    """A model may put one memory's words into an action that cites another: the lineage must know."""
    told = await bank.retain(["Alice has news.", "The clinic is called Southmead."], source="s")
    say(Proposal(actions=(create("Alice has news of Southmead.", "m1"),), nothing=(NothingDurable(memory="m2"),), by="script"))
    await bank.consolidate()
    (made,) = await bank.observations()
    assert (await bank.history(made.id))[0].lineage == {m.id for m in told.memories}


async def test_e24_the_journal_tells_what_happened(bank: Bank, say: Say, believe: Believe) -> None:
    await believe("Alice lives in Lisbon.")
    await bank.retain("Alice lives in Porto.", source="s1")
    say(plan(update("o1", "Alice lives in Porto.", change="state_change")))
    await bank.consolidate()
    created, updated = await bank.journal()
    assert (created.action, created.after) == ("created", "Alice lives in Lisbon.")
    assert (updated.before, updated.after, updated.by) == ("Alice lives in Lisbon.", "Alice lives in Porto.", "script")
    assert updated.cites == (updated.cites[0],)
    assert updated.digest


async def test_a_dry_run_changes_nothing(bank: Bank, say: Say) -> None:
    await bank.retain(["Alice lives in Lisbon.", "Bob lives in Porto."], source="s")
    say(word_for_word, word_for_word)
    report = await bank.consolidate(dry_run=True)
    assert [a.after for a in report.actions] == ["Alice lives in Lisbon.", "Bob lives in Porto."]
    assert report.dry_run
    assert await bank.observations() == []
    assert (await bank.stats()).pending == 2
    assert await bank.journal() == []


async def test_limit(bank: Bank, script: ScriptedProposer) -> None:
    await bank.retain([f"Fact {n}." for n in range(20)], source="s")
    await bank.consolidate(limit=10)
    assert [len(b.memories) for b in script.batches] == [8, 2]
    assert (await bank.stats()).pending == 10


async def test_e11_an_unusable_reply_is_no_nothing_to_do(bank: Bank, say: Say) -> None:
    await bank.retain("Alice lives in Lisbon.", source="s")
    say(BadReply("not understood", reply="raw"))
    report = await bank.consolidate()
    assert (report.left, report.nothing_durable) == (1, 0)
    assert report.faults == ("not understood",)
    assert (await bank.stats()).pending == 1


@pytest.mark.parametrize("error", [BadReply("bad"), ModelTooLong("long")])
async def test_a_batch_that_fails_is_halved_and_a_poison_memory_parked(
    bank: Bank, script: ScriptedProposer, say: Say, error: Exception
) -> None:
    await bank.retain(["good one", "poison", "good two", "good three"], source="s")

    def answer(batch: Batch) -> Proposal:
        if any(s.memory.text == "poison" for s in batch.memories):
            raise error
        return word_for_word(batch)

    for _ in range(5):
        say(*[answer] * 20)
        await bank.consolidate()
    assert {o.text for o in await bank.observations()} == {"good one", "good two", "good three"}
    (row,) = await bank.parked()
    assert (row.attempts, row.state) == (5, "parked")
    stats = await bank.stats()
    assert (stats.parked, stats.pending, stats.last_error) == (1, 0, str(error))
    assert await bank.memory(row.memory_id)  # nothing is lost


async def test_a_refusal_is_held(bank: Bank, say: Say) -> None:
    await bank.retain("something that a model will not read", source="s")
    say(ModelRefused("refused"))
    await bank.consolidate()
    assert (await bank.stats()).held == 1


async def test_an_unreachable_model_leaves_everything_pending(bank: Bank, say: Say) -> None:
    await bank.retain([f"Fact {n}." for n in range(12)], source="s")
    say(word_for_word, ModelUnavailable("down"))
    with pytest.raises(ModelUnavailable):
        await bank.consolidate()
    stats = await bank.stats()
    assert (stats.pending, stats.observations, stats.parked) == (4, 8, 0)


async def test_a_memory_that_is_not_accounted_for_stays_pending(bank: Bank, say: Say) -> None:
    await bank.retain(["Alice lives in Lisbon.", "Bob lives in Porto."], source="s")
    say(plan(create("Alice lives in Lisbon.")))
    report = await bank.consolidate()
    assert (report.consolidated, report.left) == (1, 1)
    assert (await bank.stats()).pending == 1


async def test_e07_a_second_consolidation_waits_for_the_first(bank: Bank, say: Say, believe: Believe) -> None:
    await believe("Alice lives in Lisbon.")
    for n in range(4):
        await bank.retain(f"Alice lives in Lisbon, said {n}.", source=f"t{n}")
    say(*[plan(update("o1", "Alice lives in Lisbon.", change="restate"))] * 4)
    await asyncio.gather(*(bank.consolidate(limit=1) for _ in range(4)))
    (kept,) = await bank.observations()
    assert kept.proof_count == 5


async def test_a_slip_put_right_in_the_same_batch_gives_no_support(bank: Bank, say: Say) -> None:
    told = await bank.retain(["The repair was 210 pounds.", "Sorry, it was 310."], source="s")
    slip, right = (m.id for m in told.memories)
    put_right = create("The repair was 310 pounds.", "m1", "m2").model_copy(update={"contradicted": ("m1",)})
    say(plan(put_right))
    await bank.consolidate()
    (made,) = await bank.observations()
    assert {e.memory_id: e.supports for e in made.evidence} == {slip: False, right: True}
    (hit,) = [h for h in await bank.recall("How much was the repair?") if h.kind == "observation"]
    assert hit.quote is not None
    assert hit.quote.id == right
