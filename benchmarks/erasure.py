"""What erasing a source costs, in banks of 1,000 to 100,000 observations, beside finding its dependents by a scan.

    python benchmarks/erasure.py             1,000 / 10,000 / 100,000 observations (some minutes, most of it building them)
    python benchmarks/erasure.py --quick     1,000 / 10,000

Embedded store, SQLite, no model: vectors are of words. Each source has 20 dependents; one observation rests on 100 sources.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import NAMESPACE_URL, uuid4, uuid5

from consolidator.clock import system_clock
from consolidator.config import Settings
from consolidator.engine import Bank, Engine
from consolidator.models import Evidence, Memory, MemoryState, Observation, Version
from consolidator.paging import pages
from consolidator.parts import Parts
from consolidator.plans import Change, Intent, Lease, MemoryMark
from consolidator.points import memory_point
from consolidator.redo import barrier, carry_out
from consolidator.registry import open_parts
from consolidator.testing import HashEmbedder, ScriptedProposer

DEPENDENTS, SOURCES, ROUNDS, AT_ONCE, MANY = 20, 100, 9, 500, 1_000
BANK = "alice"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def memory(number: int) -> Memory:
    at = NOW + timedelta(seconds=number)
    id = str(uuid5(NAMESPACE_URL, f"memory {number}"))
    text = f"Fact {number} about topic {number % 97} and place {number % 89}."
    return Memory(id=id, bank=BANK, text=text, source=f"s{number // DEPENDENTS}", retained_at=at)


def observed(memories: list[Memory], text: str, vector: list[float]) -> Change:
    """An observation derived from the first memory; the others support it."""
    evidence = tuple(Evidence(memory_id=m.id, source=m.source, occurred_at=m.time) for m in memories)
    lineage = frozenset({memories[0].id})
    after = Observation(id=str(uuid4()), bank=BANK, text=text, evidence=evidence, created_at=NOW, updated_at=NOW)
    version = Version(observation_id=after.id, number=1, text=text, digest="", lineage=lineage, at=NOW)
    return Change(after=after, vector=vector, lineage=lineage, version=version)


async def build(parts: Parts, lease: Lease, start: int, end: int) -> None:
    for first in range(start, end, AT_ONCE):
        memories = [memory(n) for n in range(first, min(first + AT_ONCE, end))]
        vectors = await parts.embedder.embed([m.text for m in memories])
        await parts.memories.put(BANK, [memory_point(m, v) for m, v in zip(memories, vectors, strict=True)])
        changes = tuple(observed([m], m.text, v) for m, v in zip(memories, vectors, strict=True))
        await plan(parts, lease, changes, memories)


async def plan(parts: Parts, lease: Lease, changes: tuple[Change, ...], memories: list[Memory]) -> None:
    marks = tuple(MemoryMark(memory_id=m.id, rev=0, state=MemoryState.DONE) for m in memories)
    intent = Intent(id=str(uuid4()), bank=BANK, kind="consolidate", created_at=NOW, changes=changes, marks=marks)
    await carry_out(parts, intent, lease)
    await barrier(parts, BANK)


async def well_supported(parts: Parts, lease: Lease) -> None:
    """One observation with a hundred sources, of which the first gave the text."""
    memories = [memory(10_000_000 + n * DEPENDENTS) for n in range(SOURCES)]
    vectors = await parts.embedder.embed([m.text for m in memories])
    await parts.memories.put(BANK, [memory_point(m, v) for m, v in zip(memories, vectors, strict=True)])
    await plan(parts, lease, (observed(memories, "What a hundred sources say.", vectors[0]),), memories)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Engine, Parts]]:
    settings = Settings.model_validate({"folder": folder, "worker": {"background": False}})
    parts = await open_parts(settings, system_clock, embedder=HashEmbedder(), proposer=ScriptedProposer())
    engine = Engine(parts, settings)
    try:
        yield engine, parts
    finally:
        await engine.close()


async def milliseconds(parts: Parts, bank: Bank, source: str) -> float:
    """What the caller waits for. The flush that closes the plan comes after it, as in the background."""
    await barrier(parts, BANK)
    begun = time.perf_counter()
    receipt = await bank.forget(source=source)
    took = 1000 * (time.perf_counter() - begun)
    assert receipt.state == "settled", receipt.state
    assert receipt.model_calls == 0
    return took


async def scan(parts: Parts, ids: set[str]) -> float:
    """How others find what rests on a source: by looking at every observation."""
    begun = time.perf_counter()
    found = [p async for p in pages(parts.observations, BANK, ()) if ids & {*p.payload.get("evidence_memory_ids", ())}]
    assert len(found) == DEPENDENTS
    return 1000 * (time.perf_counter() - begun)


async def run(sizes: tuple[int, ...]) -> None:
    heads = ("observations", "one source, 20 dependents", "of 100 sources, one that supported", "dependents found by a scan")
    print(f"| {' | '.join(heads)} |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder) / "memory") as (engine, parts):
            bank, start = engine.bank(BANK), 0
            for size in sizes:
                lease = await parts.ledger.claim(BANK, parts.owner, 3600.0)
                assert lease is not None
                await build(parts, lease, start, size)
                if not start:
                    await well_supported(parts, lease)
                await parts.ledger.release(lease)
                first, start = start // DEPENDENTS, size
                rests = {memory(n).id for n in range((first + ROUNDS) * DEPENDENTS, (first + ROUNDS + 1) * DEPENDENTS)}
                scanned = await scan(parts, rests)
                erased = [await milliseconds(parts, bank, f"s{first + n}") for n in range(ROUNDS)]
                support = 10_000_000 // DEPENDENTS + 1 + sizes.index(size) * ROUNDS
                supported = [await milliseconds(parts, bank, f"s{support + n}") for n in range(ROUNDS)]
                assert any(o.text == "What a hundred sources say." for o in await bank.observations(tags=()))
                told = (statistics.median(erased), statistics.median(supported), scanned)
                print(f"| {size:,} | " + " | ".join(f"{it:.1f} ms" for it in told) + " |", flush=True)
            await many(parts, bank)


async def many(parts: Parts, bank: Bank) -> None:
    lease = await parts.ledger.claim(BANK, parts.owner, 3600.0)
    assert lease is not None
    first = memory(20_000_000)
    changes = tuple(observed([first], f"What follows from it, number {n}.", [0.0] * 63 + [1.0]) for n in range(MANY))
    await parts.memories.put(BANK, [memory_point(first, changes[0].vector)])
    await plan(parts, lease, changes, [first])
    await parts.ledger.release(lease)
    took = await milliseconds(parts, bank, first.source)
    left = [p async for p in pages(parts.observations, BANK, ()) if first.id in p.payload.get("evidence_memory_ids", ())]
    print(f"one source with {MANY:,} dependents: {took:.0f} ms, {len(left)} dependents left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    sizes = (1_000, 10_000) if parser.parse_args().quick else (1_000, 10_000, 100_000)
    asyncio.run(run(sizes))


if __name__ == "__main__":
    main()
