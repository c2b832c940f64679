"""Does recall return the turns that hold the answer? Ours beside other stores, in one process, on one embedder, with no model.

    python -m benchmarks.retrieval --data locomo10.json                             every system that is installed
    python -m benchmarks.retrieval --data locomo10.json --conversations 0-1 --systems consolidator,bm25
    python -m benchmarks.retrieval --data locomo10.json --observations --out found.json --plot found.svg

The data are LoCoMo's: github.com/snap-research/locomo, data/locomo10.json (CC BY-NC 4.0, so it is not in this repository). The
others come by benchmarks/requirements.txt, in an environment of their own; what is not installed is skipped.

R@k     share of a question's evidence among the first k; all@10: questions all of whose evidence is there; MRR, NDCG@10.
        Categories 1 to 4; adversarial questions, which ask the wrong person, apart
retain  turns a second, and recall in milliseconds; encoding is left out, for it is the same for all: vectors are cached
[a, b]  95 % intervals, by resampling conversations, and questions within them

Every conversation is a new, empty store; a session is retained at a time. Nothing may leave the machine: telemetry is off, and
whatever tries to connect is refused and told.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.locomo import CATEGORIES, Conversation, chosen, read
from benchmarks.systems import DIMENSION, SYSTEMS, Encode, Matrix, System
from consolidator_providers.sentence_transformers import Encoder, find_model

QUIET = {
    "MEM0_TELEMETRY": "False", "ANONYMIZED_TELEMETRY": "False", "LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false",
    "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}
PACKAGES = ("consolidator", "mem0ai", "fastembed", "qdrant-client", "langgraph", "chromadb", "bm25s", "numpy", "torch")
DEEP, ROUNDS = 20, 1000
QUALITY = ("R@5", "R@10", "R@20", "all@10", "MRR", "NDCG@10")
OURS = "consolidator"

Draws = list[npt.NDArray[np.intp]]


# The embedder of all


class Vectors:
    """Encodes each text once. `seconds` are those spent in here; a file keeps the vectors for the next run."""

    def __init__(self, file: Path | None) -> None:
        self.seconds = 0.0
        self._file = file
        self._encoder = Encoder(find_model("default"), threads=1, batch=64, device="cpu")
        self._known: dict[str, npt.NDArray[np.float32]] = {}
        if file and file.exists():
            with np.load(file) as stored:
                self._known = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    def __call__(self, texts: Sequence[str]) -> Matrix:
        begun = time.perf_counter()
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if new:
            vectors = np.asarray(self._encoder.encode(list(new.values())), np.float32)
            self._known |= dict(zip(new, vectors, strict=True))
        found = np.stack([self._known[key] for key in keys]) if keys else np.zeros((0, DIMENSION), np.float32)
        self.seconds += time.perf_counter() - begun
        return found

    def save(self) -> None:
        if self._file:
            np.savez(self._file, keys=np.array(list(self._known)), vectors=np.stack(list(self._known.values())))


def forbid_network() -> list[str]:
    """From here on whatever would leave the machine fails. Returns the list of what tried, as it grows."""
    tried: list[str] = []

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        if event not in ("socket.connect", "socket.getaddrinfo"):
            return
        address = args[1] if event == "socket.connect" else args
        host = str(address[0]) if isinstance(address, tuple) else "localhost"  # a path, or a descriptor: this machine
        if host not in ("localhost", "::1", "None") and not host.startswith("127."):
            tried.append(host)
            raise OSError(f"the benchmark lets nothing leave this machine, not to {host} either")

    sys.addaudithook(refuse)
    return tried


# Measuring


@dataclass(slots=True)
class Run:
    """A system on all conversations so far: a value for each question, in their order, and for each conversation."""

    found: list[list[str]] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    retained: list[float] = field(default_factory=list)  # seconds
    settled: list[float] = field(default_factory=list)  # seconds


def measure(run: Run, system: System, conversation: Conversation, encode: Vectors) -> None:
    """Every question is asked twice: the first time for what it finds, the second, its vector known, for the time."""
    texts = [question.text for question in conversation.questions]
    with system.open(encode) as memory:
        run.retained.append(sum(timed(encode, partial(memory.retain, session)) for session in conversation.sessions))
        run.settled.append(timed(encode, partial(memory.settle, conversation.statements)))
        run.found += [memory.recall(text, DEEP) for text in texts]
        run.milliseconds += [1000 * timed(encode, partial(memory.recall, text, DEEP)) for text in texts]


def timed(encode: Vectors, work: Callable[[], object]) -> float:
    """Seconds, those in the encoder left out."""
    inside, begun = encode.seconds, time.perf_counter()
    work()
    return time.perf_counter() - begun - (encode.seconds - inside)


def quality(found: Sequence[str], evidence: frozenset[str]) -> tuple[float, ...]:
    """The figures of `QUALITY` for one question."""
    ranks = [rank for rank, id in enumerate(found, start=1) if id in evidence]
    recall = [sum(rank <= k for rank in ranks) / len(evidence) for k in (5, 10, 20)]
    gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= 10)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(evidence)) + 1))
    return (*recall, float(recall[1] == 1), 1 / ranks[0] if ranks else 0.0, gain / ideal)


# Intervals


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its interval; nan where it has none."""

    value: float
    low: float
    high: float

    def told(self, digits: int = 3, sign: str = "") -> str:
        value, low, high = (f"{x:{sign}.{digits}f}" for x in (self.value, self.low, self.high))
        return value if math.isnan(self.low) else f"{value} [{low}, {high}]"


def draws(sizes: Sequence[int], seed: int = 0) -> Draws:
    """Positions of questions: conversations with replacement, then as many questions of each, with replacement."""
    lots, starts = np.random.default_rng(seed), np.cumsum([0, *sizes])
    rounds = (lots.integers(0, len(sizes), len(sizes)) for _ in range(ROUNDS))
    return [np.concatenate([starts[c] + lots.integers(0, max(1, sizes[c]), sizes[c]) for c in picked]) for picked in rounds]


def figure(count: int, drawn: Draws, statistic: Callable[[npt.NDArray[np.intp]], float]) -> Figure:
    """statistic: of the positions of questions or conversations, of which there are `count`."""
    if not count:
        return Figure(math.nan, math.nan, math.nan)
    resampled = [statistic(positions) for positions in drawn if len(positions)]
    low, high = np.percentile(resampled, [2.5, 97.5]) if len(set(resampled)) > 1 else (math.nan, math.nan)
    return Figure(statistic(np.arange(count)), float(low), float(high))


def mean(values: npt.NDArray[np.float64], drawn: Draws) -> Figure:
    return figure(len(values), drawn, lambda at: float(values[at].mean()))


def percentile(values: npt.NDArray[np.float64], share: int, at: npt.NDArray[np.intp]) -> float:
    return float(np.percentile(values[at], share))


class Resampled:
    """Figures of all systems, from the same draws for all."""

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        self.questions = [question for one in conversations for question in one.questions]
        self.turns = np.array([len(one.turns) for one in conversations], float)
        adverse = np.array([question.category == "adversarial" for question in self.questions])
        self.main, self.adverse = np.flatnonzero(~adverse), np.flatnonzero(adverse)
        counts = [[q.category == "adversarial" for q in one.questions] for one in conversations]
        self._all = draws([len(one) for one in counts])
        self._main = draws([len(one) - sum(one) for one in counts])
        self._adverse = draws([sum(one) for one in counts])
        self._conversations = draws([1] * len(conversations))

    def rows(self, run: Run) -> npt.NDArray[np.float64]:
        """[questions, figures]"""
        asked = zip(run.found, self.questions, strict=True)
        return np.array([quality(found, question.evidence) for found, question in asked])

    def figures(self, run: Run) -> dict[str, Figure]:
        rows, times, seconds = self.rows(run), np.array(run.milliseconds), np.array(run.retained)
        told = {name: mean(rows[self.main, n], self._main) for n, name in enumerate(QUALITY)}
        told["adversarial R@10"] = mean(rows[self.adverse, 1], self._adverse)
        told["retain/s"] = figure(
            len(seconds), self._conversations, lambda at: float(self.turns[at].sum() / seconds[at].sum())
        )
        for share in (50, 95):
            told[f"recall p{share} ms"] = figure(len(times), self._all, partial(percentile, times, share))
        return told

    def differences(self, run: Run, other: Run) -> dict[str, Figure]:
        apart = (self.rows(run) - self.rows(other))[self.main]
        return {name: mean(apart[:, n], self._main) for n, name in enumerate(QUALITY)}

    def by_category(self, run: Run) -> dict[str, float]:
        rows, of = self.rows(run)[:, 1], np.array([question.category for question in self.questions])
        return {name: float(rows[of == name].mean()) for name in CATEGORIES.values() if (of == name).any()}


# The report


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    figures: dict[str, dict[str, Figure]]
    differences: dict[str, dict[str, Figure]]  # ours - other
    categories: dict[str, dict[str, float]]
    settled: dict[str, float]  # seconds spent consolidating


def report_on(runs: dict[str, Run], conversations: Sequence[Conversation]) -> Report:
    resampled = Resampled(conversations)
    others = [name for name in runs if name != OURS] if OURS in runs else []
    return Report(
        figures={name: resampled.figures(run) for name, run in runs.items()},
        differences={name: resampled.differences(runs[OURS], runs[name]) for name in others},
        categories={name: resampled.by_category(run) for name, run in runs.items()},
        settled={name: sum(run.settled) for name, run in runs.items()},
    )


def show(report: Report) -> None:
    table("system", {name: {k: v.told(digits(k, v.value)) for k, v in row.items()} for name, row in report.figures.items()})
    if report.differences:
        rows = {name: {k: v.told(sign="+") for k, v in row.items()} for name, row in report.differences.items()}
        table(f"{OURS} minus", rows)
    table("R@10 of", {name: {k: f"{v:.3f}" for k, v in row.items()} for name, row in report.categories.items()})
    print("\nWhat differs. The encoder, the turns and the questions are the same.")
    for name in report.figures:
        print(f"- {name}: {SYSTEMS[name].differs}")


def digits(name: str, value: float) -> int:
    if name == "retain/s":
        return 0
    return 3 if not name.endswith("ms") else 1 if value >= 1 else 2


def table(head: str, rows: dict[str, dict[str, str]]) -> None:
    columns = list(next(iter(rows.values())))
    print(f"\n| {head} | {' | '.join(columns)} |\n" + "|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(row[column] for column in columns)} |")


def as_json(report: Report, runs: dict[str, Run], conversations: Sequence[Conversation], data: Path) -> dict[str, Any]:
    questions = [question for one in conversations for question in one.questions]
    return {
        "data": {"file": data.name, "sha256": hashlib.sha256(data.read_bytes()).hexdigest()},
        "conversations": [one.name for one in conversations],
        "turns": sum(len(one.turns) for one in conversations), "questions": len(questions),
        "python": platform.python_version(), "packages": dict(installed()), "differs": {n: SYSTEMS[n].differs for n in runs},
        "figures": {n: {k: plain(f) for k, f in row.items()} for n, row in report.figures.items()},
        f"{OURS} minus": {n: {k: plain(f) for k, f in row.items()} for n, row in report.differences.items()},
        "R@10 by category": report.categories, "seconds consolidating": report.settled,
        "found": {n: {q.id: found for q, found in zip(questions, run.found, strict=True)} for n, run in runs.items()},
    }


def plain(figure: Figure) -> list[float | None]:
    return [None if math.isnan(x) else round(x, 5) for x in (figure.value, figure.low, figure.high)]


def installed() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def plot(report: Report, title: str, file: Path) -> None:
    """R@10 with its interval, and what a recall takes, p50 to p95."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("agg")
    names = sorted(report.figures, key=lambda name: report.figures[name]["R@10"].value)
    drawing, (found, took) = import_module("matplotlib.pyplot").subplots(
        1, 2, sharey=True, figsize=(9.5, 1.2 + 0.34 * len(names)), layout="constrained", width_ratios=[3, 2]
    )
    for row, name in enumerate(names):
        figures, colour = report.figures[name], "#c2410c" if name.startswith(OURS) else "#475569"
        recall, p50, p95 = (figures[key] for key in ("R@10", "recall p50 ms", "recall p95 ms"))
        found.plot([recall.low, recall.high], [row, row], color=colour, linewidth=2)
        found.plot(recall.value, row, "o", color=colour)
        found.annotate(f"{recall.value:.3f}", (recall.value, row), xytext=(0, 6), textcoords="offset points", ha="center", size=7)
        took.plot([p50.value, p95.value], [row, row], color=colour, linewidth=2)
        took.plot(p50.value, row, "o", color=colour)
    found.set(yticks=range(len(names)), yticklabels=names, ylim=(-0.6, len(names) - 0.3))
    found.set(xlabel="evidence recall@10, 95 % interval")
    took.set(xscale="log", xlabel="recall, ms, p50 to p95, without encoding")
    for axes in (found, took):
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    drawing.suptitle(title, size=9)
    drawing.savefig(file, dpi=150)


# The command


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="locomo10.json, or any file of that shape")
    parser.add_argument("--systems", default="", help="of " + ", ".join(SYSTEMS) + "; else all that are installed")
    parser.add_argument("--conversations", default="all", help="positions in the file, such as 0-1,4")
    parser.add_argument("--observations", action="store_true", help="also ours with observations: by rules, and LoCoMo's")
    parser.add_argument("--out", type=Path, help="write figures, and what each system found, as JSON")
    parser.add_argument("--plot", type=Path, help="draw them: a file ending in .png or .svg")
    parser.add_argument("--vectors", type=Path, help="keep the vectors in this .npz file, for the next run")
    told = parser.parse_args()
    told.names = told.systems.split(",") if told.systems else [name for name in SYSTEMS if not name.startswith(f"{OURS}+")]
    told.names += [name for name in SYSTEMS if told.observations and name.startswith(f"{OURS}+") and name not in told.names]
    if unknown := set(told.names) - set(SYSTEMS):
        parser.error(f"there is no system {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS)}")
    if told.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install -r benchmarks/requirements.txt")
    try:
        told.chosen = chosen(read(told.data), told.conversations)
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"--data or --conversations: {error}")
    return told


def available(names: Sequence[str]) -> list[str]:
    kept = []
    for name in names:
        if missing := SYSTEMS[name].missing():
            print(f"{name} is skipped: {' and '.join(missing)} missing; pip install -r benchmarks/requirements.txt", flush=True)
        else:
            kept.append(name)
    return kept


def main() -> None:
    told = parsed()
    conversations: list[Conversation] = told.chosen
    os.environ.update(QUIET)  # before any of them is imported
    tried = forbid_network()
    encode = Vectors(told.vectors)
    runs = {name: Run() for name in available(told.names)}
    if not runs:
        sys.exit("nothing is left to measure")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MEM0_DIR"] = folder
        for turn, conversation in enumerate(conversations):
            print(f"{conversation.name}: {len(conversation.turns)} turns, {len(conversation.questions)} questions", flush=True)
            prepare(encode, conversation)
            for name in rotated(list(runs), turn):
                measure(runs[name], SYSTEMS[name], conversation, encode)
    encode.save()
    report = report_on(runs, conversations)
    show(report)
    print(f"\nRefused connections: {', '.join(sorted(set(tried))) or 'none, for none was tried'}")
    if told.out:
        told.out.write_text(json.dumps(as_json(report, runs, conversations, told.data), indent=1), encoding="utf-8")
    if told.plot:
        questions = sum(q.category != "adversarial" for one in conversations for q in one.questions)
        plot(report, f"{questions} questions of LoCoMo, conversations: {len(conversations)}, all-MiniLM-L6-v2", told.plot)


def rotated(names: list[str], by: int) -> list[str]:
    """Another order for each conversation: a machine is not equally busy all the time."""
    by %= len(names)
    return names[by:] + names[:by]


def prepare(encode: Encode, conversation: Conversation) -> None:
    encode([turn.shown for turn in conversation.turns] + [question.text for question in conversation.questions])


if __name__ == "__main__":
    main()
