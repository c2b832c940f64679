"""Retain: guard, split, embed, store as pending. What is kept when it returns survives a kill."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar
from uuid import uuid5

from pydantic import Field, ValidationError

from consolidator import secrets
from consolidator.echoes import Echoes
from consolidator.errors import Conflict, EmbedderUnavailable, InvalidInput
from consolidator.models import Kind, Memory, MemoryState, Retained, Tags, Time, Trust, Value, Vector, scope_key
from consolidator.parts import Parts
from consolidator.planning import NAMESPACE
from consolidator.points import memory_of, memory_point
from consolidator.ports import ABSENT, Equals, Point, PutOutcome
from consolidator.records import reported
from consolidator.tripwires import suspicion
from consolidator.words import split

log = logging.getLogger("consolidator.retention")

REFUSED = 3  # texts, at once and at first, by which a dead embedder is told from a text that it dislikes
MAX_NAME = 512  # characters of a source, a speaker, a tag
MAX_METADATA_DEPTH = 20
TICK = timedelta(microseconds=1)


class RetainPolicy(Value):
    """max_text: characters of one text. part: longer texts are split at sentence borders. future: of an event time. quarantine:
    texts of tools and agents that look like orders are held until a person releases them; they are kept and found all the same.
    """

    max_text: int = Field(default=16_384, ge=1)
    part: int = Field(default=4_000, ge=100)
    max_items: int = Field(default=1_000, ge=1)
    future: timedelta = timedelta(days=1)
    secrets: Literal["redact", "reject", "off"] = "redact"
    quarantine: bool = True


class Item(Value):
    """A text as it is handed to `retain`, checked for its types."""

    text: str
    source: str = Field(min_length=1, max_length=MAX_NAME)
    sequence: int | None = Field(default=None, ge=0, lt=2**63)
    speaker: str | None = Field(default=None, min_length=1, max_length=MAX_NAME)
    occurred_at: Time | None = None
    tags: Tags = frozenset()
    kind: Kind = "world"
    metadata: dict[str, Any] = Field(default_factory=dict)
    trust: Trust = Trust.USER


def checked_items(raw: Sequence[dict[str, Any]], policy: RetainPolicy, now: datetime) -> list[Item]:
    """Refuse what cannot be kept, naming the item and what would be right. Nothing has been written."""
    if not raw:
        raise InvalidInput("there is nothing to retain: give a text, or a list of at least one")
    if len(raw) > policy.max_items:
        raise InvalidInput(f"{len(raw)} texts at once; at most {policy.max_items}, send them in batches")
    items = []
    for number, fields in enumerate(raw):
        where = f"item {number}: " if len(raw) > 1 else ""
        try:
            item = Item.model_validate(fields)
        except ValidationError as error:
            raise InvalidInput(where + _first_problem(error)) from None
        if problem := _problem(item, policy, now):
            raise InvalidInput(where + problem)
        items.append(item)
    return items


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f'there is no field "{field}"; known are {", ".join(Item.model_fields)}'
    return f"{field}: {problem['msg'].removeprefix('Value error, ')}"


def _problem(item: Item, policy: RetainPolicy, now: datetime) -> str | None:
    if not item.text.strip():
        return "the text is blank"
    if len(item.text) > policy.max_text:
        return f"the text has {len(item.text):,} characters; at most {policy.max_text:,}, split it into several"
    if item.occurred_at is not None and item.occurred_at > now + policy.future:
        return f"occurred_at {item.occurred_at:%Y-%m-%d} lies in the future; it says when it happened, not what it is about"
    named = {"text": item.text, "source": item.source, "speaker": item.speaker or "-"}
    named |= {f"tag {n}": tag for n, tag in enumerate(sorted(item.tags))}
    for field, value in named.items():
        if problem := _text_problem(value):
            return f"{field} {problem}"
    return _metadata_problem(item.metadata)


def _text_problem(value: str) -> str | None:
    if not value.strip():
        return "is blank"
    if "\0" in value:
        return "holds a NUL character; remove it"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "holds half a surrogate pair: it was not decoded rightly; decode it as UTF-8 with errors='replace'"
    return None


def _metadata_problem(value: Any, depth: int = 0) -> str | None:
    if depth > MAX_METADATA_DEPTH:
        return f"metadata is nested more than {MAX_METADATA_DEPTH} deep"
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else "metadata holds an integer beyond 64 bits; keep it as a text"
    if isinstance(value, float):
        return None if value - value == 0 else "metadata holds a number that is not finite"
    if isinstance(value, str):
        return None if not value or (problem := _text_problem(value + "-")) is None else f"metadata {problem}"
    if isinstance(value, dict | list | tuple):
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        return next((problem for part in inner if (problem := _metadata_problem(part, depth + 1))), None)
    return f"metadata holds a {type(value).__name__}; it takes what JSON takes"


Told = TypeVar("Told", Item, Memory)


class Retainer:
    """Keeps texts of one deployment."""

    def __init__(self, parts: Parts, policy: RetainPolicy, echoes: Echoes) -> None:
        self._parts = parts
        self._echoes = echoes
        self._policy = policy
        self._last = datetime.min.replace(tzinfo=UTC)

    async def retain(self, bank: str, raw: Sequence[dict[str, Any]], *, waiting: bool = False) -> Retained:
        """waiting: in the state of that name, for a plan of their own; then raises EmbedderUnavailable, too.

        Raises InvalidInput before anything is written, Conflict while a source is being erased, StoreUnavailable."""
        now = self._parts.clock()
        items = checked_items(raw, self._policy, now)
        items, redacted = await self._guarded(bank, items)
        memories = await self._numbered(bank, self._split(bank, items, now))
        known = {point.id: memory_of(bank, point) for point in await self._parts.memories.get(bank, [m.id for m in memories])}
        fresh = list({m.id: m for m in memories if m.id not in known}.values())
        echoes = await self._echoes.among(bank, [m.text for m in fresh])
        fresh = [m.model_copy(update={"echo": echo and not reported(m)}) for m, echo in zip(fresh, echoes, strict=True)]
        vectors = await self._vectors(fresh)
        if waiting:
            if vectors is None:
                raise EmbedderUnavailable
            fresh = [m.model_copy(update={"state": MemoryState.WAITING}) for m in fresh]
        if vectors is None:
            fresh = [m.model_copy(update={"state": MemoryState.UNEMBEDDED}) for m in fresh]
        doubts = {m.id: doubt for m in fresh if (doubt := self._doubt(m))}
        fresh = [m.model_copy(update={"state": MemoryState.HELD}) if m.id in doubts else m for m in fresh]
        points = [memory_point(m, vectors[n] if vectors else None) for n, m in enumerate(fresh)]
        written = await self._stored(bank, points)
        await self._hold(bank, doubts)
        kept = known | {m.id: m for m in fresh}
        log.info("retained", extra={"action": "retained", "new": written, "known": len(known)})
        return Retained(
            memories=tuple(kept[m.id] for m in memories), new=written, embedded=vectors is not None, redacted=redacted,
            held=len(doubts),
        )

    def _doubt(self, memory: Memory) -> str | None:
        trusted = memory.trust >= Trust.USER or not self._policy.quarantine
        return None if trusted else suspicion(memory.spoken)

    async def _hold(self, bank: str, doubts: Mapping[str, str]) -> None:
        """The reasons; the state stands on the memories already."""
        for memory, doubt in doubts.items():
            await self._parts.ledger.hold(bank, [memory], reason=doubt, at=self._parts.clock())

    async def adopt(self, bank: str, memories: Sequence[Memory]) -> tuple[list[Memory], list[Memory], int]:
        """Keep memories that were told elsewhere, with their times and in their states; one that is known stays as it is.

        Returns all of them as they are stored, the new ones, and how many secrets were masked. Raises as `retain`, and
        EmbedderUnavailable before anything is written.
        """
        guarded, masked = await self._guarded(bank, list(memories))
        told = await self._numbered(bank, guarded)
        known = {point.id: memory_of(bank, point) for point in await self._parts.memories.get(bank, [m.id for m in told])}
        fresh = list({m.id: m for m in told if m.id not in known}.values())
        doubts = {m.id: doubt for m in fresh if m.state is MemoryState.PENDING and (doubt := self._doubt(m))}
        fresh = [m.model_copy(update={"state": MemoryState.HELD}) if m.id in doubts else m for m in fresh]
        vectors = await self._parts.embedder.embed([m.spoken for m in fresh]) if fresh else []
        await self._stored(bank, [memory_point(m, vector) for m, vector in zip(fresh, vectors, strict=True)])
        await self._hold(bank, doubts)
        kept = known | {m.id: m for m in fresh}
        return [kept[m.id] for m in told], fresh, masked

    def refuse_secrets(self, text: str) -> None:
        """Raises InvalidInput for a text that may not be kept even masked."""
        found = secrets.find(text) if self._policy.secrets != "off" else []
        if found and (self._policy.secrets == "reject" or any(s.kind == "private-key" for s in found)):
            raise InvalidInput(f"it holds a secret ({', '.join(f'{s.kind} at {s.start}' for s in found)}); remove it")

    def masked(self, text: str, digest: Callable[[str], str]) -> str:
        """Without its secrets."""
        found = secrets.find(text) if self._policy.secrets != "off" else []
        return secrets.mask(text, found, digest) if found else text

    async def _guarded(self, bank: str, items: list[Told]) -> tuple[list[Told], int]:
        if self._policy.secrets == "off":
            return items, 0
        digest, masked, guarded = await self._parts.digest(bank), 0, []
        for number, item in enumerate(items):
            try:
                self.refuse_secrets(item.text)
            except InvalidInput as error:
                raise InvalidInput(str(error).replace("it holds", f"item {number} holds", 1)) from None
            found = secrets.find(item.text)
            masked += len(found)
            guarded.append(item.model_copy(update={"text": secrets.mask(item.text, found, digest)}) if found else item)
        return guarded, masked

    def _split(self, bank: str, items: list[Item], now: datetime) -> list[Memory]:
        """One memory for each part, in an order that their times keep."""
        pieces = [(item, part, text) for item in items for part, text in enumerate(split(item.text, self._policy.part))]
        now = max(now, self._last + TICK)  # what came later is later, whatever the clock does
        self._last = now + len(pieces) * TICK
        return [
            Memory(
                id="", bank=bank, text=text, source=item.source, sequence=item.sequence, part=part, speaker=item.speaker,
                tags=item.tags, kind=item.kind, occurred_at=item.occurred_at, retained_at=now + number * TICK,
                metadata=item.metadata, trust=item.trust,
            )
            for number, (item, part, text) in enumerate(pieces)
        ]

    async def _numbered(self, bank: str, memories: list[Memory]) -> list[Memory]:
        """With their ids: equal content has one id, but what was erased and is told again is new."""
        digest = await self._parts.digest(bank)
        told = [0] * len(memories)
        while True:
            ids = [_content_id(digest, memory, again) for memory, again in zip(memories, told, strict=True)]
            stones = {stone.memory_id: stone for stone in await self._parts.ledger.tombstones(bank, ids=ids)}
            if any(stone.open for stone in stones.values()):
                raise Conflict("this text is being erased; retain it again when the erasure is done")
            if not stones:
                return [memory.model_copy(update={"id": id}) for memory, id in zip(memories, ids, strict=True)]
            told = [again + (id in stones) for again, id in zip(told, ids, strict=True)]

    async def _vectors(self, memories: list[Memory]) -> list[Vector] | None:
        try:
            return await self._parts.embedder.embed([memory.spoken for memory in memories]) if memories else []
        except EmbedderUnavailable:
            log.warning("embedder_unavailable", extra={"action": "embedder_unavailable", "waiting": len(memories)})
            return None

    async def _stored(self, bank: str, points: list[Point]) -> int:
        if not points:
            return 0
        outcomes = await self._parts.memories.put(bank, points, expect=ABSENT)
        if PutOutcome.LOST in outcomes:
            raise Conflict("an id is taken by another bank; nothing of this bank was overwritten")
        erased = [stone.memory_id for stone in await self._parts.ledger.tombstones(bank, ids=[p.id for p in points])]
        if erased:  # a forget came between: it has the last word
            await self._parts.embedder.forget([memory_of(bank, p).spoken for p in points if p.id in erased])
            await self._parts.memories.delete(bank, erased)
            raise Conflict("this text was erased while it was retained; retain it again if that is meant")
        return sum(outcome is PutOutcome.WRITTEN for outcome in outcomes)

    async def embed_waiting(self, bank: str, limit: int = 256) -> int:
        """Give vectors to memories that were stored while the embedder was down."""
        waiting = (Equals("state", MemoryState.UNEMBEDDED.value),)
        page = await self._parts.memories.scan(bank, waiting, limit=limit)
        memories = [memory_of(bank, point) for point in page.points]
        try:
            vectors = await self._parts.embedder.embed([memory.spoken for memory in memories]) if memories else []
        except EmbedderUnavailable:
            return await self._embed_singly(bank, memories)
        for memory, vector in zip(memories, vectors, strict=True):
            await self._give_vector(bank, memory, vector)
        return len(memories)

    async def _embed_singly(self, bank: str, memories: Sequence[Memory]) -> int:
        """One text that the embedder refuses must not keep the others waiting. Raises EmbedderUnavailable when it takes none."""
        refused: list[Memory] = []
        for memory in memories:
            try:
                (vector,) = await self._parts.embedder.embed([memory.spoken])
            except EmbedderUnavailable:
                refused.append(memory)
                if len(refused) == REFUSED and len(refused) == memories.index(memory) + 1:
                    raise  # the first ones, one after the other: it is down
            else:
                await self._give_vector(bank, memory, vector)
        if len(refused) == len(memories):
            raise EmbedderUnavailable
        for memory in refused:
            await self._parts.memories.patch(bank, memory.id, {"state": MemoryState.HELD.value}, expect=memory.rev)
            await self._hold(bank, {memory.id: "the embedder refuses this text"})
        return len(memories)

    async def _give_vector(self, bank: str, memory: Memory, vector: Vector) -> None:
        changes = {"state": MemoryState.PENDING.value}
        await self._parts.memories.give_vector(bank, memory.id, vector, changes, expect=memory.rev)


def _content_id(digest: Any, memory: Memory, again: int) -> str:
    when = memory.occurred_at.isoformat() if memory.occurred_at else ""
    content = [memory.source, when, memory.speaker or "", scope_key(memory.tags), str(memory.part), memory.text, str(again)]
    return str(uuid5(NAMESPACE, digest("\0".join(content))))
