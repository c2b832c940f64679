"""Forget: erase memories and put right what rested on them, by lineage, without a model; and prove it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import uuid4

from pydantic import JsonValue

from consolidator.errors import StoreUnavailable
from consolidator.models import (
    ErasedObservation,
    Memory,
    MemoryState,
    ObservationState,
    Receipt,
    Tags,
    Verification,
    Version,
    scope_key,
)
from consolidator.paging import pages
from consolidator.parts import Parts
from consolidator.plans import Change, Entry, History, Intent, Lease, MemoryMark
from consolidator.points import memory_of
from consolidator.ports import AnyOf, Equals, Leg, Point, Where
from consolidator.provenance import Erasure, after_image, comes_back, erase, given_way, without
from consolidator.redo import barrier, carry_out
from consolidator.words import plain, wordings

log = logging.getLogger("consolidator.forgetting")

AT_ONCE = 100  # observations in one plan
TWINS = 8  # nearest observations among which one may say the very same
MANY = 1_000_000
FINGERPRINT = 16  # hexadecimal digits of a digest


@dataclass(frozen=True, slots=True)
class _Touched:
    history: History
    erasure: Erasure

    def purged_texts(self) -> list[str]:
        return [v.text for v in self.history.versions if v.number in self.erasure.purge and v.text]


class Forgetting:
    """Erases from a bank. What it needs: the ids of the memories; all else follows from the ledger's index of lineage."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def select(self, bank: str, asked: dict[str, JsonValue], where: Where) -> list[Memory]:
        """The memories that a request names, collected whole before anything is written."""
        going = {stone.memory_id for stone in await self._parts.ledger.tombstones(bank, open_only=True)}
        found = [memory_of(bank, p) async for p in pages(self._parts.memories, bank, where) if p.id not in going]
        log.info("forget_selected", extra={"action": "forget_selected", "memories": len(found), "by": sorted(asked)})
        return found

    async def plan(self, bank: str, asked: dict[str, JsonValue], memories: Sequence[Memory]) -> Receipt:
        """The receipt that would be; nothing is changed."""
        touched = await self._touched(bank, frozenset(m.id for m in memories))
        receipt = self._receipt(bank, asked, memories, "planned")
        return await self._filled(receipt, touched, [said for m in memories for said in (m.text, m.spoken)])

    async def accept(self, bank: str, asked: dict[str, JsonValue], memories: Sequence[Memory]) -> Receipt:
        """The point of no return: from here on nothing that rests on these memories is served."""
        touched = await self._touched(bank, frozenset(m.id for m in memories))
        receipt = self._receipt(bank, asked, memories, "accepted")
        receipt = await self._filled(receipt, touched, [said for m in memories for said in (m.text, m.spoken)])
        gone = [*(m.text for m in memories), *(text for t in touched for text in t.purged_texts())]
        receipt = receipt.model_copy(update={"fingerprints": await self._fingerprints(bank, gone)})
        await self._parts.ledger.entomb(receipt, receipt.memories)
        await self._parts.embedder.forget([m.spoken for m in memories])
        with suppress(StoreUnavailable):  # it is accepted: they are hidden, and go when it is settled
            await self._parts.memories.delete(bank, receipt.memories)
        return receipt

    async def _fingerprints(self, bank: str, texts: Iterable[str]) -> tuple[str, ...]:
        digest = await self._parts.digest(bank)
        return tuple(sorted({digest(wording)[:FINGERPRINT] for text in texts for wording in wordings(text)}))

    async def settle(self, bank: str, lease: Lease) -> list[Receipt]:
        """Carry out every accepted erasure of the bank, oldest first. Needs the lease, and all plans finished."""
        accepted = await self._parts.ledger.receipts(bank, accepted_only=True)
        return [await self._settle(receipt, lease) for receipt in accepted]

    async def _settle(self, receipt: Receipt, lease: Lease) -> Receipt:
        bank, erased = receipt.bank, frozenset(receipt.memories)
        if await self._parts.ledger.unfinished(bank):
            await barrier(self._parts, bank)  # bodies of applied plans may hold the text
        await self._drop_points(bank, receipt.memories)
        touched, rows = await self._each_once(bank, await self._touched(bank, erased)), 0
        # before the plans purge them: after a kill nobody would know these texts any more
        await self._parts.embedder.forget([text for t in touched for text in t.purged_texts()])
        for start in range(0, max(1, len(touched)), AT_ONCE):
            rows += await self._carry_out(receipt, touched[start : start + AT_ONCE], lease)
        await self._say_again(receipt, lease)
        receipt = await self._filled(receipt, touched, [])
        receipt = receipt.model_copy(update={"state": "settled", "journal_rows": rows})
        await self._parts.ledger.settle(receipt)  # its own plans hold clean texts alone: whoever comes next closes them
        log.info("forgotten", extra={"action": "forgotten", "memories": len(erased), "observations": len(touched)})
        return receipt

    async def _drop_points(self, bank: str, ids: Sequence[str]) -> None:
        """What a kill in the middle of `accept` has left."""
        left = [memory_of(bank, point) for point in await self._parts.memories.get(bank, ids)]
        await self._parts.embedder.forget([memory.spoken for memory in left])
        await self._parts.memories.delete(bank, ids)

    async def _carry_out(self, receipt: Receipt, touched: Sequence[_Touched], lease: Lease) -> int:
        bank, intent = receipt.bank, str(uuid4())
        marks = await self._reopened(bank, {m for t in touched for m in t.erasure.reopened})
        pairs = [(t, after_image(t.history, t.erasure, self._parts.clock())) for t in touched]
        entries = tuple(self._entry(receipt, intent, t, change) for t, change in pairs)
        plan = Intent(
            id=intent, bank=bank, kind="forget", created_at=self._parts.clock(), changes=tuple(change for _, change in pairs),
            marks=tuple(marks), entries=entries, erased=receipt.memories, by="forget",
        )
        return await carry_out(self._parts, plan, lease)

    async def _say_again(self, receipt: Receipt, lease: Lease) -> None:
        """What only the erased had put right is as it was said, and told anew."""
        where = (AnyOf("corrected_by", receipt.memories),)
        wrong = [memory_of(receipt.bank, point) async for point in pages(self._parts.memories, receipt.bank, where)]
        if not wrong:
            return
        marks = tuple(MemoryMark(memory_id=m.id, rev=m.rev, state=MemoryState.PENDING, corrected_by="") for m in wrong)
        plan = Intent(
            id=str(uuid4()), bank=receipt.bank, kind="forget", created_at=self._parts.clock(), marks=marks,
            erased=receipt.memories, by="forget",
        )
        await carry_out(self._parts, plan, lease)

    async def _reopened(self, bank: str, ids: set[str]) -> list[MemoryMark]:
        points = await self._parts.memories.get(bank, sorted(ids))
        memories = [memory_of(bank, point) for point in points]
        return [
            MemoryMark(memory_id=m.id, rev=m.rev, state=MemoryState.PENDING) for m in memories if m.state is MemoryState.DONE
        ]

    def _entry(self, receipt: Receipt, intent: str, touched: _Touched, change: Change) -> Entry:
        text = change.after.text if change.version else None
        return Entry(
            bank=receipt.bank, intent=intent, at=self._parts.clock(), action=touched.erasure.case.value,
            observation_id=change.after.id, version=change.after.version if change.version else None, after=text,
            reason=f"receipt {receipt.id}", by="forget", digest=touched.history.current.digest,
        )

    async def _touched(self, bank: str, erased: frozenset[str]) -> list[_Touched]:
        ids = await self._parts.ledger.resting_on(bank, sorted(erased))
        histories = await self._parts.ledger.histories(bank, ids)
        return [_Touched(history, erase(history, erased)) for history in histories]

    async def _each_once(self, bank: str, touched: Sequence[_Touched]) -> list[_Touched]:
        """A text that would come back gives way to a live observation that has come to say the same."""
        ids, said = {t.history.observation.id for t in touched}, dict[tuple[Tags, str], tuple[str, frozenset[str]]]()
        settled: list[_Touched] = []
        for t in sorted(touched, key=lambda t: comes_back(t.history, t.erasure)):  # those that stand anyway come first
            keep, here = t.erasure.keep, t.history.observation
            if keep is not None and keep.state is ObservationState.LIVE:
                place = (here.tags, plain(keep.text or ""))
                back = comes_back(t.history, t.erasure)
                other = said.get(place) or (await self._saying(bank, t.history, keep, ids) if back else None)
                said[place] = other or (here.id, keep.lineage)
                t = _Touched(t.history, given_way(t.erasure, *other)) if back and other else t
            settled.append(t)
        return settled

    async def _saying(self, bank: str, history: History, keep: Version, but: Set[str]) -> tuple[str, frozenset[str]] | None:
        """The live observation in scope with the text of a version, and its lineage."""
        where = (Equals("scope", scope_key(history.observation.tags)), Equals("state", ObservationState.LIVE.value))
        leg = Leg(name="twin", dense=history.vectors.get(keep.number) or None, where=where, limit=TWINS)
        leg = leg if leg.dense else replace(leg, lexical=keep.text)
        (near,) = await self._parts.observations.search(bank, [leg])
        same = (f for f in near if f.id not in but and plain(f.payload["text"]) == plain(keep.text or ""))
        return next(((f.id, frozenset(f.payload["lineage_memory_ids"])) for f in same), None)

    def _receipt(self, bank: str, asked: dict[str, JsonValue], memories: Sequence[Memory], state: str) -> Receipt:
        return Receipt.model_validate({
            "id": str(uuid4()), "bank": bank, "asked": asked, "at": self._parts.clock(), "state": state,
            "memories": tuple(m.id for m in memories), "sources": tuple(sorted({m.source for m in memories})),
        })

    async def _filled(self, receipt: Receipt, touched: Sequence[_Touched], texts: Sequence[str]) -> Receipt:
        """With what is done to each observation. A receipt that is settled after a crash adds to what it had."""
        digest = await self._parts.digest(receipt.bank)
        told = {row.id: row for row in receipt.observations} | {t.history.observation.id: _row(t) for t in touched}
        gone = [*texts, *(text for t in touched for text in t.purged_texts())]
        said = [line for text in gone for line in dict.fromkeys([text, *text.splitlines()]) if line.strip()]
        digests = dict.fromkeys([*receipt.digests, *(digest(plain(line)) for line in said)])
        reopened = dict.fromkeys([*receipt.reopened, *(m for t in touched for m in sorted(t.erasure.reopened))])
        return receipt.model_copy(
            update={"observations": tuple(told.values()), "digests": tuple(digests), "reopened": tuple(reopened)}
        )

    async def verify(self, receipt: Receipt) -> Verification:
        """Search the store and the ledger for what was erased: its ids everywhere, its digests among all texts of the bank.

        A text that another memory, or a version with a clean lineage, holds too is no trace: it is known without the erased.
        """
        bank, erased = receipt.bank, set(receipt.memories)
        memories = [p async for p in pages(self._parts.memories, bank, ())]
        observations = [p async for p in pages(self._parts.observations, bank, ())]
        journal = await self._parts.ledger.journal(bank, limit=MANY)
        later = {f"journal/{entry.seq}" for entry in journal if entry.at >= receipt.at}
        told = await self._parts.ledger.texts(bank)
        texts = [(place, text) for place, text in told if place.rsplit("/", 1)[0] not in later]
        found = [] if erased else ["receipt: it erased nothing"]
        found += [f"memories/{p.id}: erased, but stored" for p in memories if p.id in erased]
        found += [f"memories/{p.id}: was put right by what was erased" for p in memories if _named(p) & erased]
        found += [f"observations/{p.id}: rests on what was erased" for p in observations if _named(p) & erased]
        resting = await self._parts.ledger.resting_on(bank, receipt.memories)
        found += [f"ledger/{id}: rests on what was erased" for id in resting]
        found += await self._lingering(receipt, [*memories, *observations], texts)
        found += await self._reworded(receipt, memories, observations, texts)
        stones = await self._parts.ledger.tombstones(bank, ids=receipt.memories, open_only=True)
        found += [f"tombstone/{stone.memory_id}: the erasure is not finished" for stone in stones]
        checked = {"memories": len(memories), "observations": len(observations), "ledger_texts": len(texts)}
        return Verification(receipt=receipt.id, checked=checked, found=tuple(found))

    async def _lingering(self, receipt: Receipt, points: Sequence[Point], texts: Sequence[tuple[str, str]]) -> list[str]:
        digest = await self._parts.digest(receipt.bank)
        purged = _purged(receipt)
        standing = [text for place, text in texts if place.startswith("version/") and place not in purged]
        known = {digest(plain(text)) for text in [*standing, *(str(p.payload.get("text", "")) for p in points)]}
        gone = set(receipt.digests) - known
        return [f"ledger/{place}: an erased text" for place, text in texts if place in purged or digest(plain(text)) in gone]

    async def _reworded(
        self, receipt: Receipt, memories: Sequence[Point], observations: Sequence[Point], texts: Sequence[tuple[str, str]]
    ) -> list[str]:
        """Texts with a run of words of what was erased, which no memory and no version with a clean lineage says too."""
        if not receipt.fingerprints:
            return []
        digest, gone = await self._parts.digest(receipt.bank), frozenset(receipt.fingerprints)
        told = [(f"observations/{p.id}", str(p.payload.get("text", ""))) for p in observations]
        told += [(f"ledger/{place}", text) for place, text in texts]
        runs = {(place, run) for place, text in told for run in wordings(text) if digest(run)[:FINGERPRINT] in gone}
        if not runs:
            return []
        standing = [text for place, text in texts if place.startswith("version/") and place not in _purged(receipt)]
        known = frozenset().union(*map(wordings, [*standing, *(memory_of(receipt.bank, p).dated for p in memories)]))
        return [f"{place}: words of an erased text" for place in sorted({place for place, run in runs if run not in known})]


async def readable(parts: Parts, bank: str, ids: Sequence[str]) -> list[History]:
    """Histories, as far as they may be told: of what is being erased there is nothing in them."""
    gone = {stone.memory_id for stone in await parts.ledger.tombstones(bank, open_only=True)}
    told = [h for history in await parts.ledger.histories(bank, ids) if (h := without(history, gone)) is not None]
    if not gone:
        return told
    read = {(id, number) for _, id, number in await parts.ledger.told_by_readers_of(bank, sorted(gone))}
    return [h.model_copy(update={"versions": tuple(_unreasoned(v, read) for v in h.versions)}) for h in told]


def _unreasoned(version: Version, read: Set[tuple[str | None, int | None]]) -> Version:
    """A reason may quote what its maker was shown."""
    unsaid: dict[str, object] = {"reason": ""}
    return version.model_copy(update=unsaid) if (version.observation_id, version.number) in read else version


def _purged(receipt: Receipt) -> set[str]:
    """The places of texts that must be gone."""
    return {f"version/{row.id}/{number}/text" for row in receipt.observations for number in row.purged_versions}


def _named(point: Point) -> set[str]:
    named = {*point.payload.get("evidence_memory_ids", ()), *point.payload.get("lineage_memory_ids", ())}
    return named | {corrected for corrected in [point.payload.get("corrected_by")] if corrected}


def _row(touched: _Touched) -> ErasedObservation:
    erasure, history = touched.erasure, touched.history
    before = history.current.number
    changed = erasure.keep is not None and erasure.keep.number != before
    after = None if erasure.keep is None else before + 1 if changed else before
    return ErasedObservation(
        id=history.observation.id, case=erasure.case, version_before=before, version_after=after, purged_versions=erasure.purge
    )
