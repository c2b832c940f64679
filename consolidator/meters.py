"""What measures: a model by what it was sent, or the words alone. Each is made for one transcript."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Literal, Protocol

from pydantic import Field

from consolidator.divergence import (
    HEAD,
    LEAST_TOKENS,
    bucket_cells,
    buckets,
    cell_of,
    failed,
    opened,
    responses_of,
    together,
)
from consolidator.errors import ContextTooLong, ScoringError, ScoringMisaligned, ScoringRejected, ScoringUnavailable
from consolidator.lexical import LEXICAL_UNIT, Background, Exchange, Showing, Words, cells_of
from consolidator.models import Value
from consolidator.ports import LogprobModel
from consolidator.targets import THOUGHT, WINDOW, Context, not_applicable, plan_contexts, target
from consolidator.transcripts import Cell, Group, Scored, ScoringAbility, Target, Transcript, Turn

Mark = Annotated[str, Field(min_length=1)]
Row = tuple[Group, dict[int, Cell]]  # by the place of the response
AT_ONCE = 20_000  # pairs
OVER_BUDGET = Cell(status="failed", reason="over_budget")


class ScoringPolicy(Value):
    """window: responses after a showing that may lean on it. head: of these, the first, which always move a mean. max_age:
    seconds after which an item is due again. exact: groups up to which each is left out by itself; above, buckets are, of which
    `keep` are opened; above `most` they have to be asked for. prompts, tokens: budget of one run of a model. chunk_tokens: of a
    context. thought: whether what a response thought is scored with it.
    """

    window: int = Field(default=WINDOW, ge=1, le=10_000)
    head: int = Field(default=HEAD, ge=1)
    max_age: float = Field(default=3600.0, ge=0)
    exact: int = Field(default=12, ge=1)
    keep: int = Field(default=2, ge=1)
    most: int = Field(default=100, ge=1)
    prompts: int = Field(default=1_000, ge=2)
    tokens: int = Field(default=2_000_000, ge=1)
    chunk_tokens: int = Field(default=50_000, ge=16)
    thought: Literal["drop", "score"] = "drop"
    thought_marks: tuple[Mark, Mark] = THOUGHT


class Meter(Protocol):
    """Measures what a group was worth to a response. prompts, tokens: what that has cost so far."""

    unit: str
    prompts: int
    tokens: int

    def shown(self, response: int) -> frozenset[str]:
        """The items in the context that a response is measured in."""
        ...

    async def cells(self, asked: Sequence[tuple[int, Group]]) -> list[Cell]:
        """Of each response, by its place, and group; in the order asked."""
        ...


@dataclass(slots=True, kw_only=True)
class LexicalMeter:
    """By the words of question and response. texts: of each item, with date and speaker. Each is read once."""

    transcript: Transcript
    texts: Mapping[str, str]
    background: Background
    unit: str = LEXICAL_UNIT
    prompts: int = 0
    tokens: int = 0
    _read: int = 0  # turns
    _asked: Turn | None = None  # the question before those
    _showing: Showing = field(init=False)
    _places: list[int] = field(init=False)
    _words: dict[str, Words] = field(default_factory=dict)
    _first: dict[str, int] = field(init=False)  # where each was first shown, in that order
    _exchanges: dict[int, Exchange] = field(default_factory=dict)
    _sets: dict[int, frozenset[str]] = field(default_factory=dict)  # by how many were shown

    def __post_init__(self) -> None:
        self._showing = Showing(self.background)
        known = (item for item in self.transcript.items if item in self.texts)
        self._first = {item: self.transcript.showings[item][0] for item in known}
        self._places = list(self._first.values())

    def shown(self, response: int) -> frozenset[str]:
        number = bisect_left(self._places, response)
        if number not in self._sets:
            self._sets[number] = frozenset(islice(self._first, number))
        return self._sets[number]

    async def cells(self, asked: Sequence[tuple[int, Group]]) -> list[Cell]:
        by_response: dict[int, list[int]] = {}
        for number, (response, _) in enumerate(asked):
            by_response.setdefault(response, []).append(number)
        found: dict[int, Cell] = {}
        for response, numbers in by_response.items():
            exchange = await self._exchange(response)
            parts = ([*self._left_out(asked[number][1], response)] for number in numbers)
            found |= zip(numbers, cells_of(exchange, parts), strict=True)
            await asyncio.sleep(0)  # others go on meanwhile
        return [found[number] for number in range(len(asked))]

    def _left_out(self, group: Group, response: int) -> Iterator[Words]:
        for item in group.items:
            if self._first.get(item, response) < response:
                yield self._words[item]

    async def _exchange(self, response: int) -> Exchange:
        """Made of what was shown before it, which is read on from where the last one ended."""
        while response not in self._exchanges:
            place, turn = self._read, self.transcript.turns[self._read]
            for item in turn.items - self._words.keys():
                if item in self._first:
                    self._words[item] = Words.of(self.texts[item])
                    await asyncio.sleep(0)
            if place == self._read:  # nobody else has read it meanwhile
                self._read_on(place, turn)
        return self._exchanges[response]

    def _read_on(self, place: int, turn: Turn) -> None:
        if turn.role == "assistant":
            asked = self._asked.segments if self._asked else ()
            query = "".join(segment.text for segment in asked if not segment.items)
            self._exchanges[place] = self._showing.exchange(query, turn.text)
        for item in turn.items:
            if self._first.get(item) == place:
                self._showing.show(self._words[item])
        self._asked = turn if turn.role == "user" else self._asked
        self._read += 1


def shown_of(group: Group, meter: Meter, place: int) -> tuple[str, ...]:
    """The items of a group that were in the context of a response, in the group's order: what its cell is about."""
    shown = meter.shown(place)
    return tuple(item for item in group.items if item in shown)


@dataclass(slots=True, kw_only=True)
class ModelMeter:
    """By a model's log-probabilities. Equal prompts are sent once, whatever asks for them. rehearsing: nothing is sent, only
    counted, and every value is 0. doubted: is told when the model has to prove itself again.
    """

    model: LogprobModel
    ability: ScoringAbility
    policy: ScoringPolicy
    transcript: Transcript
    doubted: Callable[[], None]
    rehearsing: bool = False
    prompts: int = 0
    tokens: int = 0
    unit: str = ""
    _contexts: dict[int, Context | ContextTooLong] = field(default_factory=dict)
    _known: dict[Target, Scored | ScoringError] = field(default_factory=dict)
    _shown: dict[int, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.unit = self.ability.unit

    def shown(self, response: int) -> frozenset[str]:
        context = self._contexts.get(response)
        if not isinstance(context, Context):
            return frozenset()
        if response not in self._shown:
            items = (self.transcript.turns[place].items for place in context.turns)
            self._shown[response] = frozenset[str]().union(*items)
        return self._shown[response]

    async def cells(self, asked: Sequence[tuple[int, Group]]) -> list[Cell]:
        if asked and not self._contexts:
            await self._plan()
        wanted: dict[Target, int] = {}
        pairs = [self._pair(response, group, wanted) for response, group in asked]
        await self._send(wanted)
        told = [pair if isinstance(pair, Cell) else cell_of(*map(self._known.__getitem__, pair)) for pair in pairs]
        for passing in [each for each in wanted if isinstance(self._known[each], ScoringUnavailable)]:
            del self._known[passing]  # whoever needs it next asks again
        return told

    async def _plan(self) -> None:
        budget = min(self.policy.chunk_tokens, self.ability.max_context_tokens)
        try:
            counts = await self.model.count_tokens(self.transcript.turns)
        except ScoringError as error:
            self._doubt(error)
            raise
        self._contexts = plan_contexts(self.transcript, counts, budget=budget, window=self.policy.window)

    def _pair(self, response: int, group: Group, wanted: dict[Target, int]) -> Cell | tuple[Target, Target]:
        """With and without; what is not known of them is noted in `wanted`, with its tokens. A cell where nothing is sent."""
        context = self._contexts[response]
        if isinstance(context, ContextTooLong):
            return failed(context)
        if cell := not_applicable(self.transcript, response, context, group, marks=self.policy.thought_marks):
            return cell
        pair = self._target(response, context), self._target(response, context, group.items)
        if isinstance(lost := self._known.get(pair[0]), ScoringError):
            return failed(lost)
        new = [each for each in pair if each not in self._known and each not in wanted]
        costs = sum(wanted.values()) + context.tokens * len(new)
        if self.prompts + len(wanted) + len(new) > self.policy.prompts or self.tokens + costs > self.policy.tokens:
            return OVER_BUDGET
        wanted |= dict.fromkeys(new, context.tokens)
        return pair

    def _target(self, response: int, context: Context, left_out: Collection[str] = ()) -> Target:
        marks, thought = self.policy.thought_marks, self.policy.thought
        return target(self.transcript, response, context, left_out, marks=marks, thought=thought)

    async def _send(self, wanted: Mapping[Target, int]) -> None:
        targets = list(wanted)
        for start in range(0, len(targets), self.ability.max_batch):
            part = targets[start : start + self.ability.max_batch]
            told = await self._told(part)
            self._known |= dict(zip(part, told, strict=True))
            self.prompts += len(part)
            self.tokens += sum(wanted[each] for each in part)

    async def _told(self, part: Sequence[Target]) -> Sequence[Scored | ScoringError]:
        if self.rehearsing:
            return [Scored(total=-1.0, tokens=LEAST_TOKENS)] * len(part)
        try:
            told = await self.model.score(part)
        except ScoringError as error:
            self._doubt(error)
            return [error] * len(part)
        if any(isinstance(one, ScoringUnavailable) for one in told):
            self.doubted()
        return told if len(told) == len(part) else [ScoringMisaligned(f"{len(told)} numbers for {len(part)}")] * len(part)

    def _doubt(self, error: ScoringError) -> None:
        """Not for what one text is to blame for."""
        if not isinstance(error, ScoringRejected | ContextTooLong):
            self.doubted()


async def every_pair(meter: Meter, transcript: Transcript, groups: Sequence[Group]) -> list[Row]:
    """Each group with each response."""
    places, rows = transcript.responses, list[Row]()
    most = max(AT_ONCE // max(len(places), 1), 1)
    for start in range(0, len(groups), most):
        part = groups[start : start + most]
        cells = iter(await meter.cells([(place, group) for group in part for place in places]))
        rows += [(group, {place: next(cells) for place in places}) for group in part]
    return rows


async def in_windows(
    meter: Meter, transcript: Transcript, group: Group, *, window: int, but: Collection[str] = ()
) -> dict[int, Cell]:
    """A group with the responses of its windows. but: the ids of those that are left aside."""
    every = responses_of(transcript, group, window=window)
    places = [place for place in every if transcript.response_id(place) not in but]
    return dict(zip(places, await meter.cells([(place, group) for place in places]), strict=True))


async def in_two_levels(meter: Meter, transcript: Transcript, groups: Sequence[Group], *, keep: int) -> list[Row]:
    """Whole buckets first, then the groups of the best; the others share what a bucket was worth, where that was nothing. Few
    groups are measured each by itself: that costs less.
    """
    dealt = buckets(groups, keep)
    if not dealt or len(dealt) + keep * len(dealt[0]) >= len(groups):
        return await every_pair(meter, transcript, groups)
    wholes = await every_pair(meter, transcript, [together(bucket) for bucket in dealt])
    best = opened([_weight(row.values()) for _, row in wholes], keep)
    rows = dict(await every_pair(meter, transcript, [group for place in best for group in dealt[place]]))
    shown = {place: meter.shown(place) for place in transcript.responses}
    for number, (bucket, (_, whole)) in enumerate(zip(dealt, wholes, strict=True)):
        if number not in best:
            told = {
                place: bucket_cells(whole[place], [bool(shown[place] & {*group.items}) for group in bucket])
                for place in transcript.responses
            }
            rows |= {group: {place: cells[at] for place, cells in told.items()} for at, group in enumerate(bucket)}
    return [(group, rows[group]) for group in groups]


def _weight(cells: Iterable[Cell]) -> float | None:
    known = [(cell.value, cell.tokens) for cell in cells if cell.value is not None]
    return sum(v * n for v, n in known) / total if (total := sum(n for _, n in known)) else None
