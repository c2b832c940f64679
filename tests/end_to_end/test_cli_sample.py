"""The command that chooses among the sessions of agents: sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Run

Line = dict[str, Any]


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """Two sessions of which one failed, one of which one line is bad, and an empty one."""
    folder = tmp_path / "sessions"
    (folder / "deep").mkdir(parents=True)
    call = {"function": {"name": "terminal", "arguments": '{"command": "cd ~/src/widgets && make"}'}}
    failing: list[Line] = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "", "exit_code": 2}]
    said = {"role": "assistant", "content": "I could not fix \x1b[31mit."}
    told = {"deep/20260413_101500_a.jsonl": [*failing, said], "20260412_b.jsonl": [{"role": "user", "content": "Hello"}]}
    for name, lines in told.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "20260411_c.jsonl").write_text('{"role": "assistant", "content": "Done."}\nnot json\n')
    (folder / "empty.jsonl").touch()
    return folder


def test_the_table_names_what_failed_and_what_was_skipped(run: Run, sessions: Path) -> None:
    ran = run("sample", str(sessions))
    assert ran.code == 0
    first, *_ = [line for line in ran.out.splitlines() if "jsonl" in line]
    assert first.split()[1:] == ["3", "widgets", "20260413_101500_a.jsonl", "FAIL"]
    assert "3 of 4 sessions" in ran.out
    assert "1 file skipped: the file is empty" in ran.out
    assert "1 line could not be read" in ran.out


@pytest.mark.parametrize("how", [["--json"], ["--format", "json"]])
def test_d12_every_result_is_json(run: Run, sessions: Path, how: list[str]) -> None:
    told = run("sample", str(sessions), *how).document
    best = told["sessions"][0]
    assert {key: best[key] for key in ("filename", "message_count", "repos", "is_failure")} == {
        "filename": "20260413_101500_a.jsonl", "message_count": 3, "repos": ["widgets"], "is_failure": True,
    }
    assert best["score"] == sum(best["breakdown"].values())
    assert Path(best["path"]) == sessions / "deep" / "20260413_101500_a.jsonl"
    assert told["skipped"] == [{"path": str(sessions / "empty.jsonl"), "reason": "the file is empty"}]


def test_paths_can_be_written_to_a_file(run: Run, sessions: Path, tmp_path: Path) -> None:
    out = tmp_path / "chosen.txt"
    ran = run("sample", str(sessions), "--since", "2026-04-12", "--format", "paths", "--output", str(out))
    assert (ran.code, ran.out) == (0, "")
    assert [Path(line).name for line in out.read_text().splitlines()] == ["20260413_101500_a.jsonl", "20260412_b.jsonl"]
    assert run("sample", str(sessions), "--output", str(out)).code == 0
    assert "FAIL" in out.read_text()


@pytest.mark.parametrize(("wrong", "said"), [
    (["--since", "yesterday"], "is no day"), (["--since", "2026-02-31"], "is no time"), (["--count", "-1"], "from 1 on"),
    (["--count", "many"], "--count"), (["--min-score", "17"], "from 0 to 16"), (["--top-percent", "101"], "from 0 to 100"),
    (["--format", "xml"], "known are table"), (["--output", "."], "takes a file"),
])
def test_d14_wrong_options_are_told_in_a_sentence(run: Run, sessions: Path, wrong: list[str], said: str) -> None:
    ran = run("sample", str(sessions), *wrong)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_a_missing_folder_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run("sample", str(tmp_path / "nowhere"))
    assert (ran.code, "there is no folder" in ran.err) == (1, True)
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = run("sample")
    assert (ran.code, "neither ~/.claude/projects nor ~/.codex/sessions" in ran.err) == (1, True)


def test_the_folders_of_known_agents_are_looked_through(
    run: Run, sessions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".claude").mkdir()
    sessions.rename(tmp_path / ".claude" / "projects")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(run("sample", "--json").document["sessions"]) == 3


def test_progress_is_told_each_5000_files(run: Run, sessions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consolidator_adapters.cli.sample.EACH", 2)
    assert "4 of 4 files read" in run("sample", str(sessions)).err
