"""Export and import of a bank: lines that stand for themselves, and plans like any other for what an import changes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import uuid4, uuid5

from consolidator.errors import InvalidInput
from consolidator.forgetting import readable
from consolidator.models import Memory, MemoryState, Observation, ObservationState, Vector, Version, scope_key
from consolidator.paging import pages
from consolidator.parts import Parts
from consolidator.planning import NAMESPACE, evidence_of
from consolidator.plans import Change, Entry, History, Intent, Lease, MemoryMark
from consolidator.points import memory_of
from consolidator.portable import (
    Ending,
    Heading,
    Imported,
    Line,
    MemoryLine,
    ObservationLine,
    Parcel,
    VersionLine,
    lineage_of,
    memory_line,
    observation_line,
    since,
)
from consolidator.ports import AnyOf, Equals, Leg, Not
from consolidator.provenance import erase
from consolidator.redo import MOST_OPEN, barrier, carry_out
from consolidator.retention import Item, Retainer, RetainPolicy, checked_items
from consolidator.words import plain

log = logging.getLogger("consolidator.transfer")

PAGE = 64  # memories that are read, or embedded, at once
AT_ONCE = 50  # observations in one plan
NOT_DONE = (Not(Equals("state", MemoryState.DONE.value)),)
TOLD = (AnyOf("state", (ObservationState.LIVE.value, ObservationState.RETRACTED.value)),)
UNFINISHED = "its import was interrupted; import the file again"  # what memories wait for whose effect is not there yet
IMPORT = "import"
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class _Work:
    """How far an import has come."""

    bank: str
    lease: Lease
    parcel: Parcel
    digest: Callable[[str], str]
    now: datetime
    made: dict[str, Memory] = field(default_factory=dict)  # memories, by their ids in the file
    owed: dict[str, Memory] = field(default_factory=dict)  # that are done as soon as their observations are there
    anew: set[str] = field(default_factory=set)  # whose observation the bank says in its own words already
    there: dict[str, str] = field(default_factory=dict)  # observations in the bank, by their ids in the file
    said: dict[tuple[str, str], str] = field(default_factory=dict)  # scopes and texts
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Imported.model_fields, 0))

    def count(self, what: str, by: int = 1) -> None:
        self.done[what] += by

    def id_of(self, line: ObservationLine) -> str:
        """The same file gives the same id; what was erased since and is imported again is new, as its memories are."""
        rests = {self.made[id].id for n in range(len(line.versions)) for id in lineage_of(line, n + 1)}
        return str(uuid5(NAMESPACE, self.digest("\n".join(["observation", line.id, *sorted(rests)]))))

    def mark(self, id: str) -> MemoryMark | None:
        """That a memory has had its effect, where that is owed yet."""
        if (memory := self.owed.pop(id, None)) is None:
            return None
        return MemoryMark(memory_id=id, rev=memory.rev, state=MemoryState.DONE, corrected_by=memory.corrected_by)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """An observation on its way from version to version."""

    id: str
    line: ObservationLine
    begun: int = 0  # versions that are there, after an import that was interrupted


class Transfer:
    """Exports and imports banks of one deployment."""

    def __init__(self, parts: Parts, retainer: Retainer, policy: RetainPolicy) -> None:
        self._parts = parts
        self._retainer = retainer
        self._policy = policy

    # out

    async def export(self, bank: str) -> AsyncIterator[Line]:
        """Every record, page by page; of what is erased before a page is read there is nothing in it.

        Whatever is consolidated meanwhile, a memory is told to be digested only if it was when the export began: then its effect
        is in the file, else it is pending there.
        """
        yield Heading(bank=bank, at=self._parts.clock())
        began = dict[str, tuple[datetime, MemoryState]]()
        async for point in pages(self._parts.memories, bank, ()):
            memory = memory_of(bank, point)
            began[memory.id] = memory.retained_at, memory.state
        reasons = {row.memory_id: row.reason for row in await self._parts.ledger.parked(bank) if not row.reply}
        written, digested, told = set[str](), set[str](), 0
        for ids in _slices(sorted(began, key=lambda id: (began[id][0], id)), PAGE):
            gone = {stone.memory_id for stone in await self._parts.ledger.tombstones(bank, open_only=True)}
            for point in await self._parts.memories.get(bank, [id for id in ids if id not in gone]):
                state = began[point.id][1]
                held = reasons.get(point.id) if state is MemoryState.HELD else None
                written.add(point.id)
                digested |= {point.id} if state is MemoryState.DONE else set()
                yield memory_line(memory_of(bank, point), state, held)
        for ids in _slices([p.id async for p in pages(self._parts.observations, bank, TOLD)], PAGE):
            for history in await readable(self._parts, bank, ids):
                if (line := observation_line(history, written)) is not None:
                    told += 1
                    yield line
        yield Ending(memories=len(written), observations=told, pending=frozenset(await self._owed(bank) & digested))

    async def _owed(self, bank: str) -> set[str]:
        """Memories that are to be digested again, and those that will be when the erasures under way are settled."""
        gone = {stone.memory_id for stone in await self._parts.ledger.tombstones(bank, open_only=True)}
        resting = await self._parts.ledger.resting_on(bank, sorted(gone)) if gone else []
        again = {id for h in await self._parts.ledger.histories(bank, resting) for id in erase(h, gone).reopened}
        return again | {p.id async for p in pages(self._parts.memories, bank, NOT_DONE)}

    # in

    def check(self, parcel: Parcel) -> None:
        """Refuse, before anything is written, what `retain` would refuse. Raises InvalidInput, which names the line."""
        now = self._parts.clock()
        for id, line in parcel.memories.items():
            fields = {key: value for key, value in line if key in Item.model_fields}
            try:
                checked_items([fields], self._policy, now)
                self._retainer.refuse_secrets(line.text)
            except InvalidInput as error:
                raise InvalidInput(f"line {parcel.numbers[f'memory {id}']}: {error}") from None
        for id, told in parcel.observations.items():
            try:
                for version in told.versions:
                    if len(version.text) > self._policy.max_text:
                        raise InvalidInput(f"a version has {len(version.text):,} characters; at most {self._policy.max_text:,}")
                    self._retainer.refuse_secrets(f"{version.text}\n{version.reason}")
            except InvalidInput as error:
                raise InvalidInput(f"line {parcel.numbers[f'observation {id}']}: {error}") from None

    async def bring_in(self, bank: str, parcel: Parcel, lease: Lease) -> Imported:
        """Everything that the bank does not know yet. Interrupted at any point, the same again goes on where it stopped.

        Raises Conflict where what is imported is erased meanwhile, EmbedderUnavailable, StoreUnavailable.
        """
        work = _Work(
            bank=bank, lease=lease, parcel=parcel, digest=await self._parts.digest(bank), now=self._parts.clock()
        )
        await self._memories(work)
        lines = [self._masked(line, work.digest) for line in parcel.observations.values()]
        for depth in range(1 + max((_depth(line, parcel) for line in lines), default=0)):  # what is contested comes first
            for page in _slices([line for line in lines if _depth(line, parcel) == depth], AT_ONCE):
                await self._observations(work, page)
        await self._rest(work)
        await barrier(self._parts, bank)
        log.info("imported", extra={"action": "imported", **work.done})
        return Imported(**work.done)

    def _masked(self, line: ObservationLine, digest: Callable[[str], str]) -> ObservationLine:
        def told(version: VersionLine) -> VersionLine:
            text, reason = (self._retainer.masked(said, digest) for said in (version.text, version.reason))
            return version.model_copy(update={"text": text, "reason": reason})

        return line.model_copy(update={"versions": tuple(map(told, line.versions))})

    async def _memories(self, work: _Work) -> None:
        reasons = {row.memory_id: row.reason for row in await self._parts.ledger.parked(work.bank)}
        lines = list(work.parcel.memories.values())
        for start in range(0, len(lines), PAGE):
            page = lines[start : start + PAGE]
            told = [_memory(work, line, timedelta(microseconds=start + n)) for n, line in enumerate(page)]
            kept, fresh, masked = await self._retainer.adopt(work.bank, told)
            # held without a reason: an import was killed before it could say why
            new = {m.id for m in fresh}
            aside = {m.id for m in kept if m.state is MemoryState.HELD and m.id not in reasons}
            await self._aside(work, aside, list(zip(page, kept, strict=True)))
            for line, memory in zip(page, kept, strict=True):
                work.made[line.id] = memory
                own = memory.id in aside or reasons.get(memory.id) == UNFINISHED or memory.state is MemoryState.PENDING
                if line.state is MemoryState.DONE and own and line.id not in work.parcel.pending:
                    work.owed[memory.id] = memory
                elif memory.state is MemoryState.PENDING:
                    work.count("pending")
                elif memory.state is MemoryState.HELD and line.state is not MemoryState.HELD and memory.id in new:
                    work.count("held")  # the text gave orders
            work.count("memories", len(fresh))
            work.count("known_memories", len(page) - len(fresh))
            work.count("redacted", masked)
        for line in lines:  # corrections come after what they correct
            if line.corrected_by in work.made and (wrong := work.owed.get(work.made[line.id].id)):
                work.owed[wrong.id] = wrong.model_copy(update={"corrected_by": work.made[line.corrected_by].id})

    async def _aside(self, work: _Work, ids: set[str], pairs: Sequence[tuple[MemoryLine, Memory]]) -> None:
        """Nobody digests a memory whose effect is imported, nor one in quarantine."""
        reasons: dict[str, list[str]] = {}
        for line, memory in pairs:
            if memory.id in ids:
                held = line.state is MemoryState.HELD
                work.count("held", held)
                reasons.setdefault(line.held or "it was held where it came from" if held else UNFINISHED, []).append(memory.id)
        for reason, held_ids in reasons.items():
            await self._parts.ledger.hold(work.bank, held_ids, reason=reason, at=work.now, lease=work.lease)

    async def _observations(self, work: _Work, page: Sequence[ObservationLine]) -> None:
        texts = list(dict.fromkeys(v.text for line in page for v in line.versions))
        vectors = dict(zip(texts, await self._parts.embedder.embed(texts), strict=True))
        courses = await self._courses(work, page, vectors)
        for number in range(1, 1 + max((len(course.line.versions) for course in courses), default=0)):
            due = [course for course in courses if course.begun < number <= len(course.line.versions)]
            if due:
                steps = [(_change(work, course, number, vectors), _entry(work, course, number)) for course in due]
                await self._carry_out(work, [change for change, _ in steps], [entry for _, entry in steps])

    async def _courses(
        self, work: _Work, page: Sequence[ObservationLine], vectors: Mapping[str, Vector]
    ) -> list[_Course]:
        """Those that are to be made, or finished. What the bank says already in other records is told anew."""
        ids = {line.id: work.id_of(line) for line in page}
        histories = await self._parts.ledger.histories(work.bank, list(dict.fromkeys([*ids, *ids.values()])))
        there = {h.observation.id: h for h in histories}
        said = await self._said(work, page, vectors) | work.said
        courses: list[_Course] = []
        for line in page:
            begun, place = there.get(ids[line.id]), (scope_key(line.tags), plain(line.versions[-1].text))
            live = line.versions[-1].state is ObservationState.LIVE
            if begun is not None and _unfinished(begun, line, work.digest):
                courses.append(_Course(id=begun.observation.id, line=line, begun=begun.current.number))
            elif begun is not None or line.id in there or (live and place in said):
                work.there[line.id] = ids[line.id] if begun else line.id if line.id in there else said[place]
                work.count("known_observations")
                supporting = [e.memory_id for e in line.evidence if e.supports]
                work.anew |= {work.made[id].id for id in supporting if work.parcel.memories[id].corrected_by is None}
                continue
            else:
                courses.append(_Course(id=ids[line.id], line=line))
                work.count("observations")
            work.there[line.id] = ids[line.id]
            work.said |= {place: ids[line.id]} if live else {}
        return courses

    async def _said(
        self, work: _Work, page: Sequence[ObservationLine], vectors: Mapping[str, Vector]
    ) -> dict[tuple[str, str], str]:
        """What live observations say that lie next to these, with their ids."""
        legs = [
            Leg(name="said", dense=vectors[line.versions[-1].text], limit=3, where=(
                Equals("scope", scope_key(line.tags)), Equals("state", ObservationState.LIVE.value),
            ))
            for line in page
        ]
        lists = await self._parts.observations.search(work.bank, legs)
        return {(str(hit.payload["scope"]), plain(str(hit.payload["text"]))): hit.id for hits in lists for hit in hits}

    async def _rest(self, work: _Work) -> None:
        """Memories of which nothing durable had come, and those whose observation the bank knew in its own words."""
        for id in [id for id in work.owed if id in work.anew]:
            memory = work.owed.pop(id)
            work.count("pending")
            if memory.state is MemoryState.HELD:
                await self._parts.memories.patch(work.bank, id, {"state": MemoryState.PENDING.value}, expect=memory.rev)
                await self._parts.ledger.attempts_cleared(work.bank, [id])
        for ids in _slices(list(work.owed), PAGE):
            told = {"bank": work.bank, "intent": "", "at": work.now, "action": "nothing_durable", "by": IMPORT, "cites": ids}
            await self._carry_out(work, [], [Entry.model_validate({**told, "reason": "nothing had come of it"})])

    async def _carry_out(self, work: _Work, changes: Sequence[Change], entries: Sequence[Entry]) -> None:
        intent = str(uuid4())
        cited = dict.fromkeys(id for entry in entries for id in entry.cites)
        shown = cited | dict.fromkeys(id for entry in entries for id in entry.shown)
        plan = Intent(
            id=intent, bank=work.bank, kind="import", created_at=work.now, shown=tuple(shown), changes=tuple(changes),
            marks=tuple(mark for id in cited if (mark := work.mark(id))), by=IMPORT,
            entries=tuple(entry.model_copy(update={"intent": intent}) for entry in entries),
        )
        await carry_out(self._parts, plan, work.lease)
        if len(await self._parts.ledger.unfinished(work.bank)) >= MOST_OPEN:
            await barrier(self._parts, work.bank)


def _slices(told: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (told[start : start + size] for start in range(0, len(told), size))


def _memory(work: _Work, line: MemoryLine, later: timedelta) -> Memory:
    fields = {key: value for key, value in line if key in Memory.model_fields and value is not None}
    aside = line.state is MemoryState.HELD or (line.state is MemoryState.DONE and line.id not in work.parcel.pending)
    told = {"id": "", "bank": work.bank, "corrected_by": None, "retained_at": line.retained_at or work.now + later}
    state = MemoryState.HELD if aside else MemoryState.PENDING
    return Memory.model_validate({**fields, **told, "state": state})


def _unfinished(begun: History, line: ObservationLine, digest: Callable[[str], str]) -> bool:
    """It has the first versions of the line, and no others."""
    told = [digest(version.text) for version in line.versions]
    return len(begun.versions) < len(told) and [v.digest for v in begun.versions] == told[: len(begun.versions)]


def _change(work: _Work, course: _Course, number: int, vectors: Mapping[str, Vector]) -> Change:
    """The observation as its version `number` left it."""
    line, told = course.line, course.line.versions[number - 1]
    lineage = frozenset(work.made[id].id for id in lineage_of(line, number))
    known = [(work.made[e.memory_id], e) for e in line.evidence if since(line, e) <= number]
    linked = {m.id: evidence_of(m, since(line, e)).model_copy(update={"supports": e.supports}) for m, e in known}
    at = told.at or work.now
    after = Observation(
        id=course.id, bank=work.bank, text=told.text, tags=line.tags, state=told.state, confidence=told.confidence,
        version=number, rev=number - 1, evidence=tuple(linked.values()), created_at=line.versions[0].at or work.now,
        updated_at=at, contests=work.there.get(line.contests or ""), category=line.category,
    )
    version = Version(
        observation_id=course.id, number=number, text=told.text, digest=work.digest(told.text), state=told.state,
        confidence=told.confidence, lineage=lineage, why=frozenset(work.made[id].id for id in told.why), change=told.change,
        reason=told.reason, by=told.by or IMPORT, at=at,
    )
    base = None if number == 1 else number - 2
    return Change(after=after, base_rev=base, vector=vectors[told.text], lineage=lineage, version=version)


def _depth(line: ObservationLine, parcel: Parcel) -> int:
    """How many observations stand between it and one that contests nothing."""
    seen: set[str] = set()
    while line.contests in parcel.observations and line.id not in seen:
        seen.add(line.id)
        line = parcel.observations[line.contests]
    return len(seen)


def _entry(work: _Work, course: _Course, number: int) -> Entry:
    line, told = course.line, course.line.versions[number - 1]
    cites = dict.fromkeys(work.made[e.memory_id].id for e in line.evidence if since(line, e) == number)
    read = lineage_of(line, number) | told.why
    return Entry(
        bank=work.bank, intent="", at=work.now, action="imported", observation_id=course.id, version=number,
        before=line.versions[number - 2].text if number > 1 else None, after=told.text, reason=told.reason,
        cites=tuple(cites), shown=tuple(sorted(work.made[id].id for id in read)), by=told.by or IMPORT,
        digest=work.digest(told.text),
    )
