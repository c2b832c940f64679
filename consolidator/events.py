"""What an application may listen to: passes, and what they did to observations."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from consolidator.errors import place_of
from consolidator.models import Time, Value
from consolidator.plans import Done, Report

log = logging.getLogger("consolidator.events")


class PassDone(Value):
    """A bank's turn is over. `error`: why it ended early; what was done before is in the report, and kept."""

    bank: str
    report: Report
    began: Time
    seconds: float
    error: str | None = None


class ObservationChanged(Value):
    """A change of an observation that is durable. `done.action` says which: created, updated, reinforced, deleted, merged ..."""

    bank: str
    done: Done


class Called(Value):
    """A verb of a bank has returned, or has raised `error`, the name of its class."""

    verb: str
    bank: str
    began: Time
    seconds: float
    error: str | None = None


Listener = Callable[[Any], Awaitable[None] | None]


class Events:
    """Listeners by the type of the event. A listener that fails is logged, and harms nobody."""

    def __init__(self) -> None:
        self._listeners: dict[type[Value], list[Listener]] = {}

    def listen(self, event: type[Value], listener: Listener) -> None:
        self._listeners.setdefault(event, []).append(listener)

    async def tell(self, event: Value) -> None:
        for listener in self._listeners.get(type(event), ()):
            try:
                if inspect.isawaitable(waiting := listener(event)):
                    await waiting
            except Exception as error:  # noqa: BLE001 (somebody else's code: its failure must not become one of memory)
                told = {"event": type(event).__name__, "error": type(error).__name__, "place": place_of(error)}
                log.error("listener_failed", extra={"action": "listener_failed", **told})
