"""LoCoMo's conversations, as `data/locomo10.json` of github.com/snap-research/locomo tells them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}  # LoCoMo's numbers
EVIDENCE = re.compile(r"D:?(\d+):(\d+)")
SAID_APART = timedelta(seconds=20)  # LoCoMo tells when a session began, and no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Something that was said. `shown` is all of it in one text, for stores without fields."""

    id: str
    text: str
    shown: str
    speaker: str
    session: int
    position: int  # in the session
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    id: str
    text: str
    category: str
    evidence: frozenset[str]  # ids of turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    text: str
    evidence: tuple[str, ...]  # ids of turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    name: str
    turns: list[Turn]
    questions: list[Question]
    statements: list[Statement]  # LoCoMo's own observations, written by a model and corrected by people

    @property
    def sessions(self) -> list[list[Turn]]:
        return [list(turns) for _, turns in groupby(self.turns, key=attrgetter("session"))]


def read(path: Path) -> list[Conversation]:
    samples = json.loads(path.read_text(encoding="utf-8"))
    return [conversation_of(sample) for sample in (samples if isinstance(samples, list) else [samples])]


def conversation_of(sample: dict[str, Any]) -> Conversation:
    turns = list(turns_of(sample["conversation"]))
    known, questions = {turn.id for turn in turns}, []
    for number, told in enumerate(sample["qa"]):
        if evidence := known.intersection(turns_named(told["evidence"])):  # a few questions have none
            id, category = f"{sample['sample_id']}/{number}", CATEGORIES[told["category"]]
            questions.append(Question(id=id, text=told["question"], category=category, evidence=frozenset(evidence)))
    statements = [
        Statement(text=text, evidence=said)
        for session in sample.get("observation", {}).values() for told in session.values() for text, named in told
        if (said := tuple(id for id in turns_named([named] if isinstance(named, str) else named) if id in known))
    ]
    return Conversation(name=sample["sample_id"], turns=turns, questions=questions, statements=statements)


def turns_named(told: list[str]) -> list[str]:
    return list(dict.fromkeys(f"D{int(a)}:{int(b)}" for a, b in EVIDENCE.findall(" ".join(told))))


def turns_of(talk: dict[str, Any]) -> Iterator[Turn]:
    sessions = sorted(int(key.split("_")[1]) for key in talk if re.fullmatch(r"session_\d+", key))
    for session in sessions:
        began = datetime.strptime(talk[f"session_{session}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
        for position, told in enumerate(talk[f"session_{session}"]):
            picture = told.get("blip_caption")
            text = f"{told['text']} [shared image: {picture}]" if picture else told["text"]
            yield Turn(
                id=told["dia_id"], text=text, shown=f"{told['speaker']}: {text}", speaker=told["speaker"], session=session,
                position=position, at=began + position * SAID_APART,
            )


def chosen(conversations: list[Conversation], which: str) -> list[Conversation]:
    """By positions, such as "0-1,4", or all. Raises ValueError for any other."""
    picked: list[Conversation] = []
    for part in which.split(",") if which != "all" else [f"0-{len(conversations) - 1}"]:
        first, _, last = part.partition("-")
        span = range(int(first), int(last or first) + 1)
        if not span or span[-1] >= len(conversations):
            raise ValueError(f"there are the conversations 0 to {len(conversations) - 1}, not {part}")
        picked += conversations[span.start : span.stop]
    return picked
