"""What the providers of log-probabilities share: errors by one table, retries, batches, and the checking of numbers.

Servers may echo a prompt when they fail, and here a prompt is somebody's memories: their words are repeated in an error only
as far as they quote nothing that was sent.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from consolidator.errors import (
    ContextTooLong,
    InvalidSettings,
    ScoringError,
    ScoringMisaligned,
    ScoringRejected,
    ScoringUnavailable,
    ScoringUnsupported,
)
from consolidator.transcripts import Scored, Turn
from consolidator_providers.openai_wire import JITTER, LONGEST_WAIT, Fault, fault_in, fault_of, open_client

if TYPE_CHECKING:
    from openai import AsyncOpenAI

TRIES = 4
ABREAST = 2  # requests at a time: scoring must not delay answers
LOWEST, HIGHEST = -9000.0, 1e-6  # servers write minus infinity as -9999; rounding may lift a certain token above 0

Outcome = Scored | ScoringError
Messages = tuple[tuple[str, str], ...]  # role and content
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


# What went wrong


class NoLogprobs(ScoringMisaligned):
    """The answer holds no log-probabilities."""


class OutOfMemory(ContextTooLong):
    """The model ran out of memory."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: these statuses, with one of these marks among the words (none: whatever they are)."""

    error: type[ScoringError]
    says: str
    statuses: frozenset[int | None]
    marks: tuple[str, ...] = ()

    def fits(self, fault: Fault) -> bool:
        words = f"{fault.words} {fault.param}"
        return fault.status in self.statuses and (not self.marks or any(mark in words for mark in self.marks))


_ANSWERED: frozenset[int | None] = frozenset({200, *range(400, 600)})  # some servers send errors with status 200
TABLE = (
    Row(OutOfMemory, "the server ran out of memory", _ANSWERED, ("out of memory", "outofmemory", "cublas_status_alloc_failed")),
    Row(
        ContextTooLong, "the prompt is longer than the model reads", _ANSWERED - {429},
        (
            "context length", "context_length", "context window", "context size", "input_tokens", "model length",
            "max_model_len", "too many tokens", "prompt is too long", "input is too long",
        ),
    ),
    Row(
        ScoringUnsupported, "the account's quota is used up", _ANSWERED,
        ("insufficient_quota", "billing_hard_limit", "insufficient balance", "insufficient credit"),
    ),
    Row(ScoringUnsupported, "the account's quota is used up", frozenset({402})),
    Row(ScoringUnsupported, "the server refuses the key", frozenset({401, 403})),
    Row(ScoringUnsupported, "the server knows no such model or address", frozenset({404, 405, 410, 501})),
    Row(ScoringUnsupported, "the server redirects, which is not followed", frozenset(range(300, 400))),
    Row(ScoringUnavailable, "the server's rate limit is reached", frozenset({429})),
    Row(ScoringUnavailable, "the server is busy", frozenset({200}), ("busy", "overload", "unavailable", "rate limit", "timeout")),
    Row(ScoringUnavailable, "the server failed", frozenset({408, 409, 425, *range(500, 600)})),
    Row(ScoringUnavailable, "the server cannot be reached, or its answer broke off", frozenset({None})),
    Row(ScoringRejected, "the server refuses the request", frozenset(range(1000))),
)
SAID = 200  # characters of what a server said that an error repeats
_OVERLAP = 8  # characters in a row that make it a quotation
_TOKEN_IDS = re.compile(r"\d+(\s*,\s*\d+){3}")


def error_for(fault: Fault, sent: str = "") -> ScoringError:
    """The typed error: its status first, then what the server said, if that quotes nothing of what was sent."""
    row = next(row for row in TABLE if row.fits(fault))
    message = row.says if fault.status is None else f"{row.says} (status {fault.status})"
    if said := fault.words[:SAID].strip():
        message += f": {said}" if not quotes(said, sent) else "; what it said quotes the request"
    if issubclass(row.error, ScoringUnavailable):
        return ScoringUnavailable(message, retry_after=fault.after)
    return row.error(message)


def quotes(said: str, sent: str) -> bool:
    """Whether words repeat a part of what was sent, or a run of token ids, which are a text in other letters."""
    said, sent = said.casefold(), sent.casefold()
    parts = {said[start : start + _OVERLAP] for start in range(max(1, len(said) - _OVERLAP + 1))} if said else set()
    return bool(_TOKEN_IDS.search(said)) or any(part in sent for part in parts)


def read_object(raw: str, sent: str = "") -> dict[str, Any]:
    """The JSON object in a body of status 200; an error in it, as text or as an object, is raised by the table."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ScoringUnavailable("the server's answer is no JSON (status 200)") from error
    if not isinstance(body, dict):
        raise ScoringUnavailable("the server's answer is no JSON object (status 200)")
    if failure := body.get("error"):
        code = failure.get("code") if isinstance(failure, dict) else None
        raise error_for(fault_in(body, status=code if isinstance(code, int) and 300 <= code < 600 else 200), sent)
    return body


def _status_error(error: Exception, sent: str) -> ScoringError:
    fault = fault_of(error)
    if fault.status is not None and not fault.words:
        text = str(getattr(getattr(error, "response", None), "text", ""))
        fault = Fault(status=fault.status, words=text[:SAID].lower(), param=fault.param, after=fault.after)
    return error_for(fault, sent)


# Asking


@dataclass(frozen=True, kw_only=True, eq=False)
class Wire:
    """One server. `deadline`: seconds for one request and its whole answer. Retries what may pass, and nothing else."""

    client: AsyncOpenAI
    model: str
    deadline: float
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ABREAST))

    async def post(self, path: str, body: dict[str, Any], *, sent: str = "") -> dict[str, Any]:
        """The answer's JSON object. sent: the texts in the request, which no error may quote. Raises ScoringError."""
        whole = {"model": self.model, **body}
        return await self._patiently(lambda: self.client.post(path, cast_to=str, body=whole), sent)

    async def get(self, path: str) -> dict[str, Any]:
        return await self._patiently(lambda: self.client.get(path, cast_to=str), "")

    async def _patiently(self, request: Callable[[], Awaitable[str]], sent: str) -> dict[str, Any]:
        async def attempt() -> dict[str, Any]:
            return await self._once(request, sent)

        return await patiently(attempt)

    async def _once(self, request: Callable[[], Awaitable[str]], sent: str) -> dict[str, Any]:
        async with self.slots:
            try:
                async with asyncio.timeout(self.deadline):
                    raw = await request()
            except TimeoutError as error:
                raise ScoringUnavailable(f"no whole answer came within {self.deadline:g} s") from error
            except Exception as error:  # the border: the vendor and its HTTP client raise what they like
                raise _status_error(error, sent) from error
        return read_object(raw, sent)

    def beside(self, path: str) -> str:
        """The address of what stands beside `/v1`, not under it."""
        parts = urlsplit(str(self.client.base_url))
        return urlunsplit(parts._replace(path=parts.path.rstrip("/").removesuffix("/v1") + path))

    async def close(self) -> None:
        await self.client.close()


async def open_wire(*, base_url: str, model: str, api_key: str | None, deadline: float) -> Wire:
    """Sends nothing yet. Raises InvalidSettings, MissingProvider."""
    if not model or deadline <= 0:
        raise InvalidSettings("scoring needs a model's name, and a deadline of more than 0 s")
    client = await open_client(base_url=base_url, api_key=api_key, read_timeout=deadline)
    return Wire(client=client, model=model, deadline=deadline)


def demand_limits(max_batch: int, chunk_tokens: int) -> None:
    if not 1 <= max_batch <= 16 or chunk_tokens < 64:
        raise InvalidSettings("scoring's max_batch must be 1 to 16, and chunk_tokens at least 64")


async def patiently(attempt: Callable[[], Awaitable[V]]) -> V:
    """At most four attempts, further apart each time, as long as the failure is one that passes; a server's own wish of up to
    30 s is respected, and a longer one is handed on in `retry_after`. The last error says how often it was tried.
    """
    retrying = AsyncRetrying(stop=stop_after_attempt(TRIES), retry=retry_if_exception(_worth_another), wait=_pause, reraise=True)
    try:
        return await retrying(attempt)
    except ScoringUnavailable as error:
        tries = retrying.statistics.get("attempt_number", 1)
        raise ScoringUnavailable(f"{error}; attempts: {tries}", retry_after=error.retry_after) from error


def _worth_another(error: BaseException) -> bool:
    return isinstance(error, ScoringUnavailable) and (error.retry_after or 0.0) <= LONGEST_WAIT


_backoff = wait_random_exponential(multiplier=0.5, max=8)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ScoringUnavailable) and error.retry_after is not None:
        return error.retry_after + random.uniform(0, JITTER)
    return _backoff(state)


class Line:
    """Where the requests of one call stand: two at a time, and none after a refusal that holds for all of them."""

    def __init__(self) -> None:
        self._gate = asyncio.Semaphore(ABREAST)
        self._refusal: ScoringUnsupported | None = None

    async def take(self, ask: Callable[[], Awaitable[V]]) -> V:
        async with self._gate:
            if self._refusal is not None:
                raise self._refusal
            try:
                return await ask()
            except ScoringUnsupported as error:
                self._refusal = error
                raise


async def each(keys: Iterable[K], ask: Callable[[K], Awaitable[V]]) -> dict[K, V | ScoringError]:
    """Asks once for each distinct key; an error stands in the place of its answer."""
    line = Line()

    async def asked(key: K) -> V | ScoringError:
        try:
            return await line.take(lambda: ask(key))
        except ScoringError as error:
            return error

    distinct = list(dict.fromkeys(keys))
    return dict(zip(distinct, await asyncio.gather(*map(asked, distinct)), strict=True))


# Prompts, many in a request


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A context and a response as token ids. quoted: their texts, which no error may quote."""

    context: tuple[int, ...] = field(repr=False)
    response: tuple[int, ...] = field(repr=False)
    quoted: str = field(default="", repr=False)

    @property
    def size(self) -> int:
        return len(self.context) + len(self.response)


Send = Callable[[Sequence[Prompt]], Awaitable[list[Outcome]]]


async def in_batches(prompts: Sequence[Prompt], send: Send, *, most: int, tokens: int) -> list[Outcome]:
    """An outcome for each prompt, in order. A request holds at most `most` prompts, and `tokens` tokens where there are several.

    What condemns a request as a whole is first judged prompt by prompt: the fault of one is not the others'. Memory that ran
    out halves the request once. After a ScoringUnsupported nothing more is sent.
    """
    line = Line()

    async def judged(batch: Sequence[Prompt], *, halved: bool = False) -> list[Outcome]:
        try:
            return await line.take(lambda: send(batch))
        except OutOfMemory as error:
            if len(batch) > 1 and not halved:
                return await apart([batch[: len(batch) // 2], batch[len(batch) // 2 :]], halved=True)
            size = sum(prompt.size for prompt in batch)
            return [ContextTooLong(f"{error}; sent were {len(batch)} prompts of {size} tokens in all")] * len(batch)
        except (ScoringRejected, ScoringMisaligned, ContextTooLong) as error:
            return [error] if len(batch) == 1 else await apart([[prompt] for prompt in batch])
        except ScoringError as error:
            return [error] * len(batch)

    async def apart(batches: Sequence[Sequence[Prompt]], *, halved: bool = False) -> list[Outcome]:
        found = await asyncio.gather(*(judged(batch, halved=halved) for batch in batches))
        return [outcome for batch in found for outcome in batch]

    return await apart(list(_batches(prompts, most=most, tokens=tokens)))


def _batches(prompts: Sequence[Prompt], *, most: int, tokens: int) -> Iterable[list[Prompt]]:
    batch: list[Prompt] = []
    for prompt in prompts:
        if batch and (len(batch) == most or sum(one.size for one in batch) + prompt.size > tokens):
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def messages_of(turns: Iterable[Turn]) -> Messages:
    return tuple((turn.role, sound(turn.text)) for turn in turns if turn.segments)


def sound(text: str) -> str:
    """Without lone surrogates, which neither JSON in UTF-8 nor a tokenizer takes."""
    return text.encode(errors="replace").decode()


def texts_of(messages: Messages) -> str:
    return "\n".join(content for _, content in messages)


def sent_as(messages: Messages) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in messages]


# Numbers


def checked(numbers: Sequence[Any]) -> tuple[float, ...]:
    """Log-probabilities in nats, each of them one. Raises ScoringMisaligned."""
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise ScoringMisaligned("a token of the response has no log-probability")
        if not math.isfinite(number) or not LOWEST < number <= HIGHEST:
            raise ScoringMisaligned(f"{number} is the log-probability of nothing")
    return tuple(map(float, numbers))


def scored(numbers: Sequence[Any], ids: Sequence[int], *, prompt_tokens: int) -> Scored:
    """The numbers of a response, one for each of its tokens. Raises ScoringMisaligned."""
    if len(numbers) != len(ids):
        raise ScoringMisaligned(f"{len(numbers)} log-probabilities came for {len(ids)} tokens")
    sound = checked(numbers)
    return Scored(total=math.fsum(sound), tokens=len(ids), ids=tuple(ids), logprobs=sound, prompt_tokens=prompt_tokens)


def nothing() -> Scored:
    """Of a response without any token: a row of its own, so that no later one takes its place."""
    return Scored(total=0.0, tokens=0, ids=(), logprobs=())


def whole_ids(value: Any) -> list[int] | None:
    """A list of token ids, or None for anything else."""
    sound = isinstance(value, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in value)
    return value if sound else None
