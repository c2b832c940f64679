"""What items of a session do to what is known: they are new, confirm it, put it right, or stand beside it. Pure.

A statement is put right only by a newer and more certain one, and not by one session where several say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from consolidator.extraction import Item
from consolidator.models import Memory, MemoryState, Observation, ObservationState, Tags, Trust, Vector
from consolidator.planning import cosine
from consolidator.plans import History
from consolidator.proposals import Action
from consolidator.records import Step, project_scope
from consolidator.words import plain, says_the_same

TRUST: Mapping[str, Trust] = {"user": Trust.USER, "assistant": Trust.AGENT, "system": Trust.AGENT, "tool": Trust.TOOL}
SURE, SIGN = 0.9, 0.5  # confidence of what was verified, and of more than a weak sign
GAIN = 0.1  # of confidence by another session, up to SURE
CITABLE = (MemoryState.WAITING, MemoryState.PENDING, MemoryState.DONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """An item with what it rests on, by alias, and when that happened. same, against: the alias and the observation that it
    confirms, or contradicts.
    """

    item: Item
    evidence: tuple[str, ...]
    time: datetime
    same: tuple[str, Observation] | None = None
    against: tuple[str, Observation] | None = None


def scope_of(item: Item, known: Mapping[str, Observation], project: str) -> Tags:
    """That of the known item which it confirms or contradicts, else the project's, or the one of what holds everywhere."""
    target = known.get(item.confirms or item.contradicts or "")
    return target.tags if target else project_scope(None if item.everywhere else project)


def trust_of(step: Step) -> Trust:
    return TRUST[step.role]


def citable(memory: Memory) -> bool:
    """Whether a quote may be evidence: nobody holds it back, nobody has put it right, and it is no echo."""
    return memory.state in CITABLE and not memory.echo and memory.corrected_by is None


def twin_of(text: str, vector: Vector, near: Iterable[History], tags: Tags, least: float) -> Observation | None:
    """The live observation in scope that says the same, as a plan would find it. least: cosine."""
    found = [(_near(text, vector, history, least), history.observation) for history in near]
    same = [(score, o.id, o) for score, o in found if score and o.tags == tags and o.state is ObservationState.LIVE]
    return max(same)[2] if same else None


def _near(text: str, vector: Vector, history: History, least: float) -> float:
    """0 where it does not say the same."""
    other = history.observation.text
    if plain(other) == plain(text):
        return 2.0
    score = cosine(vector, history.vectors.get(history.current.number, []))
    return score if score >= least and says_the_same(text, other) else 0.0


def decided(weighed: Sequence[Weighed], *, source: str, protected: int, by: str) -> tuple[Action, ...]:
    """One action for each item of a scope; items that confirm the same are one. source: of all of them. protected: sources that
    one session does not overrule.
    """
    confirmed = {w.same[0] for w in weighed if w.same}
    actions = [_confirming([w for w in weighed if w.same and w.same[0] == alias], source) for alias in sorted(confirmed)]
    taken = set(confirmed)
    for w in (w for w in weighed if not w.same):
        if w.against and w.against[0] not in taken and _overrules(w, w.against[1], protected):
            taken.add(w.against[0])
            actions.append(_correcting(w, w.against[0]))
        else:
            actions.append(Action(
                op="create", text=w.item.text, confidence=w.item.confidence, evidence=w.evidence, category=w.item.category,
                contests=w.against[0] if w.against else None, reason=f"harvested by {by}",
            ))
    return tuple(actions)


def _confirming(weighed: Sequence[Weighed], source: str) -> Action:
    """Support; the confidence may rise when another session than those before says so: above the larger of both, where that is
    more than a weak sign, for several points say it now.
    """
    assert weighed[0].same is not None
    alias, observation = weighed[0].same
    new = all(e.source != source for e in observation.evidence)
    said = max(w.item.confidence for w in weighed)
    most = max(observation.confidence, said)
    gained = max(most, min(SURE, round(most + GAIN, 3))) if said >= SIGN else most
    confidence = gained if new else None
    evidence = tuple(dict.fromkeys(alias for w in weighed for alias in w.evidence))
    return Action(
        op="update", observation=alias, change="restate", text=observation.text, confidence=confidence, evidence=evidence,
        reason="confirmed by a session" if new else "said again in the same session",
    )


def _overrules(w: Weighed, target: Observation, protected: int) -> bool:
    """A more certain statement puts right a less certain one, a later one that was verified, too, an earlier one; and any
    statement an open question.
    """
    newest = max((e.occurred_at for e in target.evidence if e.supports), default=w.time)
    if w.time < newest:
        return False
    if target.category == "question":
        return w.item.category != "question"
    certain = w.item.confidence > target.confidence or (w.item.confidence >= SURE and w.time > newest)
    return certain and target.proof_count < protected


def _correcting(w: Weighed, alias: str) -> Action:
    return Action(
        op="update", observation=alias, change="correction", text=w.item.text, confidence=w.item.confidence, evidence=w.evidence,
        category=w.item.category,  # of what stands beside it, where it rests on more trusted words
        reason="a newer session says otherwise, with more certainty",
    )
