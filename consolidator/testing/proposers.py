"""A proposer that says what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from consolidator.errors import ConsolidatorError
from consolidator.proposals import Action, Batch, NothingDurable, Proposal

Answer = Proposal | ConsolidatorError | Callable[[Batch], Proposal]


class ScriptedProposer:
    """Answers in turn; when the script is at its end, everything is nothing durable. `batches` is what it was shown."""

    def __init__(self, answers: Iterable[Answer] = ()) -> None:
        self.name = "script"
        self.endpoint = ""
        self.batches: list[Batch] = []
        self._answers = iter(answers)

    def answer_with(self, answers: Iterable[Answer]) -> None:
        """A new script."""
        self._answers = iter(answers)

    async def propose(self, batch: Batch) -> Proposal:
        self.batches.append(batch)
        answer = next(self._answers, nothing_durable)
        if isinstance(answer, ConsolidatorError):
            raise answer
        return answer(batch) if callable(answer) else answer

    async def close(self) -> None:
        pass


def nothing_durable(batch: Batch) -> Proposal:
    return Proposal(nothing=tuple(NothingDurable(memory=shown.alias) for shown in batch.memories), by="script")


def word_for_word(batch: Batch) -> Proposal:
    """Every memory becomes an observation of its own text."""
    actions = (Action(op="create", text=s.memory.text, confidence=0.8, evidence=(s.alias,)) for s in batch.memories)
    return Proposal(actions=tuple(actions), by="script")
