"""The way to any server that speaks OpenAI's protocol: which addresses are allowed, which errors mean what, how often to ask.

What a server says when it fails may echo the prompt, so its words serve to classify and go into no message.
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import json
import logging
import math
import random
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from consolidator.clock import system_clock
from consolidator.errors import (
    BadReply,
    InvalidSettings,
    MissingProvider,
    ModelBusy,
    ModelDenied,
    ModelError,
    ModelRefused,
    ModelTooLong,
    ModelUnavailable,
)

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
LONGEST_WAIT = 30.0  # seconds; a server that asks for more gets its work back later
JITTER = 0.25  # seconds on top of a Retry-After, so that waiting workers do not come back together

T = TypeVar("T")


# What went wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What a failed answer says. `status` None: there was no answer."""

    status: int | None = None
    words: str = field(default="", repr=False)  # code, type and message, in lower case
    param: str = ""  # the part of the request that is at fault, where the server names it
    after: float | None = None  # seconds that the server asks to wait


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: these statuses, with one of these marks among the words (none: whatever they are)."""

    error: type[ModelError]
    says: str
    statuses: frozenset[int | None]
    marks: tuple[str, ...] = ()

    def fits(self, fault: Fault) -> bool:
        return fault.status in self.statuses and (not self.marks or any(mark in fault.words for mark in self.marks))


_ANY_4XX: frozenset[int | None] = frozenset({200, *range(400, 500)})  # some servers send errors with status 200
UNEXPLAINED = Row(ModelDenied, "the server does not accept the request", frozenset(range(1000)))
TABLE = (
    Row(
        ModelDenied, "the account's quota is used up", _ANY_4XX,
        ("insufficient_quota", "billing_hard_limit", "insufficient balance", "insufficient credit", "credit balance is too low"),
    ),
    Row(ModelDenied, "the account's quota is used up", frozenset({402})),
    Row(
        ModelTooLong, "the request is longer than the model allows", _ANY_4XX,
        (
            "context_length", "context length", "context window", "context size", "string_above_max_length", "too many tokens",
            "prompt is too long", "input is too long", "request too large", "reduce the length",
        ),
    ),
    Row(ModelTooLong, "the request is longer than the server allows", frozenset({413})),
    Row(ModelBusy, "the model's rate limit is reached", frozenset({429})),
    Row(
        ModelRefused, "a content filter stopped the request", _ANY_4XX,
        ("content_filter", "content filter", "content management policy", "content_policy", "moderation", "flagged"),
    ),
    Row(BadReply, "the model failed to answer in JSON", _ANY_4XX, ("json_validate_failed",)),
    Row(ModelDenied, "the server refuses the key", frozenset({401, 403})),
    Row(ModelDenied, "the server knows no such model or address", frozenset({404, 405, 410})),
    Row(ModelDenied, "the server knows no such model", _ANY_4XX, ("model_not_found", "unknown model", "invalid model")),
    Row(ModelDenied, "the server redirects, which is not followed", frozenset(range(300, 400))),
    Row(ModelUnavailable, "the server failed", frozenset({200, 408, 409, 425, *range(500, 600)})),
    Row(ModelUnavailable, "the server cannot be reached, or its answer broke off", frozenset({None})),
    UNEXPLAINED,
)


def row_for(fault: Fault) -> Row:
    return next(row for row in TABLE if row.fits(fault))


def error_for(fault: Fault) -> ModelError:
    row = row_for(fault)
    message = row.says if fault.status is None else f"{row.says} (status {fault.status})"
    return ModelBusy(message, after=fault.after) if row.error is ModelBusy else row.error(message)


def fault_of(error: Exception) -> Fault:
    """A fault from whatever the vendor raised."""
    response = getattr(error, "response", None)
    if response is None:
        return Fault()
    return fault_in(getattr(error, "body", None), status=response.status_code, after=_retry_after(response.headers))


def fault_in(body: Any, *, status: int, after: float | None = None) -> Fault:
    inner = body.get("error") or body if isinstance(body, dict) else body
    said = inner if isinstance(inner, dict) else {"message": inner}
    words = " ".join(str(said[key]) for key in ("code", "type", "message", "detail") if said.get(key))
    return Fault(status=status, words=words[:4000].lower(), param=str(said.get("param") or "").lower(), after=after)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    milliseconds, seconds = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        wait = float(milliseconds) / 1000 if milliseconds else float(seconds or "nan")
    except ValueError:
        wait = _seconds_until(seconds or "")
    return max(0.0, wait) if math.isfinite(wait) else None


def _seconds_until(date: str) -> float:
    try:
        return (parsedate_to_datetime(date) - system_clock()).total_seconds()
    except (ValueError, TypeError):
        return math.nan


def read_body(raw: str) -> dict[str, Any]:
    """The JSON object in a body of status 200; an error object in it is raised as if it had come with its own status."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelUnavailable("the server's answer is no JSON") from error
    if not isinstance(body, dict):
        raise ModelUnavailable("the server's answer is no JSON object")
    if failure := body.get("error"):
        code = failure.get("code") if isinstance(failure, dict) else None
        raise error_for(fault_in(body, status=code if isinstance(code, int) and 300 <= code < 600 else 200))
    return body


# The wire


def checked_base_url(base_url: str) -> str:
    """The address as it was given, if prompts may be sent there; raises InvalidSettings."""
    try:
        parts = urlsplit(base_url)
        host, _ = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise InvalidSettings("base_url is no address such as https://host/v1") from error
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidSettings("base_url must begin with https:// or, on this machine, with http://")
    if parts.username or parts.password:
        raise InvalidSettings("base_url must not hold a name or a password; give the key as api_key")
    if host in _METADATA_HOSTS or _forbidden(_address(host)):
        raise InvalidSettings(f"base_url must not lead to {host}: that is a link-local or metadata address")
    if parts.scheme == "http" and not is_loopback(host):
        raise InvalidSettings(f"base_url must use https for {host}: only this machine may be spoken to without encryption")
    return base_url


_METADATA_HOSTS = {"metadata", "metadata.google.internal", "metadata.goog", "instance-data"}
# cloud services that hand out credentials at addresses which are not link-local
_METADATA_ADDRESSES = {"100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(host: str) -> Address | None:
    """The address that a host's text stands for; the system's resolver also takes 2852039166 and 0xa9fea9fe for one."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return None
    return getattr(address, "ipv4_mapped", None) or address


def _forbidden(address: Address | None) -> bool:
    if address is None:
        return False
    return address.is_link_local or address.is_multicast or address.is_unspecified or str(address) in _METADATA_ADDRESSES


def is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


async def open_client(*, base_url: str | None, api_key: str | None, read_timeout: float) -> AsyncOpenAI:
    """The vendor's client without retries and redirects. Raises InvalidSettings for an address that is not to be used."""
    if not api_key and not base_url:
        raise InvalidSettings("a model or embedder of OpenAI needs a key: set OPENAI_API_KEY, or the base_url of another server")
    url = checked_base_url(base_url) if base_url else OPENAI_URL
    vendor = await asyncio.to_thread(_vendor)
    timeout = vendor.Timeout(read_timeout, connect=5.0)
    parts = urlsplit(url)
    local = is_loopback(parts.hostname or "")  # then no proxy may come between
    plain = local and parts.scheme == "http"  # then no certificate is ever looked at; to load them takes 30 ms
    trusted = {"verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)} if plain else {}  # this one trusts nobody
    http = vendor.DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout, trust_env=not local, **trusted)
    client: AsyncOpenAI = vendor.AsyncOpenAI(
        api_key=api_key or "none", base_url=url, max_retries=0, timeout=timeout, http_client=http
    )
    return client


def _vendor() -> ModuleType:
    try:
        vendor = importlib.import_module("openai")
    except ImportError as error:
        raise MissingProvider("the package openai is missing: pip install openai") from error
    for name in ("openai", "httpx", "httpx2", "httpcore"):  # below that they log prompts
        if (logger := logging.getLogger(name)).level < logging.WARNING:
            logger.setLevel(logging.WARNING)
    return vendor


async def patiently(attempt: Callable[[], Awaitable[T]], *, tries: int, deadline: float) -> T:
    """The one layer of retries: at most `tries` attempts with full jitter, all within `deadline` seconds.

    Waits out a rate limit of at most 30 s that ends before the deadline. Raises the last attempt's ModelError.
    """
    clock = asyncio.get_running_loop().time
    ends = clock() + deadline

    def worth_another(error: BaseException) -> bool:
        if isinstance(error, ModelBusy):
            return (error.after or 0.0) <= min(LONGEST_WAIT, ends - clock() - JITTER)
        return isinstance(error, ModelUnavailable)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(tries), retry=retry_if_exception(worth_another), wait=_pause, reraise=True
    )
    try:
        async with asyncio.timeout(deadline):
            return await retrying(attempt)
    except TimeoutError as error:
        raise ModelUnavailable(f"no whole answer came within {deadline:g} s") from error


_backoff = wait_random_exponential(multiplier=0.5, max=8)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ModelBusy) and error.after is not None:
        return error.after + random.uniform(0, JITTER)
    return _backoff(state)
