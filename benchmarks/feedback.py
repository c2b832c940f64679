"""Does importance, measured by words on questions that were lived, help the ranking of questions that were not? No model.

    python -m benchmarks.feedback --data locomo10.json --vectors vectors.npz
    python -m benchmarks.feedback --data locomo10.json --conversations 0-1 --splits 1 --weights 0.2

The data are LoCoMo's: github.com/snap-research/locomo, data/locomo10.json (CC BY-NC 4.0, so it is not in this repository).
Half of a conversation's questions of the categories 1 to 4 are lived: the first 20 hits of a recall are put before LoCoMo's own
answer in a transcript, which `bank.score` measures. Then the others are asked, with `recall.importance` 0 and the other weights.
Each split of the questions is a bank of its own, so that nothing is lived twice.

MRR, R@10   of the questions held out, among the first 20, with weight 0; then by how much each weight moves them
shared      those whose evidence some lived question shares; the others can only lose by it
[a, b]      95 % intervals, by resampling conversations, and questions within them
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.locomo import Conversation, Question, chosen, read
from benchmarks.retrieval import DEEP, QUIET, Vectors, draws, forbid_network, mean, quality, table
from benchmarks.systems import Shared
from benchmarks.tune import fields
from consolidator import blocking
from consolidator.config import Settings

LIVED = 20  # hits that a lived question puts before its answer
RECALL, MRR = 1, 4  # among the figures of `quality`

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A bank in which some questions of a conversation were lived, and others will be asked."""

    bank: str
    lived: list[Question]
    held: list[Question]

    def shares(self, question: Question) -> bool:
        return any(question.evidence & lived.evidence for lived in self.lived)


@dataclass(slots=True)
class Told:
    """What was found of one conversation. rows: by weight, [questions held out in any split, (R@10, MRR)]."""

    shared: list[bool] = field(default_factory=list)
    rows: dict[float, list[tuple[float, float]]] = field(default_factory=dict)
    scores: int = 0


def answers_in(path: Path) -> dict[str, str]:
    """LoCoMo's own answers, by question."""
    samples = json.loads(path.read_text(encoding="utf-8"))
    every = samples if isinstance(samples, list) else [samples]
    return {f"{s['sample_id']}/{n}": str(qa["answer"]) for s in every for n, qa in enumerate(s["qa"]) if "answer" in qa}


def splits_of(conversation: Conversation, answers: dict[str, str], count: int) -> Iterator[Split]:
    asked = [q for q in conversation.questions if q.category != "adversarial" and q.id in answers]
    for number in range(count):
        mixed = random.Random(f"{conversation.name} {number}").sample(asked, len(asked))
        yield Split(bank=f"split-{number}", lived=mixed[::2], held=mixed[1::2])


def live(bank: blocking.Bank, conversation: Conversation, split: Split, answers: dict[str, str]) -> int:
    """Fill the bank, then ask, answer and score. Returns how many scores that gave."""
    for session in conversation.sessions:
        bank.retain([fields(turn) for turn in session], source=f"session-{session[0].session}")
    scores = 0
    for question in split.lived:
        recorder = bank.transcript(question.id)
        recorder.recall(question.text, top_k=LIVED)
        recorder.said(question.text)
        recorder.answered(answers[question.id])
        scores += sum(1 for _ in bank.score(recorder.transcript(closed=True), mode="matrix").known())
    return scores


def ask(bank: blocking.Bank, questions: Sequence[Question]) -> list[tuple[float, float]]:
    rows = []
    for question in questions:
        hits = bank.recall(question.text, top_k=DEEP)
        figures = quality([str(hit.metadata["turn"]) for hit in hits], question.evidence)
        rows.append((figures[RECALL], figures[MRR]))
    return rows


def experience(
    conversation: Conversation, answers: dict[str, str], count: int, weights: Sequence[float], encode: Vectors
) -> Told:
    told, splits = Told(), list(splits_of(conversation, answers, count))
    told.shared = [split.shares(question) for split in splits for question in split.held]
    with tempfile.TemporaryDirectory() as folder:
        with blocking.connect(settings=settings(folder, 0.0), embedder=Shared(encode)) as engine:
            told.scores = sum(live(engine.bank(split.bank), conversation, split, answers) for split in splits)
        for weight in weights:
            with blocking.connect(settings=settings(folder, weight), embedder=Shared(encode)) as engine:
                told.rows[weight] = [row for split in splits for row in ask(engine.bank(split.bank), split.held)]
    return told


def settings(folder: str, weight: float) -> Settings:
    told: dict[str, Any] = {"folder": folder, "worker": {"background": False}, "recall": {"importance": weight}}
    return Settings.model_validate(told)


# The report


def show(told: Sequence[Told], weights: Sequence[float]) -> None:
    shared = [np.array(one.shared) for one in told]
    every = np.concatenate(shared)
    print(f"\n{len(every)} questions held out, {every.mean():.0%} of which share evidence with lived ones; "
          f"{sum(one.scores for one in told)} scores")
    for name, kept in (("all", [np.ones_like(s) for s in shared]), ("shared", shared), ("others", [~s for s in shared])):
        if any(k.any() for k in kept):
            table(f"{name}: weight", {f"{weight:g}": row(told, weight, kept) for weight in weights})


def row(told: Sequence[Told], weight: float, kept: Sequence[npt.NDArray[np.bool_]]) -> dict[str, str]:
    """With weight 0 the figures themselves, else by how much they move."""
    base, now = rows_of(told, 0.0, kept), rows_of(told, weight, kept)
    drawn = draws([int(k.sum()) for k in kept])
    apart = now - base if weight else base
    sign = "+" if weight else ""
    moved = float((now != base).any(axis=1).mean())
    figures = {name: mean(apart[:, n], drawn).told(sign=sign) for n, name in ((1, "MRR"), (0, "R@10"))}
    return figures | {"questions moved": f"{moved:.0%}"}


def rows_of(told: Sequence[Told], weight: float, kept: Sequence[npt.NDArray[np.bool_]]) -> Rows:
    return np.concatenate([np.array(one.rows[weight])[k] for one, k in zip(told, kept, strict=True)])


def weights_of(text: str) -> list[float]:
    return sorted({0.0, *(float(part) for part in text.split(","))})


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="locomo10.json, or any file of that shape")
    parser.add_argument("--conversations", default="all", help='by position, such as "0-1,4"; default: all')
    parser.add_argument("--weights", type=weights_of, default="0.05,0.1,0.2,0.4", help="of recall.importance")
    parser.add_argument("--splits", type=int, default=3, help="of the questions; default: 3")
    parser.add_argument("--vectors", type=Path, help="keep the vectors in this .npz file, for the next run")
    parser.add_argument("--out", type=Path, help="write what was found of each question to this .json file")
    options = parser.parse_args()
    if options.splits < 1:
        parser.error("--splits is 1 or more")
    return options


def main() -> None:
    options = parsed()
    conversations, answers = chosen(read(options.data), options.conversations), answers_in(options.data)
    os.environ.update(QUIET)
    forbid_network()
    encode, told = Vectors(options.vectors), list[Told]()
    for conversation in conversations:
        begun = time.perf_counter()
        told.append(experience(conversation, answers, options.splits, options.weights, encode))
        print(f"{conversation.name}: {len(told[-1].shared)} questions, {time.perf_counter() - begun:.0f} s", flush=True)
    encode.save()
    show(told, options.weights)
    if options.out:
        found = {one.name: {"shared": t.shared, "rows": t.rows} for one, t in zip(conversations, told, strict=True)}
        options.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
