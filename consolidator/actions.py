"""Reading a reply: from a model's text to sound actions, with every fault named. Pure, and total."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, cast, get_args

from consolidator.errors import BadReply
from consolidator.proposals import Action, Batch, NothingDurable, Op, UpdateKind

MAX_REPLY = 64 * 1024  # characters
MAX_DEPTH = 20
MAX_STARTS = 50  # braces at which the object is looked for
MAX_TEXT = 400  # characters
MAX_WORDS = 30
SPARE_ACTIONS = 4  # n memories allow n + 4 actions
TOO_DEEP = "the reply is nested too deeply"

FENCE = re.compile(r"^\s*```[\w-]*\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)
INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong, in words that a model can act on, and the aliases that it concerns."""

    message: str
    aliases: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    actions: tuple[Action, ...] = ()
    nothing: tuple[NothingDurable, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def accounted(self) -> frozenset[str]:
        cited = frozenset(alias for action in self.actions for alias in action.evidence)
        return cited | {declared.memory for declared in self.nothing}


def clean(text: str) -> str:
    """NFC, one line, without controls, bidirectional marks and zero-width characters."""
    kept = "".join(c if unicodedata.category(c) not in INVISIBLE else " " if c in "\n\t\r" else "" for c in text)
    return " ".join(unicodedata.normalize("NFC", kept).split())


def parse(text: str, key: str = "actions") -> object:
    """The JSON object with `key` in a reply, through thoughts, a code fence or prose around it. Raises BadReply."""
    if len(text) > MAX_REPLY:
        raise BadReply(f"the reply has {len(text)} characters; at most {MAX_REPLY} are read")
    text = _without_thoughts(text)
    if fenced := FENCE.match(text):
        text = fenced.group(1)
    # an inner object of a reply that was cut is no reply
    replies = [value for value in _objects(text) if key in value]
    if not replies:
        raise BadReply(f'the reply holds no complete JSON object with the list "{key}"')
    if any(_too_deep(reply) for reply in replies):
        raise BadReply(TOO_DEEP)
    if any(reply != replies[0] for reply in replies):  # a draft, or one that was quoted: which is meant?
        raise BadReply(f'the reply holds several JSON objects with "{key}"; send one')
    return replies[0]


def _without_thoughts(text: str) -> str:
    """What follows thoughts that open the text; their opening tag may be missing. Such tags inside JSON stay."""
    text = text.strip()
    while text.startswith("<think>") or ("</think>" in text and not text.startswith(("{", "[", "`"))):
        text = text.partition("</think>")[2].strip()
    return text


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, but for those inside another one."""
    decoder, start = json.JSONDecoder(parse_constant=_no_constant), text.find("{")
    for _ in range(MAX_STARTS):
        if start < 0:
            return
        end = start + 1
        with suppress(ValueError):
            value, end = _decoded(decoder, text, start)
            yield value
        start = text.find("{", end)


def _decoded(decoder: json.JSONDecoder, text: str, start: int) -> tuple[dict[str, Any], int]:
    try:
        return decoder.raw_decode(text, start)
    except RecursionError:
        raise BadReply(TOO_DEEP) from None


def _too_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(value: object) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def read(value: object, batch: Batch) -> Reading:
    """Check a parsed reply against what was shown. What breaks a rule becomes a fault; the rest is kept."""
    if not isinstance(value, dict) or not isinstance(value.get("actions"), list):
        return Reading(faults=(Fault(message='the reply must be an object with the lists "actions" and "nothing_durable"'),))
    reader = _Reader(batch)
    for number, raw in enumerate(value["actions"], start=1):
        reader.action(number, raw)
    declared = value.get("nothing_durable", [])
    for raw in declared if isinstance(declared, list) else [declared]:
        reader.nothing(raw)
    reader.account()
    return Reading(actions=tuple(reader.actions), nothing=tuple(reader.declared), faults=tuple(reader.faults))


class _Reader:
    """Collects what is sound and what is not while a reply is walked through once."""

    def __init__(self, batch: Batch) -> None:
        self.memories = {shown.alias for shown in batch.memories}
        self.citable = {shown.alias for shown in batch.shown}
        self.observations = {candidate.alias for candidate in batch.candidates}
        self.allowed = len(self.memories) + SPARE_ACTIONS
        self.actions: list[Action] = []
        self.declared: list[NothingDurable] = []
        self.faults: list[Fault] = []
        self.targets: set[str] = set()

    def action(self, number: int, raw: object) -> None:
        named = self._aliases(raw)
        problems = [*self._problems(raw)]
        if len(self.actions) >= self.allowed:
            problems.append(f"there are more than {self.allowed} actions")
        if problems:
            self.faults += [Fault(message=f"action {number}: {problem}", aliases=named) for problem in problems]
            return
        assert isinstance(raw, dict)
        action = _action(raw)
        if action.observation:
            self.targets.add(action.observation)
        self.actions.append(action)

    def nothing(self, raw: object) -> None:
        alias = raw.get("memory") if isinstance(raw, dict) else raw
        reason = raw.get("reason") if isinstance(raw, dict) else ""
        if not isinstance(alias, str) or alias not in self.memories:
            self.faults.append(Fault(message=f"nothing_durable names {_shown(alias)}, which is no memory shown"))
        else:
            self.declared.append(NothingDurable(memory=alias, reason=clean(reason)[:MAX_TEXT] if isinstance(reason, str) else ""))

    def account(self) -> None:
        """Every memory is cited or declared; what is cited is not also declared."""
        cited = {alias for action in self.actions for alias in action.evidence}
        self.declared = [d for d in {d.memory: d for d in self.declared}.values() if d.memory not in cited]
        blamed = frozenset().union(*(fault.aliases for fault in self.faults))
        missing = self.memories - cited - {d.memory for d in self.declared} - blamed
        for alias in sorted(missing):
            message = f"{alias} is neither cited nor declared nothing_durable"
            self.faults.append(Fault(message=message, aliases=frozenset({alias})))

    def _aliases(self, raw: object) -> frozenset[str]:
        if not isinstance(raw, dict):
            return frozenset()
        evidence = raw.get("evidence")
        named = [raw.get("observation"), *(evidence if isinstance(evidence, list) else [evidence])]
        return frozenset(name for name in named if isinstance(name, str)) & (self.memories | self.observations)

    def _problems(self, raw: object) -> Iterable[str]:
        if not isinstance(raw, dict):
            yield "is no object"
            return
        op = raw.get("op")
        if op not in get_args(Op):
            yield f'op must be "create", "update" or "delete", not {_shown(op)}'
            return
        yield from self._evidence_problems(raw.get("evidence"))
        if op != "create":
            yield from self._target_problems(raw.get("observation"))
        if op == "update" and raw.get("change") not in get_args(UpdateKind):
            yield f"change must be one of {', '.join(get_args(UpdateKind))}"
        if op != "delete":
            yield from _text_problems(raw.get("text"))
            yield from _confidence_problems(raw.get("confidence"))

    def _evidence_problems(self, evidence: object) -> Iterable[str]:
        if not isinstance(evidence, list) or not evidence:
            yield "evidence must be a list that names at least one memory"
            return
        for alias in evidence:
            if not isinstance(alias, str) or alias not in self.citable:
                yield f"evidence names {_shown(alias)}, which is no memory shown"
        if not any(isinstance(alias, str) and alias in self.memories for alias in evidence):
            yield "evidence names no new memory; those of before may only be cited beside one"

    def _target_problems(self, target: object) -> Iterable[str]:
        if not isinstance(target, str) or target not in self.observations:
            yield f"observation is {_shown(target)}, which is no observation shown"
        elif target in self.targets:
            yield f"{target} has an action already; at most one action for each observation"


def _text_problems(text: object) -> Iterable[str]:
    if not isinstance(text, str) or not clean(text):
        yield "text is missing"
        return
    text = clean(text)
    if len(text) > MAX_TEXT or len(text.split()) > MAX_WORDS:
        size = f"{len(text.split())} words and {len(text)} characters"
        yield f"text has {size}; at most {MAX_WORDS} words and {MAX_TEXT} characters"


def _confidence_problems(confidence: object) -> Iterable[str]:
    if confidence is None:
        return
    if isinstance(confidence, bool) or not isinstance(confidence, int | float):
        yield "confidence must be a number from 0 to 1"
    elif not 0 <= confidence <= 1:  # nor is NaN, and an integer may be too large for a float
        yield "confidence must lie between 0 and 1"


def _action(raw: dict[str, Any]) -> Action:
    op = cast(Op, raw["op"])
    reason = raw.get("reason")
    return Action(
        op=op,
        observation=None if op == "create" else raw["observation"],
        change=raw["change"] if op == "update" else None,
        text="" if op == "delete" else clean(raw["text"]),
        confidence=None if op == "delete" or raw.get("confidence") is None else float(raw["confidence"]),
        evidence=tuple(dict.fromkeys(raw["evidence"])),
        reason=clean(reason)[:MAX_TEXT] if isinstance(reason, str) else "",
    )


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, default=str)[:40]


def sound(reading: Reading) -> Reading:
    """Drop every group that a fault touches: actions that share a memory or an observation stand or fall together.

    So a delete never outlives its replacement, and one bad action costs its own group alone.
    """
    blamed = {alias for fault in reading.faults for alias in fault.aliases}
    if any(not fault.aliases for fault in reading.faults if fault.message.startswith("action")):
        blamed |= {alias for action in reading.actions for alias in _touched(action)}
    grew = True
    while grew:
        spread = {alias for action in reading.actions if _touched(action) & blamed for alias in _touched(action)}
        grew = not spread <= blamed
        blamed |= spread
    actions = tuple(action for action in reading.actions if not _touched(action) & blamed)
    nothing = tuple(declared for declared in reading.nothing if declared.memory not in blamed)
    return Reading(actions=actions, nothing=nothing, faults=reading.faults)


def _touched(action: Action) -> frozenset[str]:
    """What binds it to other actions; to share what was said before binds nothing."""
    cited = (alias for alias in action.evidence if not alias.startswith("c"))
    return frozenset(cited) | ({action.observation} if action.observation else frozenset())


def reply_schema(memories: int, observations: int, context: int) -> dict[str, Any]:
    """The JSON schema of a reply, within what strict servers accept. Fixed sizes let a grammar be compiled once."""
    memory = {"type": "string", "enum": [f"m{n}" for n in range(1, memories + 1)]}
    cited = {"type": "string", "enum": [*memory["enum"], *(f"c{n}" for n in range(1, context + 1))]}
    target = {"type": ["string", "null"], "enum": [*(f"o{n}" for n in range(1, observations + 1)), None]}
    action = _object(
        {
            "reason": {"type": "string"},
            "op": {"type": "string", "enum": list(get_args(Op))},
            "observation": target,
            "change": {"type": ["string", "null"], "enum": [*get_args(UpdateKind), None]},
            "text": {"type": ["string", "null"]},
            "confidence": {"type": ["number", "null"]},
            "evidence": {"type": "array", "items": cited},
        }
    )
    nothing = _object({"memory": memory, "reason": {"type": "string"}})
    return _object({"actions": {"type": "array", "items": action}, "nothing_durable": {"type": "array", "items": nothing}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def messages_of(faults: Sequence[Fault]) -> tuple[str, ...]:
    return tuple(fault.message for fault in faults)
