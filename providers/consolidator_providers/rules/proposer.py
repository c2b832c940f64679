"""The rule-based consolidator: it picks, rewords where grammar is safe, quotes otherwise, and invents nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from consolidator.actions import SPARE_ACTIONS
from consolidator.models import Memory, Vector
from consolidator.proposals import Action, Batch, Candidate, NothingDurable, Proposal, ShownMemory, UpdateKind
from consolidator_providers.rules.changes import Effect, effect
from consolidator_providers.rules.claims import CONFIDENCE, REPEATED, Claim, Heard, context_of, fits, listen
from consolidator_providers.rules.corrections import Swap, beside, corrected, swap_in
from consolidator_providers.rules.matching import cosine, same_owner, statement

STRENGTH: tuple[UpdateKind, ...] = ("restate", "refine", "state_change", "correction")


@dataclass(slots=True)
class _Draft:
    """A statement as it will stand after the batch: a candidate, or one that the batch itself creates."""

    alias: str | None
    before: str
    text: str
    confidence: float
    vector: Vector = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)
    change: UpdateKind | None = None
    reason: str = ""

    def take(self, done: Effect, aliases: Iterable[str], confidence: float) -> None:
        self.text, self.confidence, self.reason = done.text, confidence, done.reason
        if self.change is None or STRENGTH.index(done.change) >= STRENGTH.index(self.change):
            self.change = done.change
        if done.change == "correction":
            self.contradicted = list(self.evidence)
        self.evidence += [alias for alias in aliases if alias not in self.evidence]

    def action(self) -> Action:
        change = self.change or "restate"
        return Action(
            op="update" if self.alias else "create",
            observation=self.alias,
            change=(change if self.text != self.before else "restate") if self.alias else None,
            text=self.text,
            confidence=round(self.confidence, 3),
            evidence=tuple(self.evidence),
            contradicted=tuple(self.contradicted),
            reason=self.reason or "stated",
        )


class RuleProposer:
    """Port `Proposer` without a model. The same batch gives the same proposal."""

    name = "rules"
    endpoint = ""

    async def propose(self, batch: Batch) -> Proposal:
        return propose(batch)

    async def close(self) -> None:
        """Nothing is held open."""


async def open_rules(**settings: object) -> RuleProposer:
    """The rule-based consolidator; it has no settings, and other providers' are ignored."""
    del settings
    return RuleProposer()


def propose(batch: Batch) -> Proposal:
    """What the rules make of a batch: one action a statement, every memory cited or declared."""
    drafts = [_candidate(candidate) for candidate in batch.candidates]
    silent: list[Heard] = []
    spare = SPARE_ACTIONS
    for at, shown in enumerate(batch.memories):
        context = context_of(batch.memories, at)
        swap = _correct(shown, drafts)
        one = listen(shown, context, beside(shown.memory.text, swap) if swap else None)
        kept = sorted(one.claims, key=lambda claim: -claim.score)[: 1 + spare]
        spare -= max(0, len(kept) - 1)
        for claim in one.claims:
            if claim in kept:
                _place(claim, drafts)
        silent += [] if kept else [one]
    return _proposal(drafts, silent)


def _candidate(shown: Candidate) -> _Draft:
    return _Draft(shown.alias, shown.observation.text, shown.observation.text, shown.observation.confidence, shown.vector)


def _proposal(drafts: Sequence[_Draft], silent: Sequence[Heard]) -> Proposal:
    actions = tuple(draft.action() for draft in drafts if draft.evidence)
    cited = {alias for action in actions for alias in action.evidence}
    nothing = tuple(NothingDurable(memory=one.shown.alias, reason=one.reason) for one in silent if one.shown.alias not in cited)
    return Proposal(actions=actions, nothing=nothing, extractive=True, by=RuleProposer.name)


def _correct(shown: ShownMemory, drafts: list[_Draft]) -> Swap | None:
    """Apply an explicit correction to the one statement that holds the wrong value; the swap, if that was done."""
    memory = shown.memory
    swap = swap_in(memory.text)
    if swap is None:
        return None
    found = [(draft, text) for draft in drafts if (text := _corrected(draft, swap, memory)) is not None]
    if len(found) > 1:
        found = _nearest(found, memory.text)
    if not found:
        return None
    draft, text = found[0]
    done = Effect(change="correction", text=text, rank=0, reason=f"corrected: {swap.new}, not {swap.old}")
    draft.take(done, [shown.alias], CONFIDENCE["corrected"])
    return swap


def _nearest(found: list[tuple[_Draft, str]], said: str) -> list[tuple[_Draft, str]]:
    """The one that shares most words with the correction; none where two share equally many."""
    shared = [len(statement(said).topic & statement(draft.before or draft.text).topic) for draft, _ in found]
    best = max(shared)
    return [pair for pair, size in zip(found, shared, strict=True) if size == best] if best and shared.count(best) == 1 else []


def _corrected(draft: _Draft, swap: Swap, memory: Memory) -> str | None:
    claim, old = statement(memory.text, memory.speaker), statement(draft.text)
    text = corrected(draft.text, swap) if same_owner(claim, old, draft.text) else None
    return text if text and fits(text) else None


def _place(claim: Claim, drafts: list[_Draft]) -> None:
    """Join a claim to the statement that it bears on most, else make it one of its own."""
    effects = [
        (done, draft)
        for draft in drafts
        if (done := effect(claim, draft.text, cosine(claim.vector, draft.vector)))
        and (done.change == "restate" or claim.aliases[-1] not in draft.evidence)
    ]
    if not effects:
        drafts.append(_Draft(None, "", claim.text, claim.confidence, claim.vector, list(claim.aliases)))
        return
    done, draft = max(effects, key=lambda pair: pair[0].rank)
    draft.take(done, claim.aliases, _confidence(done, draft, claim))


def _confidence(done: Effect, draft: _Draft, claim: Claim) -> float:
    if done.change in ("restate", "refine"):
        return max(draft.confidence, min(0.9, draft.confidence + REPEATED))
    return CONFIDENCE["changed"] if claim.confidence > CONFIDENCE["hedged"] else claim.confidence
