"""Does the value that is valid now come above every outdated one? Before consolidation, and after.

    python -m benchmarks.freshness --data factcon.json

The data are FactConsolidation's, single hop (MIT; MemoryAgentBench on the hub of Hugging Face, source factconsolidation_sh_6k and
_32k): numbered facts of which a later one supersedes an earlier one. The consolidator is a stand-in that knows the data: it
updates what a fact supersedes, where it is shown that, and makes an observation of every other. So what is measured is what the
engine makes of good decisions. The model is all-MiniLM-L6-v2.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from consolidator import blocking
from consolidator.config import Settings
from consolidator.models import Hit
from consolidator.proposals import Action, Batch, Proposal

BEGIN, A_SESSION, TOP = datetime(2024, 1, 1, tzinfo=UTC), 50, 20
FORMERLY = " It used to be said: "
SINGLE_HOP = "factconsolidation_sh_"
COVERED = 0.3  # of a head's words that a question has to have


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    text: str
    valid: int  # which fact answers it
    outdated: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    name: str
    facts: list[str]
    questions: list[Question]
    heads: Mapping[int, str]  # how each fact begins that supersedes, or is superseded


def sample_of(raw: Mapping[str, Any]) -> Sample:
    facts = [line.split(". ", 1)[1] for line in raw["context"].splitlines() if line[:1].isdigit()]
    questions, heads = list[Question](), dict[int, str]()
    for text, answers in zip(raw["questions"], raw["answers"], strict=True):
        cover, valid, head = stated(facts, text, answers)
        alike = [n for n, fact in enumerate(facts) if head and fact.startswith(head)]
        if cover >= COVERED and len(alike) > 1:
            questions.append(Question(text=text, valid=valid, outdated=frozenset(alike) - {valid}))
            heads |= dict.fromkeys(alike, head)
    return Sample(name=raw["metadata"]["source"], facts=facts, questions=questions, heads=heads)


def stated(facts: Sequence[str], question: str, answers: Sequence[str]) -> tuple[float, int, str]:
    """The fact that ends with the answer and whose beginning the question covers best; the last of them."""
    asked, best = set(re.findall(r"\w+", question.lower())), (0.0, -1, "")
    for number, fact in enumerate(facts):
        bare = fact.rstrip(".")
        for answer in answers:
            if bare.lower().endswith(answer.lower()):
                head = bare[: len(bare) - len(answer)]
                words = set(re.findall(r"\w+", head.lower()))
                best = max(best, (len(words & asked) / max(1, len(words)), number, head))
    return best


class Replay:
    """Decides as the data say."""

    name, endpoint = "replay", ""

    def __init__(self, heads: Mapping[int, str]) -> None:
        self._heads = heads

    async def propose(self, batch: Batch) -> Proposal:
        told: dict[str, list[Any]] = {}
        for shown in batch.memories:
            number = int(str(shown.memory.metadata["fact"]))
            told.setdefault(self._heads.get(number, f"fact {number}"), []).append(shown)
        actions = (self._action(batch, head, shown) for head, shown in told.items())
        return Proposal(actions=tuple(actions), by=self.name, calls=1)

    def _action(self, batch: Batch, head: str, shown: Sequence[Any]) -> Action:
        text, evidence = shown[-1].memory.text, tuple(s.alias for s in shown)
        known = next((c for c in batch.candidates if c.observation.text.startswith(head)), None)
        fields = {"evidence": evidence, "confidence": 0.9, "reason": "told"}
        if known is None:
            return Action.model_validate({"op": "create", "text": text, **fields})
        old = known.observation.text.split(FORMERLY)[0]
        change = {"op": "update", "change": "state_change", "observation": known.alias, "text": f"{text}{FORMERLY}{old}"}
        return Action.model_validate({**change, **fields})

    async def close(self) -> None:
        return None


def retain(bank: blocking.Bank, facts: Sequence[str]) -> dict[str, int]:
    """The number of each memory's fact."""
    told: dict[str, int] = {}
    for start in range(0, len(facts), A_SESSION):
        items = [
            {"text": fact, "occurred_at": BEGIN + timedelta(minutes=n), "sequence": n - start, "metadata": {"fact": n}}
            for n, fact in enumerate(facts[start : start + A_SESSION], start=start)
        ]
        kept = bank.retain(items, source=f"session-{start // A_SESSION}", speaker="user")
        told |= {memory.id: int(str(memory.metadata["fact"])) for memory in kept.memories}
    return told


def fresh(bank: blocking.Bank, sample: Sample, fact_of: Mapping[str, int], kinds: Sequence[str]) -> Iterator[bool]:
    def facts(hit: Hit) -> list[int]:
        return [fact_of[hit.id]] if hit.kind == "memory" else [fact_of[e.memory_id] for e in hit.evidence]

    for question in sample.questions:
        ranked = [n for hit in bank.recall(question.text, top_k=TOP, kinds=kinds) for n in facts(hit)]
        place = {n: at for at, n in reversed(list(enumerate(ranked)))}
        yield place.get(question.valid, TOP * 100) < min(place.get(n, TOP * 100) for n in question.outdated)


def measured(sample: Sample) -> tuple[list[bool], list[bool]]:
    with tempfile.TemporaryDirectory() as folder:
        told = {"folder": f"{folder}/memory", "worker": {"background": False}, "consolidation": {"deletes_day": 100_000}}
        with blocking.connect(settings=Settings.model_validate(told), proposer=Replay(sample.heads)) as engine:
            bank = engine.bank("bank")
            fact_of = retain(bank, sample.facts)
            before = list(fresh(bank, sample, fact_of, ["memory"]))
            assert not bank.consolidate().left
            return before, list(fresh(bank, sample, fact_of, ["memory", "observation"]))


def main() -> None:
    parser = argparse.ArgumentParser(description="The valid value above every outdated one, on FactConsolidation.")
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="FactConsolidation as JSON: samples, single hop")
    told = parser.parse_args()
    every: tuple[list[bool], list[bool]] = [], []
    for path in told.data:
        raw = json.loads(path.read_text(encoding="utf-8"))
        samples = map(sample_of, raw if isinstance(raw, list) else [raw])
        for sample in (sample for sample in samples if sample.name.startswith(SINGLE_HOP)):
            for total, found in zip(every, one := measured(sample), strict=True):
                total += found
            told_of = (f"{statistics.fmean(found):.3f}" for found in one)
            print(f"{sample.name}: {len(sample.questions)} questions, before {' after '.join(told_of)}", flush=True)
    print(f"all: before {statistics.fmean(every[0]):.3f}, after {statistics.fmean(every[1]):.3f}")


if __name__ == "__main__":
    main()
