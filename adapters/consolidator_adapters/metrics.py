"""Prometheus metrics of an engine: `watch(engine)`, then serve `registry` as you serve others. Needs the extra `metrics`.

No label holds a text, and none a bank: there may be millions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consolidator.errors import MissingProvider
from consolidator.events import Called, ObservationChanged, PassDone

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
except ImportError as error:
    raise MissingProvider("metrics need a package that is not installed: pip install 'consolidator[metrics]'") from error

if TYPE_CHECKING:
    from consolidator.engine import Engine

OUTCOMES = ("consolidated", "nothing_durable", "left", "parked", "held")
STATES = ("pending", "unembedded", "parked", "held", "waiting")


class Metrics:
    """What one engine does, and what waits in it."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        called = ("consolidator_calls", "Verbs of banks, by how they ended.", ["verb", "outcome"])
        self._calls = Counter(*called, registry=self.registry)
        took = ("consolidator_call_seconds", "What a verb of a bank took.", ["verb"])
        self._seconds = Histogram(*took, registry=self.registry)
        self._turns = Counter("consolidator_turns", "Turns of banks in the background.", ["outcome"], registry=self.registry)
        self._turn_seconds = Histogram("consolidator_turn_seconds", "What a turn of a bank took.", registry=self.registry)
        self._digested = Counter("consolidator_memories", "Memories that passes took up.", ["outcome"], registry=self.registry)
        self._changes = Counter("consolidator_observations", "Changes of observations.", ["action"], registry=self.registry)
        self._spent = Counter("consolidator_model_tokens", "Tokens of the chat model.", ["direction"], registry=self.registry)
        self._asked = Counter("consolidator_model_calls", "Calls of the chat model.", registry=self.registry)
        self._waiting = Gauge("consolidator_waiting_memories", "Memories that wait, by state.", ["state"], registry=self.registry)
        self._oldest = Gauge("consolidator_oldest_pending_seconds", "Age of the oldest pending one.", registry=self.registry)
        self._paused = Gauge("consolidator_paused_banks", "Banks that wait for a person.", registry=self.registry)

    def watch(self, engine: Engine) -> None:
        engine.on_call(self._called)
        engine.on_pass(self._passed)
        engine.on_observation(self._changed)

    def _called(self, event: Called) -> None:
        self._calls.labels(event.verb, event.error or "ok").inc()
        self._seconds.labels(event.verb).observe(event.seconds)

    def _passed(self, event: PassDone) -> None:
        self._turns.labels("failed" if event.error else "ok").inc()
        self._turn_seconds.observe(event.seconds)
        for outcome in OUTCOMES:
            self._digested.labels(outcome).inc(getattr(event.report, outcome))
        self._asked.inc(event.report.calls)
        self._spent.labels("prompt").inc(event.report.prompt_tokens)
        self._spent.labels("reply").inc(event.report.reply_tokens)

    def _changed(self, event: ObservationChanged) -> None:
        self._changes.labels(event.done.action).inc()

    async def refresh(self, engine: Engine) -> None:
        """Bring the gauges up to date: call it before a scrape, or every few seconds."""
        stats = [await engine.bank(bank).stats() for bank in await engine.banks()]
        for state in STATES:
            self._waiting.labels(state).set(sum(getattr(s, state) for s in stats))
        now = engine.now()
        ages = [(now - s.oldest_pending).total_seconds() for s in stats if s.oldest_pending]
        self._oldest.set(max(ages, default=0.0))
        self._paused.set(sum(s.paused is not None for s in stats))
