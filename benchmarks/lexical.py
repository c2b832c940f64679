"""Does the lexical scorer of importance put the memory that an answer rests on first, and what does it cost? No model, no store.

    python -m benchmarks.lexical --data locomo10.json
    python -m benchmarks.lexical --data locomo10.json --conversations 0-1 --shown 30 --seeds 1-5

The data are LoCoMo's: github.com/snap-research/locomo, data/locomo10.json (CC BY-NC 4.0, so it is not in this repository).
A question of the categories 1 to 4 with one turn for evidence is asked with that turn and others of its conversation, drawn at
random, in view; the answer is LoCoMo's own. Each memory is left out by itself; ties count by expectation.

bank     the words of all turns of the conversation for a background; context: of those in view alone; order: chance
[a, b]   95 % intervals, by resampling conversations, and questions within them
levels   buckets first, and then the members of the best two, against each memory by itself
time     to score 20 memories with one exchange, the best of 3, their words split anew each time, the background known
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.locomo import Conversation, Turn, chosen, read
from consolidator.divergence import buckets, opened, together
from consolidator.lexical import LEXICAL_UNIT, Background, divergences
from consolidator.transcripts import Group

ROUNDS = 1000
TIMED = 20  # memories
REPEATS = 200
WIDE, KEEP = 30, 2  # memories in view, and buckets opened, where two levels are compared with all

Draw = list[tuple[float, float]]  # of each question: first, and the reciprocal of the rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    query: str
    response: str
    evidence: str
    turns: list[Turn]  # of its conversation
    background: Background


def told(turn: Turn) -> str:
    return f"[{turn.at:%d %B %Y}] {turn.shown}"


def exchanges_of(conversation: Conversation, answers: dict[str, str]) -> list[Exchange]:
    background = Background.of(map(told, conversation.turns))
    return [
        Exchange(
            query=question.text, response=answers[question.id], evidence=next(iter(question.evidence)),
            turns=conversation.turns, background=background,
        )
        for question in conversation.questions
        if question.category != "adversarial" and len(question.evidence) == 1 and question.id in answers
    ]


def answers_in(path: Path) -> dict[str, str]:
    samples = json.loads(path.read_text(encoding="utf-8"))
    asked = [(f"{s['sample_id']}/{n}", qa) for s in (samples if isinstance(samples, list) else [samples])
             for n, qa in enumerate(s["qa"])]
    return {id: str(qa["answer"]) for id, qa in asked if len(qa["evidence"]) == 1 and "answer" in qa}


def in_view(exchange: Exchange, shown: int, dice: random.Random) -> dict[str, str]:
    evidence = next(turn for turn in exchange.turns if turn.id == exchange.evidence)
    others = dice.sample([turn for turn in exchange.turns if turn is not evidence], shown - 1)
    turns = [evidence, *others]
    dice.shuffle(turns)
    return {turn.id: told(turn) for turn in turns}


def alone(items: Iterator[str]) -> list[Group]:
    return [Group(items=(item,)) for item in items]


def judged(exchange: Exchange, shown: dict[str, str], background: Background | None) -> tuple[float, float]:
    values = divergences(exchange.query, exchange.response, shown, alone(iter(shown)), background)
    own = values[list(shown).index(exchange.evidence)]
    above, tied = sum(value > own for value in values), sum(value == own for value in values)
    ranks = range(above + 1, above + tied + 1)
    return (1 / tied if not above else 0.0), statistics.fmean(1 / rank for rank in ranks)


def interval(draws: Sequence[Draw], which: int, dice: random.Random) -> tuple[float, float, float]:
    """The mean over the questions of all conversations, and where 95 % of resampled ones lie."""
    means = []
    for _ in range(ROUNDS):
        sample = [pair[which] for draw in dice.choices(draws, k=len(draws)) for pair in dice.choices(draw, k=len(draw))]
        means.append(statistics.fmean(sample))
    means.sort()
    value = statistics.fmean(pair[which] for draw in draws for pair in draw)
    return value, means[round(0.025 * ROUNDS)], means[round(0.975 * ROUNDS) - 1]


def measured(asked: Sequence[Sequence[Exchange]], seeds: Sequence[int], shown: int, bank: bool) -> list[Draw]:
    """For each conversation a draw, the mean over the seeds of each of its questions."""
    draws = []
    for exchanges in asked:
        found = []
        for exchange in exchanges:
            views = [in_view(exchange, shown, random.Random(f"{seed} {exchange.query}")) for seed in seeds]
            pairs = [judged(exchange, view, exchange.background if bank else None) for view in views]
            found.append((statistics.fmean(first for first, _ in pairs), statistics.fmean(rank for _, rank in pairs)))
        draws.append(found)
    return draws


def found_in_two_levels(exchange: Exchange, view: dict[str, str], groups: list[Group]) -> tuple[str, int]:
    """The most important memory by buckets first, then the members of the best two; and how many prompts a model would get."""

    def values(asked: Sequence[Group]) -> list[float]:
        return divergences(exchange.query, exchange.response, view, asked, exchange.background)

    dealt = buckets(groups, KEEP)
    members = [group for place in opened(values([together(bucket) for bucket in dealt]), KEEP) for group in dealt[place]]
    best = max(zip(values(members), members, strict=True), key=lambda pair: (pair[0], pair[1].id))
    return best[1].id, 1 + len(dealt) + len(members)


def agreement(asked: Sequence[Exchange], shown: int, seeds: Sequence[int]) -> tuple[float, int]:
    """How often two levels name the memory that the full matrix names, and the most prompts that they took."""
    same, prompts = [], 0
    for exchange in asked:
        for seed in seeds:
            view = in_view(exchange, shown, random.Random(f"{seed} {exchange.query}"))
            groups = alone(iter(view))
            values = divergences(exchange.query, exchange.response, view, groups, exchange.background)
            exact = max(zip(values, groups, strict=True), key=lambda pair: (pair[0], pair[1].id))[1].id
            found, sent = found_in_two_levels(exchange, view, groups)
            same.append(found == exact)
            prompts = max(prompts, sent)
    return statistics.fmean(same), prompts


def milliseconds(asked: Sequence[Exchange], dice: random.Random) -> list[float]:
    taken = []
    for exchange in dice.choices(asked, k=REPEATS):
        view = in_view(exchange, TIMED, dice)
        groups = alone(iter(view))
        taken.append(min(timed(exchange, view, groups) for _ in range(3)))  # whatever else the machine does is not meant
    return sorted(taken)


def timed(exchange: Exchange, view: dict[str, str], groups: list[Group]) -> float:
    begun = time.perf_counter()
    divergences(exchange.query, exchange.response, view, groups, exchange.background)
    return 1000 * (time.perf_counter() - begun)


def seeds_of(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The lexical scorer of importance on LoCoMo.")
    parser.add_argument("--data", type=Path, required=True, help="LoCoMo's locomo10.json")
    parser.add_argument("--conversations", default="all", help='by position, such as "0-1,4"; default: all')
    parser.add_argument("--shown", type=int, default=10, help="memories in view, the evidence among them; default: 10")
    parser.add_argument("--seeds", type=seeds_of, default="1-3", help="of what is in view; default: 1-3")
    parser.add_argument("--out", type=Path, help="write the figures to this .json file")
    told = parser.parse_args()
    if told.shown < 2:
        parser.error("--shown is 2 or more")
    return told


def main() -> None:
    told = parsed()
    answers = answers_in(told.data)
    asked = [exchanges_of(conversation, answers) for conversation in chosen(read(told.data), told.conversations)]
    number = sum(map(len, asked))
    print(f"{LEXICAL_UNIT}: {number} questions of {len(asked)} conversations, {told.shown} in view, seeds {told.seeds}\n")
    report: dict[str, object] = {"unit": LEXICAL_UNIT, "n": number, "shown": told.shown, "seeds": told.seeds}
    for name, bank in (("bank", True), ("context", False)):
        draws = measured(asked, told.seeds, told.shown, bank)
        first, mrr = (interval(draws, which, random.Random(0)) for which in (0, 1))
        report[name] = {"top-1": first, "MRR": mrr}
        print(f"{name:8s} top-1 {first[0]:.3f} [{first[1]:.3f}, {first[2]:.3f}]   MRR {mrr[0]:.3f} [{mrr[1]:.3f}, {mrr[2]:.3f}]")
    chance = statistics.fmean(1 / rank for rank in range(1, told.shown + 1))
    print(f"{'order':8s} top-1 {1 / told.shown:.3f}                  MRR {chance:.3f}")
    every = [exchange for exchanges in asked for exchange in exchanges]
    same, prompts = agreement(every, WIDE, told.seeds)
    report["two levels"] = {"same first": same, "prompts": prompts, "shown": WIDE}
    print(f"\ntwo levels, {WIDE} in view: the same memory first in {same:.1%}, {prompts} prompts for {WIDE + 1}")
    taken = milliseconds(every, random.Random(0))
    report["milliseconds"] = {"median": taken[REPEATS // 2], "p95": taken[round(0.95 * REPEATS)]}
    print(f"\n{TIMED} memories: median {taken[REPEATS // 2]:.2f} ms, 95 % within {taken[round(0.95 * REPEATS)]:.2f} ms")
    if told.out:
        told.out.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
