from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from consolidator.errors import (
    BadReply,
    InvalidSettings,
    ModelBusy,
    ModelDenied,
    ModelError,
    ModelRefused,
    ModelTooLong,
    ModelUnavailable,
)
from consolidator.ports import ChatModel, Completion
from consolidator.testing.chat_contract import SCHEMA, ChatModelContract, ask
from consolidator.testing.models import ScriptedChatModel
from consolidator_providers.openai import open_chat_model
from consolidator_providers.openai_wire import checked_base_url, open_client
from tests.fault_server import ANSWER, SECRET, FaultServer, format_of, serving

DEADLINE = 1.5


@pytest.fixture(scope="module")
def fault_server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


@pytest.fixture
def server(fault_server: FaultServer) -> FaultServer:
    fault_server.requests.clear()
    fault_server.bodies.clear()
    assert fault_server.elsewhere is not None
    fault_server.elsewhere.requests.clear()
    return fault_server


async def opened(server: FaultServer, model: str, **settings: Any) -> ChatModel:
    settings = {"deadline": DEADLINE, "read_timeout": 0.4, **settings}
    return await open_chat_model(model=model, base_url=server.url, api_key=None, **settings)


async def answer_of(server: FaultServer, model: str, **settings: Any) -> Completion:
    chat = await opened(server, model, **settings)
    try:
        return await ask(chat)
    finally:
        await chat.close()


class TestScripted(ChatModelContract):
    @pytest.fixture
    def chat_model(self) -> ChatModel:
        return ScriptedChatModel(lambda _: {"answer": "Lisbon"})


class TestOpenAI(ChatModelContract):
    @pytest.fixture
    async def chat_model(self, server: FaultServer) -> AsyncIterator[ChatModel]:
        chat = await opened(server, "good")
        yield chat
        await chat.close()


@pytest.mark.parametrize(
    ("mode", "error", "requests"),
    [
        ("429-short-always", ModelBusy, 3),
        ("429-long", ModelBusy, 1),
        ("429-beyond-deadline", ModelBusy, 1),
        ("429-date", ModelBusy, 1),
        ("429-too-large", ModelTooLong, 1),
        ("quota", ModelDenied, 1),
        ("payment", ModelDenied, 1),
        ("500", ModelUnavailable, 3),
        ("503", ModelUnavailable, 3),
        ("408", ModelUnavailable, 3),
        ("409", ModelUnavailable, 3),
        ("reset", ModelUnavailable, 3),
        ("half-body", ModelUnavailable, 3),
        ("hang", ModelUnavailable, None),
        ("drip", ModelUnavailable, 1),
        ("context", ModelTooLong, 1),
        ("context-named", ModelTooLong, 1),
        ("filter", ModelRefused, 1),
        ("json-failed", BadReply, 1),
        ("401", ModelDenied, 1),
        ("403", ModelDenied, 1),
        ("404", ModelDenied, 1),
        ("413", ModelTooLong, 1),
        ("418", ModelDenied, 1),
        ("html", ModelUnavailable, 3),
        ("html-as-json", ModelUnavailable, 3),
        ("broken-json", ModelUnavailable, 3),
        ("deep-json", ModelUnavailable, 3),
        ("list", ModelUnavailable, 3),
        ("string", ModelUnavailable, 3),
        ("error-200", ModelUnavailable, 3),
        ("error-200-busy", ModelBusy, 3),
        ("error-200-text", ModelUnavailable, 3),
        ("no-choices", ModelUnavailable, 3),
        ("null-choices", ModelUnavailable, 3),
        ("null-message", ModelUnavailable, 3),
        ("null-content", ModelUnavailable, 3),
        ("refusal", ModelRefused, 1),
        ("length", ModelTooLong, 1),
        ("length-empty", ModelTooLong, 1),
        ("content-filter", ModelRefused, 1),
        ("redirect", ModelDenied, 1),
    ],
)
async def test_each_fault_becomes_its_error_in_time(
    server: FaultServer, mode: str, error: type[ModelError], requests: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consolidator_providers.openai_wire._backoff", lambda _: 0.01)
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(ModelError) as caught:
        await answer_of(server, mode)
    assert type(caught.value) is error
    assert loop.time() - started < DEADLINE + 1
    assert 1 <= server.requests[mode] <= 3
    assert requests in (None, server.requests[mode])


@pytest.mark.parametrize(
    "mode", ["429-short", "429-milliseconds", "429-bare", "503-once", "reset-once", "null-content-once"]
)
async def test_what_passes_is_waited_out(server: FaultServer, mode: str) -> None:
    reply = await answer_of(server, mode)
    assert reply.text == ANSWER
    assert server.requests[mode] == 2


async def test_a_busy_model_says_how_long_to_wait(server: FaultServer) -> None:
    with pytest.raises(ModelBusy) as caught:
        await answer_of(server, "429-long")
    assert caught.value.after == 600


async def test_a_redirect_is_not_followed(server: FaultServer) -> None:
    with pytest.raises(ModelDenied):
        await answer_of(server, "redirect")
    assert server.elsewhere is not None
    assert not server.elsewhere.requests


@pytest.mark.parametrize("mode", ["429-long", "500", "context", "401", "always-400", "broken-json"])
async def test_what_a_server_echoes_is_in_no_message_and_no_log(
    server: FaultServer, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ModelError) as caught:
        await answer_of(server, mode, tries=1)
    assert caught.value.__cause__ is not None
    assert SECRET not in f"{caught.value} {caplog.text}"
    assert "capital of Portugal" not in caplog.text


async def test_a_step_down_is_logged_without_what_the_server_said(
    server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="consolidator_providers.openai")
    await answer_of(server, "no-format-422")
    assert [getattr(record, "action", "") for record in caplog.records] == ["chat_model.dialect"]
    assert SECRET not in caplog.text


async def test_a_server_that_nobody_runs_is_unavailable() -> None:
    with serving() as server:
        url = server.url
    chat = await open_chat_model(model="good", base_url=url, api_key=None, tries=1, deadline=DEADLINE)
    with pytest.raises(ModelUnavailable):
        await ask(chat)
    await chat.close()


async def test_a_reply_carries_model_and_tokens(server: FaultServer) -> None:
    assert await answer_of(server, "good") == Completion(
        text=ANSWER, model="served-model", prompt_tokens=12, reply_tokens=7
    )
    assert await answer_of(server, "no-usage") == Completion(text=ANSWER, model="no-usage")


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("thinking", ANSWER),
        ("thinking-unopened", ANSWER),
        ("thinking-unclosed", ""),
        ("thinking-quoted", '{"answer": "<think>x</think>"}'),
        ("parts", ANSWER),
        ("empty", ""),
    ],
)
async def test_thoughts_are_no_part_of_the_reply(server: FaultServer, mode: str, text: str) -> None:
    assert (await answer_of(server, mode)).text == text


@pytest.mark.parametrize(
    ("mode", "forms"),
    [
        ("good", ["strict"]),
        ("no-strict", ["strict", "json_schema"]),
        ("no-schema", ["strict", "json_schema", "json_object"]),
        ("no-format", ["strict", "json_schema", "json_object", "text"]),
        ("no-format-vague", ["strict", "json_schema", "json_object", "text"]),
        ("no-format-422", ["strict", "json_schema", "json_object", "text"]),
    ],
)
async def test_a_format_that_is_refused_is_stepped_down_once(server: FaultServer, mode: str, forms: list[str]) -> None:
    chat = await opened(server, mode, tries=1)
    assert [(await ask(chat)).text for _ in range(2)] == [ANSWER, ANSWER]
    assert [format_of(body) for body in server.bodies[mode]] == [*forms, forms[-1]]
    await chat.close()


async def test_a_refusal_that_no_format_cures_changes_nothing(server: FaultServer) -> None:
    chat = await opened(server, "always-400")
    for _ in range(2):
        with pytest.raises(ModelDenied):
            await ask(chat)
    forms = [format_of(body) for body in server.bodies["always-400"]]
    assert forms == ["strict", "json_schema", "json_object", "text"] * 2
    await chat.close()


@pytest.mark.parametrize(
    ("json_mode", "form"), [("auto", "strict"), ("json_schema", "strict"), ("json_object", "json_object"), ("text", "text")]
)
async def test_the_strongest_format_can_be_chosen(server: FaultServer, json_mode: str, form: str) -> None:
    await answer_of(server, "good", json_mode=json_mode)
    assert [format_of(body) for body in server.bodies["good"]] == [form]


async def test_the_request_says_what_the_engine_wants(server: FaultServer) -> None:
    await answer_of(server, "good", extra_body={"seed": 7})
    (body,) = server.bodies["good"]
    assert body["temperature"] == 0
    assert body["max_completion_tokens"] == 200
    assert body["seed"] == 7
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("mode", "gone", "instead"),
    [("no-temperature", "temperature", "max_completion_tokens"), ("no-max-completion", "max_completion_tokens", "max_tokens")],
)
async def test_a_field_that_is_refused_is_left_out(server: FaultServer, mode: str, gone: str, instead: str) -> None:
    chat = await opened(server, mode, tries=1)
    for _ in range(2):
        await ask(chat)
    refused, *taken = server.bodies[mode]
    assert gone in refused
    assert len(taken) == 2
    assert all(gone not in body and instead in body and format_of(body) == "strict" for body in taken)
    await chat.close()


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.example.com/v1",
        "https://192.168.1.7:8000/v1",
        "http://127.0.0.1:8000/v1",
        "http://127.1/v1",
        "http://localhost:11434/v1",
        "http://[::1]:8000/v1",
        "http://[::ffff:127.0.0.1]/v1",
    ],
)
def test_addresses_that_prompts_may_go_to(base_url: str) -> None:
    assert checked_base_url(base_url) == base_url


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.example.com/v1",
        "http://192.168.1.7:8000/v1",
        "http://localhost.example.com/v1",
        "ftp://127.0.0.1/v1",
        "127.0.0.1:8000",
        "https://",
        "https://[::1",
        "https://host:port/v1",
        "https://name:word@api.example.com/v1",
        "https://169.254.169.254/v1",
        "http://169.254.169.254/v1",
        "https://2852039166/v1",
        "https://0xa9fea9fe/v1",
        "https://169.254.43518/v1",
        "https://[::ffff:169.254.169.254]/v1",
        "https://[fe80::1]/v1",
        "https://[fe80::1%25eth0]/v1",
        "https://[fd00:ec2::254]/v1",
        "https://100.100.100.200/v1",
        "https://metadata.google.internal./v1",
        "https://METADATA.google.internal/v1",
        "https://0.0.0.0/v1",
        "http://0.0.0.0/v1",
        "https://224.0.0.1/v1",
    ],
)
def test_addresses_that_prompts_may_not_go_to(base_url: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        checked_base_url(base_url)
    assert "word" not in str(caught.value).replace("password", "")


async def test_without_key_and_address_the_variable_is_named() -> None:
    with pytest.raises(InvalidSettings, match="OPENAI_API_KEY"):
        await open_chat_model(model="good", base_url=None, api_key=None)


@pytest.mark.parametrize("wrong", [{"json_mode": "yaml"}, {"tries": 0}, {"deadline": 0.0}, {"read_timeout": -1.0}])
async def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings):
        await open_chat_model(model="good", base_url="http://127.0.0.1:1/v1", api_key=None, **wrong)


async def test_the_environment_cannot_turn_the_client_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://192.168.1.7/v1")
    client = await open_client(base_url=None, api_key="key", read_timeout=1.0)
    assert str(client.base_url).startswith("https://api.openai.com/")
    await client.close()


def test_the_vendor_is_not_imported_with_the_module() -> None:
    code = "import sys, consolidator_providers.openai, consolidator_providers.openai_embedder; print('openai' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


async def test_a_script_gives_its_answers_in_order() -> None:
    model = ScriptedChatModel(["first", {"answer": "second"}, ModelBusy(after=3.0)])
    assert (await ask(model)).text == "first"
    assert json.loads((await ask(model)).text) == {"answer": "second"}
    with pytest.raises(ModelBusy):
        await ask(model)
    assert len(model.requests) == 3
    assert "Portugal" in model.requests[0].text
    with pytest.raises(AssertionError):
        await ask(model)
