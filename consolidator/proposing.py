"""A chat model as a proposer: one prompt, one reply, at most one repair turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from consolidator import prompts
from consolidator.actions import Fault, Reading, messages_of, parse, read, sound
from consolidator.errors import BadReply, ModelError
from consolidator.ports import ChatModel, Completion, Message
from consolidator.proposals import Batch, Proposal

REPLY_TOKENS = 2000  # 12 actions of 30 words with their reasons take about 1,200


@dataclass(frozen=True, slots=True)
class _Turn:
    completion: Completion
    reading: Reading


class ModelProposer:
    """Asks a chat model. Groups of actions that still break a rule after the repair turn are dropped whole."""

    def __init__(self, model: ChatModel, *, reply_tokens: int = REPLY_TOKENS) -> None:
        self._model = model
        self._reply_tokens = reply_tokens
        self.name = model.name
        self.endpoint = model.endpoint

    async def propose(self, batch: Batch) -> Proposal:
        """Raises BadReply when neither reply holds a single sound action or declaration, and the errors of the model."""
        messages = prompts.render(batch, prompts.boundary_for(batch))
        turns: list[_Turn] = []
        try:
            kept = await self._kept(messages, batch, turns)
        except ModelError as error:
            error.calls, error.prompt_tokens, error.reply_tokens = len(turns), *_tokens(turns)
            error.calls += not isinstance(error, BadReply)  # the call that failed
            raise
        prompt_tokens, reply_tokens = _tokens(turns)
        return Proposal(
            actions=kept.actions, nothing=kept.nothing, faults=messages_of(kept.faults), by=turns[-1].completion.model,
            prompt_digest=prompts.digest_of(messages), calls=len(turns), reply=turns[-1].completion.text,
            prompt_tokens=prompt_tokens, reply_tokens=reply_tokens,
        )

    async def _kept(self, messages: Sequence[Message], batch: Batch, turns: list[_Turn]) -> Reading:
        """What is sound, after the repair turn where there were faults."""
        turns.append(first := await self._ask(messages, batch))
        if first.reading.faults:
            again = prompts.repair(first.completion.text, first.reading.faults)
            turns.append(await self._ask([*messages, *again], batch))
        kept = sound(turns[-1].reading)
        if not kept.actions and not kept.nothing:
            reply = turns[-1].completion.text
            raise BadReply(f"{self.name} gave no usable reply", faults=messages_of(kept.faults), reply=reply)
        return kept

    async def _ask(self, messages: Sequence[Message], batch: Batch) -> _Turn:
        completion = await self._model.complete(messages, schema=prompts.schema(batch), max_tokens=self._reply_tokens)
        try:
            return _Turn(completion, read(parse(completion.text), batch))
        except BadReply as error:
            return _Turn(completion, Reading(faults=(Fault(message=str(error)),)))

    async def close(self) -> None:
        await self._model.close()


def _tokens(turns: Sequence[_Turn]) -> tuple[int, int]:
    completions = [turn.completion for turn in turns]
    return sum(c.prompt_tokens for c in completions), sum(c.reply_tokens for c in completions)
