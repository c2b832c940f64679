"""A person's hand on what the engine believes: revert, correct, undo. Each is a plan like any other, and journalled."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from uuid import uuid4

from consolidator.errors import Conflict, InvalidInput, NotFound
from consolidator.models import PERSON, Memory, MemoryState, Observation, ObservationState, Version
from consolidator.parts import Parts
from consolidator.planning import evidence_of
from consolidator.plans import Change, Entry, History, Intent, Lease, MemoryMark
from consolidator.points import memory_of
from consolidator.provenance import erase
from consolidator.redo import carry_out

log = logging.getLogger("consolidator.revision")

JOURNAL = 1_000_000


class Revision:
    """Changes observations of one deployment on a person's word. Every verb needs the bank's lease."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def revert(self, bank: str, id: str, number: int, reason: str, lease: Lease) -> Observation:
        """An earlier version's text as a new version; what was attached later stays. Raises NotFound, InvalidInput, Conflict."""
        history = await self._history(bank, id)
        version = next((v for v in history.versions if v.number == number), None)
        if version is None:
            raise NotFound(f"observation {id} has no version {number}; it has 1 to {history.current.number}")
        if version.text is None:
            raise Conflict(f"version {number} of observation {id} was erased; there is nothing to go back to")
        if version.state is not ObservationState.LIVE:
            raise InvalidInput(f"with version {number} observation {id} was retracted; name the version before")
        if number == history.current.number:
            raise InvalidInput(f"version {number} of observation {id} is the one that stands")
        change = await self._grounded(bank, self._back(history, version, kind="revert", reason=reason))
        await self._carry_out(bank, lease, [(history, change, "reverted")], reason)
        return change.after

    async def correct(self, bank: str, id: str, correction: Memory, reason: str, lease: Lease) -> Observation:
        """A person's text as a version that no model overwrites. It rests on the correction alone: whatever else is erased, it
        stands. What spoke for the old text stays as contradicted evidence.
        """
        history = await self._history(bank, id)
        before, number = history.observation, history.current.number + 1
        (vector,) = await self._parts.embedder.embed([correction.text])
        against = tuple(e.model_copy(update={"supports": False}) for e in before.evidence if e.memory_id != correction.id)
        fields = {"text": correction.text, "state": ObservationState.LIVE, "confidence": 1.0, "version": number, "contests": None}
        after = self._after(before, {**fields, "evidence": (*against, evidence_of(correction, number))})
        lineage = frozenset({correction.id})
        version = await self._version(bank, after, lineage, change="correction", reason=reason)
        change = Change(after=after, base_rev=before.rev, vector=vector, lineage=lineage, version=version)
        mark = MemoryMark(memory_id=correction.id, rev=correction.rev, state=MemoryState.DONE)
        await self._carry_out(bank, lease, [(history, change, "corrected")], reason, marks=[mark], cites=[correction.id])
        return after

    async def disown(self, bank: str, wrong: Memory, correction: Memory, reason: str, lease: Lease) -> list[Observation]:
        """A memory was wrong: what was derived from it goes back to what was said without it, and the rest is told anew."""
        ids = await self._parts.ledger.resting_on(bank, [wrong.id])
        histories = [h for h in await self._parts.ledger.histories(bank, ids) if wrong.id in h.current.lineage]
        steps, reopened = [], set[str]()
        for history in histories:
            erasure = erase(history, {wrong.id})
            reopened |= erasure.reopened
            if erasure.keep is None or erasure.keep.state is not ObservationState.LIVE:
                change = await self._retracted(bank, history, change="correction", reason=reason, why={correction.id})
            else:
                change = self._back(history, erasure.keep, kind="correction", reason=reason)
                change = change.model_copy(update={"after": change.after.model_copy(update={"evidence": erasure.evidence})})
                change = await self._grounded(bank, change)
            steps.append((history, change, "corrected"))
        marks = await self._marks(bank, reopened - {wrong.id}, MemoryState.PENDING)
        marks.append(MemoryMark(memory_id=wrong.id, rev=wrong.rev, state=MemoryState.DONE, corrected_by=correction.id))
        await self._carry_out(bank, lease, steps, reason, marks=marks, cites=[correction.id, wrong.id])
        return [change.after for _, change, _ in steps]

    async def undo(self, bank: str, intent: str, reason: str, lease: Lease) -> list[Observation]:
        """Take a whole pass back: its observations are as before it (but for a confidence that a confirmation raised), and its
        memories are held until a person replays them.

        Raises NotFound; Conflict, naming them and changing nothing, when observations have moved on since.
        """
        journal = await self._parts.ledger.journal(bank, limit=JOURNAL)
        made = [entry for entry in journal if entry.intent == intent]
        if not made:
            raise NotFound(f'bank "{bank}" has no pass {intent}; the journal names them')
        if any(entry.by == "forget" for entry in made):
            raise InvalidInput("this is an erasure: it cannot be taken back")
        consumed = frozenset(await self._parts.ledger.consumed_by(intent))
        ids = dict.fromkeys(entry.observation_id for entry in made if entry.observation_id and entry.action != "skipped")
        histories = await self._parts.ledger.histories(bank, list(ids))
        last = Counter[str]()
        for entry in made:
            if entry.observation_id and entry.version:
                last[entry.observation_id] = max(last[entry.observation_id], entry.version)
        if moved := [h.observation.id for h in histories if h.current.number > last.get(h.observation.id, h.current.number)]:
            raise Conflict(f"these have changed since: {', '.join(moved)}; revert them one by one")
        steps = [(h, await self._before(bank, h, made, consumed, reason), "undone") for h in histories]
        marks = await self._marks(bank, consumed, MemoryState.HELD)
        await self._carry_out(bank, lease, steps, reason, marks=marks)
        held, why = [mark.memory_id for mark in marks], f"its pass was taken back: {reason}"
        await self._parts.ledger.hold(bank, held, reason=why, at=self._parts.clock())  # now: a plan that is refused holds nothing
        return [change.after for _, change, _ in steps]

    async def _before(self, bank: str, history: History, made: Sequence[Entry], consumed: frozenset[str], reason: str) -> Change:
        """An observation as a pass had found it."""
        id = history.observation.id
        texts = [e.version for e in made if e.observation_id == id and e.version and e.action not in ("reinforced", "skipped")]
        evidence = tuple(e for e in history.observation.evidence if e.memory_id not in consumed)
        if not texts:
            after = self._after(history.observation, {"evidence": evidence})
            return Change(after=after, base_rev=history.observation.rev, vector=_vector(history), lineage=history.current.lineage)
        version = next((v for v in history.versions if v.number == min(texts) - 1), None)
        if version is None or version.text is None:
            change = await self._retracted(bank, history, change="undo", reason=reason, why=frozenset())
        else:
            change = self._back(history, version, kind="undo", reason=reason)
        change = change.model_copy(update={"after": change.after.model_copy(update={"evidence": evidence})})
        return await self._grounded(bank, change)

    async def _grounded(self, bank: str, change: Change) -> Change:
        """What stands rests on something: where an earlier undo has taken all evidence away, on what its text came from."""
        after = change.after
        if after.state is not ObservationState.LIVE or any(e.supports for e in after.evidence):
            return change
        told = [memory_of(bank, point) for point in await self._parts.memories.get(bank, sorted(change.lineage))]
        left = tuple(e for e in after.evidence if e.memory_id not in change.lineage)
        evidence = (*left, *(evidence_of(memory, after.version) for memory in told))
        return change.model_copy(update={"after": after.model_copy(update={"evidence": evidence})})

    def _back(self, history: History, version: Version, *, kind: str, reason: str) -> Change:
        before, number = history.observation, history.current.number + 1
        again = tuple(e.model_copy(update={"supports": True}) if e.memory_id in version.lineage else e for e in before.evidence)
        fields: dict[str, object] = {
            "text": version.text, "state": version.state, "confidence": version.confidence, "version": number, "evidence": again,
        }
        told = {"number": number, "change": kind, "reason": reason, "by": PERSON, "at": self._parts.clock()}
        return Change(
            after=self._after(before, fields), base_rev=before.rev, vector=history.vectors.get(version.number, []),
            lineage=version.lineage, version=version.model_copy(update=told),
        )

    async def _retracted(self, bank: str, history: History, *, change: str, reason: str, why: Iterable[str]) -> Change:
        fields: dict[str, object] = {"state": ObservationState.RETRACTED, "version": history.current.number + 1}
        after = self._after(history.observation, fields)
        lineage = history.current.lineage
        version = await self._version(bank, after, lineage, change=change, reason=reason)
        version = version.model_copy(update={"why": frozenset(why)})
        return Change(after=after, base_rev=history.observation.rev, vector=_vector(history), lineage=lineage, version=version)

    def _after(self, before: Observation, fields: dict[str, object]) -> Observation:
        return before.model_copy(update={**fields, "rev": before.rev + 1, "updated_at": self._parts.clock()})

    async def _version(self, bank: str, after: Observation, lineage: frozenset[str], *, change: str, reason: str) -> Version:
        digest = await self._parts.digest(bank)
        return Version(
            observation_id=after.id, number=after.version, text=after.text, digest=digest(after.text), state=after.state,
            confidence=after.confidence, lineage=lineage, change=change, reason=reason, by=PERSON, at=self._parts.clock(),
        )

    async def _marks(self, bank: str, ids: Iterable[str], state: MemoryState) -> list[MemoryMark]:
        memories = [memory_of(bank, point) for point in await self._parts.memories.get(bank, sorted(ids))]
        return [MemoryMark(memory_id=m.id, rev=m.rev, state=state) for m in memories if m.state is MemoryState.DONE]

    async def _carry_out(
        self, bank: str, lease: Lease, steps: Sequence[tuple[History, Change, str]], reason: str, *,
        marks: Sequence[MemoryMark] = (), cites: Sequence[str] = (),
    ) -> None:
        intent, now = str(uuid4()), self._parts.clock()
        entries = tuple(
            Entry(
                bank=bank, intent=intent, at=now, action=action, observation_id=change.after.id,
                # a row without a version holds no text: nothing would erase it with the version that does
                before=history.observation.text if change.version else None, after=change.after.text if change.version else None,
                version=change.after.version if change.version else None, reason=reason, by=PERSON,
                cites=tuple(cites), digest=change.version.digest if change.version else history.current.digest,
            )
            for history, change, action in steps
        )
        if marks and not steps:  # what was done with memories is told even where no observation rests on them
            told = {"bank": bank, "intent": intent, "at": now, "action": "corrected", "reason": reason, "by": PERSON}
            entries = (Entry.model_validate({**told, "cites": tuple(cites)}),)
        lineage = frozenset().union(*(change.lineage for _, change, _ in steps))
        plan = Intent(
            id=intent, bank=bank, kind="revise", created_at=now, shown=tuple(sorted(lineage | set(cites))),
            changes=tuple(change for _, change, _ in steps), marks=tuple(marks), entries=entries, by=PERSON,
        )
        await carry_out(self._parts, plan, lease)
        log.info("revised", extra={"action": "revised", "observations": len(steps), "memories": len(marks)})

    async def _history(self, bank: str, id: str) -> History:
        found = await self._parts.ledger.histories(bank, [id])
        if not found:
            raise NotFound(f'bank "{bank}" has no observation {id}')
        return found[0]


def _vector(history: History) -> list[float]:
    return history.vectors.get(history.current.number, [])
