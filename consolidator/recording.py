"""Transcripts as they come about, from recall and from files: which memory was shown where."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import get_args

from pydantic import ValidationError

from consolidator.errors import InvalidInput
from consolidator.models import Hit, Value
from consolidator.transcripts import Items, Role, Segment, TokenIds, Transcript, Turn

MOST_TURNS = 100_000
MOST_LETTERS = 256
ROLES = get_args(Role)


class _Line(Value):
    """A line of a file: a turn whose text stands in `content`, or in `segments` where it shows several things."""

    role: Role
    content: str = ""
    items: Items = frozenset()
    segments: tuple[Segment, ...] = ()
    token_ids: TokenIds | None = None


def segment_of(hit: Hit) -> Segment:
    """A hit as recall hands it out, with the evidence that it quotes."""
    return Segment(text=f"{hit.line}\n", items=frozenset({hit.id} | ({hit.quote.id} if hit.quote else set())))


def marked(
    text: str, shown: Mapping[str, frozenset[str]], starts: Mapping[str, Sequence[int]] | None = None
) -> tuple[Segment, ...]:
    """A text in segments, what was handed out each by itself. shown: items by what was handed out, one line or several. starts:
    `starts_of` these, where they are known.
    """
    pieces, segments = _pieces(text, shown, starts_of(shown) if starts is None else starts), list[Segment]()
    for known, each in groupby(pieces, key=lambda piece: bool(piece[1])):
        if known:
            segments += [Segment(text=said, items=items) for said, items in each]
        else:
            segments.append(Segment(text="".join(said for said, _ in each)))
    return tuple(segments) or (Segment(text=""),)


def starts_of(shown: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Of each first line, how many lines those have that begin with it, the most first."""
    found: dict[str, tuple[int, ...]] = {}
    for told in shown:
        if lines := told.splitlines():
            first = lines[0].strip()
            found[first] = tuple(sorted({*found.get(first, ()), len(lines)}, reverse=True))
    return found


def _pieces(
    text: str, shown: Mapping[str, frozenset[str]], starts: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, frozenset[str]]]:
    """Lines in order, those together that were handed out together, with the items that they show."""
    lines, place = text.splitlines(keepends=True), 0
    while place < len(lines):
        sizes = starts.get(lines[place].strip(), ())
        joined = ("".join(lines[place : place + size]) for size in sizes)
        piece, size = next(((said, size) for said, size in zip(joined, sizes, strict=True) if said.strip() in shown), ("", 0))
        yield (piece, shown[piece.strip()]) if size else (lines[place], frozenset())
        place += size or 1


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
        self._starts: dict[str, tuple[int, ...]] | None = None

    def know(self, hits: Sequence[Hit]) -> None:
        """Recognise these where they are said. Raises InvalidInput for what is no hit of recall's."""
        self._know(_segments_of(hits))

    def _know(self, segments: Iterable[Segment]) -> None:
        self._lines |= {segment.text.strip(): segment.items for segment in segments}
        self._starts = None

    def show(self, hits: Sequence[Hit], role: Role = "system") -> None:
        """A turn that shows hits, a line each."""
        segments = _segments_of(hits)
        self._know(segments)
        if segments:
            self._add(Turn(role=role, segments=segments))

    def say(self, text: str, role: Role = "user", token_ids: Sequence[int] | None = None) -> None:
        """A turn; lines in it that recall has handed out are marked as such."""
        if not isinstance(text, str) or role not in ROLES:
            raise InvalidInput(f"what was said is a text, by one of {', '.join(ROLES)}")
        ids = None if token_ids is None else tuple(token_ids)
        try:
            turn = Turn(role=role, segments=(Segment(text=text),) if role == "assistant" else self._marked(text), token_ids=ids)
        except ValidationError as error:
            raise InvalidInput(f"this makes no turn: {_why(error)}") from None
        demand_whole_letters([turn])
        self._add(turn)

    def _marked(self, text: str) -> tuple[Segment, ...]:
        if self._starts is None:
            self._starts = starts_of(self._lines)
        return marked(text, self._lines, self._starts)

    def _add(self, turn: Turn) -> None:
        if len(self._turns) >= MOST_TURNS:
            raise InvalidInput(f"a transcript has at most {MOST_TURNS:,} turns; begin another")
        self.shown += sum(1 for segment in turn.segments if segment.items)
        self._turns.append(turn)

    def transcript(self, at: datetime, *, closed: bool) -> Transcript:
        return Transcript(id=self.id, turns=tuple(self._turns), closed=closed, at=at)


def _segments_of(hits: Iterable[Hit]) -> tuple[Segment, ...]:
    try:
        return tuple(map(segment_of, hits))
    except ValidationError as error:
        raise InvalidInput(f"this hit cannot be shown: {_why(error)}") from None


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
