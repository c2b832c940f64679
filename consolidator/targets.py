"""What is sent to be scored: a response in the context that it was given in, with or without some items. Pure.

Places are positions in `Transcript.turns`. Contexts are planned once, on the full transcript: their borders never move with what
is left out.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from consolidator.errors import ContextTooLong, ScoringMisaligned, ScoringRejected
from consolidator.transcripts import Cell, Group, Segment, Target, Transcript, Turn

WINDOW = 50  # responses after a showing that may lean on it
CARRIED = 4  # a quarter of the budget is for showings from before the newest turns
THOUGHT = ("<think>", "</think>")
SPACE = re.compile(r"\s*")

Marks = tuple[str, str]


# contexts


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The places of the turns that a response is scored after, in order.

    tokens: theirs and the response's, by the counts that were given. truncated: something was said before that is not in it.
    """

    turns: tuple[int, ...]
    tokens: int
    truncated: bool = False


def plan_contexts(
    transcript: Transcript, counts: Sequence[int], *, budget: int, window: int = WINDOW
) -> dict[int, Context | ContextTooLong]:
    """The context of each response, by its place: the leading system turns, and the newest turns that fit.

    counts: tokens of each turn. Of what does not fit, turns that show items whose window is open are carried along, the newest
    first, in at most a quarter of the budget. A response too long to stand with the turn before it has the error for a context.
    Raises ScoringRejected when the leading system turns alone pass the budget; ScoringMisaligned when counts and turns differ.
    """
    if len(counts) != len(transcript.turns):
        raise ScoringMisaligned(f"{len(counts)} counts of tokens for {len(transcript.turns)} turns")
    first = next((place for place, turn in enumerate(transcript.turns) if turn.role != "system"), len(transcript.turns))
    if (head := sum(counts[:first])) > budget:
        raise ScoringRejected(f"the leading system turns have {head} tokens, and a context may have {budget}")
    closing = _closing(transcript, window)
    return {place: _context(place, first, counts, budget, closing) for place in transcript.responses}


def _closing(transcript: Transcript, window: int) -> dict[int, int]:
    """Of each turn that shows something, the place of the last response in its window."""
    responses = transcript.responses
    after = {place: bisect_right(responses, place) for place, turn in enumerate(transcript.turns) if turn.items}
    return {place: ([*responses[start : start + window]] or [place])[-1] for place, start in after.items()}


def _context(
    response: int, first: int, counts: Sequence[int], budget: int, closing: Mapping[int, int]
) -> Context | ContextTooLong:
    head = sum(counts[:first])
    room = budget - head - counts[response]
    question = counts[response - 1] if response > first else 0
    if question > room:
        needed = head + question + counts[response]
        return ContextTooLong(f"the response with its question has {needed} tokens, and a context may have {budget}")
    kept = _kept(response, first, counts, room, min(budget // CARRIED, room - question), closing)
    used = head + counts[response] + sum(counts[place] for place in kept)
    return Context(turns=(*range(first), *kept), tokens=used, truncated=len(kept) < response - first)


def _kept(
    response: int, first: int, counts: Sequence[int], room: int, reserve: int, closing: Mapping[int, int]
) -> list[int]:
    """The newest turns, then showings in what was reserved for them, then more turns in what is left."""
    start = _reach(first, response, counts, room - reserve, frozenset())
    carried, left = set(), reserve
    for place in reversed(range(first, start)):
        if closing.get(place, -1) >= response and counts[place] <= left:
            carried.add(place)
            left -= counts[place]
    used = sum(counts[place] for place in (*range(start, response), *carried))
    start = _reach(first, start, counts, room - used, carried)
    return [*sorted(place for place in carried if place < start), *range(start, response)]


def _reach(first: int, end: int, counts: Sequence[int], room: int, paid: Collection[int]) -> int:
    """How far back whole turns fit, one after another."""
    while end > first and (end - 1 in paid or counts[end - 1] <= room):
        end -= 1
        room -= 0 if end in paid else counts[end]
    return end


# targets


def leave_out(turns: Iterable[Turn], items: Collection[str]) -> tuple[Turn, ...]:
    """The turns without every segment that shows one of the items, also beside others: its text tells them all.

    A turn that has no segment left is gone; one that lost a segment is no longer the tokens it was; all others stay as they are.
    """
    return tuple(_with(turn, kept) for turn in turns if (kept := _without(turn, frozenset(items))))


def _without(turn: Turn, items: frozenset[str]) -> tuple[Segment, ...]:
    return tuple(segment for segment in turn.segments if not segment.items & items)


def _with(turn: Turn, segments: tuple[Segment, ...]) -> Turn:
    return turn if segments == turn.segments else Turn(role=turn.role, segments=segments)


def target(
    transcript: Transcript, response: int, context: Context, left_out: Collection[str] = frozenset(), *,
    marks: Marks = THOUGHT, thought: Literal["drop", "score"] = "drop",
) -> Target:
    """A response in its context, without some items. Equal prompts are equal targets: each needs to be sent once.

    Thoughts never stay in the context: one that quotes a memory hides it. `score`: the response's own is scored with it.
    """
    turns = (without_thoughts(transcript.turns[place], marks) for place in context.turns)
    said = transcript.turns[response]
    text = said.text if thought == "score" else split_thought(said.text, marks)[1]
    ids = said.token_ids if text == said.text else None
    return Target(context=leave_out((t for t in turns if t), left_out), response=text, response_ids=ids)


def split_thought(text: str, marks: Marks = THOUGHT) -> tuple[str, str]:
    """What a response thought, and what it said. A thought may have been opened by the template, or never have been ended."""
    if not any(mark in text for mark in marks):
        return "", text
    said = _outside(text, marks)
    borders = [0, *(border for span in said for border in span), len(text)]
    thought = "".join(text[start:end] for start, end in zip(borders[::2], borders[1::2], strict=True))
    for mark in marks:
        thought = thought.replace(mark, "")
    return thought.strip(), "".join(text[start:end] for start, end in said)


def without_thoughts(turn: Turn, marks: Marks = THOUGHT) -> Turn | None:
    """A response without its thoughts, None if it was nothing else; any other turn as it is: what it quotes opens nothing."""
    text = turn.text
    if turn.role != "assistant" or not any(mark in text for mark in marks):
        return turn
    said, segments, place = _outside(text, marks), [], 0
    for segment in turn.segments:
        left = "".join(segment.text[max(start - place, 0) : max(end - place, 0)] for start, end in said)
        segments += [Segment(text=left, items=segment.items)] if left else []
        place += len(segment.text)
    return _with(turn, tuple(segments)) if segments else None


def says_something(turn: Turn, marks: Marks = THOUGHT) -> bool:
    """Whether anything visible is left of it."""
    return bool(split_thought(turn.text, marks)[1].strip())


def _outside(text: str, marks: Marks) -> list[tuple[int, int]]:
    """The stretches of a text that are no thought."""
    borders = [0, *(border for span in _thoughts(text, marks) for border in span), len(text)]
    return list(zip(borders[::2], borders[1::2], strict=True))


def _thoughts(text: str, marks: Marks) -> Iterator[tuple[int, int]]:
    """Each with its marks and the space after it. A first one may have been opened before the text, or, where a text begins with
    one, never be ended; further on, a mark that nothing ends is a word like others.
    """
    opening, closing = marks
    start, end = text.find(opening), text.find(closing)
    if end >= 0 and not 0 <= start < end:
        yield 0, (place := _after(text, end + len(closing)))
        start = text.find(opening, place)
    elif start >= 0 and not text[:start].strip() and text.find(closing, start + len(opening)) < 0:
        yield 0, len(text)
        return
    while start >= 0 and (end := text.find(closing, start + len(opening))) >= 0:
        yield start, (place := _after(text, end + len(closing)))
        start = text.find(opening, place)


def _after(text: str, place: int) -> int:
    """Where the space ends that begins here."""
    return cast("re.Match[str]", SPACE.match(text, place)).end()


def not_applicable(
    transcript: Transcript, response: int, context: Context, group: Group, *, marks: Marks = THOUGHT
) -> Cell | None:
    """The cell of a response that cannot have leant on the group, with the reason: it says nothing, or was not shown it.

    None: it has to be measured.
    """
    if not says_something(transcript.turns[response], marks):
        return Cell(status="not_applicable", reason="empty_response")
    shown = frozenset().union(*(transcript.turns[place].items for place in context.turns))
    return None if shown & frozenset(group.items) else Cell(status="not_applicable", reason="not_in_context")
