"""Transcripts as they come about, from recall and from files: which memory was shown where."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import get_args

from pydantic import Field, ValidationError

from consolidator.errors import InvalidInput
from consolidator.models import Hit, Value
from consolidator.transcripts import Role, Segment, Transcript, Turn

MOST_TURNS = 100_000
MOST_LETTERS = 256
ROLES = get_args(Role)


class _Line(Value):
    """A line of a file: a turn whose text stands in `content`, or in `segments` where it shows several things."""

    role: Role
    content: str = ""
    items: frozenset[str] = frozenset()
    segments: tuple[Segment, ...] = ()
    token_ids: tuple[int, ...] | None = Field(default=None)


def segment_of(hit: Hit) -> Segment:
    """A hit as recall hands it out, with the evidence that it quotes."""
    return Segment(text=f"{hit.line}\n", items=frozenset({hit.id} | ({hit.quote.id} if hit.quote else set())))


def marked(text: str, shown: Mapping[str, frozenset[str]]) -> tuple[Segment, ...]:
    """A text in segments, what was handed out each by itself. shown: items by what was handed out, one line or several."""
    lines, segments, place = text.splitlines(keepends=True), list[Segment](), 0
    sizes = sorted({len(told.splitlines()) for told in shown}, reverse=True)
    while place < len(lines):
        pieces = (("".join(lines[place : place + size]), size) for size in sizes)
        piece, size = next(((said, size) for said, size in pieces if said.strip() in shown), (lines[place], 1))
        items, place = shown.get(piece.strip(), frozenset[str]()), place + size
        if segments and not items and not segments[-1].items:
            segments[-1] = Segment(text=segments[-1].text + piece)
        else:
            segments.append(Segment(text=piece, items=items))
    return tuple(segments) or (Segment(text=""),)


class Recording:
    """What is said in a conversation, turn by turn. `shown` counts the places where something recalled was recognised."""

    def __init__(self, id: str) -> None:
        """Raises InvalidInput for an id that no transcript can have."""
        if not isinstance(id, str) or not 0 < len(id) <= MOST_LETTERS:
            raise InvalidInput(f"a transcript's id is a text of 1 to {MOST_LETTERS} characters")
        self.id = id
        self.shown = 0
        self._turns: list[Turn] = []
        self._lines: dict[str, frozenset[str]] = {}

    def know(self, hits: Sequence[Hit]) -> None:
        """Recognise these where they are said."""
        self._lines |= {segment.text.strip(): segment.items for segment in map(segment_of, hits)}

    def show(self, hits: Sequence[Hit], role: Role = "system") -> None:
        """A turn that shows hits, a line each."""
        self.know(hits)
        if hits:
            self._add(Turn(role=role, segments=tuple(map(segment_of, hits))))

    def say(self, text: str, role: Role = "user", token_ids: Sequence[int] | None = None) -> None:
        """A turn; lines in it that recall has handed out are marked as such."""
        if not isinstance(text, str) or role not in ROLES:
            raise InvalidInput(f"what was said is a text, by one of {', '.join(ROLES)}")
        ids = None if token_ids is None else tuple(token_ids)
        turn = Turn(role=role, segments=marked(text, {} if role == "assistant" else self._lines), token_ids=ids)
        demand_whole_letters([turn])
        self._add(turn)

    def _add(self, turn: Turn) -> None:
        if len(self._turns) >= MOST_TURNS:
            raise InvalidInput(f"a transcript has at most {MOST_TURNS:,} turns; begin another")
        self.shown += sum(1 for segment in turn.segments if segment.items)
        self._turns.append(turn)

    def transcript(self, at: datetime, *, closed: bool) -> Transcript:
        return Transcript(id=self.id, turns=tuple(self._turns), closed=closed, at=at)


def demand_whole_letters(turns: Iterable[Turn]) -> None:
    """Raises InvalidInput for what no file and no database can hold."""
    for number, turn in enumerate(turns, start=1):
        try:
            turn.text.encode()
        except UnicodeEncodeError:
            told = "holds half a surrogate pair: it was not decoded rightly; decode it as UTF-8 with errors='replace'"
            raise InvalidInput(f"turn {number} {told}") from None


def read_transcript(lines: Iterable[str | bytes], *, id: str, at: datetime) -> Transcript:
    """From JSON lines: `{"role": "user", "content": "..."}`; with `"items": [ids]` for a turn that shows memories, or
    `"segments": [{"text": "...", "items": [ids]}]` for one of which parts do. Raises InvalidInput, naming the line.
    """
    turns = []
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            line = _Line.model_validate(json.loads(raw))
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"line {number} is no turn of a transcript: {_why(error)}") from None
        segments = line.segments or (Segment(text=line.content, items=line.items),)
        turns.append(Turn(role=line.role, segments=segments, token_ids=line.token_ids))
        if len(turns) > MOST_TURNS:
            raise InvalidInput(f"a transcript has at most {MOST_TURNS:,} turns")
    demand_whole_letters(turns)
    try:
        return Transcript(id=id, turns=tuple(turns), at=at)
    except ValidationError as error:
        raise InvalidInput(f"this makes no transcript: {_why(error)}") from None


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg'].lower()}"
    return "it is no JSON"
