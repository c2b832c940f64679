"""Log-probabilities from a score endpoint: `POST {base_url}/score` gives the total of each assistant message.

Other servers have a path of that name for other things; a reply without `scores[].total_logprob` is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from consolidator.errors import ContextTooLong, ScoringError, ScoringMisaligned, ScoringUnsupported
from consolidator.ports import LogprobModel
from consolidator.transcripts import Scored, ScoringAbility, Target
from consolidator_providers.logprob_handshake import Proven, check_copying, unit_of
from consolidator_providers.logprob_tokens import TALK, ServedTokens, Template, has_tokenizer, learn_template
from consolidator_providers.logprob_wire import (
    HIGHEST,
    LOWEST,
    Messages,
    Outcome,
    Wire,
    demand_limits,
    each,
    messages_of,
    nothing,
    open_wire,
    sent_as,
    sound,
    texts_of,
)

KIND = "score-endpoint"
GUESSED_AROUND = 8  # tokens about a turn, where nobody can be asked


def read_totals(body: Mapping[str, Any], count: int) -> list[float]:
    """A total for each assistant message. Raises ScoringUnsupported for a reply of another kind, and ScoringMisaligned."""
    scores = body.get("scores")
    if not isinstance(scores, list) or not all(isinstance(one, dict) and "total_logprob" in one for one in scores):
        raise ScoringUnsupported("the answer has no scores[].total_logprob: this is another kind of score endpoint")
    if len(scores) != count:
        raise ScoringMisaligned(f"{len(scores)} scores came for {count} assistant messages")
    return [_total(one["total_logprob"]) for one in scores]


def _total(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value > HIGHEST:
        raise ScoringMisaligned(f"{value if isinstance(value, (int, float)) else None} is the log-probability of nothing")
    return float(value)


class ScoreEndpoint(Proven):
    """See `ports.LogprobModel`. Gives totals alone; tokens are counted by the server's tokenizer, else reckoned from bytes."""

    def __init__(self, wire: Wire, tokens: ServedTokens, *, max_batch: int, chunk_tokens: int) -> None:
        super().__init__(f"{KIND}:{wire.model}")
        self._wire = wire
        self._tokens = tokens
        self._max_batch = max_batch
        self._reads = chunk_tokens
        self._template: Template | None = None  # None: there is no tokenizer to ask

    async def outcomes(self, targets: Sequence[Target]) -> list[Outcome]:
        contexts = (content for target in targets for _, content in messages_of(target.context))
        sizes = await each((*contexts, *(target.response for target in targets)), self._size)
        found = await each(range(len(targets)), lambda n: self._scored(targets[n], sizes))
        return list(found.values())

    async def _prove(self) -> ScoringAbility:
        self._template = await learn_template(self._tokens) if await has_tokenizer(self._tokens) else None
        limit = self._tokens.context_limit
        self._reads = min(self._reads, limit - 1) if limit else self._reads
        for conversation in (TALK[:2], (*TALK, ("assistant", "Ann lives in Oslo."))):
            await self._totals(conversation)
        await check_copying(self)
        talk = self._template.talk if self._template else ()
        unit = unit_of(KIND, self._wire.model, talk, self._tokens.template_kwargs)
        once = self._template.once if self._template else GUESSED_AROUND
        return ScoringAbility(
            unit=unit if talk else f"{unit}/est", max_context_tokens=self._reads - once, max_batch=self._max_batch
        )

    async def _totals(self, messages: Messages) -> list[float]:
        kwargs = {"chat_template_kwargs": dict(self._tokens.template_kwargs)} if self._tokens.template_kwargs else {}
        body = {"messages": sent_as(messages), "logprobs": 1, **kwargs}
        answer = await self._wire.post("/score", body, sent=texts_of(messages))
        return read_totals(answer, sum(role == "assistant" for role, _ in messages))

    async def _scored(self, target: Target, sizes: Mapping[str, int | ScoringError]) -> Scored:
        messages = messages_of(target.context)
        counts: list[int] = []
        for text in (target.response, *(content for _, content in messages)):
            if isinstance(count := sizes[text], ScoringError):
                raise count
            counts.append(count)
        if not counts[0]:
            return nothing()
        if (size := sum(counts)) > self._reads:
            raise ContextTooLong(f"context and response have about {size} tokens; the model reads {self._reads}")
        total = (await self._totals((*messages, ("assistant", sound(target.response)))))[-1]
        if total <= LOWEST * counts[0]:
            raise ScoringMisaligned(f"{total} is the log-probability of nothing")
        return Scored(total=total, tokens=counts[0], prompt_tokens=size, estimated=self._template is None)

    async def _size(self, text: str) -> int:
        if self._template is not None:
            return len(await self._tokens.text(text))
        return -(-len(text.encode(errors="replace")) // 4)

    async def _count(self, text: str) -> int:
        return await self._size(text) + (self._template.around if self._template else GUESSED_AROUND)

    async def _shut(self) -> None:
        await self._wire.close()


async def open_score_endpoint(
    *, base_url: str, model: str, api_key: str | None = None, deadline: float = 120.0, max_batch: int = 16,
    chunk_tokens: int = 50_000, chat_template_kwargs: Mapping[str, Any] | None = None,
) -> LogprobModel:
    """A server that scores at `{base_url}/score`. Sends nothing yet.

    deadline: seconds for one request. max_batch: targets in one call. chunk_tokens: of the longest conversation.
    Raises InvalidSettings, MissingProvider.
    """
    demand_limits(max_batch, chunk_tokens)
    wire = await open_wire(base_url=base_url, model=model, api_key=api_key, deadline=deadline)
    tokens = ServedTokens(wire=wire, template_kwargs=dict(chat_template_kwargs or {}))
    return ScoreEndpoint(wire, tokens, max_batch=max_batch, chunk_tokens=chunk_tokens)
