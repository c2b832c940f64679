"""A log-probability model of words, whose numbers a test can reckon in its head."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence

from consolidator.errors import ContextTooLong, ScoringError, ScoringUnavailable
from consolidator.transcripts import Scored, ScoringAbility, Target, Turn

KNOWN, NEW = -0.1, -3.1  # nats of a word: one that the context has, and any other
AROUND = 2  # tokens that a template would put around a turn

Fault = Callable[[Target], ScoringError | None]


def _sound(_: Target) -> ScoringError | None:
    return None


class ScriptedScorer:
    """Each word of a response costs 0.1 nats where the context has it, else 3.1; words are its tokens. See `ports.LogprobModel`.

    `asked` holds what was sent, in order, `calls` the size of each call, `checks` how often it had to prove itself, `counted` how
    often it counted tokens. `refusal` is raised by `verify` and `score` while it is set. `fault` may fail a single target. `go`,
    cleared, makes `score` wait, and `reading` is set once it was asked.
    """

    def __init__(self, *, unit: str = "scripted/words", max_context_tokens: int = 2000, max_batch: int = 16) -> None:
        self.asked: list[Target] = []
        self.calls: list[int] = []
        self.checks = 0
        self.counted = 0
        self.refusal: ScoringError | None = None
        self.fault: Fault = _sound
        self.reading = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self._ability = ScoringAbility(unit=unit, max_context_tokens=max_context_tokens, max_batch=max_batch)
        self._proven = self._closed = False

    @property
    def prompts(self) -> int:
        return len(self.asked)

    async def verify(self) -> ScoringAbility:
        self.checks += 1
        if self._closed:
            raise ScoringUnavailable("the model is closed")
        if self.refusal:
            self._proven = False
            raise self.refusal
        self._proven = True
        return self._ability

    async def count_tokens(self, turns: Sequence[Turn]) -> list[int]:
        self._demand()
        self.counted += 1
        return [len(turn.text.split()) + AROUND for turn in turns]

    async def score(self, targets: Sequence[Target]) -> list[Scored | ScoringError]:
        self._demand()
        self.asked += targets
        self.calls += [len(targets)] if targets else []
        self.reading.set()
        await asyncio.sleep(0)
        await self.go.wait()
        if self.refusal:
            self._proven = False
            raise self.refusal
        return [self.fault(target) or self._scored(target) for target in targets]

    def _scored(self, target: Target) -> Scored | ScoringError:
        known = [word for turn in target.context for word in turn.text.split()]
        words = target.response.split()
        size = len(known) + len(words)
        if size > self._ability.max_context_tokens:
            return ContextTooLong(f"{size} tokens; the model reads {self._ability.max_context_tokens}")
        logprobs = tuple(KNOWN if word in known else NEW for word in words)
        ids = tuple(zlib.crc32(word.encode(errors="replace")) for word in words)
        return Scored(total=sum(logprobs), tokens=len(words), ids=ids, logprobs=logprobs, prompt_tokens=size)

    def _demand(self) -> None:
        if not self._proven or self._closed:
            raise ScoringError("the model has not passed its check, or is closed: call verify first")

    async def close(self) -> None:
        self._closed = True
