"""The command line's second thoughts: history, revert, correct, undo, new editions; and erasing by age, by words, by bank."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from consolidator.blocking import connect
from consolidator.errors import InvalidInput, StoreError
from consolidator.models import Memory, Receipt
from consolidator.services import Services
from consolidator.testing import HashEmbedder
from consolidator_adapters.cli.matching import holds, numbers
from consolidator_adapters.cli.story import compared
from tests.end_to_end.conftest import Ran, Run
from tests.sparse import copy

pytestmark = pytest.mark.usefixtures("hash_embedder")

LISBON, BERLIN = "Alice lives in Lisbon.", "Berlin"
Says = Callable[..., None]


@pytest.fixture(scope="module")
def three_sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory that no test changes."""
    return moved(tmp_path_factory.mktemp("told") / "memory")


@pytest.fixture
def mine(three_sentences: Path, folder: Path, run: Run) -> Run:
    """Runs a command that changes such a memory, a copy."""
    copy(three_sentences, folder)
    return run


def moved(folder: Path) -> Path:
    """A memory consolidated in two passes: Alice moved between them."""
    with connect(folder, embedder=HashEmbedder()) as engine:
        bank = engine.bank("default")
        bank.retain("I live in Lisbon.", source="chat-1", speaker="Alice", occurred_at=datetime(2026, 1, 5, tzinfo=UTC))
        bank.consolidate()
        for text in ("I moved to Berlin in March.", "I like green tea."):
            bank.retain(text, source="chat-2", speaker="Alice", occurred_at=datetime(2026, 3, 20, tzinfo=UTC))
        bank.consolidate()
    return folder


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Says:
    """A person at the terminal, who says these lines."""

    def says(*lines: str) -> None:
        stdin = io.StringIO("".join(f"{line}\n" for line in lines))
        monkeypatch.setattr(stdin, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", stdin)

    return says


def one(run: Run, word: str, *args: str) -> str:
    """The id of the observation that says so."""
    (id,) = [o["id"] for o in run("observations", "--json", *args).document if word in o["text"]]
    return str(id)


def texts(run: Run) -> set[str]:
    return {o["text"] for o in run("observations", "--json").document}


def memory(run: Run, text: str) -> str:
    hits = run("recall", text, "--kind", "memory", "--json").document
    return str(next(hit["id"] for hit in hits if hit["text"] == text))


def left(run: Run) -> int:
    return int(run("stats", "--json").document["memories"])


def refused(ran: Ran, said: str, code: int = 2) -> None:
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


class TestHistory:
    def test_reads_as_a_story_that_ends_with_how_to_take_it_back(self, told: Run) -> None:
        id = one(told, BERLIN)
        lines = [" ".join(line.split()) for line in told("history", id[:6]).out.splitlines()]
        starts = ("version 1", "version 2", "now")
        first, second, now = (next(n for n, line in enumerate(lines) if line.startswith(start)) for start in starts)
        assert first < second < now
        assert re.fullmatch(r"version 2 \d{4}-\d\d-\d\d \d\d:\d\d state changed by rules, pass [0-9a-f]{8}", lines[second])
        assert any(line.startswith("on “I moved to Berlin in March.” Alice, 2026-03-20, chat-2") for line in lines[second:now])
        assert lines[now].startswith("now version 2, live: 2 sources")
        assert f'version 1 can stand again: consolidator revert {id[:8]} 1 --because "..."' in lines[-2]

    def test_one_version_has_none_to_go_back_to(self, told: Run) -> None:
        assert "1 version, none to go back to" in told("history", one(told, "tea")).out

    def test_support_is_told_between_the_versions(self, mine: Run) -> None:
        mine("retain", "I like green tea.", "-s", "chat-3", "--speaker", "Alice")
        mine("consolidate")
        shown = mine("history", one(mine, "tea")).out
        assert "supported by rules" in shown
        assert "chat-3" in shown

    def test_erased_versions_say_when(self, mine: Run) -> None:
        id = one(mine, BERLIN)
        receipt = mine("forget", "--source", "chat-2", "--yes", "--json").document
        shown = mine("history", id).out
        assert f"erased on {receipt['at'][:10]}, receipt {receipt['id'][:8]}" in shown
        assert "rolled back to version 1 by an erasure" in shown
        assert "Berlin" not in shown
        assert mine("history", id, "--json").document["versions"][1]["text"] is None

    def test_an_erased_observation_says_when(self, mine: Run) -> None:
        id = one(mine, "tea")
        receipt = mine("forget", "--matching", "green tea", "--yes", "--json").document
        refused(mine("history", id[:8]), f"was erased on {receipt['at'][:10]}, by receipt {receipt['id']}", 3)

    def test_a_memory_has_none(self, told: Run) -> None:
        refused(told("history", memory(told, "I like green tea.")), "is a memory")

    def test_json_is_what_the_bank_tells(self, told: Run) -> None:
        id = one(told, BERLIN)
        document = told("history", id, "--json").document
        assert [v["number"] for v in document["versions"]] == [1, 2]
        assert document["observation"]["id"] == document["observation_id"] == id
        assert {e["intent"] for e in document["journal"]} == {
            e["intent"] for e in told("journal", "-o", id, "--json").document
        }


@pytest.mark.parametrize(
    ("old", "new", "bold", "dropped"),
    [
        (None, "I like tea.", [], ""),
        ("I like tea.", "I like green tea!", ["green"], ""),
        ("I like black tea.", "I like tea.", [], "black"),
        ("Alice lives in Lisbon.", "Alice lived in Lisbon, now in Berlin.", ["lived", "now in Berlin."], "lives"),
    ],
)
def test_what_changed_is_bold_and_what_is_gone_is_told(old: str | None, new: str, bold: list[str], dropped: str) -> None:
    text, gone = compared(old, new)
    assert (text.plain, gone) == (new, dropped)
    assert [text.plain[span.start : span.end].strip() for span in text.spans if span.style == "bold"] == bold


class TestRevert:
    def test_lets_an_earlier_version_stand_again(self, mine: Run) -> None:
        id = one(mine, BERLIN)
        shown = mine("revert", id[:8], "1", "--because", "she only visited").out
        assert "version 1 stands again, as version 3" in shown
        assert LISBON in texts(mine)
        story = mine("history", id).out
        assert "reverted to version 1 by a person" in story
        assert "she only visited" in story
        assert mine("revert", id, "v2", "--because", "no, she moved", "--json").document["version"] == 4

    def test_beginners(self, told: Run) -> None:
        revert = ("revert", one(told, BERLIN))
        refused(told(*revert), "say which version: `consolidator history")
        refused(told(*revert, "1"), "say why with --because")
        refused(told(*revert, "1", "--because", " "), "reason is blank")
        refused(told(*revert, "last", "--because", "x"), '"last" is no version')
        refused(told(*revert, "2", "--because", "x"), "is the one that stands")
        refused(told(*revert, "9", "--because", "x"), "it has 1 to 2", 3)

    def test_a_memory_is_corrected_instead(self, told: Run) -> None:
        refused(told("revert", memory(told, "I like green tea."), "1", "--because", "x"), "consolidator correct")

    def test_an_erased_version_does_not_come_back(self, mine: Run) -> None:
        id = one(mine, BERLIN)
        mine("forget", "--source", "chat-2", "--yes")
        refused(mine("revert", id, "2", "--because", "x"), "was erased", 4)


class TestCorrect:
    def test_an_observation_says_it_from_now_on(self, mine: Run) -> None:
        id = one(mine, BERLIN)
        shown = mine("correct", id[:8], "Alice lives in Potsdam.", "--because", "she told me", "--source", "a call").out
        assert "now     Alice lives in Potsdam." in shown
        assert "no model overwrites it" in shown
        assert "Alice lives in Potsdam." in texts(mine)
        story = mine("history", id).out
        assert "corrected by a person" in story
        assert "she told me" in story
        assert mine("sources", "--json").document["a call"] == 1

    def test_a_memory_stays_as_it_was_said(self, mine: Run) -> None:
        wrong = memory(mine, "I like green tea.")
        shown = mine("correct", wrong[:8], "I like black tea.").out
        assert "a memory stays as it was said" in shown
        assert "1 memory waits" in shown
        assert mine("show", wrong, "--json").document["memory"]["corrected_by"]
        (gone,) = mine("observations", "--deleted", "--json").document
        assert "corrected, deleted by a person" in mine("history", gone["id"]).out

    def test_beginners(self, told: Run) -> None:
        id = one(told, BERLIN)
        refused(told("correct", id), "say what is right")
        refused(told("correct", id, "  "), "the text is blank")
        refused(told("correct", id, "x", "--source", " "), "the source is empty")
        refused(told("correct", "ffffffff", "x"), "nothing whose id begins with ffffffff", 3)


class TestUndo:
    def test_takes_a_pass_back(self, mine: Run) -> None:
        before = texts(mine)
        mine("retain", "I have a grey cat.", "-s", "chat-3", "--speaker", "Alice")
        mine("consolidate")
        intent = mine("journal", "--json").document[-1]["intent"]
        assert f"pass {intent[:8]}" in mine("journal").out
        shown = mine("undo", intent[:6], "--because", "a bad model").out
        assert f"pass {intent[:8]} is taken back: 1 observation as before it" in shown
        assert "1 memory is held; `consolidator parked replay --all` has them consolidated anew" in shown
        assert texts(mine) == before
        assert "undone, deleted by a person" in mine("history", one(mine, "cat", "--deleted")).out
        refused(mine("undo", intent, "--because", "again"), "have changed since", 4)

    def test_beginners(self, told: Run) -> None:
        refused(told("undo", "ffffffff"), "say why with --because")
        refused(told("undo", "ffffffff", "--because", "x"), "has no pass ffffffff; `consolidator journal` names the passes", 3)
        refused(told("undo", "f", "--because", "x"), "first 4 characters", 3)
        refused(told("undo", one(told, BERLIN)[:8], "--because", "x"), "is an observation, and a pass is meant")

    def test_an_erasure_is_for_good(self, mine: Run) -> None:
        mine("forget", "--source", "chat-2", "--yes")
        before = texts(mine)
        refused(mine("undo", mine("journal", "--json").document[-1]["intent"], "--because", "x"), "erasing is for good")
        assert texts(mine) == before


class TestDeleted:
    def test_deleted_observations_are_listed_and_come_back(self, mine: Run) -> None:
        assert mine("observations", "--deleted").out == "no observation was deleted\n"
        intent = mine("journal", "-o", one(mine, "tea"), "--json").document[-1]["intent"]
        mine("undo", intent, "--because", "r")
        shown = mine("observations", "--deleted").out
        assert "Alice likes green tea." in shown
        assert "`consolidator history ID` tells why" in shown
        id = one(mine, "tea", "--deleted")
        assert "now  version 2, deleted" in mine("history", id).out
        mine("revert", id, "1", "--because", "it was so")
        assert "Alice likes green tea." in texts(mine)


class TestForget:
    @pytest.mark.parametrize(
        ("args", "said"),
        [
            ((), "--before, --matching or --everything"), (("--max-erased", "3"), "say what to forget"),
            (("--everything", "--source", "a"), "give it alone"), (("--everything", "--matching", "a"), "give it alone"),
            (("--source", "a", "--max-erased", "0"), "from 1 on"), (("--matching", " * "), "holds no word"),
            (("--source", "a", "--scrub", "--dry-run"), "give one of them"), (("--before", "last year"), "is no time"),
            (("--source", " "), "source is blank"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, told: Run, args: tuple[str, ...], said: str) -> None:
        refused(told("forget", *args, "--yes"), said)

    @pytest.mark.parametrize("args", [("--everything",), ("--matching", "tea"), ("--matching", "tea", "--json")])
    def test_where_nobody_can_be_asked_yes_is_needed(self, told: Run, args: tuple[str, ...]) -> None:
        ran = told("forget", *args)
        assert ran.code == 2
        assert "give --yes" in ran.err

    def test_by_age(self, mine: Run) -> None:
        assert mine("forget", "--before", "2026-01-05", "--yes").code == 3
        assert len(mine("forget", "--before", "2026-01-06", "--yes", "--json").document["memories"]) == 1

    def test_max_erased_stops_an_accident(self, mine: Run) -> None:
        for how in ("--yes", "--dry-run"):
            refused(mine("forget", "--source", "chat-2", "--max-erased", "1", how), "2 memories match, and --max-erased is 1")
        assert len(mine("forget", "--everything", "--max-erased", "3", "--yes", "--json").document["memories"]) == 3

    def test_the_whole_bank_goes_when_its_name_is_typed(self, mine: Run, person: Says) -> None:
        for answers, stays in ((("y",), True), ((), True), (("default",), False)):
            person(*answers)
            ran = mine("forget", "--everything")
            assert ran.code == 0
            assert "Type its name, default, to go on" in ran.err
            assert ("nothing was erased" in ran.out) == stays
        assert left(mine) == 0

    def test_by_words_within_what_else_is_named(self, told: Run) -> None:
        words = ("forget", "--matching", "I", "--dry-run", "--json")
        assert [len(told(*words, *more).document["memories"]) for more in ((), ("--source", "chat-2"))] == [3, 2]
        refused(told("forget", "--matching", "gree", "--yes"), 'holds the words "gree"; nothing was erased', 3)

    def test_by_words_one_chooses_from_a_list(self, mine: Run, person: Says) -> None:
        person("9", "2", "y")
        ran = mine("forget", "--matching", "i IN")
        lines = [" ".join(line.split()) for line in ran.out.splitlines()]
        assert "1 2026-01-05 chat-1 Alice: I live in Lisbon." in lines
        assert "2 2026-03-20 chat-2 Alice: I moved to Berlin in March." in lines
        assert '"9" is none of 1 to 2' in ran.err
        assert "Erase 1 memory for good?" in ran.err
        assert mine("sources", "--json").document == {"chat-1": 1, "chat-2": 1}
        assert LISBON in texts(mine)

    def test_by_words_nothing_goes_unless_it_is_meant(self, mine: Run, person: Says) -> None:
        for answers in (("none",), ("",), (), ("all", "n"), ("all",)):
            person(*answers)
            ran = mine("forget", "--matching", "I")
            assert ran.code == 0
            assert ran.out.endswith("nothing was erased\n")
        assert left(mine) == 3

    def test_what_files_may_still_hold_is_told(self, mine: Run, folder: Path) -> None:
        shown = mine("forget", "--source", "chat-1", "--yes").out
        assert "bytes of it may linger in files: `consolidator scrub`, or `forget --scrub`" in shown
        receipt = mine("forget", "--matching", "green tea", "--yes", "--scrub", "--json").document
        assert receipt["state"] == "scrubbed"
        assert not [path for path in folder.rglob("*") if path.is_file() and b"green tea" in path.read_bytes()]

    def test_a_scrub_that_fails_undoes_no_erasure(
        self, mine: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def full(_: Services) -> None:
            raise StoreError("no space left on device")

        monkeypatch.setattr(Services, "scrub", full)
        receipt = tmp_path / "receipt.json"
        ran = mine("forget", "--source", "chat-2", "--yes", "--scrub", "--receipt", str(receipt))
        assert ran.code == 1
        assert "erased, but the files could not be rewritten: no space left on device; `consolidator scrub`" in ran.err
        assert "may linger in files" in ran.out
        assert mine("verify", str(receipt)).code == 0


class TestScrub:
    def test_says_which_erasures_left_no_byte(self, mine: Run, tmp_path: Path) -> None:
        receipt = tmp_path / "receipt.json"
        mine("forget", "--source", "chat-2", "--yes", "--receipt", str(receipt))
        shown = mine("scrub").out
        assert "no byte is left of 1 erasure" in shown
        assert "2 memories, receipt" in shown
        assert mine("verify", str(receipt)).out.startswith("verified")

    def test_says_when_no_erasure_was_waiting(self, told: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        async def rewritten(_: Services) -> list[Receipt]:
            return []

        monkeypatch.setattr(Services, "scrub", rewritten)
        assert told("scrub").out == "the files were rewritten; no erasure was waiting for it\n"
        assert told("scrub", "--json").document == []

    def test_files_of_others_are_theirs(self, mine: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CONSOLIDATOR_STORE__KIND", "shared")
        mine("retain", "I like black tea.", "-s", "a")
        assert "for its operator to rewrite" in mine("forget", "--source", "a", "--yes").out
        ran = mine("scrub")
        assert ran.code == 1
        assert "for its operator to rewrite" in " ".join(ran.out.split())


class TestReplace:
    HANDBOOK = '"The office opens at nine."\n"Parking is free."\n'

    @pytest.fixture
    def handbook(self, run: Run, tmp_path: Path) -> Path:
        file = tmp_path / "handbook.jsonl"
        file.write_text(self.HANDBOOK)
        run("retain", "--file", str(file), "-s", "handbook")
        run("retain", "Parking is free, they say.", "-s", "chat")
        file.write_text('"The office opens at nine."\n"Parking costs two pounds."\n"Lunch is at noon."\n')
        return file

    def test_keeps_adds_and_erases(self, run: Run, handbook: Path) -> None:
        edition = ("retain", "--replace", "--yes", "--file", str(handbook), "-s", "handbook")
        shown = run(*edition).out
        assert "1 kept as they were, 2 added, 1 erased" in shown
        assert "may linger in files" in shown
        receipt = re.search(r"consolidator verify\s+([0-9a-f-]{36})", shown)
        assert receipt is not None
        assert run("verify", receipt[1]).code == 0
        assert run("sources", "--json").document == {"chat": 1, "handbook": 3}
        again = run(*edition, "--json").document
        assert (again["new"], again["replaced"]) == (0, None)

    def test_asks_before_it_erases(self, run: Run, handbook: Path, person: Says) -> None:
        for answer, many in (("n", 4), ("y", 3)):
            person(answer)
            ran = run("retain", "--replace", "--file", str(handbook), "-s", "handbook")
            assert "1 memory that handbook does not say any more:\n  Parking is free." in ran.out
            assert ("the new edition stands beside the old" in ran.out) == (answer == "n")
            assert run("sources", "--json").document["handbook"] == many

    def test_reads_standard_input(self, run: Run, handbook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("There is no handbook."))
        kept = run("retain", "-", "-s", "handbook", "--replace", "--yes", "--json").document
        assert (kept["new"], len(kept["replaced"]["memories"])) == (1, 2)

    def test_beginners(self, run: Run, handbook: Path, person: Says, tmp_path: Path) -> None:
        empty, mixed = tmp_path / "empty.jsonl", tmp_path / "mixed.jsonl"
        empty.write_text("\n")
        mixed.write_text('{"text": "a", "source": "x"}\n{"text": "b", "source": "y"}\n')
        text = ("retain", "A new text.", "-s", "handbook")
        refused(run(*text, "--replace"), "give --yes where nobody can be asked")
        refused(run(*text, "--yes"), "--yes goes with --replace alone")
        refused(run("retain", "--file", str(empty), "-s", "handbook", "--replace", "--yes"), "nothing was erased")
        refused(run("retain", "--file", str(mixed), "--replace", "--yes"), "one source at a time; these are of 2: x, y")
        person("A new text.")
        refused(run("retain", "-", "-s", "handbook", "--replace"), "give --yes where nobody can be asked")
        assert run("sources", "--json").document == {"chat": 1, "handbook": 2}


@pytest.mark.parametrize(
    ("text", "words", "found"),
    [
        ("I LIVE in Lisbon.", "live IN", True), ("I live in Lisbon.", "live tea", False), ("The team met.", "tea", False),
        ("The team met.", "tea*", True), ("Her doctor’s name", "doctor", True), ("Die Straße", "STRASSE", True),
        ("Ｌｉｓｂｏｎ", "lisbon", True), ("C++ and C", "c++", True), ("私は東京に住んでいます。", "東京", True),
        ("tea", "teas", False),
    ],
)
def test_which_memories_hold_the_words(text: str, words: str, found: bool) -> None:
    memory = Memory(id="m", bank="b", text=text, source="s", retained_at=datetime(2026, 1, 5, tzinfo=UTC))
    assert holds(memory, words) is found


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("1 3-5", [1, 3, 4, 5]), ("5,1", [1, 5]), ("2 - 3, 3", [2, 3]), ("ALL", [1, 2, 3, 4, 5]), ("none", []), ("", []),
        ("1–2;", [1, 2]), ("2..3", [2, 3]),
    ],
)
def test_what_a_person_means_by_numbers(told: str, meant: list[int]) -> None:
    assert numbers(told, 5) == meant


@pytest.mark.parametrize("told", ["0", "6", "4-2", "1-9", "one", "-1", "1 x", "1.5", ",", "²"])
def test_what_nobody_can_mean_by_numbers(told: str) -> None:
    with pytest.raises(InvalidInput, match="1 to 5"):
        numbers(told, 5)


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_wider_than_the_terminal(told: Run, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    id = one(told, BERLIN)
    for command in (("history", id), ("journal",), ("forget", "--matching", "I", "--dry-run"), ("observations", "--deleted")):
        shown = told(*command).out
        assert max(Console().measure(line).maximum for line in shown.splitlines()) <= width
