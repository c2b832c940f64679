"""Quotes that wait again, as what they had come to went with another source: read anew, as a stretch of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from consolidator import extraction, gleaning
from consolidator.asking import Asking
from consolidator.dialogue import Answered, answered
from consolidator.errors import BadReply
from consolidator.extraction import Item
from consolidator.models import Memory
from consolidator.parts import Parts
from consolidator.plans import Lease
from consolidator.ports import ChatModel
from consolidator.proposals import Action, Batch, NothingDurable, Proposal, ShownMemory
from consolidator.records import Step, ToolCall, marked
from consolidator.stretches import told

REPLY_TOKENS = 2_000
CALLED = re.compile(r"([\w.-]{1,80})\((\{.*\})\)")  # as `stretches.told` writes it
SPEAKERS: dict[str, Literal["user", "assistant", "system"]] = {"user": "user", "agent": "assistant", "prompt": "system"}


async def proposed(parts: Parts, asking: Asking, batch: Batch, lease: Lease, *, by_hand: bool) -> Proposal:
    """Items of the quotes, by the chat model, or by rules where there is none. Raises as `Asking.ask`."""
    batch = batch.model_copy(update={"memories": tuple(sorted(batch.memories, key=_place))})
    steps = [step_of(shown.memory) for shown in batch.memories]
    if parts.chat is None:
        items = gleaning.glean(steps, 0, len(steps), ended=False)
        return _proposal(batch, items, extractive=True, by="rules")
    chat, ids = parts.chat, [shown.memory.id for shown in batch.memories]
    reply = await asking.ask(chat, lambda: _asked(chat, batch, steps), lease, ids, by_hand=by_hand)
    proposal = _proposal(batch, reply.value, extractive=False, by=reply.by)
    return proposal.model_copy(update={
        "faults": reply.faults, "prompt_digest": reply.prompt_digest, "calls": reply.calls,
        "prompt_tokens": reply.prompt_tokens, "reply_tokens": reply.reply_tokens,
    })


async def _asked(chat: ChatModel, batch: Batch, steps: Sequence[Step]) -> Answered[tuple[Item, ...]]:
    mark = marked(batch.memories[0].memory)
    shown = [(n, step, told(step)) for n, step in enumerate(steps)]
    most = len(steps)
    messages = extraction.render(mark.about if mark else "", shown, (), most=most, whole=False)

    def read(value: object) -> tuple[tuple[Item, ...], tuple[str, ...]]:
        items, faults = extraction.read(value, steps=range(len(steps)), known=(), most=most)
        if faults and not items:
            raise BadReply("; ".join(faults[:5]))
        return items, faults

    return await answered(chat, messages, schema=extraction.schema(), read=read, max_tokens=REPLY_TOKENS)


def step_of(quote: Memory) -> Step:
    """The step that a quote was."""
    line, role = (quote.sequence or 0) + 1, SPEAKERS.get(quote.speaker or "")
    if role is None:
        failed = mark.data.get("failed") if (mark := marked(quote)) else None
        ended = failed if isinstance(failed, bool) else None
        return Step(line=line, role="tool", tool=quote.speaker, text=quote.text, failed=ended, at=quote.time)
    calls = [match for text in quote.text.splitlines() if (match := CALLED.fullmatch(text))]
    said = "\n".join(text for text in quote.text.splitlines() if not CALLED.fullmatch(text))
    return Step(
        line=line, role=role, text=said, at=quote.time, calls=tuple(ToolCall(name=c[1], arguments=c[2]) for c in calls)
    )


def _place(shown: ShownMemory) -> tuple[str, int, str]:
    return shown.memory.source, shown.memory.sequence or 0, shown.memory.id


def _proposal(batch: Batch, items: Sequence[Item], *, extractive: bool, by: str) -> Proposal:
    actions = tuple(
        Action(
            op="create", text=item.text, category=item.category, confidence=item.confidence,
            evidence=tuple(batch.memories[n].alias for n in item.steps), reason="told anew from what was quoted",
        )
        for item in items
    )
    cited = {alias for action in actions for alias in action.evidence}
    nothing = tuple(
        NothingDurable(memory=shown.alias, reason="nothing by itself") for shown in batch.memories if shown.alias not in cited
    )
    return Proposal(actions=actions, nothing=nothing, extractive=extractive, by=by)
