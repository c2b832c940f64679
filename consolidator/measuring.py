"""A bank's verbs on importance: transcripts are kept, scored, and looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from consolidator import arguments
from consolidator.clock import Clock
from consolidator.divergence import CandidateReport
from consolidator.errors import InvalidInput
from consolidator.importance import Measured, Mode
from consolidator.models import Hit
from consolidator.reading import ReadOnlyBank
from consolidator.recording import Recording, demand_whole_letters
from consolidator.retention import Retainer
from consolidator.runs import IncrementalReport
from consolidator.transcripts import Group, Matrix, Role, Segment, Transcript, Turn


class MeasuredBank(ReadOnlyBank):
    """One isolated memory, whose importance to answers can be measured."""

    async def keep_transcript(self, transcript: Transcript) -> bool:
        """Let the background score it, by the configured model or by words, and drop it then. Secrets are masked, as `retain`
        does. False: it says what was erased, and is not kept.
        """
        masked = without_secrets(_checked(transcript), self._services.retainer, await self._parts.digest(self.id))
        kept = await self._parts.ledger.keep_transcript(self.id, masked)
        if kept:
            await self._services.wake(self.id, new=0)
        return kept

    async def score(
        self, transcript: Transcript, *, mode: Mode = "auto", items: Collection[str] | None = None, item: str | None = None,
        dry_run: bool = False,
    ) -> Matrix:
        """What each memory and observation in a transcript was worth to each answer, in signed nats per token, now.

        mode: "matrix" leaves out each group by itself, "two-level" buckets first; "auto" chooses by their number. items: only
        their groups. item: one alone, against the answers of its window. What is measured is kept, and bears on ranking.
        dry_run: nothing is sent and nothing kept; the matrix says how many prompts and tokens it would be.
        """
        if mode not in ("auto", "matrix", "two-level"):
            raise InvalidInput(f'mode is "{mode}"; it is auto, matrix or two-level')
        importance, transcript = self._services.importance, _checked(transcript)
        if item is not None:
            return await importance.single(self.id, transcript, arguments.id_of(item), dry_run=dry_run)
        only = arguments.ids_of(items) if items is not None else None
        return await importance.score(self.id, transcript, mode=mode, items=only, dry_run=dry_run)

    async def score_due(
        self, transcript: Transcript, *, most: int | None = None,
        on_score: Callable[[Group, float], Awaitable[None]] | None = None,
    ) -> IncrementalReport:
        """Score what is due in a transcript, oldest first, each kept before the next is measured; at most `most` groups."""
        if most is not None and most < 1:
            raise InvalidInput(f"most is {most}; it is at least 1")
        return await self._services.importance.incremental(self.id, _checked(transcript), most=most, on_score=on_score)

    async def candidates(
        self, transcript: Transcript, *, count: int = 100, threshold: float = 1.0, per_token: bool = False
    ) -> CandidateReport:
        """The answers among the last `count` turns that lean most on memory: what a model has not learnt. threshold: nats of a
        whole answer, or per token. Nothing is kept.
        """
        if count < 1:
            raise InvalidInput(f"count is {count}; it is at least 1")
        return await self._services.importance.candidates(
            self.id, _checked(transcript), count=count, threshold=threshold, per_token=per_token
        )

    async def importance(self, id: str) -> Measured:
        """What is known of a memory or an observation: its importance in each unit, and its latest scores."""
        return await self._services.importance.measured(self.id, arguments.id_of(id))


def _checked(transcript: Transcript) -> Transcript:
    if not isinstance(transcript, Transcript):
        raise InvalidInput("this takes a Transcript, as a recorder has it, or read_transcript reads it")
    demand_whole_letters(transcript.turns)
    return transcript


def without_secrets(transcript: Transcript, retainer: Retainer, digest: Callable[[str], str]) -> Transcript:
    def masked(turn: Turn) -> Turn:
        segments = tuple(Segment(text=retainer.masked(s.text, digest), items=s.items) for s in turn.segments)
        return turn if segments == turn.segments else Turn(role=turn.role, segments=segments)

    return transcript.model_copy(update={"turns": tuple(map(masked, transcript.turns))})


class Recorder:
    """A conversation with a bank behind it, as it goes."""

    def __init__(
        self, id: str, *, recall: Callable[..., Awaitable[list[Hit]]], keep: Callable[[Transcript], Awaitable[bool]], clock: Clock
    ) -> None:
        self._recall = recall
        self._keep = keep
        self._clock = clock
        self._recording = Recording(id)

    @property
    def id(self) -> str:
        return self._recording.id

    @property
    def shown(self) -> int:
        """How many times something recalled was put before the model."""
        return self._recording.shown

    async def recall(self, query: str, /, *, shown: bool = True, **filters: Any) -> list[Hit]:
        """As the bank's. shown: note a turn with the hits; without, they are recognised where `said` quotes their lines."""
        hits = await self._recall(query, **filters)
        self._recording.show(hits) if shown else self._recording.know(hits)
        return hits

    def said(self, text: str, *, role: Role = "user") -> None:
        self._recording.say(text, role)

    def answered(self, text: str, *, token_ids: tuple[int, ...] | None = None) -> None:
        """token_ids: of the answer, as the model made them, so that they are scored as they are."""
        self._recording.say(text, "assistant", token_ids)

    def transcript(self, *, closed: bool = False) -> Transcript:
        return self._recording.transcript(self._clock(), closed=closed)

    async def keep(self, *, closed: bool = False) -> bool:
        """Let the background score what was said so far; repeating it adds what came since. closed: the conversation is over."""
        return await self._keep(self.transcript(closed=closed))
