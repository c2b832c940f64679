"""Defects of earlier systems that concern the rooms between, each by its number; the others stand with their rooms."""

from __future__ import annotations

import pytest

from consolidator.engine import Bank
from consolidator.errors import EmbedderUnavailable
from consolidator.models import MemoryState
from consolidator.plans import Report
from consolidator.points import collection_specs, observation_of
from consolidator.ports import AnyOf, Point
from consolidator.testing import HashEmbedder, ScriptedProposer
from consolidator.testing.proposers import word_for_word
from tests.script import Teller, create, delete, plan, update


@pytest.fixture
def teller(bank: Bank, script: ScriptedProposer) -> Teller:
    return Teller(bank, script)


def embedder_of(bank: Bank) -> HashEmbedder:
    embedder = bank._parts.embedder
    assert isinstance(embedder, HashEmbedder)
    return embedder


async def test_e01_an_update_whose_embedding_fails_leaves_the_old_record_whole(teller: Teller) -> None:
    bank = teller.bank
    old = await teller.believe("Alice lives in Lisbon.")
    (memory,) = (await bank.retain("Alice lives in Berlin now.", source="s1")).memories

    def answer(batch: object) -> object:
        embedder_of(bank).down = True
        return plan(update("o1", "Alice used to live in Lisbon, now in Berlin."))

    teller.say(answer)
    with pytest.raises(EmbedderUnavailable):
        await bank.consolidate()
    assert await bank.observations() == [old]
    assert (await bank.memory(memory.id)).state is MemoryState.PENDING
    embedder_of(bank).down = False
    teller.say(plan(update("o1", "Alice used to live in Lisbon, now in Berlin.")))
    await bank.consolidate()
    assert [(o.id, o.version) for o in await bank.observations()] == [(old.id, 2)]


async def test_e02_a_malformed_record_in_the_store_is_no_loss(teller: Teller) -> None:
    """The ledger decides: what it holds is written back whole by the next change."""
    bank = teller.bank
    old = await teller.believe("Alice lives in Lisbon.")
    (point,) = await bank._parts.observations.get(bank.id, [old.id], vectors=True)
    broken = {**point.payload, "evidence": 5, "evidence_memory_ids": []}
    await bank._parts.observations.put(bank.id, [Point(id=old.id, payload=broken, dense=point.dense, lexical=old.text)])
    await teller.tell("Alice still lives in Lisbon.", "s1", old, update("", old.text, change="restate"))
    (kept,) = await bank.observations()
    assert (kept.id, kept.proof_count, len(kept.evidence)) == (old.id, 2, 2)


async def test_e03_evidence_is_one_list_of_records(teller: Teller) -> None:
    old = await teller.believe("Alice lives in Lisbon.")
    for n in range(3):
        await teller.tell(f"Lisbon it is, {n}.", f"t{n}", old, update("", old.text, change="restate"))
    (kept,) = await teller.bank.observations()
    assert all(e.memory_id and e.source and e.occurred_at.tzinfo for e in kept.evidence)
    assert len(kept.evidence) == kept.proof_count == 4


async def test_e16_nothing_derived_is_stored(teller: Teller) -> None:
    """Trend and proof follow from the evidence at the time of the question."""
    old = await teller.believe("Alice lives in Lisbon.")
    (point,) = await teller.bank._parts.observations.get(teller.bank.id, [old.id])
    assert not {"trend", "proof_count", "freshness"} & set(point.payload)


async def test_e19_what_rests_on_a_memory_is_an_indexed_filter(teller: Teller) -> None:
    bank = teller.bank
    old = await teller.believe("Alice lives in Lisbon.")
    await teller.believe("Alice likes tea.", source="s1")
    memory = old.evidence[0].memory_id
    page = await bank._parts.observations.scan(bank.id, [AnyOf("evidence_memory_ids", (memory,))])
    assert [observation_of(bank.id, point).id for point in page.points] == [old.id]
    _, observations = collection_specs(8, "x")
    assert {"evidence_memory_ids", "evidence_sources", "lineage_memory_ids"} <= set(observations.keywords)


async def test_e22_that_work_is_owed_stands_on_the_memory_itself(bank: Bank) -> None:
    (memory,) = (await bank.retain("Alice lives in Lisbon.", source="s")).memories
    (point,) = await bank._parts.memories.get(bank.id, [memory.id])
    assert point.payload["state"] == "pending"  # written by the same put: there is no second record to lose


async def test_e29_every_action_ends_in_exactly_one_counter(teller: Teller) -> None:
    bank = teller.bank
    for n, text in enumerate(["Alice has a dog.", "Alice likes tea.", "Alice lives in Lisbon."]):
        await teller.believe(text, source=f"s{n}")
    told = ["No dog.", "Tea, yes.", "Berlin now.", "Maybe Rome.", "Alice paints."]
    await bank.retain(told, source="s9")

    def answer(batch: object) -> object:
        alias = {c.observation.text: c.alias for c in batch.candidates}  # type: ignore[attr-defined]
        return plan(
            delete(alias["Alice has a dog."], "m1"),
            update(alias["Alice likes tea."], "Alice likes tea.", "m2", change="restate"),
            update(alias["Alice lives in Lisbon."], "Alice used to live in Lisbon, now Berlin.", "m3", change="state_change"),
            create("Alice lives in Rome.", "m4", confidence=0.1), create("Alice paints.", "m5"),
        )

    teller.say(answer)
    report = await bank.consolidate()
    assert (report.deleted, report.reinforced, report.updated, report.skipped, report.created) == (1, 1, 1, 1, 1)
    assert counters(report) == len(report.actions) == 5
    assert report.consolidated == 5


def counters(report: Report) -> int:
    return sum(getattr(report, name) for name in ("created", "updated", "reinforced", "deleted", "merged", "skipped"))


async def test_g18_observations_are_not_consolidated_again(teller: Teller, script: ScriptedProposer) -> None:
    await teller.believe("Alice lives in Lisbon.")
    script.answer_with([word_for_word])
    await teller.bank.consolidate()
    assert len(script.batches) == 1  # nothing was pending


async def test_g37_what_a_pass_cost_is_counted(bank: Bank, script: ScriptedProposer) -> None:
    await bank.retain("Alice lives in Lisbon.", source="s")
    answer = plan(create("Alice lives in Lisbon."))
    script.answer_with([answer.model_copy(update={"calls": 2, "prompt_tokens": 900, "reply_tokens": 80})])
    report = await bank.consolidate()
    stats = await bank.stats()
    assert (report.calls, report.prompt_tokens, report.reply_tokens) == (2, 900, 80)
    assert (stats.model_calls, stats.prompt_tokens, stats.reply_tokens, stats.passes) == (2, 900, 80, 1)
