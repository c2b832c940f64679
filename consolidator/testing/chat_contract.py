"""What every chat model promises, as tests. Inherit the class and give it the fixture `chat_model`, which answers in JSON."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from consolidator.ports import ChatModel, Completion, Message

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
MESSAGES = (
    Message(role="system", content='Answer in JSON, such as {"answer": "..."}.'),
    Message(role="user", content="Which city is the capital of Portugal?"),
)


async def ask(model: ChatModel) -> Completion:
    return await model.complete(MESSAGES, schema=SCHEMA, max_tokens=200)


class ChatModelContract:
    async def test_it_has_a_name_for_the_journal(self, chat_model: ChatModel) -> None:
        assert chat_model.name

    async def test_a_reply_comes_whole_with_its_size(self, chat_model: ChatModel) -> None:
        reply = await ask(chat_model)
        assert reply.text
        assert reply.model
        assert reply.prompt_tokens >= 0
        assert reply.reply_tokens >= 0

    async def test_a_conversation_can_go_on(self, chat_model: ChatModel) -> None:
        said = await ask(chat_model)
        turn = (Message(role="assistant", content=said.text), Message(role="user", content="Once more, in JSON, please."))
        assert (await chat_model.complete([*MESSAGES, *turn], schema=SCHEMA, max_tokens=200)).text

    async def test_calls_at_the_same_time_are_all_answered(self, chat_model: ChatModel) -> None:
        assert all(reply.text for reply in await asyncio.gather(*(ask(chat_model) for _ in range(4))))

    async def test_a_cancelled_call_harms_no_other(self, chat_model: ChatModel) -> None:
        given_up = asyncio.create_task(ask(chat_model))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert (await ask(chat_model)).text

    async def test_arguments_stay_as_they_were(self, chat_model: ChatModel) -> None:
        messages, schema = list(MESSAGES), copy.deepcopy(SCHEMA)
        await chat_model.complete(messages, schema=schema, max_tokens=200)
        assert messages == list(MESSAGES)
        assert schema == SCHEMA

    async def test_it_can_be_closed_twice(self, chat_model: ChatModel) -> None:
        await chat_model.close()
        await chat_model.close()
