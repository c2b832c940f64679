"""The command line on sessions: harvested, skipped, told of beforehand; one bad file does not stop the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Run
from tests.sessions import FOLDER, SESSIONS

pytestmark = pytest.mark.usefixtures("hash_embedder")


def test_a_folder_is_harvested_and_then_skipped(run: Run) -> None:
    told = run("harvest", str(FOLDER), "--json")
    assert told.code == 0, told.err
    totals = told.document["totals"]
    assert totals["stretches"] == len(told.document["sessions"])
    assert totals["items"]["pitfall"] > 0
    again = run("harvest", str(FOLDER), "--json").document["totals"]
    assert (again["stretches"], again["skipped"]) == (0, totals["stretches"])
    assert run("fsck").code == 0


def test_what_was_found_is_shown_in_a_table(run: Run) -> None:
    args = ("harvest", str(SESSIONS["success"]), str(SESSIONS["notes"]), "--project", "harbour-api")
    told = run(*args)
    assert told.code == 0, told.err
    assert "2 pitfall" in told.out
    assert "session/20261103_091500_success" in told.out
    assert "2 sessions harvested" in told.out
    assert "read by rules (2)" in told.out
    assert "2 sessions skipped" in run(*args).out


def test_a_dry_run_says_what_would_be_and_keeps_nothing(run: Run, folder: Path) -> None:
    run("retain", "x", "--source", "s")
    told = run("harvest", str(SESSIONS["success"]), "--dry-run")
    assert "1 session would be harvested" in told.out
    assert "0.9 pitfall: `uv run pytest" in told.out
    assert run("observations", "--json").document == []
    assert run("stats", "--json").document["memories"] == 1


def test_limit_takes_new_sessions_alone(run: Run, tmp_path: Path) -> None:
    sessions = tmp_path / "sessions"
    sessions.mkdir()
    for name in ("success", "patterns"):
        shutil.copy(SESSIONS[name], sessions)
    first = run("harvest", str(sessions), "--limit", "1", "--json").document["sessions"]
    assert [one["session"] for one in first] == ["session/20261103_091500_success"]
    second = run("harvest", str(sessions), "--limit", "1", "--json").document["sessions"]
    assert [(one["session"], one["stretches"]) for one in second] == [
        ("session/20261103_091500_success", 0), ("session/20261106_160500_patterns", 1),
    ]


def test_one_bad_file_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    bad, nameless = tmp_path / "bad.jsonl", tmp_path / "nameless.jsonl"
    bad.write_text("")
    nameless.write_text(json.dumps({"role": "user", "content": "Hello there."}) + "\n")
    told = run("harvest", str(bad), str(nameless), str(SESSIONS["success"]), "--json")
    assert told.code == 1
    assert {Path(name).name for name in told.document["failed"]} == {"bad.jsonl", "nameless.jsonl"}
    assert "names no project" in told.err
    assert len(told.document["sessions"]) == 1


@pytest.mark.parametrize(("args", "said"), [
    (("nowhere",), "there is no file or folder nowhere"), ((str(FOLDER), "--limit", "0"), "--limit is a number from 1 on"),
    ((str(FOLDER), "--ask"), "--ask goes with --dry-run"),
])
def test_wrong_input_is_refused_in_a_sentence(run: Run, folder: Path, args: tuple[str, ...], said: str) -> None:
    told = run("harvest", *args)
    assert told.code == 2
    assert said in told.err
    assert not folder.exists()
