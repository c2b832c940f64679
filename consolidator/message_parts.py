"""What stands within the messages of agents, as the usual programs write them: texts, calls, results, thoughts. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Line = bytes | str
Told = Mapping[str, Any]

TEXTS = ("text", "input_text", "output_text")
THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
GATHERED = ("messages", "conversation", "conversations", "history", "turns", "items")  # keys of a document's messages
IDS = ("call_id", "tool_call_id", "tool_use_id", "id")
ENDED = ("exit_code", "exitCode", "interrupted", "success")  # what Claude Code tells beside a result
BLANK = " \t\r\n\ufeff"  # around JSON, with the mark that begins some files
DECODER = json.JSONDecoder()  # asked directly: half the time of json.loads on short lines
BAD = object()


@dataclass(slots=True)
class Said:
    """The parts of a message, by what they are."""

    texts: list[str] = field(default_factory=list)
    calls: list[Told] = field(default_factory=list)
    results: list[Told] = field(default_factory=list)
    thought: bool = False


def loads(told: Line) -> object:
    """What a line of JSON says, else BAD."""
    try:
        text = written(told).strip(BLANK)
        value, end = DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return BAD
    return value if end == len(text) else BAD


def written(line: Line) -> str:
    return line.decode("utf-8", "replace") if isinstance(line, bytes) else line


def whole(text: str) -> str:
    """Without halves of surrogate pairs, which nothing can keep."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def said(content: object) -> Said:
    """What is said in a message: a text, a part, or a list of them. Other parts, such as images, are passed over."""
    found = Said()
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            found.texts.append(part)
        elif isinstance(part, dict):
            _sorted(part, found)
    return found


def _sorted(part: Told, found: Said) -> None:
    kind, text = part.get("type", "text"), part.get("text")
    if kind in TEXTS and isinstance(text, str):
        found.texts.append(text)
    elif kind == "tool_use":
        found.calls.append(part)
    elif kind == "tool_result":
        found.results.append(part)
    elif kind in THOUGHTS:
        found.thought = True


def text_of(content: object) -> str:
    """A tool's result as a text."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and (texts := said(content).texts):
        return "\n".join(texts)
    if isinstance(content, dict) and isinstance(text := content.get("text"), str):
        return text
    return "" if isinstance(content, list) else arguments(content)


def arguments(told: object) -> str:
    """The arguments of a call, as they stand in the file."""
    try:
        return whole(told if isinstance(told, str) else "" if told is None else json.dumps(told, ensure_ascii=False))
    except (ValueError, RecursionError):  # nested too deep
        return ""


def called(told: Told) -> list[Told]:
    """The calls that stand beside a message's content."""
    calls = told.get("tool_calls")
    found: list[Told] = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return [*found, call] if isinstance(call := told.get("function_call"), dict) else found


def ids(told: Told) -> list[str]:
    """By which a result finds its call."""
    return [id for key in IDS if isinstance(id := told.get(key), str)]


def ended(entry: Told | None) -> dict[str, Any]:
    """How a tool ended, as Claude Code tells it beside the message."""
    told = entry.get("toolUseResult") if entry else None
    return {key: told[key] for key in ENDED if key in told} if isinstance(told, dict) else {}


def members(told: object) -> list[Any]:
    """The messages of a document."""
    if not isinstance(told, dict) or "role" in told or "message" in told or "payload" in told:
        return []
    return next((told[key] for key in GATHERED if isinstance(told.get(key), list)), [])
