"""Log-probabilities from a completions endpoint that echoes its prompt, as vLLM's does. Token ids go in, so nothing is parsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consolidator.errors import ContextTooLong, ScoringError, ScoringMisaligned, ScoringUnsupported
from consolidator.ports import LogprobModel
from consolidator.transcripts import Scored, ScoringAbility, Target
from consolidator_providers.logprob_handshake import (
    Generated,
    Proven,
    check_batch,
    check_copying,
    check_generated,
    check_shape,
    unit_of,
)
from consolidator_providers.logprob_tokens import ServedTokens, Template, learn_template, listed_limit
from consolidator_providers.logprob_wire import (
    Messages,
    NoLogprobs,
    Outcome,
    Prompt,
    Wire,
    checked,
    demand_limits,
    each,
    in_batches,
    messages_of,
    nothing,
    open_wire,
    scored,
    texts_of,
    whole_ids,
)

KIND = "completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """batch: prompts in a request. tokens: of the longest prompt, and of a request with several."""

    batch: int
    tokens: int


def sorted_choices(body: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """One choice for each prompt, in the prompts' order. Raises ScoringMisaligned."""
    choices = body.get("choices")
    sound = [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
    by_index = {one.get("index"): one for one in sound}
    if len(sound) != count or by_index.keys() != set(range(count)):
        raise ScoringMisaligned(f"{len(sound)} choices came for {count} prompts")
    return [by_index[position] for position in range(count)]


def read_echo(choice: Mapping[str, Any], prompt: Prompt) -> Scored:
    """The response's numbers out of those of the whole prompt. Raises ScoringMisaligned."""
    numbers = _numbers_of(choice)
    ids = choice.get("prompt_token_ids")
    if ids is not None and ids != [*prompt.context, *prompt.response]:
        raise ScoringMisaligned("the server scored other tokens than it was sent")
    if len(numbers) != prompt.size or numbers[0] is not None or None in numbers[1:]:
        raise ScoringMisaligned(f"{len(numbers)} entries came for {prompt.size} tokens, or one of them is empty")
    return scored(numbers[len(prompt.context) :], prompt.response, prompt_tokens=prompt.size)


def read_reply(choice: Mapping[str, Any]) -> Generated:
    """A generated reply. Raises ScoringUnsupported where the server does not tell its token ids."""
    numbers = checked(_numbers_of(choice))
    ids = whole_ids(choice.get("token_ids"))
    if ids is None:
        raise ScoringUnsupported("the server does not tell the ids of the tokens that it generates")
    if len(ids) != len(numbers):
        raise ScoringMisaligned(f"{len(numbers)} log-probabilities came for {len(ids)} generated tokens")
    return Generated(ids=tuple(ids), logprobs=numbers)


def _numbers_of(choice: Mapping[str, Any]) -> list[Any]:
    given = choice.get("logprobs")
    numbers = given.get("token_logprobs") if isinstance(given, dict) else None
    if not isinstance(numbers, list) or not numbers:
        raise NoLogprobs
    return numbers


class CompletionsLogprobs(Proven):
    """See `ports.LogprobModel`. Many prompts a request, each the tokens of a context and then those of a response."""

    pins = True

    def __init__(self, wire: Wire, tokens: ServedTokens, *, limits: Limits, priority: int | None) -> None:
        super().__init__(f"{KIND}:{wire.model}")
        self._wire = wire
        self._tokens = tokens
        self._limits = limits
        self._extra = {} if priority is None else {"priority": priority}
        self._template = Template(talk=())
        self._reads = limits.tokens

    async def outcomes(self, targets: Sequence[Target]) -> list[Outcome]:
        contexts = await each((messages_of(target.context) for target in targets), self._context)
        texts = await each((target.response for target in targets if target.response_ids is None), self._tokens.text)
        ready = [self._prompt(target, contexts, texts) for target in targets]
        prompts = [one for one in ready if isinstance(one, Prompt)]
        answers = iter(await in_batches(prompts, self._send, most=self._limits.batch, tokens=self._limits.tokens))
        return [next(answers) if isinstance(one, Prompt) else one for one in ready]

    async def generate(self, messages: Messages, *, temperature: float) -> Generated:
        wish = {"max_tokens": 8, "temperature": temperature, "top_p": 1, "logprobs": 0, "seed": 7, "ignore_eos": True}
        body = {"prompt": await self._context(messages), "return_token_ids": True, **wish}
        (choice,) = sorted_choices(await self._wire.post("/completions", body, sent=texts_of(messages)), 1)
        return read_reply(choice)

    async def _prove(self) -> ScoringAbility:
        listed = await listed_limit(self._wire)
        self._template = await learn_template(self._tokens)
        self._reads = min(self._limits.tokens, (listed or self._tokens.context_limit or self._limits.tokens + 1) - 1)
        for check in (check_shape, check_batch, check_copying):
            await check(self)
        await check_generated(self)
        unit = unit_of(KIND, self._wire.model, self._template.talk, self._tokens.template_kwargs)
        return ScoringAbility(
            unit=unit, max_context_tokens=self._reads - self._template.once, max_batch=self._limits.batch
        )

    async def _context(self, messages: Messages) -> list[int]:
        return self._template.closed(await self._tokens.conversation(messages, reply=True))

    def _prompt(
        self, target: Target, contexts: Mapping[Messages, list[int] | ScoringError],
        texts: Mapping[str, list[int] | ScoringError],
    ) -> Prompt | Outcome:
        messages = messages_of(target.context)
        context = contexts[messages]
        response = texts[target.response] if target.response_ids is None else target.response_ids
        if isinstance(context, ScoringError):
            return context
        if isinstance(response, ScoringError):
            return response
        ids = self._template.without_end(tuple(response))
        prompt = Prompt(context=tuple(context), response=ids, quoted=f"{texts_of(messages)}\n{target.response}")
        if prompt.size > self._reads:
            return ContextTooLong(f"context and response have {prompt.size} tokens; the model reads {self._reads}")
        return prompt if ids else nothing()

    async def _send(self, prompts: Sequence[Prompt]) -> list[Outcome]:
        body: dict[str, Any] = {"max_tokens": 0, "echo": True, "logprobs": 0, "return_token_ids": True, **self._extra}
        body["prompt"] = [[*prompt.context, *prompt.response] for prompt in prompts]
        answer = await self._wire.post("/completions", body, sent="\n".join(prompt.quoted for prompt in prompts))
        return [_outcome(choice, prompt) for choice, prompt in zip(sorted_choices(answer, len(prompts)), prompts, strict=True)]

    async def _count(self, text: str) -> int:
        return len(await self._tokens.text(text)) + self._template.around

    async def _shut(self) -> None:
        await self._wire.close()


def _outcome(choice: Mapping[str, Any], prompt: Prompt) -> Outcome:
    try:
        return read_echo(choice, prompt)
    except ScoringMisaligned as error:
        return error


async def open_completions(
    *, base_url: str, model: str, api_key: str | None = None, deadline: float = 120.0, max_batch: int = 16,
    chunk_tokens: int = 50_000, chat_template_kwargs: Mapping[str, Any] | None = None, priority: int | None = None,
) -> LogprobModel:
    """A served model that scores through `{base_url}/completions` and `/tokenize` beside it. Sends nothing yet.

    deadline: seconds for one request. max_batch: prompts in one. chunk_tokens: of the longest prompt, and of a request with
    several. chat_template_kwargs: those that the agent uses. priority: the server's, where it has priorities; higher waits
    longer. Raises InvalidSettings, MissingProvider.
    """
    demand_limits(max_batch, chunk_tokens)
    wire = await open_wire(base_url=base_url, model=model, api_key=api_key, deadline=deadline)
    tokens = ServedTokens(wire=wire, template_kwargs=dict(chat_template_kwargs or {}))
    return CompletionsLogprobs(wire, tokens, limits=Limits(batch=max_batch, tokens=chunk_tokens), priority=priority)
