"""Importance from end to end: a real model in the process, whose right answers are known by construction, and the engine."""

from __future__ import annotations

import importlib.util
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from consolidator.config import Settings
from consolidator.engine import Bank, Engine, connect
from consolidator.models import Memory
from consolidator.testing import HashEmbedder
from consolidator.transcripts import Matrix, Segment, Transcript, Turn

NEEDED = ("numpy", "safetensors", "tokenizers", "torch", "transformers")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    from tests.induction_model import write_model

    folder = tmp_path_factory.mktemp("models") / "induction"
    write_model(folder)
    return folder


@pytest.fixture
async def engine(tmp_path: Path, model_folder: Path) -> AsyncIterator[Engine]:
    importance = {"provider": "transformers", "model": str(model_folder), "threads": 1}
    settings = Settings.model_validate({
        "folder": tmp_path / "memory", "worker": {"background": False}, "importance": importance, "recall": {"importance": 0.2},
    })
    async with connect(settings=settings, embedder=HashEmbedder()) as engine:
        yield engine


@dataclass(frozen=True, kw_only=True)
class Story:
    """What some people like, all recalled, and an answer about one of them."""

    memories: list[Memory]
    gold: Memory
    question: str
    recorder: Any


async def tell(bank: Bank, size: int, seed: int) -> Story:
    from tests.induction_model import word_lists

    lists, draw = word_lists(), random.Random(seed)
    pairs = zip(draw.sample(lists["name"], size), draw.sample(lists["liking"], size), strict=True)
    memories = list((await bank.retain([f"{name} likes {liking}" for name, liking in pairs], source="chat")).memories)
    gold = memories[draw.randrange(size)]
    question, recorder = f"What does {gold.text.split()[0]} like?", bank.transcript(f"story-{seed}")
    assert len(await recorder.recall("Who likes what?", top_k=size)) == size
    recorder.said(question)
    recorder.answered(f"I remember: {gold.text}")
    return Story(memories=memories, gold=gold, question=question, recorder=recorder)


def by_item(matrix: Matrix) -> dict[str, float]:
    found: dict[str, float] = {}
    for group, _, cell in matrix.known():
        assert len(group.items) == 1
        assert cell.value is not None
        found[group.id] = cell.value
    return found


def assert_gold_first(matrix: Matrix, gold: Memory) -> None:
    found = by_item(matrix)
    worth = found.pop(gold.id)
    assert worth > 3.5
    assert max(map(abs, found.values()), default=0.0) < 0.3


@pytest.mark.parametrize(("size", "mode"), [(10, "matrix"), (30, "matrix"), (30, "two-level")])
async def test_the_memory_that_an_answer_rests_on_comes_first(engine: Engine, size: int, mode: Any) -> None:
    bank = engine.bank("alice")
    told = await tell(bank, size, seed=size)
    transcript = told.recorder.transcript(closed=True)
    planned = await bank.score(transcript, mode=mode, dry_run=True)
    matrix = await bank.score(transcript, mode=mode)
    assert matrix.unit.startswith("transformers/induction#")
    assert_gold_first(matrix, told.gold)
    assert matrix.prompts_sent == size + 1 if mode == "matrix" else matrix.prompts_sent <= 17
    assert planned.prompts_sent >= matrix.prompts_sent
    assert {cell.reason for row in matrix.cells for cell in row} <= ({""} if mode == "matrix" else {"", "not_opened"})


async def test_every_mode_names_the_same_winner(engine: Engine) -> None:
    bank = engine.bank("alice")
    told = await tell(bank, 14, seed=3)
    transcript = told.recorder.transcript(closed=True)
    report = await bank.score_due(transcript)
    assert (report.due, report.prompts_sent, len(report.scored)) == (14, 15, 14)
    step_by_step = {group.id: value for group, value in report.scored}
    assert max(step_by_step, key=step_by_step.__getitem__) == told.gold.id
    whole = await bank.score(transcript, mode="matrix")
    assert by_item(whole) == pytest.approx(step_by_step, abs=1e-4)
    alone = await bank.score(transcript, item=told.gold.id)
    assert alone.prompts_sent == 2
    assert by_item(alone) == pytest.approx({told.gold.id: step_by_step[told.gold.id]}, abs=1e-4)
    candidates = await bank.candidates(transcript)
    assert (candidates.above, candidates.candidates[0].response) == (1, transcript.response_id(2))


async def test_what_an_answer_rested_on_is_preferred_from_then_on(engine: Engine) -> None:
    bank = engine.bank("alice")
    told = await tell(bank, 10, seed=4)
    before = {hit.id: hit.score for hit in await bank.recall(told.question, explain=True)}
    await bank.score(told.recorder.transcript(closed=True))
    after = await bank.recall(told.question, explain=True)
    moved = {hit.id: hit.score / before[hit.id] for hit in after}
    assert max(moved, key=moved.__getitem__) == told.gold.id
    assert moved[told.gold.id] > 1.02  # one short answer: it is drawn towards the others
    assert all(share < 1 for id, share in moved.items() if id != told.gold.id)
    (mine,) = (await bank.importance(told.gold.id)).states
    assert (mine.mean, mine.maximum > 3.5, mine.updates) == (2.0, True, 1)


async def test_a_copy_masks_and_its_group_does_not(engine: Engine) -> None:
    bank = engine.bank("alice")
    told = await tell(bank, 10, seed=5)
    transcript = told.recorder.transcript(closed=True)
    shown, *rest = transcript.turns
    (copy,) = (await bank.retain(told.gold.text, source="another")).memories
    for items, worth in ((frozenset({copy.id}), "all"), (frozenset[str](), "little")):  # known as a memory, or mere words
        again = Turn(role="system", segments=(Segment(text=f"- {copy.text}", items=items),))
        matrix = await bank.score(Transcript(id=worth, turns=(shown, again, *rest), at=transcript.at), item=told.gold.id)
        ((group,), ((cell,),)) = matrix.groups, matrix.cells
        assert set(group.items) == {told.gold.id, *items}
        assert cell.value is not None
        assert cell.value > 3.5 if items else cell.value < 1.5


async def test_what_is_kept_is_scored_in_the_background(engine: Engine) -> None:
    bank = engine.bank("alice")
    told = await tell(bank, 10, seed=6)
    assert await told.recorder.keep(closed=True)
    await engine.drain()
    states = {m.id: (await bank.importance(m.id)).states for m in told.memories}
    assert all(len(found) == 1 for found in states.values())
    assert max(states, key=lambda id: states[id][0].mean) == told.gold.id
    assert (await bank._parts.ledger.scoring(bank.id))["transcripts"] == 0


async def test_what_was_answered_before_it_was_shown_is_not_applicable(engine: Engine) -> None:
    bank = engine.bank("alice")
    told = await tell(bank, 5, seed=7)
    recorder = bank.transcript("late")
    recorder.said(told.question)
    recorder.answered(f"I remember: {told.gold.text}")
    recorder.said("Are you sure?")
    await recorder.recall("Who likes what?", top_k=5)
    recorder.answered("I remember it well.")
    matrix = await bank.score(recorder.transcript(closed=True), mode="matrix")
    assert {row[0].reason for row in matrix.cells} == {"not_in_context"}
    assert {row[1].status for row in matrix.cells} == {"scored"}
    assert matrix.prompts_sent == 6
