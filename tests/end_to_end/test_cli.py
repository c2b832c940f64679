"""The command line: answers, one JSON document, exit codes, and no traceback."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from consolidator.models import Memory, Observation
from consolidator_adapters.cli import main
from consolidator_adapters.cli.views import observation as observation_view
from consolidator_adapters.cli.views import witnesses
from tests.end_to_end.conftest import Run

pytestmark = pytest.mark.usefixtures("hash_embedder")

ERASE = "\x1b[2J"


class TestRetain:
    def test_keeps_a_text(self, run: Run) -> None:
        ran = run("retain", "Alice moved to Berlin.", "--source", "chat-1", "--at", "2026-03-20", "--tag", "work", "--json")
        (memory,) = ran.document["memories"]
        assert (ran.code, ran.document["new"], memory["text"]) == (0, 1, "Alice moved to Berlin.")
        assert (memory["occurred_at"], memory["tags"]) == ("2026-03-20T00:00:00Z", ["work"])

    def test_keeps_it_once(self, run: Run) -> None:
        first, second = (run("retain", "The same.", "-s", "a", "--at", "2026-03-20") for _ in range(2))
        assert "1 new memory" in first.out
        assert "0 new memories, 1 known before" in second.out

    def test_reads_standard_input(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("From a pipe."))
        assert run("retain", "-", "-s", "pipe", "--json").document["memories"][0]["text"] == "From a pipe."

    def test_reads_json_lines(self, run: Run, tmp_path: Path) -> None:
        lines = tmp_path / "talk.jsonl"
        items: list[object] = [{"text": f"Turn {n}.", "sequence": n, "occurred_at": "2026-03-20"} for n in range(70)]
        lines.write_text("\n".join(json.dumps(item) for item in [*items, "A bare text."]) + "\n\n")
        kept = run("retain", "--file", str(lines), "--source", "talk", "--json").document
        assert [m["text"] for m in kept["memories"]] == [f"Turn {n}." for n in range(70)] + ["A bare text."]
        assert kept["memories"][69]["occurred_at"] == "2026-03-20T00:00:00Z"

    @pytest.mark.parametrize(
        ("line", "said"),
        [("{", "line 2 is no JSON"), ('{"txt": 1}', "line 2 is no memory"), ('{"text": "x", "sauce": "y"}', "sauce")],
    )
    def test_a_bad_line_is_named_and_nothing_is_kept(self, run: Run, tmp_path: Path, line: str, said: str) -> None:
        lines = tmp_path / "talk.jsonl"
        lines.write_text(f'"fine"\n{line}\n')
        ran = run("retain", "--file", str(lines), "-s", "talk")
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
        assert run("stats", "--json").code == 3

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (("text",), "--source is missing"),
            ((), "give either a text"),
            (("text", "-s", "a", "--at", "2026-13-01"), "is no time"),
            (("text", "-s", "a", "--at", "2026-03-01T10:00"), "has no zone"),
            (("text", "-s", "a", "--kind", "rumour"), "kind"),
            (("  ", "-s", "a"), "blank"),
            (("text", "-s", "a", "--nonsense"), "--nonsense"),
            (("--file", "nowhere.jsonl", "-s", "a"), "there is no file nowhere.jsonl"),
            (("text", "-s", ""), "the source is empty; name"),
            (("", "-s", "a"), "blank"),
        ],
    )
    def test_wrong_input_is_a_sentence_and_makes_no_folder(
        self, run: Run, folder: Path, args: tuple[str, ...], said: str
    ) -> None:
        ran = run("retain", *args)
        assert not folder.exists()
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith("error: ")
        assert said in ran.err
        assert ran.err.count("\n") == 1


    def test_an_embedder_that_cannot_be_used_leaves_no_folder(
        self, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONSOLIDATOR_EMBEDDER__PROVIDER", "nonesuch")
        assert run("retain", "text", "-s", "a", "--folder", str(folder / "deeper")).code != 0
        assert not folder.exists()


class TestRecall:
    def test_shows_text_witness_and_source(self, told: Run) -> None:
        ran = told("recall", "Does Alice like green tea?")
        assert ran.code == 0
        assert re.search(r"^1 +0\.\d{3}  .*green tea", ran.out)
        assert "2026-03-20" in ran.out
        assert "chat-2" in ran.out

    def test_the_explanation_adds_up(self, told: Run) -> None:
        shown = told("recall", "Where does Alice live?", "--explain").out
        for hit in told("recall", "Where does Alice live?", "--explain", "--json").document:
            why = hit["explanation"]
            shares = [leg["standardised"] * leg["weight"] for leg in why["legs"]] + [term["share"] for term in why["terms"]]
            assert f"{sum(shares):.3f}" in shown
            assert f"{hit['score']:.3f}" in shown

    def test_a_block_for_a_prompt(self, told: Run) -> None:
        ran = told("recall", "Where does Alice live?", "--context")
        assert ran.out.startswith("<memories>\nRemembered statements")
        assert "[1] " in ran.out
        assert ran.out.rstrip().endswith("</memories>")
        block = told("recall", "Where does Alice live?", "--context", "--json").document
        assert block["text"] == ran.out.rstrip("\n")
        assert list(block["handles"]) == [f"[{n + 1}]" for n in range(len(block["handles"]))]
        assert told("recall", "Where does Alice live?", "--context", "--explain").code == 2
        assert told("recall", "xylophone zygote", "--context").out == "nothing relevant was found\n"

    def test_few_candidates_are_said_to_be_few(self, told: Run, run: Run) -> None:
        run("retain", "I like green tea.", "-s", "chat-1")
        note = "with so few candidates"
        assert note in run("recall", "tea", "--explain").out
        assert note not in run("recall", "tea").out
        assert note not in told("recall", "Where does Alice live?", "--explain", "--top-k", "1").out

    def test_filters(self, told: Run) -> None:
        def texts(*args: str) -> list[str]:
            return [hit["text"] for hit in told("recall", "Where does Alice live?", "--kind", "memory", "--json", *args).document]

        assert len(texts("--top-k", "1")) == 1
        assert texts("--until", "2026-01-05") == ["I live in Lisbon."]
        assert "I live in Lisbon." not in texts("--since", "2026-01-06")
        assert texts("--tag", "work") == []
        assert texts("--as-of", "2020-01-01") == []

    @pytest.mark.parametrize("args", [("--top-k", "0"), ("--kind", "rumour"), ("--since", "soon"), ("--top-k", "many")])
    def test_wrong_input(self, told: Run, args: tuple[str, ...]) -> None:
        ran = told("recall", "Where?", *args, "--json")
        assert ran.code == 2
        assert set(ran.document["error"]) == {"type", "message"}
        assert ran.err.startswith("error: ")

    def test_text_is_shown_as_it_is_and_steers_nothing(self, run: Run) -> None:
        run("retain", f"[red]not markup[/red] {ERASE} cleared\u202e", "-s", "web")
        shown = run("recall", "not markup cleared").out
        assert "[red]not markup[/red]" in shown
        assert not set(shown) & {"\x1b", "\u202e"}


class TestLooking:
    def test_observations_show_and_history_by_a_short_id(self, told: Run) -> None:
        found = told("observations", "--json").document
        assert found
        for observation in found:
            short = observation["id"][:8]
            shown = told("show", short).out
            assert " ".join(observation["text"].split()[:3]) in shown
            assert "evidence" in shown
            story = told("history", short).out
            assert "created" in story
            assert "chat-" in story

    def test_show_gives_the_words_of_the_evidence(self, told: Run) -> None:
        (first, *_) = told("observations", "--json").document
        shown = told("show", first["id"], "--json").document
        assert {e["memory_id"] for e in shown["observation"]["evidence"]} == set(shown["evidence"])
        assert shown["versions"] >= 1

    def test_show_a_memory(self, told: Run) -> None:
        (hit, *_) = told("recall", "green tea", "--kind", "memory", "--json").document
        assert told("show", hit["id"], "--json").document["memory"]["text"] == "I like green tea."
        assert "chat-2" in told("show", hit["id"]).out

    @pytest.mark.parametrize("command", ["show", "history"])
    @pytest.mark.parametrize("id", ["5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11", "5f0c2a9e", "xyz"])
    def test_what_is_not_there(self, told: Run, command: str, id: str) -> None:
        ran = told(command, id)
        assert (ran.code, ran.out) == (3, "")

    def test_what_an_id_looks_like_is_said(self, told: Run) -> None:
        assert "or its first 4 characters or more" in told("show", "zzz").err
        assert "no memory or observation" in told("show", "5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11").err

    def test_what_was_corrected_stands_last_and_is_marked(self, told: Run) -> None:
        (found,) = (o for o in told("observations", "--json").document if "Berlin" in o["text"])
        observation = Observation.model_validate(found)
        old, new = (observation.evidence[0].model_copy(update={"memory_id": id}) for id in ("a", "b"))
        wrong = observation.model_copy(update={"evidence": (old.model_copy(update={"supports": False}), new)})
        assert [e.memory_id for e in witnesses(wrong)] == ["b", "a"]
        assert [e.memory_id for e in witnesses(observation.model_copy(update={"evidence": (old, new)}))] == ["a", "b"]
        (memory, *_) = told("recall", "Lisbon", "--kind", "memory", "--json").document
        said = Memory.model_validate(told("show", memory["id"], "--json").document["memory"])
        console = Console(file=io.StringIO(), width=100)
        with console.capture() as shown:
            console.print(observation_view(wrong, {"a": said, "b": said}, ()))
        assert ["corrected:" in line for line in shown.get().splitlines() if "“" in line] == [False, True]

    def test_lists(self, told: Run) -> None:
        assert told("sources", "--json").document == {"chat-1": 1, "chat-2": 2}
        assert told("parked", "--json").document == []
        assert len(told("journal", "--limit", "2", "--json").document) == 2
        assert told("stats", "--json").document["memories"] == 3
        for command in ("sources", "parked", "journal", "stats", "observations"):
            assert told(command).out.strip()

    def test_an_unknown_trend_is_refused(self, told: Run) -> None:
        assert "known are new" in told("observations", "--trend", "rising").err

    def test_banks_are_apart(self, told: Run) -> None:
        assert told("--bank", "other", "recall", "green tea", "--json").document == []
        assert told("stats", "--bank", "other", "--json").document["bank"] == "other"
        assert told("stats", "--bank", "a:b").code == 2

    def test_looking_makes_no_memory(self, run: Run, folder: Path) -> None:
        ran = run("recall", "anything")
        assert ran.code == 3
        assert "no memory in" in ran.err
        assert not folder.exists()


class TestConsolidate:
    def test_a_dry_run_changes_nothing(self, run: Run) -> None:
        run("retain", "I live in Lisbon.", "-s", "chat-1", "--speaker", "Alice")
        assert run("consolidate", "--dry-run", "--json").document["dry_run"] is True
        assert run("stats", "--json").document["pending"] == 1

    def test_reports_what_it_did(self, run: Run) -> None:
        run("retain", "I live in Lisbon.", "-s", "chat-1", "--speaker", "Alice")
        assert "1 memory consolidated" in run("consolidate").out
        assert run("consolidate", "--json").document["passes"] == 0
        assert "leave it out for all" in run("consolidate", "--limit", "0").err


class TestEverywhere:
    def test_no_arguments_show_the_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 0
        assert "demo" in capsys.readouterr().out

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--version"]) == 0
        assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)

    def test_an_unknown_command(self, run: Run) -> None:
        ran = run("remember", "--json")
        assert ran.code == 2
        assert "remember" in ran.document["error"]["message"]

    def test_shared_options_stand_before_or_after(
        self, told: Run, three_sentences: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = told("--json", "--bank", "default", "sources").document
        assert main(["sources", "--json", "--bank", "default", "--folder", str(three_sentences)]) == 0
        assert json.loads(capsys.readouterr().out) == before

    def test_an_interruption_is_no_error(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted() -> str:
            raise KeyboardInterrupt

        stdin = io.StringIO()
        monkeypatch.setattr(stdin, "read", interrupted)
        monkeypatch.setattr("sys.stdin", stdin)
        ran = run("retain", "-", "-s", "a")
        assert (ran.code, ran.err.strip()) == (130, "interrupted; run it again")

    def test_an_interruption_ends_the_wait_for_input(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        waited = False

        def interrupted() -> str:
            nonlocal waited
            signal.raise_signal(signal.SIGINT)
            waited = True
            return "text"

        stdin = io.StringIO()
        monkeypatch.setattr(stdin, "read", interrupted)
        monkeypatch.setattr("sys.stdin", stdin)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            assert run("retain", "-", "-s", "a").code == 130
        finally:
            signal.signal(signal.SIGINT, before)
        assert not waited

    def test_debug_shows_the_error_itself(self, run: Run) -> None:
        with pytest.raises(Exception, match="no memory in"):
            run("stats", "--debug")


def _process(*args: str, folder: Path, then: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys; from consolidator_adapters.cli import main; code = main(sys.argv[1:]); {then or 'sys.exit(code)'}"
    command = [sys.executable, "-c", code, "--folder", str(folder), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_process_writes_json_alone_and_exits_with_the_code(folder: Path) -> None:
    kept = _process("retain", "Grüße aus Köln.", "-s", "post", "--json", folder=folder)
    assert (kept.returncode, kept.stderr) == (0, "")
    assert json.loads(kept.stdout)["memories"][0]["text"] == "Grüße aus Köln."
    missing = _process("show", "5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11", folder=folder)
    assert (missing.returncode, missing.stdout) == (3, "")
    assert missing.stderr.startswith("error: ")
    assert "Traceback" not in missing.stderr


def test_standard_input_is_utf_8_or_refused(folder: Path) -> None:
    code = "import sys; from consolidator_adapters.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "--folder", str(folder), "retain", "-", "-s", "pipe", "--json"]
    for encoding, exit_code in (("latin-1", 2), ("utf-8", 0)):
        told = subprocess.run(
            command, input="Grüße".encode(encoding), capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"}
        )
        assert told.returncode == exit_code
        assert ("standard input is not UTF-8" in told.stderr.decode()) == bool(exit_code)
    assert json.loads(told.stdout)["memories"][0]["text"] == "Grüße"


def test_an_embedder_that_is_down_is_told_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PROVIDER", "openai"), ("BASE_URL", "http://127.0.0.1:9/v1"), ("DIMENSION", "64"), ("API_KEY", "x")):
        monkeypatch.setenv(f"CONSOLIDATOR_EMBEDDER__{name}", value)
    kept = _process("retain", "I like tea.", "-s", "a", folder=folder)
    assert (kept.returncode, kept.stderr) == (0, "")
    assert "the embedder failed" in kept.stdout


def test_help_loads_no_vendor_and_is_quick(folder: Path) -> None:
    vendors = "{'torch', 'qdrant_edge', 'qdrant_client', 'openai', 'sqlalchemy', 'sentence_transformers'}"
    then = f"import time; sys.stderr.write(str(sorted({vendors} & sys.modules.keys())) + f' {{time.process_time():.2f}}')"
    told = _process("--help", folder=folder, then=then)
    loaded, seconds = told.stderr.rsplit(" ", 1)
    assert loaded == "[]"
    assert float(seconds) < 2  # 0.3 on a quiet machine
