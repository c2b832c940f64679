"""A file of training candidates: answers that leant on memory, for a person to approve or reject. Pure, but for reading."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, FiniteFloat, ValidationError

from consolidator.errors import InvalidInput, NotFound
from consolidator.models import Value, dump
from consolidator.transcripts import Role
from consolidator_adapters.cli.writing import read as text_of

Status = Literal["pending", "approved", "rejected"]
REJECTED_KEPT = 10


class ChatMessage(Value):
    """As training files have it."""

    model_config = ConfigDict(extra="allow")
    role: Role
    content: str = Field(repr=False)


class Candidate(Value):
    """An answer, with what was said before it, and nothing of what memory had told. response: its id. value: nats per token that
    it lost without memory. made_at, decided_at: nanoseconds; no two of a file were made at the same one.
    """

    model_config = ConfigDict(extra="allow")  # what a person has noted besides stays
    response: str
    value: FiniteFloat
    tokens: int
    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    status: Status = "pending"
    made_at: int
    decided_at: int | None = None


def read(file: Path) -> list[Candidate]:
    """Raises InvalidInput, naming the line."""
    found = []
    for number, line in enumerate(text_of(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(Candidate.model_validate(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{file}, line {number} is no candidate: {_why(error)}") from None
    return found


def _why(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "it is no JSON"
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg'].lower()}"


def written(candidates: Iterable[Candidate]) -> str:
    return "".join(json.dumps(dump(one), ensure_ascii=False, allow_nan=False) + "\n" for one in candidates)


def merged(known: Sequence[Candidate], new: Iterable[Candidate]) -> list[Candidate]:
    """Those that are known stay as they were decided; what is new comes after them, made at a time of its own."""
    found, said = list(known), {(one.response, one.messages) for one in known}
    last = max((one.made_at for one in known), default=0)
    for one in new:
        if (one.response, one.messages) not in said:
            last = max(one.made_at, last + 1)
            found.append(one.model_copy(update={"made_at": last}))
            said.add((one.response, one.messages))
    return found


def decided(
    candidates: Sequence[Candidate], ids: Iterable[str], status: Status, *, now: int
) -> tuple[list[Candidate], list[Candidate]]:
    """The candidates with a status given to some, and those whose status that has changed. Of the rejected the newest 10 stay.

    ids: of their responses, or the times at which they were made. Raises NotFound, and InvalidInput for one that names several.
    """
    named = {_one(candidates, id.strip()).made_at for id in ids}
    changed = {
        one.made_at: one.model_copy(update={"status": status, "decided_at": now})
        for one in candidates if one.made_at in named and one.status != status
    }
    return _pruned([changed.get(one.made_at, one) for one in candidates]), list(changed.values())


def _one(candidates: Sequence[Candidate], id: str) -> Candidate:
    found = [one for one in candidates if id in (one.response, str(one.made_at))]
    if not found:
        raise NotFound(f'there is no candidate "{id}" in this file; `consolidator candidates list FILE` shows them')
    if len(found) > 1:
        times = " or ".join(str(one.made_at) for one in found)
        raise InvalidInput(f"{id} names {len(found)} candidates; say which by when they were made: {times}")
    return found[0]


def _pruned(candidates: Sequence[Candidate]) -> list[Candidate]:
    rejected = sorted((one for one in candidates if one.status == "rejected"), key=_when)
    dropped = {one.made_at for one in rejected[:-REJECTED_KEPT]}
    return [one for one in candidates if one.made_at not in dropped]


def _when(one: Candidate) -> tuple[int, int]:
    return one.decided_at or one.made_at, one.made_at
