"""Importance: what memories and observations were worth to the answers that were given with them in view.

A model that passes its own check measures it where one is configured, the words alone where none is. What is left out is a
provenance group: an observation with its evidence. Unknown is never 0, and moves nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from consolidator.checks import is_id
from consolidator.divergence import (
    CandidateReport,
    candidates_of,
    due,
    groups_of,
    head_of,
    recent,
    responses_of,
    together,
)
from consolidator.errors import (
    InvalidInput,
    LeaseLost,
    NotFound,
    ScoringError,
    ScoringMisaligned,
    ScoringRejected,
    ScoringUnsupported,
)
from consolidator.feedback import FeedbackPolicy, counts, stepper, strongest_first
from consolidator.keeping import Kept
from consolidator.lexical import LEXICAL_UNIT, Background
from consolidator.meters import (
    OVER_BUDGET,
    LexicalMeter,
    Meter,
    ModelMeter,
    Row,
    ScoringPolicy,
    every_pair,
    in_two_levels,
    in_windows,
)
from consolidator.models import Memory, Value
from consolidator.parts import Parts
from consolidator.plans import Lease
from consolidator.points import memory_of, observation_of
from consolidator.runs import PASSING, Outcome, Progress, Run, figures, outcome_of, report_of
from consolidator.runs import IncrementalReport as IncrementalReport
from consolidator.transcripts import Cell, Group, Importance, Matrix, Score, ScoringAbility, Transcript, key_of

log = logging.getLogger("consolidator.importance")

Mode = Literal["auto", "matrix", "two-level"]
SAMPLED = 2_000  # memories of a bank whose words are the background
BACKGROUND_STAYS = 600.0  # seconds
AT_ONCE, AT_MOST = 8, 20.0  # groups in one turn of a bank, and seconds for them: then consolidation comes first again
RESTS = 600.0  # seconds that a model which has failed its check is left alone
LATER = 60.0  # seconds from a failure that may pass to another try
TRIES = 3  # of a transcript, where the model passes its check and fails again
MANY, LAST = 1_000_000, 9  # of a wake-up that hastens nothing


class Measured(Value):
    """What is known of an item: its importance in each unit, and the latest scores that it was part of, the newest first."""

    item: str
    states: tuple[Importance, ...] = ()
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True, slots=True)
class _Shown:
    """The items of a transcript that the bank knows, in order of appearance, with what has to be known of them."""

    items: tuple[str, ...]
    evidence: Mapping[str, Collection[str]]
    texts: Mapping[str, str]  # as they were said
    lines: Mapping[str, str] = field(repr=False)  # with date and speaker

    def groups(self, items: Iterable[str] | None = None) -> list[Group]:
        wanted = None if items is None else {*items}
        every = groups_of(self.items, self.evidence, self.texts)
        return [group for group in every if wanted is None or wanted & {*group.items}]


class ImportanceService:
    """Measures for one deployment, and keeps what it measured. Needs no lease: a measurement changes no memory."""

    def __init__(
        self, parts: Parts, policy: ScoringPolicy, feedback: FeedbackPolicy, *, measured: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """measured: is told of each bank whose importance has changed."""
        self._parts = parts
        self._told = measured
        self._policy = policy
        self._feedback = feedback
        self._clock = monotonic
        self._backgrounds = Kept[Background](BACKGROUND_STAYS, monotonic)
        self._ability: ScoringAbility | None = None
        self._refused_until = float("-inf")
        self.refused: str | None = None  # why the configured model does not measure
        self._at_work: dict[str, asyncio.Task[bool | None]] = {}
        self._progress: dict[str, Progress] = {}

    def changed(self, bank: str) -> None:
        """Memories were erased: no count of their words stays, and nobody waits for a model that reads them."""
        self._backgrounds.drop(bank)
        self._progress.pop(bank, None)
        self.give_way(bank)

    def give_way(self, bank: str) -> None:
        """Somebody waits for the bank: what is being measured in the background is left for later."""
        if task := self._at_work.get(bank):
            task.cancel()

    # the modes

    async def score(
        self, bank: str, transcript: Transcript, *, mode: Mode = "auto", items: Collection[str] | None = None,
        dry_run: bool = False,
    ) -> Matrix:
        """Every group against every response that it was shown to. auto: up to 12 groups each is left out by itself, up to 100
        in two levels. What is measured moves the importance of its items. dry_run: nothing is sent and nothing kept.
        """
        shown, meter = await self._prepared(bank, transcript, rehearsing=dry_run)
        groups = shown.groups(items)
        if mode == "auto" and len(groups) > self._policy.most:
            raise InvalidInput(f"{len(groups)} groups are many; name items, or ask for a mode")
        exact = mode == "matrix" or (mode == "auto" and (len(groups) <= self._policy.exact or meter.unit == LEXICAL_UNIT))
        if exact:
            rows = await every_pair(meter, transcript, groups)
        else:
            rows = await in_two_levels(meter, transcript, groups, keep=self._policy.keep)
        return await self._matrix(bank, transcript, transcript.responses, rows, meter, dry_run=dry_run)

    async def single(self, bank: str, transcript: Transcript, item: str, *, dry_run: bool = False) -> Matrix:
        """One item's group against the responses of its window. Raises NotFound for an item that the transcript does not show."""
        shown, meter = await self._prepared(bank, transcript, rehearsing=dry_run)
        group = next(iter(shown.groups([item])), None)
        if group is None:
            raise NotFound(f"the transcript shows no item {item} of this bank")
        row = await in_windows(meter, transcript, group, window=self._policy.window)
        return await self._matrix(bank, transcript, tuple(row), [(group, row)], meter, dry_run=dry_run)

    async def _matrix(
        self, bank: str, transcript: Transcript, places: Sequence[int], rows: Sequence[Row], meter: Meter, *, dry_run: bool
    ) -> Matrix:
        if dry_run:
            rows = [(group, {p: _unsaid(cell) for p, cell in row.items()}) for group, row in rows]
        else:
            await self._keep(bank, transcript, meter, rows)
        return Matrix(
            unit=meter.unit, groups=tuple(group for group, _ in rows), responses=tuple(map(transcript.response_id, places)),
            cells=tuple(tuple(row[place] for place in places) for _, row in rows),
            prompts_sent=meter.prompts, tokens_sent=meter.tokens,
        )

    async def incremental(
        self, bank: str, transcript: Transcript, *, most: int | None = None,
        on_score: Callable[[Group, float], Awaitable[None]] | None = None,
    ) -> IncrementalReport:
        """The groups that are due, oldest first, each kept before the next is measured, at most `most`. A store that cannot be
        read ends it before any call.
        """
        run = await self._begun(bank, transcript)
        outcomes = list[Outcome]()
        for group in run.due.groups[:most]:
            outcomes.append(outcome := await self._one(run, group))
            if on_score and outcome.value is not None:
                await on_score(group, outcome.value)
        return report_of(run, outcomes)

    async def candidates(
        self, bank: str, transcript: Transcript, *, count: int, threshold: float = 1.0, per_token: bool = False
    ) -> CandidateReport:
        """The responses among the last `count` turns by how much they lean on all memory together. Nothing is kept."""
        shown, meter = await self._prepared(bank, transcript)
        places, groups = recent(transcript, count), shown.groups()
        if not places or not groups:
            return CandidateReport(seen=len(places))
        everything = together(groups)
        found = await meter.cells([(place, everything) for place in places])
        cells = {transcript.response_id(place): cell for place, cell in zip(places, found, strict=True)}
        return candidates_of(cells, threshold=threshold, per_token=per_token)

    async def measured(self, bank: str, item: str) -> Measured:
        """What is known of an item, in every unit."""
        units = sorted(await self._parts.ledger.score_units(bank))
        states = [(await self._parts.ledger.importances(bank, unit, [item])).get(item) for unit in units]
        scores = await self._parts.ledger.scores(bank, item=item, limit=20)
        return Measured(item=item, states=tuple(state for state in states if state), scores=tuple(scores))

    # in the background

    async def work(self, bank: str, lease: Lease) -> bool:
        """Measure a little of what waits, the oldest transcript first; whether there is more to do at once. While a model reads,
        others who erase what it is shown need not wait for it.
        """
        waiting = await self._parts.ledger.transcripts(bank, limit=2)
        if not waiting:
            return False
        transcript = waiting[0]
        await self._parts.ledger.reading(lease, transcript.items)
        task = self._at_work[bank] = asyncio.ensure_future(self._turn(bank, transcript))
        try:
            ended = await task
        except asyncio.CancelledError:
            if (holder := asyncio.current_task()) and holder.cancelling():
                raise
            return True
        finally:
            del self._at_work[bank]
            with suppress(LeaseLost):
                await self._parts.ledger.reading(lease, ())
        if ended:
            self._progress.pop(bank, None)
            await self._parts.ledger.transcript_scored(bank, transcript)
            return len(waiting) > 1
        return ended is not None

    async def _turn(self, bank: str, transcript: Transcript) -> bool | None:
        """Whether the transcript is done with; None: not before some time has passed."""
        progress, outcomes, ended, passed = self._progress_of(bank, transcript), list[Outcome](), None, False
        try:
            passed = await self._able() is not None
            run = await self._begun(bank, transcript)
            ended = await self._some(run, progress, outcomes)
            log.info("transcript_scored", extra={"action": "transcript_scored", **figures(report_of(run, outcomes))})
        except ScoringError as error:
            told = {"action": "scoring_waits", "bank": bank, "error": type(error).__name__}
            log.warning("scoring_waits", extra=told)
            if isinstance(error, ScoringRejected) or progress.failures >= TRIES:  # nothing of it can be sent, now or later
                return True
            progress.failures += passed
        if ended is None:
            await self._parts.ledger.wake(bank, new=0, delay=LATER, at_most=LATER, batch=MANY, priority=LAST)
        return ended

    def _progress_of(self, bank: str, transcript: Transcript) -> Progress:
        of = (transcript.id, transcript.at, len(transcript.turns))
        if bank not in self._progress or self._progress[bank].of != of:
            self._progress[bank] = Progress(of=of)
        return self._progress[bank]

    async def _some(self, run: Run, progress: Progress, outcomes: list[Outcome]) -> bool | None:
        """As many groups as a turn has room for; as `_turn`."""
        until = self._clock() + AT_MOST
        for group in run.due.groups:
            if (run.meter.unit, group) in progress.tried:
                continue
            if len(outcomes) == AT_ONCE or self._clock() >= until:
                return False
            outcomes.append(outcome := await self._one(run, group))
            if outcome.reason == OVER_BUDGET.reason and (outcome.value is not None or len(outcomes) > 1):
                return False  # the next turn has a budget of its own
            if outcome.reason.startswith(PASSING) and progress.failures < TRIES:
                progress.failures += 1
                return None
            progress.tried.add((run.meter.unit, group))
        return True

    # how

    async def _begun(self, bank: str, transcript: Transcript) -> Run:
        """What words can tell costs nothing, so it waits for nothing. A transcript that is closed is ended where it was begun."""
        shown, meter = await self._prepared(bank, transcript)
        groups, free = shown.groups(), meter.unit == LEXICAL_UNIT
        known = {group: await self._scored(bank, transcript, group, meter.unit) for group in groups}
        states = await self._parts.ledger.importances(bank, meter.unit, shown.items)
        begun = {id for group in groups if known[group] and transcript.closed for id in group.items}
        told = due(
            transcript.model_copy(update={"closed": transcript.closed or free}), groups, now=self._parts.clock(), scored=known,
            last_scored={id: state.last_scored for id, state in states.items() if not free and id not in begun},
            max_age=timedelta(seconds=self._policy.max_age), window=self._policy.window,
        )
        return Run(bank=bank, transcript=transcript, meter=meter, due=told, known=known)

    async def _one(self, run: Run, group: Group) -> Outcome:
        """Measure a group with the responses that it was not measured with before, and keep that."""
        row = await in_windows(run.meter, run.transcript, group, window=self._policy.window, but=run.known[group])
        return outcome_of(group, row.values(), await self._keep(run.bank, run.transcript, run.meter, [(group, row)]))

    async def _keep(self, bank: str, transcript: Transcript, meter: Meter, rows: Sequence[Row]) -> list[Score]:
        """The scores that are new."""
        items = sorted({item for group, _ in rows for item in group.items})
        states = await self._parts.ledger.importances(bank, meter.unit, items) if items else {}
        scores, now = [], self._parts.clock()
        for group, row in rows:
            heads = head_of(transcript, group, window=self._policy.window, head=self._policy.head)
            means = [states[item].mean for item in group.items if item in states]
            for place, cell in row.items():
                if cell.value is None:
                    continue
                scores.append(Score(
                    unit=meter.unit, response=transcript.response_id(place), items=group.items, value=cell.value,
                    tokens=cell.tokens, how=cell.how, share=cell.share, context=meter.shown(place), at=now,
                    counts=counts(cell.value, means, head=place in heads, policy=self._feedback),
                ))
        new = await self._parts.ledger.keep_scores(bank, strongest_first(scores), stepper(scores, self._feedback))
        if new:
            self._told(bank)
        return new

    async def _scored(self, bank: str, transcript: Transcript, group: Group, unit: str) -> set[str]:
        places = responses_of(transcript, group, window=self._policy.window)
        keys = [key_of(unit, transcript.response_id(place), group.items) for place in places]
        found = await self._parts.ledger.scores(bank, keys=keys, limit=len(keys)) if keys else []
        return {score.response for score in found}

    async def _prepared(self, bank: str, transcript: Transcript, *, rehearsing: bool = False) -> tuple[_Shown, Meter]:
        shown = await self._shown(bank, transcript)
        if self._parts.scorer is not None and (ability := await self._able()):
            return shown, ModelMeter(
                model=self._parts.scorer, ability=ability, policy=self._policy, transcript=transcript, doubted=self._doubt,
                rehearsing=rehearsing,
            )
        background = await self._backgrounds.of(bank, self._read_background)
        return shown, LexicalMeter(transcript=transcript, texts=shown.lines, background=background)

    async def _able(self) -> ScoringAbility | None:
        """What the configured model can do; None while it cannot, and the words serve instead. Raises ScoringUnavailable."""
        if self._ability is None and self._parts.scorer is not None and self._clock() >= self._refused_until:
            try:
                self._ability, self.refused = await self._parts.scorer.verify(), None
            except (ScoringUnsupported, ScoringMisaligned) as error:
                self._refused_until, self.refused = self._clock() + RESTS, f"{type(error).__name__}: {error}"
                log.warning("scoring_refused", extra={"action": "scoring_refused", "error": type(error).__name__})
        return self._ability

    def _doubt(self) -> None:
        """The model has to pass its check again before it measures anything else."""
        self._ability = None

    async def _shown(self, bank: str, transcript: Transcript) -> _Shown:
        """Items that are not there, or are being erased, are plain text."""
        items = [item for item in transcript.items if is_id(item)]
        gone = {stone.memory_id for stone in await self._parts.ledger.tombstones(bank, open_only=True)}
        memories = {p.id: memory_of(bank, p) for p in await self._parts.memories.get(bank, items) if p.id not in gone}
        told = await self._parts.observations.get(bank, items)
        observations = {p.id: observation_of(bank, p) for p in told if not gone & {*p.payload["lineage_memory_ids"]}}
        known = {id: memory.text for id, memory in memories.items()} | {id: o.text for id, o in observations.items()}
        return _Shown(
            tuple(item for item in transcript.items if item in known),
            {id: {e.memory_id for e in o.evidence} for id, o in observations.items()}, known,
            {id: _line(memory) for id, memory in memories.items()} | {id: o.text for id, o in observations.items()},
        )

    async def _read_background(self, bank: str) -> Background:
        """Of the newest memories."""
        page = await self._parts.memories.scan(bank, order_by="retained_at", descending=True, limit=SAMPLED)
        return Background.of(_line(memory_of(bank, point)) for point in page.points)


def _line(memory: Memory) -> str:
    return f"{memory.time:%d %B %Y} {memory.spoken}"


def _unsaid(cell: Cell) -> Cell:
    return Cell(status="failed", reason="dry_run") if cell.status == "scored" else cell
