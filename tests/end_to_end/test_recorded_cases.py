"""Hard cases of consolidation, with the replies that careful judgement gave to the real prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from consolidator.models import Observation
from tests.cassettes import ReplayedChatModel
from tests.cassettes.cases import CASES
from tests.cassettes.playing import Case, Held, Played, play


@pytest.fixture(scope="module")
def recorded() -> ReplayedChatModel:
    return ReplayedChatModel("cases")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_case_ends_as_it_should(case: Case, recorded: ReplayedChatModel) -> None:
    played = await play(case, recorded)
    problems = [*_steps(case, played), *_bank(case, played), *(p for held in case.held for p in _held(held, played))]
    assert not problems, [*problems, *(f"live: {o.text}" for o in played.observations)]


def _steps(case: Case, played: Played) -> Iterable[str]:
    """Every memory is accounted for, or left with its error; sound replies take one call, repaired ones two."""
    for number, (step, report, pending) in enumerate(zip(case.steps, played.reports, played.pending, strict=True), start=1):
        if set(pending) != set(step.left):
            yield f"step {number} left {sorted(pending)}, not {step.left}"
        if not all(pending.values()) or bool(report.faults) != bool(step.left):
            yield f"step {number} left {pending} with the faults {report.faults}"
        if (report.calls, report.left) != (step.calls, len(step.left)):
            yield f"step {number} took {report.calls} calls and left {report.left}"


def _bank(case: Case, played: Played) -> Iterable[str]:
    live = played.observations
    expected = len(live) if case.count is None else case.count
    if len(live) != expected or len(live) < len(case.held):
        yield f"{len(live)} observations are live, not {expected}"
    yield from (f"none may say {phrase}: {o.text}" for phrase in case.never for o in live if _says(o, phrase))
    declared = {cited for entry in played.journal if entry.action == "nothing_durable" for cited in entry.cites}
    if case.nothing is not None and declared != {played.ids[name] for name in case.nothing}:
        yield f"declared without durable content: {len(declared)} memories, not {case.nothing}"
    for action, times in case.journal.items():
        if played.actions[action] != times:
            yield f"{action}: {played.actions[action]} times, not {times}"


def _held(held: Held, played: Played) -> Iterable[str]:
    found = [o for o in played.observations if all(_says(o, phrase) for phrase in held.holds)]
    found = [o for o in found if not any(_says(o, phrase) for phrase in held.never)]
    if len(found) != 1:
        yield f"{len(found)} observations hold {held.holds} without {held.never}"
        return
    observation, names = found[0], {id: name for name, id in played.ids.items()}
    cited = sorted(names[e.memory_id] for e in observation.evidence)
    wrong = sorted(names[e.memory_id] for e in observation.evidence if not e.supports)
    changes = tuple(version.change for version in played.histories[observation.id])
    if held.evidence is not None and cited != sorted(held.evidence):
        yield f"{held.holds} rests on {cited}, not {held.evidence}"
    if wrong != sorted(held.wrong):
        yield f"{held.holds} has {wrong} against it, not {held.wrong}"
    if held.changes is not None and changes != held.changes:
        yield f"{held.holds} came by {changes}, not {held.changes}"


def _says(observation: Observation, phrase: str) -> bool:
    return re.search(phrase, observation.text, re.IGNORECASE) is not None
