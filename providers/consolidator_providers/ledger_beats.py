"""Heartbeats: one thread renews every lease that is held, whatever the event loop does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from consolidator.errors import LedgerError
from consolidator.plans import Lease

log = logging.getLogger("consolidator.ledger")


@dataclass(slots=True, eq=False)
class _Beat:
    lease: Lease
    seconds: float
    lost: Callable[[], None]
    at: float  # of the next renewal


class Heartbeats:
    """renew: from any thread; False when the lease was taken over. The thread starts with the first lease."""

    def __init__(self, renew: Callable[[Lease, float], bool]) -> None:
        self._renew = renew
        self._beats: set[_Beat] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def beating(self, lease: Lease, seconds: float, lost: Callable[[], None]) -> Iterator[None]:
        """Once left, `lost` is not called any more."""
        beat = _Beat(lease, seconds, lost, time.monotonic() + seconds / 4)
        with self._changed:
            if self._closed:
                raise LedgerError("the ledger is closed")
            self._beats.add(beat)
            self._start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._beats.discard(beat)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ledger-heartbeat", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (beat := self._due()) is not None:
            if not self._kept(beat):
                self._give_up(beat)

    def _due(self) -> _Beat | None:
        """Waits for the next beat; None: closed."""
        with self._changed:
            while not self._closed:
                beat = min(self._beats, key=lambda beat: beat.at, default=None)
                rest = None if beat is None else beat.at - time.monotonic()
                if beat is not None and rest is not None and rest <= 0:
                    beat.at = time.monotonic() + beat.seconds / 4
                    return beat
                self._changed.wait(rest)
            return None

    def _kept(self, beat: _Beat) -> bool:
        try:
            return self._renew(beat.lease, beat.seconds)
        except LedgerError as error:  # it may still be ours: the next beat tells
            log.warning("heartbeat_failed", extra={"action": "heartbeat_failed", "bank": beat.lease.bank, "error": str(error)})
            return True

    def _give_up(self, beat: _Beat) -> None:
        with self._changed:
            if beat not in self._beats:
                return
            self._beats.discard(beat)
            try:
                beat.lost()
            except Exception:  # a caller's fault must not end the heartbeats of the others
                log.exception("heartbeat_callback_failed", extra={"action": "heartbeat_callback_failed"})
