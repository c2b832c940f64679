"""What a stretch of a session comes to, as its record: figures, how it stood, what a briefing in it was good for. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from consolidator.contexts import one_line
from consolidator.knowledge import named_in
from consolidator.records import SessionRecord, Step
from consolidator.stretches import error_lines, handed, shape, told
from consolidator.words import stems

ERRORS = 20  # that a record names
NAME = 80  # characters of a project's name
USED = 0.6  # share of an item's words that a step says again which makes use of it
LEAST = 4  # words that such an item has
BARE = re.compile(r"(?<![\w\[-])K-[0-9a-f]{8,32}(?![\w-])")

Digest = Callable[[str], str]


def hashes(steps: Sequence[Step]) -> list[str]:
    """Of each step by itself, wherever in its file it stands."""
    return [hashlib.sha256(_canonical(step).encode()).hexdigest() for step in steps]


def _canonical(step: Step) -> str:
    return json.dumps(step.model_dump(mode="json", exclude={"line"}), sort_keys=True, separators=(",", ":"))


def mark(hashed: Sequence[str], last: int, digest: Digest) -> str:
    """Of all steps before `last`: by it a session that has grown is told from one that was rewritten."""
    return digest("\n".join(hashed[:last]))


def reached(records: Collection[SessionRecord], end: int, marked: Callable[[int], str]) -> tuple[int, int]:
    """How far a session was harvested without a gap: steps, and stretches. (0, 0) for one that is new, or was rewritten.

    end: its steps. marked: the mark of all steps before one.
    """
    place = stretches = 0
    begun: dict[int, list[SessionRecord]] = {}
    for record in records:
        begun.setdefault(record.first, []).append(record)
    while valid := [r.last for r in begun.get(place, ()) if place < r.last <= end and r.digest == marked(r.last)]:
        place, stretches = max(valid), stretches + 1
    return place, stretches


def errors(steps: Sequence[Step], digest: Digest) -> tuple[str, ...]:
    """Digests of the errors that tools met, each once, whatever differs from one occurrence to the next."""
    lines = (shape(line) for step in steps if step.role == "tool" and step.failed for line in error_lines(step.text))
    return tuple(digest(line) for line in list(dict.fromkeys(line for line in lines if line))[:ERRORS])


def briefings(steps: Sequence[Step]) -> dict[int, str]:
    """What briefings in a session said, by the steps that show them."""
    return {n: handed(step.text) for n, step in enumerate(steps) if "<briefing>" in step.text.lower()}


def briefed(told: Mapping[int, str], known: Collection[str]) -> dict[str, int]:
    """Items that briefings showed, and the first step that did. told: by step, in order. known: ids."""
    found: dict[str, int] = {}
    for n, shown in told.items():
        for id in named_in(shown, known) if shown else ():
            found.setdefault(id, n)
    return found


def used(steps: Sequence[Step], first: int, last: int, shown: Mapping[str, int], texts: Mapping[str, str]) -> tuple[str, ...]:
    """Items of which the agent made use in the steps [first, last): it named one, or said most of its words again.

    shown: items, and the step that showed each. texts: what they say.
    """
    words = {id: found for id, text in texts.items() if len(found := stems(text)) >= LEAST}
    made: set[str] = set()
    for n in range(first, last):
        if steps[n].role != "assistant":
            continue
        before = [id for id, place in shown.items() if place < n and id not in made]
        text = told(steps[n]) if before else ""
        said = stems(text)
        made |= {*named_in(BARE.sub(r"[\g<0>]", text), before)} if before else set()
        made |= {id for id in before if id in words and len(words[id] & said) >= USED * len(words[id])}
    return tuple(sorted(made))


def moment(steps: Sequence[Step], otherwise: datetime | None) -> datetime | None:
    return next((step.at for step in reversed(steps) if step.at is not None), otherwise)


def sentence(record: SessionRecord) -> str:
    """The record as a memory says it; it ends with a mark of the steps, so that two of a rewritten session are two."""
    name = one_line(record.project)[:NAME]
    counts = f"{record.calls} tool calls, {record.failed} failed"
    outcome = "its outcome is unknown" if record.outcome == "unknown" else f"so far {record.outcome}"
    return f"Session in project {name}, steps {record.first + 1} to {record.last}: {outcome}; {counts} ({record.digest[:12]})."
