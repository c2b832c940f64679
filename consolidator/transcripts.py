"""Conversations with memories in them, and what scoring them gives: which answer gets less likely without which memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, WrapValidator

from consolidator.models import Time, Value

Role = Literal["system", "user", "assistant", "tool"]
Status = Literal["scored", "not_applicable", "failed"]
MOST_TOKENS = 1_000_000  # of a turn
Items = frozenset[Annotated[str, Field(max_length=128)]]  # a bound also refuses half a surrogate pair
TokenIds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(max_length=MOST_TOKENS)]


def _as_it_is(value: object, validate: Callable[[object], frozenset[str]]) -> frozenset[str]:
    """One set stays one, however many values have it."""
    return value if type(value) is frozenset else validate(value)


class _Reckoning(Value):
    """Keeps what was once reckoned from its fields."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Nothing that was reckoned goes along: the copy may have other fields."""
        copied = super().model_copy(update=update, deep=deep)
        values = vars(copied)
        for reckoned in values.keys() - type(self).model_fields.keys():
            del values[reckoned]
        return copied


class Segment(Value):
    """A piece of a turn. items: ids of the memories and observations that it shows, each at most 128 characters."""

    text: str = Field(repr=False)
    items: Items = frozenset()


class Turn(_Reckoning):
    """One entry of a conversation; a turn of role `assistant` is a response. token_ids: of a response, as the model made them."""

    role: Role
    segments: tuple[Segment, ...] = Field(min_length=1)
    token_ids: TokenIds | None = Field(default=None, repr=False)

    @cached_property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments)

    @cached_property
    def items(self) -> frozenset[str]:
        return frozenset().union(*(segment.items for segment in self.segments))


class Transcript(_Reckoning):
    """closed: nothing will be added to it. at: when it was last added to."""

    id: str = Field(min_length=1, max_length=256)
    turns: tuple[Turn, ...]
    closed: bool = True
    at: Time

    @cached_property
    def responses(self) -> tuple[int, ...]:
        """Where its responses stand among the turns."""
        return tuple(n for n, turn in enumerate(self.turns) if turn.role == "assistant")

    @cached_property
    def items(self) -> tuple[str, ...]:
        """What it shows, each once, in order of appearance; ties by id."""
        return tuple(dict.fromkeys(item for turn in self.turns for s in turn.segments for item in sorted(s.items)))

    @cached_property
    def showings(self) -> Mapping[str, tuple[int, ...]]:
        """Of each item, the places of the turns that show it."""
        found: dict[str, list[int]] = {}
        for place, turn in enumerate(self.turns):
            for item in turn.items:
                found.setdefault(item, []).append(place)
        return {item: tuple(places) for item, places in found.items()}

    def response_id(self, turn: int) -> str:
        """The same whenever the transcript is read again, also after more was added to it."""
        return f"{self.id}/{turn}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A response and the context that it was given in; one that is scored with and without a group is two targets.

    response_ids: the tokens, where they are known, so that nobody splits the text in another way.
    """

    context: tuple[Turn, ...] = field(repr=False)
    response: str = field(repr=False)
    response_ids: tuple[int, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The log-probability of a response, in nats, and its number of tokens.

    ids, logprobs: of each token, where the provider has them. estimated: the number of tokens was reckoned from bytes.
    """

    total: float
    tokens: int
    ids: tuple[int, ...] | None = field(default=None, repr=False)
    logprobs: tuple[float, ...] | None = field(default=None, repr=False)
    prompt_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringAbility:
    """What a provider that has passed its own check can do.

    unit: names what its numbers are; those of another unit are never put together with them. max_context_tokens: of context
    and response together. max_batch: targets in one call. needs_model: costs calls, so that it is only done when asked for.
    """

    unit: str
    max_context_tokens: int
    max_batch: int = 16
    needs_model: bool = True


class Group(Value):
    """Items that are left out together: an observation and its evidence, and whoever says the very same."""

    items: tuple[str, ...] = Field(min_length=1)  # the first one names it

    @property
    def id(self) -> str:
        return self.items[0]


class Cell(Value):
    """What a response lost with a group: signed nats per token, or nothing, with the reason. how `bucket`: its share of what
    several groups together were worth, which weighs as much less.
    """

    value: float | None = None
    tokens: int = 0
    status: Status
    how: Literal["exact", "bucket"] = "exact"
    share: float = 1.0
    reason: str = ""


class Matrix(Value):
    """Groups by responses. cells[g][r] is that of groups[g] and responses[r]. prompts_sent and tokens_sent count what it cost."""

    unit: str
    groups: tuple[Group, ...]
    responses: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    prompts_sent: int = 0
    tokens_sent: int = 0

    def weight(self, group: int) -> float | None:
        """Mean nats per token over the known cells, each weighed by its tokens; None where nothing is known."""
        known = [(c.value, c.tokens) for c in self.cells[group] if c.value is not None]
        tokens = sum(count for _, count in known)
        return sum(value * count for value, count in known) / tokens if tokens else None

    def row(self, group: int) -> float | None:
        """What all responses together lost with the group, in nats per token, signed: its importance. None: nothing is known."""
        return _sum(self.cells[group])

    def column(self, response: int) -> float | None:
        """What a response lost with all groups together, in nats per token, signed: how much it depends on memory. None: nothing
        is known.
        """
        return _sum(row[response] for row in self.cells)

    def row_incomplete(self, group: int) -> bool:
        """Some cell of the row failed: its sum lacks it."""
        return any(cell.status == "failed" for cell in self.cells[group])

    def column_incomplete(self, response: int) -> bool:
        """Some cell of the column failed: its sum lacks it."""
        return any(row[response].status == "failed" for row in self.cells)

    @property
    def incomplete(self) -> bool:
        """Some cell that could have a value failed: sums lack it."""
        return any(map(self.row_incomplete, range(len(self.cells))))

    def important_for(self, response: str, above: float = 0.01) -> list[tuple[Group, float]]:
        """The groups that a response leant on, the most important first, ties by id; none for a response that is not here."""
        if response not in self.responses:
            return []
        column = self.responses.index(response)
        found = [(g, row[column].value) for g, row in zip(self.groups, self.cells, strict=True)]
        leant = [(g, value) for g, value in found if value is not None and value > above]
        return sorted(leant, key=lambda pair: (-pair[1], pair[0].id))

    def known(self) -> Iterator[tuple[Group, str, Cell]]:
        """The cells that have a value."""
        for group, row in zip(self.groups, self.cells, strict=True):
            for response, cell in zip(self.responses, row, strict=True):
                if cell.value is not None:
                    yield group, response, cell


def _sum(cells: Iterable[Cell]) -> float | None:
    known = [cell.value for cell in cells if cell.value is not None]
    return sum(known) if known else None


def key_of(unit: str, response: str, items: Iterable[str]) -> str:
    return "\n".join([unit, response, *sorted(items)])


class Score(Value):
    """A cell as it is kept. items: its group. context: every item that was shown to whoever measured it."""

    model_config = ConfigDict(allow_inf_nan=False)

    unit: str
    response: str
    items: tuple[str, ...]
    context: Annotated[frozenset[str], WrapValidator(_as_it_is)]
    value: float
    tokens: int
    how: Literal["exact", "bucket"] = "exact"
    share: float = Field(default=1.0, gt=0, le=1)  # of its weight, where it was measured with others
    counts: bool = True  # whether it moves the mean of its items
    at: Time

    @property
    def key(self) -> str:
        """The same group, response and unit are the same measurement, however often it is made."""
        return key_of(self.unit, self.response, self.items)


class Importance(Value):
    """What was measured of an item in a unit. mean: nats per token, signed, newer measurements weigh more. n: how many
    measurements it is worth, as of `last_scored`. tokens: scored in all. maximum: of all values.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    item: str
    unit: str
    mean: float
    n: float
    tokens: int
    maximum: float
    last_scored: Time
    updates: int
