"""Chat models behind any server that speaks OpenAI's chat completions.

Replies are read here from their raw text: the vendor's own reading lets a page of HTML, an error object and an empty reply pass.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from consolidator.errors import InvalidSettings, ModelRefused, ModelTooLong, ModelUnavailable
from consolidator.ports import ChatModel, Completion, Message
from consolidator_providers.openai_wire import UNEXPLAINED, Fault, error_for, fault_of, open_client, patiently, read_body, row_for

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger(__name__)

FORMATS = ("strict", "json_schema", "json_object", "text")
JSON_MODES = {"auto": 0, "json_schema": 0, "json_object": 2, "text": 3}  # the rung to begin at


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which form of request a server understands: the rung of the ladder of formats, and two fields that some refuse."""

    rung: int = 0
    temperature: bool = True
    limit: str = "max_completion_tokens"

    def fields(self, schema: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
        fields: dict[str, Any] = {self.limit: max_tokens}
        if self.temperature:
            fields["temperature"] = 0
        if (form := FORMATS[self.rung]) == "json_object":
            fields["response_format"] = {"type": "json_object"}
        elif form != "text":
            named = {"name": "reply", "schema": dict(schema)} | ({"strict": True} if form == "strict" else {})
            fields["response_format"] = {"type": "json_schema", "json_schema": named}
        return fields

    def after(self, fault: Fault) -> Dialect | None:
        """What to try next when a request was refused for its form; None: that was not the reason, or nothing is left.

        A refusal that nothing in the table explains is taken to be about the format: some servers say no more than that.
        """
        if fault.status not in (400, 422) or row_for(fault) is not UNEXPLAINED:
            return None
        about = fault.param or fault.words
        if self.temperature and "temperature" in about:
            return replace(self, temperature=False)
        if self.limit != "max_tokens" and self.limit in about:
            return replace(self, limit="max_tokens")
        return replace(self, rung=self.rung + 1) if self.rung + 1 < len(FORMATS) else None


def read_reply(raw: str, model: str) -> Completion:
    """The completion in a body of status 200. Raises the ModelError that fits anything else."""
    body = read_body(raw)
    choice = _first(body.get("choices"))
    message = choice.get("message")
    if not isinstance(message, dict):
        raise ModelUnavailable("the server's answer holds no reply")
    finish = choice.get("finish_reason")
    if message.get("refusal") or finish == "content_filter":
        raise ModelRefused("the model refused to answer, or a content filter stopped it")
    if finish in ("length", "max_tokens", "model_length"):
        raise ModelTooLong("the reply was cut at its length")
    usage = body.get("usage")
    return Completion(
        text=without_thoughts(_content(message.get("content"))),
        model=str(body.get("model") or model),
        prompt_tokens=_tokens(usage, "prompt_tokens"),
        reply_tokens=_tokens(usage, "completion_tokens"),
    )


def _first(choices: Any) -> dict[str, Any]:
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _content(content: Any) -> str:
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str):
        raise ModelUnavailable("the reply has no content")
    return content


def _tokens(usage: Any, key: str) -> int:
    value = usage.get(key) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0


def without_thoughts(text: str) -> str:
    """The text after a leading `<think>...</think>`; some servers leave out the opening tag. Such tags inside JSON stay."""
    start = text.lstrip()
    opened = start.startswith("<think>")
    if not opened and (start.startswith(("{", "[", "`")) or "</think>" not in start):
        return text.strip()
    return start.partition("</think>")[2].strip()



class OpenAIChat:
    """A chat model; see `ports.ChatModel`. Learns once which form of request its server takes."""

    def __init__(
        self,
        client: AsyncOpenAI,
        *,
        model: str,
        deadline: float,
        tries: int,
        dialect: Dialect,
        extra_body: Mapping[str, Any] | None,
    ) -> None:
        self.name = f"openai:{model}"
        self.endpoint = f"{client.base_url} {model}"
        self._client = client
        self._model = model
        self._deadline = deadline
        self._tries = tries
        self._dialect = dialect
        self._extra = dict(extra_body) if extra_body else None

    async def complete(self, messages: Sequence[Message], *, schema: Mapping[str, Any], max_tokens: int) -> Completion:
        sent = [{"role": message.role, "content": message.content} for message in messages]

        async def attempt() -> Completion:
            return read_reply(await self._ask(sent, schema, max_tokens), self._model)

        try:
            return await patiently(attempt, tries=self._tries, deadline=self._deadline)
        except ModelUnavailable as error:
            raise ModelUnavailable(f"{self.name} at {self._client.base_url} gave no answer: {error}") from error

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, messages: list[dict[str, str]], schema: Mapping[str, Any], max_tokens: int) -> str:
        """The body of a 200. Steps down the ladder on the way; a step is kept once a request in that form was taken."""
        create: Any = self._client.chat.completions.with_raw_response.create
        dialect = self._dialect
        while True:
            try:
                raw = await create(
                    model=self._model, messages=messages, extra_body=self._extra, **dialect.fields(schema, max_tokens)
                )
                body: str = raw.text
            except Exception as error:  # the border: vendors raise what they like, callers get ModelErrors alone
                fault = fault_of(error)
                lower = dialect.after(fault)
                if lower is None:
                    raise error_for(fault) from error
                dialect = lower
            else:
                self._settle(dialect)
                return body

    def _settle(self, dialect: Dialect) -> None:
        if dialect != self._dialect:
            form = FORMATS[dialect.rung]
            log.info("%s answers in form %s", self.name, form, extra={"action": "chat_model.dialect", "format": form})
            self._dialect = dialect


async def open_chat_model(
    *,
    model: str,
    base_url: str | None,
    api_key: str | None,
    deadline: float = 60.0,
    tries: int = 3,
    read_timeout: float = 30.0,
    json_mode: str = "auto",
    extra_body: Mapping[str, Any] | None = None,
) -> ChatModel:
    """A chat model at `base_url` (None: OpenAI). Sends nothing yet.

    deadline: seconds for a call with all its tries; read_timeout: seconds without a byte. json_mode: the strongest format to
    ask for, one of auto, json_schema, json_object, text. extra_body: fields added to every request. Raises InvalidSettings.
    """
    if json_mode not in JSON_MODES:
        raise InvalidSettings(f"json_mode must be one of {', '.join(JSON_MODES)}")
    if tries < 1 or deadline <= 0 or read_timeout <= 0:
        raise InvalidSettings("tries must be at least 1, deadline and read_timeout more than 0 s")
    client = await open_client(base_url=base_url, api_key=api_key, read_timeout=read_timeout)
    dialect = Dialect(rung=JSON_MODES[json_mode])
    return OpenAIChat(client, model=model, deadline=deadline, tries=tries, dialect=dialect, extra_body=extra_body)
