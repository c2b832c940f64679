"""Log-probability models behind servers: each kind, each fault with its typed outcome, and what is refused by the handshake."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from typing import Any

import pytest

from consolidator.errors import (
    ContextTooLong,
    InvalidSettings,
    ScoringError,
    ScoringMisaligned,
    ScoringRejected,
    ScoringUnavailable,
    ScoringUnsupported,
)
from consolidator.ports import LogprobModel
from consolidator.testing.logprob_contract import ANSWER, MEMORY, OTHER, LogprobModelContract, numbers, target, turn
from consolidator.transcripts import Scored, Segment, Target, Turn
from consolidator_providers.chat_logprobs import open_chat
from consolidator_providers.completions_logprobs import open_completions
from consolidator_providers.score_endpoint import open_score_endpoint
from tests.logprob_server import (
    MODEL,
    Body,
    Fault,
    LogprobServer,
    all_rows,
    cut,
    hangs,
    likeliest_first,
    prompt_in,
    puts,
    refuses,
    says,
    serving,
    shifted,
    shortened,
    tokens_of,
)

OPENERS: dict[str, Callable[..., Any]] = {
    "completions": open_completions, "chat": open_chat, "score-endpoint": open_score_endpoint,
}
KINDS = tuple(OPENERS)
TOKEN_KINDS = KINDS[:2]
HTML = "<html><body>Bad Gateway</body></html>"

every_kind = pytest.mark.parametrize("kind", KINDS)
kinds_with_tokens = pytest.mark.parametrize("kind", TOKEN_KINDS)


@pytest.fixture
def server() -> Iterator[LogprobServer]:
    with serving() as server:
        yield server


class TestCompletions(LogprobModelContract):
    @pytest.fixture
    async def logprob_model(self, server: LogprobServer) -> AsyncIterator[LogprobModel]:
        model = await open_completions(base_url=server.url, model=MODEL)
        yield model
        await model.close()


class TestChat(LogprobModelContract):
    @pytest.fixture
    async def logprob_model(self, server: LogprobServer) -> AsyncIterator[LogprobModel]:
        model = await open_chat(base_url=server.url, model=MODEL)
        yield model
        await model.close()


class TestScoreEndpoint(LogprobModelContract):
    @pytest.fixture
    async def logprob_model(self, server: LogprobServer) -> AsyncIterator[LogprobModel]:
        model = await open_score_endpoint(base_url=server.url, model=MODEL)
        yield model
        await model.close()


class TestChatWithoutTokenizer(LogprobModelContract):
    @pytest.fixture
    async def logprob_model(self, server: LogprobServer) -> AsyncIterator[LogprobModel]:
        server.closed = {"/tokenize"}
        model = await open_chat(base_url=server.url, model=MODEL)
        yield model
        await model.close()


class TestScoreEndpointWithoutTokenizer(LogprobModelContract):
    @pytest.fixture
    async def logprob_model(self, server: LogprobServer) -> AsyncIterator[LogprobModel]:
        server.closed = {"/tokenize"}
        model = await open_score_endpoint(base_url=server.url, model=MODEL, chunk_tokens=1000)
        yield model
        await model.close()


@asynccontextmanager
async def opened(server: LogprobServer, kind: str, **settings: Any) -> AsyncIterator[LogprobModel]:
    model: LogprobModel = await OPENERS[kind](base_url=server.url, **{"model": MODEL, **settings})
    try:
        yield model
    finally:
        await model.close()


@asynccontextmanager
async def proven(server: LogprobServer, kind: str, **settings: Any) -> AsyncIterator[LogprobModel]:
    """Verified, and its requests forgotten."""
    async with opened(server, kind, **settings) as model:
        await model.verify()
        server.requests.clear()
        server.most_working = 0
        yield model


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consolidator_providers.logprob_wire._backoff", lambda _: 0.0)


# What the handshake refuses


@kinds_with_tokens
async def test_a_server_that_is_off_by_one_is_refused(server: LogprobServer, kind: str) -> None:
    server.damage = shifted
    async with opened(server, kind) as model:
        with pytest.raises(ScoringMisaligned, match="nats per token"):
            await model.verify()
        with pytest.raises(ScoringError):
            await model.score([target(MEMORY)])


def no_logprobs(_: Body, answer: Body) -> None:
    answer["prompt_logprobs"] = None
    for choice in answer.get("choices", []):
        choice["logprobs"] = None


def one_entry(_: Body, answer: Body) -> None:
    for row in all_rows(answer):
        del row[1:]


def echo_ignored(request: Body, answer: Body) -> None:
    answer.pop("prompt_logprobs", None)
    for choice in answer["choices"]:
        choice["logprobs"] = None
        choice["text"] = "something made up"


def constant(_: Body, answer: Body) -> None:
    for row in all_rows(answer):
        row[1:] = [puts_in(cell, -2.5) for cell in row[1:]]


def puts_in(cell: Any, value: float) -> Any:
    return {key: {**one, "logprob": value} for key, one in cell.items()} if isinstance(cell, dict) else value


@kinds_with_tokens
@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (no_logprobs, ScoringUnsupported),
        (echo_ignored, ScoringUnsupported),
        (one_entry, ScoringMisaligned),
        (constant, ScoringMisaligned),
    ],
)
async def test_a15_what_cannot_score_given_text_is_refused(
    server: LogprobServer, kind: str, damage: Callable[[Body, Body], None], error: type[ScoringError]
) -> None:
    server.damage = damage
    async with opened(server, kind) as model:
        with pytest.raises(error) as caught:
            await model.verify()
        assert type(caught.value) is error


@every_kind
@pytest.mark.parametrize(
    ("fault", "error", "requests"),
    [
        (refuses(400, "echo is not supported with logprobs", "echo"), ScoringUnsupported, 1),
        (refuses(422, "Extra inputs are not permitted"), ScoringUnsupported, 1),
        (refuses(404, "Not Found"), ScoringUnsupported, 1),
        (refuses(401, "invalid key"), ScoringUnsupported, 1),
        (refuses(403, "not yours"), ScoringUnsupported, 1),
        (refuses(503, "starting"), ScoringUnavailable, 4),
    ],
    ids=["400", "422", "404", "401", "403", "503"],
)
@pytest.mark.usefixtures("no_waiting")
async def test_a_refusal_of_the_fixed_prompts_is_one_of_the_form(
    server: LogprobServer, kind: str, fault: Fault, error: type[ScoringError], requests: int
) -> None:
    server.faults = [fault] * 9
    async with opened(server, kind) as model:
        with pytest.raises(error) as caught:
            await model.verify()
        assert type(caught.value) is error
        assert "status" in str(caught.value)
        assert len(server.scorings) == requests


@kinds_with_tokens
async def test_a_model_that_is_not_listed_is_refused(server: LogprobServer, kind: str) -> None:
    async with opened(server, kind, model="another") as model:
        with pytest.raises(ScoringUnsupported, match="no model 'another'"):
            await model.verify()


@pytest.mark.parametrize(
    "reply",
    [
        {"id": "score-1", "object": "list", "data": [{"index": 0, "object": "score", "score": 0.7}]},
        {"scores": [0.1]},
        {"scores": [{"score": 0.5}]},
        {"scores": None},
    ],
)
async def test_a15_a_score_path_that_rates_something_else_is_refused(server: LogprobServer, reply: Body) -> None:
    server.faults = [says(reply)] * 3
    async with opened(server, "score-endpoint") as model:
        with pytest.raises(ScoringUnsupported, match="total_logprob"):
            await model.verify()


async def test_a_score_endpoint_that_does_not_read_the_context_is_refused(server: LogprobServer) -> None:
    server.damage = lambda _, answer: [score.update(total_logprob=-10.0) for score in answer["scores"]]
    async with opened(server, "score-endpoint") as model:
        with pytest.raises(ScoringMisaligned, match="repeats"):
            await model.verify()


@kinds_with_tokens
async def test_another_number_among_others_is_refused(server: LogprobServer, kind: str) -> None:
    def damage(_: Body, answer: Body) -> None:
        for row in all_rows(answer) if len(server.scorings) > 2 else ():
            row[-1] = puts_in(row[-1], -99.0)

    server.damage = damage
    async with opened(server, kind) as model:
        with pytest.raises(ScoringMisaligned, match="alone than among others"):
            await model.verify()


async def test_a_failed_proof_ends_the_one_before(server: LogprobServer) -> None:
    async with proven(server, "completions") as model:
        server.damage = shifted
        with pytest.raises(ScoringMisaligned):
            await model.verify()
        with pytest.raises(ScoringError, match="verify"):
            await model.score([target(MEMORY)])


@every_kind
async def test_the_unit_tells_kind_model_and_template(server: LogprobServer, kind: str) -> None:
    async with opened(server, kind) as plain, opened(server, kind, chat_template_kwargs={"thinking": False}) as other:
        units = [(await model.verify()).unit for model in (plain, other)]
    assert len(set(units)) == 2
    assert all(unit.startswith(f"{kind}/{MODEL}/") for unit in units)


# One item's fault


ONE_ITEM: dict[str, Callable[[Body, Body], object]] = {
    "-9999": puts(-9999.0),
    "-9000": puts(-9000.0),
    "nan": puts(float("nan")),
    "infinite": puts(float("-inf")),
    "positive": puts(0.5),
    "null": puts(None),
    "short": shortened,
}


@kinds_with_tokens
@pytest.mark.parametrize("fault", ONE_ITEM)
async def test_a18_b02_what_is_no_log_probability_is_no_number(server: LogprobServer, kind: str, fault: str) -> None:
    async with proven(server, kind) as model:
        first = True

        def damage(request: Body, answer: Body) -> None:
            nonlocal first
            if first:
                ONE_ITEM[fault](request, answer)
            first = False

        server.damage = damage
        outcomes = await model.score([target(MEMORY), target(OTHER), target(MEMORY, OTHER)])
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Scored", "Scored", "ScoringMisaligned"]


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 3.0, None, "-1", True, -9999.0 * 500])
async def test_a18_a_total_that_is_none_is_no_number(server: LogprobServer, value: Any) -> None:
    async with proven(server, "score-endpoint") as model:
        server.damage = puts(value)
        assert [type(one) for one in await model.score([target(MEMORY)])] == [ScoringMisaligned]


@pytest.mark.parametrize("count", [0, 2])
async def test_a02_another_number_of_scores_fails_the_item(server: LogprobServer, count: int) -> None:
    async with proven(server, "score-endpoint") as model:
        server.faults = [says({"scores": [{"total_logprob": -1.0}] * count})]
        outcomes = await model.score([target(MEMORY)])
    assert [type(one) for one in outcomes] == [ScoringMisaligned]


async def test_a02_one_score_too_few_of_several(server: LogprobServer) -> None:
    said = Turn(role="assistant", segments=(Segment(text="Hello."),))
    async with proven(server, "score-endpoint") as model:
        server.damage = lambda _, answer: answer["scores"].pop()
        (outcome,) = await model.score([Target(context=(turn(MEMORY), said, turn(OTHER)), response=ANSWER)])
    assert isinstance(outcome, ScoringMisaligned)
    assert "1 scores came for 2" in str(outcome)


def other_ids(_: Body, answer: Body) -> None:
    for holder in [answer, *answer.get("choices", [])]:
        if holder.get("prompt_token_ids"):
            holder["prompt_token_ids"][4] += 1


@kinds_with_tokens
async def test_b07_ids_that_differ_are_misaligned(server: LogprobServer, kind: str) -> None:
    async with proven(server, kind) as model:
        server.damage = other_ids
        assert [type(one) for one in await model.score([target(MEMORY)])] == [ScoringMisaligned]


async def test_b01_the_prompts_own_token_is_taken_and_not_the_first(server: LogprobServer) -> None:
    async with proven(server, "chat") as model:
        plain = await numbers(model, target(MEMORY), target(OTHER))
        server.damage = likeliest_first
        assert await numbers(model, target(MEMORY), target(OTHER)) == plain


async def test_b01_without_ids_the_only_key_is_the_tokens_and_two_are_a_riddle(server: LogprobServer) -> None:
    async with proven(server, "chat") as model:
        plain = await numbers(model, target(MEMORY))
        server.damage = lambda _, answer: answer.pop("prompt_token_ids")
        assert await numbers(model, target(MEMORY)) == plain

        def riddle(request: Body, answer: Body) -> None:
            likeliest_first(request, answer)
            del answer["prompt_token_ids"]

        server.damage = riddle
        assert [type(one) for one in await model.score([target(MEMORY)])] == [ScoringMisaligned]


async def test_b02_a_missing_key_is_unknown_and_not_certain(server: LogprobServer) -> None:
    async with proven(server, "chat") as model:
        server.damage = lambda _, answer: answer["prompt_logprobs"][-2].clear()
        assert [type(one) for one in await model.score([target(MEMORY)])] == [ScoringMisaligned]


async def test_choices_come_in_any_order(server: LogprobServer) -> None:
    targets = [target(MEMORY), target(OTHER), target(OTHER, MEMORY)]
    async with proven(server, "completions") as model:
        plain = await numbers(model, *targets)
        server.damage = lambda _, answer: answer["choices"].reverse()
        assert await numbers(model, *targets) == plain


async def test_a_choice_that_is_missing_is_asked_for_alone(server: LogprobServer) -> None:
    targets = [target(MEMORY), target(OTHER), target(OTHER, MEMORY)]
    async with proven(server, "completions") as model:
        plain = await numbers(model, *targets)
        server.requests.clear()
        server.damage = lambda request, answer: len(request["prompt"]) > 1 and answer["choices"].pop()
        assert await numbers(model, *targets) == plain
        assert [len(body["prompt"]) for body in server.scorings] == [3, 1, 1, 1]
        server.damage = lambda _, answer: answer["choices"].clear()
        assert {type(one) for one in await model.score(targets)} == {ScoringMisaligned}


async def test_one_long_prompt_does_not_condemn_its_batch(server: LogprobServer) -> None:
    async with proven(server, "completions") as model:
        server.limit = 600
        outcomes = await model.score([target(MEMORY), target("word " * 200), target(OTHER)])
        assert [type(one) for one in outcomes] == [Scored, ContextTooLong, Scored]
        assert sorted(len(body["prompt"]) for body in server.scorings) == [1, 1, 1, 3]


@kinds_with_tokens
async def test_what_cannot_fit_is_not_sent(server: LogprobServer, kind: str) -> None:
    async with proven(server, kind, chunk_tokens=500) as model:
        (outcome,) = await model.score([target("word " * 200)])
        assert isinstance(outcome, ContextTooLong)
        assert "500" in str(outcome)
        assert not server.scorings


@every_kind
async def test_a_400_without_a_better_name_refuses_the_item_and_no_more(server: LogprobServer, kind: str) -> None:
    async with proven(server, kind) as model:
        server.faults = [refuses(400, "Token id 99999 is out of vocabulary")]
        (outcome,) = await model.score([target(MEMORY)])
        assert type(outcome) is ScoringRejected
        assert "status 400" in str(outcome)
        assert await numbers(model, target(MEMORY))


# What passes, and what does not


@every_kind
@pytest.mark.parametrize(
    "faults",
    [
        [refuses(429, "slow down", Retry_After="0.05")],
        [refuses(500, "internal"), says(HTML, 502), refuses(408, "late")],
        [cut, cut],
        [says(HTML, 200)],
        [says({"error": "the engine is overloaded"})],
    ],
    ids=["429", "5xx", "cut", "html", "busy"],
)
@pytest.mark.usefixtures("no_waiting")
async def test_a03_b12_what_passes_is_asked_again(server: LogprobServer, kind: str, faults: list[Fault]) -> None:
    async with proven(server, kind) as model:
        plain = await numbers(model, target(MEMORY))
        server.faults = list(faults)
        server.requests.clear()
        assert await numbers(model, target(MEMORY)) == plain
        assert len(server.scorings) == len(faults) + 1


@every_kind
@pytest.mark.parametrize("fault", [refuses(500, "internal"), says(HTML, 502), cut], ids=["500", "502", "cut"])
@pytest.mark.usefixtures("no_waiting")
async def test_a03_four_attempts_are_the_end(server: LogprobServer, kind: str, fault: Fault) -> None:
    async with proven(server, kind) as model:
        server.faults = [fault] * 9
        (outcome,) = await model.score([target(MEMORY)])
        assert type(outcome) is ScoringUnavailable
        assert "attempts: 4" in str(outcome)
        assert len(server.scorings) == 4


@every_kind
async def test_a_long_wait_is_left_to_the_caller(server: LogprobServer, kind: str) -> None:
    async with proven(server, kind) as model:
        server.faults = [refuses(429, "slow down", Retry_After="600")] * 2
        (outcome,) = await model.score([target(MEMORY)])
        assert isinstance(outcome, ScoringUnavailable)
        assert outcome.retry_after == 600
        assert len(server.scorings) == 1


@pytest.mark.usefixtures("no_waiting")
async def test_b12_what_is_slow_beyond_the_limit_is_unavailable(server: LogprobServer) -> None:
    async with proven(server, "completions", deadline=1.5) as model:
        server.faults = [hangs, refuses(429, "slow down", Retry_After="600")]
        (outcome,) = await model.score([target(MEMORY)])
        assert isinstance(outcome, ScoringUnavailable)
        assert len(server.scorings) == 2


@every_kind
def test_b12_one_request_has_120_seconds(kind: str) -> None:
    assert inspect.signature(OPENERS[kind]).parameters["deadline"].default == 120


@every_kind
@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_no_item_can_help_is_raised_and_ends_the_proof(server: LogprobServer, kind: str, status: int) -> None:
    async with proven(server, kind) as model:
        server.faults = [refuses(status, "no")] * 99
        with pytest.raises(ScoringUnsupported, match=f"status {status}"):
            await model.score([target(f"note {number}") for number in range(40)])
        sent = len(server.scorings)
        with pytest.raises(ScoringError, match="verify"):
            await model.score([target(MEMORY)])
        assert len(server.scorings) == sent <= 2


@every_kind
@pytest.mark.parametrize(
    ("fault", "says_so"),
    [
        (says(HTML, 502), "status 502): <html>"),
        (refuses(418, "I am a teapot"), "status 418): 418 badrequesterror i am a teapot"),
        (says({"error": "no such thing"}, 409), "status 409): no such thing"),
        (says({"error": "no such thing"}), "status 200): no such thing"),
        (says({"error": {"message": "no such thing"}}), "status 200): no such thing"),
        (says({"oops": "no such thing"}, 418), "status 418): {\"oops\""),
    ],
    ids=["html", "object", "text", "text-200", "object-200", "neither"],
)
@pytest.mark.usefixtures("no_waiting")
async def test_a16_the_status_comes_first_and_then_what_was_said(
    server: LogprobServer, kind: str, fault: Fault, says_so: str
) -> None:
    async with proven(server, kind) as model:
        server.faults = [fault] * 4
        (outcome,) = await model.score([target(MEMORY)])
        assert isinstance(outcome, ScoringError)
        assert says_so in str(outcome)


@every_kind
@pytest.mark.parametrize("words", [f"cannot read: {MEMORY}", "cannot read [98, 99, 100, 101]"], ids=["text", "ids"])
async def test_no_text_of_a_prompt_is_in_an_error_or_a_log(
    server: LogprobServer, kind: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with proven(server, kind) as model:
        server.faults = [refuses(400, words)]
        (outcome,) = await model.score([target(MEMORY)])
    assert "quotes the request" in str(outcome)
    assert "lisbon" not in f"{outcome} {caplog.text}".lower()
    assert "98" not in str(outcome)


# What is sent


@every_kind
async def test_b14_two_requests_at_a_time_and_few_prompts_in_each(server: LogprobServer, kind: str) -> None:
    async with proven(server, kind, max_batch=3) as model:
        await numbers(model, *(target(f"note {number}") for number in range(10)))
        assert server.most_working <= 2
        assert all(len(prompt_in(body)) <= 3 for body in server.scorings)


async def test_b14_a_request_has_a_bound_in_tokens(server: LogprobServer) -> None:
    async with proven(server, "completions", chunk_tokens=600) as model:
        await numbers(model, *(target(MEMORY, f"note {number}") for number in range(6)))
        sizes = [[len(prompt) for prompt in body["prompt"]] for body in server.scorings]
        assert sum(map(len, sizes)) == 6
        assert max(map(sum, sizes)) <= 600


async def test_b14_memory_that_ran_out_halves_the_request_once(server: LogprobServer) -> None:
    targets = [target(MEMORY, f"note {number}") for number in range(4)]
    async with proven(server, "completions") as model:
        plain = await numbers(model, *targets)
        server.memory = sum(one.prompt_tokens for one in plain) // 2 + 10
        assert await numbers(model, *targets) == plain
        server.memory = plain[0].prompt_tokens
        server.requests.clear()
        outcomes = await model.score(targets)
        assert {type(one) for one in outcomes} == {ContextTooLong}
        assert sorted(len(body["prompt"]) for body in server.scorings) == [2, 2, 4]
        assert "2 prompts of" in str(outcomes[0])


async def test_b03_b04_b06_the_response_is_where_its_context_ends(server: LogprobServer) -> None:
    """Whatever a user turn says, also the template's own marks and the word `assistant` with a line break."""
    marks = "assistant\n<|im_end|>\n<|im_start|>assistant\n<think>"
    found: dict[str, list[Scored]] = {}
    for kind in TOKEN_KINDS:
        async with proven(server, kind) as model:
            found[kind] = await numbers(model, target(MEMORY), target(marks, MEMORY))
    assert found["chat"] == found["completions"]
    for one in found["chat"]:
        assert one.ids == tuple(tokens_of(ANSWER))


@every_kind
async def test_a07_tokens_are_counted_and_where_they_come_from_is_told(server: LogprobServer, kind: str) -> None:
    async with proven(server, kind) as model:
        (one,) = await numbers(model, target(MEMORY))
        assert (one.tokens, one.estimated) == (len(ANSWER), False)


async def test_a07_without_a_tokenizer_the_count_and_the_unit_say_so(server: LogprobServer) -> None:
    server.closed = {"/tokenize"}
    async with opened(server, "score-endpoint") as model:
        assert (await model.verify()).unit.endswith("/est")
        (one,) = await numbers(model, target(MEMORY))
        assert (one.tokens, one.estimated) == (-(-len(ANSWER) // 4), True)


@kinds_with_tokens
async def test_known_ids_are_scored_without_the_end_of_the_turn(server: LogprobServer, kind: str) -> None:
    said = tuple(tokens_of(ANSWER))
    async with proven(server, kind) as model:
        known = [Target(context=(turn(MEMORY),), response=ANSWER, response_ids=ids) for ids in (said, (*said, 2))]
        plain, ended = await numbers(model, *known)
        assert plain == ended
        assert plain.ids == said


async def test_chat_cannot_pin_ids_and_says_when_they_differ(server: LogprobServer) -> None:
    split = Target(context=(turn(MEMORY),), response=ANSWER, response_ids=tuple(tokens_of(ANSWER[::-1])))
    async with proven(server, "chat") as chat, proven(server, "completions") as pinned:
        assert [type(one) for one in await chat.score([split])] == [ScoringMisaligned]
        assert (await numbers(pinned, split))[0].ids == split.response_ids


@every_kind
async def test_key_arguments_and_priority_are_sent(server: LogprobServer, kind: str) -> None:
    settings = {} if kind == "score-endpoint" else {"priority": 5}
    async with proven(server, kind, api_key="word", chat_template_kwargs={"thinking": False}, **settings) as model:
        await numbers(model, target(MEMORY))
    assert set(server.keys) == {"Bearer word"}
    assert {body.get("priority") for body in server.scorings} == {settings.get("priority")}
    asked = [body for _, body in server.requests if "messages" in body]
    assert all(body["chat_template_kwargs"] == {"thinking": False} for body in asked)


async def test_a_context_and_a_response_are_split_into_tokens_once(server: LogprobServer) -> None:
    async with proven(server, "completions") as model:
        await numbers(model, *[target(MEMORY)] * 5, *[target(OTHER)] * 5)
        assert [path for path, _ in server.requests].count("/tokenize") == 3


@every_kind
async def test_cancelled_calls_leave_no_request_behind(server: LogprobServer, kind: str) -> None:
    async with proven(server, kind) as model:
        server.faults = [hangs, hangs]
        server.asked.clear()
        call = asyncio.create_task(model.score([target(f"note {number}") for number in range(40)]))
        await asyncio.to_thread(server.asked.wait)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        server.faults.clear()
        await numbers(model, target(MEMORY))
        assert len(server.scorings) <= 3  # two that were under way, and the last


@every_kind
@pytest.mark.parametrize(
    "wrong", [{"deadline": 0.0}, {"max_batch": 0}, {"max_batch": 17}, {"chunk_tokens": 1}, {"model": ""}]
)
async def test_settings_that_cannot_work_are_refused(kind: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSettings):
        await OPENERS[kind](**{"base_url": "http://127.0.0.1:1/v1", "model": MODEL, **wrong})


@every_kind
async def test_prompts_go_to_no_address_that_is_open_to_others(kind: str) -> None:
    with pytest.raises(InvalidSettings, match="https"):
        await OPENERS[kind](base_url="http://192.168.1.7:8000/v1", model=MODEL)


def test_each_kind_is_found_by_its_name() -> None:
    found = {point.name: point.load() for point in entry_points(group="consolidator.logprob_models")}
    assert {kind: found[kind] for kind in KINDS} == OPENERS
    assert found["transformers"].__name__ == "open_transformers"


def test_no_vendor_is_imported_with_the_modules() -> None:
    names = "completions_logprobs, chat_logprobs, score_endpoint, transformers_logprobs"
    vendors = {"openai", "torch", "transformers"}
    code = f"import sys; from consolidator_providers import {names}; print({vendors!r} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.vllm
class TestVllm(LogprobModelContract):
    __test__ = "VLLM_URL" in os.environ

    @pytest.fixture(params=TOKEN_KINDS)
    async def logprob_model(self, request: pytest.FixtureRequest) -> AsyncIterator[LogprobModel]:
        url, name = os.environ["VLLM_URL"], os.environ.get("VLLM_MODEL", MODEL)
        model: LogprobModel = await OPENERS[request.param](base_url=url, model=name)
        yield model
        await model.close()
