"""Consolidation against a known truth: a model that replays gold observations, and answers badly one time in five.

    python benchmarks/replay.py GOLD.jsonl                     batches of 1, 3 and 8; faults; kills; several banks at once
    python benchmarks/replay.py GOLD.jsonl --quick             batches of 8 alone

GOLD.jsonl has a line for each bank: {"bank", "items": [{"id", "text", "speaker", "source", "occurred_at"}],
"observations": [{"text", "evidence": [item ids]}]}. What comes out is measured without a language model:

valid     share of observations whose evidence is not empty and lies in the bank
gold_f1   of gold observations found and of observations that match one: a shared source, and cosine >= 0.6
dup@0.92  share of observations that are near-duplicates of others
lost      memories that are neither cited nor declared, or not there; fsck: violations it finds
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from consolidator.config import Settings
from consolidator.engine import Engine, connect
from consolidator.errors import ModelBusy, ModelTooLong, ModelUnavailable
from consolidator.models import Vector
from consolidator.ports import Completion, Embedder, Message
from consolidator.proposing import ModelProposer
from consolidator.registry import open_embedder

FAULTS = ("down", "busy", "long", "broken", "cut", "alias", "twice", "forgotten", "nan", "wordy")
DRAFTED = 4  # of so many gold observations one is first written shorter, and updated later


@dataclass(frozen=True, slots=True)
class Gold:
    bank: str
    items: list[dict[str, Any]]
    observations: list[dict[str, Any]]

    def told(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Gold observations by the speaker and text of their last evidence."""
        by_id = {item["id"]: n for n, item in enumerate(self.items)}
        told: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for observation in self.observations:
            last = self.items[max(by_id[id] for id in observation["evidence"])]
            told.setdefault((last["speaker"], last["text"]), []).append(observation)
        return told


@dataclass(slots=True)
class Timed:
    """The embedder of all runs, with the seconds that it took."""

    embedder: Embedder
    name: str
    dimension: int
    seconds: float = 0.0

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        begun = time.perf_counter()
        try:
            return await self.embedder.embed(texts)
        finally:
            self.seconds += time.perf_counter() - begun

    async def forget(self, texts: Sequence[str]) -> None:
        await self.embedder.forget(texts)

    async def close(self) -> None:
        """It outlives a run."""


@dataclass(slots=True)
class ReplayModel:
    """Answers a prompt with the gold observations that its memories are the evidence of; by lot with a fault instead."""

    gold: list[Gold]
    faults: float
    seed: int
    name: str = "replay"
    endpoint: str = ""
    seconds: float = 0.0
    spent: Counter[str] = field(default_factory=Counter)
    told: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)  # by their drafts

    def __post_init__(self) -> None:
        for gold in self.gold:
            self.told |= gold.told()
            self.whole |= {draft(o["text"]): o["text"] for o in gold.observations if draft(o["text"]) != o["text"]}

    async def complete(self, messages: Sequence[Message], *, schema: Mapping[str, Any], max_tokens: int) -> Completion:
        begun = time.perf_counter()
        try:
            text = self._answer(messages)
        finally:
            self.seconds += time.perf_counter() - begun
        size = sum(len(m.content) for m in messages) // 4
        return Completion(text=text, model=self.name, prompt_tokens=size, reply_tokens=len(text) // 4)

    def _answer(self, messages: Sequence[Message]) -> str:
        asked = "".join(m.content for m in messages)
        self.spent[key := hashlib.sha256(asked.encode()).hexdigest()] += 1
        lot = random.Random(f"{self.seed} {key} {self.spent[key]}")
        rows = [json.loads(line) for line in messages[1].content.splitlines() if line.startswith('{"id"')]
        reply = self._sound(rows)
        return spoilt(reply, lot.choice(FAULTS)) if lot.random() < self.faults else json.dumps(reply)

    def _sound(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        held = {row["text"]: row["id"] for row in rows if row["id"].startswith("o")}
        actions: list[dict[str, Any]] = []
        used: set[str] = set()
        memories = [row for row in rows if row["id"].startswith("m")]
        for row in memories:
            for gold in self.told.get((row.get("speaker", ""), row["text"]), []):
                if gold["text"] in held:  # after a rollback or a repeated pass: the same again
                    target = held[gold["text"]]
                    if target not in used:
                        used.add(target)
                        actions.append(action("update", gold["text"], row["id"], target))
                else:
                    actions.append(action("create", draft(gold["text"]), row["id"]))
        cited = {alias for a in actions for alias in a["evidence"]}
        idle = [row["id"] for row in memories if row["id"] not in cited]
        for text, target in held.items():
            whole = self.whole.get(text)
            if whole and idle and target not in used:
                actions.append(action("update", whole, idle.pop(), target))
        cited = {alias for a in actions for alias in a["evidence"]}
        nothing = [{"memory": row["id"], "reason": "small talk"} for row in memories if row["id"] not in cited]
        return {"actions": actions[: len(memories) + 4], "nothing_durable": nothing}

    async def close(self) -> None:
        pass


def draft(text: str) -> str:
    """Every fourth one loses its last word at first."""
    chosen = int(hashlib.sha256(text.encode()).hexdigest(), 16) % DRAFTED == 0
    return text.rsplit(" ", 1)[0].rstrip(",;") + "." if chosen and len(text.split()) > 6 else text


def action(op: str, text: str, memory: str, target: str | None = None) -> dict[str, Any]:
    change = "refine" if op == "update" else None
    told = {"reason": "told", "op": op, "observation": target, "change": change}
    return {**told, "text": text, "confidence": 0.8, "evidence": [memory]}


def spoilt(reply: dict[str, Any], fault: str) -> str:
    """A reply as failing models give it. Raises what failing servers raise."""
    errors = {"down": ModelUnavailable("down"), "busy": ModelBusy(after=0.001), "long": ModelTooLong("too long")}
    if fault in errors:
        raise errors[fault]
    text, actions = json.dumps(reply), reply["actions"]
    if fault == "broken":
        return text.replace('"', "'")
    if fault == "cut":
        return text[: len(text) // 2]
    if fault == "forgotten":
        return json.dumps({"actions": actions[1:], "nothing_durable": reply["nothing_durable"][1:]})
    for first in actions[:1]:
        match fault:
            case "alias":
                first["evidence"] = ["m99"]
            case "nan":
                first["confidence"] = float("nan")
            case "wordy":
                first["text"] += " and so on" * 20
            case "twice" if first["observation"]:
                actions.append(dict(first))
    return json.dumps(reply)


def settings_of(folder: Path, case: Case) -> Settings:
    at_once = 4 if case.faults else 1  # one after the other, where time is measured
    worker = {"background": False, "backoff": 0.001, "longest": 0.001, "at_once": at_once}
    return Settings.model_validate({
        "folder": folder, "worker": worker, "consolidation": {"batch": case.batch, "attempts": 50},
        "model": {"breaker": {"failures": 1000, "share": 1.1}},
    })


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    batch: int
    faults: float
    kills: int
    seed: int = 1


def opened(folder: Path, case: Case, model: ReplayModel, embedder: Embedder | None) -> Any:
    return connect(settings=settings_of(folder, case), embedder=embedder, proposer=ModelProposer(model))


async def fill(engine: Engine, gold: list[Gold]) -> None:
    for one in gold:
        items = [
            {**item, "occurred_at": datetime.fromisoformat(item["occurred_at"]), "sequence": n, "metadata": {"item": item["id"]}}
            for n, item in enumerate(one.items)
        ]
        for start in range(0, len(items), 64):
            fields = ("text", "speaker", "source", "occurred_at", "sequence", "metadata")
            await engine.bank(one.bank).retain([{key: item[key] for key in fields} for item in items[start : start + 64]])


async def drain(engine: Engine) -> None:
    while await engine.drain():
        pass


def live(path: Path, folder: Path, case: Case) -> None:
    """A child's life: drain, and die at a random moment."""
    model = ReplayModel(read(path), case.faults, case.seed)

    async def work() -> None:
        async with opened(folder, case, model, None) as engine:
            seconds = random.Random(case.seed).uniform(0.2, 4.0)
            asyncio.get_running_loop().call_later(seconds, os.kill, os.getpid(), signal.SIGKILL)
            await drain(engine)

    asyncio.run(work())


async def killed(path: Path, folder: Path, case: Case) -> int:
    """Children that die; returns how many did before the work was done."""
    deaths = 0
    for n in range(case.kills):
        told = json.dumps({"batch": case.batch, "faults": case.faults, "kills": 0, "seed": case.seed + n})
        command = [sys.executable, __file__, str(path), "--child", str(folder), "--case", told]
        child = await asyncio.create_subprocess_exec(*command)
        if await child.wait() == 0:
            break
        deaths += 1
    return deaths


async def run(path: Path, gold: list[Gold], case: Case, embedder: Timed) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "memory"
        model = ReplayModel(gold, case.faults, case.seed)
        async with opened(folder, case, model, embedder) as engine:
            await fill(engine, gold)
        deaths = await killed(path, folder, case) if case.kills else 0
        async with opened(folder, case, model, embedder) as engine:
            begun, embedded = time.perf_counter(), embedder.seconds
            await drain(engine)
            seconds = time.perf_counter() - begun - model.seconds - (embedder.seconds - embedded)
            told = [await measured(engine, one, embedder) for one in gold]
            stats = [await engine.bank(one.bank).stats() for one in gold]
    memories = sum(len(one.items) for one in gold)
    means = {key: sum(row[key] for row in told) / len(told) for key in ("valid", "gold_f1", "dup@0.92")}
    sums = {key: sum(row[key] for row in told) for key in ("observations", "lost", "fsck")}
    calls, tokens = sum(s.model_calls for s in stats), sum(s.prompt_tokens for s in stats)
    whole = {"memories/s": memories / seconds} if not case.faults else {}
    cost = {"calls/100": 100 * calls / memories, "tokens/memory": tokens / memories}
    return {"batch": case.batch, "faults": case.faults, "kills": deaths, **means, **sums, **cost, **whole}


async def measured(engine: Engine, gold: Gold, embed: Embedder) -> dict[str, float]:
    import numpy as np

    bank = engine.bank(gold.bank)
    item_of = {m.id: str(m.metadata["item"]) for m in await bank.memories()}
    made = await bank.observations()
    sources = [{item_of[e.memory_id] for e in o.evidence if e.memory_id in item_of} for o in made]
    ours = np.array(await embed.embed([o.text for o in made]))
    theirs = np.array(await embed.embed([o["text"] for o in gold.observations]))
    shared = np.array([[bool(mine & set(g["evidence"])) for g in gold.observations] for mine in sources])
    match = shared & (ours @ theirs.T >= 0.6)
    cover, precise = match.any(0).mean(), match.any(1).mean()
    near = np.triu(ours @ ours.T, 1) >= 0.92
    journal = await bank.journal(limit=100_000)
    seen = {memory for entry in journal for memory in entry.cites}
    valid = sum(bool(s) and len(s) == len(o.evidence) for s, o in zip(sources, made, strict=True))
    lost = len(gold.items) - len(item_of) + len(item_of.keys() - seen)
    return {
        "observations": len(made), "valid": valid / len(made), "gold_f1": float(2 * cover * precise / (cover + precise)),
        "dup@0.92": float(near.any(0).mean()), "lost": lost, "fsck": len(await bank.check()),
    }


def read(path: Path) -> list[Gold]:
    return [Gold(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gold", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.child:
        return live(told.gold, told.child, Case(**json.loads(told.case)))
    gold = read(told.gold)
    sizes = (8,) if told.quick else (8, 3, 1)
    cases = [Case(batch=b, faults=f, kills=k) for b in sizes for f, k in ((0.0, 0), (0.2, 0), (0.2, 12))]
    asyncio.run(report(told.gold, gold, cases))


async def report(path: Path, gold: list[Gold], cases: list[Case]) -> None:
    opened = await open_embedder(Settings.model_validate({"embedder": {"cache": False}}))
    embedder = Timed(opened, opened.name, opened.dimension)
    for n, case in enumerate(cases):
        row = await run(path, gold, case, embedder)
        if not n:
            print(f"| {' | '.join(row)} |\n" + "|---" * len(row) + "|")
        print(f"| {' | '.join(f'{value:.3g}' for value in row.values())} |", flush=True)


if __name__ == "__main__":
    main()
