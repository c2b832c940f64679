"""Log-probabilities from a chat endpoint that tells those of its prompt, as vLLM's does, where the completions path is closed.

One conversation a request, and the server splits the response itself: its place is what the context's own tokens leave over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from consolidator_providers.logprob_tokens import ServedTokens, Template, has_tokenizer, learn_template, listed_limit
from consolidator_providers.logprob_wire import (
    Messages,
    NoLogprobs,
    Outcome,
    Wire,
    checked,
    demand_limits,
    each,
    messages_of,
    nothing,
    open_wire,
    scored,
    sent_as,
    sound,
    texts_of,
    whole_ids,
)

KIND = "chat"
PATH = "/chat/completions"

Entries = list[Any]


def prompt_of(body: Mapping[str, Any]) -> tuple[list[int | None], Entries]:
    """The prompt's token ids and its entries. Where the server sends no ids, an entry's only key is one; the first is unknown.

    Raises ScoringMisaligned.
    """
    entries = body.get("prompt_logprobs")
    if not isinstance(entries, list) or not entries:
        raise NoLogprobs
    if entries[0] is not None:
        raise ScoringMisaligned("the first token has a log-probability, though nothing stands before it")
    ids = whole_ids(body.get("prompt_token_ids"))
    told: list[int | None] = [None, *map(_only_key, entries[1:])] if ids is None else [*ids]
    if len(told) != len(entries):
        raise ScoringMisaligned(f"{len(entries)} entries came for {len(told)} tokens")
    return told, entries


def _only_key(entry: Any) -> int:
    keys = list(entry) if isinstance(entry, dict) else []
    if len(keys) != 1 or not keys[0].isdecimal():
        raise ScoringMisaligned("an entry does not tell which of its tokens is the prompt's")
    return int(keys[0])


def read_prompt(body: Mapping[str, Any], context: Sequence[int]) -> Scored:
    """The numbers of what comes after the context. An entry may also hold the likeliest token: the prompt's own is taken, by
    its id. Raises ScoringMisaligned.
    """
    ids, entries = prompt_of(body)
    start = len(context)
    if start >= len(ids) or any(told not in (None, known) for told, known in zip(ids[:start], context, strict=True)):
        raise ScoringMisaligned("the response does not begin where its context ends")
    response = [told for told in ids[start:] if told is not None]
    numbers = [_number(entry, id) for entry, id in zip(entries[start:], response, strict=True)]
    return scored(numbers, response, prompt_tokens=len(ids))


def _number(entry: Any, id: int) -> Any:
    own = entry.get(str(id)) if isinstance(entry, dict) else None
    return own.get("logprob") if isinstance(own, dict) else None


def read_reply(body: Mapping[str, Any]) -> Generated:
    """A generated reply. Raises ScoringUnsupported where the server does not tell its tokens."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message, given = choice.get("message"), choice.get("logprobs")
    content = given.get("content") if isinstance(given, dict) else None
    ids = whole_ids(choice.get("token_ids"))
    if not isinstance(message, dict) or not isinstance(content, list) or ids is None or len(ids) != len(content):
        raise ScoringUnsupported("the server does not tell the tokens that it generates")
    numbers = checked([entry.get("logprob") if isinstance(entry, dict) else None for entry in content])
    return Generated(ids=tuple(ids), logprobs=numbers, text=str(message.get("content") or ""))


class ChatLogprobs(Proven):
    """See `ports.LogprobModel`. Cannot pin token ids: a response whose own are known and come back otherwise is misaligned."""

    pins = False

    def __init__(
        self, wire: Wire, tokens: ServedTokens, *, max_batch: int, chunk_tokens: int, priority: int | None
    ) -> None:
        super().__init__(f"{KIND}:{wire.model}")
        self._wire = wire
        self._tokens = tokens
        self._max_batch = max_batch
        self._reads = chunk_tokens
        kwargs = {"chat_template_kwargs": dict(tokens.template_kwargs)} if tokens.template_kwargs else {}
        self._extra: dict[str, Any] = {**kwargs, **({} if priority is None else {"priority": priority})}
        self._template: Template | None = None  # None: there is no tokenizer to ask
        self._around = 0

    async def outcomes(self, targets: Sequence[Target]) -> list[Outcome]:
        contexts = await each((messages_of(target.context) for target in targets), self._context)
        found = await each(range(len(targets)), lambda n: self._scored(targets[n], contexts))
        return list(found.values())

    async def generate(self, messages: Messages, *, temperature: float) -> Generated:
        wish = {"max_tokens": 8, "temperature": temperature, "top_p": 1, "logprobs": True, "seed": 7}
        body = {"messages": sent_as(messages), "return_token_ids": True, **wish, **self._extra}
        return read_reply(await self._wire.post(PATH, body, sent=texts_of(messages)))

    async def _prove(self) -> ScoringAbility:
        listed = await listed_limit(self._wire)
        self._template = await learn_template(self._tokens) if await has_tokenizer(self._tokens) else None
        talk = self._template.talk if self._template else await self._context((("user", "Where does Ann live?"),))
        limit = listed or self._tokens.context_limit
        self._reads = min(self._reads, limit - 1) if limit else self._reads
        for check in (check_shape, check_batch, check_copying):
            await check(self)
        await check_generated(self)
        once = self._template.once if self._template else 0
        unit = unit_of(KIND, self._wire.model, talk, self._tokens.template_kwargs)
        return ScoringAbility(unit=unit, max_context_tokens=self._reads - once, max_batch=self._max_batch)

    async def _context(self, messages: Messages) -> list[int]:
        if self._template is not None:
            return await self._tokens.conversation(messages, reply=True)
        body = {"messages": sent_as(messages), "max_tokens": 1, "return_token_ids": True, **self._extra}
        ids = whole_ids((await self._wire.post(PATH, body, sent=texts_of(messages))).get("prompt_token_ids"))
        if not ids:
            raise ScoringUnsupported("the server neither has a tokenizer to ask nor tells the ids of its prompt's tokens")
        return ids

    async def _scored(self, target: Target, contexts: Mapping[Messages, list[int] | ScoringError]) -> Scored:
        messages = messages_of(target.context)
        context = contexts[messages]
        if isinstance(context, ScoringError):
            raise context
        if not target.response:
            return nothing()
        if len(context) >= self._reads:
            raise ContextTooLong(f"the context alone has {len(context)} tokens; the model reads {self._reads}")
        whole = (*messages, ("assistant", sound(target.response)))
        return self._own(target, read_prompt(await self._ask(whole), context))

    async def _ask(self, messages: Messages) -> dict[str, Any]:
        form = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0, "return_token_ids": True}
        ending = {"add_generation_prompt": False, "continue_final_message": True}
        body = {"messages": sent_as(messages), **form, **ending, **self._extra}
        return await self._wire.post(PATH, body, sent=texts_of(messages))

    def _own(self, target: Target, found: Scored) -> Scored:
        if target.response_ids is None:
            return found
        known = self._template.without_end(target.response_ids) if self._template else target.response_ids
        if known != found.ids:
            raise ScoringMisaligned("the server splits the response into other tokens than it was made of")
        return found

    async def _count(self, text: str) -> int:
        if self._template is not None:
            return len(await self._tokens.text(text)) + self._template.around
        return len(await self._context((("user", sound(text)),)))

    async def _shut(self) -> None:
        await self._wire.close()


async def open_chat(
    *, base_url: str, model: str, api_key: str | None = None, deadline: float = 120.0, max_batch: int = 16,
    chunk_tokens: int = 50_000, chat_template_kwargs: Mapping[str, Any] | None = None, priority: int | None = None,
) -> LogprobModel:
    """A served model that scores through `prompt_logprobs` of `{base_url}/chat/completions`. Sends nothing yet.

    deadline: seconds for one request. max_batch: targets in one call. chunk_tokens: of the longest prompt.
    chat_template_kwargs: those that the agent uses. priority: the server's, where it has priorities; higher waits longer.
    Raises InvalidSettings, MissingProvider.
    """
    demand_limits(max_batch, chunk_tokens)
    wire = await open_wire(base_url=base_url, model=model, api_key=api_key, deadline=deadline)
    tokens = ServedTokens(wire=wire, template_kwargs=dict(chat_template_kwargs or {}))
    return ChatLogprobs(wire, tokens, max_batch=max_batch, chunk_tokens=chunk_tokens, priority=priority)
