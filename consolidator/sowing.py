"""What was drawn from a stretch of a session becomes evidence and observations: retained first, then one plan for all of it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from pydantic import ValidationError

from consolidator.contexts import name
from consolidator.errors import ErasedMeanwhile
from consolidator.events import ObservationChanged
from consolidator.extraction import Item, Known
from consolidator.gathering import Gathering, GatheringPolicy
from consolidator.merging import Weighed, citable, decided, scope_of, trust_of, twin_of
from consolidator.models import Memory, MemoryState, Observation, Tags, Trust, Vector, scope_key
from consolidator.paging import pages
from consolidator.parts import Parts
from consolidator.planning import Guards, Planned, Planner, intent_id
from consolidator.plans import Entry, History, Intent, Lease, MemoryMark
from consolidator.points import memory_of
from consolidator.ports import AnyOf, Equals
from consolidator.proposals import Batch, Candidate, Proposal, ShownMemory
from consolidator.provenance import uncited_origins
from consolidator.records import Mark, SessionRecord, Step, marked, project_scope
from consolidator.recounting import sentence
from consolidator.redo import carry_out
from consolidator.retention import Retainer
from consolidator.stretches import HANDED, cut, told

log = logging.getLogger("consolidator.sowing")

OPEN = (MemoryState.WAITING, MemoryState.PENDING)  # states in which a memory has had no effect yet
RECORDED, UNCITED = "the record of a harvested stretch", "no item rests on it"
SPEAKERS = {"assistant": "agent", "system": "prompt"}  # "assistant: ..." at the head of a text looks like a forged turn
QUOTE = 3_900  # characters: longer ones would be torn apart
NO_EVIDENCE, MIXED = "no evidence", "another scope"  # why an item was dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """record: of it. steps: what is shown of the session's steps, by place. at: when a step was taken that has no time.
    marked: the mark of all steps before one.
    """

    record: SessionRecord
    steps: Mapping[int, Step]
    at: datetime | None
    marked: Callable[[int], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a reader took out of a stretch. unsound: items that broke a rule. extractive: texts hold only what they cite."""

    items: tuple[Item, ...]
    by: str
    extractive: bool
    faults: tuple[str, ...] = ()
    unsound: int = 0
    prompt_digest: str = ""
    calls: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sown:
    """What became of it. items: new ones, by category. dropped: by reason."""

    items: Mapping[str, int]
    confirmed: int
    corrected: int
    contested: int
    dropped: Mapping[str, int]


@dataclass(slots=True, kw_only=True)
class _Work:
    """A stretch on its way into the ledger."""

    lease: Lease
    stretch: Stretch
    drawn: Drawn
    known: Mapping[str, Known]
    intent: str
    records: Sequence[Memory]  # one, but where a deployment splits even short texts
    quotes: Mapping[tuple[int, Tags], list[Memory]]  # equal texts of several steps can be one memory
    digest: Callable[[str], str]
    now: datetime
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)  # memories that what is planned rests on
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def bank(self) -> str:
        return self.lease.bank


class Sowing:
    """Keeps evidence and plans what it comes to. Runs under the bank's lease."""

    def __init__(self, parts: Parts, retainer: Retainer, *, twin_cosine: float, protected: int) -> None:
        self._parts = parts
        self._retainer = retainer
        self._gathering = Gathering(parts, GatheringPolicy())
        self._guards = Guards(min_confidence=0.0, twin_cosine=twin_cosine)
        self._protected = protected

    async def sow(self, lease: Lease, stretch: Stretch, drawn: Drawn, known: Sequence[Known]) -> Sown:
        """Raises Conflict, ErasedMeanwhile and LeaseLost where it is to be drawn anew; EmbedderUnavailable."""
        bank = lease.bank
        targets = {k.alias: k for k in known}
        drawn, mixed = await asyncio.to_thread(_unmixed, stretch, drawn, targets)
        records, quotes = await self._retained(bank, stretch, drawn, targets)
        work = _Work(
            lease=lease, stretch=stretch, drawn=drawn, known=targets, intent=intent_id(bank, [(m.id, m.rev) for m in records]),
            records=records, quotes=quotes, digest=await self._parts.digest(bank), now=self._parts.clock(),
            dropped=Counter({MIXED: mixed} if mixed else {}),
        )
        texts = list(dict.fromkeys(item.text for item in drawn.items))
        work.vectors = dict(zip(texts, await self._parts.embedder.embed(texts), strict=True)) if texts else {}
        planned = await self._planned(work)
        await self._carry_out(work, planned)
        return _sown(planned, work.dropped)

    async def _retained(
        self, bank: str, stretch: Stretch, drawn: Drawn, known: Mapping[str, Known]
    ) -> tuple[list[Memory], dict[tuple[int, Tags], list[Memory]]]:
        """The record, and the quotes by step and scope."""
        project, targets = stretch.record.project, {alias: k.observation for alias, k in known.items()}
        wanted = dict.fromkeys((n, scope_of(item, targets, project)) for item in drawn.items for n in item.steps)
        cited = [(n, tags) for n, tags in wanted if _says_something(stretch.steps[n])]
        raw = [_record_item(stretch), *(_quote_item(stretch, n, tags, self._parts.clock()) for n, tags in cited)]
        kept = await self._retainer.retain(bank, raw, waiting=True)
        records, *quotes = _by_item(kept.memories)
        return records, dict(zip(cited, quotes, strict=True))

    # the plan

    async def _planned(self, work: _Work) -> list[Planned]:
        """One for each scope, the first one's observations numbered first."""
        project, targets = work.stretch.record.project, {alias: k.observation for alias, k in work.known.items()}
        scopes: dict[Tags, list[Item]] = {}
        for item in work.drawn.items:
            scopes.setdefault(scope_of(item, targets, project), []).append(item)
        planned: list[Planned] = []
        for tags, items in sorted(scopes.items(), key=lambda pair: scope_key(pair[0])):
            made = sum(p.count("created") + p.count("contested") for p in planned)
            planned.append(await self._in_scope(work, tags, items, made))
        return planned

    async def _in_scope(self, work: _Work, tags: Tags, items: Sequence[Item], first: int) -> Planned:
        mine = (m for (_, scope), memories in work.quotes.items() if scope == tags for m in memories)
        shown = list({m.id: m for m in mine if citable(m)}.values())
        memories = tuple(ShownMemory(alias=f"m{n}", memory=m) for n, m in enumerate(shown, 1))
        batch = Batch(bank=work.bank, tags=tags, memories=memories, now=work.now)
        near = await self._gathering.nearest(batch, [work.vectors[item.text] for item in items])
        read = {k.observation.id: k.history for k in work.known.values() if k.observation.tags == tags}
        known = {**read, **near}
        candidates = {id: Candidate(alias=f"o{n}", observation=h.observation) for n, (id, h) in enumerate(known.items(), 1)}
        weighed = [w for item in items if (w := self._weighed(work, item, batch, known, candidates)) is not None]
        record = work.stretch.record
        actions = decided(weighed, source=record.session, protected=self._protected, by=work.drawn.by)
        named = {action.observation or action.contests for action in actions}
        told = tuple(c for c in candidates.values() if c.observation.id in read or c.alias in named)
        batch = batch.model_copy(update={"candidates": told})
        work.read |= {m.id for m in shown}.union(*(h.current.lineage for h in read.values()))
        return Planner(
            intent=work.intent, batch=batch, known=known, vectors=work.vectors, now=work.now, by=work.drawn.by,
            digest=work.digest, guards=self._guards, first=first, cited_only=True,
        ).plan(Proposal(actions=actions, extractive=work.drawn.extractive))

    def _weighed(
        self, work: _Work, item: Item, batch: Batch, known: Mapping[str, History], candidates: Mapping[str, Candidate]
    ) -> Weighed | None:
        """None for an item whose evidence is held back, or is what recall had handed out."""
        own = {m.id for n in item.steps for m in work.quotes.get((n, batch.tags), ())}
        rests_on = [s for s in batch.memories if s.memory.id in own]
        if not rests_on:
            work.dropped[NO_EVIDENCE] += 1
            return None
        same, against = (work.known[alias].observation if alias else None for alias in (item.confirms, item.contradicts))
        if same is None and against is None:
            same = twin_of(item.text, work.vectors[item.text], known.values(), batch.tags, self._guards.twin_cosine)
        return Weighed(
            item=item, evidence=tuple(s.alias for s in rests_on), time=max(s.memory.time for s in rests_on),
            same=_named(same, candidates), against=_named(against, candidates),
        )

    async def _carry_out(self, work: _Work, planned: Sequence[Planned]) -> None:
        bank, drawn = work.bank, work.drawn
        quotes = {m.id: m for memories in work.quotes.values() for m in memories}
        stale = await self._stale(work, {*quotes, *(m.id for m in work.records)})
        taken = [*work.records, *(m for m in quotes.values() if m.state in OPEN), *stale]
        entries = [entry for p in planned for entry in p.entries]
        cited = {id for entry in entries for id in entry.cites}
        entries += [_uncited(work, m) for m in taken if m.id not in cited]
        changes = tuple(change for p in planned for change in p.changes)
        shown = work.read.union((m.id for m in taken), *(change.lineage for change in changes))
        intent = Intent(
            id=work.intent, bank=bank, kind="consolidate", created_at=work.now, shown=tuple(sorted(shown)), changes=changes,
            marks=tuple(MemoryMark(memory_id=m.id, rev=m.rev, state=MemoryState.DONE) for m in taken), entries=tuple(entries),
            by=drawn.by, prompt_digest=drawn.prompt_digest, calls=drawn.calls, prompt_tokens=drawn.prompt_tokens,
            reply_tokens=drawn.reply_tokens,
        )
        try:
            await carry_out(self._parts, intent, work.lease)
        except ErasedMeanwhile:
            await self._parts.embedder.forget(list(work.vectors))  # some were derived from what is gone
            raise
        said = {change.after.text for change in changes}
        await self._parts.embedder.forget([text for text in work.vectors if text not in said])
        for done in (done for p in planned for done in p.done):
            await self._parts.events.tell(ObservationChanged(bank=bank, done=done))

    async def _stale(self, work: _Work, but: set[str]) -> list[Memory]:
        """What a harvest has kept that was killed before its plan, of steps that are digested now."""
        record = work.stretch.record
        found = await kept(self._parts, work.bank, record.session, ("session", "quote"))
        waiting = [m for m in found if m.state is MemoryState.WAITING and m.id not in but]
        return [m for m in waiting if _end(m) <= record.last and _of_session(m, work.stretch.marked)]


def _unmixed(stretch: Stretch, drawn: Drawn, known: Mapping[str, Known]) -> tuple[Drawn, int]:
    """Items that draw on a known one of another scope, which no step says: what is said of the project stays in it, and other
    items are left out, as nobody could take them back with what they draw on. Returns how many were.
    """
    project, targets = stretch.record.project, {alias: k.observation for alias, k in known.items()}
    steps = [told(stretch.steps[n]) for n in range(stretch.record.first, stretch.record.last)]
    times = [stretch.record.at] if stretch.record.at else []
    items: list[Item] = []
    for item in drawn.items:
        tags = scope_of(item, targets, project)
        foreign = [o for o in targets.values() if o.tags != tags] if item.confirms is None else []
        given = [*steps, *(o.text for o in targets.values() if o.tags == tags)] if foreign else []
        drawn_on = [o for o in foreign if uncited_origins(item.text, given, {o.id: o.text}, times)]
        if drawn_on and item.everywhere and item.contradicts is None:
            items.append(item.model_copy(update={"everywhere": False}))
        elif not drawn_on:
            items.append(item)
    return replace(drawn, items=tuple(items)), len(drawn.items) - len(items)


async def kept(parts: Parts, bank: str, session: str, roles: Sequence[str]) -> list[Memory]:
    """What was kept of a session in these roles, and is not being erased."""
    where = (Equals("source", session), AnyOf("role", tuple(roles)))
    found = [memory_of(bank, point) async for point in pages(parts.memories, bank, where)]
    stones = await parts.ledger.tombstones(bank, ids=[m.id for m in found]) if found else []
    gone = {stone.memory_id for stone in stones}
    return [m for m in found if m.id not in gone]


def record_of(memory: Memory) -> SessionRecord | None:
    """None: no record, or none that this version can read."""
    mark = marked(memory)
    try:
        return SessionRecord.model_validate(mark.data) if mark and mark.role == "session" else None
    except ValidationError:
        return None


def _by_item(memories: Iterable[Memory]) -> list[list[Memory]]:
    """What was retained, by the items that it was retained from: a long one comes in parts."""
    items: list[list[Memory]] = []
    for memory in memories:
        items += [[]] if memory.part == 0 else []
        items[-1].append(memory)
    return items


def _end(memory: Memory) -> int:
    """The step up to which a quote or a record reaches, without it."""
    record = record_of(memory)
    return record.last if record else (memory.sequence or 0) + 1


def _of_session(memory: Memory, marked: Callable[[int], str]) -> bool:
    """Not the record of another session that was given the same name: its stretch is not digested yet."""
    record = record_of(memory)
    return record is None or record.digest == marked(record.last)


def _record_item(stretch: Stretch) -> dict[str, object]:
    record = stretch.record
    mark = Mark(role="session", about=record.project, data=record.model_dump(mode="json"))
    return {
        "text": sentence(record), "source": record.session, "kind": "experience", "occurred_at": record.at,
        "tags": project_scope(record.project), "metadata": mark.metadata(), "trust": Trust.USER,
    }


def _says_something(step: Step) -> bool:
    """Of its own: what memory had handed out is no evidence."""
    return bool(told(step).replace(HANDED, "").strip())


def _quote_item(stretch: Stretch, place: int, tags: Tags, now: datetime) -> dict[str, object]:
    step, record = stretch.steps[place], stretch.record
    at, speaker = step.at or stretch.at, name(step.tool) or SPEAKERS.get(step.role, step.role)
    return {
        "text": cut(told(step), QUOTE), "source": record.session, "sequence": place, "speaker": speaker,
        "occurred_at": at if at and at <= now else None, "kind": "experience", "tags": tags,
        "metadata": Mark(role="quote", about=record.project, data=_ended(step)).metadata(), "trust": trust_of(step),
    }


def _ended(step: Step) -> dict[str, bool]:
    return {} if step.failed is None else {"failed": step.failed}


def _named(observation: Observation | None, candidates: Mapping[str, Candidate]) -> tuple[str, Observation] | None:
    return (candidates[observation.id].alias, observation) if observation and observation.id in candidates else None


def _uncited(work: _Work, memory: Memory) -> Entry:
    """That a memory is accounted for though nothing came of it."""
    reason = RECORDED if record_of(memory) else UNCITED
    reason = "recall had handed it out: no new evidence" if memory.echo else reason
    return Entry(
        bank=work.bank, intent=work.intent, at=work.now, action="nothing_durable", cites=(memory.id,), reason=reason,
        by=work.drawn.by, digest=work.digest(""),
    )


def _sown(planned: Iterable[Planned], dropped: Counter[str]) -> Sown:
    told = list(planned)
    changes = [change for p in told for change in p.changes]
    new = Counter(str(c.after.category) for c in changes if c.base_rev is None)
    counts = {what: sum(p.count(what) for p in told) for what in ("reinforced", "updated", "contested", "skipped")}
    dropped.update({"skipped": counts["skipped"]} if counts["skipped"] else {})
    return Sown(
        items=new, confirmed=counts["reinforced"], corrected=counts["updated"], contested=counts["contested"], dropped=dropped,
    )
