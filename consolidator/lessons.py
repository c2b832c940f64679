"""Episodes to lessons: what their memories say, what rules and cards come of them, and how they are shown. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from consolidator.models import Memory, MemoryState, Value
from consolidator.proposals import Action, Batch, NothingDurable, Proposal
from consolidator.records import LESSON, Card, Episode, Mark, Outcome, marked, task_scope
from consolidator.words import plain

GUARDS: dict[str, Any] = {"min_confidence": 0.0, "twin_cosine": 0.92}  # of a plan that is made of reports
DEFAULT_LESSON = "Avoid repeating this failure."
HIGH_SCORE = re.compile(r"Scored \d\.\d\d at ")  # how the rule of thumb begins
LABELS = ("Did: ", "Right: ", "Evidence: ", "Lesson: ")
CARD_TAG = "card:"


class PracticePolicy(Value):
    """every: episodes that are distilled together. works, avoid: scores from which on a success, and below which a mistake,
    becomes a rule. retry: seconds until a model that failed over episodes is asked about them again.
    """

    every: int = Field(default=20, ge=1, le=200)
    works: float = Field(default=0.85, ge=0, le=1)
    avoid: float = Field(default=0.5, ge=0, le=1)
    retry: float = Field(default=3600.0, ge=0)


# an episode as memories


def memories_of(episode: Episode, digest: Callable[[str], str]) -> list[dict[str, Any]]:
    """An episode as `retain` takes it, the attempt itself first. digest: the bank's, for the identities of cards."""
    told = [_item(episode, "episode", attempt(episode), episode.tags | {LESSON})]
    for role, outcomes in (("mistake", episode.mistakes), ("success", episode.successes)):
        for outcome in outcomes:
            scope = episode.tags | ({LESSON} if outcome.everywhere else task_scope(episode.task))
            told.append(_item(episode, role, _opening(role, episode.task) + _line(outcome.text), scope))
    for card in episode.cards:
        identity = digest("\n".join(identity_of(episode.task, card)))[:12]
        scope = episode.tags | task_scope(episode.task) | {CARD_TAG + identity}
        told.append(_item(episode, "card", card_text(episode.task, card), scope))
    return told


def _item(episode: Episode, role: Any, text: str, tags: Iterable[str]) -> dict[str, Any]:
    data = {"episode": episode.id, "score": episode.score, "steps": episode.steps}
    mark = Mark(role=role, about=episode.task, data=data)
    return {
        "text": text, "source": episode.source, "kind": "lesson", "occurred_at": episode.occurred_at,
        "tags": frozenset(tags), "metadata": mark.metadata(),
    }


def attempt(episode: Episode) -> str:
    opening = _attempt(episode.task, episode.score, episode.steps)
    return f"{opening}: {_line(episode.summary)}" if episode.summary.strip() else f"{opening}."


def _attempt(task: str, score: float, steps: int) -> str:
    return f"Attempt at {_line(task)}, score {score:.2f} in {steps} steps"


def _opening(role: str, task: str) -> str:
    return f"{'Worked' if role == 'success' else 'Mistake'} at {_line(task)}: "


def _line(text: str) -> str:
    return " ".join(text.split())


def summary_of(memory: Memory) -> str:
    """What was said of an attempt; empty where nothing was."""
    mark = marked(memory)
    opening = _attempt(mark.about, score_of(memory), steps_of(memory)) if mark else ""
    return memory.text.removeprefix(f"{opening}: ") if memory.text.startswith(f"{opening}: ") else ""


def outcome_of(memory: Memory) -> str:
    """The words of a mistake or a success."""
    mark = marked(memory)
    return memory.text.removeprefix(_opening(mark.role, mark.about)) if mark else memory.text


def score_of(memory: Memory) -> float:
    """0 to 1; of a memory whose mark holds none, 0."""
    mark = marked(memory)
    told = mark.data.get("score") if mark else None
    return float(told) if isinstance(told, int | float) and 0 <= told <= 1 else 0.0


def steps_of(memory: Memory) -> int:
    mark = marked(memory)
    told = mark.data.get("steps") if mark else None
    return told if isinstance(told, int) else 0


def identity_of(task: str, card: Card) -> tuple[str, str, str, str]:
    """What makes two cards one."""
    return card.mistake_type, task, card.worker_id, card.correct_decision


def card_text(task: str, card: Card) -> str:
    who = f", worker {_line(card.worker_id)}" if card.worker_id.strip() else ""
    told = (card.bad_decision, card.correct_decision, card.evidence, card.lesson or "")
    lines = [f"{label}{_line(text)}" for label, text in zip(LABELS, told, strict=True) if text.strip()]
    return "\n".join([f"{_opening('card', task)}{_line(card.mistake_type)}{who}", *lines])


def card_of(memory: Memory) -> Card:
    """The card that a memory tells of."""
    first, *lines = outcome_of(memory).split("\n")
    told = {label: line.removeprefix(label) for line in lines for label in LABELS if line.startswith(label)}
    kind, _, worker = first.partition(", worker ")
    did, right, evidence, lesson = (told.get(label, "") for label in LABELS)
    return Card(
        mistake_type=kind[:200] or "unknown_mistake", worker_id=worker[:200], bad_decision=did[:500],
        correct_decision=right[:500], evidence=evidence[:1000], lesson=lesson[:1000] or None,
    )


# what comes of them


def state_after(memory: Memory) -> MemoryState:
    """Of a memory that an ordinary pass has digested: attempts wait until there are enough of them to be distilled."""
    mark = marked(memory)
    return MemoryState.WAITING if mark is not None and mark.role == "episode" else MemoryState.DONE


def propose(batch: Batch, policy: PracticePolicy) -> Proposal:
    """Rules of mistakes and successes, by their episodes' scores; cards merged by identity, which is their scope."""
    rules: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    cards: list[str] = []
    nothing: list[NothingDurable] = []
    for shown in batch.memories:
        mark = marked(shown.memory)
        role = mark.role if mark else ""
        if role == "card":
            cards.append(shown.alias)
        elif reason := _no_rule(role, score_of(shown.memory), policy):
            nothing.append(NothingDurable(memory=shown.alias, reason=reason))
        else:
            text = outcome_of(shown.memory)
            texts.setdefault(plain(text), text)
            rules.setdefault(plain(text), []).append(shown.alias)
    actions = [
        Action(op="create", text=texts[key], evidence=tuple(told), category="rule", reason="an episode's outcome")
        for key, told in rules.items()
    ]
    return Proposal(actions=(*actions, *_card(batch, cards)), nothing=tuple(nothing), extractive=True, by="episodes")


def _no_rule(role: str, score: float, policy: PracticePolicy) -> str | None:
    """Why a memory makes no rule."""
    match role:
        case "success":
            return None if score >= policy.works else f"a score of {score:.2f} proves no success"
        case "mistake":
            return None if score < policy.avoid else f"a score of {score:.2f} was not spoilt by it"
        case "episode":
            return "waits to be distilled with others"
    return "told by what was harvested of it"


def _card(batch: Batch, aliases: Sequence[str]) -> Iterator[Action]:
    """A lesson that was supplied replaces an older one; the default replaces none."""
    if not aliases:
        return
    cards = [card_of(batch.memory(alias)) for alias in aliases]
    lesson = next((card.lesson for card in reversed(cards) if card.lesson), None)
    if not batch.candidates:
        text = lesson or default_lesson(cards[-1])
        yield Action(op="create", text=text, evidence=tuple(aliases), category="mistake", reason="a mistake card")
        return
    known = batch.candidates[0]
    yield Action(
        op="update", change="restate", observation=known.alias, text=lesson or known.observation.text, evidence=tuple(aliases),
        reason="the same mistake again",
    )


def default_lesson(card: Card) -> str:
    right = f" Right would be: {card.correct_decision}" if card.correct_decision else ""
    return f"{card.mistake_type}: {DEFAULT_LESSON}{right}"


# cards of an audit


class Finding(Value):
    """What an audit found in an episode. wrong: "false_negative", "false_positive", "failed_rehabilitation"."""

    wrong: str = Field(min_length=1, max_length=100)
    reason: str = Field(default="", max_length=100)
    worker_id: str = Field(default="", max_length=200)
    bad_decision: str = Field(default="", max_length=500)
    correct_decision: str = Field(default="", max_length=500)
    evidence: str = Field(default="", max_length=1_000)


MOST_CARDS = 5  # of one audit
AUDIT_TYPES = {"false_positive": "false_positive_safe_action", "failed_rehabilitation": "failed_worker_rehabilitation"}


def audit_cards(findings: Sequence[Finding], *, score: float, avoid: float = 0.5) -> list[Card]:
    """The cards of an audited episode, at most five; the last one says so where the score is low."""
    cards = [
        Card(
            mistake_type=AUDIT_TYPES.get(f.wrong) or f"{f.wrong}_{f.reason}".rstrip("_"), worker_id=f.worker_id,
            bad_decision=f.bad_decision, correct_decision=f.correct_decision, evidence=f.evidence,
        )
        for f in findings
    ]
    low = [Card(mistake_type="low_score_episode", evidence=f"score {score:.2f}")] if score < avoid else []
    return [*cards[: MOST_CARDS - len(low)], *low]


# how they are shown


class Balance(Value):
    """How many episodes speak for a rule, and how many against doing what it says."""

    works: int = 0
    avoid: int = 0

    @property
    def label(self) -> str:
        if not self.works and not self.avoid:
            return "[CONSOLIDATED]"
        if self.works == self.avoid:
            return f"[MIXED {self.works}:{self.avoid}]"
        word, more, less = ("WORKS", self.works, self.avoid) if self.works > self.avoid else ("AVOID", self.avoid, self.works)
        return f"[{word} {more}:{less}]" if less else f"[{word}]"


def balance_of(evidence: Iterable[str], roles: Mapping[str, tuple[str, str]]) -> Balance:
    """roles: of each memory its role, and its episode, which counts once."""
    said = {roles[id] for id in evidence if id in roles}
    return Balance(works=sum(role == "success" for role, _ in said), avoid=sum(role == "mistake" for role, _ in said))


class Part(Value):
    """A heading and its items; `keep` says what goes first when the budget is small: the highest number."""

    heading: str
    items: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()  # of the items, where they are observations
    keep: int = 0


HEADING = "## MEMORY FROM PAST EPISODES"


def rendered(parts: Sequence[Part]) -> str:
    """Parts in their order, those that have nothing left out; empty where none has anything."""
    told = [p for p in parts if p.items]
    blocks = ["\n".join([p.heading, *(f"  - {item}" for item in p.items)] if p.heading else p.items) for p in told]
    return "\n\n".join([HEADING, *blocks]) if blocks else ""


def within(parts: Sequence[Part], budget: int, count: Callable[[str], int]) -> tuple[list[Part], int]:
    """The parts as far as the budget of tokens holds, and how many items were left out.

    Whole items only. They are taken in the order of `keep`, in each part from the first; the rendered text is counted whole.
    """
    taken = dict.fromkeys(range(len(parts)), 0)
    left = 0
    for number in sorted(taken, key=lambda n: (parts[n].keep, n)):
        for place in range(len(parts[number].items)):
            taken[number] = place + 1
            if count(rendered(_cut(parts, taken))) > budget:
                taken[number] = place
                left += len(parts[number].items) - place
                break
    return _cut(parts, taken), left


def _cut(parts: Sequence[Part], taken: Mapping[int, int]) -> list[Part]:
    return [
        part.model_copy(update={"items": part.items[: taken[number]], "ids": part.ids[: taken[number]]})
        for number, part in enumerate(parts)
    ]


def foremost(rows: Sequence[tuple[int, float, str]], most: int) -> list[str]:
    """The keys of at most `most` rows of (times seen, last seen, key): the most seen first, and one place for the newest, so that
    what is new is always visible.
    """
    if most < 1:
        return []
    by_count = sorted(rows, key=lambda row: (-row[0], -row[1], row[2]))
    newest = max(rows, key=lambda row: (row[1], row[2]), default=None)
    first = [row[2] for row in by_count[:most]]
    if newest is not None and newest[2] not in first:
        first[-1] = newest[2]
    return first


def outcomes(given: object) -> tuple[Outcome, ...]:
    """A text, or several texts or outcomes; blank ones are nothing. Raises ValueError for anything else."""
    if given is None:
        return ()
    several = [given] if isinstance(given, str | Mapping | Outcome) else given
    if not isinstance(several, Iterable):
        raise ValueError(f"a text, or a list of texts, and not {type(given).__name__}")
    told = []
    for one in several:
        fields = {"text": one} if isinstance(one, str) else one
        if isinstance(fields, Mapping) and isinstance(fields.get("text"), str) and not fields["text"].strip():
            continue
        told.append(fields if isinstance(fields, Outcome) else Outcome.model_validate(fields))
    return tuple(told)
