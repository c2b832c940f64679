"""Importance: what memories and observations were worth to the answers that were given with them in view.

A model that passes its own check measures it where one is configured, the words alone where none is. What is left out is a
provenance group: an observation with its evidence. Unknown is never 0, and moves nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Literal

from consolidator.checks import is_id
from consolidator.divergence import (
    CandidateReport,
    candidates_of,
    due,
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
from consolidator.models import Value
from consolidator.parts import Parts
from consolidator.plans import Lease
from consolidator.points import memory_of
from consolidator.runs import PASSING, IncrementalReport, Outcome, Progress, Run, figures, outcome_of, report_of
from consolidator.showings import Shown, line_of, members, shown_in
from consolidator.transcripts import Cell, Group, Importance, Matrix, Score, ScoringAbility, Transcript, key_of

log = logging.getLogger("consolidator.importance")

Mode = Literal["auto", "matrix", "two-level"]
SAMPLED = 2_000  # memories of a bank whose words are the background
BACKGROUND_STAYS = 600.0  # seconds
AT_ONCE, AT_MOST = 8, 20.0  # groups in one turn of a bank, and seconds for them: then consolidation comes first again
LONGEST = 30.0  # seconds of such a turn, whatever a model is at
RESTS = 600.0  # seconds that a model which has failed its check is left alone
LATER = 60.0  # seconds from a failure that may pass to another try
TRIES = 3  # of a transcript, where the model passes its check and fails again
MANY, LAST = 1_000_000, 9  # of a wake-up that hastens nothing


class Measured(Value):
    """What is known of an item: its importance in each unit, and the latest scores that it was part of, the newest first."""

    item: str
    states: tuple[Importance, ...] = ()
    scores: tuple[Score, ...] = ()


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
        self._asked: set[str] = set()  # banks for which somebody waits
        self._erasures: Counter[str] = Counter()
        self._progress: dict[str, Progress] = {}

    def changed(self, bank: str) -> None:
        """Memories were erased: no count of their words stays, and nobody waits for a model that reads them."""
        self._erasures[bank] += 1
        self._backgrounds.drop(bank)
        self._progress.pop(bank, None)
        self.give_way(bank)

    def give_way(self, bank: str) -> None:
        """Somebody waits for the bank: what is being measured in the background is left for later."""
        if task := self._at_work.get(bank):
            self._asked.add(bank)
            task.cancel()

    # the modes

    async def score(
        self, bank: str, transcript: Transcript, *, mode: Mode = "auto", items: Collection[str] | None = None,
        dry_run: bool = False,
    ) -> Matrix:
        """Every group against every response that it was shown to. auto: up to 12 groups each is left out by itself, up to 100
        in two levels. What is measured moves the importance of its items. dry_run: nothing is sent and nothing kept.
        """
        erasures = self._erasures[bank]
        shown, meter = await self._prepared(bank, transcript, rehearsing=dry_run)
        groups = shown.groups(items)
        if mode == "auto" and len(groups) > self._policy.most:
            raise InvalidInput(f"{len(groups)} groups are many; name items, or ask for a mode")
        exact = mode == "matrix" or (mode == "auto" and (len(groups) <= self._policy.exact or meter.unit == LEXICAL_UNIT))
        if exact:
            rows = await every_pair(meter, transcript, groups)
        else:
            rows = await in_two_levels(meter, transcript, groups, keep=self._policy.keep)
        return await self._matrix(bank, transcript, transcript.responses, rows, meter, dry_run=dry_run, erasures=erasures)

    async def single(self, bank: str, transcript: Transcript, item: str, *, dry_run: bool = False) -> Matrix:
        """One item's group against the responses of its window. Raises NotFound for an item that the transcript does not show."""
        erasures = self._erasures[bank]
        shown, meter = await self._prepared(bank, transcript, rehearsing=dry_run)
        group = next(iter(shown.groups([item])), None)
        if group is None:
            raise NotFound(f"the transcript shows no item {item} of this bank")
        row = await in_windows(meter, transcript, group, window=self._policy.window)
        return await self._matrix(bank, transcript, tuple(row), [(group, row)], meter, dry_run=dry_run, erasures=erasures)

    async def _matrix(
        self, bank: str, transcript: Transcript, places: Sequence[int], rows: Sequence[Row], meter: Meter, *, dry_run: bool,
        erasures: int,
    ) -> Matrix:
        if dry_run:
            rows = [(group, {p: _unsaid(cell) for p, cell in row.items()}) for group, row in rows]
        else:
            await self._keep(bank, transcript, meter, rows, erasures)
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
        await self._parts.ledger.reading(lease, [item for item in transcript.items if is_id(item)])
        try:
            ended = await self._within_time(bank, transcript)
        finally:
            with suppress(LeaseLost):
                await self._parts.ledger.reading(lease, ())
        if ended:
            self._progress.pop(bank, None)
            await self._parts.ledger.transcript_scored(bank, transcript)
            return len(waiting) > 1
        return ended is not None

    async def _within_time(self, bank: str, transcript: Transcript) -> bool | None:
        """`_turn`, until somebody waits for the bank, or a model takes too long."""
        task = self._at_work[bank] = asyncio.ensure_future(self._turn(bank, transcript))
        try:
            async with asyncio.timeout(LONGEST):
                return await task
        except TimeoutError:
            log.warning("scoring_waits", extra={"action": "scoring_waits", "bank": bank, "error": "TimeoutError"})
        except asyncio.CancelledError:
            if (holder := asyncio.current_task()) and holder.cancelling():
                raise
            if bank in self._asked:
                return False
        finally:
            del self._at_work[bank]
            self._asked.discard(bank)
        await self._put_off(bank)
        return None

    async def _put_off(self, bank: str) -> None:
        await self._parts.ledger.wake(bank, new=0, delay=LATER, at_most=LATER, batch=MANY, priority=LAST)

    async def _turn(self, bank: str, transcript: Transcript) -> bool | None:
        """Whether the transcript is done with; None: not before some time has passed."""
        progress, outcomes, ended, passed = self._progress_of(bank, transcript), list[Outcome](), None, False
        try:
            passed = await self._able() is not None
            run = await self._begun(bank, transcript, last=transcript.closed)
            ended = await self._some(run, progress, outcomes) if run.meter.unit != LEXICAL_UNIT else await self._whole(run)
            log.info("transcript_scored", extra={"action": "transcript_scored", **figures(report_of(run, outcomes))})
        except ScoringError as error:
            told = {"action": "scoring_waits", "bank": bank, "error": type(error).__name__}
            log.warning("scoring_waits", extra=told)
            if isinstance(error, ScoringRejected) or progress.failures >= TRIES:  # nothing of it can be sent, now or later
                return True
            progress.failures += passed
        if ended is None:
            await self._put_off(bank)
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

    async def _whole(self, run: Run) -> bool:
        """By words, which costs no calls: every group that is due at once, each with the answers that move its mean."""
        heads = [(group, sorted(self._head(run.transcript, group))) for group in run.due.groups]
        cells = iter(await run.meter.cells([(place, group) for group, places in heads for place in places]))
        rows = [(group, {place: next(cells) for place in places}) for group, places in heads]
        for start in range(0, len(rows), AT_ONCE):
            await self._keep(run.bank, run.transcript, run.meter, rows[start : start + AT_ONCE], run.erasures)
        return True

    # how

    def _head(self, transcript: Transcript, group: Group) -> frozenset[int]:
        return head_of(transcript, group, window=self._policy.window, head=self._policy.head)

    async def _begun(self, bank: str, transcript: Transcript, *, last: bool = False) -> Run:
        """What words can tell costs nothing, so it waits for nothing; nor does what was begun, or is seen the last time."""
        erasures = self._erasures[bank]
        shown, meter = await self._prepared(bank, transcript)
        groups, free = shown.groups(), meter.unit == LEXICAL_UNIT
        known = await self._known(bank, transcript, groups, meter.unit)
        states = await self._parts.ledger.importances(bank, meter.unit, shown.items)
        begun = {id for group in groups if known[group] and transcript.closed for id in group.items}
        told = due(
            transcript.model_copy(update={"closed": transcript.closed or free}), groups, now=self._parts.clock(), scored=known,
            last_scored={id: state.last_scored for id, state in states.items() if id not in begun},
            max_age=timedelta(seconds=0 if free or last else self._policy.max_age), window=self._policy.window,
        )
        return Run(bank=bank, transcript=transcript, meter=meter, due=told, known=known, erasures=erasures)

    async def _known(
        self, bank: str, transcript: Transcript, groups: Sequence[Group], unit: str
    ) -> dict[Group, set[str]]:
        """The responses that each group was measured with before."""
        places = {group: responses_of(transcript, group, window=self._policy.window) for group in groups}
        known = {group: set[str]() for group in groups}
        keys = {
            key_of(unit, transcript.response_id(place), members(transcript, group, place)): (group, transcript.response_id(place))
            for group in groups for place in places[group]
        }
        found = await self._parts.ledger.scores(bank, keys=list(keys), limit=len(keys)) if keys else []
        for group, response in (keys[score.key] for score in found):
            known[group].add(response)
        return known

    async def _one(self, run: Run, group: Group) -> Outcome:
        """Measure a group with the responses that it was not measured with before, and keep that."""
        row = await in_windows(run.meter, run.transcript, group, window=self._policy.window, but=run.known[group])
        kept = await self._keep(run.bank, run.transcript, run.meter, [(group, row)], run.erasures)
        return outcome_of(group, row.values(), kept)

    async def _keep(
        self, bank: str, transcript: Transcript, meter: Meter, rows: Sequence[Row], erasures: int
    ) -> list[Score]:
        """The scores that are new; none where something was erased since it was begun: they may be of what it said."""
        if self._erasures[bank] != erasures:
            return []
        items = sorted({item for group, _ in rows for item in group.items})
        states = await self._parts.ledger.importances(bank, meter.unit, items) if items else {}
        scores, now = [], self._parts.clock()
        for group, row in rows:
            await asyncio.sleep(0)  # of a large matrix there are many
            heads = self._head(transcript, group)
            means = [states[item].mean for item in group.items if item in states]
            for place, cell in row.items():
                if cell.value is None:
                    continue
                scores.append(Score(
                    unit=meter.unit, response=transcript.response_id(place), items=members(transcript, group, place),
                    value=cell.value, tokens=cell.tokens, how=cell.how, share=cell.share, context=meter.shown(place), at=now,
                    counts=counts(cell.value, means, head=place in heads, policy=self._feedback),
                ))
        new = await self._parts.ledger.keep_scores(bank, strongest_first(scores), stepper(scores, self._feedback))
        if new:
            self._told(bank)
        return new

    async def _prepared(self, bank: str, transcript: Transcript, *, rehearsing: bool = False) -> tuple[Shown, Meter]:
        shown = await shown_in(self._parts, bank, transcript)
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

    async def _read_background(self, bank: str) -> Background:
        """Of the newest memories."""
        page = await self._parts.memories.scan(bank, order_by="retained_at", descending=True, limit=SAMPLED)
        return await asyncio.to_thread(Background.of, [line_of(memory_of(bank, point)) for point in page.points])


def _unsaid(cell: Cell) -> Cell:
    return Cell(status="failed", reason="dry_run") if cell.status == "scored" else cell
