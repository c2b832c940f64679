"""From sound actions to after-images: the guards that no prompt can promise. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid5

from consolidator.models import PERSON, Evidence, Memory, Observation, ObservationState, Value, Vector, Version
from consolidator.plans import Change, Done, Entry, History
from consolidator.proposals import Action, Batch, Proposal
from consolidator.provenance import uncited_origins
from consolidator.words import plain, says_the_same

NAMESPACE = UUID("6f1f3c1e-52c4-5b6e-9d5a-0c8a9e6b7d41")


class Guards(Value):
    """Limits on what a pass may do.

    min_confidence: creates and updates below are skipped. twin_cosine: from here on two statements are one, where names,
    numbers and negations agree. max_deletes: a pass. protected_proof: observations with as many sources are not deleted on
    the word of one. default_confidence: of a create that names none.
    """

    min_confidence: float = 0.5
    twin_cosine: float = 0.97
    max_deletes: int = 2
    protected_proof: int = 5
    default_confidence: float = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    changes: tuple[Change, ...]
    entries: tuple[Entry, ...]
    done: tuple[Done, ...]

    def count(self, action: str) -> int:
        return sum(1 for done in self.done if done.action == action)


@dataclass(slots=True, kw_only=True)
class _Draft:
    """An observation as this plan leaves it."""

    after: Observation
    base_rev: int | None
    vector: Vector
    lineage: frozenset[str]
    by: str = ""  # who made the text that stood before this plan
    version: Version | None = None
    touched: bool = False

    def change(self) -> Change:
        rev = 0 if self.base_rev is None else self.base_rev + 1
        after = self.after.model_copy(update={"rev": rev})
        return Change(
            after=after, base_rev=self.base_rev, vector=self.vector, version=self.version, lineage=self.lineage
        )


def cosine(one: Vector, other: Vector) -> float:
    """Of two normalised vectors; 0 where one is missing."""
    return sum(a * b for a, b in zip(one, other, strict=True)) if one and other else 0.0


def intent_id(bank: str, revisions: Iterable[tuple[str, int]]) -> str:
    """The same memories at the same revisions are the same work; after a rollback they are new work."""
    return str(uuid5(NAMESPACE, "\n".join([bank, *(f"{memory} {rev}" for memory, rev in revisions)])))


def texts_to_embed(proposal: Proposal) -> list[str]:
    return list(dict.fromkeys(action.text for action in proposal.actions if action.op != "delete"))


@dataclass(slots=True, kw_only=True)
class Planner:
    """Builds one plan.

    known: histories of the candidates, and of what lies nearest to the new texts. vectors: of the new texts.
    digest: the bank's keyed digest.
    """

    intent: str
    batch: Batch
    known: Mapping[str, History]
    vectors: Mapping[str, Vector]
    now: datetime
    by: str
    digest: Callable[[str], str]
    guards: Guards = field(default_factory=Guards)
    echoes: Sequence[Memory] = ()  # memories that are accounted for without being read
    cited_only: bool = False  # what a text draws on without saying so is no evidence of it, only its lineage
    first: int = 0  # number of the first observation that it makes, where several planners share a plan
    _drafts: dict[str, _Draft] = field(default_factory=dict)
    _entries: list[Entry] = field(default_factory=list)
    _done: list[Done] = field(default_factory=list)
    _tally: Counter[str] = field(default_factory=Counter)
    _extractive: bool = False
    _shown: tuple[str, ...] = ()  # every memory whose words the proposer had before it
    _targets: frozenset[str] = frozenset()  # observations that an action of the proposal names
    # an observation that came to say the same as another one, which an action of its own may change yet
    _doubles: list[tuple[_Draft, _Draft, list[Memory]]] = field(default_factory=list)

    def plan(self, proposal: Proposal) -> Planned:
        self._extractive = proposal.extractive
        read = {s.memory.id for s in self.batch.shown}
        self._shown = tuple(sorted(read.union(*(history.current.lineage for history in self.known.values()))))
        named = {action.observation for action in proposal.actions}
        self._targets = frozenset(c.observation.id for c in self.batch.candidates if c.alias in named)
        verbs = {"create": self._create, "update": self._update, "delete": self._delete}
        # deletes first: what another action gave to an observation would go with it
        for action in sorted(proposal.actions, key=lambda action: action.op != "delete"):
            verbs[action.op](action)
        for draft, twin, memories in self._doubles:
            if twin.version is None:  # its own action has left its text as it was
                self._merge(draft, twin, memories)
        for declared in proposal.nothing:
            memory = self.batch.memory(declared.memory)
            self._note("nothing_durable", None, None, None, [memory], declared.reason)
        for echo in self.echoes:
            self._note("nothing_durable", None, None, None, [echo], "recall had handed it out: no new evidence")
        changes = tuple(draft.change() for draft in self._drafts.values() if draft.touched)
        return Planned(changes=changes, entries=tuple(self._entries), done=tuple(self._done))

    # the three operations

    def _create(self, action: Action) -> None:
        memories = self._memories(action)
        confidence = self.guards.default_confidence if action.confidence is None else action.confidence
        if problem := self._confidence_problem(confidence):
            return self._skip(action, None, problem)
        contests = self.batch.candidate(action.contests).observation.id if action.contests else None
        if twin := self._twin(action.text, but=self._draft(self.known[contests]) if contests else None):
            return self._support(twin, memories, action)
        self._new(action, confidence, *self._origins(action.text, memories), contests=contests)

    def _new(
        self, action: Action, confidence: float, origin: Sequence[Memory], lineage: frozenset[str], contests: str | None = None
    ) -> None:
        number = self.first + self._tally["create"]
        self._tally["create"] += 1
        new = Observation(
            id=str(uuid5(UUID(self.intent), str(number))), bank=self.batch.bank, text=action.text, tags=self.batch.tags,
            confidence=confidence, evidence=attach((), origin, 1, self._against(action)), created_at=self.now,
            updated_at=self.now, contests=contests, category=action.category,
        )
        draft = _Draft(after=new, base_rev=None, vector=self.vectors[action.text], lineage=lineage, touched=True)
        draft.version = self._version(new, lineage, change="create", reason=action.reason)
        self._drafts[new.id] = draft
        self._note("contested" if contests else "created", new, None, new.text, origin, action.reason)

    def _contest(self, action: Action, draft: _Draft, memories: list[Memory]) -> None:
        """The word of less trusted sources against an observation: it stands beside it, not in its place."""
        if twin := self._twin(action.text, but=draft):
            return self._support(twin, memories, action)
        confidence = draft.after.confidence if action.confidence is None else action.confidence
        self._new(action, confidence, *self._origins(action.text, memories, draft), contests=draft.after.id)

    def _update(self, action: Action) -> None:
        draft, memories = self._target(action), self._memories(action)
        if plain(action.text) == plain(draft.after.text):
            return self._support(draft, memories, action)
        if problem := self._confidence_problem(action.confidence):
            return self._skip(action, draft.after, problem)
        if _trust_problem(draft, memories):
            return self._contest(action, draft, memories)
        twin = self._twin(action.text, but=draft)
        if twin and (twin.version is not None or _trust_problem(twin, memories)):
            return self._join(draft, twin, memories, action)
        before = draft.after
        origin, lineage = self._origins(action.text, memories, draft)
        number = before.version + 1
        kept = before.evidence
        if action.change == "correction":
            kept = tuple(e.model_copy(update={"supports": False}) for e in kept)
        fields: dict[str, object] = {"text": action.text, "version": number, "updated_at": self.now}
        fields["evidence"] = attach(kept, origin, number, self._against(action))
        if action.confidence is not None:
            fields["confidence"] = action.confidence
        if action.category is not None:
            fields["category"] = action.category
        draft.after, draft.vector, draft.lineage = before.model_copy(update=fields), self.vectors[action.text], lineage
        draft.version = self._version(draft.after, lineage, change=action.change or "refine", reason=action.reason)
        draft.touched = True
        self._note("updated", draft.after, before.text, action.text, origin, action.reason)
        if twin and twin.after.id in self._targets:
            self._doubles.append((draft, twin, memories))
        elif twin:
            self._merge(draft, twin, memories)

    def _delete(self, action: Action) -> None:
        draft, memories = self._target(action), self._memories(action)
        if problem := self._delete_problem(draft, memories):
            return self._skip(action, draft.after, problem)
        self._tally["delete"] += 1
        self._retract(draft, memories, change="delete", reason=action.reason)
        self._note("deleted", draft.after, draft.after.text, None, memories, action.reason)

    # what they are made of

    def _support(self, draft: _Draft, memories: Sequence[Memory], action: Action) -> None:
        """More evidence for a text that stays as it is."""
        after = draft.after
        evidence = attach(after.evidence, memories, after.version, self._against(action))
        fields: dict[str, object] = {"evidence": evidence, "updated_at": self.now}
        if action.op == "update" and action.confidence is not None and action.confidence >= self.guards.min_confidence:
            fields["confidence"] = action.confidence
        draft.after, draft.touched = after.model_copy(update=fields), True
        self._note("reinforced", draft.after, None, None, memories, action.reason)

    def _merge(self, draft: _Draft, twin: _Draft, memories: Sequence[Memory]) -> None:
        """An update drifted onto another observation: this one keeps the text, and takes the other's evidence."""
        draft.after = draft.after.model_copy(update={"evidence": _joined(draft.after, twin.after.evidence)})
        draft.lineage |= twin.lineage  # what the twin's words came from can be what these came from
        assert draft.version is not None
        draft.version = draft.version.model_copy(update={"lineage": draft.lineage})
        self._retract(twin, memories, change="merge", reason=f"says the same as {draft.after.id}")
        self._note("merged", twin.after, twin.after.text, None, memories, f"into {draft.after.id}")

    def _join(self, draft: _Draft, twin: _Draft, memories: Sequence[Memory], action: Action) -> None:
        """An update would say what another observation says that has to stay as it is: that is supported, and this one goes."""
        self._support(twin, memories, action.model_copy(update={"confidence": None}))
        new = {shown.memory.id for shown in self.batch.memories}  # what this very plan gave to the one that goes
        given = tuple(e for e in draft.after.evidence if e.memory_id in new)
        twin.after = twin.after.model_copy(update={"evidence": _joined(twin.after, given)})
        self._retract(draft, memories, change="merge", reason=f"says the same as {twin.after.id}")
        self._note("merged", draft.after, draft.after.text, None, memories, f"into {twin.after.id}")

    def _retract(self, draft: _Draft, memories: Sequence[Memory], *, change: str, reason: str) -> None:
        fields = {"state": ObservationState.RETRACTED, "version": draft.after.version + 1, "updated_at": self.now}
        draft.after = draft.after.model_copy(update=fields)
        why = frozenset(m.id for m in memories)
        draft.version = self._version(draft.after, draft.lineage, change=change, reason=reason, why=why)
        draft.touched = True

    def _version(
        self, after: Observation, lineage: frozenset[str], *, change: str, reason: str, why: frozenset[str] = frozenset()
    ) -> Version:
        return Version(
            observation_id=after.id, number=after.version, text=after.text, digest=self.digest(after.text), state=after.state,
            confidence=after.confidence, lineage=lineage, why=why, change=change, reason=reason, by=self.by, at=self.now,
        )

    def _origins(
        self, text: str, memories: list[Memory], restated: _Draft | None = None
    ) -> tuple[list[Memory], frozenset[str]]:
        """Evidence and lineage of a text: what it cites, what it restates, and what it draws on without saying so."""
        inherited = restated.lineage if restated else frozenset()
        if self._extractive:
            return memories, inherited | {m.id for m in memories}
        cited = [*(m.spoken for m in memories), *([restated.after.text] if restated else [])]
        shown = {s.memory.id: s.memory for s in self.batch.shown if s.memory not in memories}
        times = [m.time for m in memories]
        drawn = [shown[key] for key in uncited_origins(text, cited, {key: m.spoken for key, m in shown.items()}, times)]
        others = {c.observation.id: c.observation.text for c in self.batch.candidates}
        read = frozenset().union(*(self.known[key].current.lineage for key in uncited_origins(text, cited, others, times)))
        origin = memories if self.cited_only else [*memories, *drawn]
        drawn_from = {m.id for m in (*memories, *drawn)}
        if any(plain(m.text) == plain(text) for m in memories):  # its own words: nobody else's are needed
            return origin, inherited.union(read, drawn_from)
        same = (h.current.lineage for h in self.known.values() if plain(h.observation.text) == plain(text))
        return origin, inherited.union(read, *same, drawn_from)

    def _twin(self, text: str, but: _Draft | None = None) -> _Draft | None:
        """The live observation in scope that says the same: one that says it by this plan, which stays, then the nearest."""
        vector = self.vectors[text]
        for history in self.known.values():
            self._draft(history)
        near = [(cosine(vector, draft.vector), draft) for draft in self._drafts.values() if draft is not but]
        same = [(near_by, draft) for near_by, draft in near if self._same(text, near_by, draft)]
        return max(same, key=lambda pair: (pair[1].version is not None, pair[0], pair[1].after.id))[1] if same else None

    def _same(self, text: str, near_by: float, draft: _Draft) -> bool:
        if draft.after.state is not ObservationState.LIVE or draft.after.tags != self.batch.tags:
            return False
        other = draft.after.text
        return plain(text) == plain(other) or (near_by >= self.guards.twin_cosine and says_the_same(text, other))

    def _confidence_problem(self, confidence: float | None) -> str | None:
        if confidence is not None and confidence < self.guards.min_confidence:
            return f"confidence {confidence:.2f} is below {self.guards.min_confidence:.2f}"
        return None

    def _delete_problem(self, draft: _Draft, memories: Sequence[Memory]) -> str | None:
        if self._tally["delete"] >= self.guards.max_deletes:
            return f"a pass deletes at most {self.guards.max_deletes}"
        if draft.after.proof_count >= self.guards.protected_proof and len({m.source for m in memories}) < 2:
            return f"{draft.after.proof_count} sources stand against one"
        return _trust_problem(draft, memories)

    def _skip(self, action: Action, target: Observation | None, problem: str) -> None:
        reason = f"{problem} ({action.op}: {action.reason})" if action.reason else f"{problem} ({action.op})"
        self._note("skipped", target, None, action.text or None, self._memories(action), reason)

    def _target(self, action: Action) -> _Draft:
        assert action.observation is not None
        return self._draft(self.known[self.batch.candidate(action.observation).observation.id])

    def _draft(self, history: History) -> _Draft:
        observation = history.observation
        if observation.id not in self._drafts:
            vector, lineage = history.vectors.get(observation.version, []), history.current.lineage
            self._drafts[observation.id] = _Draft(
                after=observation, base_rev=observation.rev, vector=vector, lineage=lineage, by=history.current.by
            )
        return self._drafts[observation.id]

    def _against(self, action: Action) -> frozenset[str]:
        return frozenset(self.batch.memory(alias).id for alias in action.contradicted)

    def _memories(self, action: Action) -> list[Memory]:
        return [self.batch.memory(alias) for alias in action.evidence]

    def _note(
        self, action: str, target: Observation | None, before: str | None, after: str | None, cited: Sequence[Memory],
        reason: str,
    ) -> None:
        cites, text = tuple(m.id for m in cited), after or before or (target.text if target else "")
        version = target.version if target and action != "skipped" else None  # what was held back became no version
        self._entries.append(
            Entry(
                bank=self.batch.bank, intent=self.intent, at=self.now, action=action, version=version,
                observation_id=target.id if target else None, before=before, after=after, reason=reason, cites=cites, by=self.by,
                digest=self.digest(text), shown=self._shown,
            )
        )
        observation_id = target.id if target else None
        self._done.append(
            Done(action=action, observation_id=observation_id, before=before, after=after, evidence=cites, reason=reason)
        )


def _joined(kept: Observation, others: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Its evidence, and what another had besides, attached now."""
    known = {e.memory_id for e in kept.evidence}
    moved = (e.model_copy(update={"since_version": kept.version}) for e in others)
    return kept.evidence + tuple(e for e in moved if e.memory_id not in known)


def evidence_of(memory: Memory, version: int) -> Evidence:
    return Evidence(
        memory_id=memory.id, source=memory.source, occurred_at=memory.time, since_version=version, trust=memory.trust
    )


def attach(
    evidence: tuple[Evidence, ...], memories: Sequence[Memory], version: int, against: Set[str] = frozenset()
) -> tuple[Evidence, ...]:
    """Evidence is a set: a memory that is cited already is not cited again. Those in `against` give no support."""
    known = {e.memory_id for e in evidence}
    fresh = (evidence_of(m, version) for m in memories if m.id not in known)
    return evidence + tuple(e.model_copy(update={"supports": e.memory_id not in against}) for e in fresh)


def _trust_problem(draft: _Draft, memories: Sequence[Memory]) -> str | None:
    target = draft.after
    if draft.by == PERSON:
        return "a person has put it into words"
    if target.category == "question":
        return None  # it claims nothing that could be outweighed
    if max(m.trust for m in memories) < target.trust:
        return "its evidence is trusted less than what it would change"
    return None
