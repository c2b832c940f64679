"""A bank: one isolated memory, and the verbs on it."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar, cast
from uuid import uuid4

from consolidator import arguments
from consolidator.contexts import Context, context_block
from consolidator.errors import Conflict, InvalidInput, StoreError, StoreUnavailable
from consolidator.events import Called
from consolidator.invariants import Violation, violations
from consolidator.learning import LearningBank
from consolidator.measuring import Recorder
from consolidator.models import (
    Hit,
    Kind,
    Memory,
    Observation,
    ObservationState,
    Receipt,
    Retained,
    Trust,
    Verification,
)
from consolidator.paging import pages
from consolidator.plans import Report
from consolidator.points import memory_of
from consolidator.portable import Imported, parse
from consolidator.ports import Equals, Range
from consolidator.redo import barrier

P = ParamSpec("P")
T = TypeVar("T")
FORGET_WAIT = 2.0  # seconds; then whoever has the bank carries the erasure out
MANY = 1_000_000
HUSK_AGE = timedelta(hours=24)  # how long the shell of an erased observation fends off late writers


def _watched(verb: Callable[Concatenate[Bank, P], Awaitable[T]]) -> Callable[Concatenate[Bank, P], Coroutine[Any, Any, T]]:
    """Tells those who listen how long a verb took and how it ended."""

    @functools.wraps(verb)
    async def told(self: Bank, *args: P.args, **kwargs: P.kwargs) -> T:
        began, begun, error = datetime.now(UTC), time.perf_counter(), None
        try:
            return await verb(self, *args, **kwargs)
        except BaseException as problem:
            error = type(problem).__name__
            raise
        finally:
            seconds = time.perf_counter() - begun
            await self.events.tell(Called(verb=verb.__name__, bank=self.id, began=began, seconds=seconds, error=error))

    return cast("Callable[Concatenate[Bank, P], Coroutine[Any, Any, T]]", told)


class Bank(LearningBank):
    """One isolated memory. Times are aware datetimes; a naive one is refused."""

    @_watched
    async def retain(  # noqa: PLR0913 (one keyword for each field of a memory)
        self, text: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]], *, source: str | None = None,
        speaker: str | None = None, sequence: int | None = None, occurred_at: datetime | None = None, tags: Iterable[str] = (),
        kind: Kind = "world", metadata: Mapping[str, Any] | None = None, trust: int = Trust.USER, replace: bool = False,
    ) -> Retained:
        """Keep a text, or a list of texts or of mappings with these fields; what an item says comes before the arguments.

        Durable when it returns. The same text of the same source, speaker and time is one memory, however often sent. Long
        text is split at sentence borders. replace: this is all that the source says now; what it said besides is forgotten, and
        `replaced` is the receipt. Raises InvalidInput before anything is written; Conflict while it is being erased.
        """
        shared = {
            "source": source, "speaker": speaker, "sequence": sequence, "occurred_at": occurred_at, "kind": kind,
            "tags": arguments.tag_set(tags), "metadata": dict(metadata or {}), "trust": trust,
        }
        raw = [{**shared, **item} for item in arguments.items_of(text)]
        if any(item["source"] is None for item in raw):
            raise InvalidInput("every memory needs a source: the conversation or document that it came from, as it is deleted")
        sources = {item["source"] for item in raw}
        if replace and len(sources) > 1:
            raise InvalidInput(f"replace takes one source at a time; these are of {len(sources)}")
        kept = await self._services.retainer.retain(self.id, raw)
        self._services.recollection.changed(self.id)
        if kept.new > kept.held:
            await self._services.wake(self.id, new=kept.new - kept.held)
        return kept if not replace else await self._replaced(kept)

    async def _replaced(self, kept: Retained) -> Retained:
        """The new edition is safe; now what it does not say any more goes."""
        edition, source = {m.id for m in kept.memories}, kept.memories[0].source
        gone = [m.id for m in await self.memories(source=source) if m.id not in edition]
        open_ones = await self._parts.ledger.receipts(self.id, accepted_only=True)  # of somebody who died over this edition
        return kept.model_copy(update={"replaced": await self.forget(memory_ids=gone)}) if gone or open_ones else kept

    @_watched
    async def recall(  # noqa: PLR0913 (one keyword for each filter)
        self, query: str, *, top_k: int = 10, token_budget: int | None = None,
        kinds: Iterable[str] = ("memory", "observation"), tags: Iterable[str] = (), since: datetime | None = None,
        until: datetime | None = None, as_of: datetime | None = None, asked_at: datetime | None = None, explain: bool = False,
    ) -> list[Hit]:
        """Ranked hits, best first, each statement once; none where nothing answers. tags: a hit carries all of them.

        since, until: event times. as_of: what was known then. asked_at: from when "last spring" is counted, else as_of, or now.
        """
        asked = {"text": query, "top_k": top_k, "token_budget": token_budget, "kinds": arguments.kind_set(kinds),
                 "tags": arguments.tag_set(tags), "since": since, "until": until, "as_of": as_of, "asked_at": asked_at,
                 "explain": explain}
        hits = await self._services.recollection.recall(self.id, arguments.valid_query(asked))
        await self._services.echoes.note(self.id, hits)
        return hits

    async def recall_context(  # noqa: PLR0913 (one keyword for each filter)
        self, query: str, *, token_budget: int = 800, top_k: int = 20, kinds: Iterable[str] = ("memory", "observation"),
        tags: Iterable[str] = (), since: datetime | None = None, until: datetime | None = None, as_of: datetime | None = None,
        asked_at: datetime | None = None,
    ) -> Context:
        """What `recall` finds as a block for a prompt, fenced as data, with a handle for each hit; `reason` where it is empty.

        token_budget: of the whole block, as it is handed over.
        """
        budget = arguments.budget(token_budget)
        hits = await self.recall(
            query, top_k=top_k, kinds=kinds, tags=tags, since=since, until=until, as_of=as_of, asked_at=asked_at
        )
        return context_block(hits, budget=budget)

    def transcript(self, id: str | None = None) -> Recorder:
        """Record a conversation: what is recalled in it, said and answered. id: the same for the same conversation."""
        clock = self._parts.clock
        return Recorder(id or str(uuid4()), recall=self.recall, keep=self.keep_transcript, clock=clock)

    @_watched
    async def consolidate(self, *, limit: int | None = None, dry_run: bool = False) -> Report:
        """Digest what is pending, oldest first, at most `limit` memories. dry_run: the actions that would be, nothing changed.

        Raises ModelUnavailable, ModelBusy, ModelDenied; what was done before is kept, and the rest stays pending.
        """
        if limit is not None and limit < 1:
            raise InvalidInput(f"limit is {limit}; it is at least 1, or None for all")
        return await self._services.jobs.consolidate(self.id, limit=limit, dry_run=dry_run)

    async def pause(self, reason: str) -> None:
        """No consolidation until `resume`; the bank takes and recalls memories all the same."""
        await self._parts.ledger.pause(self.id, arguments.said(reason, "reason"))

    async def resume(self) -> None:
        """Consolidate again, what waits at once."""
        await self._parts.ledger.pause(self.id, None)
        self._services.worker.nudge()

    @_watched
    async def import_(self, lines: Iterable[str | bytes | Mapping[str, Any]]) -> Imported:
        """Add what `export` wrote: an open file, or its lines. What the bank knows already stays as it is.

        Memories keep their times and texts, observations their versions; all get ids of this bank. Interrupted at any point, the
        same again goes on where it stopped. Raises InvalidInput, naming the line, before anything is written; Conflict.
        """
        parcel = parse(lines)
        self._services.transfer.check(parcel)
        async with self._services.jobs.changing(self.id) as lease:
            done = await self._services.transfer.bring_in(self.id, parcel, lease)
        self._services.recollection.changed(self.id)
        if done.pending:
            await self._services.wake(self.id, new=done.pending)
        return done

    @_watched
    async def forget(
        self, *, memory_ids: Iterable[str] | None = None, source: str | None = None, tags: Iterable[str] | None = None,
        before: datetime | None = None, everything: bool = False, max_erased: int | None = None, scrub: bool = False,
        dry_run: bool = False,
    ) -> Receipt:
        """Erase memories (those that match all that is given), and put right what rested on them. Returns the receipt.

        before: what happened, or was retained where that is unknown, before a time. everything: the whole bank. max_erased: raise
        InvalidInput where it would be more, and erase nothing. scrub: return when the bytes are gone from the files, too.
        When it returns, nothing derived from them is served. The receipt's state says how far it is: "settled"; "scrubbed";
        "accepted", while another worker holds the bank and rolls back with its next step; "nothing", when no memory matched.
        """
        told = {"memory_ids": memory_ids, "source": source, "tags": tags, "before": before, "everything": everything}
        asked, where = arguments.erasure(told)
        forgetting, jobs = self._services.forgetting, self._services.jobs
        memories = await forgetting.select(self.id, asked, where)
        if max_erased is not None and len(memories) > max_erased:
            raise InvalidInput(f"{len(memories):,} memories match, and max_erased is {max_erased:,}; nothing was erased")
        if dry_run or not memories:
            planned = await forgetting.plan(self.id, asked, memories)
            for transcript in await self._parts.ledger.transcripts(self.id, limit=MANY) if everything and not dry_run else []:
                await self._parts.ledger.transcript_scored(self.id, transcript)  # they hold what was said, too
            return planned if dry_run else await self._repeated(planned)
        receipt = await forgetting.accept(self.id, asked, memories)
        self._services.recollection.changed(self.id, gone=receipt.memories)
        self._services.importance.changed(self.id)
        jobs.erased(self.id, receipt.memories)
        try:
            async with jobs.changing(self.id, wait=FORGET_WAIT, over=receipt.memories):
                await self._drop_husks()
        except (Conflict, StoreUnavailable):  # it is accepted, and whoever comes next carries it out
            await self._services.wake(self.id, new=0, urgent=True)
        else:
            await self._services.wake(self.id, new=0)  # what was re-opened is told anew by itself
        if scrub:
            await self._services.scrub()
        now = next(r for r in await self._parts.ledger.receipts(self.id) if r.id == receipt.id)
        return now.model_copy(update={"fingerprints": receipt.fingerprints})

    async def _repeated(self, planned: Receipt) -> Receipt:
        """Nothing is left to erase. Whoever says it again because a process died over it gets the receipt of that."""
        if not (accepted := await self._parts.ledger.receipts(self.id, accepted_only=True)):
            return planned.model_copy(update={"state": "nothing"})
        await self._services.jobs.settle(self.id)
        mine = {receipt.id for receipt in accepted if receipt.asked == planned.asked}
        now = [receipt for receipt in await self._parts.ledger.receipts(self.id) if receipt.id in mine]
        return now[-1] if now else planned.model_copy(update={"state": "nothing"})

    async def _drop_husks(self) -> None:
        old = (Equals("state", ObservationState.ERASED.value), Range("updated_at", lt=self._parts.clock() - HUSK_AGE))
        husks = [p.id async for p in pages(self._parts.observations, self.id, old)]
        await self._parts.observations.delete(self.id, husks)

    async def verify(self, receipt: Receipt) -> Verification:
        """Search every store for what a receipt says was erased. A receipt that erased nothing proves nothing: not ok."""
        if not isinstance(receipt, Receipt):
            raise InvalidInput("verify takes a Receipt, as forget returned it or receipts() lists it")
        if receipt.bank != self.id:
            raise InvalidInput(f'the receipt is of bank "{receipt.bank}", not of "{self.id}"')
        return await self._services.forgetting.verify(receipt)

    async def revert(self, id: str, version: int, *, reason: str) -> Observation:
        """Let an earlier version's text stand again, as a new version; also of a deleted observation. Evidence stays attached.

        A person's doing: no model overwrites it. Raises NotFound, InvalidInput, and Conflict for a version that was erased.
        """
        why = arguments.said(reason, "reason")
        async with self._services.jobs.changing(self.id) as lease:
            done = await self._services.revision.revert(self.id, arguments.id_of(id), version, why, lease)
        return self._told(done)

    async def correct(self, id: str, text: str, *, reason: str = "corrected", source: str | None = None) -> Memory:
        """A person's word on an observation, or on a memory; returned is the memory that holds it.

        An observation gets the text as a version that no model overwrites and that rests on the correction alone. A memory
        stays as it was said, and names its correction; what was derived from it is told anew. source: "correction", or that of
        the corrected memory. Raises NotFound, InvalidInput.
        """
        why, text = arguments.said(reason, "reason"), arguments.statement(text)
        wrong = await self._parts.memories.get(self.id, [arguments.id_of(id)])
        told: dict[str, Any] = {"text": text, "source": source or "correction", "metadata": {"corrects": id}}
        if wrong:  # it takes the place of what was said: by whom, when, in which scope
            said = memory_of(self.id, wrong[0])
            told |= {"source": source or said.source, "tags": said.tags, "speaker": said.speaker, "occurred_at": said.occurred_at}
        else:
            told["tags"] = (await self.observation(id)).tags
        async with self._services.jobs.changing(self.id) as lease:
            (correction,) = (await self._services.retainer.retain(self.id, [told])).memories
            if wrong:
                await self._services.revision.disown(self.id, memory_of(self.id, wrong[0]), correction, why, lease)
            else:
                await self._services.revision.correct(self.id, id, correction, why, lease)
        self._services.recollection.changed(self.id)
        await self._services.wake(self.id, new=1)
        return await self.memory(correction.id)

    async def undo(self, intent: str, *, reason: str) -> list[Observation]:
        """Take a whole pass back, as the journal names it: its observations are as before, its memories are held.

        Raises NotFound; Conflict, changing nothing, when one of the observations has moved on since.
        """
        why = arguments.said(reason, "reason")
        async with self._services.jobs.changing(self.id) as lease:
            return [self._told(o) for o in await self._services.revision.undo(self.id, intent, why, lease)]

    async def replay(self, memory_ids: Iterable[str] | None = None) -> list[Memory]:
        """Give parked and held memories (all, where none is named) back to consolidation. Raises NotFound for any other."""
        async with self._services.jobs.changing(self.id):
            memories = await self._services.parking.replay(self.id, arguments.ids_of(memory_ids))
        await self._services.wake(self.id, new=len(memories))
        return memories

    async def drop(self, memory_ids: Iterable[str], *, reason: str) -> list[Memory]:
        """Let consolidation give up on parked or held memories: they stay verbatim, and become evidence of nothing. To erase
        them, `forget` them. Raises NotFound for a memory that is neither.
        """
        ids, why = arguments.ids_of(memory_ids) or [], arguments.said(reason, "reason")
        async with self._services.jobs.changing(self.id) as lease:
            dropped = await self._services.parking.drop(self.id, ids, why, lease)
            await barrier(self._parts, self.id)
            return dropped

    async def check(self, *, acknowledged: Iterable[str] | None = None) -> list[Violation]:
        """Hold the bank's store and its ledger against each other, at rest; empty: all that the engine promises holds.

        acknowledged: ids of memories that a retain returned; each has to be stored, or erased. Raises Conflict while another
        worker has the bank.
        """
        ids = arguments.ids_of(acknowledged) or []
        try:
            async with self._services.jobs.changing(self.id):
                await barrier(self._parts, self.id)
                return await self._examined(ids)
        except StoreError as error:  # what was left open cannot be finished; the rest can still be looked at
            return [Violation(kind="stuck", what=str(error)), *await self._examined(ids)]

    async def _examined(self, acknowledged: Sequence[str]) -> list[Violation]:
        memories = {p.id: p async for p in pages(self._parts.memories, self.id, ())}
        observations = {p.id: p async for p in pages(self._parts.observations, self.id, ())}
        tables = await self._parts.ledger.dump(self.id)  # last: an erasure that begins meanwhile is known to be under way
        return violations(
            tables, bank=self.id, memories=memories, observations=observations, now=self._parts.clock(),
            acknowledged=acknowledged,
        )
