"""Calls to a Qdrant server: one table from what its client raises to the engine's errors, and retries for reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from json import JSONDecodeError
from typing import TypeVar

from qdrant_client import models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from consolidator.errors import Conflict, ConsolidatorError, InvalidInput, NotFound, StoreError, StoreUnavailable

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

ATTEMPTS = 3
LONGEST_WAIT = 30.0  # seconds

# a body that is no JSON, or JSON of another shape, comes out of the client untranslated
STRANGE = (AssertionError, JSONDecodeError, UnicodeDecodeError)
RAISED = (UnexpectedResponse, ResponseHandlingException, QdrantException, *STRANGE)


class StoreBusy(StoreUnavailable):
    """The vector store is over its limit; repeat later."""

    def __init__(self, after: float | None = None) -> None:
        super().__init__("the vector store is over its limit" + (f": repeat after {after:g} s" if after else ""))
        self.after = after  # seconds, where the server said so


def translated(error: Exception) -> ConsolidatorError:
    """The engine's error for what the client raised."""
    match error:
        case UnexpectedResponse():
            return _answered(error.status_code or 0, error)
        case ResourceExhaustedResponse():
            return StoreBusy(float(error.retry_after_s))
        case QdrantException():  # a Retry-After that is a date
            return StoreBusy()
        case ResponseHandlingException():
            return StoreUnavailable(
                f"the vector store cannot be reached, or did not answer in time: {type(error.source).__name__}"
            )
    return StoreUnavailable("the vector store's answer makes no sense: is there a proxy in between?")


def _answered(status: int, error: UnexpectedResponse) -> ConsolidatorError:
    if status in (401, 403):
        return StoreError("the vector store refuses this API key")
    if status == 404:
        return NotFound("the vector store has no such collection")
    if status == 409:
        return Conflict("the vector store says that it exists already")
    if status == 507:
        return StoreError("the vector store is full")
    if status == 429:
        return StoreBusy()
    if status == 408 or status >= 500:
        return StoreUnavailable(f"the vector store failed with status {status}; what was asked may have happened")
    return InvalidInput(f"the vector store refuses the request: {error}")


def confirm(result: models.UpdateResult) -> None:
    """Raise unless the write is applied: other statuses raise nothing by themselves."""
    if result.status != models.UpdateStatus.COMPLETED:
        raise StoreUnavailable(f"the vector store has not applied the write yet: {result.status}")


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, StoreBusy) and error.after is not None:
        return min(error.after, LONGEST_WAIT)
    return wait_random_exponential(multiplier=0.1, max=2.0)(state)


class Calls:
    """Runs calls; `read` repeats what is safe to repeat."""

    def __init__(self, sleep: Sleep = asyncio.sleep) -> None:
        self._sleep = sleep
        self.closed = False

    async def once(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.closed:
            raise StoreError("the store is closed")
        try:
            return await call()
        except RAISED as error:
            raise translated(error) from error

    async def read(self, call: Callable[[], Awaitable[T]]) -> T:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=_pause,
            retry=retry_if_exception_type(StoreUnavailable),
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(self.once, call)

    async def write(self, call: Callable[[], Awaitable[models.UpdateResult]]) -> StoreUnavailable | None:
        """None when the write is applied; the error when that is unknown, so that the caller looks."""
        try:
            confirm(await self.once(call))
        except StoreUnavailable as error:
            return error
        return None
