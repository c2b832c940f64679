"""The figures of the README, measured side by side in one run: import, install, retain, recall. `make bench`.

Times are of this machine; what carries over are the ratios. Nothing here is a test.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from consolidator.config import Settings
from consolidator.engine import Bank, connect
from consolidator.registry import open_embedder
from consolidator.testing import HashEmbedder, ScriptedProposer
from consolidator.testing.proposers import word_for_word

BATCH = 64
ROUNDS = 4
BANKS, MEMORIES, OBSERVATIONS = 20, 10_000, 2_000
QUERIES = 400
ALONE = {"worker": {"background": False}}  # what is measured is not consolidated meanwhile
TOPICS = ["garden", "boat", "cello", "rent", "diet", "climbing", "wedding", "train", "concert", "bread", "piano", "dog"]


def told(number: int) -> str:
    """A sentence of about 20 words, never twice the same."""
    one, other = TOPICS[number % len(TOPICS)], TOPICS[number // 7 % len(TOPICS)]
    price = number * 3 % 997
    return f"On day {number} Ann told Bob that the {one} cost {price} pounds and that the {other} would have to wait for spring."


def measure_import() -> None:
    code = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"
    for module in ("consolidator", "consolidator.engine"):
        command = [sys.executable, "-c", code.format(module)]
        runs = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(5)]
        print(f"import {module:<22} {statistics.median(runs):.2f} s of CPU (median of 5)")


def closure(name: str, extras: frozenset[str]) -> Iterator[str]:
    """A package and what it needs, by the metadata of what is installed here."""
    todo, seen = [(name, extras)], set[tuple[str, frozenset[str]]]()
    while todo:
        package, wanted = todo.pop()
        if (package, wanted) in seen:
            continue
        seen.add((package, wanted))
        try:
            requires = distribution(package).requires or []
        except PackageNotFoundError:
            continue
        yield package
        for line in requires:
            todo += needed(line, wanted)


def needed(line: str, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    marker = requirement.marker
    if marker and not any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
        return []
    return [(re.sub(r"[-_.]+", "-", requirement.name).lower(), frozenset(requirement.extras))]


def size(package: str) -> int:
    return sum(path.stat().st_size for file in distribution(package).files or [] if (path := Path(str(file.locate()))).is_file())


def measure_install() -> None:
    for label, extras in (("consolidator", frozenset[str]()), ("consolidator[local]", frozenset({"local"}))):
        packages = set(closure("consolidator", extras)) - {"consolidator"}
        torch = "with torch" if "torch" in packages else "without torch"
        print(f"install {label:<21} {sum(map(size, packages)) / 1e6:,.0f} MB in {len(packages)} packages, {torch}")


async def measure_retain(folder: Path) -> None:
    """Texts a second: the bare model in batches of 64, and the engine, in turn. The first round of each warms up."""
    settings = Settings.model_validate({"folder": folder, "embedder": {"cache": False}, **ALONE})
    embedder = await open_embedder(settings)
    bare: list[float] = []
    kept: list[float] = []
    number = 0
    async with connect(settings=settings, embedder=embedder, proposer=ScriptedProposer()) as engine:
        bank = engine.bank("bench")
        for _ in range(ROUNDS + 1):
            for speeds, work in ((bare, embedder.embed), (kept, partial(bank.retain, source="bench"))):
                texts = [told(number + n) for n in range(4 * BATCH)]
                number += len(texts)
                speeds.append(len(texts) / await timed(texts, work))
    fast, ours = statistics.median(bare[1:]), statistics.median(kept[1:])
    print(f"retain                        {ours:.0f} texts/s, the bare embedder {fast:.0f}: ratio {ours / fast:.2f}")


async def timed(texts: list[str], work: Callable[[list[str]], Awaitable[object]]) -> float:
    start = time.perf_counter()
    for at in range(0, len(texts), BATCH):
        await work(texts[at : at + BATCH])
    return time.perf_counter() - start


async def measure_recall(folder: Path) -> None:
    """Milliseconds, the query's embedding left out (a hash stands in for the model)."""
    proposer = ScriptedProposer([word_for_word] * MEMORIES)
    settings = Settings.model_validate({"folder": folder, "consolidation": {"candidates": 0, "batch": 64}, **ALONE})
    async with connect(settings=settings, embedder=HashEmbedder(384), proposer=proposer) as engine:
        banks = [engine.bank(f"bank{n}") for n in range(BANKS)]
        share = MEMORIES // BANKS
        for n, bank in enumerate(banks):
            items = [{"text": told(n * share + i), "speaker": "Ann", "sequence": i % 50} for i in range(share)]
            for at in range(0, share, 100):
                await bank.retain(items[at : at + 100], source=f"s{at}")
            await bank.consolidate(limit=OBSERVATIONS // BANKS)
        await report(banks)


async def report(banks: list[Bank]) -> None:
    times = []
    for n in range(QUERIES):
        start = time.perf_counter()
        await banks[n % BANKS].recall(f"How much did the {TOPICS[n % len(TOPICS)]} cost Ann?", top_k=10)
        times.append((time.perf_counter() - start) * 1000)
    times = sorted(times[BANKS:])
    p50, p95 = times[len(times) // 2], times[int(len(times) * 0.95)]
    size = f"{MEMORIES:,} memories, {OBSERVATIONS:,} observations, {BANKS} banks"
    print(f"recall                        p50 {p50:.1f} ms, p95 {p95:.1f} ms ({size})")


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    measure_import()
    measure_install()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure_recall(Path(folder) / "recall"))
        asyncio.run(measure_retain(Path(folder) / "retain"))


if __name__ == "__main__":
    main()
