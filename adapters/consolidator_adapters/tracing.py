"""OpenTelemetry spans of an engine: `trace(engine)`. Needs the extra `tracing`, and an SDK that the application sets up.

A span has the bank's name, the verb or the turn, and counts; never a text.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from consolidator.errors import MissingProvider
from consolidator.events import Called, PassDone

try:
    from opentelemetry import trace as otel
except ImportError as error:
    raise MissingProvider("tracing needs a package that is not installed: pip install 'consolidator[tracing]'") from error

if TYPE_CHECKING:
    from consolidator.engine import Engine

COUNTS = ("passes", "consolidated", "nothing_durable", "left", "parked", "held", "calls", "prompt_tokens", "reply_tokens")
BILLION = 1_000_000_000


def trace(engine: Engine, provider: otel.TracerProvider | None = None) -> None:
    """A span for each call of a bank's verb, below the span that is current there, and one for each turn in the background."""
    tracer = otel.get_tracer("consolidator", tracer_provider=provider)

    def span(name: str, began: datetime, seconds: float, error: str | None, told: dict[str, str | int]) -> None:
        start = int(began.timestamp() * BILLION)
        made = tracer.start_span(name, start_time=start, attributes={f"consolidator.{key}": value for key, value in told.items()})
        if error:
            made.set_status(otel.StatusCode.ERROR, error)
        made.end(end_time=start + int(seconds * BILLION))

    def called(event: Called) -> None:
        span(f"consolidator {event.verb}", event.began, event.seconds, event.error, {"bank": event.bank})

    def passed(event: PassDone) -> None:
        counts = {key: getattr(event.report, key) for key in COUNTS}
        error = "the turn failed; the bank says why" if event.error else None
        span("consolidator turn", event.began, event.seconds, error, {"bank": event.bank, **counts})

    engine.on_call(called)
    engine.on_pass(passed)
