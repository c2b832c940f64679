"""Transcripts as they come about: what recall hands out is known again where it is shown or quoted."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import pytest

from consolidator.engine import Bank
from consolidator.errors import InvalidInput
from consolidator.models import Hit
from consolidator.recording import MOST_TURNS, Recording, marked, read_transcript, segment_of
from consolidator.testing import ManualClock, ScriptedProposer
from consolidator.transcripts import Segment, Transcript, Turn
from tests.conftest import NOW
from tests.script import Teller
from tests.talks import talk, turn


def hit(text: str, id: str = "m1", **fields: Any) -> Hit:
    return Hit.model_validate({"kind": "memory", "id": id, "text": text, "score": 1.0, "occurred_at": NOW, **fields})


def shown_in(transcript: Transcript) -> list[set[str]]:
    """Of each segment that shows something, what."""
    return [set(segment.items) for turn in transcript.turns for segment in turn.segments if segment.items]


# as it goes


async def test_what_was_recalled_said_and_answered(bank: Bank, clock: ManualClock) -> None:
    await bank.retain(["Alice likes tea.", "Alice lives in Berlin."], source="s")
    recorder = bank.transcript("chat-1")
    hits = await recorder.recall("Where does Alice live?", top_k=2)
    recorder.said("Where does Alice live?")
    recorder.answered("In Berlin.", token_ids=(1, 2))
    told = recorder.transcript(closed=True)
    assert (told.id, told.closed, told.at, recorder.id) == ("chat-1", True, clock(), "chat-1")
    assert [turn.role for turn in told.turns] == ["system", "user", "assistant"]
    assert [segment.text for segment in told.turns[0].segments] == [f"{hit.line}\n" for hit in hits]
    assert shown_in(told) == [{hit.id} for hit in hits]
    assert told.turns[2] == turn("assistant", "In Berlin.", token_ids=(1, 2))
    assert recorder.shown == 2


async def test_an_observation_is_shown_with_the_evidence_that_it_quotes(bank: Bank, script: ScriptedProposer) -> None:
    belief = await Teller(bank, script).believe("Alice likes tea.")
    recorder = bank.transcript()
    (found,) = await recorder.recall("Who likes tea?")
    assert found.quote is not None
    assert shown_in(recorder.transcript()) == [{belief.id, found.quote.id}]
    assert recorder.id != bank.transcript().id


async def test_what_was_not_shown_is_known_where_it_is_quoted(bank: Bank) -> None:
    await bank.retain("Alice lives in Berlin.", source="s")
    recorder = bank.transcript()
    (found,) = await recorder.recall("Where does Alice live?", shown=False)
    assert not recorder.transcript().turns
    recorder.said(f"I remember:\n  {found.line}  \nSo where is she?", role="system")
    recorder.said(f"inline {found.line} is not a line of its own")
    recorder.answered(found.line)
    told = recorder.transcript()
    assert [segment.text for segment in told.turns[0].segments] == ["I remember:\n", f"  {found.line}  \n", "So where is she?"]
    assert (shown_in(told), recorder.shown) == ([{found.id}], 1)  # and what was answered shows nothing


async def test_nothing_found_makes_no_turn(bank: Bank) -> None:
    recorder = bank.transcript()
    assert await recorder.recall("anything?") == []
    assert not recorder.transcript().turns


async def test_keeping_it_again_adds_what_came_since(bank: Bank, clock: ManualClock) -> None:
    await bank.retain("Alice lives in Berlin.", source="s")
    recorder = bank.transcript("chat-1")
    await recorder.recall("Where does Alice live?")
    recorder.answered("In Berlin.")
    assert await recorder.keep()
    recorder.said("Thanks.")
    assert await recorder.keep(closed=True)
    assert not await recorder.keep(closed=True)
    (kept,) = await bank._parts.ledger.transcripts(bank.id)
    assert (kept.closed, len(kept.turns)) == (True, 3)
    (memory,) = await bank.memories()
    await bank.forget(memory_ids=[memory.id])
    recorder.said("Still there?")
    assert not await recorder.keep()


# marks


def test_lines_that_were_handed_out_stand_by_themselves() -> None:
    one, other = frozenset({"m1"}), frozenset({"m2"})
    assert marked("a\nM\nb\nc\nN\nM\n", {"M": one, "N": other}) == (
        Segment(text="a\n"), Segment(text="M\n", items=one), Segment(text="b\nc\n"), Segment(text="N\n", items=other),
        Segment(text="M\n", items=one),
    )
    for text in ("", "a", "a\r\nb\u2028c\n", "M", "\n\n"):
        assert "".join(segment.text for segment in marked(text, {"M": one})) == text


def test_a_memory_of_several_lines_is_known_where_it_is_quoted() -> None:
    poem, first = hit("Roses are red,\nviolets are blue."), hit("Roses are red,", id="m2")
    recording = Recording("t")
    recording.know([poem, first])
    recording.say(f"So:\n{poem.line}\n{poem.line}\nand {poem.line}\n{first.line}\nRoses are red,", "system")
    (said,) = recording.transcript(NOW, closed=True).turns
    told = [sorted(segment.items) for segment in said.segments]
    assert told == [[], ["m1"], ["m1"], [], ["m2"], []]
    assert said.text == f"So:\n{poem.line}\n{poem.line}\nand {poem.line}\n{first.line}\nRoses are red,"


def test_a_long_text_is_read_once() -> None:
    text, shown = "a line of text\n" * 100_000, {"M": frozenset({"m1"}), "a line\nof\nmany": frozenset({"m2"})}
    began = time.process_time()
    assert marked(text, shown) == (Segment(text=text),)
    assert time.process_time() - began < 5.0  # quadratic, it took minutes


def test_nothing_is_known_by_an_empty_line() -> None:
    assert marked("a\n\nM\n", {"": frozenset({"m1"}), "M": frozenset({"m2"})}) == (
        Segment(text="a\n\n"), Segment(text="M\n", items=frozenset({"m2"})),
    )


def test_what_is_handed_out_later_is_known_from_then_on() -> None:
    one, poem = hit("Roses are red."), hit("Roses are red.\nViolets are blue.", id="m2")
    recording = Recording("t")
    for known in (one, poem):
        recording.know([known])
        recording.say(known.line)
    assert shown_in(recording.transcript(NOW, closed=True)) == [{"m1"}, {"m2"}]


@pytest.mark.parametrize("id", ["x" * 129, "half \ud83d"])
def test_a_hit_whose_id_cannot_be_kept_is_refused(id: str) -> None:
    recording = Recording("t")
    for shown in (recording.know, recording.show):
        with pytest.raises(InvalidInput, match="this hit cannot be shown: items"):
            shown([hit("x", id=id)])
    assert recording.transcript(NOW, closed=True).turns == ()


@pytest.mark.parametrize("ids", [[-1], [2**63], [None], [0] * 1_000_001], ids=["negative", "large", "none", "many"])
def test_tokens_that_cannot_be_kept_are_refused(ids: list[Any]) -> None:
    recording = Recording("t")
    with pytest.raises(InvalidInput, match="this makes no turn: token_ids"):
        recording.say("x", "assistant", ids)
    assert recording.transcript(NOW, closed=True).turns == ()


def test_a_hit_is_a_segment_that_ends_its_line() -> None:
    assert segment_of(hit("Alice likes tea.")) == Segment(text="- Alice likes tea. (01 June 2026)\n", items=frozenset({"m1"}))


@pytest.mark.parametrize("id", ["", "x" * 257, None, 5])
def test_an_id_that_no_transcript_can_have(id: Any) -> None:
    with pytest.raises(InvalidInput, match="1 to 256 characters"):
        Recording(id)


def test_what_cannot_be_said() -> None:
    recording = Recording("t")
    wrong: list[tuple[Any, ...]] = [(5,), (None,), (b"bytes",), ("text", "robot")]
    for said in wrong:
        with pytest.raises(InvalidInput, match="what was said is a text, by one of system, user, assistant, tool"):
            recording.say(*said)
    with pytest.raises(InvalidInput, match="half a surrogate pair"):
        recording.say("broken \ud83d here")
    assert recording.transcript(NOW, closed=True).turns == ()


def test_a_transcript_has_an_end() -> None:
    recording = Recording("t")
    recording._turns = [turn("user", "x")] * MOST_TURNS
    with pytest.raises(InvalidInput, match="at most 100,000 turns"):
        recording.say("one more")


# from files


def lines(*told: Any) -> list[str]:
    return [json.dumps(one) for one in told]


def test_a_file_is_read_as_it_was_recorded() -> None:
    told = talk(
        turn("system", "Known:\n", ("Alice lives in Berlin.\n", "m1 o1")), turn("user", "Where?"),
        turn("assistant", "In Berlin.", token_ids=(1, 2)),
    )
    system = {"role": "system", "segments": [{"text": s.text, "items": sorted(s.items)} for s in told.turns[0].segments]}
    assistant = {"role": "assistant", "content": "In Berlin.", "token_ids": [1, 2]}
    file = lines(system, {"role": "user", "content": "Where?"}, assistant)
    assert read_transcript(file, id="t", at=NOW) == told
    assert read_transcript([file[0].encode(), "  \n", *file[1:]], id="t", at=NOW) == told


def test_a_turn_may_show_memories_as_a_whole() -> None:
    (read,) = read_transcript(lines({"role": "user", "content": "Alice.", "items": ["m1"]}), id="t", at=NOW).turns
    assert read == Turn(role="user", segments=(Segment(text="Alice.", items=frozenset({"m1"})),))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2 is no turn of a transcript: it is no JSON"), ("[" * 100_000, "line 2 .* it is no JSON"),
        (b"\xff\xfe", "line 2 .* it is no JSON"), ("[]", "line 2 .* the line: input should be"),
        ('{"role": "robot", "content": "x"}', "line 2 .* role: input should be 'system', 'user'"),
        ('{"role": "user", "text": "x"}', "line 2 .* text: extra inputs are not permitted"),
        ('{"content": "x"}', "line 2 .* role: field required"),
        ('{"role": "user", "segments": [{"items": ["m1"]}]}', "line 2 .* segments.0.text: field required"),
        ('{"role": "user", "content": "x", "items": ["half \\ud83d"]}', "line 2 .* items.0: "),
        (json.dumps({"role": "user", "content": "x", "items": ["x" * 129]}), "line 2 .* items.0: .* at most 128 characters"),
        ('{"role": "assistant", "content": "x", "token_ids": [1, -1]}', "line 2 .* token_ids.1: .* greater than or equal to 0"),
        ('{"role": "assistant", "content": "x", "token_ids": [9223372036854775808]}', "line 2 .* token_ids.0: "),
        ('{"role": "user", "content": "\\ud83d"}', "turn 2 holds half a surrogate pair"),
    ],
)
def test_a_bad_line_is_named(line: str | bytes, sentence: str) -> None:
    good = '{"role": "user", "content": "secret words"}'
    with pytest.raises(InvalidInput, match=sentence) as refused:
        read_transcript([good, line], id="t", at=NOW)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("wrong", [{"id": ""}, {"id": "x" * 300}, {"at": datetime(2026, 1, 1)}])
def test_what_makes_no_transcript_gets_a_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="this makes no transcript"):
        read_transcript(lines({"role": "user", "content": "x"}), **{"id": "t", "at": NOW, **wrong})


def test_an_empty_file_is_an_empty_transcript() -> None:
    assert read_transcript([], id="t", at=NOW) == talk()
