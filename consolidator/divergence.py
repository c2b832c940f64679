"""What a response loses when a group of items is left out: groups, windows, cells, and what is due to be scored. Pure.

    d(g, r) = (log p(r | context) - log p(r | context without g)) / tokens(r)        nats per token, signed

Places are positions in `Transcript.turns`. What is unknown is told as such, and is never 0.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from consolidator.errors import (
    ContextTooLong,
    ScoringError,
    ScoringMisaligned,
    ScoringRejected,
    ScoringUnavailable,
    ScoringUnsupported,
)
from consolidator.models import Value
from consolidator.targets import WINDOW, says_something
from consolidator.transcripts import Cell, Group, Scored, Transcript
from consolidator.words import plain

HEAD = 5  # responses of a window, the first: later ones may have the fact from an earlier answer
MOST_ITEMS = 8  # of a group; a larger one is cut
LEAST_TOKENS = 3
NULL = 0.05  # nats per token: noise
MOST = 1e-6  # a log-probability is no higher, but for rounding
LEAST = -9000.0  # some servers write minus infinity as -9999
MAX_AGE = timedelta(hours=1)
NEVER = datetime.min.replace(tzinfo=UTC)

Skip = Literal["not_due", "window_not_full", "no_response", "unsupported", "over_budget"]
REASONS: tuple[tuple[type[ScoringError], str], ...] = (
    (ScoringUnsupported, "unsupported"), (ScoringMisaligned, "misaligned"), (ScoringRejected, "rejected"),
    (ContextTooLong, "context_too_long"), (ScoringUnavailable, "unavailable"), (ScoringError, "failed"),
)


# the primitive


def divergence(base: Scored, without: Scored) -> float:
    """How much less likely a response got, in nats per token; negative: it got likelier.

    Signed sums, never cut at 0, neither by token nor by response: noise must cancel. Raises ScoringMisaligned when the two were
    not measured on the same tokens, or one of them holds what no log-probability can be.
    """
    _check(base)
    _check(without)
    if base.tokens != without.tokens:
        raise ScoringMisaligned(f"{base.tokens} tokens with, {without.tokens} without")
    if base.ids != without.ids:
        raise ScoringMisaligned("the tokens with and without are not the same")
    return (base.total - without.total) / base.tokens


def _check(scored: Scored) -> None:
    values = (scored.total,) if scored.logprobs is None else (scored.total, *scored.logprobs)
    if scored.tokens < 1:
        raise ScoringMisaligned(f"a response of {scored.tokens} tokens has no log-probability")
    if any(not math.isfinite(value) or value > MOST for value in values):
        raise ScoringMisaligned("a log-probability is not finite, or above 0")
    if any(value < LEAST for value in scored.logprobs or ()):
        raise ScoringMisaligned(f"a token's log-probability is below {LEAST:.0f}, which stands for none")
    if any(len(each) != scored.tokens for each in (scored.ids, scored.logprobs) if each is not None):
        raise ScoringMisaligned(f"{scored.tokens} tokens, and another number of ids or log-probabilities")


def cell_of(base: Scored | ScoringError, without: Scored | ScoringError, *, least: int = LEAST_TOKENS) -> Cell:
    """The cell of a pair: its value, not applicable for a response of fewer than `least` tokens, or failed, with the reason.

    A reason is a stable word; what the error says follows after a colon, for the caller alone: it does not belong in a log.
    """
    if isinstance(base, ScoringError):
        return failed(base)
    if base.tokens < least:
        return Cell(tokens=base.tokens, status="not_applicable", reason="too_short")
    if isinstance(without, ScoringError):
        return failed(without)
    try:
        return Cell(value=divergence(base, without), tokens=base.tokens, status="scored")
    except ScoringMisaligned as error:
        return failed(error)


def failed(error: ScoringError) -> Cell:
    """The unknown cell of an error."""
    word = next(word for kind, word in REASONS if isinstance(error, kind))
    return Cell(status="failed", reason=f"{word}: {error}")


# groups


def groups_of(items: Sequence[str], evidence: Mapping[str, Collection[str]], texts: Mapping[str, str]) -> list[Group]:
    """What has to be left out together: an observation with its evidence, and whoever says the very same; in order of appearance.

    items: those shown, in order of appearance. evidence: the memories of each observation. texts: of each item; one without a
    text is like no other. More than 8 connected items are cut: a group for each observation with its evidence, and with what
    has the text of one of these; such groups may overlap, and begin with their observation, so that no two have one id.
    """
    place = {item: number for number, item in enumerate(dict.fromkeys(items))}
    cites = {item: [memory for memory in evidence.get(item, ()) if memory in place] for item in place}
    same = _twins(place, texts)
    parts = _connected(place, [*([item, *memories] for item, memories in cites.items()), *same.values()])
    found: list[tuple[str, ...]] = []
    for part in parts:
        found += [part] if len(part) <= MOST_ITEMS else _cut(part, cites, same)
    return [Group(items=group) for group in sorted(found, key=lambda group: min(place[item] for item in group))]


def _twins(items: Iterable[str], texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Of each item, all that have its text, itself among them."""
    by_text: dict[str, list[str]] = {}
    said = {item: plain(texts.get(item, "")) for item in items}
    for item, text in said.items():
        by_text.setdefault(text, []).append(item)
    return {item: by_text[text] if text else [item] for item, text in said.items()}


def _connected(place: Mapping[str, int], links: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    part = {item: {item} for item in place}
    for first, *others in links:
        for other in others:
            if part[other] is not part[first]:
                part[first] |= part[other]
                part |= dict.fromkeys(part[other], part[first])
    return [tuple(sorted(members, key=place.__getitem__)) for members in {id(each): each for each in part.values()}.values()]


def _cut(part: Sequence[str], cites: Mapping[str, Sequence[str]], same: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Twins never part: each would hide what the other is worth."""
    sets: dict[frozenset[str], tuple[str, ...]] = {}
    covered: set[str] = set()
    for item in sorted(part, key=lambda item: not cites[item]):  # observations first, each in order of appearance
        if not cites[item] and item in covered:
            continue
        members = {twin for member in (item, *cites[item]) for twin in same[member]}
        covered |= members
        sets.setdefault(frozenset(members), (item, *(other for other in part if other in members - {item})))
    return list(sets.values())


# windows


def windows(transcript: Transcript, group: Group, *, window: int = WINDOW) -> list[tuple[int, ...]]:
    """For each turn that shows an item of the group, the places of the responses after it, at most `window` of them."""
    responses = transcript.responses
    starts = [bisect_right(responses, place) for place in _showings(transcript, group)]
    return [responses[start : start + window] for start in starts]


def _showings(transcript: Transcript, group: Group) -> list[int]:
    return sorted({place for item in group.items for place in transcript.showings.get(item, ())})


def responses_of(transcript: Transcript, group: Group, *, window: int = WINDOW) -> tuple[int, ...]:
    """The places of the responses that may have leant on the group; none of them stands before its first showing."""
    return tuple(sorted({place for each in windows(transcript, group, window=window) for place in each}))


def head_of(transcript: Transcript, group: Group, *, window: int = WINDOW, head: int = HEAD) -> frozenset[int]:
    """The places of the first responses of each window, those left aside that say nothing: the ones that move a mean."""
    opened = windows(transcript, group, window=window)
    return frozenset(place for each in opened for place in [p for p in each if says_something(transcript.turns[p])][:head])


# two levels


def buckets(groups: Sequence[Group], keep: int = 2) -> list[tuple[Group, ...]]:
    """round(sqrt(keep * N)) buckets, into which the groups are dealt in order: with `keep` of them opened, the fewest prompts."""
    number = min(max(round(math.sqrt(keep * len(groups))), 1), len(groups))
    return [tuple(groups[start::number]) for start in range(number)]


def together(groups: Iterable[Group]) -> Group:
    """All their items as one group."""
    return Group(items=tuple(dict.fromkeys(item for group in groups for item in group.items)))


def opened(values: Sequence[float | None], keep: int = 2) -> tuple[int, ...]:
    """Which buckets to open, by their places: the `keep` highest values, ties in order; never one that is unknown."""
    known = [(-value, place) for place, value in enumerate(values) if value is not None and math.isfinite(value)]
    return tuple(sorted(place for _, place in sorted(known)[:keep]))


def bucket_cells(found: Cell, applies: Sequence[bool]) -> list[Cell]:
    """The cells of a bucket's groups that were not measured each by itself, from the bucket's own with the same response.

    applies: which of them were in the context. A bucket that was worth nothing gives each its share of that; any other says
    nothing of them: only the winners' values would ever be known.
    """
    size, absent = sum(applies), Cell(status="not_applicable", reason="not_in_context")
    if found.value is None:
        share = found
    elif abs(found.value) <= NULL and size:
        share = Cell(value=found.value / size, tokens=found.tokens, status="scored", how="bucket", share=1 / size)
    else:
        share = Cell(tokens=found.tokens, status="failed", reason="not_opened")
    return [share if here else absent for here in applies]


# incremental


class Due(Value):
    """What an incremental run has to score, the longest unscored first, and what it passes over, with the reason."""

    groups: tuple[Group, ...]
    skipped: tuple[tuple[Group, Skip], ...]


def due(
    transcript: Transcript, groups: Sequence[Group], *, now: datetime, last_scored: Mapping[str, datetime],
    scored: Mapping[Group, Collection[str]], max_age: timedelta = MAX_AGE, window: int = WINDOW,
) -> Due:
    """Which groups are due: none of their items was scored within `max_age`, and a response is new to them.

    last_scored: of the items that have a state in the unit; one without makes its group the oldest of all. scored: for each
    group, the ids of the responses that it need not be measured with again. Ties keep the order given.
    """
    told: list[tuple[Group, Skip | None]] = [
        (group, _skip(transcript, group, now - max_age, last_scored, scored.get(group, ()), window)) for group in groups
    ]
    ready = [group for group, reason in told if reason is None]
    ready.sort(key=lambda group: _oldest(group, last_scored) or NEVER)
    skipped: list[tuple[Group, Skip]] = [(group, reason) for group, reason in told if reason is not None]
    return Due(groups=tuple(ready), skipped=tuple(skipped))


def _oldest(group: Group, last_scored: Mapping[str, datetime]) -> datetime | None:
    known = [last_scored[item] for item in group.items if item in last_scored]
    return min(known) if len(known) == len(group.items) else None


def _skip(
    transcript: Transcript, group: Group, before: datetime, last_scored: Mapping[str, datetime], scored: Collection[str],
    window: int,
) -> Skip | None:
    found = windows(transcript, group, window=window)
    responses = {place for each in found for place in each if says_something(transcript.turns[place])}
    last = _oldest(group, last_scored)
    if not responses:
        return "no_response"
    if (last and last > before) or all(transcript.response_id(place) in scored for place in responses):
        return "not_due"
    early = transcript.closed or _showings(transcript, group)[0] < len(transcript.turns) // 4
    return None if early or len(found[0]) >= window else "window_not_full"


# candidates


class Dependence(Value):
    """How much a response leant on all memory together. value: nats per token; None is unknown, for the reason given."""

    response: str
    value: float | None
    tokens: int = 0
    reason: str = ""


class CandidateReport(Value):
    """Responses by how much they lean on memory, the most first, unknown ones last: what a model has not learnt.

    seen: responses that were looked at. above: how many pass the threshold. An empty list explains itself.
    """

    candidates: tuple[Dependence, ...] = ()
    seen: int = 0
    above: int = 0
    highest: float | None = None
    errors: tuple[str, ...] = ()


def recent(transcript: Transcript, count: int) -> tuple[int, ...]:
    """The places of the responses among the last `count` turns."""
    return tuple(place for place in transcript.responses if place >= len(transcript.turns) - count)


def candidates_of(cells: Mapping[str, Cell], *, threshold: float = 1.0, per_token: bool = False) -> CandidateReport:
    """The report on cells, by response, that were measured with every item left out. Ties go by response.

    threshold: nats of a whole response, or of a token of it.
    """
    told = [Dependence(response=id, value=c.value, tokens=c.tokens, reason=c.reason) for id, c in cells.items()]
    told.sort(key=lambda one: (one.value is None, -(one.value or 0.0), one.response))
    known = [(one.value, one.tokens) for one in told if one.value is not None]
    return CandidateReport(
        candidates=tuple(told), seen=len(told), above=sum(v * (1 if per_token else tokens) > threshold for v, tokens in known),
        highest=max((value for value, _ in known), default=None),
        errors=tuple(cell.reason for cell in cells.values() if cell.status == "failed"),
    )
