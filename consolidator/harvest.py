"""Harvest: an agent's session becomes knowledge, stretch by stretch; each stretch is one frozen plan.

Kept of a stretch are its record, the steps that its items cite, and the items as observations. Killed at any instant and run
again, it has nothing twice and nothing missing: a stretch without a plan is read again, and what was kept of it is kept once.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from pydantic import Field

from consolidator import extraction, gleaning, recounting, stretches
from consolidator.asking import Asking, Priced
from consolidator.dialogue import Answered, answered
from consolidator.errors import BadReply, Conflict, InvalidInput, ModelRefused, ModelTooLong
from consolidator.extraction import Item, Known
from consolidator.masking import Masking
from consolidator.models import MemoryState, ObservationState, Value, scope_key
from consolidator.paging import pages
from consolidator.parts import Parts
from consolidator.plans import Lease
from consolidator.ports import AnyOf, Equals, Leg
from consolidator.records import KNOWLEDGE, LESSON, SessionLog, SessionRecord, Step, project_scope
from consolidator.retention import Retainer
from consolidator.sampling import outcome
from consolidator.sowing import Drawn, Sowing, Stretch, kept, record_of

log = logging.getLogger("consolidator.harvest")

TRIES = 3  # of a stretch, of which something is erased meanwhile
QUERIES = 8  # steps by whose meaning known items are looked for
QUERY = 600  # characters of each
NEAR = 0.3  # cosine of a known item, at least
SECRET = "a secret"  # why an item was dropped

Changing = Callable[[], AbstractAsyncContextManager[Lease]]
Progress = Callable[[int, int], Awaitable[None] | None]  # stretches that are done, of how many


class HarvestPolicy(Value):
    """window_tokens: of a stretch, as it is shown. max_items: of one. known: items shown beside it, at most. quote: characters
    of a step that are shown and kept. secrets: "refuse" takes no session that holds one. personal: addresses, telephone and card
    numbers. twin_cosine: as in the guards of consolidation. protected_proof: what so many sources say no one session overrules.
    """

    window_tokens: int = Field(default=6_000, ge=500, le=200_000)
    reply_tokens: int = Field(default=2_500, ge=200)
    max_items: int = Field(default=12, ge=1, le=30)
    known: int = Field(default=extraction.KNOWN, ge=0, le=extraction.KNOWN)
    quote: int = Field(default=1_500, ge=200, le=4_000)
    secrets: Literal["redact", "refuse"] = "redact"
    personal: Literal["redact", "keep"] = "redact"
    twin_cosine: float = Field(default=0.92, ge=0, le=1)
    protected_proof: int = Field(default=3, ge=1)


class Harvested(Value):
    """What a harvest did. stretches: read now; skipped: read before. items: new ones, by category; those of a session that says
    the same again are confirmed, and what contradicts something is contested, or has corrected it. dropped: by reason.
    by: stretches, by what read them. planned: of a dry run, the items that would be weighed; steps count from 0.
    """

    session: str
    project: str
    dry_run: bool = False
    stretches: int = 0
    skipped: int = 0
    items: dict[str, int] = Field(default_factory=dict)
    confirmed: int = 0
    corrected: int = 0
    contested: int = 0
    dropped: dict[str, int] = Field(default_factory=dict)
    redacted: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    by: dict[str, int] = Field(default_factory=dict)
    faults: tuple[str, ...] = ()
    planned: tuple[Item, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Run:
    """A session on its way."""

    bank: str
    log: SessionLog
    project: str
    agent: str | None
    dry: bool
    ask: bool
    digest: Callable[[str], str]
    hashed: Sequence[str]
    masking: Masking
    marks: dict[int, str] = field(default_factory=dict)
    briefings: Mapping[int, str] | None = None  # by the steps that show them
    seen: dict[int, Step] = field(default_factory=dict)  # what is shown of steps: masked, condensed
    sizes: dict[int, int] = field(default_factory=dict)  # tokens of what is shown
    weights: dict[int, int] = field(default_factory=dict)  # and of all that is there
    tally: Counter[str] = field(default_factory=Counter)
    items: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    by: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    planned: list[Item] = field(default_factory=list)

    @property
    def end(self) -> int:
        return len(self.log.steps)

    def marked(self, last: int) -> str:
        """The mark of all steps before `last`."""
        if last not in self.marks:
            self.marks[last] = recounting.mark(self.hashed, last, self.digest)
        return self.marks[last]

    def stretches(self, first: int, window: int) -> list[tuple[int, int]]:
        sizes = [self.sizes.get(n, 0) for n in range(self.end)]
        return stretches.borders(self.log.steps, sizes, first, window)

    def read(self, drawn: Drawn) -> None:
        """A stretch was read."""
        self.tally["stretches"] += 1
        self.by[drawn.by] += 1
        self.faults += drawn.faults
        self.dropped.update({"unsound": drawn.unsound} if drawn.unsound else {})

    def spent(self, told: Priced) -> None:
        self.tally.update(calls=told.calls, prompt_tokens=told.prompt_tokens, reply_tokens=told.reply_tokens)

    def report(self) -> Harvested:
        told = {"session": self.log.id, "project": self.project, "dry_run": self.dry, "faults": tuple(self.faults)}
        told["redacted"] = self.masking.count
        counted = {"items": dict(self.items), "dropped": dict(self.dropped), "by": dict(self.by)}
        return Harvested.model_validate({**told, **counted, **self.tally, "planned": tuple(self.planned)})


class Harvest:
    """Harvests sessions of one deployment."""

    def __init__(self, parts: Parts, policy: HarvestPolicy, retainer: Retainer, asking: Asking) -> None:
        self._parts = parts
        self._policy = policy
        self._asking = asking
        self._sowing = Sowing(parts, retainer, twin_cosine=policy.twin_cosine, protected=policy.protected_proof)

    async def run(
        self, bank: str, session: SessionLog, *, project: str, agent: str | None, changing: Changing, dry_run: bool = False,
        ask: bool = True, on_stretch: Progress | None = None,
    ) -> Harvested:
        """What is new in a session. changing: the right to change the bank, for one stretch at a time. ask: a model, if there is
        one; else by rules.

        Raises InvalidInput before anything is written or sent; ModelUnavailable, ModelBusy, ModelDenied, EmbedderUnavailable and
        Conflict: what was done until then is kept, and the same again goes on there.
        """
        digest = await self._parts.digest(bank)
        run = _Run(
            bank=bank, log=session, project=project, agent=agent, dry=dry_run, ask=ask, digest=digest,
            hashed=await asyncio.to_thread(recounting.hashes, session.steps),
            masking=Masking(self._parts.find_secrets, digest, private=self._policy.personal == "redact"),
        )
        self._named(run)
        place, run.tally["skipped"] = await self._reached(run)
        await self._look(run, place)
        done, left = 0, len(run.stretches(place, self._policy.window_tokens))
        while place < run.end:
            place = await (self._rehearsed(run, place, changing) if dry_run else self._settled(run, place, changing))
            done = min(done + 1, left)
            if on_stretch is not None and inspect.isawaitable(waiting := on_stretch(done, left)):
                await waiting
        told = {"action": "harvested", "stretches": run.tally["stretches"], "skipped": run.tally["skipped"]}
        log.info("harvested", extra=told)
        return run.report()

    async def _reached(self, run: _Run) -> tuple[int, int]:
        """Where the session stood when it was harvested last. A record that waits has had no effect yet."""
        found = await kept(self._parts, run.bank, run.log.id, ("session",))
        records = [record_of(m) for m in found if m.state is not MemoryState.WAITING]
        return await asyncio.to_thread(recounting.reached, [r for r in records if r is not None], run.end, run.marked)

    # what is seen of it

    def _named(self, run: _Run) -> None:
        """Names are kept as they are, and stand where nothing is masked. Raises InvalidInput."""
        for what, name in (("id", run.log.id), ("project", run.project)):
            if found := run.masking.hidden(name):
                raise InvalidInput(f"the {what} of the session holds a secret ({found[0].kind}); give it another one")
        run.agent = None if run.agent is None else run.masking.text(stretches.bare(run.agent), [])

    async def _look(self, run: _Run, first: int) -> None:
        """Mask, condense and measure the steps from `first` on. Raises InvalidInput for secrets that are not to be masked."""
        missing = [n for n in range(first, run.end) if n not in run.seen]
        masked, found = await asyncio.to_thread(self._masked, run, missing)
        if found and self._policy.secrets == "refuse":
            told = "; ".join(f"step {n + 1} (line {run.log.steps[n].line}): {', '.join(kinds)}" for n, kinds in found[:10])
            raise InvalidInput(f"the session holds secrets, and nothing of it was kept: {told}")
        await asyncio.to_thread(self._measure, run, masked)

    def _measure(self, run: _Run, masked: Mapping[int, tuple[Step, Step]]) -> None:
        count = self._parts.count_tokens
        for n, (told, seen) in masked.items():
            run.seen[n] = stretches.shortened(seen, self._policy.quote)
            run.sizes[n] = count(stretches.told(run.seen[n]))
            run.weights[n] = count("\n".join([told.text, *(call.arguments for call in told.calls)]))

    def _masked(self, run: _Run, places: Sequence[int]) -> tuple[dict[int, tuple[Step, Step]], list[tuple[int, list[str]]]]:
        """Steps without secrets and personal data, as they are told and as they are seen; and the kinds of secrets in each that
        has some.
        """
        masked: dict[int, tuple[Step, Step]] = {}
        found: dict[int, set[str]] = {}
        for step in run.log.steps[: min(places, default=0)]:
            run.masking.learn(step)
        for n in places:
            told, seen, kinds = run.masking.step(run.log.steps[n])
            masked[n], found[n] = (told, seen), set(kinds)
        for n, (told, seen) in masked.items():
            (told, _), (seen, kinds) = run.masking.again(told), run.masking.again(seen)
            masked[n] = told, seen
            found[n] |= set(kinds)
        return masked, [(n, sorted(kinds)) for n, kinds in found.items() if kinds]

    # one stretch

    async def _settled(self, run: _Run, place: int, changing: Changing) -> int:
        """Harvest the next stretch; where something that it rests on is erased meanwhile, anew. Returns where it ends."""
        for left in reversed(range(TRIES)):
            held = False
            try:
                async with changing() as lease:
                    held = True
                    return await self._harvested(run, place, lease)
            except Conflict:
                if not held or not left:
                    raise
        raise AssertionError  # the last try returns or raises

    async def _harvested(self, run: _Run, place: int, lease: Lease) -> int:
        reached, skipped = await self._reached(run)
        if reached > place:  # somebody else was here
            run.tally["skipped"] = max(skipped, run.tally["skipped"])
            return reached
        first, last = run.stretches(place, self._policy.window_tokens)[0]
        known = await self._known(run, first, last)
        drawn = await self._drawn(run, first, last, known, lease)
        stretch = Stretch(record=await self._record(run, first, last), steps=run.seen, at=run.log.at, marked=run.marked)
        sown = await self._sowing.sow(lease, stretch, drawn, known)
        run.items.update(sown.items)
        run.tally.update(confirmed=sown.confirmed, corrected=sown.corrected, contested=sown.contested)
        run.dropped.update(sown.dropped)
        run.read(drawn)
        return last

    async def _rehearsed(self, run: _Run, place: int, changing: Changing) -> int:
        first, last = run.stretches(place, self._policy.window_tokens)[0]
        async with changing() if run.ask and self._parts.chat is not None else nullcontext() as lease:
            known = await self._known(run, first, last) if lease else []
            drawn = await self._drawn(run, first, last, known, lease)
        run.planned += drawn.items
        run.items.update(item.category for item in drawn.items if not item.confirms)
        run.read(drawn)
        return last

    async def _drawn(self, run: _Run, first: int, last: int, known: Sequence[Known], lease: Lease | None) -> Drawn:
        """What a reader takes out, without items that tell a secret which it has pieced together."""
        drawn = await self._taken_out(run, first, last, known, lease)
        clean = tuple(item for item in drawn.items if run.masking.is_clean(item.text))
        run.dropped.update({SECRET: len(drawn.items) - len(clean)} if len(clean) < len(drawn.items) else {})
        return replace(drawn, items=clean)

    async def _taken_out(self, run: _Run, first: int, last: int, known: Sequence[Known], lease: Lease | None) -> Drawn:
        """By the model; by rules, where there is none, or where it gives no usable reply. Raises its other errors."""
        chat, policy = self._parts.chat, self._policy
        if chat is None or not run.ask or lease is None:
            return await asyncio.to_thread(self._gleaned, run, first, last)
        steps = [(n, run.seen[n], stretches.told(run.seen[n])) for n in range(first, last)]
        messages = extraction.render(run.project, steps, known, most=policy.max_items, whole=last == run.end)
        aliases = [k.alias for k in known]

        def read(value: object) -> tuple[tuple[Item, ...], tuple[str, ...]]:
            items, faults = extraction.read(value, steps=range(first, last), known=aliases, most=policy.max_items)
            if faults and not items:
                raise BadReply("; ".join(faults[:5]))
            return items, faults

        async def asked() -> Answered[tuple[Item, ...]]:
            return await answered(chat, messages, schema=extraction.schema(), read=read, max_tokens=policy.reply_tokens)

        shown = sorted(frozenset().union(*(k.history.current.lineage for k in known)))
        try:
            told = await self._asking.ask(chat, asked, lease, shown, by_hand=True)
        except (BadReply, ModelTooLong, ModelRefused) as error:
            run.spent(error)
            fault = f"steps {first + 1} to {last} were read by rules: {error}"
            return replace(await asyncio.to_thread(self._gleaned, run, first, last), faults=(fault,))
        run.spent(told)
        return Drawn(
            items=told.value, by=told.by, faults=told.faults, unsound=len(told.faults), extractive=False,
            prompt_digest=told.prompt_digest, calls=told.calls, prompt_tokens=told.prompt_tokens, reply_tokens=told.reply_tokens,
        )

    def _gleaned(self, run: _Run, first: int, last: int) -> Drawn:
        steps = [run.seen.get(n, Step(line=1, role="system")) for n in range(last)]
        most = min(gleaning.MOST, self._policy.max_items)
        items = gleaning.glean(steps, first, last, ended=last == run.end, most=most)
        return Drawn(items=tuple(items), by="rules", extractive=True)

    # what is known

    async def _known(self, run: _Run, first: int, last: int) -> list[Known]:
        """Items of the project, and of everywhere, that lie near to the stretch: by meaning first, then by words."""
        where = (AnyOf("scope", _scopes(run.project)), Equals("state", ObservationState.LIVE.value))
        if not self._policy.known or not await self._parts.observations.count(run.bank, where):
            return []
        told = [stretches.told(run.seen[n]) for n in range(first, last) if run.seen[n].role != "system"]
        asked = [text[:QUERY] for text in _spread([text for text in told if text.strip()], QUERIES)]
        try:
            vectors = await self._parts.embedder.embed(asked) if asked else []
        finally:
            await self._parts.embedder.forget(asked)  # no trace of them is left when the session is forgotten
        legs = [Leg(name="near", dense=vector, where=where, limit=4) for vector in vectors]
        words = Leg(name="words", lexical="\n".join(asked), where=where, limit=2 * self._policy.known)  # so that no tie is cut
        *lists, by_words = await self._parts.observations.search(run.bank, [*legs, words])
        near = [(False, -round(hit.score, 6), hit.id) for hits in lists for hit in hits if hit.score >= NEAR]
        hits = sorted([*near, *((True, -round(hit.score, 6), hit.id) for hit in by_words)], reverse=True)
        places = {id: (worded, score) for worded, score, id in hits}  # the best of each, which comes last
        found = await self._parts.ledger.histories(run.bank, list(places))
        live = [h for h in found if h.observation.state is ObservationState.LIVE]
        live.sort(key=lambda h: (places[h.observation.id], h.observation.text))  # ids hang on chance, texts do not
        return [Known(alias=f"k{n}", history=history) for n, history in enumerate(live[: self._policy.known], 1)]

    async def _record(self, run: _Run, first: int, last: int) -> SessionRecord:
        """What the stretch comes to in figures."""
        shown, texts = await self._briefed(run, last)
        return await asyncio.to_thread(self._counted, run, first, last, shown, texts)

    def _counted(
        self, run: _Run, first: int, last: int, shown: Mapping[str, int], texts: Mapping[str, str]
    ) -> SessionRecord:
        """shown, texts: of items in briefings, the step that did, and what they say."""
        steps = run.log.steps
        tools = [step for step in steps[first:last] if step.role == "tool"]
        return SessionRecord(
            session=run.log.id, project=run.project, agent=run.agent, first=first, last=last, digest=run.marked(last),
            outcome=outcome(run.log.model_copy(update={"steps": steps[:last]})),
            at=_past(recounting.moment(steps[first:last], run.log.at), self._parts.clock()),
            calls=sum(len(step.calls) for step in steps[first:last]), failed=sum(step.failed is True for step in tools),
            tokens=sum(run.weights[n] for n in range(first, last)),
            errors=recounting.errors([run.seen[n] for n in range(first, last)], run.digest),
            briefed=tuple(sorted(id for id, place in shown.items() if place >= first)),
            used=recounting.used(steps, first, last, shown, texts),
        )

    async def _briefed(self, run: _Run, last: int) -> tuple[dict[str, int], dict[str, str]]:
        """Items that briefings before a step have shown, with the step that did, and their texts."""
        if run.briefings is None:
            run.briefings = await asyncio.to_thread(recounting.briefings, run.log.steps)
        if not run.briefings or min(run.briefings) >= last:
            return {}, {}
        where = (Equals("state", ObservationState.LIVE.value), AnyOf("tags", (KNOWLEDGE, LESSON)))
        texts = {p.id: str(p.payload["text"]) async for p in pages(self._parts.observations, run.bank, where)}
        before = {place: text for place, text in run.briefings.items() if place < last}
        shown = recounting.briefed(before, texts.keys())
        return shown, {id: texts[id] for id in shown}


def _scopes(project: str) -> tuple[str, ...]:
    return tuple(scope_key(tags) for tags in (project_scope(project), project_scope(None)))


def _spread(texts: Sequence[str], most: int) -> list[str]:
    """At most so many, from all over."""
    return [texts[n * len(texts) // most] for n in range(most)] if len(texts) > most else list(texts)


def _past(at: datetime | None, now: datetime) -> datetime | None:
    """None for a time that lies in the future: a clock was wrong."""
    return at if at is None or at <= now else None
