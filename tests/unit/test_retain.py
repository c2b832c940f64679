"""Retain: what is kept, what is refused, and that the same is kept once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consolidator.clock import to_utc
from consolidator.engine import Bank, Engine
from consolidator.errors import EmbedderUnavailable, InvalidInput
from consolidator.models import MemoryState, Trust, Vector
from consolidator.testing import HashEmbedder, ManualClock, ScriptedProposer
from consolidator.testing.proposers import word_for_word
from tests.conftest import NOW, Open

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "blank": ({"text": "  \n"}, "blank"),
    "too long": ({"text": "x" * 20_000}, "at most 16,384"),
    "nul": ({"text": "a\0b"}, "NUL"),
    "lone surrogate": ({"text": "a\ud800b"}, "surrogate"),
    "naive time": ({"text": "a", "occurred_at": datetime(2026, 1, 1)}, "needs a zone"),
    "far future": ({"text": "a", "occurred_at": NOW + timedelta(days=30)}, "future"),
    "blank source": ({"text": "a", "source": " "}, "source is blank"),
    "unknown kind": ({"text": "a", "kind": "dream"}, "'world', 'experience' or 'lesson'"),
    "unknown field": ({"text": "a", "colour": "red"}, 'no field "colour"'),
    "no number": ({"text": "a", "metadata": {"x": float("nan")}}, "not finite"),
    "no json": ({"text": "a", "metadata": {"x": object()}}, "takes what JSON takes"),
    "negative sequence": ({"text": "a", "sequence": -1}, "sequence"),
    "trust": ({"text": "a", "trust": 9}, "trust"),
    "no text": ({}, "text"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_input_is_refused_before_anything_is_written(bank: Bank, case: str) -> None:
    fields, sentence = BAD[case]
    good = {"text": "Alice lives in Lisbon."}
    with pytest.raises(InvalidInput, match=sentence) as caught:
        await bank.retain([good, fields], source="chat-1")
    assert "item 1" in str(caught.value)
    assert await bank.memories() == []


async def test_a_memory_needs_a_source(bank: Bank) -> None:
    with pytest.raises(InvalidInput, match="needs a source"):
        await bank.retain("Alice lives in Lisbon.")


async def test_nothing_to_retain(bank: Bank) -> None:
    with pytest.raises(InvalidInput, match="nothing to retain"):
        await bank.retain([], source="s")


@pytest.mark.parametrize("id", ["", "a:obs", "a::obs", "-a", "a b", "a\n", "x" * 129, "ä"])
async def test_e30_a_bank_id_can_name_no_other_banks_observations(engine: Engine, id: str) -> None:
    with pytest.raises(InvalidInput, match="no colon"):
        engine.bank(id)


async def test_tags_are_a_set(bank: Bank) -> None:
    with pytest.raises(InvalidInput, match=r'such as \{"work"\}'):
        await bank.retain("a", source="s", tags="work")


async def test_everything_told_is_kept(bank: Bank) -> None:
    when = datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC)
    kept = await bank.retain(
        "Alice moved to Berlin.", source="chat-1", speaker="Alice", sequence=3, occurred_at=when, tags={"b", "a"},
        kind="experience", metadata={"n": 1, "deep": {"x": [None, True, 0.5, "ü"]}}, trust=Trust.AGENT,
    )
    (memory,) = kept.memories
    assert kept.new == 1
    assert await bank.memory(memory.id) == memory
    assert (memory.text, memory.occurred_at, memory.tags) == ("Alice moved to Berlin.", when, frozenset({"a", "b"}))
    assert memory.metadata == {"n": 1, "deep": {"x": [None, True, 0.5, "ü"]}}
    assert (memory.kind, memory.trust, memory.state) == ("experience", Trust.AGENT, MemoryState.PENDING)


async def test_e15_event_time_and_retain_time_are_kept_apart(bank: Bank) -> None:
    when = datetime(2024, 3, 1, tzinfo=UTC)
    (memory,) = (await bank.retain("Alice moved.", source="s", occurred_at=when)).memories
    assert memory.time == when
    assert memory.retained_at == NOW


async def test_g3_the_same_text_twice_is_one_memory(bank: Bank, script: ScriptedProposer) -> None:
    first = await bank.retain("Alice lives in Lisbon.", source="chat-1")
    script.answer_with([word_for_word])
    await bank.consolidate()
    again = await bank.retain("Alice lives in Lisbon.", source="chat-1")
    assert (again.new, again.memories[0].id) == (0, first.memories[0].id)
    assert again.memories[0].state is MemoryState.DONE  # a repeat never turns it back to pending
    assert (await bank.stats()).pending == 0


async def test_g25_equal_text_of_two_sources_is_two_memories(bank: Bank) -> None:
    await bank.retain("Alice lives in Lisbon.", source="chat-1")
    assert (await bank.retain("Alice lives in Lisbon.", source="chat-2")).new == 1
    assert len(await bank.memories()) == 2


async def test_equal_text_in_one_batch_is_one_memory(bank: Bank) -> None:
    kept = await bank.retain(["Yes, gladly.", "Yes, gladly."], source="s")
    assert kept.new == 1
    assert len({m.id for m in kept.memories}) == 1


async def test_e14_a_long_text_is_split_and_every_part_is_a_memory_of_its_own(bank: Bank) -> None:
    text = " ".join(f"Sentence number {n} says something of its own." for n in range(200))
    kept = await bank.retain(text, source="report")
    assert len(kept.memories) > 1
    assert [m.part for m in kept.memories] == list(range(len(kept.memories)))
    assert " ".join(m.text for m in kept.memories) == text
    assert {m.source for m in kept.memories} == {"report"}


async def test_order_of_a_batch_is_kept(bank: Bank) -> None:
    texts = [f"Fact number {n}." for n in range(150)]
    await bank.retain(texts, source="s")
    assert [m.text for m in await bank.memories()] == texts


class Down(HashEmbedder):
    """An embedder that fails until it is repaired."""

    broken = True

    async def embed(self, texts: Any) -> list[Vector]:
        if self.broken:
            raise EmbedderUnavailable
        return await super().embed(texts)


async def test_a_failing_embedder_loses_nothing(open_engine: Open, script: ScriptedProposer, clock: ManualClock) -> None:
    async with open_engine() as engine:
        bank = engine.bank("alice")
        embedder = Down()
        object.__setattr__(engine._parts, "embedder", embedder)
        kept = await bank.retain("Alice lives in Lisbon.", source="s")
        assert not kept.embedded
        assert [hit.text for hit in await bank.recall("Lisbon")] == ["Alice lives in Lisbon."]  # by its words, at once
        assert (await bank.stats()).unembedded == 1
        with pytest.raises(EmbedderUnavailable):
            await bank.consolidate()
        embedder.broken = False
        script.answer_with([word_for_word])
        report = await bank.consolidate()
        assert report.created == 1
        assert (await bank.stats()).unembedded == 0
        hit = (await bank.recall("who lives somewhere", kinds={"memory"}, explain=True))[0]
        assert hit.explanation is not None
        assert hit.explanation.legs[0].rank == 1  # by its meaning too


async def test_secrets_are_masked_before_they_are_stored(bank: Bank) -> None:
    key = "sk-proj-" + "a1B2c3D4e5" * 4
    kept = await bank.retain(f"My key is {key}, keep it safe.", source="s")
    assert kept.redacted == 1
    assert key not in kept.memories[0].text
    assert "[redacted:openai#" in kept.memories[0].text


async def test_secrets_can_be_refused(open_engine: Open) -> None:
    async with open_engine(retain={"secrets": "reject"}) as engine:
        with pytest.raises(InvalidInput, match="password at") as caught:
            await engine.bank("a").retain("the password is hunter22x", source="s")
        assert "hunter22x" not in str(caught.value)


async def test_two_banks_know_nothing_of_each_other(engine: Engine) -> None:
    """E-33, G34."""
    one, other = engine.bank("one"), engine.bank("other")
    (memory,) = (await one.retain("Alice lives in Lisbon.", source="s")).memories
    await other.retain("Bob lives in Porto.", source="s")
    assert [h.text for h in await other.recall("who lives in Lisbon")] == ["Bob lives in Porto."]
    assert await other.memories(source="s") != await one.memories(source="s")
    with pytest.raises(Exception, match="has no memory"):
        await other.memory(memory.id)
    assert not (await other.forget(memory_ids=[memory.id])).memories
    assert len(await one.memories()) == 1


def test_times_are_utc() -> None:
    assert to_utc(datetime(2026, 1, 1, 12, tzinfo=UTC)).tzinfo is UTC


async def test_one_text_that_the_embedder_refuses_keeps_no_other_waiting(open_engine: Open) -> None:
    class Picky(HashEmbedder):
        async def embed(self, texts: Sequence[str]) -> list[Vector]:
            if any("unspeakable" in text for text in texts):
                raise EmbedderUnavailable
            return await super().embed(texts)

    async with open_engine() as engine:
        picky = Picky()
        picky.down = True
        object.__setattr__(engine._parts, "embedder", picky)
        bank = engine.bank("alice")
        await bank.retain(["Something unspeakable.", *(f"Note {n}." for n in range(5))], source="s")
        with pytest.raises(EmbedderUnavailable):  # it takes none: nobody is to blame
            await bank.consolidate()
        assert (await bank.stats()).unembedded == 6
        picky.down = False
        await bank.consolidate()
        stats = await bank.stats()
        assert (stats.unembedded, stats.pending, stats.held) == (0, 0, 1)
        (row,) = await bank.parked()
        assert (row.state, row.reason) == ("held", "the embedder refuses this text")
        assert await bank.check() == []
