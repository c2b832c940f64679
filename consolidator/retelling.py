"""What episodes have taught, told again: for the top of a prompt, and as figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from consolidator.contexts import one_line
from consolidator.errors import EmbedderUnavailable
from consolidator.lessons import (
    CARD_TAG,
    HIGH_SCORE,
    Balance,
    Part,
    PracticePolicy,
    balance_of,
    card_of,
    foremost,
    outcome_of,
    rendered,
    score_of,
    steps_of,
    summary_of,
    within,
)
from consolidator.models import Evidence, Memory, MemoryState, Observation, ObservationState, Tags, Time, Trend, Value, scope_key
from consolidator.paging import pages
from consolidator.parts import Parts
from consolidator.points import memory_of, observation_of
from consolidator.ports import AnyOf, Condition, Equals, Ids, Leg, Not
from consolidator.provenance import unsupported
from consolidator.records import LESSON, marked, task_scope
from consolidator.trends import trend_of

ITEM = 300  # characters of an item that are shown
SHORT = 100  # of a recent attempt's summary
MISTAKES, CARDS, SIMILAR = 3, 3, 3
TOP = 5  # cards of the summary
NEAR = 0.4  # least cosine of another task's lesson to this task's description
LOOKED_AT = 200  # rules and cards of one task, the latest first
ROLES_READ = 50  # memories of a rule's evidence that its balance counts, the latest first
MANY = 100_000  # tasks
RECENT = 5  # attempts that "recently" means
BETTER = 0.05  # by which a mean has to move to be called a trend
TRENDED = 2  # attempts, recent and older, without which there is no trend


class Lessons(Value):
    """A block for the top of a prompt. items: the observations in it. reason: why it is empty."""

    text: str = ""
    tokens: int = 0
    items: tuple[str, ...] = ()
    left_out: int = 0  # items for which the budget had no room
    reason: str | None = None


class Attempt(Value):
    """One episode, as its log tells it."""

    source: str
    score: float
    steps: int
    summary: str
    at: Time


class TaskScores(Value):
    """How the attempts at a task went. trend: of the last five against all before; None where there are too few."""

    episodes: int
    mean: float
    recent: float
    trend: Literal["improving", "steady", "declining"] | None = None


class TopCard(Value):
    id: str
    mistake_type: str
    task: str
    seen: int
    trend: Trend
    text: str


class Worker(Value):
    """What cards say of a worker: how often which kind of mistake was made."""

    mistakes: int = 0
    types: dict[str, int] = Field(default_factory=dict)


class Practised(Value):
    """For a dashboard. Tasks without an attempt are not in `scores`."""

    episodes: int = 0
    waiting: int = 0  # attempts that are not distilled yet
    general_rules: int = 0
    task_rules: dict[str, int] = Field(default_factory=dict)
    mistakes: int = 0
    successes: int = 0
    cards: int = 0
    top_cards: tuple[TopCard, ...] = ()
    scores: dict[str, TaskScores] = Field(default_factory=dict)
    workers: dict[str, Worker] = Field(default_factory=dict)


class Retelling:
    """Reads the lessons of one deployment. Nothing that is being erased is in any of it."""

    def __init__(self, parts: Parts, policy: PracticePolicy) -> None:
        self._parts = parts
        self._policy = policy

    async def lessons(
        self, bank: str, task: str, *, description: str | None, budget: int, max_rules: int, max_recent: int, tags: Tags
    ) -> Lessons:
        """Dropped first when the budget is small: lessons of other tasks, then recent attempts, then general rules; rules of the
        task go last.
        """
        gone = await self._entombed(bank)
        own = tags | task_scope(task)
        rules = await self._learnt(bank, [*_tagged(own), Equals("category", "rule")], gone)
        general = await self._learnt(bank, [Equals("scope", scope_key(tags | {LESSON})), Equals("category", "rule")], gone)
        cards = await self._learnt(bank, [*_tagged(own), Equals("category", "mistake")], gone)
        near = await self._similar(bank, description or task, own, gone)
        shown = {
            "rules": _foremost(rules, max_rules), "general": _by_origin(general, max_rules),
            "cards": _foremost(cards, CARDS), "near": near,
        }
        balances = await self._balances(bank, [o for kind in ("rules", "general", "near") for o in shown[kind]])
        said = {o.text for o in shown["rules"]}
        mistakes = await self._mistakes(bank, task, own, tags, gone, said)
        log = await self._log(bank, task, tags, gone, LOOKED_AT)
        count = await self._count(bank, task, tags, gone)
        parts = [
            _part(f"Rules for {_name(task)}:", _rules(shown["rules"], balances), shown["rules"], keep=0),
            _part("General rules (all tasks):", _rules(shown["general"], balances), shown["general"], keep=4),
            Part(heading="Mistakes to avoid:", items=tuple(f"AVOID: {_cut(text)}" for text in mistakes), keep=2),
            _part("Structured mistake cards:", await self._cards(bank, shown["cards"]), shown["cards"], keep=1),
            _part("From similar tasks:", _foreign(near, balances), near, keep=6),
            Part(heading=f"Recent {_name(task)} episodes:", items=_recent(log[:max_recent] if max_recent else []), keep=5),
            Part(heading="", items=_mean(task, log, count), keep=3),
        ]
        return self._within(parts, budget, task)

    def _within(self, parts: Sequence[Part], budget: int, task: str) -> Lessons:
        kept, left = within(parts, budget, self._parts.count_tokens)
        if not (text := rendered(kept)):
            reason = f"none of {left} lessons fits into {budget} tokens" if left else f'nothing is known of "{task}" yet'
            return Lessons(left_out=left, reason=reason)
        items = tuple(id for part in kept for id in part.ids)
        return Lessons(text=text, tokens=self._parts.count_tokens(text), items=items, left_out=left)

    async def _entombed(self, bank: str) -> frozenset[str]:
        return frozenset(s.memory_id for s in await self._parts.ledger.tombstones(bank, open_only=True))

    async def _learnt(self, bank: str, where: Sequence[Condition], gone: frozenset[str]) -> list[Observation]:
        """Live observations, those with the latest evidence first."""
        live = [*where, Equals("state", ObservationState.LIVE.value), *_untouched(gone)]
        page = await self._parts.observations.scan(bank, live, order_by="last_time", descending=True, limit=LOOKED_AT)
        return [unsupported(observation_of(bank, p), gone) for p in page.points]

    async def _similar(self, bank: str, about: str, own: Tags, gone: frozenset[str]) -> list[Observation]:
        """Lessons of other tasks that are near to what this one is about."""
        where: list[Condition] = [
            Equals("state", ObservationState.LIVE.value), AnyOf("category", ("rule", "mistake")), *_untouched(gone),
        ]
        if not await self._parts.observations.count(bank, where):
            return []  # loading an embedder takes seconds
        try:
            (vector,) = await self._parts.embedder.embed([about])
        except EmbedderUnavailable:
            return []
        (found,) = await self._parts.observations.search(bank, [Leg(name="near", dense=vector, where=where, limit=20)])
        near = [observation_of(bank, hit) for hit in found if hit.score >= NEAR]
        task = next(tag for tag in own if tag.startswith("task:"))
        foreign = [o for o in near if task not in o.tags and any(tag.startswith("task:") for tag in o.tags)]
        return [o for o in foreign if own - {task} <= o.tags][:SIMILAR]

    async def _balances(self, bank: str, rules: Sequence[Observation]) -> dict[str, Balance]:
        told = {o.id: [e.memory_id for e in _latest(o)[:ROLES_READ] if e.supports] for o in rules}
        points = await self._parts.memories.get(bank, sorted({id for ids in told.values() for id in ids})) if told else []
        roles = {p.id: (str(p.payload.get("role", "")), str(p.payload["source"])) for p in points}
        return {id: balance_of(ids, roles) for id, ids in told.items()}

    async def _mistakes(
        self, bank: str, task: str, own: Tags, tags: Tags, gone: frozenset[str], said: set[str]
    ) -> list[str]:
        """The latest that are no rule already: of this task, and those that hold everywhere."""
        scopes = AnyOf("scope", (scope_key(own), scope_key(tags | {LESSON})))
        where: list[Condition] = [Equals("role", "mistake"), scopes, *_there(gone)]
        page = await self._parts.memories.scan(bank, where, order_by="retained_at", descending=True, limit=LOOKED_AT)
        texts = dict.fromkeys(outcome_of(m) for p in page.points if _may_be_told(m := memory_of(bank, p)))
        return [text for text in texts if text not in said][:MISTAKES]

    async def _cards(self, bank: str, cards: Sequence[Observation]) -> tuple[str, ...]:
        told = []
        for card in cards:
            memories = await self._evidence(bank, card)
            proof = next((c.evidence for m in memories if (c := card_of(m)).evidence), "")
            kind = card_of(memories[0]).mistake_type if memories else "unknown_mistake"
            proof = f" Evidence: {_cut(proof)}" if proof else ""
            told.append(f"[{one_line(kind)}, seen {card.proof_count}x] {_cut(card.text)}{proof}")
        return tuple(told)

    async def _evidence(self, bank: str, observation: Observation) -> list[Memory]:
        """The latest first."""
        ids = [e.memory_id for e in _latest(observation)[:ROLES_READ]]
        found = {p.id: memory_of(bank, p) for p in await self._parts.memories.get(bank, ids)}
        return [found[id] for id in ids if id in found]

    async def _log(self, bank: str, task: str, tags: Tags, gone: frozenset[str], limit: int) -> list[Attempt]:
        """The latest attempts at a task, newest first."""
        where = _attempts(task, tags, gone)
        page = await self._parts.memories.scan(bank, where, order_by="time", descending=True, limit=limit)
        return [_attempt(memory_of(bank, p)) for p in page.points]

    async def _count(self, bank: str, task: str, tags: Tags, gone: frozenset[str]) -> int:
        return await self._parts.memories.count(bank, _attempts(task, tags, gone))

    async def episodes(self, bank: str, task: str, *, tags: Tags, limit: int) -> list[Attempt]:
        """The episode log of a task, newest first."""
        return await self._log(bank, task, tags, await self._entombed(bank), limit)

    async def summary(self, bank: str) -> Practised:
        """Costs by the number of episodes: their scores are read whole."""
        gone = await self._entombed(bank)
        live: list[Condition] = [Equals("state", ObservationState.LIVE.value), *_untouched(gone)]
        roles = await self._parts.memories.facet(bank, "role", _there(gone))
        rules = await self._parts.observations.facet(bank, "tags", [*live, Equals("category", "rule")], limit=MANY)
        tasks = {tag.removeprefix("task:"): count for tag, count in rules.items() if tag.startswith("task:")}
        where = [*live, Equals("category", "mistake")]
        cards = [unsupported(observation_of(bank, p), gone) async for p in pages(self._parts.observations, bank, where)]
        waiting = await self._parts.memories.count(bank, [Equals("role", "episode"), Equals("state", "waiting"), *_there(gone)])
        return Practised(
            episodes=roles.get("episode", 0), waiting=waiting, task_rules=tasks,
            general_rules=rules.get(LESSON, 0) - sum(tasks.values()), mistakes=roles.get("mistake", 0),
            successes=roles.get("success", 0), cards=len(cards), top_cards=await self._top(bank, cards),
            scores=await self._scores(bank, gone), workers=await self._workers(bank, gone),
        )

    async def _top(self, bank: str, cards: Sequence[Observation]) -> tuple[TopCard, ...]:
        told = []
        for card in sorted(cards, key=lambda o: (-o.proof_count, -_last(o), o.id))[:TOP]:
            memories = await self._evidence(bank, card)
            mark = marked(memories[0]) if memories else None
            told.append(TopCard(
                id=card.id, text=card.text, seen=card.proof_count, task=mark.about if mark else "",
                mistake_type=card_of(memories[0]).mistake_type if memories else "unknown_mistake",
                trend=trend_of(card.evidence, self._parts.clock()),
            ))
        return tuple(told)

    async def _scores(self, bank: str, gone: frozenset[str]) -> dict[str, TaskScores]:
        where: list[Condition] = [Equals("role", "episode"), *_there(gone)]
        told: dict[str, list[tuple[Time, float]]] = {}
        async for point in pages(self._parts.memories, bank, where):
            memory = memory_of(bank, point)
            if mark := marked(memory):
                told.setdefault(mark.about, []).append((memory.time, score_of(memory)))
        return {task: _scored([score for _, score in sorted(rows)]) for task, rows in sorted(told.items())}

    async def _workers(self, bank: str, gone: frozenset[str]) -> dict[str, Worker]:
        told: dict[str, dict[str, int]] = {}
        async for point in pages(self._parts.memories, bank, [Equals("role", "card"), *_there(gone)]):
            card = card_of(memory_of(bank, point))
            if card.worker_id:
                types = told.setdefault(card.worker_id, {})
                types[card.mistake_type] = types.get(card.mistake_type, 0) + 1
        return {who: Worker(mistakes=sum(types.values()), types=types) for who, types in sorted(told.items())}


def _tagged(tags: Tags) -> list[Condition]:
    return [Equals("tags", tag) for tag in sorted(tags)]


def _untouched(gone: Iterable[str]) -> list[Condition]:
    ids = tuple(sorted(gone))
    return [Not(AnyOf("lineage_memory_ids", ids))] if ids else []


def _there(gone: Iterable[str]) -> list[Condition]:
    ids = tuple(sorted(gone))
    return [Not(Ids(ids))] if ids else []


def _attempts(task: str, tags: Tags, gone: frozenset[str]) -> list[Condition]:
    return [Equals("role", "episode"), Equals("about", task), *_tagged(tags), *_there(gone)]


def _attempt(memory: Memory) -> Attempt:
    return Attempt(
        source=memory.source, score=score_of(memory), steps=steps_of(memory), at=memory.time,
        summary=summary_of(memory) if _may_be_told(memory) else "",
    )


def _may_be_told(memory: Memory) -> bool:
    """Not what a person has put right since, nor what is in quarantine: it stands at the top of a prompt."""
    return memory.corrected_by is None and memory.state is not MemoryState.HELD


def _latest(observation: Observation) -> list[Evidence]:
    return sorted(observation.evidence, key=lambda e: (e.occurred_at, e.memory_id), reverse=True)


def _last(observation: Observation) -> float:
    return max((e.occurred_at.timestamp() for e in observation.evidence), default=0.0)


def _foremost(found: Sequence[Observation], most: int) -> list[Observation]:
    by_id = {o.id: o for o in found}
    return [by_id[id] for id in foremost([(o.proof_count, _last(o), o.id) for o in found], most)]


def _by_origin(found: Sequence[Observation], most: int) -> list[Observation]:
    """A rule of thumb takes no place that a drawn rule could have."""
    thumbs = [o for o in found if HIGH_SCORE.match(o.text)]
    drawn = _foremost([o for o in found if o not in thumbs], most)
    return [*drawn, *_foremost(thumbs, most - len(drawn))]


def _rules(rules: Sequence[Observation], balances: Mapping[str, Balance]) -> tuple[str, ...]:
    return tuple(f"{_label(o, balances)} {_cut(o.text)}" for o in rules)


def _label(o: Observation, balances: Mapping[str, Balance]) -> str:
    return "[HIGH SCORE]" if HIGH_SCORE.match(o.text) else balances[o.id].label


def _foreign(lessons: Sequence[Observation], balances: Mapping[str, Balance]) -> tuple[str, ...]:
    told = []
    for o in lessons:
        task = next(tag.removeprefix("task:") for tag in sorted(o.tags) if tag.startswith("task:"))
        label = "[CARD]" if any(tag.startswith(CARD_TAG) for tag in o.tags) else balances[o.id].label
        told.append(f"{label} {_cut(o.text)} (from {_name(task)})")
    return tuple(told)


def _part(heading: str, items: tuple[str, ...], told: Sequence[Observation], *, keep: int) -> Part:
    return Part(heading=heading, items=items, ids=tuple(o.id for o in told), keep=keep)


def _recent(log: Sequence[Attempt]) -> tuple[str, ...]:
    return tuple(
        f"Score {a.score:.2f} in {a.steps} steps: {_cut(a.summary, SHORT) or 'no summary'}" for a in log
    )


def _mean(task: str, log: Sequence[Attempt], count: int) -> tuple[str, ...]:
    if not log:
        return ()
    over = f"{count} episodes" if count == len(log) else f"the last {len(log)} of {count} episodes"
    told = f"Your mean score on {_name(task)}: {sum(a.score for a in log) / len(log):.2f} (over {over})"
    scores = _scored([a.score for a in reversed(log)])
    return (f"{told}; {scores.recent:.2f} in the last {RECENT}, {scores.trend}" if scores.trend else told,)


def _scored(scores: Sequence[float]) -> TaskScores:
    """Oldest first."""
    older, recent = scores[:-RECENT], scores[-RECENT:]
    mean, now = sum(scores) / len(scores), sum(recent) / len(recent)
    trend: Literal["improving", "steady", "declining"] | None = None
    if len(older) >= TRENDED:
        moved = now - sum(older) / len(older)
        trend = "improving" if moved > BETTER else "declining" if moved < -BETTER else "steady"
    return TaskScores(episodes=len(scores), mean=round(mean, 3), recent=round(now, 3), trend=trend)


def _cut(text: str, most: int = ITEM) -> str:
    """Untrusted text within an item."""
    line = one_line(text)
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


def _name(task: str) -> str:
    return _cut(task, 80)
