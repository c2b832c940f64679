"""A session in stretches: where one ends, and what a reader is shown of each step. Pure.

What is shown of a step is a function of the step alone, and where a stretch ends hangs on nothing that comes after it: so a
session that has grown keeps its stretches, and only has more of them.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from consolidator.records import Step, ToolCall

TAG = re.compile(r"<(/?)(briefing|memories)>", re.IGNORECASE)
HANDED = "[what memory had handed out]"
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
ERROR = re.compile(
    r"(?-i:\b\w*(?:Error|Exception|Warning)s?\b)|\b(?:errors?|exceptions?|warnings?|traceback|fatal|panic(?:ked)?|fail(?:ed|ure|ures|s)?|denied|refused|rejected|"
    r"not found|no such|cannot|can['’]t|could not|undefined|unresolved|unexpected|unknown option|unrecognized|invalid|missing|"
    r"timed? ?out|aborted|killed|segmentation fault|exit(?:ed)?(?: with)? (?:code|status) [1-9]\d*)\b|^E\s{2,}\S|[✗✘✕❌]",
    re.IGNORECASE,
)
NO_ERROR = re.compile(
    r"\b(?:no|0|zero|without(?: any)?)\s+(?:\w+\s+){0,1}(?:errors?|failures?|failed|exceptions?|warnings?|problems?)\b|"
    r"\b(?:errors?|failures?|failed|exceptions?|warnings?)\s*[:=]\s*(?:0|none|null|false)\b",
    re.IGNORECASE,
)
SHAPES = (  # what differs from one occurrence of an error to the next
    (re.compile(r"""(["'`]).{1,200}?\1"""), "<quoted>"),
    (re.compile(r"(?:[A-Za-z]:)?[\w.~-]*(?:[/\\][\w.@+-]+)+[/\\]?"), "<path>"),
    (re.compile(r"\b(?:0x[0-9a-f]+|[0-9a-f]{7,64}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\d+(?:[.:,]\d+)*"), "<n>"),
)
NUMBERS = SHAPES[2:]
ALIKE = 5  # lines in a row that differ in numbers alone and are all shown: the numbers may be what matters
LINE = 400  # characters of a line that are shown
CALL, CALLS = 600, 8  # and of a call's arguments; calls of a step
SIGNS = 12  # lines that look like errors, shown of what is cut out
LIMITS: Mapping[str, float] = {"system": 0.4, "tool": 0.7}  # of what is shown of a step
HEAD, TAIL = 0.45, 0.3  # of what is shown of a long text; the rest is for errors between them
OVERHEAD = 25  # tokens around a step
WRAPPED = ("output", "stdout", "stderr", "content", "result", "error", "message")  # keys under which tools say what they have to
DOCUMENT = 1_000_000  # characters of one that is taken apart


def without_handed(text: str) -> str:
    """A text without what memory had handed out: an agent's own knowledge, told back to it, is no news."""
    if "<" not in text:
        return text
    parts, end, opened = [], 0, None
    for tag in TAG.finditer(text):
        name = tag.group(2).lower()
        if opened is None and not tag.group(1):
            opened = (name, tag)
        elif opened is not None and tag.group(1) and opened[0] == name:
            parts += [text[end : opened[1].start()], HANDED]
            end, opened = tag.end(), None
    if opened is not None and _alone(text, opened[1]):  # it was cut off
        return "".join([*parts, text[end : opened[1].start()], HANDED])
    return "".join([*parts, text[end:]])


def _alone(text: str, tag: re.Match[str]) -> bool:
    """Whether a tag has its line for itself."""
    line = text[text.rfind("\n", 0, tag.start()) + 1 :].split("\n", 1)[0]
    return line.strip() == tag.group()


def handed(text: str) -> str:
    """The briefings in a text, one after another; what is not closed counts to the end."""
    found, opened = [], None
    for tag in TAG.finditer(text):
        if tag.group(2).lower() != "briefing":
            continue
        if not tag.group(1) and opened is None:
            opened = tag.end()
        elif tag.group(1) and opened is not None:
            found.append(text[opened : tag.start()])
            opened = None
    return "\n".join([*found, *([text[opened:]] if opened is not None else [])])


def is_error(line: str) -> bool:
    """Whether a line looks like one; "0 failed" and "no errors" do not."""
    return bool(ERROR.search(NO_ERROR.sub("", line)))


def error_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and is_error(line)]


def shape(line: str) -> str:
    """An error line without what differs from one occurrence to the next."""
    return _shape(line[: 2 * LINE], SHAPES)


def _shape(line: str, shapes: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, name in shapes:
        line = pattern.sub(name, line)
    return " ".join(line.casefold().split())[:LINE]


# what is shown of a step


def condensed(step: Step, characters: int) -> Step:
    """A step with at most about so many characters of text: without noise, cut around its middle, and fit to be kept."""
    return shortened(opened(step), characters)


def opened(step: Step) -> Step:
    """A step as a reader sees it: taken out of JSON, without colours and control characters, which split what is whole now."""
    text = _fit(step.text)
    text = _unwrapped(text) if step.role == "tool" else text
    calls = tuple(ToolCall(name=bare(call.name), arguments=bare(call.arguments)) for call in step.calls)
    tool = None if step.tool is None else bare(step.tool)
    return step.model_copy(update={"text": bare(ANSI.sub("", text.replace("\r\n", "\n"))), "calls": calls, "tool": tool})


def bare(text: str) -> str:
    """Without control characters."""
    return CONTROL.sub("", _fit(text))


def _fit(text: str) -> str:
    """Half of a surrogate pair could neither be kept nor sent."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def shortened(step: Step, characters: int) -> Step:
    """An opened step with at most about so many characters of text."""
    limit = max(80, int(characters * LIMITS.get(step.role, 1.0)))
    return step.model_copy(update={"text": cut(_quiet(without_handed(step.text)), limit)})


def _unwrapped(text: str) -> str:
    """What a tool says, where that stands in a JSON object."""
    if not text.lstrip().startswith("{") or len(text) > DOCUMENT:
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    said = [found[key] for key in WRAPPED if isinstance(found.get(key), str) and found[key].strip()]
    return "\n".join(said).encode("utf-8", "replace").decode() if said else text


def told(step: Step) -> str:
    """A step's text, and its first calls below it."""
    more = [f"[... {len(step.calls) - CALLS} more calls ...]"] if len(step.calls) > CALLS else []
    return "\n".join([*([step.text] if step.text else []), *map(called, step.calls[:CALLS]), *more])


def called(call: ToolCall) -> str:
    """A call on one line."""
    arguments = " ".join(bare(without_handed(call.arguments)).split())
    if len(arguments) > CALL:
        gone = len(arguments) - CALL
        arguments = f"{arguments[: CALL * 2 // 3]} [... {gone} characters left out ...] {arguments[-CALL // 3 :]}"
    return f"{call.name}({arguments})"


def cut(text: str, limit: int) -> str:
    """Head, tail, and what looks like an error between them. The marks of the cuts come on top."""
    if len(text) <= limit:
        return text
    head, tail = _whole(text[: int(limit * HEAD)]), _whole(text[-int(limit * TAIL) :][::-1])[::-1]
    middle = text[len(head) : len(text) - len(tail)]
    signs = list(_within(error_lines(middle), limit - len(head) - len(tail)))
    gone = len(middle) - sum(map(len, signs))
    between = [f"[... {gone} characters left out ...]", *signs, *(["[...]"] if signs else [])]
    return "\n".join([head.rstrip(), *between, tail.lstrip()])


def _whole(text: str) -> str:
    """Up to the last line end, where one is near."""
    end = text.rfind("\n")
    return text[: end + 1] if end > len(text) * 2 // 3 else text


def _within(lines: Sequence[str], room: int) -> Iterator[str]:
    """The last ones that fit, each once: where an error is explained, it is at the end."""
    kept: list[str] = []
    for line in reversed(list(dict.fromkeys(line[:LINE] for line in lines))):
        room -= len(line) + 1
        if room < 0 or len(kept) == SIGNS:
            break
        kept.append(line)
    yield from reversed(kept)


def _quiet(text: str) -> str:
    """Without colours, overwritten lines, overlong lines, and all but the first of many lines that differ in numbers alone."""
    raw = CONTROL.sub("", ANSI.sub("", text.replace("\r\n", "\n"))).split("\n")
    lines = [_short(line.rstrip().rpartition("\r")[2]) for line in raw]
    shown: list[str] = []
    for form, group in groupby(lines, key=lambda line: _shape(line, NUMBERS)):
        alike = list(group)
        few = not form or len(alike) <= ALIKE
        shown += alike if few else [alike[0], f"[... {len(alike) - 1} more like it ...]"]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(shown)).strip()


def _short(line: str) -> str:
    return line if len(line) <= LINE else f"{line[: LINE - 80]}[...]{line[-60:]}"


# where a stretch ends


def borders(steps: Sequence[Step], sizes: Sequence[int], first: int, window: int) -> list[tuple[int, int]]:
    """Stretches [first, last) of the steps from `first` on, of at most `window` tokens each; sizes: of what is shown of a step.

    A tool's result stands with its call, unless that makes the stretch half as large again.
    """
    found, begun, size = [], first, 0
    for n in range(first, len(steps)):
        more = sizes[n] + OVERHEAD
        limit = window * 3 // 2 if steps[n].role == "tool" else window
        if n > begun and size + more > limit:
            found.append((begun, n))
            begun, size = n, 0
        size += more
    return [*found, (begun, len(steps))] if begun < len(steps) else found


def results(steps: Sequence[Step]) -> dict[int, ToolCall]:
    """The call that each tool's result answers, by the place of the result: the oldest open call of that tool."""
    found: dict[int, ToolCall] = {}
    made: list[ToolCall] = []
    named: dict[str, deque[int]] = {}  # places in `made`, by the tool
    answered: set[int] = set()
    oldest = 0
    for n, step in enumerate(steps):
        for call in step.calls:
            named.setdefault(call.name, deque()).append(len(made))
            made.append(call)
        while oldest in answered:
            oldest += 1
        waiting = deque([oldest] if oldest < len(made) else []) if step.tool is None else named.get(step.tool, deque())
        while waiting and waiting[0] in answered:
            waiting.popleft()
        if step.role == "tool" and waiting:
            answered.add(waiting[0])
            found[n] = made[waiting[0]]
    return found
