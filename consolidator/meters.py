"""What measures: a model by what it was sent, or the words alone. Each is made for one transcript."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

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
from consolidator.lexical import LEXICAL_UNIT, Background, cells
from consolidator.models import Value
from consolidator.ports import LogprobModel
from consolidator.targets import THOUGHT, WINDOW, Context, not_applicable, plan_contexts, target
from consolidator.transcripts import Cell, Group, Scored, ScoringAbility, Target, Transcript

Row = tuple[Group, dict[int, Cell]]  # by the place of the response
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
    thought_marks: tuple[str, str] = THOUGHT


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
    """By the words of question and response. texts: of each item, with date and speaker."""

    transcript: Transcript
    texts: Mapping[str, str]
    background: Background
    unit: str = LEXICAL_UNIT
    prompts: int = 0
    tokens: int = 0

    def shown(self, response: int) -> frozenset[str]:
        return frozenset[str]().union(*(turn.items for turn in self.transcript.turns[:response])) & self.texts.keys()

    async def cells(self, asked: Sequence[tuple[int, Group]]) -> list[Cell]:
        by_response: dict[int, list[Group]] = {}
        for response, group in asked:
            by_response.setdefault(response, []).append(group)
        found = {
            (response, group): cell
            for response, groups in by_response.items()
            for group, cell in zip(groups, self._of(response, groups), strict=True)
        }
        return [found[pair] for pair in asked]

    def _of(self, response: int, groups: Sequence[Group]) -> list[Cell]:
        before, shown = self.transcript.turns[:response], {item: self.texts[item] for item in sorted(self.shown(response))}
        asked = next((turn for turn in reversed(before) if turn.role == "user"), None)
        query = "".join(segment.text for segment in asked.segments if not segment.items) if asked else ""
        return cells(query, self.transcript.turns[response].text, shown, groups, self.background)


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

    def __post_init__(self) -> None:
        self.unit = self.ability.unit

    def shown(self, response: int) -> frozenset[str]:
        context = self._contexts.get(response)
        places = context.turns if isinstance(context, Context) else ()
        return frozenset[str]().union(*(self.transcript.turns[place].items for place in places))

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
    places = transcript.responses
    cells = iter(await meter.cells([(place, group) for group in groups for place in places]))
    return [(group, {place: next(cells) for place in places}) for group in groups]


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
