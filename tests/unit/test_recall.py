"""Recall: what is found, what is filtered, what is told about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from consolidator.config import Settings
from consolidator.engine import Bank, connect
from consolidator.errors import InvalidInput
from consolidator.feedback import FeedbackPolicy
from consolidator.models import Hit, Trend
from consolidator.queries import Query
from consolidator.ranking import RecallWeights, score_of
from consolidator.recollection import SPEAKERS_STAY, Recollection
from consolidator.reranking import RerankPolicy
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
    "naive asked_at": ({"asked_at": datetime(2026, 1, 1)}, "asked_at: a time needs a zone"),
    "a time before all": ({"asked_at": datetime(1, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo"))}, "outside the years"),
    "tags": ({"tags": "work"}, "takes a set"),
    "tags as number": ({"tags": 5}, "tags takes a set of texts"),
    "tags of lists": ({"tags": [["work"]]}, "something in it is no text"),
    "kinds as number": ({"kinds": 5}, "kinds takes a set of texts"),
    "no kinds": ({"kinds": []}, "kinds is empty"),
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


@pytest.mark.parametrize("budget", [None, "800", 8.5, True])
async def test_the_budget_of_a_block_is_a_whole_number(bank: Bank, budget: Any) -> None:
    with pytest.raises(InvalidInput, match="token_budget takes a whole number"):
        await bank.recall_context("Where does Alice live?", token_budget=budget)


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


async def test_today_is_a_day_in_the_zone_of_the_one_who_asks(bank: Bank) -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    for food, when in (("sushi", datetime(2026, 5, 9, 20, tzinfo=tokyo)), ("ramen", datetime(2026, 5, 10, 0, 10, tzinfo=tokyo))):
        await bank.retain(f"We ate {food} together.", source=food, occurred_at=when)
    asked: dict[str, Any] = {"asked_at": datetime(2026, 5, 10, 0, 30, tzinfo=tokyo), "explain": True}
    hits = await bank.recall("What was it we ate together today?", **asked)
    shares = {hit.text: _terms(hit).get("asked-for time", 0.0) for hit in hits}
    assert shares["We ate ramen together."] > shares["We ate sushi together."]


def _terms(hit: Hit) -> dict[str, float]:
    assert hit.explanation is not None
    return {term.name: term.share for term in hit.explanation.terms}


async def test_as_of_knows_no_evidence_that_was_told_later(teller: Teller, clock: ManualClock) -> None:
    bank = teller.bank
    belief = await teller.believe("Alice adores green tea.", source="s1")
    then = clock()
    clock.move(timedelta(days=10))
    await teller.tell("As said in June: green tea, adored by Alice.", "s2", belief, update("", belief.text, change="restate"))
    (now,) = await bank.recall("Who adores green tea?", kinds={"observation"})
    assert (now.proof_count, len(now.evidence)) == (2, 2)
    (past,) = await bank.recall("Who adores green tea?", kinds={"observation"}, as_of=then + timedelta(hours=1))
    assert (past.text, past.proof_count, [e.source for e in past.evidence]) == (belief.text, 1, ["s1"])
    assert past.quote is not None
    assert (past.quote.source, past.occurred_at) == ("s1", then)


async def test_as_of_knows_no_later_correction(teller: Teller, clock: ManualClock) -> None:
    bank = teller.bank
    (wrong,) = (await bank.retain("Alice lives in Rome.", source="s1")).memories
    belief = await teller.believe("Alice works at Acme.", source="s5")
    then = clock()
    clock.move(timedelta(days=10))
    await bank.correct(wrong.id, "Alice lives in Paris.")
    await bank.correct(belief.id, "Alice works at Initech.")
    past = {hit.text: hit for hit in await bank.recall("Where does Alice live and work?", as_of=then + timedelta(hours=1))}
    assert set(past) == {"Alice lives in Rome.", "Alice works at Acme."}
    assert past["Alice lives in Rome."].superseded_by is None
    work = past["Alice works at Acme."]
    assert (work.proof_count, [e.supports for e in work.evidence]) == (1, [True])
    assert work.quote is not None
    assert work.quote.corrected_by is None
    later = await bank.recall("Where does Alice live?", kinds={"memory"}, as_of=clock())
    assert [hit.superseded_by is not None for hit in later if hit.text == "Alice lives in Rome."] == [True]


class Slow:
    """A re-ranker during which something else happens, once."""

    name = "slow"

    def __init__(self) -> None:
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def rerank(self, query: str, texts: Sequence[str]) -> list[float]:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            await meanwhile()
        return [0.0 for _ in texts]

    async def close(self) -> None: ...


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def slow_teller(tmp_path: Path, clock: ManualClock, script: ScriptedProposer, slow: Slow) -> AsyncIterator[Teller]:
    told = {"store": {"kind": "memory"}, "consolidation": {"floor": -1}, "worker": {"background": False}}
    settings = Settings.model_validate({"folder": tmp_path, "reranker": {"timeout": 60}, **told})
    opened = connect(settings=settings, clock=clock, embedder=HashEmbedder(), proposer=script, reranker=slow)
    async with opened as engine:
        yield Teller(engine.bank("alice"), script)


@pytest.mark.parametrize("of_then", [False, True])
@pytest.mark.parametrize("kinds", [{"memory"}, {"observation"}, {"memory", "observation"}])
async def test_what_is_erased_during_a_recall_is_not_returned(
    slow_teller: Teller, slow: Slow, kinds: set[str], of_then: bool
) -> None:
    bank = slow_teller.bank
    await slow_teller.believe("Alice's PIN is 4711.", source="s1")
    await slow_teller.believe("Alice's other PIN is 9999.", source="s1")
    await slow_teller.believe("Alice likes tea.", source="s2")
    asked: dict[str, Any] = {"kinds": kinds, "as_of": bank._parts.clock() + timedelta(hours=1) if of_then else None}
    assert "PIN" in str(await bank.recall("What is Alice's PIN?", **asked))
    slow.meanwhile = lambda: bank.forget(source="s1")
    hits = await bank.recall("What is Alice's PIN?", **asked)
    assert slow.meanwhile is None
    assert {hit.text for hit in hits} == {"Alice likes tea."}
    assert "PIN" not in str(hits)


async def test_evidence_that_is_erased_during_a_recall_is_not_returned(slow_teller: Teller, slow: Slow) -> None:
    bank = slow_teller.bank
    belief = await slow_teller.believe("Alice adores green tea.", source="s1")
    again = update("", belief.text, change="restate")
    other = await slow_teller.tell("Green tea is what Alice really adores.", "s2", belief, again)
    await slow_teller.believe("Bob adores green beer.", source="s3")
    before = next(hit for hit in await bank.recall("Who adores green tea?") if hit.id == belief.id)
    assert (before.proof_count, len(before.evidence)) == (2, 2)
    slow.meanwhile = lambda: bank.forget(memory_ids=[other])
    hit = next(hit for hit in await bank.recall("Who adores green tea?") if hit.id == belief.id)
    assert slow.meanwhile is None
    assert (hit.text, hit.proof_count, [e.source for e in hit.evidence]) == (belief.text, 1, ["s1"])
    assert other not in str(hit)


async def test_who_speaks_is_looked_up_anew_after_a_while(bank: Bank) -> None:
    """Another process may have written."""
    await bank.retain("I went to Paris.", source="a", speaker="Ann")
    seconds = [0.0]
    other = Recollection(bank._parts, RecallWeights(), RerankPolicy(), FeedbackPolicy(), monotonic=lambda: seconds[0])
    query = Query(text="To which place went Bob?", explain=True)
    await other.recall(bank.id, query)
    for n in range(3):
        await bank.retain(f"I went to place {n}.", source="a", speaker="Bob", sequence=n)
    assert not any("about Bob" in _terms(hit) for hit in await other.recall(bank.id, query))
    seconds[0] = SPEAKERS_STAY + 1
    assert any("about Bob" in _terms(hit) for hit in await other.recall(bank.id, query))


async def test_a_statement_whose_witnesses_are_not_found_is_found_itself(teller: Teller) -> None:
    bank = teller.bank
    for n, (said, stated) in enumerate([
        ("I bought it for 3000 euros.", "Bob owns a red racing bicycle."), ("Oil helps.", "Bob cares for his bicycle."),
        ("The doctor said so.", "Bob rides daily."), ("Tea is nice.", "Carol likes tea."),
    ]):
        await bank.retain(said, source=f"s{n}")
        teller.say(plan(create(stated)))
        await bank.consolidate()
    alone = {h.text for h in await bank.recall("What about Bob, and his red racing bicycle?", kinds={"observation"})}
    together = {h.text for h in await bank.recall("What about Bob, and his red racing bicycle?") if h.kind == "observation"}
    assert together == alone >= {"Bob owns a red racing bicycle.", "Bob cares for his bicycle."}
