"""The command line's ways to look at importance: scores as a heat map, what is known of an item, training candidates."""

from __future__ import annotations

import io
import json
import re
import stat
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

from consolidator.blocking import connect
from consolidator.divergence import REASONS, Skip
from consolidator.errors import InvalidInput
from consolidator.testing import HashEmbedder
from consolidator.transcripts import Cell, Group, Matrix, Segment, Transcript, Turn
from consolidator_adapters.cli import scoring, scoring_views
from consolidator_adapters.cli.candidate_file import REJECTED_KEPT, Candidate, decided, merged
from consolidator_adapters.cli.transcribed import Item, Shown
from consolidator_adapters.heatmap import Box, Sheet, cut, is_dark, number, shade, svg
from tests.end_to_end.conftest import Run
from tests.logprob_server import MODEL, LogprobServer, serving

ROOT = Path(__file__).parents[2]
NOBODY = "5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11"
SAID = (
    ("Alice", "I moved to Berlin in May, to a flat near the canal."), ("Alice", "I like green tea, never coffee."),
    ("Bob", "The staging server is called heron."), ("Bob", "I am allergic to peanuts."),
)
Line = dict[str, Any]

pytestmark = pytest.mark.usefixtures("hash_embedder")


def user(text: str) -> Line:
    return {"role": "user", "content": text}


def answer(text: str) -> Line:
    return {"role": "assistant", "content": text}


@pytest.fixture
def ids(folder: Path) -> list[str]:
    """Of four memories in the bank "default"."""
    when = datetime(2026, 3, 20, tzinfo=UTC)
    with connect(folder, embedder=HashEmbedder()) as engine:
        bank = engine.bank("default")
        return [bank.retain(t, source="chat", speaker=who, occurred_at=when).memories[0].id for who, t in SAID]


def shows(ids: Sequence[str], *places: int) -> Line:
    plain: list[Line] = [{"text": "What you remember:\n"}]
    return {"role": "system", "segments": plain + [{"text": f"{SAID[n][1]}\n", "items": [ids[n]]} for n in places]}


@pytest.fixture
def talk(ids: list[str], tmp_path: Path) -> Path:
    return written(tmp_path / "talk.jsonl", [
        shows(ids, 0, 1), user("Where does Alice live?"), answer("She lives in a flat near the canal in Berlin."),
        shows(ids, 2), user("What could she drink?"), answer("Green tea. She likes no coffee."),
        user("How is staging called?"), answer("The staging server is called heron."), user("Thanks!"), answer(""),
    ])


def written(file: Path, lines: Sequence[object]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogprobServer]:
    """A model that measures."""
    with serving() as server:
        told = {"PROVIDER": "completions", "MODEL": MODEL, "BASE_URL": server.url}
        for name, value in told.items():
            monkeypatch.setenv(f"CONSOLIDATOR_IMPORTANCE__{name}", value)
        yield server


class TestScore:
    def test_a_heat_map_that_reads_without_colour(self, run: Run, talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        ran = run("score", str(talk))
        assert (ran.code, ran.err) == (0, "")
        assert not [line for line in ran.out.splitlines() if len(line) > 80]
        assert ran.out.split()[:5] == ["/2", "/5", "/7", "/9", "sum"]
        tea = next(line for line in ran.out.splitlines() if line.startswith("I like green tea"))
        assert re.fullmatch(r"I like green tea, never coffee\. +-0\.\d\d +\+0\.\d\d +-0\.\d\d +· +[+-]0\.\d\d", tea)
        assert "the answer says nothing (3)" in ran.out
        assert "the answer was not shown it (1)" in ran.out
        assert "lexical/unigram-jm50-1, the words alone" in " ".join(ran.out.split())
        assert "nothing was sent to a model" in ran.out

    def test_the_important_memories_of_each_answer(self, run: Run, talk: Path, ids: list[str]) -> None:
        shown = run("score", str(talk)).out
        _, _, answers = shown.partition("\n/2 ")
        assert re.search(rf"“Green tea\. She likes no coffee\.”\n +\+0\.\d\d  I like green tea.* memory {ids[1][:8]}\n", answers)
        assert answers.rstrip().endswith("/9 (empty)\n   not applicable")

    def test_one_document(self, run: Run, talk: Path, ids: list[str]) -> None:
        told = run("score", str(talk), "--json").document
        cells = {g["items"][0]: row for g, row in zip(told["matrix"]["groups"], told["matrix"]["cells"], strict=True)}
        known = [cell["value"] for cell in cells[ids[1]] if cell["value"] is not None]
        assert told["importance"][ids[1]] == pytest.approx(sum(known))
        assert told["dependence"]["talk/9"] is None  # it says nothing, which is not 0
        assert told["lacking"] == {"importance": [], "dependence": []}
        assert [it["group"] for it in told["important"]["talk/5"]] == [ids[1]]
        assert (told["texts"][ids[1]], told["transcript"]) == ("I like green tea, never coffee.", "talk")
        assert (told["plain_text"], told["kept"], told["incomplete"]) == (0, None, False)

    def test_scoring_the_same_file_twice_moves_nothing_twice(self, run: Run, talk: Path, ids: list[str]) -> None:
        def state() -> Any:
            return run("importance", ids[1], "--json").document["states"]

        run("score", str(talk))
        first = state()
        run("score", str(talk))
        assert state() == first
        run("score", str(talk), "--id", "another talk")
        assert state()[0]["updates"] > first[0]["updates"]

    def test_a_dry_run_keeps_nothing(self, run: Run, talk: Path, ids: list[str]) -> None:
        shown = run("score", str(talk), "--dry-run").out
        assert "3 groups of memories against 4 answers would send no prompt and no token; nothing was sent or kept" in shown
        assert run("importance", ids[0], "--json").document["states"] == []

    def test_one_item_by_a_short_id(self, run: Run, talk: Path, ids: list[str]) -> None:
        told = run("score", str(talk), "--item", ids[2][:8], "--json").document
        assert [group["items"] for group in told["matrix"]["groups"]] == [[ids[2]]]
        assert told["matrix"]["responses"] == ["talk/5", "talk/7", "talk/9"]
        ran = run("score", str(talk), "--item", ids[3])
        assert (ran.code, "shows no item" in ran.err) == (3, True)

    def test_an_observation_stands_for_its_evidence(self, run: Run, ids: list[str], tmp_path: Path) -> None:
        run("consolidate")
        made = next(o for o in run("observations", "--json").document if "peanuts" in o["text"])
        both = {"role": "system", "segments": [{"text": "peanuts\n", "items": [ids[3]]}, {"text": "x\n", "items": [made["id"]]}]}
        file = written(tmp_path / "both.jsonl", [both, user("What must Bob not eat?"), answer("Peanuts, he is allergic.")])
        shown = run("score", str(file)).out
        assert "Bob is allergic to peanuts. (+1)" in shown
        assert f"observation {made['id'][:8]}" in shown
        assert "(+n): left out together" in shown

    def test_what_does_not_fit_is_said(self, run: Run, ids: list[str], tmp_path: Path) -> None:
        turns = [turn for n in range(30) for turn in (user(f"Question {n}?"), answer(f"Answer {n} is about tea."))]
        turns[41:42] = [answer("Green tea, never coffee.")]
        shown = run("score", str(written(tmp_path / "long.jsonl", [shows(ids, 1), *turns]))).out
        heads = shown.splitlines()[0].split()
        assert "/42" in heads
        assert len(heads) < 15
        assert f"{len(heads) - 1} of 30 answers fit in here" in shown

    def test_unknown_items_are_counted_as_plain_text(self, run: Run, ids: list[str], tmp_path: Path) -> None:
        lines = [shows([NOBODY, ids[1], "m7"], 0, 1, 2), user("Tea?"), answer("Green tea, never coffee.")]
        file = written(tmp_path / "talk.jsonl", lines)
        assert "2 of 3 items are unknown to bank default, and read as plain text" in run("score", str(file)).out
        assert run("score", str(file), "--json").document["plain_text"] == 2

    def test_texts_steer_nothing(self, run: Run, folder: Path, tmp_path: Path) -> None:
        kept = run("retain", "[red]tea\x1b[2J", "-s", "web", "--json").document["memories"][0]["id"]
        lines = [{"role": "system", "content": "tea", "items": [kept]}, user("Tea?"), answer("[b]tea\x1b[2J it is <&>")]
        image = tmp_path / "out.svg"
        shown = run("score", str(written(tmp_path / "talk.jsonl", lines)), "--image", str(image)).out
        assert "[red]tea" in shown
        assert "\x1b" not in shown
        assert "it is <&>" in "".join(ET.parse(image).getroot().itertext())


class TestDue:
    def test_each_group_once_and_the_reason_for_the_others(self, run: Run, talk: Path) -> None:
        first = run("score", str(talk), "--due")
        assert "3 due, 3 scored, 0 passed over, 0 failed" in first.out
        assert re.search(r"[+-]0\.\d\d +I like green tea", first.out)
        second = run("score", str(talk), "--due")
        assert "0 due, 0 scored, 3 passed over" in second.out
        assert "nothing new was answered (3)" in second.out

    def test_one_document(self, run: Run, talk: Path, ids: list[str]) -> None:
        told = run("score", str(talk), "--due", "--json").document
        assert {group["items"][0] for group, _ in told["report"]["scored"]} == {*ids[:3]}

    @pytest.mark.parametrize("other", [("--dry-run",), ("--item", NOBODY), ("--mode", "matrix"), ("--image", "x.svg")])
    def test_goes_alone(self, run: Run, talk: Path, other: tuple[str, ...]) -> None:
        ran = run("score", str(talk), "--due", *other)
        assert (ran.code, "--due has its own order" in ran.err) == (2, True)

    def test_what_is_kept_is_left_to_the_background(self, run: Run, talk: Path, folder: Path) -> None:
        assert "kept: the background" in run("score", str(talk), "--keep").out
        assert run("score", str(talk), "--keep", "--json").document["kept"] is False


class TestModel:
    def test_measures_with_the_configured_model(self, run: Run, talk: Path, served: LogprobServer) -> None:
        would = run("score", str(talk), "--dry-run").out
        told = run("score", str(talk), "--json").document["matrix"]
        assert told["unit"].startswith("completions/")
        assert f"{told['prompts_sent']} prompts" in would
        shown = run("score", str(talk)).out
        assert f"{told['prompts_sent']:,} prompts and {told['tokens_sent']:,} tokens were sent" in shown

    def test_what_is_unknown_is_no_zero(
        self, run: Run, talk: Path, served: LogprobServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONSOLIDATOR_IMPORTANCE__PROMPTS", "4")
        ran = run("score", str(talk))
        assert "? unknown, not 0: over the budget of prompts and tokens" in ran.out
        assert "a sum with ? lacks what is unknown" in ran.out
        assert re.search(r"^I like green tea.* \?", ran.out, re.MULTILINE)
        assert "what it leant on is unknown" in ran.out
        assert run("score", str(talk), "--json").document["incomplete"] is True
        assert "would be over the budget" in run("score", str(talk), "--dry-run").out

    def test_a_server_that_is_away_is_one_sentence(
        self, run: Run, talk: Path, served: LogprobServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONSOLIDATOR_IMPORTANCE__BASE_URL", "http://127.0.0.1:9/v1")
        monkeypatch.setenv("CONSOLIDATOR_IMPORTANCE__DEADLINE", "0.2")
        ran = run("score", str(talk))
        assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)


class TestImage:
    def test_a_picture_with_every_number(self, run: Run, talk: Path, tmp_path: Path) -> None:
        image = tmp_path / "out.svg"
        ran = run("score", str(talk), "--image", str(image))
        assert f"drawn in {image}" in " ".join(ran.out.split())
        root = ET.parse(image).getroot()
        texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert {"/2", "/5", "/7", "sum", "·"} <= {*texts}
        assert [text for text in texts if re.fullmatch(r"[+-]0\.\d\d", text)]
        assert "talk.jsonl: what each memory was worth to each answer" in texts
        assert run("score", str(talk), "--image", str(image), "--json").document["image"] == str(image)

    @pytest.mark.parametrize(("name", "said"), [("out.png", "name it out.svg"), ("nowhere/out.svg", "there is no folder")])
    def test_is_refused_before_the_work(self, run: Run, talk: Path, tmp_path: Path, name: str, said: str) -> None:
        ran = run("score", str(talk), "--image", str(tmp_path / name))
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err

    @pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 40), (60, 2)])
    def test_everything_lies_inside_and_nothing_overlaps(self, rows: int, columns: int) -> None:
        box = Box(value=-12.345, mark="?", hint="<&>\x00")
        sheet = Sheet(
            title="A \"title\" & more", subtitle="s" * 60, rows=("a long label " * 9,) * rows, heads=("/12345",) * columns,
            captions=("W" * 60,) * columns, boxes=((box,) * columns,) * rows, row_sums=(box,) * rows,
            column_sums=(box,) * columns, notes=("a note " * 60,),
        )
        root = ET.fromstring(svg(sheet))
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        frames = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if "rx" in e.attrib]
        corners = {(float(e.attrib["x"]), float(e.attrib["y"])) for e in frames}
        assert len(corners) == len(frames) == rows * (columns + 1) + columns + 7
        assert all(x + float(e.attrib["width"]) < width for e, x in ((e, float(e.attrib["x"])) for e in frames))
        assert all(float(e.attrib.get("y", 0)) < height for e in root.iter("{http://www.w3.org/2000/svg}text"))

    def test_colours_diverge_and_noise_has_none(self) -> None:
        above, below = shade(0.5, 1.0), shade(-0.5, 1.0)
        assert above is not None
        assert below is not None
        assert above[0] > above[2]
        assert below[2] > below[0]
        assert shade(0.01, 1.0) is shade(None, 1.0) is None
        assert [is_dark(colour) for colour in ((0, 0, 0), (255, 255, 255))] == [True, False]
        assert [number(v) for v in (0.004, -0.004, 0.1, -2)] == ["0.00", "0.00", "+0.10", "-2.00"]
        assert cut("a text (+2)", 8, keep=re.compile(r" \(\+2\)$")) == "a… (+2)"


class TestSheet:
    def test_marks_and_sums(self) -> None:
        turns = [Turn(role="assistant", segments=(Segment(text=text),)) for text in ("One.", "Two.", "Three.")]
        talk = Transcript(id="talk", turns=tuple(turns), at=datetime(2026, 3, 1, tzinfo=UTC))
        known = Cell(value=0.2, tokens=5, status="scored")
        shared = Cell(value=-0.02, tokens=5, status="scored", how="bucket", share=0.5)
        failed, absent = Cell(status="failed", reason="unavailable: 503"), Cell(status="not_applicable", reason="too_short")
        told = Matrix(
            unit="u", groups=(Group(items=("a",)), Group(items=("b",)), Group(items=("c", "d"))),
            responses=("talk/0", "talk/1", "talk/2"), prompts_sent=1_234, tokens_sent=1,
            cells=((failed, failed, absent), (known, shared, absent), (known, failed, absent)),
        )
        shown = Shown(transcript=talk, items={id: Item(id, "memory", id * 60) for id in "abcd"}, asked=4, bank="x")
        sheet = scoring_views.sheet_of(told, shown, "title")
        summed = scoring.summed(told, shown)
        assert summed["importance"] == pytest.approx({"a": None, "b": 0.18, "c": 0.2})
        assert summed["dependence"] == pytest.approx({"talk/0": 0.4, "talk/1": -0.02, "talk/2": None})
        assert summed["lacking"] == {"importance": ["a", "c"], "dependence": ["talk/0", "talk/1"]}
        assert [[box.text for box in row] for row in sheet.boxes] == [
            ["+0.20", "?", "·"], ["+0.20", "~-0.02", "·"], ["?", "?", "·"],  # what is unknown comes last
        ]
        assert [box.text for box in sheet.row_sums] == ["+0.20?", "+0.18", "?"]
        assert [box.text for box in sheet.column_sums] == ["+0.40?", "-0.02?", "·"]
        assert sheet.rows[0].endswith("c (+1)")
        assert "? unknown, not 0: the model cannot be reached: 503 (3)" in sheet.notes
        assert "1,234 prompts and 1 token were sent" in sheet.notes
        console = Console(file=io.StringIO(), width=60)
        with console.capture() as printed:
            console.print(scoring_views.matrix(told, shown, sheet, 60))
        first, *lines = printed.get().splitlines()
        assert first.split() == ["/0", "/1", "/2", "sum"]
        assert all(len(line.rstrip()) <= 60 for line in lines)
        assert lines[0].split()[1] == "(+1)"


class TestImportance:
    def test_states_and_scores(self, run: Run, talk: Path, ids: list[str]) -> None:
        assert "nothing is known of its importance, which is not 0" in run("importance", ids[1]).out
        run("score", str(talk))
        shown = run("importance", ids[1][:8]).out
        assert "unit lexical/unigram-jm50-1, the words alone" in shown
        assert re.search(r"[+-]0\.\d\d on average, \+0\.\d\d at most", shown)
        assert re.search(r"^\+0\.\d\d +\d+ +talk/5 ", shown, re.MULTILINE)
        told = run("importance", ids[1], "--json").document
        assert {score["response"] for score in told["scores"]} == {"talk/2", "talk/5", "talk/7"}
        assert (told["kind"], told["text"]) == ("memory", "I like green tea, never coffee.")

    def test_what_is_not_there(self, run: Run, ids: list[str]) -> None:
        assert run("importance", NOBODY).code == 3
        assert "or its first 4 characters" in run("importance", "zzz").err


class TestCandidates:
    def find(self, run: Run, talk: Path, *more: str) -> Any:
        return run("candidates", str(talk), "--out", str(talk.with_name("found.jsonl")), *more)

    def test_lines_to_train_on(self, run: Run, talk: Path) -> None:
        shown = self.find(run, talk)
        assert (shown.code, "3 new candidates in " in shown.out) == (0, True)
        assert "4 answers seen, 3 above 1 nats an answer" in shown.out
        assert "measured by the words alone" in shown.out
        lines = [json.loads(line) for line in talk.with_name("found.jsonl").read_text().splitlines()]
        assert [line["value"] for line in lines] == sorted((line["value"] for line in lines), reverse=True)
        assert len({line["made_at"] for line in lines}) == 3
        tea = next(line for line in lines if line["response"] == "talk/5")
        assert (tea["status"], tea["tokens"] > 3, tea["made_at"] > 10**18) == ("pending", True, True)
        assert tea["messages"][-2:] == [user("What could she drink?"), answer("Green tea. She likes no coffee.")]
        assert "canal." not in json.dumps([m for m in tea["messages"] if m["role"] == "system"])

    def test_what_memory_told_is_left_out_also_where_the_bank_does_not_know_it(
        self, run: Run, talk: Path, ids: list[str]
    ) -> None:
        gone = {"role": "system", "content": "An erased secret.", "items": [NOBODY]}
        lines = [gone, shows(ids, 1), user("Tea?"), answer("<think>I recall green tea</think>Green tea, never coffee.")]
        self.find(run, written(talk, lines))
        (line,) = talk.with_name("found.jsonl").read_text().splitlines()
        assert "secret" not in line
        assert json.loads(line)["messages"][-1]["content"] == "Green tea, never coffee."

    def test_finding_them_again_keeps_what_was_decided(self, run: Run, talk: Path) -> None:
        self.find(run, talk)
        file = talk.with_name("found.jsonl")
        approved = run("candidates", "approve", str(file), "talk/5").out
        assert "1 candidate approved; now 2 pending, 1 approved, 0 rejected" in approved
        before = file.read_text()
        shown = self.find(run, talk)
        assert "no new candidate" in shown.out
        assert "3 known before" in shown.out
        assert file.read_text() == before

    def test_approving_twice_is_harmless(self, run: Run, talk: Path) -> None:
        self.find(run, talk)
        file = talk.with_name("found.jsonl")
        file.chmod(0o640)
        run("candidates", "approve", str(file), "talk/5")
        before = file.read_text()
        again = run("candidates", "approve", str(file), "talk/5", "talk/5")
        assert (again.code, "0 candidates approved, 1 before" in again.out) == (0, True)
        assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (before, 0o640)
        assert run("candidates", "reject", str(file), "talk/5", "--json").document["changed"] == ["talk/5"]
        listed = run("candidates", "list", str(file))
        assert re.search(r"talk/5 +rejected", listed.out)
        assert "2 pending, 0 approved, 1 rejected" in listed.out
        assert not [path for path in file.parent.iterdir() if path.suffix == ".part"]

    def test_a_wrong_id_changes_nothing(self, run: Run, talk: Path) -> None:
        self.find(run, talk)
        file = talk.with_name("found.jsonl")
        before = file.read_text()
        ran = run("candidates", "approve", str(file), "talk/5", "talk/99")
        assert (ran.code, ran.out) == (3, "")
        assert 'there is no candidate "talk/99"' in ran.err
        assert file.read_text() == before

    def test_an_empty_result_explains_itself(self, run: Run, talk: Path) -> None:
        shown = self.find(run, talk, "--threshold", "50").out
        assert "no new candidate" in shown
        assert re.search(r"4 answers seen, 0 above 50 nats an answer; the highest \d+\.\d\d an answer, 0\.\d\d a token", shown)
        assert not talk.with_name("found.jsonl").exists()
        last = self.find(run, talk, "--count", "1", "--json").document
        assert (last["added"], last["report"]["seen"]) == ([], 1)
        assert "0 above 5 nats a token" in self.find(run, talk, "--threshold", "5", "--per-token").out

    @pytest.mark.parametrize(
        ("line", "said"),
        [("{", "line 2 is no candidate: it is no JSON"), ('{"response": "a/1"}', "line 2 is no candidate: value")],
    )
    def test_a_file_that_is_none(self, run: Run, talk: Path, line: str, said: str) -> None:
        file = talk.with_name("found.jsonl")
        file.write_text(f"\n{line}\n")
        for args in (("list", str(file)), ("reject", str(file), "a/1"), (str(talk), "--out", str(file))):
            ran = run("candidates", *args)
            assert (ran.code, ran.out) == (2, "")
            assert said in ran.err

    def test_without_a_transcript(self, run: Run) -> None:
        assert "name a transcript" in run("candidates").err
        assert "no file nowhere.jsonl" in run("candidates", "list", "nowhere.jsonl").err


def candidate(response: str, made_at: int, **more: Any) -> Candidate:
    messages = [{"role": "assistant", "content": more.pop("text", "Tea.")}]
    told = {"response": response, "value": 1, "tokens": 4, "messages": messages, "made_at": made_at}
    return Candidate.model_validate({**told, **more})


class TestCandidateFile:
    def test_a21_the_newest_rejected_are_kept(self) -> None:
        every = [candidate(f"a/{n}", n) for n in range(1, REJECTED_KEPT + 4)]
        for n in range(len(every), 0, -1):
            every, changed = decided(every, [f"a/{n}"], "rejected", now=1_000 - n)
            assert [one.response for one in changed] == [f"a/{n}"]
        assert [one.made_at for one in every] == [*range(1, REJECTED_KEPT + 1)]  # those that were rejected last

    def test_approved_and_pending_ones_stay(self) -> None:
        every = [candidate(f"a/{n}", n, status="approved" if n % 2 else "pending") for n in range(40)]
        assert decided(every, [], "rejected", now=5) == (every, [])

    def test_the_time_tells_two_of_one_name_apart(self) -> None:
        every = merged([candidate("a/1", 7)], [candidate("a/1", 7), candidate("a/1", 7, text="Coffee.")])
        assert [one.made_at for one in every] == [7, 8]
        with pytest.raises(InvalidInput, match="a/1 names 2 candidates; say which by when they were made: 7 or 8"):
            decided(every, ["a/1"], "approved", now=9)
        assert [one.status for one in decided(every, ["8"], "approved", now=9)[0]] == ["pending", "approved"]

    def test_what_a_person_noted_stays(self) -> None:
        (one,), _ = decided([candidate("a/1", 7, note="good")], ["a/1"], "approved", now=9)
        assert one.model_dump()["note"] == "good"


class TestWrongInput:
    @pytest.mark.parametrize("command", [("score",), ("candidates", "--out", "found.jsonl")])
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('{"role": "user", "content": "x"}\n{', "line 2 is no turn of a transcript: it is no JSON"),
            ('{"role": "bot", "content": "x"}', "line 1 is no turn of a transcript: role"),
            ('{"role": "user", "content": "x", "items": ["a"]}', 'no turn whose role is "assistant"'),
            ("", 'no turn whose role is "assistant"'),
            ('{"role": "assistant", "content": "x"}', 'shows no memory: a turn that does names it, such as {"role"'),
        ],
    )
    def test_a_transcript(self, run: Run, tmp_path: Path, command: tuple[str, ...], text: str, said: str) -> None:
        file = tmp_path / "talk.jsonl"
        file.write_text(text)
        ran = run(*command, str(file))
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert said in ran.err
        assert "talk.jsonl" in ran.err

    @pytest.mark.parametrize(
        ("args", "code", "said"),
        [
            (("score", "nowhere.jsonl"), 2, "there is no file nowhere.jsonl"),
            (("score", "."), 2, "is a folder"),
            (("score", "TALK", "--mode", "fast"), 2, 'there is no mode "fast"; known are auto'),
            (("score", "TALK", "--id", " "), 2, "1 to 256 characters"),
            (("score", "TALK", "--dry-run", "--keep"), 2, "--dry-run measures nothing"),
            (("score", "TALK", "--bank", "nobody"), 3, 'there is no bank "nobody"; known are default'),
            (("importance", NOBODY, "--bank", "nobody"), 3, 'there is no bank "nobody"'),
            (("candidates", "TALK", "--out", "x.jsonl", "--count", "0"), 2, "--count is a number from 1 on"),
            (("candidates", "TALK"), 2, "--out"),
        ],
    )
    def test_a_command(self, run: Run, talk: Path, args: tuple[str, ...], code: int, said: str) -> None:
        ran = run(*(str(talk) if arg == "TALK" else arg for arg in args))
        assert (ran.code, ran.out) == (code, "")
        assert said in ran.err

    def test_a_bank_that_knows_none_of_it(self, run: Run, talk: Path) -> None:
        run("retain", "Something else.", "-s", "a", "--bank", "other")
        ran = run("score", str(talk), "--bank", "other")
        assert (ran.code, ran.out) == (3, "")
        assert 'bank "other" does not know any of the 3 items' in ran.err


def test_the_example_is_scored_with_ids_of_the_bank(run: Run, tmp_path: Path) -> None:
    text = (ROOT / "examples" / "transcript.jsonl").read_text()
    for memory in re.findall(r"- Alice: (.*?)\\n", text):
        kept = run("retain", "--source", "chat-1", "--speaker", "Alice", memory, "--json").document["memories"][0]
        text = re.sub(rf'({re.escape(memory)}.*?"items": )\["[^"]+"\]', rf'\1["{kept["id"]}"]', text, count=1)
    file = tmp_path / "talk.jsonl"
    file.write_text(text)
    shown = run("score", str(file)).out
    assert re.search(r"“Green tea, as you never drink coffee\.”\n +\+0\.\d\d  I like green tea", shown)
    assert "plain text" not in shown


def test_every_reason_is_told_in_words() -> None:
    assert {word for _, word in REASONS} <= scoring_views.REASONS.keys()
    assert {*get_args(Skip)} == scoring_views.SKIPS.keys()
