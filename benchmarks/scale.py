"""What a recall costs as a memory grows, and as banks are added to it. `make bench-scale`; embedded store.

    python -m benchmarks.scale                            1,000 / 10,000 / 100,000 memories in one bank (minutes, mostly building)
    python -m benchmarks.scale --sizes 1000,10000         fewer
    python -m benchmarks.scale --plot scale.svg           draw latency and memory against size (needs matplotlib)
    python -m benchmarks.scale --store http://host:6333   on a server; 1,000,000 are for a server: --sizes 1000000

Sentences are made by formula, vectors by a hash of their words, so nothing of it is encoding. A fifth as many observations as
memories. Beside the growing bank stand 0, then 200 others of 50 memories each: what they cost the first one is the last column.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from uuid import NAMESPACE_URL, uuid4, uuid5

from consolidator.clock import system_clock
from consolidator.config import Settings
from consolidator.engine import Bank, Engine
from consolidator.models import Evidence, Memory, MemoryState, Observation, Version
from consolidator.parts import Parts
from consolidator.plans import Change, Intent, MemoryMark
from consolidator.points import memory_point
from consolidator.redo import barrier, carry_out
from consolidator.registry import open_parts
from consolidator.testing import HashEmbedder, ScriptedProposer

SIZES = (1_000, 10_000, 100_000)
AT_ONCE, PER_SOURCE, SHARE = 500, 50, 5  # memories in a batch, in a source, for one observation
OTHERS, EACH = 200, 50
QUERIES, WARM = 200, 20
TOPICS = ["garden", "boat", "cello", "rent", "diet", "climbing", "wedding", "train", "concert", "bread", "piano", "dog"]
VERBS = ["bought", "sold", "painted", "repaired", "lost", "found", "praised", "cleaned", "carried", "forgot"]
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
BANK = "alice"


def told(number: int) -> str:
    """A sentence of about a dozen words, never twice the same; its rarer words come back every few hundred sentences."""
    topic, verb = TOPICS[number % len(TOPICS)], VERBS[number // 5 % len(VERBS)]
    return f"On day {number} somebody {verb} the {topic} near place{number * 7 % 601} for item{number * 13 % 997}."


def asked(number: int) -> str:
    return f"Who {VERBS[number % len(VERBS)]} the {TOPICS[number * 5 % len(TOPICS)]} near place{number * 11 % 601}?"


def memory(bank: str, number: int) -> Memory:
    at = BEGIN + timedelta(minutes=number)
    return Memory(
        id=str(uuid5(NAMESPACE_URL, f"{bank} {number}")), bank=bank, text=told(number), source=f"s{number // PER_SOURCE}",
        sequence=number % PER_SOURCE, speaker="Ann" if number % 2 else "Bob", occurred_at=at, retained_at=at,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    memories: int
    put: float  # memories a second, without encoding
    p50: float
    p95: float
    beside: float  # p50 with the other banks
    resident: float  # MB


async def fill(parts: Parts, bank: str, start: int, end: int) -> float:
    """Memories and observations; returns the seconds that the memories took."""
    seconds = 0.0
    lease = await parts.ledger.claim(bank, parts.owner, 3600.0)
    assert lease is not None
    for first in range(start, end, AT_ONCE):
        memories = [memory(bank, n) for n in range(first, min(first + AT_ONCE, end))]
        vectors = await parts.embedder.embed([m.spoken for m in memories])
        begun = time.perf_counter()
        await parts.memories.put(bank, [memory_point(m, v) for m, v in zip(memories, vectors, strict=True)])
        seconds += time.perf_counter() - begun
        changes = [observed(bank, memories[n : n + SHARE], vectors[n]) for n in range(0, len(memories), SHARE)]
        marks = tuple(MemoryMark(memory_id=m.id, rev=0, state=MemoryState.DONE) for m in memories)
        intent = Intent(id=str(uuid4()), bank=bank, kind="import", created_at=BEGIN, changes=tuple(changes), marks=marks)
        await carry_out(parts, intent, lease)
        await barrier(parts, bank)
    await parts.ledger.release(lease)
    return seconds


def observed(bank: str, memories: Sequence[Memory], vector: list[float]) -> Change:
    evidence = tuple(Evidence(memory_id=m.id, source=m.source, occurred_at=m.time) for m in memories)
    text, lineage = f"It is known that {memories[0].text[3:]}", frozenset(m.id for m in memories)
    after = Observation(id=str(uuid4()), bank=bank, text=text, evidence=evidence, created_at=BEGIN, updated_at=memories[-1].time)
    version = Version(observation_id=after.id, number=1, text=text, digest="", lineage=lineage, at=BEGIN)
    return Change(after=after, vector=vector, lineage=lineage, version=version)


async def milliseconds(bank: Bank) -> tuple[float, float]:
    """p50 and p95 of a recall of ten hits; the question's vector is a hash, in microseconds."""
    times = []
    for n in range(WARM + QUERIES):
        begun = time.perf_counter()
        hits = await bank.recall(asked(n), top_k=10)
        times.append(1000 * (time.perf_counter() - begun))
        assert len(hits) == 10
    times = sorted(times[WARM:])
    return statistics.median(times), times[int(0.95 * len(times))]


@asynccontextmanager
async def opened(folder: Path, store: str | None) -> AsyncIterator[tuple[Engine, Parts]]:
    told: dict[str, object] = {"folder": folder, "worker": {"background": False}}
    settings = Settings.model_validate(told | ({"store": {"kind": "qdrant", "url": store}} if store else {}))
    parts = await open_parts(settings, system_clock, embedder=HashEmbedder(384), proposer=ScriptedProposer())
    engine = Engine(parts, settings)
    try:
        yield engine, parts
    finally:
        await engine.close()


def resident() -> float:
    """MB of this process, at its peak."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


async def run(sizes: Sequence[int], store: str | None) -> list[Figures]:
    print("| memories | put, a second | recall p50 | p95 | p50 beside 200 banks | peak memory |")
    print("|---|---|---|---|---|---|", flush=True)
    figures = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            async with opened(Path(folder) / "memory", store) as (engine, parts):
                seconds = await fill(parts, BANK, 0, size)
                p50, p95 = await milliseconds(engine.bank(BANK))
                for other in range(OTHERS):
                    await fill(parts, f"other{other}", 0, EACH)
                beside, _ = await milliseconds(engine.bank(BANK))
        row = Figures(memories=size, put=size / seconds, p50=p50, p95=p95, beside=beside, resident=resident())
        times = f"{p50:.1f} ms | {p95:.1f} ms | {beside:.1f} ms"
        print(f"| {size:,} | {row.put:,.0f} | {times} | {row.resident:,.0f} MB |", flush=True)
        figures.append(row)
    return figures


def plot(figures: Sequence[Figures], file: Path) -> None:
    matplotlib = import_module("matplotlib")
    matplotlib.use("agg")
    drawing, (took, held) = import_module("matplotlib.pyplot").subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    sizes = [row.memories for row in figures]
    for name, values in (("p50", [row.p50 for row in figures]), ("p95", [row.p95 for row in figures])):
        took.plot(sizes, values, "o-", label=name)
    held.plot(sizes, [row.resident for row in figures], "o-")
    for axes, title in ((took, "recall, ms"), (held, "peak memory, MB")):
        axes.set(xscale="log", title=title, xlabel="memories in the bank", ylim=(0, None))
    took.legend()
    drawing.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--store", help="a Qdrant server; else the embedded store in a temporary folder")
    parser.add_argument("--plot", type=Path, help="a file ending in .svg or .png")
    given = parser.parse_args()
    if given.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install -r benchmarks/requirements.txt")
    figures = asyncio.run(run([int(size) for size in given.sizes.split(",")], given.store))
    if given.plot:
        plot(figures, given.plot)


if __name__ == "__main__":
    main()
