"""The command line on episodes: recorded, told again, refused where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Run

pytestmark = pytest.mark.usefixtures("hash_embedder")


def test_an_episode_becomes_a_lesson(run: Run) -> None:
    told = run(
        "episode", "deploy", "--score", "0.9", "--steps", "7", "--summary", "Migrated, then deployed.", "--success",
        "Run the migrations first.", "--mistake", "Forgot the cache.", "--at", "2026-03-01",
    )
    assert told.code == 0, told.err
    assert "kept as 3 memories" in told.out
    assert run("consolidate").code == 0
    shown = run("lessons", "deploy").out
    assert "[WORKS] Run the migrations first." in shown
    assert "AVOID: Forgot the cache." in shown
    assert "Score 0.90 in 7 steps: Migrated, then deployed." in shown
    assert run("lessons", "deploy", "--max-rules", "0", "--json").document["text"].count("[WORKS]") == 0


def test_an_episode_from_a_file_and_the_figures_of_all(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "episode.json"
    file.write_text(json.dumps({
        "task": "sail", "score": 0.2, "id": "e1", "occurred_at": "2026-03-01",
        "cards": [{"mistake_type": "late", "lesson": "Leave with the tide."}],
    }))
    assert run("episode", "--file", str(file), "--json").document["source"] == "episode/e1"
    assert run("episode", "--file", str(file), "--json").document["new"] == 0
    run("consolidate")
    figures = run("lessons", "--json").document
    assert (figures["episodes"], figures["cards"], figures["scores"]["sail"]["mean"]) == (1, 1, 0.2)
    assert "Leave with the tide." in run("lessons").out
    assert run("lessons", "--distil", "--json").document["waiting"] == 0


def test_a_bank_without_lessons_says_so(run: Run) -> None:
    run("episode", "sail", "--score", "0.5")
    shown = run("lessons", "deploy")
    assert (shown.code, shown.out.strip()) == (0, 'nothing to show: nothing is known of "deploy" yet')


@pytest.mark.parametrize(("args", "said"), [
    ((), "give either a task"), (("deploy",), "--score is missing"), (("deploy", "--score", "1.5"), "less than or equal to 1"),
    (("--file", "nowhere.json"), "there is no file"), (("deploy", "--score", "0.5", "--at", "soon"), "--at"),
])
def test_what_is_wrong_is_said_in_a_sentence(run: Run, folder: Path, args: tuple[str, ...], said: str) -> None:
    told = run("episode", *args)
    assert told.code == 2
    assert said in told.err
    assert len(told.err.strip().splitlines()) == 1


@pytest.mark.parametrize(("text", "said"), [
    ("no json", "is no JSON"), ("[]", "is no episode"), ('{"task": "x"}', "is no episode"),
    ('{"task": "x", "score": 1, "mood": 2}', 'there is no field "mood"'),
])
def test_a_file_that_is_no_episode_is_refused(run: Run, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "episode.json"
    file.write_text(text)
    told = run("episode", "--file", str(file))
    assert (told.code, said in told.err) == (2, True)


@pytest.mark.parametrize(("args", "said"), [
    (("lessons", "sail", "--budget", "0"), "--budget is 0; it is at least 1"),
    (("lessons", "sail", "--max-rules", "-1"), "--max-rules is -1; it is at least 0"),
    (("bootstrap", "--budget", "0"), "--budget is 0; it is at least 1 token"),
])
def test_a_limit_is_named_as_it_was_given(run: Run, args: tuple[str, ...], said: str) -> None:
    told = run(*args)
    assert (told.code, told.err.strip()) == (2, f"error: {said}")


def test_a_session_without_a_project_asks_for_the_option(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "talk.txt"
    file.write_text("User: Where is it?\n\nAssistant: We decided to keep it here.\n")
    told = run("harvest", str(file))
    assert (told.code, "such as --project shop" in " ".join(told.err.split())) == (1, True)
