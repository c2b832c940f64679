"""How long does it take to look through all sessions of some years, and how much memory? Every file is read whole.

    python -m benchmarks.sampling
    python -m benchmarks.sampling --files 2000 --seed 7 --workers 1

Makes session files of the three forms in a temporary folder (about 1.1 GB for 20,000: their sizes are log-normal around 20 KB,
from 1 KB to 5 MB), scans them, and values them. Nothing is left behind.

seconds     from the first file to the list of what is chosen, processes started within; the files are in the system's cache
of a core   what all processes together computed: where other work shares the machine, this figure holds and the first does not
memory      the highest of this process, and of each of its children
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from consolidator.sampling import Choice, sample
from consolidator_adapters.session_files import WORKERS, find, scan_files

MEDIAN, SPREAD, SMALLEST, LARGEST = 20_000, 1.4, 1_000, 5_000_000  # bytes; the spread of the logarithm
START = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = 400  # different lines of each form
WORDS = (
    "the", "cache", "test", "fails", "because", "token", "path", "config", "deploy", "build", "server", "returns", "an", "error",
    "when", "its", "module", "loads", "twice", "again.\n",
)
MESSAGE, RESULT = 200, 900  # characters of the median message, and of the median result of a tool
Line = dict[str, Any]


def prose(rng: random.Random, median: int) -> str:
    """A text of words and line ends; its length is log-normal, at most 50,000 characters."""
    return " ".join(rng.choices(WORDS, k=1 + min(50_000, int(rng.lognormvariate(0, 1) * median)) // 6))


def project(rng: random.Random) -> str:
    return f"/home/kim/src/service-{rng.randrange(60)}"


def openai(rng: random.Random, at: str) -> Line:
    command = json.dumps({"command": f"cd {project(rng)}/app && {prose(rng, 60)}"})
    call = {"id": "call_1", "type": "function", "function": {"name": "terminal", "arguments": command}}
    output = json.dumps({"output": prose(rng, RESULT), "exit_code": rng.randrange(2)})
    return rng.choice([
        {"role": "user", "content": prose(rng, MESSAGE), "timestamp": at},
        {"role": "assistant", "content": prose(rng, MESSAGE), "tool_calls": [call], "timestamp": at},
        {"role": "tool", "tool_call_id": "call_1", "content": output},
    ])


def claude(rng: random.Random, at: str) -> Line:
    entry = {"uuid": f"{rng.getrandbits(64):x}", "sessionId": "5f0c", "timestamp": at, "cwd": project(rng), "isSidechain": False}
    write = {"file_path": f"{project(rng)}/notes.md", "content": prose(rng, RESULT)}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": prose(rng, RESULT), "is_error": rng.random() < 0.1}
    kind, content = rng.choice([
        ("user", prose(rng, MESSAGE)),
        ("user", [result]),
        ("assistant", [{"type": "text", "text": prose(rng, MESSAGE)}]),
        ("assistant", [{"type": "thinking", "thinking": prose(rng, MESSAGE), "signature": "x" * 400}]),
        ("assistant", [{"type": "tool_use", "id": "toolu_1", "name": "Write", "input": write}]),
    ])
    return {**entry, "type": kind, "message": {"role": kind, "content": content}}


def codex(rng: random.Random, at: str) -> Line:
    output = json.dumps({"output": prose(rng, RESULT), "metadata": {"exit_code": 0, "duration_seconds": 0.1}})
    arguments = json.dumps({"command": ["bash", "-lc", prose(rng, 60)], "workdir": project(rng)})
    payload = rng.choice([
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": prose(rng, MESSAGE)}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": prose(rng, MESSAGE)}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "x" * 1_500},
        {"type": "function_call", "name": "shell", "arguments": arguments, "call_id": "call_1"},
        {"type": "function_call_output", "call_id": "call_1", "output": output},
    ])
    return {"timestamp": at, "type": "response_item", "payload": payload}


def lines_of(form: Callable[[random.Random, str], Line], rng: random.Random) -> list[bytes]:
    times = ((START + timedelta(minutes=n)).isoformat() for n in range(KINDS))
    return [json.dumps(form(rng, at)).encode() + b"\n" for at in times]


def written(lines: list[bytes], size: int, rng: random.Random) -> Iterator[bytes]:
    while size > 0:
        line = rng.choice(lines)
        size -= len(line)
        yield line


def make(folder: Path, files: int, rng: random.Random) -> int:
    """Returns the bytes in all."""
    forms, total = [lines_of(form, rng) for form in (openai, claude, codex)], 0
    for number in range(files):
        size = min(LARGEST, max(SMALLEST, int(rng.lognormvariate(0, SPREAD) * MEDIAN)))
        at = START + timedelta(minutes=20 * number)
        path = folder / f"{number % 50:02}" / f"session_{at:%Y%m%d_%H%M%S}_{number:06x}.jsonl"
        path.parent.mkdir(exist_ok=True)
        total += path.write_bytes(b"".join(written(rng.choice(forms), size, rng)))
    return total


def used() -> float:
    """Seconds that this process and its ended children computed."""
    return sum(os.times()[:4])


def highest(who: int) -> float:
    """Resident memory at its highest, in MB."""
    return resource.getrusage(who).ru_maxrss / 1024


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--files", type=int, default=20_000)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--workers", type=int, default=WORKERS)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="sampling-") as name:
        folder = Path(name)
        total = make(folder, given.files, random.Random(given.seed))
        began, computed = time.perf_counter(), used()
        scans = scan_files([(folder, path) for path in find(folder)], workers=given.workers)
        found = sample(scans, Choice(count=100), START + timedelta(days=300))
        took, computed = time.perf_counter() - began, used() - computed
    messages = sum(scan.messages for scan in scans)
    print(f"{given.files:,} files, {total / 1e6:,.0f} MB, {messages:,} messages, {len(found)} chosen, {os.cpu_count()} cores")
    print(f"{took:.1f} s, {total / 1e6 / took:.0f} MB/s, {given.workers} processes, {computed:.1f} s of a core in all")
    here, child = highest(resource.RUSAGE_SELF), highest(resource.RUSAGE_CHILDREN) if given.workers > 1 else 0.0
    print(f"{here:.0f} MB here, {child:.0f} MB in each child: {here + given.workers * child:.0f} MB together at most")


if __name__ == "__main__":
    main()
