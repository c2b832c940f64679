"""What may be served: observations as they stood at a time, and hits without what was erased while they were looked for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import datetime

from consolidator.models import Hit, Observation, ObservationState
from consolidator.plans import History
from consolidator.trends import trend_of
from consolidator.words import cost


def as_known(history: History, as_of: datetime, told: Set[str]) -> tuple[Observation, frozenset[str]] | None:
    """An observation as it stood then, with the lineage of its text; None where it did not stand.

    told: memories that were retained by then; no other is its evidence. What a later correction says of them is not known yet.
    """
    then = [v for v in history.versions if v.at <= as_of and v.text is not None]
    if not then or then[-1].state is not ObservationState.LIVE:
        return None
    now, version = history.observation, then[-1]
    corrected = any(v.change == "correction" for v in history.versions if v.number > version.number)
    evidence = tuple(
        e.model_copy(update={"supports": True}) if corrected and e.memory_id in version.lineage else e
        for e in now.evidence if e.since_version <= version.number and e.memory_id in told
    )
    fields = {"text": version.text, "version": version.number, "confidence": version.confidence, "evidence": evidence}
    return now.model_copy(update={**fields, "state": version.state, "updated_at": version.at}), version.lineage


def named(hits: Sequence[Hit], lineages: Mapping[str, Set[str]]) -> set[str]:
    """All memories that hits show, or whose words may be in them."""
    ids = {id for lineage in lineages.values() for id in lineage}
    for hit in hits:
        ids |= {e.memory_id for e in hit.evidence} | ({hit.id} if hit.kind == "memory" else set())
        ids |= {id for id in (hit.superseded_by, hit.quote and hit.quote.id) if id}
    return ids


def without_erased(hits: Sequence[Hit], lineages: Mapping[str, Set[str]], gone: Set[str], now: datetime) -> list[Hit]:
    """The hits that stand without these memories, and nothing of them in any. lineages: of observations, by id."""
    if not gone:
        return list(hits)
    stand = [hit for hit in hits if hit.id not in gone and gone.isdisjoint(lineages.get(hit.id, ()))]
    absent = gone | {hit.id for hit in hits} - {hit.id for hit in stand}
    return [_without(hit, absent, now) for hit in stand]


def _without(hit: Hit, absent: Set[str], now: datetime) -> Hit:
    changed: dict[str, object] = {}
    left = tuple(e for e in hit.evidence if e.memory_id not in absent)
    if len(left) < len(hit.evidence):
        times = [e.occurred_at for e in left if e.supports]
        changed |= {"evidence": left, "trend": trend_of(left, now), "proof_count": len({e.source for e in left if e.supports})}
        changed["occurred_at"] = max(times, default=hit.occurred_at)
    if hit.quote and hit.quote.id in absent:
        changed["quote"] = None
    changed |= {name: None for name in ("superseded_by", "contests") if getattr(hit, name) in absent}
    lighter = hit.model_copy(update=changed)
    return lighter.model_copy(update={"tokens": cost(lighter.line)}) if changed else hit
