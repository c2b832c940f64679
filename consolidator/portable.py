"""A bank as lines of JSON: what an export writes and an import reads. Pure.

One record a line: a heading, then memories in the order in which they were retained, then observations with all their versions.
Ids name records within the file; an import gives its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, TypeAdapter, ValidationError

from consolidator.errors import InvalidInput
from consolidator.models import PERSON, Category, Kind, Memory, MemoryState, ObservationState, Tags, Time, Trust, Value, Version
from consolidator.plans import History

Name = Annotated[str, Field(min_length=1, max_length=128)]
Names = Annotated[frozenset[Name], PlainSerializer(sorted)]
Scope = Annotated[Tags, PlainSerializer(sorted)]
Standing = Literal[ObservationState.LIVE, ObservationState.RETRACTED]


class Ending(Value):
    """The last line: without it a file that begins with a heading was cut off. pending: memories that have to be digested again,
    as what had come of them was erased while the file was written.
    """

    record: Literal["end"] = "end"
    memories: int = Field(ge=0)
    observations: int = Field(ge=0)
    pending: Names = frozenset()


class Heading(Value):
    record: Literal["consolidator"] = "consolidator"
    format: Literal[1] = 1
    bank: str
    at: Time


class MemoryLine(Value):
    """A memory, verbatim. state "done": digested already, and its effect is in the file. held: why, where it is in quarantine."""

    record: Literal["memory"] = "memory"
    id: Name
    text: str
    source: str
    sequence: int | None = None
    part: int = Field(default=0, ge=0, lt=2**31)
    speaker: str | None = None
    tags: Scope = frozenset()
    kind: Kind = "world"
    occurred_at: Time | None = None
    retained_at: Time | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    trust: Trust = Trust.USER
    corrected_by: Name | None = None
    echo: bool = False
    state: MemoryState = MemoryState.PENDING
    held: str | None = None


class EvidenceLine(Value):
    memory_id: Name
    since_version: int = Field(default=1, ge=1)
    supports: bool = True


class VersionLine(Value):
    """lineage None: all evidence up to then."""

    text: str = Field(min_length=1)
    state: Standing = ObservationState.LIVE
    confidence: float = Field(default=0.7, ge=0, le=1, allow_inf_nan=False)
    lineage: Names | None = None
    why: Names = frozenset()
    change: str = Field(default="create", max_length=64)
    reason: str = Field(default="", max_length=1_000)
    by: str = Field(default="", max_length=256)
    at: Time | None = None


class ObservationLine(Value):
    record: Literal["observation"] = "observation"
    id: Name
    tags: Scope = frozenset()
    contests: Name | None = None
    category: Category | None = None
    evidence: tuple[EvidenceLine, ...] = ()
    versions: tuple[VersionLine, ...] = Field(min_length=1)


Line = Heading | MemoryLine | ObservationLine | Ending
LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="record")])


class Parcel(Value):
    """A file that was read whole and holds together. Lines are numbered from 1."""

    memories: dict[str, MemoryLine]
    observations: dict[str, ObservationLine]
    numbers: dict[str, int]  # of the lines, by "memory" or "observation" and id
    pending: frozenset[str] = frozenset()


class Imported(Value):
    """What `import_` did. What the bank knew already stays as it is."""

    memories: int = 0  # new ones
    known_memories: int = 0
    observations: int = 0
    known_observations: int = 0  # their evidence is told anew, where the bank does not rest on it yet
    pending: int = 0  # memories that consolidation will look at
    held: int = 0
    redacted: int = 0  # secrets that were masked


# out


def memory_line(memory: Memory, state: MemoryState, held: str | None) -> MemoryLine:
    """state: as it was when the export began; what was digested since is digested once more where it is imported."""
    fields = {key: value for key, value in memory if key in MemoryLine.model_fields}
    return MemoryLine.model_validate({**fields, "state": state, "held": held})


def observation_line(history: History, known: Set[str]) -> ObservationLine | None:
    """With what of it rests on memories of the file alone; None where nothing does, or nothing would support it."""
    told = [v for v in history.versions if v.text is not None and v.lineage and v.lineage <= known]
    linked = [e for e in history.observation.evidence if e.memory_id in known]
    since = [max(1, sum(v.number <= e.since_version for v in told)) for e in linked]  # purged versions are not counted
    evidence = tuple(
        EvidenceLine(memory_id=e.memory_id, since_version=number, supports=e.supports)
        for e, number in zip(linked, since, strict=True)
    )
    if not told or (told[-1].state is ObservationState.LIVE and not evidence):
        return None
    here = history.observation
    return ObservationLine(
        id=here.id, tags=here.tags, contests=here.contests, category=here.category, evidence=evidence,
        versions=tuple(_version(v, known) for v in told),
    )


def _version(version: Version, known: Set[str]) -> VersionLine:
    fields = {key: value for key, value in version if key in VersionLine.model_fields}
    reason = version.reason if version.by == PERSON else ""  # a model's may quote what it was shown, and nobody there knows that
    return VersionLine.model_validate({**fields, "why": version.why & known, "reason": reason})


def written(line: Line) -> str:
    """As a line of JSON."""
    return json.dumps(line.model_dump(mode="json", exclude_none=True), ensure_ascii=False)


# in


def parse(lines: Iterable[str | bytes | Mapping[str, Any]]) -> Parcel:
    """Raises InvalidInput, which names the line and what is wrong with it, before anybody has written anything."""
    if not isinstance(lines, Iterable) or isinstance(lines, str | bytes | Mapping):
        raise InvalidInput("import takes the lines of an export: an open file, or a list of them")
    memories: dict[str, MemoryLine] = {}
    observations: dict[str, ObservationLine] = {}
    numbers: dict[str, int] = {}
    frame: dict[type[Line], Line] = {}
    for number, raw in enumerate(lines, start=1):
        if isinstance(raw, str | bytes) and not raw.strip():
            continue
        match _line(number, raw):
            case MemoryLine() as memory:
                _once(number, memory.id, memories)
                memories[memory.id], numbers[f"memory {memory.id}"] = memory, number
            case ObservationLine() as observation:
                _once(number, observation.id, observations)
                observations[observation.id], numbers[f"observation {observation.id}"] = observation, number
            case line:
                frame[type(line)] = line
    for id, observation in observations.items():
        if problem := _problem(observation, memories):
            raise InvalidInput(f"line {numbers[f'observation {id}']}: {problem}")
    ending = frame.get(Ending)
    counted = (ending.memories, ending.observations) if isinstance(ending, Ending) else None
    if Heading in frame and counted != (len(memories), len(observations)):
        raise InvalidInput("the file is not whole: its last line is missing, or counts other records; export it again")
    pending = ending.pending if isinstance(ending, Ending) else frozenset[str]()
    return Parcel(memories=memories, observations=observations, numbers=numbers, pending=pending)


def _line(number: int, raw: str | bytes | Mapping[str, Any]) -> Line:
    try:
        return LINE.validate_python(json.loads(raw) if isinstance(raw, str | bytes) else raw)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        if not problem["loc"]:
            raise InvalidInput(f'line {number} is no record; "record" is "consolidator", "memory" or "observation"') from None
        field = ".".join(str(part) for part in problem["loc"][1:])
        raise InvalidInput(f"line {number}: {field}: {problem['msg'].removeprefix('Value error, ')}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"line {number} is no JSON: {getattr(error, 'msg', error.__class__.__name__)}") from None


def _once(number: int, id: str, known: Mapping[str, object]) -> None:
    if id in known:
        raise InvalidInput(f"line {number}: the id {id} is taken by a line before")


def _problem(line: ObservationLine, memories: Mapping[str, MemoryLine]) -> str | None:
    named = [e.memory_id for e in line.evidence]
    if twice := [id for n, id in enumerate(named) if id in named[:n]]:
        return f"its evidence names memory {twice[0]} twice"
    for version in line.versions:
        named += sorted((version.lineage or frozenset()) | version.why)
        if not version.text.strip() or "\0" in version.text:
            return "a version's text is blank, or holds a NUL character"
    if rootless := [n for n in range(1, len(line.versions) + 1) if not lineage_of(line, n)]:
        return f"version {rootless[0]} comes from nowhere; name its lineage, or evidence from then on"
    if unknown := [id for id in named if id not in memories]:
        return f"it names memory {unknown[0]}, which is not in the file"
    if foreign := [id for id in named if memories[id].tags != line.tags]:
        return f"memory {foreign[0]} has other tags: an observation rests on memories of its own scope"
    if not any(e.supports for e in line.evidence) and line.versions[-1].state is ObservationState.LIVE:
        return "nothing supports it; name its evidence"
    return None


def lineage_of(line: ObservationLine, number: int) -> frozenset[str]:
    """Of its version `number`, from 1."""
    told = line.versions[number - 1].lineage
    return frozenset(e.memory_id for e in line.evidence if since(line, e) <= number) if told is None else told


def since(line: ObservationLine, evidence: EvidenceLine) -> int:
    """The version at which it was attached."""
    return min(evidence.since_version, len(line.versions))
