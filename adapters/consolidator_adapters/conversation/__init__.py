"""A year of talk among three friends, and questions about it: what the demo shows, and what measurements start from.

All persons and events are invented. A turn is named by its session and its place in it, from 0: `s02-rainy-breakfast:6`.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from consolidator.models import Value
from consolidator.records import Session, Utterance

Category = Literal["single", "multi", "temporal", "update", "preference", "number", "correction", "plan", "name", "forgotten"]


class AfterForgetting(Value):
    """What is right once the session `Conversation.forget` is erased; `must_not_say` are phrases that it alone knew."""

    answerable: bool
    answer: str | None
    must_not_say: tuple[str, ...] = ()


class Question(Value):
    """A question, its answer, the turns that give it, and turns that gave an answer which no longer holds."""

    id: str
    text: str
    category: Category
    answer: str
    evidence: tuple[str, ...]
    stale: tuple[str, ...] = ()
    after_forgetting: AfterForgetting

    def evidence_without(self, source: str) -> tuple[str, ...]:
        """The turns that answer it when a session is gone: those of the others, else what held before."""
        return tuple(turn for turn in self.evidence if place(turn)[0] != source) or self.stale


class Conversation(Value):
    """The sessions, oldest first. `forget` is the source that the demo erases."""

    title: str
    license: str
    about: str
    people: tuple[str, ...]
    timezone: str
    forget: str
    sessions: tuple[Session, ...]
    places: dict[str, str]  # where each session took place

    def turn(self, name: str) -> Utterance:
        """Raises KeyError for a turn that is not there."""
        source, sequence = place(name)
        for session in self.sessions:
            if session.source == source and 0 <= sequence < len(session.turns):
                return session.turns[sequence]
        raise KeyError(name)


def place(turn: str) -> tuple[str, int]:
    """The session and the place in it that a turn's name stands for."""
    source, _, sequence = turn.rpartition(":")
    return source, int(sequence)


@cache
def load_conversation() -> Conversation:
    told = _read("conversation.json")
    places = {session["source"]: session.pop("place") for session in told["sessions"]}
    return Conversation.model_validate({**told, "places": places})


@cache
def load_questions() -> tuple[Question, ...]:
    return tuple(Question.model_validate(question) for question in _read("questions.json")["questions"])


def _read(name: str) -> Any:
    return json.loads(files("consolidator_adapters.conversation").joinpath(name).read_text(encoding="utf-8"))


__all__ = ["AfterForgetting", "Conversation", "Question", "load_conversation", "load_questions", "place"]
