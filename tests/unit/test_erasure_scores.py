"""Erasing takes along what was measured: transcripts, scores, importance; and of others nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine as Database
from sqlalchemy import event

from consolidator.engine import Bank
from consolidator.errors import LedgerError
from consolidator.lexical import LEXICAL_UNIT
from consolidator.models import Observation
from consolidator.ports import Ledger
from consolidator.testing import ScriptedProposer
from consolidator.testing.ledger_scores_contract import UNIT, groups, ids, measured, score
from consolidator.transcripts import Segment, Transcript, Turn
from tests.conftest import NOW, Open
from tests.script import Teller, update
from tests.unit.test_erasure import holding
from tests.unit.test_erasure_cost import SMALL

IMPORTANCE = ("transcript", "showing", "score", "member", "importance")


@pytest.fixture
def teller(bank: Bank, script: ScriptedProposer) -> Teller:
    return Teller(bank, script)


@pytest.fixture
def ledger(bank: Bank) -> Ledger:
    return bank._parts.ledger


def shown(id: str, *showing: tuple[str, str], answer: str = "I see.", closed: bool = True) -> Transcript:
    """Texts, each with the id of what it shows, or none; then a response."""
    segments = tuple(Segment(text=f"{text}\n", items=frozenset({item} if item else ())) for text, item in showing)
    turns = (Turn(role="system", segments=segments), Turn(role="assistant", segments=(Segment(text=answer),)))
    return Transcript(id=id, turns=turns, closed=closed, at=NOW)


def evidence_of(belief: Observation) -> str:
    return belief.evidence[0].memory_id


async def test_of_an_erased_group_nothing_is_left_and_of_the_others_all(teller: Teller, ledger: Ledger) -> None:
    bank = teller.bank
    ill = await teller.believe("Alice was at Southmead on Friday because of her left knee.", source="secret")
    tea = await teller.believe("Alice likes green tea.", source="s")
    gone, stays = (ill.id, evidence_of(ill)), (tea.id, evidence_of(tea))
    await ledger.keep_transcript(bank.id, shown("t1", (ill.text, ill.id), (tea.text, tea.id)))
    await ledger.keep_transcript(bank.id, shown("t2", ("Alice was at Southmead.", evidence_of(ill)), closed=False))
    await ledger.transcript_scored(bank.id, shown("t2", ("Alice was at Southmead.", evidence_of(ill)), closed=False))
    await ledger.keep_transcript(bank.id, shown("t3", (tea.text, tea.id)))
    await measured(ledger, score(*gone), score(*stays, unit="another"), score(*stays, response="t1/3"), bank=bank.id)
    receipt = await bank.forget(source="secret")
    assert await ids(ledger, bank.id) == ["t3"]
    assert await groups(ledger, bank.id) == [stays, stays]
    assert {unit: count for unit, (count, _) in (await ledger.score_units(bank.id)).items()} == {UNIT: 2, "another": 2}
    rows = await ledger.dump(bank.id)
    assert not [table for table in IMPORTANCE if set(gone) & {row.get("item") for row in rows[table]}]
    assert "Southmead" not in str([rows[table] for table in IMPORTANCE])
    assert (await bank.verify(receipt)).ok
    assert await bank.check() == []


async def test_an_observation_that_says_again_what_it_said_before_is_measured_anew(teller: Teller, ledger: Ledger) -> None:
    bank = teller.bank
    belief = await teller.believe("Alice sees a doctor.", source="s")
    await teller.tell("I see a rheumatologist.", "secret", belief, update("", "Alice sees a rheumatologist at Southmead."))
    await ledger.keep_transcript(bank.id, shown("t1", ("Alice sees a rheumatologist at Southmead.", belief.id)))
    await measured(ledger, score(belief.id, evidence_of(belief)), bank=bank.id)
    receipt = await bank.forget(source="secret")
    assert [o.text for o in await bank.observations()] == ["Alice sees a doctor."]
    assert (await ids(ledger, bank.id), await groups(ledger, bank.id)) == ([], [])
    assert await ledger.importances(bank.id, UNIT) == {}
    assert (await bank.verify(receipt)).ok
    assert await bank.check() == []


async def test_a_text_that_was_left_behind_long_ago_stays_in_no_transcript(teller: Teller, ledger: Ledger) -> None:
    """What the observation says now stands, and so does what was measured of it; what it said in between goes."""
    bank = teller.bank
    belief = await teller.believe("Alice sees a doctor.", source="s")
    await teller.tell("I see a rheumatologist.", "secret", belief, update("", "Alice sees a rheumatologist at Southmead."))
    await ledger.keep_transcript(bank.id, shown("t1", ("Alice sees a rheumatologist at Southmead.", belief.id)))
    await bank.correct(belief.id, "Alice sees a dentist.")
    await measured(ledger, score(belief.id), bank=bank.id)
    receipt = await bank.forget(source="secret")
    assert [o.text for o in await bank.observations()] == ["Alice sees a dentist."]
    assert (await ids(ledger, bank.id), await groups(ledger, bank.id)) == ([], [(belief.id,)])
    assert (await bank.verify(receipt)).ok


async def test_support_that_goes_moves_nothing(teller: Teller, ledger: Ledger) -> None:
    bank = teller.bank
    belief = await teller.believe("Alice has a cat.", source="s")
    other = await teller.tell("She has a cat.", "also", belief, update("", "Alice has a cat.", change="restate"))
    await ledger.keep_transcript(bank.id, shown("t1", (belief.text, belief.id)))
    await measured(ledger, score(belief.id), score(other), bank=bank.id)
    await bank.forget(memory_ids=[other])
    assert (await ids(ledger, bank.id), await groups(ledger, bank.id)) == (["t1"], [(belief.id,)])


async def test_a_score_that_was_in_flight_is_dropped(teller: Teller, ledger: Ledger) -> None:
    bank = teller.bank
    ill = await teller.believe("Alice was at Southmead.", source="secret")
    tea = await teller.believe("Alice likes tea.", source="s")
    read = shown("t1", (ill.text, ill.id), (tea.text, tea.id))
    await ledger.keep_transcript(bank.id, read)
    receipt = await bank.forget(source="secret")
    late = score(tea.id, evidence_of(tea), context={ill.id, tea.id})
    for group in (score(ill.id), score(evidence_of(ill), "m0"), late):
        assert await measured(ledger, group, bank=bank.id) == []
    assert not await ledger.keep_transcript(bank.id, read)
    await ledger.transcript_scored(bank.id, read)
    told = await ledger.dump(bank.id)
    assert not [table for table in IMPORTANCE if told[table]]
    assert (await bank.verify(receipt)).ok


async def test_what_somebody_said_goes_from_transcripts_that_do_not_mark_it(teller: Teller, ledger: Ledger) -> None:
    """The conversation that a memory comes from holds its text without showing a memory."""
    bank = teller.bank
    said = "I was at the Southmead clinic on Friday because of my left knee."
    await bank.retain(said, source="chat")
    for id, text in (("t1", f"  {said.upper()}\nAnd then?"), ("t2", "Good morning.")):
        await ledger.keep_transcript(bank.id, shown(id, (text, "")))
    receipt = await bank.forget(source="chat")
    assert await ids(ledger, bank.id) == ["t2"]
    assert (await bank.verify(receipt)).ok


async def test_of_everything_no_conversation_is_left(bank: Bank, ledger: Ledger) -> None:
    """Neither one that goes on, and was scored before, nor one that shows no memory."""
    await bank.retain("Alice likes tea.", source="chat")
    going, other = shown("going", ("Southmead it was.", ""), closed=False), shown("other", ("At Southmead.", ""))
    await ledger.keep_transcript(bank.id, going)
    await ledger.transcript_scored(bank.id, going)
    assert "Southmead" not in str(await ledger.texts(bank.id))
    await ledger.keep_transcript(bank.id, other)
    receipt = await bank.forget(everything=True)
    told = await ledger.dump(bank.id)
    assert not [table for table in IMPORTANCE if told[table]]
    assert (await bank.verify(receipt)).ok


async def test_a_text_that_retain_has_split_goes_from_the_transcript_that_holds_it_whole(bank: Bank, ledger: Ledger) -> None:
    sentences = [f"On day {n} Alice walked along the river to the old Southmead mill." for n in range(200)]
    parts = (await bank.retain(" ".join(sentences), source="diary")).memories
    assert len(parts) > 1
    await ledger.keep_transcript(bank.id, shown("t1", (" ".join(sentences), "")))
    await ledger.keep_transcript(bank.id, shown("t2", ("Good morning.", "")))
    receipt = await bank.forget(memory_ids=[parts[0].id])
    assert await ids(ledger, bank.id) == ["t2"]
    assert receipt.fingerprints
    assert (await bank.verify(receipt)).ok


async def test_a_recorder_that_goes_on_brings_nothing_back(bank: Bank, ledger: Ledger) -> None:
    said = "I live in Southmead."
    await bank.retain(said, source="chat")
    recorder = bank.transcript(id="talk")
    recorder.said(said)
    recorder.answered("I shall keep it.")
    assert await recorder.keep()
    receipt = await bank.forget(source="chat")
    recorder.said("And where do I live?")
    assert not await recorder.keep()
    assert "Southmead" not in str(await ledger.dump(bank.id))
    assert (await bank.verify(receipt)).ok


async def test_a_transcript_that_was_left_is_found_by_its_receipt(bank: Bank, ledger: Ledger) -> None:
    said = "I was at the Southmead clinic on Friday because of my left knee."
    (memory,) = (await bank.retain(said, source="chat")).memories
    receipt = await bank.forget(source="chat")
    assert not await ledger.keep_transcript(bank.id, shown("late", (said, "")))
    assert (await bank.verify(receipt)).ok
    await ledger.keep_transcript(bank.id, shown("late", (f"As she told me: {said}", "")))
    found = (await bank.verify(receipt)).found
    assert "ledger/transcript/late: words of an erased text" in found
    assert not any(memory.id in place or "Southmead" in place for place in found)


async def test_everything_goes_with_the_tombstone_or_nothing_does(
    teller: Teller, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever step of it fails: the tombstone, the transcripts and the scores are of one transaction."""
    bank = teller.bank
    belief = await teller.believe("Alice was at Southmead.", source="secret")
    await ledger.keep_transcript(bank.id, shown("t1", (belief.text, evidence_of(belief))))
    await measured(ledger, score(belief.id, evidence_of(belief)), bank=bank.id)
    before = await ledger.dump(bank.id)
    path = tmp_path / "memory" / "ledger.db"
    for table in ("showing", "transcript", "member", "score", "importance"):
        with sqlite3.connect(path) as base:
            base.execute(f"CREATE TRIGGER fault BEFORE DELETE ON {table} BEGIN SELECT RAISE(ABORT, 'a fault'); END")
        with pytest.raises(LedgerError):
            await bank.forget(source="secret")
        assert await ledger.dump(bank.id) == before
        with sqlite3.connect(path) as base:
            base.execute("DROP TRIGGER fault")
        base.close()
    await bank.forget(source="secret")
    assert (await ids(ledger, bank.id), await groups(ledger, bank.id)) == ([], [])


async def test_scrub_leaves_no_byte_of_a_transcript(bank: Bank, ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    (memory,) = (await bank.retain("I see a rheumatologist at Southmead.", source="secret")).memories
    text = "Alice: I see a rheumatologist at Southmead."
    await ledger.keep_transcript(bank.id, shown("t1", (text, memory.id), answer="At Southmead?"))
    assert any("ledger.db" in path for path in holding(folder))
    assert (await bank.forget(source="secret", scrub=True)).state == "scrubbed"
    assert list(holding(folder)) == []


# what it costs


@pytest.fixture
def statements() -> Iterator[dict[str, Any]]:
    """What the ledger is asked, each once, with its arguments."""
    asked: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, arguments: Any, _context: Any, many: bool) -> None:
        asked.setdefault(statement, arguments[0] if many else arguments)

    event.listen(Database, "before_cursor_execute", note)
    yield asked
    event.remove(Database, "before_cursor_execute", note)


def wide(step: str) -> bool:
    """Whether a step of a query plan reads a whole table, or all of a bank's rows in it. Transcripts are those that wait."""
    if step.split()[0] not in ("SCAN", "SEARCH") or step.split()[1] in ("bank", "transcript"):
        return False
    narrow = any(term in step for term in (*SMALL, "item=?", "response=?", "unit=?", "id=?"))
    return step.startswith("SCAN") or ("(bank=?" in step and not narrow)


async def test_no_statement_of_importance_reads_a_whole_bank(
    open_engine: Open, script: ScriptedProposer, statements: dict[str, Any], tmp_path: Path
) -> None:
    async with open_engine() as engine:
        bank, ledger = engine.bank("alice"), engine._parts.ledger
        belief = await Teller(bank, script).believe("Alice was at Southmead.", source="secret")
        group, read = (belief.id, evidence_of(belief)), shown("t1", ("Alice was at Southmead.", belief.id), closed=False)
        statements.clear()
        await ledger.keep_transcript(bank.id, read)
        await ledger.keep_transcript(bank.id, shown("t1", ("Bob was.", ""), closed=False))
        await ledger.transcript_scored(bank.id, read)
        await ledger.transcripts(bank.id)
        await measured(ledger, *(score(*group, response=f"t1/{n}") for n in range(3)), bank=bank.id)
        await measured(ledger, *(score(*group, response=f"t1/{n}") for n in range(2, 5)), bank=bank.id)
        await ledger.scores(bank.id, item=belief.id)
        await ledger.scores(bank.id, keys=[score(*group, response=f"t1/{n}").key for n in range(300)])
        await ledger.importances(bank.id, UNIT, [f"m{n}" for n in range(300)])
        await ledger.keep_transcript(bank.id, shown("t2", ("Alice was at Southmead.", belief.id)))
        await ledger.transcript_scored(bank.id, shown("t2", ("Alice was at Southmead.", belief.id)))
        await ledger.keep_transcript(bank.id, read)
        await bank.forget(source="secret")
    database = sqlite3.connect(tmp_path / "memory" / "ledger.db")
    tables = (*IMPORTANCE, "receipt_digest")
    plans = {s: [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {s}", given)] for s, given in statements.items()
             if s.startswith(("SELECT", "UPDATE", "DELETE")) and any(f" {table}" in s for table in tables)}
    database.close()
    assert len(plans) > 20
    assert {s: steps for s, steps in plans.items() if any(map(wide, steps))} == {}


async def test_what_recall_reads_of_a_whole_bank_is_read_from_an_index(
    bank: Bank, ledger: Ledger, statements: dict[str, Any], tmp_path: Path
) -> None:
    statements.clear()
    await ledger.score_units(bank.id)
    ((statement, given),) = [(s, given) for s, given in statements.items() if "importance" in s]
    database = sqlite3.connect(tmp_path / "memory" / "ledger.db")
    steps = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", given)]
    database.close()
    assert steps == ["SEARCH importance USING COVERING INDEX importance_by_unit (bank=?)"]


async def test_no_word_of_what_was_erased_is_counted_any_more(bank: Bank) -> None:
    """The words that an answer is held against are of the bank's memories, kept in the process for a while."""
    await bank.retain("I keep a pangolin.", source="a")
    (other,) = (await bank.retain("I drink tea.", source="b")).memories
    shown = Turn(role="system", segments=(Segment(text="I drink tea.", items=frozenset({other.id})),))
    said = Turn(role="assistant", segments=(Segment(text="You have a pangolin, and drink tea."),))
    told = Transcript(id="t", turns=(shown, said), at=NOW)
    before = (await bank.score(told, dry_run=True)).unit
    service = bank._services.importance
    counted = await service._backgrounds.of(bank.id, service._read_background)
    await bank.forget(source="a")
    left = await service._backgrounds.of(bank.id, service._read_background)
    assert before == LEXICAL_UNIT
    assert ("pangolin" in counted.counts, "pangolin" in left.counts, "tea" in left.counts) == (True, False, True)
