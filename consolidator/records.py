"""What is told in whole: conversations, sessions of agents, episodes. And how their memories are marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from consolidator.models import Memory, Tags, Time, Value

TURN_PACE = timedelta(seconds=20)  # where a transcript dates only its sessions

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
MarkRole = Literal["episode", "mistake", "success", "card", "session", "quote"]
MARK = "lesson"  # the key of a memory's metadata under which its mark stands


class Utterance(Value):
    speaker: str
    text: str


class Session(Value):
    source: str
    start: Time
    turns: tuple[Utterance, ...]

    def items(self) -> Iterator[dict[str, object]]:
        """The turns as `retain` takes them."""
        for sequence, turn in enumerate(self.turns):
            when = self.start + sequence * TURN_PACE
            yield {"text": turn.text, "speaker": turn.speaker, "sequence": sequence, "occurred_at": when}


# sessions of agents


class ToolCall(Value):
    """arguments: as they stand in the file, JSON or not."""

    name: str
    arguments: str = ""


class Step(Value):
    """One message of a session. line: of the file, from 1; several steps can stand on one. failed: of a tool's result; None where
    nothing says how it ended.
    """

    line: int
    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    tool: str | None = None  # whose result it is
    failed: bool | None = None
    at: Time | None = None


Form = Literal["openai", "claude-code", "codex", "text"]


class SessionLog(Value):
    """An agent's session, as it was read from a file. id: the source of all that is harvested from it.

    projects: repositories or folders that it names, the most named first. bad: lines that could not be read.
    """

    id: str = Field(min_length=1, max_length=512)
    form: Form = "openai"
    steps: tuple[Step, ...]
    projects: tuple[str, ...] = ()
    agent: str | None = None
    at: Time | None = None  # its last moment, where the file or its name tells
    bad: int = 0


# episodes


class Card(Value):
    """A mistake with its shape. lesson None: the reporter drew none."""

    mistake_type: str = Field(default="unknown_mistake", min_length=1, max_length=200)
    worker_id: str = Field(default="", max_length=200)
    bad_decision: str = Field(default="", max_length=500)
    correct_decision: str = Field(default="", max_length=500)
    evidence: str = Field(default="", max_length=1_000)
    lesson: str | None = Field(default=None, max_length=1_000)


class Outcome(Value):
    """A mistake or a success in words. everywhere: it holds for every task."""

    text: str = Field(min_length=1, max_length=500)
    everywhere: bool = False


class Episode(Value):
    """One attempt at a task."""

    id: str = Field(min_length=1, max_length=200)
    task: str = Field(default="unknown", min_length=1, max_length=200)
    score: Share
    steps: int = Field(default=0, ge=0, lt=2**31)
    summary: str = Field(default="", max_length=3_000)
    mistakes: tuple[Outcome, ...] = Field(default=(), max_length=20)
    successes: tuple[Outcome, ...] = Field(default=(), max_length=20)
    cards: tuple[Card, ...] = Field(default=(), max_length=20)
    occurred_at: Time | None = None
    tags: Tags = frozenset()

    @property
    def source(self) -> str:
        return f"episode/{self.id}"


# the marks of their memories


class Mark(Value):
    """What a memory is within an episode or a session. about: the task of the one, the project of the other."""

    role: MarkRole
    about: str = ""
    data: dict[str, Any] = Field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        return {MARK: {"role": self.role, "about": self.about, **self.data}}


LESSON, KNOWLEDGE = "lesson", "knowledge"  # tags that open the scopes of what was learnt from episodes, and from sessions


def task_scope(task: str) -> Tags:
    return frozenset({LESSON, f"task:{task}"})


def project_scope(project: str | None) -> Tags:
    """None: what holds everywhere."""
    return frozenset({KNOWLEDGE, f"project:{project}"}) if project else frozenset({KNOWLEDGE})


class SessionRecord(Value):
    """One harvested stretch of a session: the `data` of a mark with role "session". Digests are the bank's keyed ones.

    first, last: its steps, from 0, without the last. digest: of all steps before `last`, by which a grown session is told from a
    rewritten one. errors: of normalised error lines. briefed, used: observations that a briefing in it showed, and that the
    agent then made use of. outcome: as it stood at `last`.
    """

    session: str
    project: str = ""
    agent: str | None = None
    first: int
    last: int
    digest: str
    outcome: Literal["success", "failure", "partial", "unknown"] = "unknown"
    at: Time | None = None
    calls: int = 0
    failed: int = 0  # calls of tools that failed
    tokens: int = 0
    errors: tuple[str, ...] = ()
    briefed: tuple[str, ...] = ()
    used: tuple[str, ...] = ()


ROLES: tuple[str, ...] = get_args(MarkRole)


def mark_of(metadata: Mapping[str, Any]) -> Mark | None:
    """None: an ordinary memory; also where somebody else has used the key for something of his own."""
    told = metadata.get(MARK)
    if not isinstance(told, Mapping) or told.get("role") not in ROLES or not isinstance(about := told.get("about", ""), str):
        return None
    return Mark(role=told["role"], about=about, data={k: v for k, v in told.items() if k not in ("role", "about")})


REPORTS: tuple[str, ...] = ("episode", "mistake", "success", "card", "session")  # what no model has to read to digest it


def reported(memory: Memory) -> bool:
    mark = marked(memory)
    return mark is not None and mark.role in REPORTS


def quoted(memory: Memory) -> bool:
    """It is a step of a session, on which knowledge rests."""
    mark = marked(memory)
    return mark is not None and mark.role == "quote"


def marked(memory: Memory) -> Mark | None:
    return mark_of(memory.metadata)
