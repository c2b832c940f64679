"""Sessions of agents, read from the lines of their files: every form, and any bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consolidator import projects
from consolidator.endings import failed
from consolidator.errors import InvalidInput
from consolidator.records import SessionLog, ToolCall
from consolidator.sampling import outcome, scan
from consolidator.sessions import moment, named_time, parse
from consolidator_adapters.session_files import read_session

Line = dict[str, Any]
MAY = "2026-05-02T10:00:00Z"


def lines(*told: object) -> list[bytes]:
    return [json.dumps(one).encode() + b"\n" for one in told]


def read(*told: object, **given: Any) -> SessionLog:
    return parse(lines(*told), id="session/x", **given)


def call(name: object = "terminal", arguments: object = "{}") -> Line:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


def entry(kind: str, content: object, **more: object) -> Line:
    message = {"role": kind, "content": content}
    about = {"type": kind, "uuid": "u", "sessionId": "s", "timestamp": MAY, "cwd": "/home/kim/src/Widgets"}
    return {**about, "message": message, **more}


OPENAI = (
    {"role": "system", "content": "You are helpful."},
    {"role": "user", "content": [{"type": "text", "text": "Run"}, {"type": "text", "text": "it"}], "timestamp": MAY},
    {"role": "assistant", "content": None, "tool_calls": [call(arguments='{"command": "pytest"}')]},
    {"role": "tool", "tool_call_id": "c1", "content": '{"output": "boom", "exit_code": 1}'},
    {"role": "assistant", "content": "It failed."},
)
MAKE = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "make"}}
MADE = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "Exit code 2"}], "is_error": True}
CLAUDE = (
    {"type": "summary", "summary": "An older talk", "leafUuid": "u"},
    entry("user", "Fix the build"),
    entry("assistant", [{"type": "thinking", "thinking": "Hmm, secretly."}]),
    entry("assistant", [{"type": "text", "text": "On it."}, MAKE]),
    entry("user", [MADE]),
    {"type": "file-history-snapshot", "uuid": "u", "snapshot": {}},
)
CODEX = (
    {"timestamp": MAY, "type": "session_meta", "payload": {
        "id": "i", "cwd": "/Users/kim/code/Widgets", "git": {"repository_url": "git@github.com:acme/Widgets.git"}}},
    {"timestamp": MAY, "type": "response_item", "payload": {"type": "message", "role": "user", "content": [
        {"type": "input_text", "text": "<environment_context>\n<cwd>/Users/kim/code/Widgets</cwd>"}]}},
    {"timestamp": MAY, "type": "event_msg", "payload": {"type": "user_message", "message": "Fix it"}},
    {"timestamp": MAY, "type": "response_item", "payload": {"type": "message", "role": "user", "content": [
        {"type": "input_text", "text": "Fix it"}]}},
    {"timestamp": MAY, "type": "response_item", "payload": {"type": "reasoning", "summary": []}},
    {"timestamp": MAY, "type": "response_item", "payload": {
        "type": "function_call", "name": "shell", "call_id": "c9", "arguments": '{"command": ["ls"]}'}},
    {"timestamp": MAY, "type": "response_item", "payload": {
        "type": "function_call_output", "call_id": "c9", "output": '{"output": "a.py", "metadata": {"exit_code": 0}}'}},
    {"timestamp": MAY, "type": "response_item", "payload": {"type": "message", "role": "assistant", "content": [
        {"type": "output_text", "text": "Fixed."}]}},
)
TEXT = "User: Where is it?\nIt was here.\n\nAssistant: In src.\nTool (bash): fatal: no such file\n**Assistant:** Gone."


def test_openai_messages() -> None:
    log = read(*OPENAI)
    assert (log.form, log.bad) == ("openai", 0)
    assert [step.role for step in log.steps] == ["system", "user", "assistant", "tool", "assistant"]
    _, asked, called, result, _ = log.steps
    assert (asked.text, asked.line, asked.at) == ("Run\nit", 2, datetime(2026, 5, 2, 10, tzinfo=UTC))
    assert called.calls == (ToolCall(name="terminal", arguments='{"command": "pytest"}'),)
    assert (result.tool, result.failed) == ("terminal", True)
    assert log.at == asked.at


def test_claude_code_entries() -> None:
    log = read(*CLAUDE)
    assert (log.form, log.agent, log.projects, log.bad) == ("claude-code", "claude-code", ("widgets",), 0)
    assert [(step.line, step.role) for step in log.steps] == [(2, "user"), (4, "assistant"), (5, "tool")]
    assert log.steps[1].calls == (ToolCall(name="Bash", arguments='{"command": "make"}'),)
    assert (log.steps[2].tool, log.steps[2].text, log.steps[2].failed) == ("Bash", "Exit code 2", True)
    assert "secretly" not in log.model_dump_json()


def test_what_a_program_says_in_the_users_name_is_not_the_users() -> None:
    helper = entry("user", "do this for me", isSidechain=True)
    log = read(entry("user", "told by a hook", isMeta=True), helper, entry("user", "Hello"))
    assert [step.role for step in log.steps] == ["system", "assistant", "user"]


@pytest.mark.parametrize("bare", [False, True])
def test_codex_items(bare: bool) -> None:
    items = [one["payload"] for one in CODEX if one["type"] == "response_item"] if bare else CODEX
    log = read(*items)
    assert (log.form, log.agent, log.bad) == ("codex", "codex", 0)
    assert log.projects == ("widgets",)
    assert [step.role for step in log.steps] == ["system", "user", "assistant", "tool", "assistant"]
    assert (log.steps[3].tool, log.steps[3].text, log.steps[3].failed) == ("shell", "a.py", False)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("document", [{"model": "m", "agent": "helper", "messages": list(OPENAI)}, list(OPENAI)])
def test_one_document_is_read_as_its_messages_are(document: object, indent: int | None) -> None:
    log = parse(json.dumps(document, indent=indent).splitlines(keepends=True), id="session/x")
    assert [(s.role, s.text, s.failed) for s in log.steps] == [(s.role, s.text, s.failed) for s in read(*OPENAI).steps]
    assert log.agent == ("helper" if isinstance(document, dict) else None)


def test_text_with_speakers_and_without() -> None:
    log = parse(TEXT.splitlines(), id="session/x")
    assert [(s.line, s.role, s.text) for s in log.steps] == [
        (1, "user", "Where is it?\nIt was here."), (4, "assistant", "In src."),
        (5, "tool", "fatal: no such file"), (6, "assistant", "Gone."),
    ]
    assert (log.form, log.steps[2].tool, log.steps[2].failed) == ("text", "bash", True)
    assert [s.text for s in parse(["One.", "Still one.", "", "Two."], id="session/x").steps] == ["One.\nStill one.", "Two."]


@pytest.mark.parametrize(("told", "form"), [(OPENAI, "openai"), (CLAUDE, "claude-code"), (CODEX, "codex")])
def test_the_form_is_told_by_the_first_lines(told: tuple[Line, ...], form: str) -> None:
    assert parse(lines(*told), id="s").form == form
    assert parse([b"not json\n", *lines(*told)], id="s").form == form
    assert parse(TEXT.encode().splitlines(), id="s").form == "text"


@pytest.mark.parametrize(("line", "bad", "steps"), [
    (b"5", 1, 0), (b"null", 1, 0), (b'["a"]', 1, 0), (b'{"role": "user"', 1, 0), (b"\xff\xfe\x00", 1, 0), (b"[" * 9_999, 1, 0),
    (b'{"role": 5, "content": "x"}', 1, 0), (b'{"role": "user", "content": 5}', 1, 0), (b'{"created": "today"}', 0, 0),
    (b" \n", 0, 0), (b'{"role": "assistant", "tool_calls": [{"function": null}]}', 0, 1),
    (b'{"role": "assistant", "content": "x", "tool_calls": 5}', 0, 1),
    (b'{"role": "user", "content": [{"type": "text", "text": null}]}', 0, 1), (b'{"role": "user", "content": "\\ud800"}', 0, 1),
])
def test_d04_a_line_may_be_anything(line: bytes, bad: int, steps: int) -> None:
    log = parse([*lines(OPENAI[0]), line, *lines(OPENAI[-1])], id="session/x")
    assert (log.bad, len(log.steps)) == (bad, 2 + steps)
    assert parse([line, *lines(*OPENAI)], id="session/x", text=False).bad == bad


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
WORDS = st.sampled_from(["user", "assistant", "tool", MAY])
KINDS = st.sampled_from(["message", "tool_use", "tool_result", "function_call", "function_call_output", "response_item"])
KEYS = [
    "role", "content", "type", "message", "payload", "tool_calls", "function", "name", "arguments", "text", "timestamp", "cwd",
    "git", "messages", "output", "metadata", "exit_code", "error", "uuid", "toolUseResult", "tool_use_id", "input", "action",
]
JSON = st.recursive(
    PLAIN | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner | KINDS),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(JSON.map(lambda told: json.dumps(told).encode()) | st.binary(max_size=60), max_size=6), st.booleans())
def test_d04_no_bytes_end_the_reading_and_a_scan_sees_what_a_reading_sees(told: list[bytes], text: bool) -> None:
    log, seen = parse(told, id="session/x", text=text), scan(told, name="x", text=text)
    assert SessionLog.model_validate_json(log.model_dump_json()) == log
    assert (seen.repos, seen.bad, seen.outcome) == (log.projects, log.bad, outcome(log))
    assert seen.tool_calls == sum(len(step.calls) for step in log.steps)
    assert seen.failed_calls == sum(step.failed is True for step in log.steps)
    assert (seen.messages == 0) == (not log.steps)


def test_d05_a_session_of_one_line_is_read() -> None:
    assert [step.text for step in read(OPENAI[-1]).steps] == ["It failed."]


def test_d06_long_lines_are_read_whole() -> None:
    long = [{"role": "user", "content": "a" * 20_000}, {"role": "assistant", "content": "b" * 20_000}]
    assert [len(step.text) for step in read(*long).steps] == [20_000, 20_000]


@pytest.mark.parametrize(("path", "name"), [
    ("/home/kim/src/Widgets/src/utils/a.py", "widgets"), ("/Users/kim/widgets/a.py", "widgets"),
    ("~/code/widgets", "widgets"), ("~/code/github.com/acme/widgets/main.go", "widgets"),
    ("C:\\Users\\kim\\code\\widgets\\a.py", "widgets"), ("/work/widgets/a.py", "widgets"),
    ("/data/repos/widgets/x/y", "widgets"), ("/home/kim/acme/projects/widgets/a.py", "widgets"),
    ("/home/kim", None), ("/home/kim/notes.txt", None), ("/Users/kim/Documents/a.pdf", None), ("/home/kim/.config/x/y", None),
    ("/usr/lib/python3/a.py", None), ("/tmp/work/a.py", None), ("/etc/hosts", None), ("~/.claude/projects/a/b", None),
])
def test_d09_projects_come_from_paths_and_homes_are_none(path: str, name: str | None) -> None:
    assert projects.of_path(path) == name
    assert set(projects.paths(json.dumps({"command": f"cat '{path}' | head"}))) == ({name} if name else set())


def test_d09_projects_come_from_remotes_folders_and_arguments_the_most_named_first() -> None:
    fetch = "origin\tgit@example.org:acme/Gizmo.git (fetch)\norigin\tgit@example.org:acme/Gizmo.git (push)"
    log = read(
        {"role": "user", "content": "Look at https://github.com/acme/sprocket/issues/5", "cwd": "/opt/kim"},
        {"role": "assistant", "tool_calls": [call(arguments={"command": "cd ~/src/gizmo && ls ~/src/gizmo/docs"})]},
        {"role": "tool", "content": fetch},
    )
    assert log.projects == ("gizmo", "sprocket")
    assert list(projects.remotes("https://github.com/features/copilot and ssh://git@host.org/a/b/Widgets.git")) == ["widgets"]


@pytest.mark.parametrize(("told", "text", "verdict"), [
    ({}, "Exit code: 1\nboom", True), ({}, "Process exited with code 0", False), ({}, "... exit status 2", True),
    ({"exit_code": 0}, "Error: not really", False), ({"metadata": {"exit_code": 3}}, "", True), ({"returncode": "1"}, "", True),
    ({"is_error": True}, "", True), ({"is_error": False}, "Traceback (most recent call last)", False),
    ({}, '{"error": "no such file"}', True), ({}, '{"error": null, "output": "x"}', False), ({}, '{"success": false}', True),
    ({}, "3 failed, 12 passed in 2 s", True), ({}, "12 passed, 0 failed", False), ({}, "no errors", None), ({}, "a.py", None),
    ({}, "Traceback (most recent call last):\n  File\nValueError: x", True), ({}, "bash: foo: command not found", True),
    ({}, "def main():\n    # the errors are handled below\n", None), ({"exit_code": True, "error": 0, "status": []}, "x", False),
])
def test_a_result_failed_by_its_fields_else_by_its_words(told: Line, text: str, verdict: bool | None) -> None:
    assert failed(told, text) is verdict


@pytest.mark.parametrize(("name", "when"), [
    ("session_20260413_101500_abc.jsonl", "2026-04-13T10:15:00"), ("20260413_101500_abc.jsonl", "2026-04-13T10:15:00"),
    ("20260413_101500.jsonl", "2026-04-13T10:15:00"), ("20269913_20260413.jsonl", "2026-04-13T00:00:00"),
    ("rollout-2026-04-13T10-15-00-0196-ab.jsonl", "2026-04-13T10:15:00"), ("2026-04-13_notes.md", "2026-04-13T00:00:00"),
    ("5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11.jsonl", None), ("a_12345678.jsonl", None), ("٢٠٢٦٠٤١٣.jsonl", None),
])
def test_the_time_in_a_name(name: str, when: str | None) -> None:
    assert named_time(name) == (datetime.fromisoformat(f"{when}Z") if when else None)


@pytest.mark.parametrize("name", ["20260413_abcdef.jsonl", "session_20260413_996000_x.jsonl"])
def test_d10_a_day_stands_alone_where_no_time_follows(name: str) -> None:
    assert named_time(name) == datetime(2026, 4, 13, tzinfo=UTC)


@pytest.mark.parametrize("told", [
    1_777_716_000, 1_777_716_000_000, 1_777_716_000_000_000, MAY, "2026-05-02T12:00:00+02:00", "2026-05-02T10:00:00",
])
def test_moments_are_read_in_every_usual_unit(told: object) -> None:
    assert moment(told) == datetime(2026, 5, 2, 10, tzinfo=UTC)


@pytest.mark.parametrize("told", [True, "soon", float("nan"), float("inf"), -1, None, [], 10**30, "9999-12-31T23:59:59-23:00"])
def test_what_is_no_moment_is_none(told: object) -> None:
    assert moment(told) is None


def test_a_file_is_read_and_dated_by_its_lines_its_name_or_itself(tmp_path: Path) -> None:
    def at(name: str, *told: Line) -> datetime | None:
        (tmp_path / name).write_bytes(b"".join(lines(*told)))
        log = read_session(tmp_path / name)
        assert log.id == f"session/{name.removesuffix('.jsonl')}"
        return log.at

    assert at("20250101_x.jsonl", *OPENAI) == datetime(2026, 5, 2, 10, tzinfo=UTC)
    assert at("20250101_x.jsonl", OPENAI[0]) == datetime(2025, 1, 1, tzinfo=UTC)
    assert at("x.jsonl", OPENAI[0]) == datetime.fromtimestamp((tmp_path / "x.jsonl").stat().st_mtime, UTC)
    assert read_session(tmp_path / "x.jsonl", id="talk/7").id == "talk/7"


@pytest.mark.parametrize(("name", "held", "said"), [
    ("gone.jsonl", None, "there is no file"), ("empty.jsonl", b"", "is empty"),
    ("blank.jsonl", b"\n \n", "holds no message of a session"),
    ("bad.jsonl", b"hello\n", "holds no message"), ("photo.png", b"x", "is no session's file"),
])
def test_a_file_that_is_none_is_refused_in_a_sentence(tmp_path: Path, name: str, held: bytes | None, said: str) -> None:
    if held is not None:
        (tmp_path / name).write_bytes(held)
    with pytest.raises(InvalidInput, match=said):
        read_session(tmp_path / name)
    with pytest.raises(InvalidInput, match="is a folder"):
        read_session(tmp_path)
