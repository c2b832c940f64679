"""Port wrappers that strike at a chosen call. `Killing` kills its own process: what is on disk then is what a crash leaves."""

from __future__ import annotations

import inspect
import os
import signal
from collections import Counter
from collections.abc import Collection
from typing import Any


class Striking:
    """Passes every verb on to `port`, and counts a boundary before and one after each call; `strike` comes at number `at`.

    calls: shared by the wrappers of one process; `calls["boundaries"]` is the count, so that a run with `at` None says how many
    there are. only: the verbs that count; None is all. What is no coroutine function is passed on as it is.
    """

    def __init__(self, port: Any, at: int | None, calls: Counter[str], *, only: Collection[str] | None = None) -> None:
        self._port = port
        self._at = at
        self._calls = calls
        self._only = only

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._port, verb)
        if not inspect.iscoroutinefunction(call) or (self._only is not None and verb not in self._only):
            return call

        async def guarded(*args: Any, **options: Any) -> Any:
            self._boundary(verb)
            result = await call(*args, **options)
            self._boundary(verb)
            return result

        return guarded

    def _boundary(self, verb: str) -> None:
        self._calls["boundaries"] += 1
        self._calls[verb] += 1
        if self._calls["boundaries"] == self._at:
            self.strike()

    def strike(self) -> None:
        """What happens at the boundary."""
        raise NotImplementedError


class Killing(Striking):
    """SIGKILL to its own process."""

    def strike(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
