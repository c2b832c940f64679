"""A proposer for the stateful test: a pure function of the batch, for each memory says itself what is to be made of it.

Its texts hold made-up words alone, so that whatever is derived from a memory can be told by its words.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterable

from consolidator.errors import (
    BadReply,
    ModelBusy,
    ModelDenied,
    ModelError,
    ModelRefused,
    ModelTooLong,
    ModelUnavailable,
)
from consolidator.proposals import Action, Batch, Candidate, NothingDurable, Proposal, ShownMemory

WORD = re.compile(r"word\d+x")
ASKED = re.compile(r"asks to (\w+) (\w) about")
SLOTS = "abc"
TROUBLE: dict[str, Callable[[str], ModelError]] = {
    "BadReply": lambda shown: BadReply("the reply is no JSON", faults=("no JSON",), reply=shown),
    "ModelTooLong": lambda _: ModelTooLong(),
    "ModelRefused": lambda _: ModelRefused(),
    "ModelUnavailable": lambda _: ModelUnavailable(),
    "ModelBusy": lambda _: ModelBusy(after=20.0),
    "ModelDenied": lambda _: ModelDenied(),
}  # and "kill", while a batch is read; and "silent" about one memory


def words(*texts: str) -> list[str]:
    """The made-up words of texts, each once, in order."""
    return list(dict.fromkeys(word for text in texts for word in WORD.findall(text)))


def telling(verb: str, slot: str, about: Iterable[str]) -> str:
    """A memory's text: what is to be done with it, to which observation, and its words."""
    return f"Somebody asks to {verb} {slot} about {' and '.join(about)}."


class StandIn:
    """Decides, or fails as the next `trouble` says. Its errors quote all that it was shown."""

    name = "stand-in"
    endpoint = "stand-in"

    def __init__(self) -> None:
        self.trouble: list[str] = []

    async def propose(self, batch: Batch) -> Proposal:
        kind = self.trouble.pop(0) if self.trouble else ""
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind in TROUBLE:
            raise TROUBLE[kind](" ".join(everything(batch)))
        proposal = _Decision(batch).proposal()
        return _without_first(proposal) if kind == "silent" else proposal

    async def close(self) -> None:
        return None


def everything(batch: Batch) -> list[str]:
    """Every word that stands before the proposer."""
    return words(*(s.memory.text for s in batch.shown), *(c.observation.text for c in batch.candidates))


def _without_first(proposal: Proposal) -> Proposal:
    actions = tuple(action for action in proposal.actions if "m1" not in action.evidence)
    nothing = tuple(declared for declared in proposal.nothing if declared.memory != "m1")
    reply = " ".join(words(*(action.text + action.reason for action in proposal.actions)))
    return proposal.model_copy(update={"actions": actions, "nothing": nothing, "faults": ("m1 is left out",), "reply": reply})


class _Decision:
    """What is made of one batch. At most one action for each observation; without one to change, a memory creates."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._free = sorted(batch.candidates, key=lambda c: (c.observation.text, c.alias))
        self._actions: list[Action] = []
        self._nothing: list[NothingDurable] = []
        self._reason = f"of {' '.join(everything(batch))}"

    def proposal(self) -> Proposal:
        for number, shown in enumerate(self._batch.memories):
            self._digest(number, shown)
        cited = {alias for action in self._actions for alias in action.evidence}
        nothing = tuple(n for n in self._nothing if n.memory not in cited)
        return Proposal(actions=tuple(self._actions), nothing=nothing, by="stand-in", calls=1, prompt_tokens=7, reply_tokens=3)

    def _digest(self, number: int, shown: ShownMemory) -> None:
        asked = ASKED.search(shown.memory.text)
        verb, slot = asked.groups() if asked else ("create", "a")
        if verb in ("ignore", "both", "slip", "steal", "doubt", "link", "create"):
            return self._beside(verb, number, shown)
        if not self._free:
            return self._create(shown, words(shown.memory.text))
        self._change(verb, shown, self._free.pop(SLOTS.index(slot) % len(self._free)))

    # without an observation to change

    def _beside(self, verb: str, number: int, shown: ShownMemory) -> None:
        told = words(shown.memory.text)
        another = self._batch.memories[(number + 1) % len(self._batch.memories)]
        match verb:
            case "ignore":
                self._nothing.append(NothingDurable(memory=shown.alias, reason=self._reason))
            case "both":
                self._create(shown, [*told, *words(another.memory.text)], also=another)
            case "slip":
                self._create(shown, [*told, *words(another.memory.text)], also=another, contradicted=shown is not another)
            case "steal":
                self._create(shown, [*told, *self._foreign(shown)[:1]])
            case "doubt":
                self._create(shown, told, confidence=0.3)
            case "link":
                self._create(shown, told, also=self._batch.context[-1] if self._batch.context else shown)
            case _:
                self._create(shown, told)

    def _create(
        self, shown: ShownMemory, told: Iterable[str], *, also: ShownMemory | None = None, confidence: float | None = 0.8,
        contradicted: bool = False,
    ) -> None:
        text = f"It is {' and '.join(dict.fromkeys(told))}."
        evidence = tuple(dict.fromkeys([shown.alias, *([also.alias] if also else [])]))
        against = (shown.alias,) if contradicted else ()
        self._act(op="create", text=text, evidence=evidence, contradicted=against, confidence=confidence)

    def _foreign(self, shown: ShownMemory) -> list[str]:
        """Words that stand in one other memory or observation, so that it can be known where they were taken from."""
        others = [s.memory.text for s in self._batch.shown if s is not shown]
        mine, seen = words(shown.memory.text), Counter(word for text in others for word in words(text))
        told = Counter(word for c in self._batch.candidates for word in words(c.observation.text))
        single = [word for word, times in seen.items() if times == 1] + [w for w, n in told.items() if n == 1 and not seen[w]]
        return [word for word in single if word not in mine]

    # of an observation

    def _change(self, verb: str, shown: ShownMemory, target: Candidate) -> None:
        old, new = words(target.observation.text)[-3:], words(shown.memory.text)
        common: dict[str, object] = {"observation": target.alias, "evidence": (shown.alias,)}
        match verb:
            case "delete":
                self._act(op="delete", **common)
            case "restate":
                self._act(op="update", change="restate", text=target.observation.text, **common)
            case "refine":
                text = f"It is {' and '.join(dict.fromkeys([*old, *new]))}."
                self._act(op="update", change="refine", text=text, confidence=0.9, **common)
            case "change":
                text = f"Once {' and '.join(old)}, now {' and '.join(new)}."
                self._act(op="update", change="state_change", text=text, **common)
            case "correct":
                self._act(op="update", change="correction", text=f"It is {' and '.join(new)}.", **common)
            case "drift":
                self._drift(target, common)
            case "spread":
                self._act(op="update", change="refine", text=f"It is {' and '.join(dict.fromkeys([*old, *new]))}.", **common)
                self._create(shown, new)

    def _drift(self, target: Candidate, common: dict[str, object]) -> None:
        """The text of another observation."""
        others = [c for c in self._batch.candidates if c is not target]
        text = min(others, key=lambda c: (c.observation.text, c.alias)).observation.text if others else target.observation.text
        self._act(op="update", change="refine", text=text, **common)

    def _act(self, **fields: object) -> None:
        self._actions.append(Action.model_validate({"reason": self._reason, **fields}))
