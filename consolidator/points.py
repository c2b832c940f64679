"""Between memories and observations and the points that a store keeps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from consolidator.models import Memory, Observation, ObservationState, Vector, scope_key
from consolidator.ports import CollectionSpec, Found, Point
from consolidator.records import marked


def collection_specs(dimension: int, embedder: str) -> tuple[CollectionSpec, CollectionSpec]:
    """The two collections, with every field that is filtered by."""
    memories = CollectionSpec(
        name="memories", dimension=dimension, embedder=embedder,
        keywords=("source", "speaker", "tags", "scope", "kind", "state", "place", "corrected_by", "role", "about"),
        integers=("sequence", "trust"), times=("time", "retained_at"),
    )
    observations = CollectionSpec(
        name="observations", dimension=dimension, embedder=embedder,
        keywords=("tags", "scope", "state", "category", "evidence_memory_ids", "evidence_sources", "lineage_memory_ids"),
        integers=("version",), floats=("confidence",), times=("first_time", "last_time", "created_at", "updated_at"),
    )
    return memories, observations


def place_of(source: str, sequence: int | None) -> str:
    """Where a turn stands, as one keyword: what stands beside it is found by that."""
    return f"{sequence}@{source}"


def memory_point(memory: Memory, vector: Vector | None) -> Point:
    fields = memory.model_dump(exclude={"id", "bank", "tags", "state"})
    payload = {
        **{key: value for key, value in fields.items() if value is not None},
        "tags": sorted(memory.tags), "scope": scope_key(memory.tags), "state": memory.state.value, "time": memory.time,
    }
    if mark := marked(memory):
        payload |= {"role": mark.role, "about": mark.about}
    if memory.sequence is not None:
        payload["place"] = place_of(memory.source, memory.sequence)
    return Point(id=memory.id, payload=payload, dense=vector, lexical=memory.dated)


def memory_of(bank: str, point: Point | Found) -> Memory:
    known = {key: value for key, value in point.payload.items() if key in Memory.model_fields}
    return Memory.model_validate({**known, "id": point.id, "bank": bank})


def observation_point(after: Observation, vector: Vector, lineage: frozenset[str]) -> Point:
    """A live or retracted observation; of an erased one only id and revision are left."""
    if after.state is ObservationState.ERASED:
        return Point(id=after.id, payload={"rev": after.rev, "state": after.state.value, "updated_at": after.updated_at})
    fields = after.model_dump(exclude={"id", "bank", "tags", "state", "evidence", "trend", "importance"})
    times = [e.occurred_at for e in after.evidence if e.supports] or [after.updated_at]
    payload = {
        **fields, "tags": sorted(after.tags), "scope": scope_key(after.tags), "state": after.state.value,
        "evidence": [e.model_dump() for e in after.evidence],
        "evidence_memory_ids": [e.memory_id for e in after.evidence],
        "evidence_sources": sorted({e.source for e in after.evidence}),
        "lineage_memory_ids": sorted(lineage),
        "first_time": min(times), "last_time": max(times),
    }
    return Point(id=after.id, payload=payload, dense=vector, lexical=after.text)


def observation_of(bank: str, point: Point | Found) -> Observation:
    known = {key: value for key, value in point.payload.items() if key in Observation.model_fields}
    return Observation.model_validate({**known, "id": point.id, "bank": bank})


def time_of(stored: str | datetime) -> datetime:
    """A time as a store may hand it out."""
    return stored if isinstance(stored, datetime) else datetime.fromisoformat(stored)


def rev_of(payload: Mapping[str, Any]) -> int:
    return int(payload["rev"])

