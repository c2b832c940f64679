"""What a recall of ten costs in a memory of 10,000, beside mem0 on a local Qdrant, LangGraph's store and Chroma, in one process.

    python -m benchmarks.beside [--size 10000] [--only consolidator,mem0]       needs benchmarks/requirements.txt for the others

Sentences are made by formula and vectors by a hash of their words, as in `scale.py`, so nothing of it is encoding. Ours keeps
everything on disk, has two lists a collection and an explanation of each hit; the others search one list of vectors.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import timedelta

import numpy as np

from benchmarks.locomo import Turn
from benchmarks.scale import BEGIN, PER_SOURCE, QUERIES, WARM, asked, told
from benchmarks.systems import DIMENSION, SYSTEMS, Matrix, Memory, System
from consolidator.testing.models import hash_vector

WANTED = "consolidator,consolidator-plain,mem0,mem0-dense,langgraph,chroma"


def encode(texts: Sequence[str]) -> Matrix:
    return np.array([hash_vector(text, DIMENSION) for text in texts], dtype=np.float32)


def turn(number: int) -> Turn:
    speaker, text = "Ann" if number % 2 else "Bob", told(number)
    return Turn(
        id=str(number), text=text, shown=f"{speaker}: {text}", speaker=speaker, session=number // PER_SOURCE,
        position=number % PER_SOURCE, at=BEGIN + timedelta(minutes=number),
    )


def fill(memory: Memory, size: int) -> float:
    """Turns retained a second."""
    begun = time.perf_counter()
    for start in range(0, size, PER_SOURCE):
        memory.retain([turn(number) for number in range(start, min(start + PER_SOURCE, size))])
    memory.settle([])
    return size / (time.perf_counter() - begun)


def milliseconds(memory: Memory) -> tuple[float, float]:
    """p50 and p95."""
    times = []
    for number in range(WARM + QUERIES):
        begun = time.perf_counter()
        found = memory.recall(asked(number), 10)
        times.append(1000 * (time.perf_counter() - begun))
        assert len(found) == 10
    times = sorted(times[WARM:])
    return statistics.median(times), times[int(0.95 * len(times))]


def row(name: str, system: System, size: int, ours: float | None) -> float:
    with system.open(encode) as memory:
        rate = fill(memory, size)
        p50, p95 = milliseconds(memory)
    beside = f"{p50 / ours:.1f}" if ours else "1"
    print(f"| {name} | {rate:,.0f} | {p50:.1f} | {p95:.1f} | {beside} |", flush=True)
    return p50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--only", default=WANTED)
    options = parser.parse_args()
    print("| | retained a second | recall p50, ms | p95 | p50 of ours |\n|---|---|---|---|---|", flush=True)
    ours: float | None = None
    for name in options.only.split(","):
        if missing := SYSTEMS[name].missing():
            print(f"| {name} | not installed: {', '.join(missing)} |", flush=True)
            continue
        p50 = row(name, SYSTEMS[name], options.size, ours)
        ours = p50 if ours is None else ours
    return 0


if __name__ == "__main__":
    sys.exit(main())
