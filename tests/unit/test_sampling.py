"""Which sessions come first: how each ended, what it is worth, and the choice, which no folder's order bears on."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from consolidator.endings import claim
from consolidator.records import SessionLog, Step
from consolidator.sampling import Choice, Ending, Outcome, Sampled, Scan, outcome, sample, scan, value
from consolidator.sessions import parse
from consolidator_adapters.session_files import find, scan_file, scan_files

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
Line = dict[str, Any]


def user(text: str) -> Line:
    return {"role": "user", "content": text}


def agent(text: str = "", *, calls: int = 0, command: str = "ls") -> Line:
    made = {"function": {"name": "terminal", "arguments": json.dumps({"command": command})}}
    return {"role": "assistant", "content": text, "tool_calls": [made] * calls}


def result(text: str = "", code: int | None = None) -> Line:
    return {"role": "tool", "content": text} | ({} if code is None else {"exit_code": code})


def lines(told: Sequence[Line]) -> list[bytes]:
    return [json.dumps(line).encode() + b"\n" for line in told]


def scanned(*told: Line, name: str = "x.jsonl", modified: datetime | None = None) -> Scan:
    return scan(lines(told), name=name, modified=modified)


def seen(**told: Any) -> Scan:
    return Scan(name="x.jsonl", **told)


def keep(folder: Path, name: str, *told: Line) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines(told)))
    return path


def chosen(folder: Path, **asked: Any) -> list[Sampled]:
    return sample(scan_files([(folder, path) for path in find(folder)]), Choice(**asked), NOW)


def names(found: Sequence[Sampled]) -> list[str]:
    return [one.scan.name for one in found]


# how a session ended


@pytest.mark.parametrize(("told", "ended"), [
    ([user("Test it"), agent(calls=1), result("12 passed", 0), agent("All tests passed, no errors, 0 failed")], "success"),
    ([agent(calls=1), result("error: none found", 0), agent("Nothing failed; the error handling works now.")], "success"),
    ([agent(calls=1), result(code=1), agent(calls=1), result(code=0), agent("It failed. I fixed it, and it passes.")], "success"),
    ([agent(calls=1), result("ok", 0), agent("Here is the summary.")], "success"),
    ([agent(calls=1), result("x", 1), agent("Here is the summary.")], "failure"),
    ([agent(calls=1), result("x", 1), agent("All done.")], "failure"),
    ([agent(calls=1), result('{"error": "denied"}')], "failure"),
    ([user("Fix it"), agent("I could not fix it, the build still fails.")], "failure"),
    ([user("Fix it"), agent("I can't reach the server.")], "failure"),
    ([agent("It is implemented, but two tests still fail.")], "partial"),
    ([agent("Fixed."), user("And the other one?")], "partial"),
    ([agent("Fixed."), user("Thanks a lot")], "success"),
    ([agent("Fixed."), user("It still fails")], "failure"),
    ([user("Fix it"), agent(calls=1)], "partial"),
    ([user("Fix it"), agent(calls=1), result("a list", 0)], "partial"),
    ([user("Fix it")], "partial"),
    ([agent("Now let me run the tests.")], "partial"),
    ([agent("Shall I deploy it?")], "partial"),
    ([user("What is it?"), agent("It is a cache.")], "unknown"),
    ([{"role": "system", "content": "You failed."}], "unknown"),
    ([], "unknown"),
])
def test_d01_the_outcome_is_told_by_the_end_state(told: list[Line], ended: Outcome) -> None:
    assert outcome(parse(lines(told), id="session/x")) == ended
    assert scanned(*told).outcome == ended


ANY = [user("no errors"), agent("It failed."), agent("Done."), agent(calls=1), result(code=1), result(code=0)]
HINTS = ["not", "no", "0", "failed", "errors", "fixed", "passed", "could", "n't", "able to", "tests", ".", "?", "\n"]


@given(st.lists(st.sampled_from(ANY)))
def test_d01_a_failure_that_was_followed_by_a_good_end_is_none(before: list[Line]) -> None:
    assert scanned(*before, agent(calls=1), result("12 passed", 0), agent("All tests pass.")).outcome == "success"


@given(st.text(max_size=300) | st.lists(st.sampled_from(HINTS)).map(" ".join))
def test_any_words_can_be_claimed(text: str) -> None:
    assert claim(text) in (None, "success", "failure", "mixed", "open", "asks")


# what a session is worth: one case for each row of the table


@pytest.mark.parametrize(("age", "points"), [
    (-DAY, 3), (0 * DAY, 3), (8 * DAY - SECOND, 3), (8 * DAY, 2), (31 * DAY - SECOND, 2), (31 * DAY, 1), (None, 1),
])
def test_d13_recency_counts_whole_days(age: timedelta | None, points: int) -> None:
    assert value(seen(at=None if age is None else NOW - age), (), NOW).recency == points


@pytest.mark.parametrize(("messages", "points"), [(0, 1), (20, 1), (21, 2), (50, 2), (51, 3)])
def test_d13_length_counts_messages(messages: int, points: int) -> None:
    assert value(seen(messages=messages), (), NOW).length == points


@pytest.mark.parametrize(("repos", "points"), [((), 0), (("seen",), 1), (("new",), 5), (("seen", "new"), 5)])
def test_d13_a_new_project_is_worth_most_and_none_is_worth_nothing(repos: tuple[str, ...], points: int) -> None:
    assert value(seen(repos=repos), {"seen"}, NOW).repo_unique == points


@pytest.mark.parametrize(("ended", "text", "points"), [
    ("failure", True, 3), ("failure", False, 3), ("success", True, 2), ("partial", False, 1), ("unknown", False, 1),
])
def test_d13_a_failure_is_worth_more_than_an_end_in_words(ended: Outcome, text: bool, points: int) -> None:
    assert value(seen(outcome=ended, text_at_end=text), (), NOW).outcome == points


@pytest.mark.parametrize(("calls", "points"), [(0, 0), (10, 0), (11, 2)])
def test_d13_many_calls_of_tools(calls: int, points: int) -> None:
    assert value(seen(tool_calls=calls), (), NOW).tool_calls == points


def test_d13_the_sum_lies_between_3_and_16_and_the_keys_are_fixed() -> None:
    least, most = seen(), seen(at=NOW, messages=51, repos=("a",), outcome="failure", tool_calls=11)
    assert (value(least, (), NOW).score, value(most, (), NOW).score) == (3, 16)
    assert list(value(least, (), NOW).model_dump()) == ["recency", "length", "repo_unique", "outcome", "tool_calls"]


# the whole file


def test_d02_what_stands_in_the_head_of_a_large_file_is_seen() -> None:
    head = [agent("x", calls=12, command="cd ~/src/widgets && make"), result("boom", 1)]
    found = scanned(*head, *[user("filler " * 40)] * 2_000, agent("Done."))
    assert (found.tool_calls, found.failed_calls, found.repos, found.messages) == (12, 1, ("widgets",), 2_003)


@pytest.mark.parametrize(("messages", "size"), [(3_000, 5), (43, 3_000), (1, 20_000)])
def test_d03_messages_are_counted_exactly(messages: int, size: int) -> None:
    assert scanned(*[user("a" * size)] * messages).messages == messages


def test_an_ending_keeps_no_more_than_the_end() -> None:
    ending = Ending()
    for step in parse(lines([agent("Fixed."), user("Thanks!")]), id="session/x").steps:
        ending.add(step)
    assert (ending.outcome(), ending.text) == ("success", True)


# the choice


def test_d07_the_folders_order_bears_on_nothing() -> None:
    scans = [
        Scan(name=f"{n}.jsonl", below=f"{n % 3}/{n}.jsonl", at=NOW - (n % 5) * 9 * DAY, repos=(f"repo-{n % 4}",), messages=n * 3)
        for n in range(40)
    ]
    shuffled = random.Random(3).sample(scans, len(scans))
    assert sample(scans, Choice(), NOW) == sample(shuffled, Choice(), NOW)
    assert [one.breakdown.repo_unique for one in sample(shuffled, Choice(), NOW)].count(5) == 4


def test_d07_ties_are_ordered_by_time_the_newest_first_and_then_by_name() -> None:
    same = [Scan(name=name, at=at) for name, at in [("b", NOW), ("a", NOW), ("c", NOW - DAY), ("d", NOW + DAY / 24)]]
    assert names(sample([*same, Scan(name="old", at=NOW - 90 * DAY)], Choice(), NOW)) == ["d", "a", "b", "c", "old"]


def test_d07_only_a_session_that_is_kept_makes_its_project_known() -> None:
    poor = Scan(name="poor", at=NOW - 90 * DAY, repos=("widgets",))
    rich = Scan(name="rich", at=NOW, repos=("widgets",), outcome="failure")
    other = Scan(name="other", at=NOW - 91 * DAY, repos=("widgets",), skipped="the file is empty")
    assert [one.breakdown.repo_unique for one in sample([rich, poor, other], Choice(), NOW)] == [1, 5]
    assert [one.breakdown.repo_unique for one in sample([rich, poor], Choice(min_score=9), NOW)] == [5]
    assert [one.breakdown.repo_unique for one in sample([rich, poor], Choice(since=NOW - DAY), NOW)] == [5]


def test_d07_two_runs_on_copies_give_the_same_list(tmp_path: Path) -> None:
    for n in range(12):
        told = [user("go"), agent(calls=n, command=f"cd ~/src/p{n % 3}/x"), *[user("more")] * n * 3]
        name = f"{n % 2}/{'x' if n % 4 else f'202605{n + 1:02}_'}{n}.jsonl"
        os.utime(keep(tmp_path / "one", name, *told), (n, 1_780_000_000 + n // 3))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first, second = chosen(tmp_path / "one"), chosen(tmp_path / "two")
    assert [(one.scan.below, one.breakdown) for one in first] == [(two.scan.below, two.breakdown) for two in second]
    assert len(first) == 12


@pytest.mark.parametrize(("asked", "kept"), [
    ({}, 10), ({"count": 3}, 3), ({"top_percent": 25}, 2), ({"top_percent": 1}, 1), ({"top_percent": 100, "count": 1}, 10),
    ({"min_score": 6}, 5), ({"min_score": 7}, 1), ({"min_score": 11, "top_percent": 50}, 0),
    ({"project": "Widgets"}, 1), ({"project": "widget"}, 0), ({"project": "SESSION_3"}, 1), ({"since": NOW - 2 * DAY}, 3),
])
def test_what_is_asked_for_is_what_is_chosen(asked: dict[str, Any], kept: int) -> None:
    scans = [
        Scan(name=f"session_{n}", at=NOW - n * DAY, messages=20 if 2 < n < 7 else 21, repos=("widgets",) if n == 9 else ())
        for n in range(10)
    ]
    assert len(sample(scans, Choice(**asked), NOW)) == kept


def test_d10_d11_a_file_without_a_time_in_its_name_is_as_old_as_it_is(tmp_path: Path) -> None:
    keep(tmp_path, "20260413_abcdef.jsonl", user("Hello"))
    os.utime(keep(tmp_path, "old.jsonl", user("Hello")), (0, (NOW - 90 * DAY).timestamp()))
    os.utime(keep(tmp_path, "new.jsonl", user("Hello")), (0, NOW.timestamp()))
    assert names(chosen(tmp_path, since=datetime(2026, 4, 13, tzinfo=UTC))) == ["new.jsonl", "20260413_abcdef.jsonl"]
    assert names(chosen(tmp_path, since=datetime(2026, 4, 14, tzinfo=UTC))) == ["new.jsonl"]


@pytest.mark.parametrize("wrong", [
    {"count": 0}, {"count": -1}, {"min_score": 17}, {"top_percent": -1}, {"top_percent": float("nan")},
])
def test_d14_a_choice_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Choice(**wrong)


# files


def test_d12_what_cannot_be_valued_is_skipped_with_a_reason(tmp_path: Path) -> None:
    for name, held in (("empty.jsonl", b""), ("bad.jsonl", b"hello\n5\n"), ("blank.jsonl", b"\n")):
        (tmp_path / name).write_bytes(held)
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    paths = [*find(tmp_path), tmp_path / "gone.jsonl"]
    found = {scan.name: scan for scan in scan_files([(tmp_path, path) for path in paths])}
    assert {name: scan.skipped for name, scan in found.items()} == {
        "bad.jsonl": "no line of it is a message", "blank.jsonl": "there is no message in it", "empty.jsonl": "the file is empty",
        "gone.jsonl": "it cannot be read: No such file or directory",
    }
    assert found["bad.jsonl"].bad == 2
    assert not chosen(tmp_path)
    assert all(json.loads(scan.model_dump_json())["skipped"] for scan in found.values())


def test_files_are_found_below_a_folder_and_text_only_where_it_is_named(tmp_path: Path) -> None:
    keep(tmp_path, "a/b/c.jsonl", user("Hello"))
    keep(tmp_path, "d.JSON", user("Hello"))
    (tmp_path / "notes.md").write_text("User: Hello")
    assert find(tmp_path) == [tmp_path / "a/b/c.jsonl", tmp_path / "d.JSON"]
    assert find(tmp_path / "notes.md") == [tmp_path / "notes.md"]
    assert scan_file(tmp_path / "notes.md", tmp_path / "notes.md").messages == 1
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        find(tmp_path / "nowhere")


def test_many_files_are_scanned_by_several_processes_as_by_one(tmp_path: Path) -> None:
    for n in range(230):
        keep(tmp_path, f"{n % 7}/{n}.jsonl", user("x" * n), agent("Done.", calls=n % 15, command=f"cd ~/src/p{n % 9}/x"))
    paths = [(tmp_path, path) for path in find(tmp_path)]
    told: list[int] = []
    together = scan_files(paths, workers=2, on_read=told.append)
    assert together == scan_files(paths, workers=1)
    assert (told[-1], told) == (230, sorted(told))


@pytest.mark.parametrize(("last", "ended"), [
    ("Good.", "success"), ("Works, thank you.", "success"), ("Perfect.", "success"),
    ("Good, but the build is broken.", "partial"), ("Now rename it.", "partial"),
])
def test_d01_a_users_last_word_says_how_it_ended(last: str, ended: str) -> None:
    told = [("user", "Rename the flag."), ("assistant", "Renamed in three files."), ("user", last)]
    steps = tuple(Step.model_validate({"line": n, "role": role, "text": text}) for n, (role, text) in enumerate(told, 1))
    assert outcome(SessionLog(id="s", steps=steps)) == ended
