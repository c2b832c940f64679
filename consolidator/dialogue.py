"""Ask a chat model for a JSON object: one prompt, one reply, and one repair turn where the reply breaks a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from consolidator.actions import Fault, parse
from consolidator.errors import BadReply, ModelError
from consolidator.ports import ChatModel, Completion, Message
from consolidator.prompts import digest_of, repair

T = TypeVar("T")
Read = Callable[[object], tuple[T, Sequence[str]]]  # a JSON value to what is sound of it, and its faults; raises BadReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Generic[T]):
    """What is sound of the last reply. faults: what it still broke; what they concern was left out."""

    value: T
    faults: tuple[str, ...]
    by: str
    reply: str
    prompt_digest: str
    calls: int
    prompt_tokens: int
    reply_tokens: int


async def answered(
    model: ChatModel, messages: Sequence[Message], *, schema: Mapping[str, Any], read: Read[T], max_tokens: int
) -> Answered[T]:
    """The first key that the schema requires is the one by which the object is known.

    Raises BadReply when neither reply can be read at all, and the errors of the model, each with what was spent."""
    told: list[Completion] = []
    try:
        value, faults = await _turn(model, messages, told, schema=schema, read=read, max_tokens=max_tokens)
        if faults or value is None:
            again = repair(told[-1].text, [Fault(message=fault) for fault in faults])
            value, faults = await _turn(model, [*messages, *again], told, schema=schema, read=read, max_tokens=max_tokens)
        if value is None:
            raise BadReply(f"{model.name} gave no usable reply", faults=tuple(faults), reply=told[-1].text)
    except ModelError as error:
        error.calls = len(told) + (not isinstance(error, BadReply))  # the call that failed
        error.prompt_tokens, error.reply_tokens = _tokens(told)
        raise
    prompt_tokens, reply_tokens = _tokens(told)
    return Answered(
        value=value, faults=tuple(faults), by=told[-1].model, reply=told[-1].text, prompt_digest=digest_of(messages),
        calls=len(told), prompt_tokens=prompt_tokens, reply_tokens=reply_tokens,
    )


async def _turn(
    model: ChatModel, messages: Sequence[Message], told: list[Completion], *, schema: Mapping[str, Any], read: Read[T],
    max_tokens: int,
) -> tuple[T | None, Sequence[str]]:
    told.append(await model.complete(messages, schema=schema, max_tokens=max_tokens))
    try:
        return read(parse(told[-1].text, schema["required"][0]))
    except BadReply as error:
        return None, (str(error),)


def _tokens(told: Sequence[Completion]) -> tuple[int, int]:
    return sum(c.prompt_tokens for c in told), sum(c.reply_tokens for c in told)
