"""The write protocol: a plan is frozen in the ledger, then applied to the store, and whoever comes next finishes it first.

Every write is idempotent: after-images with a revision, compared in the store. So a plan may be applied any number of times.
"""

from __future__ import annotations

import logging

from consolidator.errors import StoreError
from consolidator.models import ObservationState
from consolidator.parts import Parts
from consolidator.plans import Change, Intent, Lease, MemoryMark
from consolidator.points import observation_point, rev_of
from consolidator.ports import ABSENT, Expect, PutOutcome

log = logging.getLogger("consolidator.redo")

MOST_OPEN = 8  # applied plans of a bank that wait for a flush together


async def finish_open_plans(parts: Parts, bank: str) -> int:
    """Apply again every plan that is not known to be on disk. Comes before anything else under a lease.

    What this very process has applied is in its store: to flush it may wait until there are several such plans.
    """
    plans = await parts.ledger.unfinished(bank)
    lost = [plan for plan in plans if plan.id not in parts.applied]
    for plan in lost:
        await apply(parts, plan)
    if lost or len(plans) >= MOST_OPEN:
        await barrier(parts, bank)
    if lost:
        log.info("plans_redone", extra={"action": "plans_redone", "count": len(lost)})
    return len(lost)


async def carry_out(parts: Parts, intent: Intent, lease: Lease) -> int:
    """Freeze a plan and apply it. Returns how many journal rows it scrubbed."""
    scrubbed = await parts.ledger.commit(intent, lease)
    await apply(parts, intent)
    return scrubbed


async def apply(parts: Parts, intent: Intent) -> None:
    """Observations first, the memories' marks last."""
    for change in intent.changes:
        await _put(parts, intent.bank, change)
    for mark in intent.marks:
        await _mark(parts, intent.bank, mark)
    await parts.ledger.mark_applied(intent.id)
    parts.applied.add(intent.id)


async def barrier(parts: Parts, bank: str) -> None:
    """Return when all that was applied is on disk, and let the ledger forget how to redo it."""
    closing = {plan.id for plan in await parts.ledger.unfinished(bank)} & parts.applied
    await parts.observations.flush()
    await parts.memories.flush()
    await parts.ledger.close_applied(bank)
    parts.applied.difference_update(closing)


async def _put(parts: Parts, bank: str, change: Change) -> None:
    point = observation_point(change.after, change.vector, change.lineage)
    expect = ABSENT if change.base_rev is None else Expect(rev=change.base_rev)
    outcome = (await parts.observations.put(bank, [point], expect=expect))[0]
    if outcome is PutOutcome.WRITTEN:
        return
    stored = await parts.observations.get(bank, [change.after.id])
    if not stored and change.after.state is not ObservationState.ERASED:
        # the ledger decides: a store that was restored from an older copy gets the point anew
        outcome = (await parts.observations.put(bank, [point], expect=ABSENT))[0]
    elif stored and rev_of(stored[0].payload) < change.after.rev:
        at = rev_of(stored[0].payload)
        raise StoreError(f"observation {change.after.id} is at revision {at} in the store, {change.base_rev} in the ledger")


async def _mark(parts: Parts, bank: str, mark: MemoryMark) -> None:
    changes: dict[str, object] = {"state": mark.state.value}
    changes |= {} if mark.corrected_by is None else {"corrected_by": mark.corrected_by or None}
    if await parts.memories.patch(bank, mark.memory_id, changes, expect=mark.rev):
        return
    stored = await parts.memories.get(bank, [mark.memory_id])
    at = rev_of(stored[0].payload) if stored else None
    if at is not None and at < mark.rev:
        raise StoreError(f"memory {mark.memory_id} is at revision {at} in the store, the ledger consumed {mark.rev}")
