"""A model server on loopback that answers well or fails in one way, by the name of the model that is asked for."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from consolidator.testing.models import hash_vector

DIMENSION = 64
ANSWER = '{"answer": "Lisbon"}'
SECRET = "a sentence of the prompt that servers echo"

Body = dict[str, Any]
Mode = Callable[["Handler", Body], None]


class FaultServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: Counter[str] = Counter()
        self.bodies: dict[str, list[Body]] = {}
        self.stopped = threading.Event()
        self.elsewhere: FaultServer | None = None  # where redirects lead

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients give up on purpose here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes

    @property
    def faults(self) -> FaultServer:
        assert isinstance(self.server, FaultServer)
        return self.server

    def do_POST(self) -> None:
        body: Body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = body["model"]
        self.faults.requests[model] += 1
        self.faults.bodies.setdefault(model, []).append(body)
        MODES[model](self, body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def send(self, status: int, text: str, headers: Mapping[str, str] | None = None, kind: str = "application/json") -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def completion(content: Any = ANSWER, *, finish: str = "stop", refusal: str | None = None) -> str:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return json.dumps(
        {
            "id": "reply-1",
            "object": "chat.completion",
            "created": 1,
            "model": "served-model",
            "choices": [{"index": 0, "finish_reason": finish, "message": message, "logprobs": None}],
            "usage": {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19},
        }
    )


def vectors(texts: list[str], dimension: int = DIMENSION) -> str:
    rows = [{"object": "embedding", "index": i, "embedding": hash_vector(text, dimension)} for i, text in enumerate(texts)]
    return json.dumps({"object": "list", "model": "served-model", "data": rows[::-1], "usage": {"prompt_tokens": 1}})


def good(handler: Handler, body: Body) -> None:
    if "input" in body:
        handler.send(200, vectors(body["input"], body.get("dimensions", DIMENSION)))
    else:
        handler.send(200, completion())


def says(text: str, *, kind: str = "application/json") -> Mode:
    return lambda handler, _: handler.send(200, text, kind=kind)


def fails(status: int, *, code: str | None = None, message: str = "", param: str | None = None, **headers: str) -> Mode:
    error = {"message": f"{message or 'failed'}: {SECRET}", "type": "error", "code": code, "param": param}
    text = json.dumps({"error": error})
    return lambda handler, _: handler.send(status, text, {name.replace("_", "-"): value for name, value in headers.items()})


def first(times: int, mode: Mode, then: Mode = good) -> Mode:
    """`mode` for the first requests, `then` for all others."""

    def choose(handler: Handler, body: Body) -> None:
        (mode if handler.faults.requests[body["model"]] <= times else then)(handler, body)

    return choose


def refuses(named: Callable[[Body], bool], refusal: Mode) -> Mode:
    return lambda handler, body: (refusal if named(body) else good)(handler, body)


def format_of(body: Body) -> str:
    form = body.get("response_format", {})
    return "strict" if form.get("json_schema", {}).get("strict") else form.get("type", "text")


def reset(handler: Handler, _: Body) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def half_body(handler: Handler, _: Body) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(completion().encode()[:50])
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def hang(handler: Handler, _: Body) -> None:
    handler.faults.stopped.wait(30)
    handler.close_connection = True


def drip(handler: Handler, _: Body) -> None:
    data = completion().encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    for byte in data:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        if handler.faults.stopped.wait(0.1):
            break
    handler.close_connection = True


def redirect(handler: Handler, _: Body) -> None:
    assert handler.faults.elsewhere is not None
    handler.send(307, "", {"Location": f"{handler.faults.elsewhere.url}/chat/completions"})


def unsupported(param: str, message: str = "Unsupported parameter") -> Mode:
    return fails(400, code="unsupported_parameter", message=f"{message}: '{param}'", param=param)


def form_in(*forms: str) -> Callable[[Body], bool]:
    return lambda body: format_of(body) in forms


NO_FORMAT = unsupported("response_format", "This response_format type is unavailable now")
VAGUE = fails(400, message="Request contains an invalid argument")

def decides(*actions: dict[str, Any], nothing: tuple[str, ...] = ()) -> str:
    """A completion of the consolidation prompt; an action's missing fields are those of a create from m1."""
    whole = {"reason": "told", "op": "create", "observation": None, "change": None, "confidence": 0.8, "evidence": ["m1"]}
    filled = [{**whole, "text": "Alice lives in Berlin.", **action} for action in actions]
    declared = [{"memory": memory, "reason": "greeting"} for memory in nothing]
    return completion(json.dumps({"actions": filled, "nothing_durable": declared}))


MODES: dict[str, Mode] = {
    "decides": says(decides({})),
    "decides-after-repair": first(1, says(decides({"evidence": ["m7"]})), says(decides({}))),
    "unknown-memory": says(decides({"evidence": ["m7"]})),
    "unknown-observation": says(decides({"op": "update", "change": "refine", "observation": "o9"})),
    "nan-confidence": says(decides({"confidence": float("nan")})),
    "boolean-confidence": says(decides({"confidence": True})),
    "no-evidence": says(decides({"evidence": []})),
    "too-long": says(decides({"text": "word " * 40})),
    "unaccounted": says(decides()),
    "prose": says(completion("I am sorry, I cannot find anything to do here.")),
    "cut": says(completion('{"actions": [{"op": "create", "text": "Alice lives in')),
    "good": good,
    "429-short": first(1, fails(429, code="rate_limit_exceeded", Retry_After="0.2")),
    "429-short-always": fails(429, code="rate_limit_exceeded", Retry_After="0.2"),
    "429-milliseconds": first(1, fails(429, code="rate_limit_exceeded", Retry_After_Ms="150")),
    "429-bare": first(1, fails(429, code="rate_limit_exceeded")),
    "429-long": fails(429, code="rate_limit_exceeded", Retry_After="600"),
    "429-beyond-deadline": fails(429, code="rate_limit_exceeded", Retry_After="20"),
    "429-date": fails(429, code="rate_limit_exceeded", Retry_After="Fri, 31 Dec 2199 23:59:59 GMT"),
    "429-too-large": fails(429, code="rate_limit_exceeded", message="Request too large for this model"),
    "quota": fails(429, code="insufficient_quota", message="You exceeded your current quota", Retry_After="1"),
    "payment": fails(402, message="Insufficient credits"),
    "500": fails(500),
    "503": fails(503),
    "503-once": first(1, fails(503)),
    "408": fails(408),
    "409": fails(409),
    "reset": reset,
    "reset-once": first(1, reset),
    "half-body": half_body,
    "hang": hang,
    "drip": drip,
    "context": fails(400, code="context_length_exceeded", message="This model's maximum context length is 10"),
    "context-named": fails(400, message="'max_completion_tokens' is too large; this model's maximum context length is 10"),
    "filter": fails(400, code="content_filter", message="filtered by the content management policy", param="prompt"),
    "json-failed": fails(400, code="json_validate_failed", message="Failed to generate JSON"),
    "401": fails(401, code="invalid_api_key"),
    "403": fails(403),
    "404": fails(404, code="model_not_found", message="The model does not exist"),
    "413": fails(413),
    "418": fails(418),
    "html": says("<html><body>Welcome</body></html>", kind="text/html"),
    "html-as-json": says("<html><body>Welcome</body></html>"),
    "broken-json": says(completion()[:-20]),
    "deep-json": says("[" * 100_000),
    "list": says("[1, 2]"),
    "string": says('"hello"'),
    "error-200": says(json.dumps({"error": {"message": SECRET, "type": "server_error"}})),
    "error-200-busy": says(json.dumps({"error": {"message": SECRET, "code": 429}})),
    "error-200-text": says(json.dumps({"error": SECRET})),
    "no-choices": says(json.dumps({"id": "x", "choices": []})),
    "null-choices": says(json.dumps({"id": "x", "choices": None})),
    "null-message": says(json.dumps({"id": "x", "choices": [{"index": 0, "finish_reason": "stop", "message": None}]})),
    "null-content": says(completion(None)),
    "null-content-once": first(1, says(completion(None))),
    "refusal": says(completion(None, refusal="I cannot help with that.")),
    "length": says(completion('{"answer": "Lis', finish="length")),
    "length-empty": says(completion(None, finish="length")),
    "content-filter": says(completion("", finish="content_filter")),
    "redirect": redirect,
    "empty": says(completion("")),
    "thinking": says(completion(f"<think>\nThe {{capital}}...\n</think>\n\n{ANSWER}")),
    "thinking-unopened": says(completion(f"The capital...</think>{ANSWER}")),
    "thinking-unclosed": says(completion("<think>The capital")),
    "thinking-quoted": says(completion('{"answer": "<think>x</think>"}')),
    "parts": says(completion([{"type": "thinking", "thinking": []}, {"type": "text", "text": ANSWER}])),
    "no-usage": says(json.dumps({"choices": [{"message": {"content": ANSWER}}], "usage": None})),
    "no-strict": refuses(form_in("strict"), unsupported("strict", "Unknown name")),
    "no-schema": refuses(form_in("strict", "json_schema"), NO_FORMAT),
    "no-format": refuses(lambda body: "response_format" in body, NO_FORMAT),
    "no-format-vague": refuses(lambda body: "response_format" in body, VAGUE),
    "no-format-422": refuses(
        lambda body: "response_format" in body,
        lambda handler, _: handler.send(422, json.dumps({"detail": [{"loc": ["body", "response_format"], "input": SECRET}]})),
    ),
    "always-400": VAGUE,
    "no-temperature": refuses(
        lambda body: "temperature" in body,
        fails(400, code="unsupported_value", message="'temperature' does not support 0 with this model", param="temperature"),
    ),
    "no-max-completion": refuses(lambda body: "max_completion_tokens" in body, unsupported("max_completion_tokens")),
    "no-dimensions": refuses(lambda body: "dimensions" in body, unsupported("dimensions")),
    "few-vectors": lambda handler, body: handler.send(200, vectors(body["input"][1:])),
    "short-vectors": first(1, good, lambda handler, body: handler.send(200, vectors(body["input"], 8))),
    "nan-vectors": says('{"data": [{"index": 0, "embedding": [NaN, 1.0]}]}'),
    "null-vectors": says('{"data": [{"index": 0, "embedding": null}]}'),
}


@contextmanager
def serving() -> Iterator[FaultServer]:
    """A fault server in a thread, and a second one that redirects lead to."""
    with FaultServer() as server, FaultServer() as elsewhere:
        server.elsewhere = elsewhere
        threads = [threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True) for one in (server, elsewhere)]
        for thread in threads:
            thread.start()
        try:
            yield server
        finally:
            for one in (server, elsewhere):
                one.stopped.set()
                one.shutdown()
            for thread in threads:
                thread.join()
