"""Time that stands still until it is moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from consolidator.clock import to_utc


class ManualClock:
    """A clock for tests: it shows `at` until `move` is called."""

    def __init__(self, at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.at = to_utc(at)

    def __call__(self) -> datetime:
        return self.at

    def move(self, by: timedelta) -> None:
        self.at += by
