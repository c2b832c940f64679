"""A bank's verbs on episodes: attempts are recorded, and what they have taught is told again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from consolidator import arguments, lessons
from consolidator.errors import Conflict, InvalidInput
from consolidator.lessons import Finding
from consolidator.measuring import MeasuredBank
from consolidator.models import Trust, Value
from consolidator.plans import Report
from consolidator.practice import joined
from consolidator.records import Card, Episode, Outcome
from consolidator.redo import barrier
from consolidator.retelling import Attempt, Lessons, Practised


class Recorded(Value):
    """What `record_episode` kept. The source is what `forget` takes; held: memories that look like orders, set aside."""

    id: str
    source: str
    memories: int
    new: int
    redacted: int = 0
    held: int = 0


class PractisedBank(MeasuredBank):
    """One isolated memory, in which attempts at tasks leave lessons."""

    async def record_episode(  # noqa: PLR0913 (one keyword for each field of an episode)
        self, task: str = "unknown", *, score: float, steps: int = 0, summary: str | None = "",
        mistakes: str | Iterable[str | Outcome | Mapping[str, Any]] | None = (),
        successes: str | Iterable[str | Outcome | Mapping[str, Any]] | None = (),
        cards: Iterable[Card | Mapping[str, Any]] = (), findings: Iterable[Finding | Mapping[str, Any]] = (),
        id: str | None = None, occurred_at: datetime | None = None, tags: Iterable[str] = (), trust: int = Trust.AGENT,
    ) -> Recorded:
        """Keep one attempt at a task: its score (0 to 1), and what was learnt. Durable when it returns, and checked whole before.

        A success of an episode with a high score, and a mistake of one with a low score, become rules of the task; an outcome
        {"text", "everywhere": True} is a rule for all tasks. cards: mistakes with a shape, merged by identity. findings: of an
        audit; they become cards. id: the same for the same episode, so that sending it twice changes nothing.
        Raises InvalidInput before anything is written; Conflict while it is being erased.
        """
        told = {"id": id or str(uuid4()), "task": _task(task), "score": score, "steps": steps, "summary": summary or "",
                "occurred_at": occurred_at, "tags": arguments.tag_set(tags)}
        episode = _episode(told, mistakes, successes, cards, findings)
        items = lessons.memories_of(episode, await self._parts.digest(self.id))
        retainer = self._services.retainer
        for text in (episode.id, episode.task, *episode.tags, *(f"{c.mistake_type} {c.worker_id}" for c in episode.cards)):
            retainer.refuse_secrets(text)
            if retainer.masked(text, lambda _: "0000") != text:
                raise InvalidInput("an id, a task, a tag or the type of a mistake holds a secret; remove it")
        kept = await retainer.retain(self.id, [_whole(item, trust) for item in items])
        self._services.recollection.changed(self.id)
        if kept.new > kept.held:
            await self._services.wake(self.id, new=kept.new - kept.held)
        return Recorded(
            id=episode.id, source=episode.source, memories=len(kept.memories), new=kept.new, redacted=kept.redacted,
            held=kept.held,
        )

    async def lessons_context(
        self, task: str, *, description: str | None = None, token_budget: int = 400, max_rules: int = 5, max_recent: int = 3,
        tags: Iterable[str] = (),
    ) -> Lessons:
        """What earlier attempts at a task have taught, for the top of a prompt: rules, mistakes, cards, scores, and lessons of
        similar tasks. description: of the task, by which similar ones are found. Every item is data, on one line.

        token_budget: of the whole text. Items are whole; lessons of other tasks go first, rules of the task last. 0 means none.
        """
        if max_rules < 0 or max_recent < 0:
            raise InvalidInput("max_rules and max_recent are at least 0; 0 means none")
        return await self._services.retelling.lessons(
            self.id, _task(task), description=description, budget=arguments.budget(token_budget), max_rules=max_rules,
            max_recent=max_recent, tags=arguments.tag_set(tags),
        )

    async def episodes(self, task: str, *, tags: Iterable[str] = (), limit: int = 100) -> list[Attempt]:
        """The attempts at a task, newest first."""
        if not 1 <= limit <= 10_000:
            raise InvalidInput(f"limit is {limit}; it is between 1 and 10,000")
        return await self._services.retelling.episodes(self.id, _task(task), tags=arguments.tag_set(tags), limit=limit)

    async def practice(self) -> Practised:
        """Episodes, rules, cards and scores of all tasks, for a dashboard. Reads every episode."""
        return await self._services.retelling.summary(self.id)

    async def distil(self, *, dry_run: bool = False) -> Report:
        """Draw general rules from all attempts that wait, also where they are fewer than `practice.every`.

        By the chat model; without one, or where it fails, by rule of thumb. dry_run: the rules that would be.
        """
        practice, jobs = self._services.practice, self._services.jobs
        reports = [Report(dry_run=dry_run)]
        async with jobs.changing(self.id) as lease:
            if (await self._parts.ledger.standing(self.id)).paused:
                raise Conflict(f'bank "{self.id}" is paused; resume it first')
            for scope in await practice.waiting(self.id):
                reports.append(await practice.distil(self.id, scope, lease, by_hand=True, dry_run=dry_run))
            await barrier(self._parts, self.id)
        return joined(reports)


def _task(task: str) -> str:
    if not isinstance(task, str) or not task.strip():
        raise InvalidInput("a task has a name, such as deploy")
    return task


def _whole(item: Mapping[str, Any], trust: int) -> dict[str, Any]:
    return {**item, "trust": trust}


def _listed(what: str, given: object) -> Iterable[object]:
    """One by itself stands for a list of it."""
    if isinstance(given, Mapping | Card | Finding):
        return [given]
    if isinstance(given, str | bytes) or not isinstance(given, Iterable | None):
        raise InvalidInput(f"{what} is a list of mappings, and not {type(given).__name__}")
    return given or ()


def _episode(told: Mapping[str, Any], mistakes: Any, successes: Any, cards: Any, findings: Any) -> Episode:
    """Raises InvalidInput, naming the field and what would be right."""
    if isinstance(told["score"], bool) or isinstance(told["steps"], bool):
        raise InvalidInput("score and steps are numbers, not true or false")
    if told["occurred_at"] is not None and not isinstance(told["occurred_at"], datetime):
        raise InvalidInput("occurred_at is a time with a zone, such as datetime(2026, 1, 31, tzinfo=UTC)")
    try:
        outcomes = {"mistakes": lessons.outcomes(mistakes), "successes": lessons.outcomes(successes)}
        given = tuple(card for card in _listed("cards", cards) if isinstance(card, Card | Mapping))
        audit = [Finding.model_validate(finding) for finding in _listed("findings", findings)]
        episode = Episode.model_validate({**told, **outcomes, "cards": given}, strict=False)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise InvalidInput(f"{field}: {problem['msg'].removeprefix('Value error, ')}") from None
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"mistakes and successes: {error}") from None
    made = lessons.audit_cards(audit, score=episode.score) if audit else []
    return episode.model_copy(update={"cards": (*episode.cards, *made)})
