"""What the stateful test has found, each as short as it could be told."""

from __future__ import annotations

import pytest

from consolidator.engine import Bank
from consolidator.errors import BadReply
from consolidator.models import Trust
from consolidator.proposals import Batch, NothingDurable, Proposal
from consolidator.testing import ScriptedProposer
from tests.script import Teller, create, delete, plan, update

HOME = "In Ghent lives Mara."


@pytest.fixture
def store_kind() -> str:
    return "edge"


@pytest.fixture
def teller(bank: Bank, script: ScriptedProposer) -> Teller:
    return Teller(bank, script)


async def told(bank: Bank) -> list[str]:
    assert await bank.check() == []
    return sorted(o.text for o in await bank.observations())


async def test_what_was_merged_goes_with_the_source_that_its_words_came_from(bank: Bank, teller: Teller) -> None:
    """Every name in the text stands in two observations, so nothing but the merge tells where it came from."""
    await teller.believe(HOME, source="a")
    await teller.believe("Every day in Ghent Mara bakes.", source="b")
    other = await teller.believe("She lives by a canal.", source="c")
    await teller.tell("She lives there.", "d", other, update("", HOME))
    assert await told(bank) == ["Every day in Ghent Mara bakes.", HOME]
    receipt = await bank.forget(source="a")
    assert await told(bank) == ["Every day in Ghent Mara bakes.", "She lives by a canal."]
    assert (await bank.verify(receipt)).ok


async def test_an_update_that_says_what_a_more_trusted_source_has_said_is_no_second_observation(
    bank: Bank, teller: Teller
) -> None:
    trusted = await teller.believe(HOME, source="a", trust=Trust.OPERATOR)
    other = await teller.believe("She lives by a canal.", source="b")
    memory = await teller.tell("Mara lives in Ghent.", "c", other, update("", HOME, confidence=0.6))
    (left,) = await bank.observations()
    assert (left.id, left.confidence) == (trusted.id, trusted.confidence)
    assert {e.memory_id for e in left.evidence} >= {trusted.evidence[0].memory_id, memory}
    await bank.forget(memory_ids=[memory])
    assert await told(bank) == [HOME, "She lives by a canal."]


async def test_two_updates_to_the_same_text_leave_one_observation(bank: Bank, teller: Teller) -> None:
    for text in ("She lives by a canal.", "She has a bakery."):
        await teller.believe(text, source="a")
    await bank.retain(["Mara lives in Ghent.", "Ghent is home to Mara."], source="b")
    teller.say(plan(update("o1", HOME, "m1"), update("o2", HOME, "m2")))
    await bank.consolidate()
    assert await told(bank) == [HOME]


async def test_an_update_to_a_text_that_is_restated_beside_it_leaves_one_observation(bank: Bank, teller: Teller) -> None:
    known = await teller.believe(HOME, source="a")
    other = await teller.believe("She lives by a canal.", source="a")
    await bank.retain(["Mara lives in Ghent.", "Ghent is home to Mara."], source="b")

    def answer(batch: Batch) -> Proposal:
        alias = {c.observation.id: c.alias for c in batch.candidates}
        return plan(update(alias[other.id], HOME, "m1"), update(alias[known.id], HOME, "m2", change="restate"))

    teller.say(answer)
    await bank.consolidate()
    assert await told(bank) == [HOME]
    (left,) = await bank.observations()
    assert (left.proof_count, len(left.evidence)) == (2, 4)


async def test_two_updates_to_a_text_that_is_restated_beside_them_leave_one_observation(bank: Bank, teller: Teller) -> None:
    """The second is nearer to the one that is restated, which goes, than to the first, which stays."""
    longer = f"{HOME} She bakes bread each day, sings alto in a small choir, keeps some cats, and reads whatever comes along"
    texts = (f"{longer}.", "She lives by a canal.", "She has a bakery.")
    known, one, other = [await teller.believe(it, source="a") for it in texts]
    await bank.retain(["Mara lives in Ghent.", "Ghent is home to Mara.", "Mara is from Ghent."], source="b")

    def answer(batch: Batch) -> Proposal:
        alias = {c.observation.id: c.alias for c in batch.candidates}
        updates = [update(alias[one.id], f"{longer} too.", "m1"), update(alias[other.id], f"{longer}.", "m2")]
        return plan(*updates, update(alias[known.id], f"{longer}.", "m3", change="restate"))

    teller.say(answer)
    await bank.consolidate()
    assert await told(bank) == [f"{longer} too."]
    (left,) = await bank.observations()
    assert (left.proof_count, len(left.evidence)) == (2, 5)


async def test_to_drop_nothing_twice_is_nothing(bank: Bank) -> None:
    await bank.retain("Mara lives in Ghent.", source="a")
    for _ in range(2):
        assert await bank.drop([], reason="nothing is left") == []


async def test_an_erasure_that_was_settled_by_the_check_leaves_nothing_open(bank: Bank, teller: Teller) -> None:
    """As when the process died once the erasure was accepted."""
    made = await teller.believe(HOME, source="a")
    await bank._services.forgetting.accept(bank.id, {"source": "a"}, [await bank.memory(made.evidence[0].memory_id)])
    assert await bank.check() == []


async def test_a_reply_that_was_kept_quotes_nothing_that_is_erased(bank: Bank, teller: Teller) -> None:
    await teller.believe(HOME, source="a")
    await bank.retain("She lives by a canal.", source="b")
    teller.say(BadReply("no JSON", reply=f"She lives by a canal, and {HOME}"))
    await bank.consolidate()
    await bank.forget(source="a")
    assert "Ghent" not in repr([await bank.parked(), await bank.stats()])


async def test_no_reason_quotes_what_is_being_erased(bank: Bank, teller: Teller) -> None:
    """A reason may quote all that its maker was shown, not only what it cites."""
    _, erased = (await bank.retain(["She lives by a canal.", HOME], source="a")).memories
    said = create("She lives by a canal.", "m1").model_copy(update={"reason": f"{HOME} by a canal, it seems"})
    teller.say(Proposal(actions=(said,), nothing=(NothingDurable(memory="m2"),), by="script"))
    await bank.consolidate()
    (made,) = await bank.observations()
    await bank._services.forgetting.accept(bank.id, {"memory_ids": [erased.id]}, [erased])
    assert "Ghent" not in repr([await bank.history(made.id), await bank.journal()])


async def test_what_an_update_took_over_from_a_deleted_observation_goes_with_its_source(bank: Bank, teller: Teller) -> None:
    """Every name in the text stands in two observations, so nothing but its equality tells where it came from."""
    gone = await teller.believe(HOME, source="a")
    await teller.believe("Every day in Ghent Mara bakes.", source="b")
    other = await teller.believe("She lives by a canal.", source="c")
    await bank.retain(["Yes, there.", "Her home is there."], source="d")

    def answer(batch: Batch) -> Proposal:
        alias = {c.observation.id: c.alias for c in batch.candidates}
        return plan(delete(alias[gone.id], "m1"), update(alias[other.id], HOME, "m2"))

    teller.say(answer)
    await bank.consolidate()
    assert await told(bank) == ["Every day in Ghent Mara bakes.", HOME]
    await bank.forget(source="a")
    assert await told(bank) == ["Every day in Ghent Mara bakes.", "She lives by a canal."]


async def test_what_a_memory_says_in_its_own_words_stays_when_another_that_said_it_goes(bank: Bank, teller: Teller) -> None:
    """The one that had said the same before is moved on by the very plan that hears it again."""
    before = await teller.believe(HOME, source="a")
    await bank.retain(["She has moved to a canal.", HOME], source="b")

    def answer(batch: Batch) -> Proposal:
        alias = next(c.alias for c in batch.candidates if c.observation.id == before.id)
        return plan(update(alias, "Once in Ghent, Mara now lives by a canal.", "m1", change="state_change"), create(HOME, "m2"))

    teller.say(answer)
    await bank.consolidate()
    await bank.forget(source="a")
    assert await told(bank) == [HOME]


async def test_what_is_being_erased_is_not_there_to_be_erased_again(bank: Bank) -> None:
    """As when the process died after the erasure was accepted, before the points were deleted."""
    (memory,) = (await bank.retain(HOME, source="a")).memories
    receipt = (await bank.forget(source="a", dry_run=True)).model_copy(update={"state": "accepted"})
    await bank._parts.ledger.entomb(receipt, [memory.id])
    assert (await bank.forget(source="a", dry_run=True)).memories == ()
    assert (await bank.stats()).memories == 0
    assert await bank.sources() == {}


async def test_a_text_that_others_told_again_is_no_trace_of_what_was_erased(bank: Bank, teller: Teller) -> None:
    await teller.believe(HOME, source="a")
    receipt = await bank.forget(source="a")
    await bank.retain("Mara may live in Ghent.", source="b")
    teller.say(plan(create(HOME, confidence=0.1)))
    assert (await bank.consolidate()).skipped == 1
    assert (await bank.verify(receipt)).ok
