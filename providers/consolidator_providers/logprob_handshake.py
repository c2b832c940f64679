"""The proof that a provider's numbers belong to the tokens of the response; nothing is scored before it.

Identity, shape, generated against scored, alone against among others, copying: five steps, of which each provider takes those
that its kind can.
"""

from __future__ import annotations

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from consolidator.errors import (
    ContextTooLong,
    ScoringError,
    ScoringMisaligned,
    ScoringRejected,
    ScoringUnavailable,
    ScoringUnsupported,
)
from consolidator.transcripts import Scored, ScoringAbility, Segment, Target, Turn
from consolidator_providers.logprob_wire import Messages, NoLogprobs, Outcome, each

log = logging.getLogger(__name__)

NEAR = 0.05  # nats per token: the noise of another batch, or of 16 bits
APART = 0.25  # nats per token that a shift by one must cost
LEANS = 0.1  # nats per token that a copied line must be worth
GENERATED = 8
ENOUGH = 4  # tokens to compare

LINE = "The code of the harbour gate is seven four nine two."
OTHERS = ("Ann likes old books and green tea.", "The ferry leaves every morning at noon.")
REQUEST = "What is the code of the harbour gate?"
QUESTIONS = (
    "Tom likes red wine and Ann likes old books. What does Tom like?",
    "Say in a few words why rivers run to the sea.",
    "The station is near the market. Where is the station? Answer in a sentence.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A reply with the log-probability that generation gave to each of its tokens."""

    ids: tuple[int, ...] = field(repr=False)
    logprobs: tuple[float, ...] = field(repr=False)
    text: str = field(default="", repr=False)


class Speaker(Protocol):
    """pins: it scores the very token ids that it is given; otherwise the text is split anew."""

    pins: bool

    async def generate(self, messages: Messages, *, temperature: float) -> Generated: ...

    async def outcomes(self, targets: Sequence[Target]) -> list[Outcome]: ...


class Scorer(Protocol):
    async def outcomes(self, targets: Sequence[Target]) -> list[Outcome]: ...


class Proven(ABC):
    """A `ports.LogprobModel` that scores only while its proof stands."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._ability: ScoringAbility | None = None
        self._closed = False

    async def verify(self) -> ScoringAbility:
        if self._closed:
            raise ScoringUnavailable("the log-probability model is closed")
        try:
            self._ability = await self._prove()
        except ScoringError as error:
            self._ability = None
            action, kind = "scoring.refused", type(error).__name__
            log.warning("%s does not score: %s", self._name, kind, extra={"action": action, "error": kind})
            raise _as_verdict(error) from error
        log.info("%s scores as %s", self._name, self._ability.unit, extra={"action": "scoring.verified"})
        return self._ability

    async def count_tokens(self, turns: Sequence[Turn]) -> list[int]:
        self._demand()
        texts = [turn.text for turn in turns]
        counts = await each(texts, self._count)
        return [_value(counts[text]) for text in texts]

    async def score(self, targets: Sequence[Target]) -> list[Outcome]:
        self._demand()
        outcomes = await self.outcomes(targets) if targets else []
        for outcome in outcomes:
            if isinstance(outcome, ScoringUnsupported):
                self._ability = None
                raise outcome
        return outcomes

    async def close(self) -> None:
        self._closed, self._ability = True, None
        await self._shut()

    def _demand(self) -> None:
        if self._ability is None:
            raise ScoringError("the log-probability model has not passed its check, or is closed: call verify first")

    @abstractmethod
    async def outcomes(self, targets: Sequence[Target]) -> list[Outcome]:
        """What `score` gives, asked without regard to the proof."""

    @abstractmethod
    async def _prove(self) -> ScoringAbility: ...

    @abstractmethod
    async def _count(self, text: str) -> int: ...

    @abstractmethod
    async def _shut(self) -> None: ...


def _as_verdict(error: ScoringError) -> ScoringError:
    """What a fault of the fixed prompts says of the endpoint: they are short and plain, so a refusal is one of the form."""
    if isinstance(error, (ScoringRejected, ContextTooLong, NoLogprobs)):
        return ScoringUnsupported(f"{ScoringUnsupported.__doc__} {error}")
    return error


def _value(answer: Any) -> Any:
    if isinstance(answer, ScoringError):
        raise answer
    return answer


def digest_of(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def unit_of(kind: str, model: str, ids: Sequence[int], template_kwargs: Mapping[str, Any]) -> str:
    """Names the numbers: another tokenizer, template or rule for thoughts is another unit."""
    return f"{kind}/{model}/{digest_of(list(ids), dict(template_kwargs))}"


# The steps


def fixed_target(*lines: str, response: str = LINE) -> Target:
    return Target(context=(user("\n".join([*lines, REQUEST])),), response=response)


def user(text: str) -> Turn:
    return Turn(role="user", segments=(Segment(text=text),))


async def check_shape(scorer: Scorer) -> None:
    """A response has as many numbers as tokens, each of them the log-probability of something."""
    (shape,) = await found(scorer, fixed_target(*OTHERS))
    if not shape.tokens or shape.prompt_tokens - shape.tokens < 1 or shape.prompt_tokens < 16:
        raise ScoringMisaligned(f"a prompt of several lines came to {shape.prompt_tokens} tokens")


async def check_generated(speaker: Speaker) -> None:
    """What is scored is what was generated, and neither the token before nor the one after. Raises ScoringMisaligned.

    Where a reply is so certain that no shift shows, the next question decides, and in the end a warmer reply.
    """
    for temperature in (0.0, 1.0):
        for question in QUESTIONS:
            said = await speaker.generate((("user", question),), temperature=temperature)
            target = Target(context=(user(question),), response=said.text, response_ids=said.ids if speaker.pins else None)
            (again,) = await found(speaker, target)
            if tells(said, again):
                return
    raise ScoringMisaligned("no reply was long and uncertain enough to tell whether its numbers are its own")


def tells(said: Generated, again: Scored) -> bool:
    """Whether the two agree, and would not if they were shifted by one. Raises ScoringMisaligned where they disagree."""
    scored_ids, numbers = again.ids or (), again.logprobs or ()
    same = 0
    while same < min(len(said.ids), len(scored_ids)) and said.ids[same] == scored_ids[same]:
        same += 1
    if same < ENOUGH:
        return False
    before, after = said.logprobs[:same], numbers[:same]
    gap = _gap(before, after)
    if gap > NEAR:
        raise ScoringMisaligned(f"generated tokens are scored {gap:.2f} nats per token off")
    return min(_gap(before[1:], after[:-1]), _gap(before[:-1], after[1:])) >= gap + APART


def _gap(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(abs(a - b) for a, b in zip(left, right, strict=True)) / len(left)


async def check_batch(scorer: Scorer) -> None:
    """A target has the same number alone and among others. Raises ScoringMisaligned."""
    target, *others = fixed_target(LINE), fixed_target(OTHERS[0]), fixed_target(*OTHERS, response=OTHERS[1])
    (alone,) = await found(scorer, target)
    _, among, _ = await found(scorer, others[0], target, others[1])
    if among.tokens != alone.tokens or abs(among.total - alone.total) > NEAR * alone.tokens:
        raise ScoringMisaligned("a response has another number alone than among others")


async def check_copying(scorer: Scorer) -> None:
    """A response that repeats a line of the context is likelier with the line. Raises ScoringMisaligned."""
    shown, hidden = await found(scorer, fixed_target(*OTHERS, LINE), fixed_target(*OTHERS))
    if shown.tokens != hidden.tokens or not shown.tokens:
        raise ScoringMisaligned("the same response has another number of tokens in another context")
    if (worth := (shown.total - hidden.total) / shown.tokens) < LEANS:
        raise ScoringMisaligned(f"a line that the response repeats is worth {worth:.2f} nats per token to it")


async def found(scorer: Scorer, *targets: Target) -> list[Scored]:
    """The numbers; raises the first error."""
    return [_value(outcome) for outcome in await scorer.outcomes(targets)]
