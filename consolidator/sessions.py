"""Sessions of agents, from the lines of their files. Pure, in one pass; any line may be anything, and none ends the reading.

openai       a message on each line, or one document with all of them: role, content, tool_calls
claude-code  an entry on each line, with the message in it: parts are text, tool_use, tool_result, thinking
codex        an item on each line, in a payload or bare: message, function_call, function_call_output, reasoning
text         "User: ...", "Assistant: ...", else paragraphs

What an agent thought is no text of a step.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, islice
from types import NoneType
from typing import Final, Literal, NamedTuple

from consolidator import projects
from consolidator.endings import failed
from consolidator.message_parts import (
    BAD,
    Line,
    Told,
    arguments,
    called,
    ended,
    ids,
    loads,
    members,
    said,
    text_of,
    whole,
    written,
)
from consolidator.records import Form, SessionLog, Step, ToolCall

HEAD = 20  # lines by which a form is told, where the first one does not tell it
PROJECTS = 50  # that a session names
LONGEST_NAME = 200
Numbered = tuple[int, Line]
Role = Literal["system", "user", "assistant", "tool"]

ROLES: Final[dict[str, Role]] = {
    "user": "user", "human": "user", "assistant": "assistant", "ai": "assistant", "model": "assistant", "gpt": "assistant",
    "tool": "tool", "function": "tool", "system": "system", "developer": "system",
}
SPEAKERS: Final[dict[str, Role]] = {**ROLES, "you": "user", "agent": "assistant", "claude": "assistant", "codex": "assistant"}
TIMES = ("timestamp", "created_at", "createdAt", "create_time", "time", "ts", "date")
CONTENTS = ("value", "text", "parts")  # where a message has no "content"
READABLE = (str, list, dict, NoneType)
FOLDERS = ("cwd", "working_directory", "workdir", "workspace", "project_path")
CALLS = ("function_call", "custom_tool_call", "local_shell_call", "web_search_call")
OUTPUTS = ("function_call_output", "custom_tool_call_output", "local_shell_call_output")
ITEMS = (*CALLS, *OUTPUTS, "message", "reasoning")
NO_PERSON = (  # so begins what an agent's program tells in a user's name
    "<environment_context>", "<user_instructions>", "<INSTRUCTIONS>", "# AGENTS.md instructions", "<local-command-", "<bash-std",
    "<task-notification>",
)
CWD = re.compile(r"<cwd>([^<]{1,500})</cwd>|orking directory: (\S{1,500})")
FETCHED = re.compile(r"^\w[\w.-]*\t(\S+) \(fetch\)$", re.MULTILINE)
OPENS = re.compile(r"[\[{]\s*(?:[\"{\[]|$)")
WHO = rf"(?P<who>{'|'.join(SPEAKERS)})(?: (?:result|output))?(?: ?\((?P<tool>[^)\n]{{1,100}})\))?"
SAYS = re.compile(rf"[*\[>\s]{{0,4}}{WHO}[\]*]{{0,3}} ?:[*]{{0,2}}(?P<said>\s.*|)$", re.IGNORECASE)
HEADING = re.compile(rf"(?:#{{1,6}} |\*\*|\[){WHO}[\]*:]{{0,3}}(?P<said>)\s*$", re.IGNORECASE)
PASSED_OVER = ("session_meta", "meta", "info")  # roles of lines that are no messages


def parse(lines: Iterable[Line], *, id: str, modified: datetime | None = None, text: bool = True) -> SessionLog:
    """A session from its lines, never an error whatever they hold.

    modified: of the file, where nothing in it nor the id's end tells its time. text: whether it may be plain text; else lines
    that are no JSON are bad ones.
    """
    reader = Reader(text=text)
    steps = tuple(draft.step() for draft in reader.drafts(lines))
    return SessionLog(
        id=id, form=reader.form, steps=steps, projects=reader.projects, agent=reader.agent,
        at=reader.at or named_time(id.rpartition("/")[2]) or modified, bad=reader.bad,
    )


def named_time(name: str) -> datetime | None:
    """The time in a file's name, in UTC: 20260413_101500, 20260413, 2026-04-13T10-15-00, 2026-04-13. None: it has none."""
    stem = name.split(".")[0]
    if found := re.match(r"(?:rollout-|.*_)?(\d{4})-(\d\d)-(\d\d)(?:[T_](\d\d)-(\d\d)-(\d\d))?(?![^\W_])", stem, re.ASCII):
        return _dated("".join(found.groups()[:3]), "".join(found.groups("")[3:]))
    parts = stem.split("_")
    dates = (n for n, part in enumerate(parts) if re.fullmatch(r"\d{8}", part, re.ASCII))
    return next(filter(None, (_dated(parts[n], "".join(parts[n + 1 : n + 2])) for n in dates)), None)


def _dated(day: str, clock: str) -> datetime | None:
    """A day, with the time of day where it is one."""
    clock = clock if re.fullmatch(r"\d{6}", clock, re.ASCII) else "000000"
    for told in (f"{day}T{clock}Z", f"{day}T000000Z"):
        try:
            return datetime.fromisoformat(told)
        except ValueError:
            continue
    return None


def moment(told: object) -> datetime | None:
    """A time in UTC, of ISO 8601, or of seconds, milliseconds or microseconds since 1970. Without a zone: UTC."""
    try:
        if isinstance(told, str):
            when = datetime.fromisoformat(told)
            return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
        if isinstance(told, int | float) and not isinstance(told, bool) and 1e8 < told < 1e17:
            return datetime.fromtimestamp(told / next(unit for unit in (1e6, 1e3, 1) if told / unit > 1e8), UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


class DraftCall(NamedTuple):
    name: str
    arguments: str


class Draft(NamedTuple):
    """A step before it is checked and frozen, which costs more than to read it: many are only counted."""

    line: int
    role: Role
    text: str = ""
    calls: tuple[DraftCall, ...] = ()
    tool: str | None = None
    failed: bool | None = None
    at: datetime | None = None

    def step(self) -> Step:
        calls = tuple(ToolCall(name=call.name, arguments=call.arguments) for call in self.calls)
        return Step(
            line=self.line, role=self.role, text=self.text, calls=calls, tool=self.tool, failed=self.failed, at=self.at,
        )


class Reader:
    """Reads one session. What the lines tell besides steps gathers in its fields, which are whole when all steps were taken.

    messages: lines, or members of a document, that hold a step.
    """

    def __init__(self, *, text: bool = True) -> None:
        self.form: Form = "openai"
        self.messages = 0
        self.bad = 0
        self.agent: str | None = None
        self.at: datetime | None = None
        self._text = text
        self._told = False  # whether a line has told the form
        self._named: Counter[str] = Counter()
        self._tools: dict[str, str] = {}  # names of tools, by the ids of calls that wait for their result

    @property
    def projects(self) -> tuple[str, ...]:
        """The most named first, then the first named."""
        return tuple(name for name, _ in self._named.most_common(PROJECTS))

    def drafts(self, lines: Iterable[Line]) -> Iterator[Draft]:
        numbered = enumerate(lines, 1)
        first = next((pair for pair in numbered if pair[1].strip()), None)
        if first is None:
            return
        head = [first] if isinstance(loads(first[1]), dict) else [first, *islice(numbered, HEAD)]
        if self._text and _is_text(head):
            self.form = "text"
            yield from self._spoken(chain(head, numbered))
            return
        for number, value in _values(head, numbered):
            yield from self._read(number, value)

    def _spoken(self, lines: Iterable[Numbered]) -> Iterator[Draft]:
        for block in _blocks(lines):
            if text := "\n".join(block.said).strip():
                verdict = failed({}, text) if block.role == "tool" else None
                step = Draft(line=block.line, role=block.role or "user", text=text, tool=block.tool, failed=verdict)
                self.messages += 1
                self._count(step)
                yield step

    def _read(self, line: int, told: object) -> list[Draft]:
        """The steps of a line, or of a member of a document."""
        if not isinstance(told, dict):
            self.bad += 1
            return []
        at = self._noted(told)
        if found := self._understood(line, told, at):
            self.messages += 1
            for step in found:
                self._count(step)
            return found
        numbered = enumerate(members(told), 1)  # a document's members count as its lines
        return [
            step for number, member in numbered if not members(member)
            for step in self._read(number if line == 1 else line, member)
        ]

    def _understood(self, line: int, told: Told, at: datetime | None) -> list[Draft]:
        kind, payload, message = told.get("type"), told.get("payload"), told.get("message")
        if isinstance(message, dict):
            self._tell("claude-code", "claude-code" if _is_entry(told) else None)
            return self._message(line, message, at, told)
        if isinstance(kind, str):
            if isinstance(payload, dict):
                self._tell("codex", "codex")
                self._noted(payload)
                return self._item(line, payload, at) if kind == "response_item" else []
            if _is_entry(told):
                self._tell("claude-code", "claude-code")
                return self._message(line, {**told, "role": "system"}, at) if kind == "system" and "content" in told else []
            if kind in ITEMS:
                self._tell("codex", "codex")
                return self._item(line, told, at)
        if "role" in told or "from" in told:
            self._tell("openai", None)
            return self._message(line, told, at)
        return []

    def _tell(self, form: Form, agent: str | None) -> None:
        if not self._told:
            self._told, self.form, self.agent = True, form, self.agent or agent

    def _noted(self, told: Told) -> datetime | None:
        """What a line tells besides its message: its time, the folder, the remote, the agent's name."""
        at = None
        for key in TIMES:
            if key in told and (at := moment(told[key])):
                break
        if at is not None and (self.at is None or at > self.at):
            self.at = at
        for key in FOLDERS:
            if key in told and isinstance(folder := told[key], str):
                self._name([projects.of_path(folder, folder=True)])
        if "git" in told and isinstance(git := told["git"], dict):
            self._name(name for url in git.values() if isinstance(url, str) for name in projects.remotes(url))
        if self.agent is None and isinstance(agent := told.get("agent"), str) and agent.strip():
            self.agent = whole(agent.strip())[:LONGEST_NAME]
        return at

    def _name(self, names: Iterable[str | None]) -> None:
        for name in dict.fromkeys(names):
            if name:
                self._named[name] += 1

    def _count(self, step: Draft) -> None:
        """The projects that a step names."""
        text = step.text
        for _, asked in step.calls:
            if "/" in asked or "\\" in asked or "git@" in asked:
                self._name((*projects.remotes(asked), *projects.paths(asked)))
        if step.role == "tool":
            if "(fetch)" in text:
                self._name(name for url in FETCHED.findall(text) for name in projects.remotes(url))
        elif step.role != "assistant":
            self._name(projects.remotes(text))
            if "<cwd>" in text or "orking directory: " in text:
                self._name(projects.of_path(a or b, folder=True) for a, b in CWD.findall(text))

    def _message(self, line: int, told: Told, at: datetime | None, entry: Told | None = None) -> list[Draft]:
        """The steps of a message. entry: the line around it, where there is one."""
        role = _role(told, entry)
        content = told["content"] if "content" in told else next((told[key] for key in CONTENTS if key in told), None)
        if role is None or not isinstance(content, READABLE):
            self.bad += told.get("role") not in PASSED_OVER
            return []
        if role == "tool":
            return [self._result(line, told, text_of(content), at)]
        found = said(content)
        steps = []
        for part in found.results:
            beside = ended(entry) if len(found.results) == 1 else {}
            steps.append(self._result(line, {**part, **beside}, text_of(part.get("content")), at))
        text, calls = "\n".join(found.texts), self._calls((*called(told), *found.calls))
        if text or calls or not (steps or found.thought):
            steps.append(Draft(line=line, role=_speaker(role, text, entry), text=whole(text), calls=calls, at=at))
        return steps

    def _item(self, line: int, told: Told, at: datetime | None) -> list[Draft]:
        """The steps of a Codex item."""
        kind = told.get("type")
        if kind == "message":
            return self._message(line, told, at)
        if kind in CALLS:
            asked = next((told[key] for key in ("arguments", "input", "action") if key in told), "")
            name = told.get("name") or str(kind).removesuffix("_call")
            return [Draft(line=line, role="assistant", calls=self._calls([{**told, "name": name, "arguments": asked}]), at=at)]
        if kind in OUTPUTS:
            output = told.get("output")
            inner = loads(output) if isinstance(output, str) and output[:1] == "{" else output
            inner = inner if isinstance(inner, dict) else {}
            text = text_of(next((inner[key] for key in ("output", "content") if key in inner), output))
            return [self._result(line, {**told, **inner}, text, at)]
        return []

    def _calls(self, told: Iterable[Told]) -> tuple[DraftCall, ...]:
        made = []
        for call in told:
            function = call["function"] if isinstance(call.get("function"), dict) else call
            name = function.get("name")
            if not isinstance(name, str) or not name:
                continue
            name = whole(name)[:LONGEST_NAME]
            self._tools.update(dict.fromkeys(ids(call), name))
            made.append(DraftCall(name=name, arguments=arguments(function.get("arguments", function.get("input", "")))))
        return tuple(made)

    def _result(self, line: int, told: Told, text: str, at: datetime | None) -> Draft:
        known = [name for id in ids(told) if (name := self._tools.pop(id, None))]
        name = told.get("name")
        tool = whole(name)[:LONGEST_NAME] if isinstance(name, str) and name else next(iter(known), None)
        return Draft(line=line, role="tool", text=whole(text), tool=tool, failed=failed(told, text), at=at)


def _is_entry(told: Told) -> bool:
    return "uuid" in told or "sessionId" in told or "leafUuid" in told


def _role(told: Told, entry: Told | None) -> Role | None:
    role = told["role"] if "role" in told else entry.get("type") if entry else told.get("from")
    return ROLES.get(role.lower()) if isinstance(role, str) else None


def _speaker(role: Role, text: str, entry: Told | None) -> Role:
    """Who really speaks: an agent's program tells things in its user's name, and an agent asks its helpers as a user."""
    if role != "user":
        return role
    entry = entry or {}
    if text.startswith(NO_PERSON) or entry.get("isMeta") is True or entry.get("isCompactSummary") is True:
        return "system"
    return "assistant" if entry.get("isSidechain") is True else role


# lines


def _is_text(head: list[Numbered]) -> bool:
    """Neither is a line JSON, nor does the first one open a document."""
    lines = [line for _, line in head if line.strip()]
    return not OPENS.match(written(lines[0]).strip()) and all(loads(line) is BAD for line in lines)


def _values(head: list[Numbered], rest: Iterable[Numbered]) -> Iterator[tuple[int, object]]:
    """What the lines say, BAD where they say nothing; where they are one document together, its members."""
    if loads(head[0][1]) is BAD and not any(isinstance(loads(line), dict) for _, line in head[1:3]):
        head = [*head, *rest]
        document = loads("".join(written(line) + "\n" for _, line in head))
        if document is not BAD:
            head, rest = [(head[0][0], json.dumps(document))], ()
    number, first = head[0][0], loads(head[0][1])
    yield from enumerate(first, 1) if isinstance(first, list) else [(number, first)]
    for number, line in chain(head[1:], rest):
        if not line.isspace():
            yield number, loads(line)


@dataclass(slots=True)
class _Block:
    line: int
    role: Role | None = None  # None: nobody is named
    tool: str | None = None
    said: list[str] = field(default_factory=list)


def _blocks(lines: Iterable[Numbered]) -> Iterator[_Block]:
    """What one says up to where the next one speaks; paragraphs, where nobody is named."""
    block = _Block(1)
    for number, line in lines:
        text = whole(written(line).rstrip())
        if found := SAYS.match(text) or HEADING.match(text):
            yield block
            block = _Block(number, SPEAKERS[found["who"].lower()], found["tool"], [found["said"].strip()])
        elif not text and block.role is None:
            yield block
            block = _Block(number + 1)
        else:
            block.said.append(text)
    yield block
