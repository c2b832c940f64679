"""Recall: what is found, what is filtered, what is told about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consolidator.engine import Bank
from consolidator.errors import InvalidInput
from consolidator.models import Trend
from consolidator.ranking import score_of
from consolidator.testing import HashEmbedder, ManualClock, ScriptedProposer
from tests.script import Teller, create, plan, update

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "blank": ({"query": "  "}, "blank"),
    "top_k 0": ({"top_k": 0}, "from 1 to 100"),
    "top_k -1": ({"top_k": -1}, "from 1 to 100"),
    "top_k 1000": ({"top_k": 1000}, "from 1 to 100"),
    "budget": ({"token_budget": 0}, "at least 1"),
    "unknown kind": ({"kinds": {"dream"}}, "unknown kinds dream; known are"),
    "naive since": ({"since": datetime(2026, 1, 1)}, "since: a time needs a zone"),
    "since after until": ({"since": datetime(2026, 2, 1, tzinfo=UTC), "until": datetime(2026, 1, 1, tzinfo=UTC)}, "after until"),
    "tags": ({"tags": "work"}, "takes a set"),
    "kinds": ({"kinds": "memory"}, "takes a set"),
    "top_k as text": ({"top_k": "3"}, "top_k: .*integer"),
}


@pytest.fixture
def teller(bank: Bank, script: ScriptedProposer) -> Teller:
    return Teller(bank, script)


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_question_gets_a_sentence(bank: Bank, case: str) -> None:
    asked, sentence = BAD[case]
    with pytest.raises(InvalidInput, match=sentence):
        await bank.recall(**{"query": "who?", **asked})


async def test_g38_what_was_retained_is_found_at_once(bank: Bank) -> None:
    await bank.retain("Alice lives in Lisbon.", source="s")
    assert [h.text for h in await bank.recall("Who lives in Lisbon?")] == ["Alice lives in Lisbon."]


async def test_an_empty_bank_answers_nothing(bank: Bank) -> None:
    assert await bank.recall("anything?") == []


async def test_an_observation_brings_its_verbatim_evidence(teller: Teller) -> None:
    when = datetime(2026, 5, 1, tzinfo=UTC)
    await teller.bank.retain("I really do adore green tea.", source="chat", speaker="Alice", occurred_at=when)
    teller.say(plan(create("Alice adores green tea.")))
    await teller.bank.consolidate()
    (hit,) = await teller.bank.recall("Who adores green tea?")
    assert (hit.kind, hit.text, hit.proof_count, hit.trend) == ("observation", "Alice adores green tea.", 1, Trend.STALE)
    assert hit.quote is not None
    assert hit.quote.text == "I really do adore green tea."
    assert hit.evidence[0].memory_id == hit.quote.id
    assert "green tea" in hit.line
    assert "01 May 2026" in hit.line


async def test_explain_shows_every_list_and_adds_up(teller: Teller) -> None:
    for n in range(6):
        await teller.bank.retain(f"Fact number {n} about gardens.", source=f"s{n}", sequence=n)
    await teller.believe("Alice has a garden with fact number 3.", source="s9")
    hits = await teller.bank.recall("Which fact about gardens is number 3?", explain=True)
    for hit in hits:
        assert hit.explanation is not None
        where = "memories" if hit.kind == "memory" else "observations"
        assert [leg.leg for leg in hit.explanation.legs] == [f"{where}.dense", f"{where}.words"]
        assert hit.score == score_of(hit.explanation)
    stayed = [h.score for h in hits if h.explanation and not h.explanation.moved]
    assert stayed == sorted(stayed, reverse=True)
    assert (await teller.bank.recall("Which fact?"))[0].explanation is None


async def test_kinds(teller: Teller) -> None:
    bank = teller.bank
    await bank.retain("A lesson about knots.", source="s", kind="lesson")
    await bank.retain("A world of knots.", source="s")
    await teller.believe("Knots hold.", source="t")
    assert {h.kind for h in await bank.recall("knots", kinds={"memory"})} == {"memory"}
    assert {h.kind for h in await bank.recall("knots", kinds={"observation"})} == {"observation"}
    assert [h.text for h in await bank.recall("knots", kinds={"lesson"})] == ["A lesson about knots."]


async def test_tags_filter_every_list(teller: Teller) -> None:
    bank = teller.bank
    await teller.believe("Alice earns 52,400.", tags={"private"})
    await teller.believe("Alice earns well.", source="s1", tags={"public", "work"})
    assert {h.text for h in await bank.recall("What does Alice earn?", tags={"public"})} == {"Alice earns well."}
    assert {h.text for h in await bank.recall("What does Alice earn?", tags={"public", "private"})} == set()
    assert len(await bank.recall("What does Alice earn?")) == 2


async def test_since_and_until_are_event_times(bank: Bank) -> None:
    for month in (1, 3, 5):
        await bank.retain(f"Trip in month {month}.", source="s", occurred_at=datetime(2026, month, 15, tzinfo=UTC))
    since, until = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
    assert [h.text for h in await bank.recall("trip month", since=since, until=until)] == ["Trip in month 3."]


async def test_as_of_shows_what_was_known_then(teller: Teller, clock: ManualClock) -> None:
    bank = teller.bank
    belief = await teller.believe("Alice lives in Lisbon.")
    then = clock()
    clock.move(timedelta(days=10))
    moved = update("", "Alice used to live in Lisbon, now in Berlin.", change="state_change")
    await teller.tell("Alice lives in Berlin.", "s1", belief, moved)
    now = await bank.recall("Where does Alice live?")
    assert now[0].text == "Alice used to live in Lisbon, now in Berlin."
    past = await bank.recall("Where does Alice live?", as_of=then)
    assert [(h.kind, h.text, h.version) for h in past] == [("observation", "Alice lives in Lisbon.", 1)]
    assert await bank.recall("Where does Alice live?", as_of=then - timedelta(days=1)) == []


async def test_g39_the_token_budget_counts_the_hit_as_it_is_sent(bank: Bank) -> None:
    for n in range(20):
        await bank.retain(f"Alice has pet number {n}, a rather large and friendly one.", source=f"s{n}")
    hits = await bank.recall("Which pets has Alice?", token_budget=100, top_k=20)
    assert 0 < len(hits) < 20
    assert sum(h.tokens for h in hits) <= 100
    assert all(h.tokens >= len(h.line) / 4 for h in hits)


async def test_without_the_embedder_words_still_find(bank: Bank) -> None:
    await bank.retain("Alice lives in Lisbon.", source="s")
    embedder = bank._parts.embedder
    assert isinstance(embedder, HashEmbedder)
    embedder.down = True
    assert [h.text for h in await bank.recall("Lisbon")] == ["Alice lives in Lisbon."]


async def test_the_trend_speaks_of_the_time_of_the_question(teller: Teller, clock: ManualClock) -> None:
    await teller.believe("Alice runs.", occurred_at=clock() - timedelta(days=5))
    (now,) = await teller.bank.recall("Who runs?")
    clock.move(timedelta(days=60))
    (later,) = await teller.bank.recall("Who runs?")
    assert (now.trend, later.trend) == (Trend.NEW, Trend.STALE)
    assert [o.text for o in await teller.bank.observations(trend="stale")] == ["Alice runs."]
    assert await teller.bank.observations(trend="new") == []


async def test_the_same_statement_does_not_spend_the_budget_twice(bank: Bank) -> None:
    for n in range(3):
        await bank.retain("The garden gate is green.", source=f"s{n}")
    await bank.retain("The garden gate was painted in May.", source="s9")
    hits = await bank.recall("Which colour has the garden gate?", top_k=2)
    assert {hit.text for hit in hits} == {"The garden gate is green.", "The garden gate was painted in May."}
    budget = sum(hit.tokens for hit in hits)
    assert len(await bank.recall("Which colour has the garden gate?", token_budget=budget)) == 2


async def test_what_has_nothing_to_do_with_it_is_no_answer(bank: Bank) -> None:
    await bank.retain(["Alice has a cat called Turnip.", "The rent went up in May."], source="s")
    assert await bank.recall("How do enzymes unwind DNA?") == []
    found = await bank.recall_context("How do enzymes unwind DNA?")
    assert (found.text, found.tokens, found.reason) == ("", 0, "nothing relevant was found")
    assert [hit.text for hit in await bank.recall("Turnip")] == ["Alice has a cat called Turnip."]


async def test_a_block_for_a_prompt_names_where_its_lines_come_from(teller: Teller) -> None:
    belief = await teller.believe("Alice lives in Lisbon.")
    found = await teller.bank.recall_context("Where does Alice live?", token_budget=100)
    assert "[1]" in found.text
    assert found.handles == {"[1]": belief.id}
    assert 0 < found.tokens <= 100
    with pytest.raises(InvalidInput, match="token_budget is 0"):
        await teller.bank.recall_context("Where does Alice live?", token_budget=0)


async def test_what_happened_when_the_question_says_comes_first(bank: Bank) -> None:
    for month in (1, 4, 8):
        when = datetime(2025, month, 10, tzinfo=UTC)
        await bank.retain(f"Alice went climbing in hall number {month}.", source=f"s{month}", occurred_at=when)
    asked: dict[str, Any] = {"explain": True, "asked_at": datetime(2025, 9, 1, tzinfo=UTC)}
    (hit, *_) = await bank.recall("Where did Alice go climbing last spring?", **asked)
    assert hit.text == "Alice went climbing in hall number 4."
    assert hit.explanation is not None
    assert {term.name for term in hit.explanation.terms} >= {"asked-for time"}
    (hit, *_) = await bank.recall("Where did Alice go climbing in January 2025?")
    assert hit.text == "Alice went climbing in hall number 1."
