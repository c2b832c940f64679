"""What every vector store refuses before it writes, the form in which it keeps payloads, and the order it promises.

Pure, without any vendor: the stores and the fake share it, so they refuse alike and read back alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

from consolidator.clock import to_utc
from consolidator.errors import InvalidInput
from consolidator.models import Vector
from consolidator.ports import (
    AnyOf,
    CollectionSpec,
    Condition,
    Either,
    Empty,
    Equals,
    Expect,
    Found,
    Ids,
    Leg,
    Not,
    Point,
    PutOutcome,
    Range,
    Where,
)

FieldKind = Literal["keyword", "integer", "float", "time"]

RESERVED = frozenset({"bank", "op"})  # the store's own payload keys: the tenant, and the token of the last conditional write
UUID_FORM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
LARGEST_INTEGER = 2**63 - 1
LARGEST_COORDINATE = 1e15  # squares beyond it overflow the 32-bit floats in which vectors are kept
DEEPEST = 64
APART = 2e-6  # scores that differ by more are no tie
SPARE = 16  # hits to ask for beyond a leg's limit, so that the cut does not run through a tie


def rfc3339(value: datetime) -> str:
    """The instant in UTC as text, exact to the microsecond. Raises InvalidInput for a time without a zone."""
    try:
        return to_utc(value).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def check_bank(bank: str) -> None:
    if not isinstance(bank, str) or not bank:
        raise InvalidInput("a bank is named by a text that is not empty")


def check_ids(ids: Iterable[str]) -> None:
    """Refuse an id that is not a UUID in its usual form, lower case with four dashes."""
    for id in ids:
        if not is_id(id):
            raise InvalidInput("a point's id is a UUID such as 1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b, in lower case")


def is_id(id: object) -> bool:
    return isinstance(id, str) and UUID_FORM.fullmatch(id) is not None


def check_limit(limit: int) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidInput("a limit is a whole number above 0")


def check_expect(expect: Expect) -> None:
    if expect.absent and expect.rev is not None:
        raise InvalidInput("a put expects either no point or a revision, not both")


@lru_cache(maxsize=64)
def field_kinds(spec: CollectionSpec) -> Mapping[str, FieldKind]:
    """The fields that can be filtered by, with what each holds; `rev` is always one of them."""
    kinds: dict[str, FieldKind] = {"rev": "integer"}
    groups: tuple[tuple[FieldKind, tuple[str, ...]], ...] = (
        ("keyword", spec.keywords), ("integer", spec.integers), ("float", spec.floats), ("time", spec.times),
    )  # fmt: skip
    for kind, keys in groups:
        for key in keys:
            if key in RESERVED or kinds.setdefault(key, kind) != kind:
                raise InvalidInput(f"the field {key!r} of {spec.name} is reserved, or is declared twice")
    return MappingProxyType(kinds)


def check_specs(specs: Sequence[CollectionSpec]) -> dict[str, CollectionSpec]:
    """Both collections, by name. They share one embedder and one dimension."""
    named: dict[str, CollectionSpec] = {spec.name: spec for spec in specs}
    if len(specs) != 2 or set(named) != {"memories", "observations"}:
        raise InvalidInput("a storage has two collections: memories and observations")
    if len({(spec.embedder, spec.dimension) for spec in specs}) != 1:
        raise InvalidInput("both collections need the same embedder and dimension")
    for spec in specs:
        field_kinds(spec)
        check_limit(spec.dimension)
    return named


def sound_vector(spec: CollectionSpec, vector: Vector) -> Vector:
    """The vector as floats. Refuses another length, and what is not finite or too large."""
    if len(vector) != spec.dimension:
        raise InvalidInput(f"a vector of {spec.name} has {spec.dimension} numbers, not {len(vector)}")
    try:
        floats = list(map(float, vector))
    except (TypeError, ValueError) as error:
        raise InvalidInput("a vector holds numbers alone") from error
    if not (math.isfinite(sum(floats)) and max(floats) < LARGEST_COORDINATE and min(floats) > -LARGEST_COORDINATE):
        raise InvalidInput("every number of a vector is finite, and smaller than 1e15")
    return floats


def _text(value: str) -> str:
    plain = str.__str__(value)
    try:
        plain.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("a text holds half of a surrogate pair, which is no character") from error
    return plain


def _integer(value: int) -> int:
    if abs(value) > LARGEST_INTEGER:
        raise InvalidInput("an integer is beyond 64 bits")
    return int(value)


def _float(value: float) -> float:
    if not math.isfinite(value):
        raise InvalidInput("a number is finite")
    return float(f"{value:.15g}")  # the engine's reader is exact up to there, and off by one bit for some longer numbers


def _stored(value: Any, depth: int = 0) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return _text(value)
        case int():
            return _integer(value)
        case float():
            return _float(value)
        case datetime():
            return rfc3339(value)
    return _stored_nested(value, depth)


def _stored_nested(value: Any, depth: int) -> Any:
    if depth >= DEEPEST:
        raise InvalidInput(f"a payload is nested deeper than {DEEPEST} levels")
    if isinstance(value, list | tuple):
        return [_stored(item, depth + 1) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {_text(key): _stored(item, depth + 1) for key, item in value.items()}
    raise InvalidInput(f"a payload is JSON: a {type(value).__name__} is not, nor is a key that is no text")


def _stored_time(value: Any) -> Any:
    if isinstance(value, list):
        return [_stored_time(item) for item in value]
    if not isinstance(value, str):
        return value
    try:
        return rfc3339(datetime.fromisoformat(value))
    except ValueError as error:
        raise InvalidInput("a time is written as 2026-01-31T12:00:00Z") from error


_FITS: dict[FieldKind, tuple[type, ...]] = {"keyword": (str,), "integer": (int,), "float": (int, float), "time": (str,)}


def _fits(kind: FieldKind, value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, _FITS[kind]) and not isinstance(item, bool) for item in items)


def stored_fields(spec: CollectionSpec, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in the form in which they are kept, which reading and putting again leaves as it is.

    Times are RFC 3339 text in UTC, tuples are lists, floats have 15 significant digits; None stays, and means unset.
    """
    kinds = field_kinds(spec)
    stored: dict[str, Any] = _stored(fields)
    for key, value in stored.items():
        if key in RESERVED:
            raise InvalidInput(f"the payload key {key!r} is the store's own")
        if value is not None and (kind := kinds.get(key)) is not None:
            stored[key] = _stored_time(value) if kind == "time" else value
            if not _fits(kind, stored[key]):
                raise InvalidInput(f"the field {key!r} holds a {kind}, or a list of them")
    return stored


def sound_changes(spec: CollectionSpec, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What a patch sets, as stored; None removes the field."""
    if "rev" in changes:
        raise InvalidInput("a patch raises `rev` itself")
    return stored_fields(spec, changes)


def sound_points(spec: CollectionSpec, points: Sequence[Point]) -> list[Point]:
    """The points as they are stored; fields that are None are left out."""
    check_ids(point.id for point in points)
    if len({point.id for point in points}) < len(points):
        raise InvalidInput("an id is given twice in one put")
    return [_sound_point(spec, point) for point in points]


def _sound_point(spec: CollectionSpec, point: Point) -> Point:
    payload = {key: value for key, value in stored_fields(spec, point.payload).items() if value is not None}
    if not isinstance(payload.get("rev"), int):
        raise InvalidInput("a payload needs `rev`, its revision, as an integer")
    dense = None if point.dense is None else sound_vector(spec, point.dense)
    return Point(id=point.id, payload=payload, dense=dense, lexical=_text(point.lexical))


def _known(kinds: Mapping[str, FieldKind], key: str, *wanted: FieldKind) -> FieldKind:
    kind = kinds.get(key)
    if kind is None or (wanted and kind not in wanted):
        fields = ", ".join(sorted(name for name, it in kinds.items() if not wanted or it in wanted))
        raise InvalidInput(f"no such filter on the field {key!r}; the fields for it are: {fields}")
    return kind


def check_facet(spec: CollectionSpec, key: str) -> None:
    _known(field_kinds(spec), key, "keyword")


def check_page(spec: CollectionSpec, order_by: str | None, after: str | None, limit: int) -> None:
    check_limit(limit)
    if after is not None:
        check_ids([after])
    if order_by is not None:
        _known(field_kinds(spec), order_by, "integer", "float", "time")
        if after is not None:
            raise InvalidInput("with `order_by` there is one page only, so there is no `after`")


def _check_equals(kinds: Mapping[str, FieldKind], condition: Equals) -> None:
    match condition.value:
        case bool():
            raise InvalidInput(f"the field {condition.key!r} cannot be compared with a boolean; use a keyword, or 0 and 1")
        case str():
            _known(kinds, condition.key, "keyword")
            _text(condition.value)
        case int():
            _known(kinds, condition.key, "integer")
            _integer(condition.value)
        case _:
            raise InvalidInput("Equals compares with a keyword or an integer")


def _check_range(kinds: Mapping[str, FieldKind], condition: Range) -> None:
    kind = _known(kinds, condition.key, "integer", "float", "time")
    bounds = [bound for bound in (condition.gte, condition.lte, condition.gt, condition.lt) if bound is not None]
    if not bounds:
        raise InvalidInput(f"the range of {condition.key!r} has no bound")
    for bound in bounds:
        if isinstance(bound, datetime) is not (kind == "time") or isinstance(bound, bool):
            raise InvalidInput(f"a bound of {condition.key!r} is a {'time' if kind == 'time' else 'number'}")
        _stored(bound)


def _check_any_of(kinds: Mapping[str, FieldKind], condition: AnyOf) -> None:
    _known(kinds, condition.key, "keyword")
    for value in condition.values:
        if not isinstance(value, str):
            raise InvalidInput("AnyOf compares with keywords")
        _text(value)


def _check_condition(kinds: Mapping[str, FieldKind], condition: Condition) -> None:
    match condition:
        case Equals():
            _check_equals(kinds, condition)
        case AnyOf():
            _check_any_of(kinds, condition)
        case Range():
            _check_range(kinds, condition)
        case Empty():
            _known(kinds, condition.key)
        case Ids():
            check_ids(condition.ids)
        case Not(inner) if not isinstance(inner, Not | Either):
            _check_condition(kinds, inner)
        case Either(several) if not any(isinstance(one, Not | Either) for one in several):
            for one in several:
                _check_condition(kinds, one)
        case _:
            raise InvalidInput(f"a {type(condition).__name__} is no condition")


def _hopeless(condition: Condition) -> bool:
    match condition:
        case AnyOf(values=wanted) | Ids(ids=wanted):
            return not wanted
        case Either(several):
            return all(_hopeless(one) for one in several)
    return False


def sound_where(spec: CollectionSpec, where: Where) -> tuple[Condition, ...] | None:
    """The conditions that must be asked of the store; None when they cannot hold for any point.

    Only declared fields can be filtered by: an undeclared one has no index, and would be slow here and an error on a server.
    """
    kinds = field_kinds(spec)
    for condition in where:
        _check_condition(kinds, condition)
    if any(_hopeless(condition) for condition in where):
        return None
    return tuple(_hopeful(c) for c in where if not (isinstance(c, Not) and _hopeless(c.condition)))


def _hopeful(condition: Condition) -> Condition:
    """Without the alternatives that cannot hold: not every store knows an empty list of values."""
    if not isinstance(condition, Either):
        return condition
    return Either(tuple(one for one in condition.conditions if not _hopeless(one)))


def sound_legs(spec: CollectionSpec, legs: Sequence[Leg]) -> list[Leg | None]:
    """Each leg with sound conditions; None for one that can find nothing."""
    return [_sound_leg(spec, leg) for leg in legs]


def _sound_leg(spec: CollectionSpec, leg: Leg) -> Leg | None:
    check_limit(leg.limit)
    if (leg.dense is None) is (leg.lexical is None):
        raise InvalidInput(f"the leg {leg.name!r} needs a vector or words, exactly one of them")
    where = sound_where(spec, leg.where)
    dense = None if leg.dense is None else sound_vector(spec, leg.dense)
    lexical = None if leg.lexical is None else _text(leg.lexical)
    return None if where is None else replace(leg, where=where, dense=dense, lexical=lexical)


def decide(stored: Mapping[str, Any] | None, bank: str, expect: Expect) -> PutOutcome:
    """What a put does with one point, from `bank` and `rev` of what is stored under its id."""
    if stored is None:
        return PutOutcome.LOST if expect.rev is not None else PutOutcome.WRITTEN
    if stored.get("bank") != bank:
        return PutOutcome.LOST
    if expect.absent:
        return PutOutcome.EXISTED
    return PutOutcome.WRITTEN if expect.rev is None or stored.get("rev") == expect.rev else PutOutcome.LOST


def patched(payload: Mapping[str, Any], changes: Mapping[str, Any], rev: int) -> dict[str, Any]:
    """The payload after a patch: fields set, fields of None removed, the new revision."""
    return {key: value for key, value in {**payload, **changes, "rev": rev}.items() if value is not None}


def read_payload(payload: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a caller sees of a stored payload."""
    return {key: value for key, value in (payload or {}).items() if key not in RESERVED and value is not None}


def ranked(found: Iterable[Found], limit: int) -> list[Found]:
    """Best first. Scores that agree to six places are a tie, and ties go by id, so that every store gives one order."""
    told = list(found)
    if any(one.score - other.score < APART for one, other in pairwise(told)):
        told.sort(key=_place)
    return told[:limit]


def tied(one: float, other: float) -> bool:
    return _rounded(one) == _rounded(other)


def _place(hit: Found) -> tuple[int, str]:
    return -_rounded(hit.score), hit.id


def _rounded(score: float) -> int:
    return math.floor(score * 1e6 + 0.5)


def instant(value: str) -> datetime:
    """A stored time as a value."""
    return datetime.fromisoformat(value).astimezone(UTC)
