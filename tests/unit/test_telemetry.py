"""Metrics and traces: what they count, and that they hold no text."""

from __future__ import annotations

from contextlib import suppress

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from consolidator.engine import Engine
from consolidator.errors import InvalidInput, ModelUnavailable
from consolidator.testing import ScriptedProposer
from consolidator.testing.proposers import word_for_word
from consolidator_adapters.metrics import Metrics
from consolidator_adapters.tracing import trace

CANARY = "canary"


async def busy_day(engine: Engine, script: ScriptedProposer) -> None:
    bank = engine.bank("alice")
    script.answer_with([
        lambda batch: word_for_word(batch).model_copy(update={"calls": 1, "prompt_tokens": 300}),
        ModelUnavailable(f"{CANARY} is down"),
    ])
    await bank.retain([f"The {CANARY} sang {n} times." for n in range(3)], source=CANARY)
    await engine.drain()
    with suppress(InvalidInput):
        await bank.retain(CANARY, source=" ")
    await bank.retain(f"The {CANARY} is silent.", source=CANARY)
    await engine.drain()


async def test_metrics(engine: Engine, script: ScriptedProposer) -> None:
    metrics = Metrics()
    metrics.watch(engine)
    await busy_day(engine, script)
    await metrics.refresh(engine)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert value("consolidator_calls_total", verb="retain", outcome="ok") == 2
    assert value("consolidator_calls_total", verb="retain", outcome="InvalidInput") == 1
    assert value("consolidator_memories_total", outcome="consolidated") == 3
    assert value("consolidator_observations_total", action="created") == 3
    assert value("consolidator_turns_total", outcome="failed") == 1
    assert (value("consolidator_model_calls_total"), value("consolidator_model_tokens_total", direction="prompt")) == (1, 300)
    assert value("consolidator_waiting_memories", state="pending") == 1
    assert CANARY not in generate_latest(metrics.registry).decode()


async def test_spans(engine: Engine, script: ScriptedProposer) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace(engine, provider)
    await busy_day(engine, script)
    spans = exporter.get_finished_spans()
    assert [span.name.removeprefix("consolidator ") for span in spans] == ["retain", "turn", "retain", "retain", "turn"]
    assert [span.status.is_ok for span in spans] == [True, True, False, True, False]
    assert spans[1].attributes is not None
    assert (spans[1].attributes["consolidator.bank"], spans[1].attributes["consolidator.consolidated"]) == ("alice", 3)
    assert all(span.end_time and span.start_time and span.end_time >= span.start_time for span in spans)
    assert CANARY not in "".join(span.to_json() for span in spans)
