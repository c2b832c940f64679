"""How a model's template turns a conversation into tokens: learnt by asking, since no mark of any template is known here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from consolidator.errors import ScoringMisaligned, ScoringUnavailable, ScoringUnsupported
from consolidator_providers.logprob_wire import Messages, Wire, sent_as, sound, texts_of, whole_ids

OPENINGS = ("<think>\n", "<think>")  # what some templates put before a reply
EMPTY = "<think>\n\n</think>\n\n"  # what then stands there instead, for no thought is scored
TALK: Messages = (
    ("user", "Tom likes red wine. What does Tom like?"),
    ("assistant", "I remember that Tom likes red wine."),
    ("user", "And where does Ann live?"),
)


class Tokens(Protocol):
    """A model's tokenizer, in the process or behind a server."""

    async def conversation(self, messages: Messages, *, reply: bool) -> list[int]:
        """As the template writes it. reply: with the opening of an assistant's turn at the end."""
        ...

    async def text(self, text: str) -> list[int]:
        """By itself, without any special token around it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What a template adds. talk: the fixed conversation's ids, which tell one tokenizer and template from another.

    opening: a thought that the template opens before a reply. empty: the same, closed. end: the token that ends a turn, where
    that is plain to see. around: tokens about each turn. once: tokens about a whole conversation.
    """

    talk: tuple[int, ...]
    opening: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()
    end: int | None = None
    around: int = 0
    once: int = 0

    def closed(self, ids: Sequence[int]) -> list[int]:
        """A context without an open thought at its end."""
        return [*ids[: -len(self.opening)], *self.empty] if _ends(ids, self.opening) else list(ids)

    def without_end(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        return ids[:-1] if ids and ids[-1] == self.end else ids


async def learn_template(tokens: Tokens) -> Template:
    asked, whole = await asyncio.gather(tokens.conversation(TALK[:1], reply=True), tokens.conversation(TALK, reply=True))
    texts = await asyncio.gather(*(tokens.text(content) for _, content in TALK))
    exchange = await tokens.conversation(TALK[:2], reply=False)
    around = max(0, -(-(len(whole) - len(asked) - len(texts[1]) - len(texts[2])) // 2))
    opening = next((mark for mark in [await tokens.text(text) for text in OPENINGS] if _ends(asked, mark)), [])
    thought = Template(talk=(), opening=tuple(opening), empty=tuple(await tokens.text(EMPTY)) if opening else ())
    return replace(
        thought,
        talk=tuple(thought.closed(whole)),
        end=_end_of_turn(exchange, [*asked, *texts[1]]),
        around=around,
        once=max(0, len(thought.closed(asked)) - len(texts[0]) - around),
    )


def _ends(ids: Sequence[int], mark: Sequence[int]) -> bool:
    return bool(mark) and list(ids[-len(mark) :]) == list(mark)


def _end_of_turn(exchange: list[int], said: list[int]) -> int | None:
    return exchange[len(said)] if len(exchange) > len(said) and exchange[: len(said)] == said else None


@dataclass(kw_only=True, eq=False)
class ServedTokens:
    """vLLM's `/tokenize`. context_limit: tokens that the model reads, once it was asked."""

    wire: Wire
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    context_limit: int | None = None

    async def conversation(self, messages: Messages, *, reply: bool) -> list[int]:
        extra = {"chat_template_kwargs": dict(self.template_kwargs)} if self.template_kwargs else {}
        body = {"messages": sent_as(messages), "add_generation_prompt": reply, **extra}
        return await self._ask(body, sent=texts_of(messages))

    async def text(self, text: str) -> list[int]:
        return await self._ask({"prompt": sound(text), "add_special_tokens": False}, sent=text) if text else []

    async def _ask(self, body: dict[str, Any], *, sent: str) -> list[int]:
        answer = await self.wire.post(self.wire.beside("/tokenize"), body, sent=sent)
        ids = whole_ids(answer.get("tokens"))
        if ids is None or answer.get("count", len(ids)) != len(ids):
            raise ScoringMisaligned("the server's tokenizer gave no list of tokens")
        limit = answer.get("max_model_len")
        self.context_limit = limit if isinstance(limit, int) and limit > 0 else self.context_limit
        return ids


async def listed_limit(wire: Wire) -> int | None:
    """The context length that the server lists with the model. Raises ScoringUnsupported where it lists others alone."""
    listed = (await wire.get("/models")).get("data")
    cards = [card for card in listed if isinstance(card, dict)] if isinstance(listed, list) else []
    card = next((card for card in cards if card.get("id") == wire.model), None)
    if card is None:
        raise ScoringUnsupported(f"the server has no model {wire.model!r}")
    limit = card.get("max_model_len")
    return limit if isinstance(limit, int) and limit > 0 else None


async def has_tokenizer(tokens: ServedTokens) -> bool:
    """Whether the server has one to ask; an outage is no answer. Raises ScoringUnavailable."""
    try:
        return bool(await tokens.text("Tom"))
    except ScoringUnavailable:
        raise
    except (ScoringUnsupported, ScoringMisaligned):
        return False
