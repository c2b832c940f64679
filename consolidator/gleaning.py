"""Knowledge out of a session without a model: what stands there in so many words, quoted, and never more than a handful. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from consolidator.actions import clean
from consolidator.extraction import MASK, MAX_TEXT, MAX_WORDS, Item, ItemCategory
from consolidator.records import Step, ToolCall
from consolidator.stretches import HANDED, error_lines, is_error, results, without_handed
from consolidator.tripwires import suspicion
from consolidator.words import jaccard, plain, sentences, stems

MOST = 6  # items of a stretch
REACH = 8  # steps from an error to its fix
LONGEST = 25  # words of a sentence that is quoted
LEAST_WORDS = 4
COMMAND, MESSAGE = 100, 120  # characters of a call and of an error that are quoted
VERIFIED, SEVERAL, ONCE = 0.9, 0.7, 0.5
SHELLS = ("bash", "sh", "zsh")
KEYS = ("command", "cmd", "script", "path", "file_path", "query", "url")  # of a call's arguments, that tell what it does

FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
QUOTED = re.compile(r"^\s*>.*$", re.MULTILINE)
MARKUP = re.compile(r"^\s*(?:[-*+•]|\d+[.)]|#{1,6})\s+|\*\*|__", re.MULTILINE)
VEILED = re.compile(r"\|\s*(?:tail|head|grep|tee|cat|wc)\b|\|\|\s*(?:true|:)|;|&\s*$")  # how it ended says little of what it did
SPECIFIC = re.compile(r"\b\w*(?:Error|Exception|Warning)\b\s*:|\berror(?:\[\w+\])?\s*:|^E\s{2,}\S|\bFAILED\b|not found|No such")
ASKS = re.compile(
    r"^(?:what|which|where|how|why|when|who|does|do|did|is|are|can|should|must|has|have|will|was|were)\b.*\?$", re.IGNORECASE
)
DECIDED = re.compile(
    r"\b(?:(?:we|i)(?:['’]ve| have)? (?:decided|agreed|chose|settled)\b|decided (?:to|on|that|against|for)\b|"
    r"(?:we(?:['’]ll| will| are going to)|let['’]s) (?:use|go with|keep|stick (?:with|to)|switch to)\b|"
    r"(?:the )?decision(?: is|:))",
    re.IGNORECASE,
)
WISHED = re.compile(
    r"\b(?:always|never|(?:i|we) (?:would |['’]d )?(?:prefer|rather|want|like)|from now on|"
    r"in this (?:repo(?:sitory)?|project|code ?base)|"
    r"please (?:do not|don['’]t)|(?:do not|don['’]t) (?:ever|use|touch|commit|push|edit|add|run))\b",
    re.IGNORECASE,
)
WORKED = re.compile(
    r"\b(?:that (?:fixed|solved|worked)|(?:this|that|it|which) (?:now )?works\b|works now|"
    r"the (?:fix|solution|trick|answer) (?:is|was)|"
    r"fixed by|solved by|turned out)\b",
    re.IGNORECASE,
)
QUIRK = re.compile(
    r"\b(?:only works? (?:with|if|when|in|from)|needs? (?:to be run|the)|requires?|must be run|does(?: not|n['’]t) support|"
    r"silently|ignores|is deprecated|no longer supports?|unless|instead of|has to be)\b",
    re.IGNORECASE,
)
CODE = re.compile(r"`[^`]+`|(?<!\w)--?[a-z][\w-]+|\b\w+\.(?:py|js|ts|toml|json|ya?ml|sh|rs|go|md)\b|\b\w+(?:_\w+)+\b")
OPEN = re.compile(
    r"\b(?:(?:not sure|unclear) (?:why|whether|if|how|what)|(?:do not|don['’]t) (?:yet )?know (?:why|whether|how)|"
    r"no idea why|still (?:unknown|unclear|open)|remains? (?:open|unclear|to be)|open question|needs? (?:more )?investigation|"
    r"could(?: not|n['’]t) (?:find out|figure out|reproduce|determine)|stays? (?:open|a question)|something to ask|"
    r"(?:cannot|can['’]t) (?:see|tell|say|verify) (?:why|whether|if|how|what)|i (?:do not|don['’]t) know (?:about|if|yet))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Said:
    """A sentence and the step in which it was said."""

    step: int
    role: str
    text: str


def glean(steps: Sequence[Step], first: int, last: int, *, ended: bool, most: int = MOST) -> list[Item]:
    """Items of the steps [first, last), the surest kinds first. ended: the session has nothing after them."""
    found: list[Item] = []
    said = [s for n in range(first, last) for s in _said(n, steps[n])]
    for item in (*_fixes(steps, first, last, ended=ended), *_sentences(steps, said), *_answers(steps, said)):
        if _sound(item) and not any(plain(item.text) == plain(other.text) for other in found):
            found.append(item)
    return found[:most]


def _sound(item: Item) -> bool:
    short = len(item.text) <= MAX_TEXT and len(item.text.split()) <= MAX_WORDS
    return short and MASK not in item.text and HANDED not in item.text and suspicion(item.text) is None


def _said(index: int, step: Step) -> Iterator[_Said]:
    """What people and the agent said, sentence by sentence: neither code, nor quotations, nor what memory had handed out."""
    if step.role not in ("user", "assistant"):
        return
    text = MARKUP.sub("", QUOTED.sub("", FENCED.sub("\n\n", without_handed(step.text))))
    for line in text.splitlines():
        for sentence in sentences(line):
            told = clean(sentence)
            if LEAST_WORDS <= len(told.split()) <= LONGEST:
                yield _Said(index, step.role, told)


# sentences that say what they are


def _sentences(steps: Sequence[Step], said: Sequence[_Said]) -> Iterator[Item]:
    kinds = (_decision, _wish, _pattern, _quirk, _question)
    for kind in kinds:
        yield from (item for s in said if (item := kind(steps, s)) is not None)


def _decision(steps: Sequence[Step], s: _Said) -> Item | None:
    if not DECIDED.search(s.text) or s.text.endswith("?"):
        return None
    return _quoting(s, "fact", SEVERAL if s.role == "user" else ONCE, f'Decided: "{s.text}"')


def _wish(steps: Sequence[Step], s: _Said) -> Item | None:
    if s.role != "user" or not WISHED.search(s.text) or s.text.endswith("?"):
        return None
    return _quoting(s, "fact", SEVERAL, f'The user said: "{s.text}"')


def _pattern(steps: Sequence[Step], s: _Said) -> Item | None:
    if s.role != "assistant" or not WORKED.search(s.text) or s.text.endswith("?"):
        return None
    before = [n for n in range(max(0, s.step - 3), s.step) if steps[n].role == "tool"]
    proven = before[-1:] if before and steps[before[-1]].failed is False else []
    if not CODE.search(s.text):
        return None
    return _quoting(s, "pattern", SEVERAL if proven else ONCE, f'What worked: "{s.text}"', *proven)


def _quirk(steps: Sequence[Step], s: _Said) -> Item | None:
    if s.role != "assistant" or not QUIRK.search(s.text) or not CODE.search(s.text) or s.text.endswith("?"):
        return None
    return _quoting(s, "tool-quirk", ONCE, f'It was noted: "{s.text}"')


def _question(steps: Sequence[Step], s: _Said) -> Item | None:
    return _quoting(s, "question", ONCE, f'Left open: "{s.text}"') if OPEN.search(s.text) else None


def _quoting(s: _Said, category: ItemCategory, confidence: float, text: str, *more: int) -> Item:
    return Item(text=text, category=category, confidence=confidence, steps=tuple(sorted({s.step, *more})))


# a question and its answer


def _answers(steps: Sequence[Step], said: Sequence[_Said]) -> Iterator[Item]:
    for place, asked in enumerate(said):
        if asked.role != "user" or not ASKS.match(asked.text):
            continue
        later = next((s for s in said[place + 1 :] if s.step > asked.step), None)
        if later is None or later.role != "assistant" or later.text.endswith("?"):
            continue
        if stems(asked.text) & stems(later.text):  # else it talks of something else
            text = f'Asked "{asked.text}", the answer was: "{later.text}"'
            yield Item(text=text, category="fact", confidence=ONCE, steps=(asked.step, later.step))


# an error and its fix


def _fixes(steps: Sequence[Step], first: int, last: int, *, ended: bool) -> Iterator[Item]:
    calls = results(steps[:last])
    done: set[str] = set()
    for n in range(first, last):
        message = _message(steps[n])
        if steps[n].role != "tool" or steps[n].failed is not True or message is None or n not in calls:
            continue
        tried = _told(calls[n])
        fixed = next((m for m in range(n + 1, min(last, n + 1 + REACH)) if m in calls and _fixes_it(steps, calls, n, m)), None)
        if tried in done:
            continue
        if fixed is not None:
            done.add(tried)
            yield _fix(steps, calls, n, fixed, message)
        elif ended and not any(m in calls and _again(calls[n], calls[m]) for m in range(n + 1, last)):
            text = f'{_named(calls[n])} failed with "{message}", and was not run with success after that.'
            yield Item(text=text, category="question", confidence=ONCE, steps=(n,))


def _fixes_it(steps: Sequence[Step], calls: dict[int, ToolCall], failed: int, later: int) -> bool:
    """Whether a later result shows that what had failed succeeded."""
    step = steps[later]
    well = step.failed is False or (step.failed is None and not any(map(is_error, step.text.splitlines()[-5:])))
    return step.role == "tool" and well and _again(calls[failed], calls[later])


def _again(one: ToolCall, other: ToolCall) -> bool:
    """Whether the other call attempts the same: equal, or with most of its words, and not too many others."""
    mine, others = stems(_told(one)), stems(_told(other))
    shared = len(mine & others) >= 0.6 * len(mine) and jaccard(mine, others) >= 0.4
    return one.name == other.name and (_told(one) == _told(other) or (bool(mine) and shared))


def _fix(steps: Sequence[Step], calls: dict[int, ToolCall], failed: int, fixed: int, message: str) -> Item:
    """What was called between, or what was called otherwise."""
    same = _told(calls[failed]) == _told(calls[fixed])
    between = [m for m in range(failed + 1, fixed) if m in calls and steps[m].failed is not True]
    opening = f'{_named(calls[failed])} failed with "{message}"'
    if not same:
        text = f"{opening}; {_named(calls[fixed])} succeeded."
    elif between:
        text = f"{opening}; after {_named(calls[between[-1]])} it succeeded."
    else:
        text = f"{opening}, and succeeded when it was run again."
    proven = steps[fixed].failed is False and not VEILED.search(_doing(calls[fixed]))
    shown = (failed, fixed, *(between[-1:] if same else ()))
    cited = {*shown, *_callers(steps, *shown)}
    return Item(text=text, category="pitfall", confidence=VERIFIED if proven else ONCE, steps=tuple(sorted(cited)))


def _callers(steps: Sequence[Step], *places: int) -> Iterable[int]:
    """The steps that made the calls of these results."""
    for place in places:
        yield from [n for n in range(max(0, place - 4), place) if steps[n].calls][-1:]


def _message(step: Step) -> str | None:
    """The last line of a result that says what went wrong, else the last one that looks like an error."""
    lines = error_lines(without_handed(step.text))
    telling = [line for line in lines if SPECIFIC.search(line)] or lines
    told = clean(telling[-1]) if telling else ""
    return _shortened(told, MESSAGE).replace('"', "'") if told else None


def _named(call: ToolCall) -> str:
    return f"`{_told(call)}`" if _told(call) != call.name else f"The tool {call.name}"


def _told(call: ToolCall) -> str:
    """What a call does, as far as its arguments tell."""
    return _shortened(_doing(call), COMMAND)


def _doing(call: ToolCall) -> str:
    try:
        found = json.loads(call.arguments) if call.arguments[:1] == "{" else {}
    except (ValueError, RecursionError):
        found = {}
    for told in (found.get(key) for key in KEYS):
        if isinstance(told, list) and told and all(isinstance(part, str) for part in told):
            told = told[-1] if told[0].rpartition("/")[2] in SHELLS else " ".join(told)
        if isinstance(told, str) and clean(told):
            return clean(told).replace("`", "'")
    return call.name


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rsplit(" ", 1)[0] + "…"
