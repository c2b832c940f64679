"""Ways to damage a reply. Each takes its chances from a generator, so that a number names a reply."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

from consolidator.proposals import Op, UpdateKind

# as an observation may hold them
STATEMENTS = (
    "Ana lives in Lisbon.", "Bob plays chess.", "Ana has a cat.", "Ana keeps bees.", "Bob never drinks coffee.", "Cem sings.",
)

Mutation = Callable[[random.Random, str], str]
INSERTED = (
    "\u202e", "\u200b", "\ud800", "\udfff", "\0", "\ufeff", '"', "\\", "{", "}", "[", "]", ",", ":", "NaN", "Infinity", "true",
    "null", "1e999", "-", "9" * 400, "m1", "o1", "c2", '"actions"', "<think>", "</think>", "```", "'", "e\u0301",
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 0.3, 1.7, 10**400, float("nan"), float("inf"), "", "m1", "m99", "o1", "c1", "delete", "create", [],
    {}, ["m1", "m1"], ["c1"], [["m1"]], {"actions": []}, "word " * 40, "\ud800x", "\u202ea\u200bb",
)
WRAPPED = (
    "{}", "```json\n{}\n```", "```\n{}", "Sure, here it is:\n{}\nAnything else?", "<think>First {{}} then {{a: 1}}</think>{}",
    "<think>{}", "{}</think>", "thoughts</think>{}", '{{"actions": []}} {}', "{} {}", "[{}]", "{{{}}}", '"{}"', "\ufeff{}",
)


def drop(chance: random.Random, text: str) -> str:
    start = chance.randrange(len(text) + 1)
    return text[:start] + text[start + chance.choice((1, 1, 2, 30)) :]


def double(chance: random.Random, text: str) -> str:
    start = chance.randrange(len(text) + 1)
    end = start + chance.choice((1, 1, 5, 200))
    return text[:end] + text[start:]


def swap(chance: random.Random, text: str) -> str:
    first, second = sorted(chance.randrange(len(text) + 1) for _ in range(2))
    return text[:first] + text[second : second + 1] + text[first + 1 : second] + text[first : first + 1] + text[second + 1 :]


def insert(chance: random.Random, text: str) -> str:
    start = chance.randrange(len(text) + 1)
    return text[:start] + chance.choice(INSERTED) + text[start:]


def cut(chance: random.Random, text: str) -> str:
    return text[: chance.randrange(len(text) + 1)]


def wrap(chance: random.Random, text: str) -> str:
    return chance.choice(WRAPPED).replace("{}", "\x01").replace("{{", "{").replace("}}", "}").replace("\x01", text)


def nest(chance: random.Random, text: str) -> str:
    depth = chance.choice((5, 25, 3000))
    deep = "[" * depth + "]" * chance.choice((0, depth))
    return "}" * chance.choice((0, depth)) + text.replace('"m1"', deep, 1)


def realias(chance: random.Random, text: str) -> str:
    return re.sub(r'"[moc]\d+"', lambda found: f'"{chance.choice("mmoc")}{chance.randint(1, 5)}"', text)


def rekey(chance: random.Random, text: str) -> str:
    keys = ["actions", "op", "text", "evidence", "observation", "change", "confidence", "nothing_durable", "memory", "Op", "x"]
    return text.replace(f'"{chance.choice(keys[:9])}"', f'"{chance.choice(keys)}"', chance.choice((1, -1)))


def tree(chance: random.Random, text: str) -> str:
    """Changes the value instead of its letters: another type, an item twice, a field less."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return insert(chance, text)
    places = [*_places(value)]
    if not places:
        return text
    holder, key = chance.choice(places)
    what = chance.randrange(3)
    if what == 0:
        holder[key] = chance.choice(VALUES)
    elif what == 1:
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, holder[key])
    else:
        holder[key] = [holder[key]]
    return json.dumps(value, ensure_ascii=chance.random() < 0.5)


def replan(chance: random.Random, text: str) -> str:
    """Other operations on other targets with texts that are held already, and more of them than may be."""
    try:
        value = json.loads(text)
        actions = [action for action in value["actions"] if isinstance(action, dict)]
    except (ValueError, RecursionError, TypeError, KeyError):
        return drop(chance, text)
    actions = (actions * chance.choice((1, 1, 3, 9)))[:40]
    targets = chance.sample(range(1, 7), 6)  # each once, as far as they go
    planned = []
    for n, action in enumerate(actions):
        op = chance.choice(get_args(Op)) if n < len(targets) or chance.random() < 0.1 else "create"
        target = None if op == "create" else f"o{targets[n % len(targets)]}"
        fields = {"op": op, "observation": target, "change": chance.choice(get_args(UpdateKind))}
        fields["text"] = chance.choice((action.get("text"), chance.choice(STATEMENTS), f"{chance.choice(STATEMENTS)[:-1]} "))
        planned.append({**action, **fields, "confidence": chance.choice((0.9, 0.5, 0.4, 0, None))})
    return json.dumps({**value, "actions": planned})


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(inner):
        yield value, key
        yield from _places(item)


MUTATIONS: tuple[Mutation, ...] = (drop, double, swap, insert, cut, wrap, nest, realias, rekey, *[tree] * 6, *[replan] * 5)
