"""The engine: banks of memories and their verbs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from consolidator import arguments
from consolidator.clock import Clock, system_clock
from consolidator.config import Settings, load
from consolidator.consolidation import Consolidation
from consolidator.errors import Conflict, ConsolidatorError, InvalidInput, NotFound
from consolidator.forgetting import Forgetting, pages
from consolidator.models import (
    Hit,
    Kind,
    Memory,
    MemoryState,
    Observation,
    ObservationState,
    Receipt,
    Retained,
    Stats,
    Trend,
    Trust,
    Verification,
    Version,
)
from consolidator.parts import Parts
from consolidator.plans import Entry, History, Lease, Parked, Report
from consolidator.points import memory_of, observation_of
from consolidator.ports import Condition, Embedder, Equals, Proposer, Range
from consolidator.provenance import without
from consolidator.recollection import Recollection
from consolidator.redo import barrier, finish_open_plans, lease_on
from consolidator.registry import open_parts
from consolidator.retention import Retainer
from consolidator.trends import trend_of

BANK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
HUSK_AGE = timedelta(hours=24)  # how long the shell of an erased observation fends off late writers


def connect(
    target: str | Path | None = None, *, settings: Settings | None = None, clock: Clock = system_clock,
    embedder: Embedder | None = None, proposer: Proposer | None = None,
) -> Connection:
    """Open a memory: a folder (embedded), or a `*.toml` file. `CONSOLIDATOR_*` variables come on top of either.

    Use it as `async with connect(...) as engine`. embedder, proposer: used instead of what the settings name, and closed with
    the engine. Entering it raises InvalidSettings, MissingProvider, StoreLocked, WrongEmbedder, NewerFormat, StoreUnavailable.
    """

    async def opened() -> Engine:
        told = settings or load(target)
        return Engine(await open_parts(told, clock, embedder=embedder, proposer=proposer), told)

    return Connection(opened)


class Connection:
    """An engine to be opened by `async with`, and closed at its end."""

    def __init__(self, opened: Callable[[], Awaitable[Engine]]) -> None:
        self._opened = opened
        self._engine: Engine | None = None

    async def __aenter__(self) -> Engine:
        self._engine = await self._opened()
        return self._engine

    async def __aexit__(self, *_: object) -> None:
        if self._engine is not None:
            await self._engine.close()

    def __enter__(self) -> NoReturn:
        raise InvalidInput("use `async with consolidator.connect(...)`, or `with consolidator.blocking.connect(...)`")

    def __exit__(self, *_: object) -> None: ...

    def __await__(self) -> NoReturn:
        raise InvalidInput("use `async with consolidator.connect(...) as engine`: it has to be closed again")


class _Services:
    """What the handles of one engine share."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self.parts = parts
        self.closed = False
        self.retainer = Retainer(parts, settings.retain)
        self.consolidation = Consolidation(parts, settings.consolidation)
        self.recollection = Recollection(parts, settings.recall)
        self.forgetting = Forgetting(parts)
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def changing(self, bank: str) -> AsyncIterator[Lease]:
        """The right to change a bank's observations, with everything that was left open finished first."""
        lock = self._locks.setdefault(bank, asyncio.Lock())
        async with lock, lease_on(self.parts, bank) as lease:
            await finish_open_plans(self.parts, bank)
            await self.forgetting.settle(bank, lease)
            yield lease


class Engine:
    """A deployment's banks. Made by `connect`."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self._parts = parts
        self._services = _Services(parts, settings)

    def bank(self, id: str) -> Bank:
        """The handle of a bank; no call on it can reach another one. It exists from its first retain on."""
        if not isinstance(id, str) or not BANK_ID.fullmatch(id):
            raise InvalidInput(
                "a bank's id starts with a letter or digit and goes on with letters, digits and . _ @ -, at most 128; no colon"
            )
        return Bank(self._services, id)

    async def banks(self) -> list[str]:
        return await self._parts.ledger.banks()

    async def describe(self) -> dict[str, dict[str, str]]:
        """What is in use, part by part."""
        embedder, proposer = self._parts.embedder, self._parts.proposer
        return {
            "store": await self._parts.storage.describe(),
            "ledger": await self._parts.ledger.describe(),
            "embedder": {"name": embedder.name, "dimension": str(embedder.dimension)},
            "consolidation": {"proposer": proposer.name},
        }

    async def close(self) -> None:
        """Afterwards every call says that the engine is closed. Closing twice is harmless."""
        if not self._services.closed:
            self._services.closed = True
            await self._parts.close()


class Bank:
    """One isolated memory. Times are aware datetimes; a naive one is refused."""

    def __init__(self, services: _Services, id: str) -> None:
        self._shared = services
        self.id = id

    @property
    def _services(self) -> _Services:
        if self._shared.closed:
            raise ConsolidatorError("this engine is closed; open it again with connect")
        return self._shared

    @property
    def _parts(self) -> Parts:
        return self._services.parts

    async def retain(  # noqa: PLR0913 (one keyword for each field of a memory)
        self, text: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]], *, source: str | None = None,
        speaker: str | None = None, sequence: int | None = None, occurred_at: datetime | None = None, tags: Iterable[str] = (),
        kind: Kind = "world", metadata: Mapping[str, Any] | None = None, trust: int = Trust.USER,
    ) -> Retained:
        """Keep a text, or a list of texts or of mappings with these fields; what an item says comes before the arguments.

        Durable when it returns. The same text of the same source, speaker and time is one memory, however often sent. Long
        text is split at sentence borders. Raises InvalidInput before anything is written; Conflict while it is being erased.
        """
        shared = {
            "source": source, "speaker": speaker, "sequence": sequence, "occurred_at": occurred_at, "kind": kind,
            "tags": arguments.tag_set(tags), "metadata": dict(metadata or {}), "trust": trust,
        }
        raw = [{**shared, **item} for item in arguments.items_of(text)]
        if any(item["source"] is None for item in raw):
            raise InvalidInput("every memory needs a source: the conversation or document that it came from, as it is deleted")
        kept = await self._services.retainer.retain(self.id, raw)
        self._services.recollection.changed(self.id)
        return kept

    async def recall(  # noqa: PLR0913 (one keyword for each filter)
        self, query: str, *, top_k: int = 10, token_budget: int | None = None,
        kinds: Iterable[str] = ("memory", "observation"), tags: Iterable[str] = (), since: datetime | None = None,
        until: datetime | None = None, as_of: datetime | None = None, explain: bool = False,
    ) -> list[Hit]:
        """Ranked hits, best first. tags: a hit carries all of them. since, until: event times. as_of: what was known then."""
        asked = {"text": query, "top_k": top_k, "token_budget": token_budget, "kinds": arguments.kind_set(kinds),
                 "tags": arguments.tag_set(tags), "since": since, "until": until, "as_of": as_of, "explain": explain}
        return await self._services.recollection.recall(self.id, arguments.valid_query(asked))

    async def consolidate(self, *, limit: int | None = None, dry_run: bool = False) -> Report:
        """Digest what is pending, oldest first, at most `limit` memories. dry_run: the actions that would be, nothing changed.

        Raises ModelUnavailable, ModelBusy, ModelDenied; what was done before is kept, and the rest stays pending.
        """
        if limit is not None and limit < 1:
            raise InvalidInput(f"limit is {limit}; it is at least 1, or None for all")
        async with self._services.changing(self.id) as lease:
            while not dry_run and await self._services.retainer.embed_waiting(self.id):
                pass
            try:
                return await self._services.consolidation.run(
                    self.id, lease, erase=lambda: self._settle(lease), limit=limit, dry_run=dry_run
                )
            finally:
                await barrier(self._parts, self.id)

    async def _settle(self, lease: Lease) -> None:
        await self._services.forgetting.settle(self.id, lease)

    async def forget(
        self, *, memory_ids: Iterable[str] | None = None, source: str | None = None, tags: Iterable[str] | None = None,
        dry_run: bool = False,
    ) -> Receipt:
        """Erase memories (those that match all that is given), and put right what rested on them. Returns the receipt.

        When it returns, nothing derived from them is served. The receipt's state says how far it is: "settled"; "accepted",
        while another worker holds the bank and rolls back with its next step; "nothing", when no memory matched.
        """
        tagged = sorted(arguments.tag_set(tags or ())) or None
        asked: dict[str, Any] = {"memory_ids": arguments.ids_of(memory_ids), "source": source, "tags": tagged}
        asked = {key: value for key, value in asked.items() if value is not None}
        forgetting = self._services.forgetting
        memories = await forgetting.select(self.id, asked, arguments.erasure_filter(asked))
        if dry_run or not memories:
            planned = await forgetting.plan(self.id, asked, memories)
            return planned if dry_run else planned.model_copy(update={"state": "nothing"})
        receipt = await forgetting.accept(self.id, asked, memories)
        self._services.recollection.changed(self.id)
        try:
            async with self._services.changing(self.id):
                await self._drop_husks()
        except Conflict:
            return receipt
        return next(r for r in await self._parts.ledger.receipts(self.id) if r.id == receipt.id)

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

    async def receipts(self) -> list[Receipt]:
        return await self._parts.ledger.receipts(self.id)

    async def observations(self, *, tags: Iterable[str] = (), trend: Trend | str | None = None) -> list[Observation]:
        """All live ones, by creation. trend: only those."""
        tagged = (Equals("tags", tag) for tag in arguments.tag_set(tags))
        where: list[Condition] = [Equals("state", ObservationState.LIVE.value), *tagged]
        entombed = await self._entombed()
        found = [p async for p in pages(self._parts.observations, self.id, where)]
        served = [observation_of(self.id, p) for p in found if not entombed & {*p.payload["lineage_memory_ids"]}]
        told = [self._told(o) for o in served]
        wanted = arguments.one_of(Trend, trend, "trend")
        return sorted((o for o in told if wanted in (None, o.trend)), key=lambda o: (o.created_at, o.id))

    def _told(self, observation: Observation) -> Observation:
        return observation.model_copy(update={"trend": trend_of(observation.evidence, self._parts.clock())})

    async def observation(self, id: str) -> Observation:
        """Raises NotFound; erased ones are not there."""
        return self._told((await self._history(id)).observation)

    async def history(self, id: str) -> list[Version]:
        """Its versions, oldest first; purged ones without their text. Raises NotFound."""
        return list((await self._history(id)).versions)

    async def _history(self, id: str) -> History:
        gone = await self._entombed()
        histories = await self._parts.ledger.histories(self.id, [arguments.id_of(id)])
        if not histories or (told := without(histories[0], gone)) is None:
            raise NotFound(f'bank "{self.id}" has no observation {id}')
        return told

    async def _entombed(self) -> set[str]:
        """Memories whose erasure is under way. Read before anything else: what is read later may be put right already."""
        return {stone.memory_id for stone in await self._parts.ledger.tombstones(self.id, open_only=True)}

    async def journal(self, *, observation_id: str | None = None, limit: int = 1000) -> list[Entry]:
        """What was decided, why, on which evidence, by whom; oldest first."""
        gone = await self._entombed()
        resting = set(await self._parts.ledger.resting_on(self.id, sorted(gone))) if gone else set()
        entries = await self._parts.ledger.journal(self.id, observation_id=observation_id, limit=limit)
        withheld = {"before": None, "after": None, "reason": None}
        return [e.model_copy(update=withheld) if e.observation_id in resting or gone & {*e.cites} else e for e in entries]

    async def memory(self, id: str) -> Memory:
        """Raises NotFound."""
        gone = await self._entombed()
        points = await self._parts.memories.get(self.id, [arguments.id_of(id)])
        if not points or points[0].id in gone:
            raise NotFound(f'bank "{self.id}" has no memory {id}')
        return memory_of(self.id, points[0])

    async def memories(self, *, source: str | None = None, state: MemoryState | str | None = None) -> list[Memory]:
        """In the order in which they were retained."""
        where = [Equals("source", source)] if source is not None else []
        wanted = arguments.one_of(MemoryState, state, "state")
        where += [Equals("state", wanted.value)] if wanted is not None else []
        gone = await self._entombed()
        found = [memory_of(self.id, p) async for p in pages(self._parts.memories, self.id, where) if p.id not in gone]
        return sorted(found, key=lambda m: (m.retained_at, m.id))

    async def sources(self) -> dict[str, int]:
        """How many memories each source has."""
        return await self._parts.memories.facet(self.id, "source", limit=10_000)

    async def parked(self) -> list[Parked]:
        """Memories that failed in consolidation, with what happened."""
        gone = await self._entombed()
        rows = [row for row in await self._parts.ledger.parked(self.id) if row.memory_id not in gone]
        return [row.model_copy(update={"reply": ""}) for row in rows] if gone else rows  # a reply may quote what it was shown

    async def stats(self) -> Stats:
        states = await self._parts.memories.facet(self.id, "state")
        oldest = await self._parts.memories.scan(
            self.id, [Equals("state", MemoryState.PENDING.value)], order_by="retained_at", limit=1
        )
        spent = await self._parts.ledger.spent(self.id)
        trouble = [row for row in await self.parked() if row.reason]
        return Stats(
            bank=self.id, memories=sum(states.values()),
            observations=await self._parts.observations.count(self.id, [Equals("state", ObservationState.LIVE.value)]),
            pending=states.get("pending", 0), unembedded=states.get("unembedded", 0), parked=states.get("parked", 0),
            held=states.get("held", 0),
            oldest_pending=memory_of(self.id, oldest.points[0]).retained_at if oldest.points else None,
            last_error=max(trouble, key=lambda row: row.last_at).reason if trouble else None, open_plans=spent["open_plans"],
            open_tombstones=spent["open_tombstones"], passes=spent["passes"], model_calls=spent["calls"],
            prompt_tokens=spent["prompt_tokens"], reply_tokens=spent["reply_tokens"],
        )
