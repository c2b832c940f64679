"""Do the weights of recall sit on a plateau, and do they carry over? What each part is worth, and the weights tuned anew.

    python -m benchmarks.tune --data locomo10.json --conversations 0-4 --vectors vectors.npz
    python -m benchmarks.tune --data locomo10.json --conversations 0-4 --weights dense=0.6,words=0.4 --vectors vectors.npz

No formula is written down here. The engine recalls with the weights that it ships, or with those of --weights, and explains
every hit; a part of a score, a leg or a term, is then made larger or smaller by a factor, and the hits are sorted again. So a
factor of 1 is what ships, 0 is without that part, and a term that ships with weight 0 is not seen. A factor on a leg leaves
what neighbours and session inherit from it as it is: to move the fusion as a whole, give other weights and compare.

Goal: 0.6 of the mean of R@5, R@10 and R@20, 0.25 of MRR, 0.15 of the adversarial questions' R@10.
Tuned: coordinate ascent on the goal from what ships, a factor moving only where that gains more than a thousandth.
Held: each conversation under the factors that were tuned on all the others. If it does not beat what ships, leave it alone.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from benchmarks.locomo import Conversation, Question, Turn, chosen, read
from benchmarks.retrieval import QUIET, Draws, Vectors, draws, forbid_network, mean, table
from benchmarks.systems import BANK, Shared
from consolidator import blocking
from consolidator.config import Settings
from consolidator.models import Explanation, Hit
from consolidator.ranking import RecallWeights

FACTORS = (0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
DEEP = 100  # hits explained; no factor brings up what lies below
GAIN = 0.001
PASSES = 4
CUTS = (5, 10, 20)
MRR, ADVERSE = 3, 4  # columns of what is measured, after the cuts

Numbers = npt.NDArray[np.float64]
Factors = dict[str, float]


# What the engine found, taken apart


def parts_of(explanation: Explanation) -> dict[str, float]:
    """The addends of a hit's base score, by name."""
    parts = {leg.leg.rsplit(".", 1)[-1]: leg.share for leg in explanation.legs}
    for term in explanation.terms:
        name = "about a speaker" if term.name.startswith("about ") else term.name
        parts[name] = parts.get(name, 0.0) + term.share
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question with its hits: their parts, and which of them are evidence."""

    conversation: int
    adverse: bool
    wanted: int
    parts: list[dict[str, float]]
    right: list[bool]


def ask(encode: Vectors, conversations: Sequence[Conversation], weights: RecallWeights) -> list[Asked]:
    asked: list[Asked] = []
    for number, conversation in enumerate(conversations):
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings.model_validate({"folder": folder, "worker": {"background": False}, "recall": weights})
            with blocking.connect(settings=settings, embedder=Shared(encode)) as engine:
                bank = engine.bank(BANK)
                for session in conversation.sessions:
                    bank.retain([fields(turn) for turn in session], source=f"session-{session[0].session}")
                for question in conversation.questions:
                    hits = bank.recall(question.text, top_k=DEEP, kinds=["memory"], explain=True)
                    asked.append(answer(number, question, hits))
        print(f"{conversation.name}: {len(conversation.questions)} questions", flush=True)
    return asked


def fields(turn: Turn) -> dict[str, object]:
    told = {"text": turn.text, "speaker": turn.speaker, "sequence": turn.position, "occurred_at": turn.at}
    return told | {"metadata": {"turn": turn.id}}


def answer(conversation: int, question: Question, hits: Sequence[Hit]) -> Asked:
    explained = [(hit, hit.explanation) for hit in hits if hit.explanation is not None]
    return Asked(
        conversation=conversation, adverse=question.category == "adversarial", wanted=len(question.evidence),
        parts=[parts_of(explanation) for _, explanation in explained],
        right=[hit.metadata["turn"] in question.evidence for hit, _ in explained],
    )


class Sheet:
    """As arrays: shares [questions, hits, parts] and right [questions, hits]; hits that are not there count nothing."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self.names = sorted({name for one in asked for parts in one.parts for name in parts})
        self.conversation = np.array([one.conversation for one in asked])
        self.adverse = np.array([one.adverse for one in asked])
        self._wanted = np.array([one.wanted for one in asked], float)
        self._shares = np.zeros((len(asked), DEEP, len(self.names)))
        self._right = np.zeros((len(asked), DEEP), bool)
        self._there = np.zeros((len(asked), DEEP), bool)
        for row, one in enumerate(asked):
            for column, parts in enumerate(one.parts):
                self._shares[row, column] = [parts.get(name, 0.0) for name in self.names]
            self._right[row, : len(one.right)] = one.right
            self._there[row, : len(one.right)] = True
        self._known: dict[tuple[float, ...], Numbers] = {}

    def rows(self, factors: Factors) -> Numbers:
        """[questions, (R@5, R@10, R@20, MRR)] with each part multiplied by its factor, 1 where it has none."""
        by = tuple(factors.get(name, 1.0) for name in self.names)
        if by not in self._known:
            self._known[by] = self._measured(np.array(by))
        return self._known[by]

    def _measured(self, by: Numbers) -> Numbers:
        scores = np.where(self._there, self._shares @ by, -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : max(CUTS)]
        right = np.take_along_axis(self._right, order, axis=1)
        found = np.cumsum(right, axis=1)
        recall = [found[:, min(cut, found.shape[1]) - 1] / self._wanted for cut in CUTS]
        first = np.where(right.any(axis=1), 1 / (1 + right.argmax(axis=1)), 0.0)
        return np.column_stack([*recall, first])

    def figures(self, rows: Numbers, kept: npt.NDArray[np.bool_] | None = None) -> Numbers:
        """(R@5, R@10, R@20, MRR, adversarial R@10), the mean over the questions that are kept."""
        kept = np.ones(len(rows), bool) if kept is None else kept
        main, adverse = rows[kept & ~self.adverse], rows[kept & self.adverse]
        last = adverse[:, 1].mean() if len(adverse) else 0.0
        return np.array([*(main.mean(axis=0) if len(main) else np.zeros(4)), last])


# Tuning


def goal(figures: Numbers) -> float:
    return float(0.6 * figures[: len(CUTS)].mean() + 0.25 * figures[MRR] + 0.15 * figures[ADVERSE])


def tuned(sheet: Sheet, kept: npt.NDArray[np.bool_]) -> Factors:
    """Coordinate ascent from what ships. Returns the factors that moved."""
    factors: Factors = {}
    best = goal(sheet.figures(sheet.rows(factors), kept))
    for _ in range(PASSES):
        before = dict(factors)
        for name in sheet.names:
            factors, best = better(sheet, kept, factors, name, best)
        if factors == before:
            break
    return {name: factor for name, factor in factors.items() if factor != 1}


def better(
    sheet: Sheet, kept: npt.NDArray[np.bool_], factors: Factors, name: str, best: float
) -> tuple[Factors, float]:
    """The best factor of one part, the others as they are."""
    tried = [factors | {name: factor} for factor in FACTORS]
    reached = [goal(sheet.figures(sheet.rows(one), kept)) for one in tried]
    top = int(np.argmax(reached))
    return (tried[top], reached[top]) if reached[top] > best + GAIN else (factors, best)


def held_out(sheet: Sheet, names: Sequence[str]) -> tuple[dict[str, Factors], Numbers]:
    """By conversation the factors tuned on the others, and the rows of all questions when held out."""
    rows, chosen_by = sheet.rows({}).copy(), {}
    for number, name in enumerate(names):
        mine = sheet.conversation == number
        chosen_by[name] = tuned(sheet, ~mine)
        rows[mine] = sheet.rows(chosen_by[name])[mine]
    return chosen_by, rows


# The report


HEADS = ("R@5", "R@10", "R@20", "MRR", "adversarial R@10")


def told(figures: Numbers, sign: str = "") -> dict[str, str]:
    return {head: f"{value:{sign}.3f}" for head, value in zip(HEADS, figures, strict=True)}


def moved(factors: Factors) -> str:
    return ", ".join(f"{name} x {factor:g}" for name, factor in factors.items()) or "as shipped"


def show(sheet: Sheet, names: Sequence[str]) -> None:
    shipped, everything = sheet.rows({}), np.ones(len(sheet.adverse), bool)
    drawn = draws([int((sheet.conversation[~sheet.adverse] == n).sum()) for n in range(len(names))])
    table("without", {name: worth(sheet, name, drawn) for name in sheet.names})
    table("R@10 / MRR / adversarial", {name: plateau(sheet, name) for name in sheet.names})
    rows = {"as shipped": told(sheet.figures(shipped))}
    best = tuned(sheet, everything)
    rows[f"tuned on all: {moved(best)}"] = told(sheet.figures(sheet.rows(best)))
    if len(names) > 1:
        left_out, held = held_out(sheet, names)
        rows["each conversation tuned on the others"] = told(sheet.figures(held))
        for number, name in enumerate(names):
            mine = sheet.conversation == number
            gained = sheet.figures(held, mine) - sheet.figures(shipped, mine)
            rows[f"{name} minus shipped: {moved(left_out[name])}"] = told(gained, "+")
    table("goal", rows)


def worth(sheet: Sheet, name: str, drawn: Draws) -> dict[str, str]:
    """What is lost without a part, with its paired interval."""
    apart = (sheet.rows({name: 0.0}) - sheet.rows({}))[~sheet.adverse]
    columns = {head: mean(apart[:, n], drawn).told(sign="+") for n, head in enumerate(HEADS[:ADVERSE])}
    lost = sheet.figures(sheet.rows({name: 0.0}))[ADVERSE] - sheet.figures(sheet.rows({}))[ADVERSE]
    return columns | {HEADS[ADVERSE]: f"{lost:+.3f}"}


def plateau(sheet: Sheet, name: str) -> dict[str, str]:
    shipped = sheet.figures(sheet.rows({}))
    apart = {factor: sheet.figures(sheet.rows({name: factor})) - shipped for factor in FACTORS}
    return {f"x {factor:g}": " ".join(f"{d[n]:+.3f}" for n in (1, MRR, ADVERSE)) for factor, d in apart.items()}


def weights_of(text: str) -> RecallWeights:
    """ "dense=0.6,words=0.4" on top of what ships. Newer statements are not put first: that is no weight."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    values = {name.strip(): float(value) for name, _, value in pairs}
    if unknown := set(values) - set(RecallWeights.model_fields):
        raise ValueError(f"there is no weight {', '.join(sorted(unknown))}; there are {', '.join(RecallWeights.model_fields)}")
    return RecallWeights.model_validate(values | {"fresh": False})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="locomo10.json, or any file of that shape")
    parser.add_argument("--conversations", default="all", help="positions in the file, such as 0-4; keep the others for the end")
    parser.add_argument("--weights", default="", help="other weights than those that ship, such as dense=0.6,words=0.4")
    parser.add_argument("--vectors", type=Path, help="keep the vectors in this .npz file, for the next run")
    options = parser.parse_args()
    try:
        conversations = chosen(read(options.data), options.conversations)
        weights = weights_of(options.weights)
    except (OSError, ValueError, KeyError, ValidationError) as error:
        parser.error(str(error))
    os.environ.update(QUIET)
    forbid_network()
    encode = Vectors(options.vectors)
    sheet = Sheet(ask(encode, conversations, weights))
    encode.save()
    show(sheet, [conversation.name for conversation in conversations])


if __name__ == "__main__":
    main()
