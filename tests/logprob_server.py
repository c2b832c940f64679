"""A model server on loopback in the shapes of vLLM 0.32 and of a score endpoint, over a made-up language model whose
log-probabilities are real: they can be generated, scored again, and told from shifted ones. It fails as it is told to.

The tokens are bytes, so a role's name is many of them. The model copies: what followed the last four tokens before is likely
again; otherwise a letter comes by a fixed table for each letter before.
"""

from __future__ import annotations

import json
import math
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

START, END, FIRST = 1, 2, 10
VOCABULARY = FIRST + 256
LETTERS = [FIRST + byte for byte in b"abcdefghijklmnopqrstuvwxyz "]
SUFFIX = 4
COPIES = 0.9
MODEL = "tiny"
LIMIT = 4096

Body = dict[str, Any]
Fault = Callable[["Handler"], None]


# The language model


def tokens_of(text: str) -> list[int]:
    return [FIRST + byte for byte in text.encode()]


def text_of(ids: Sequence[int]) -> str:
    return bytes(id - FIRST for id in ids if id >= FIRST).decode(errors="replace")


def written(messages: Sequence[Mapping[str, str]], *, reply: bool, unfinished: bool = False) -> list[int]:
    """The template. unfinished: the last message goes on."""
    ids: list[int] = []
    for message in messages:
        ids += [START, *tokens_of(f"{message['role']}\n{message['content']}"), END, *tokens_of("\n")]
    return (ids[:-2] if unfinished else ids) + ([START, *tokens_of("assistant\n")] if reply else [])


@cache
def base(before: int) -> tuple[float, ...]:
    weights = {letter: ((before * 131 + letter * 71) % 257 + 1) ** (before % 4 * 4) for letter in LETTERS}
    whole = sum(weights.values())
    return tuple(0.02 / VOCABULARY + 0.98 * weights.get(id, 0) / whole for id in range(VOCABULARY))


class CopyModel:
    """Reads one token after the other."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.followers: dict[tuple[int, ...], Counter[int]] = {}

    def read(self, id: int) -> None:
        self.followers.setdefault(tuple(self.ids[-SUFFIX:]), Counter())[id] += 1
        self.ids.append(id)

    def probability(self, id: int) -> float:
        plain = base(self.ids[-1])[id]
        seen = self.followers.get(tuple(self.ids[-SUFFIX:]))
        return COPIES * seen[id] / seen.total() + (1 - COPIES) * plain if seen else plain


@cache
def row_of(ids: tuple[int, ...]) -> tuple[float | None, ...]:
    model, found = CopyModel(), list[float | None]()
    for id in ids:
        found.append(math.log(model.probability(id)) if model.ids else None)
        model.read(id)
    return tuple(found)


def logprobs(ids: Sequence[int]) -> list[float | None]:
    return list(row_of(tuple(ids)))


@cache
def generated(ids: tuple[int, ...], count: int, *, temperature: float) -> list[tuple[int, float]]:
    model, draw, said = CopyModel(), random.Random(7), list[tuple[int, float]]()
    for id in ids:
        model.read(id)
    for _ in range(count):
        row = [model.probability(id) for id in range(VOCABULARY)]
        best = draw.choices(range(VOCABULARY), row)[0] if temperature else row.index(max(row))
        said.append((best, math.log(row[best])))
        model.read(best)
    return said


# Answers


def entry(id: int, value: float | None) -> Body:
    return {str(id): {"logprob": value, "rank": 1, "decoded_token": text_of([id])}}


def echoed(ids: Sequence[int], values: Sequence[float | None]) -> Body:
    tokens = [text_of([id]) for id in ids]
    tops = [None if value is None else {token: value} for token, value in zip(tokens, values, strict=True)]
    return {"tokens": tokens, "token_logprobs": list(values), "text_offset": list(range(len(ids))), "top_logprobs": tops}


def completion(position: int, prompt: list[int], request: Body) -> Body:
    said = generated(tuple(prompt), request["max_tokens"], temperature=request.get("temperature", 1))
    ids, values = [id for id, _ in said], [value for _, value in said]
    numbers = echoed(prompt, logprobs(prompt)) if request.get("echo") else echoed(ids, values)
    ends = {"finish_reason": "length", "stop_reason": None, "text": ""}
    return {"index": position, "logprobs": numbers, **ends, "prompt_token_ids": prompt, "token_ids": ids}


def completions(request: Body) -> Body:
    prompts = request["prompt"] if isinstance(request["prompt"][0], list) else [request["prompt"]]
    size = sum(map(len, prompts))
    usage = {"prompt_tokens": size, "total_tokens": size + len(prompts), "completion_tokens": len(prompts)}
    choices = [completion(position, prompt, request) for position, prompt in enumerate(prompts)]
    return {"id": "cmpl-1", "object": "text_completion", "model": MODEL, "choices": choices, "usage": usage}


def chat(request: Body) -> Body:
    prompt = prompt_in(request)[0]
    said = generated(tuple(prompt), request["max_tokens"], temperature=request.get("temperature", 1))
    content = [{"token": text_of([id]), "logprob": value, "top_logprobs": []} for id, value in said]
    ids = [id for id, _ in said]
    message = {"role": "assistant", "content": text_of(ids)}
    told = {"content": content} if request.get("logprobs") else None
    choices = [{"index": 0, "message": message, "logprobs": told, "finish_reason": "length", "token_ids": ids}]
    answer = {"id": "chat-1", "object": "chat.completion", "model": MODEL, "choices": choices, "prompt_token_ids": prompt}
    if "prompt_logprobs" in request:
        rows = zip(prompt, logprobs(prompt), strict=True)
        answer["prompt_logprobs"] = [None if value is None else entry(id, value) for id, value in rows]
    return answer


def score(request: Body) -> Body:
    messages, scores = request["messages"], []
    for position, message in enumerate(messages):
        if message["role"] == "assistant":
            before = written(messages[:position], reply=True)
            values = logprobs([*before, *tokens_of(message["content"])])[len(before) :]
            scores.append({"total_logprob": math.fsum(value or 0.0 for value in values)})
    return {"scores": scores}


def tokenize(request: Body) -> Body:
    text = request.get("prompt")
    ids = tokens_of(text) if text is not None else written(request["messages"], reply=request["add_generation_prompt"])
    return {"count": len(ids), "max_model_len": LIMIT, "tokens": ids, "token_strs": None}


def prompt_in(request: Body) -> list[list[int]]:
    """The prompts of a request, as tokens."""
    if "prompt" in request and isinstance(request["prompt"], list):
        return request["prompt"] if isinstance(request["prompt"][0], list) else [request["prompt"]]
    last = request.get("continue_final_message", False)
    reply = request.get("add_generation_prompt", True)
    return [written(request.get("messages", []), reply=reply, unfinished=last)]


ANSWERS: dict[str, Callable[[Body], Body]] = {
    "/v1/completions": completions, "/v1/chat/completions": chat, "/v1/score": score, "/tokenize": tokenize,
}


# The server


class LogprobServer(ThreadingHTTPServer):
    """faults: what the next scoring requests meet, one each. damage: what is done to every scoring answer. closed: paths that
    are not there. limit: tokens that a prompt may have. memory: tokens that a request may have in all.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[Fault] = []
        self.damage: Callable[[Body, Body], object] = lambda request, answer: None
        self.closed: set[str] = set()
        self.limit = LIMIT
        self.memory = 1_000_000
        self.requests: list[tuple[str, Body]] = []
        self.keys: list[str | None] = []
        self.working = 0
        self.most_working = 0
        self.lock = threading.Lock()
        self.asked = threading.Event()  # a scoring request has come
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def scorings(self) -> list[Body]:
        return [body for path, body in self.requests if scores(path, body)]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients give up on purpose here."""


def scores(path: str, body: Body) -> bool:
    return path == "/v1/score" or bool(body.get("echo")) or "prompt_logprobs" in body


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes
    body: Body

    @property
    def host(self) -> LogprobServer:
        assert isinstance(self.server, LogprobServer)
        return self.server

    def do_GET(self) -> None:
        if self.path in self.host.closed:
            return refuses(404, "Not Found")(self)
        card = {"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": LIMIT}
        return self.send(200, {"object": "list", "data": [card]})

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.host.lock:
            self.host.requests.append((self.path, self.body))
            self.host.keys.append(self.headers["Authorization"])
            if scores(self.path, self.body):
                self.host.asked.set()
            self.host.working += 1
            self.host.most_working = max(self.host.most_working, self.host.working)
            faulty = scores(self.path, self.body) and self.host.faults
            act = self.host.faults.pop(0) if faulty else answers
        try:
            act(self)
        finally:
            with self.host.lock:
                self.host.working -= 1

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def send(self, status: int, body: Body | str, **headers: str) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


def answers(handler: Handler) -> None:
    """As it should, within the limits, and then damaged."""
    host, body = handler.host, handler.body
    if handler.path in host.closed:
        return refuses(404, "Not Found")(handler)
    if body["model"] != MODEL:
        return refuses(404, f"The model `{body['model']}` does not exist.", "model")(handler)
    if handler.path != "/tokenize":
        sizes = [len(prompt) for prompt in prompt_in(body)]
        if max(sizes) > host.limit:
            text = f"This model's maximum context length is {host.limit} tokens. However, your prompt has {max(sizes)}."
            return refuses(400, text, "input_tokens")(handler)
        if sum(sizes) > host.memory:
            return refuses(500, "CUDA out of memory. Tried to allocate 5 GiB.")(handler)
    answer = ANSWERS[handler.path](body)
    if scores(handler.path, body):
        host.damage(body, answer)
    return handler.send(200, answer)


# Faults of the wire


def refuses(status: int, message: str, param: str | None = None, **headers: str) -> Fault:
    error = {"message": message, "type": "BadRequestError", "param": param, "code": status}
    return lambda handler: handler.send(status, {"error": error}, **headers)


def says(body: Body | str, status: int = 200) -> Fault:
    return lambda handler: handler.send(status, body)


def cut(handler: Handler) -> None:
    """The connection ends in the middle of the body."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def hangs(handler: Handler) -> None:
    handler.host.stopped.wait(30)
    handler.close_connection = True


# Damage to an answer


def all_rows(answer: Body) -> list[list[Any]]:
    """The lists of numbers or entries in a scoring answer, to be changed in place."""
    if "prompt_logprobs" in answer:
        return [answer["prompt_logprobs"]]
    return [choice["logprobs"]["token_logprobs"] for choice in answer.get("choices", [])]


def puts(value: float | None, *, back: int = 3) -> Callable[[Body, Body], None]:
    """A value in the place of the one that stands `back` from the end of the first prompt's."""

    def damage(_: Body, answer: Body) -> None:
        if "scores" in answer:
            answer["scores"][-1]["total_logprob"] = value
            return
        row = all_rows(answer)[0]
        own = row[-back]
        row[-back] = {key: {**cell, "logprob": value} for key, cell in own.items()} if isinstance(own, dict) else value

    return damage


def shifted(_: Body, answer: Body) -> None:
    """Every number belongs to the token after its own."""
    for row in all_rows(answer):
        if isinstance(row[1], dict):
            values = [next(iter(cell.values()))["logprob"] for cell in row[1:]]
            for cell, value in zip(row[1:], [*values[1:], values[-1]], strict=True):
                next(iter(cell.values()))["logprob"] = value
        else:
            row[1:] = [*row[2:], row[-1]]


def shortened(_: Body, answer: Body) -> None:
    for row in all_rows(answer)[:1]:
        del row[-1]


def likeliest_first(_: Body, answer: Body) -> None:
    """As `prompt_logprobs: 1` has it: the likeliest token stands in the map too, before the prompt's own."""
    rows = answer["prompt_logprobs"]
    rows[1:] = [{"7": {"logprob": -0.001, "rank": 1, "decoded_token": "x"}, **cell} for cell in rows[1:]]


@contextmanager
def serving() -> Iterator[LogprobServer]:
    with LogprobServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            server.shutdown()
            thread.join()
