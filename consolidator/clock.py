"""Time as a value that is passed in. Every time in the engine is aware and in UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    return datetime.now(UTC)


def to_utc(value: datetime) -> datetime:
    """The same instant in UTC. Raises ValueError for a time without a zone."""
    if value.tzinfo is None or value.utcoffset() is None:
        raise ValueError("a time needs a zone, such as datetime(2026, 1, 31, tzinfo=UTC)")
    return value.astimezone(UTC)
