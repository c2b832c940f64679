"""Erasure by lineage against a simple model: whatever a bank has been through, what it says comes from what it may still know."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from consolidator.models import PERSON, ErasureCase, Evidence, Observation, ObservationState, Version
from consolidator.plans import Change, History
from consolidator.provenance import after_image, comes_back, erase, given_way, tainted, uncited_origins, without

Ids = frozenset[str]
NOW = datetime(2026, 6, 1, tzinfo=UTC)
LIVE, RETRACTED = ObservationState.LIVE, ObservationState.RETRACTED
MEMORIES = [f"m{n}" for n in range(6)]
memories = st.frozensets(st.sampled_from(MEMORIES), min_size=1, max_size=3)
places = st.integers(0, 4)
VERBS = (
    "create", "create", "update", "correct", "support", "delete", "merge", "join", "revert", "person", "undo", "erase", "erase",
)
steps = st.lists(st.tuples(st.sampled_from(VERBS), places, places, memories), min_size=3, max_size=16)
many = settings(max_examples=500)
Steps = list[tuple[str, int, int, Ids]]


@dataclass(slots=True)
class World:
    """Observations as plans write them, one row of versions each. A text is what it was derived from: "m1 m4"."""

    histories: dict[str, History] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    cited: set[str] = field(default_factory=set)  # what has ever been of use
    pending: set[str] = field(default_factory=set)  # what is to be told anew

    def live(self, number: int) -> History | None:
        there = [h for h in self.histories.values() if h.observation.state is LIVE]
        return there[number % len(there)] if there else None

    def put(self, change: Change) -> None:
        """As the ledger does: versions are added, purged ones lose text and lineage, an observation without any is a husk."""
        id = change.after.id
        told = self.histories[id].versions if id in self.histories else ()
        nothing: dict[str, object] = {"text": None, "lineage": frozenset(), "why": frozenset()}
        kept = tuple(v.model_copy(update=nothing) if v.number in change.purge else v for v in told)
        self.histories[id] = History(observation=change.after, versions=kept + ((change.version,) if change.version else ()))

    def write(self, before: Observation | None, text: Ids, cited: Ids, **told: object) -> None:
        """A new version, and evidence for it."""
        self._heard(cited)
        number = before.version + 1 if before else 1
        id = before.id if before else f"o{len(self.histories)}"
        words = " ".join(sorted(text))
        fields = {"observation_id": id, "number": number, "text": words, "digest": "", "lineage": text, "at": NOW}
        version = Version.model_validate({**fields, **told})
        kept = before.evidence if before else ()
        known = {e.memory_id for e in kept}
        new = tuple(Evidence(memory_id=m, source=m, occurred_at=NOW, since_version=number) for m in sorted(cited - known))
        after = Observation(
            id=id, bank="b", text=version.text or "", state=version.state, version=number, evidence=kept + new, created_at=NOW,
            updated_at=NOW, rev=before.rev + 1 if before else 0,
        )
        self.put(Change(after=after, version=version, lineage=version.lineage))

    def _heard(self, cited: Ids) -> None:
        self.cited |= cited
        self.pending -= cited

    def support(self, history: History, cited: Ids) -> None:
        self._heard(cited)
        here = history.observation
        known = {e.memory_id for e in here.evidence}
        new = (Evidence(memory_id=m, source=m, occurred_at=NOW, since_version=here.version) for m in sorted(cited - known))
        self.put(Change(after=here.model_copy(update={"evidence": (*here.evidence, *new)})))

    def retract(self, history: History, why: Ids) -> None:
        self._heard(why)
        self.write(history.observation, history.current.lineage, frozenset(), state=RETRACTED, why=why)

    def erase(self, gone: Ids) -> None:
        self.erased |= gone
        self.pending -= gone
        for history in list(self.histories.values()):
            outcome = erase(history, gone)
            if outcome.case is ErasureCase.UNTOUCHED or history.observation.state is ObservationState.ERASED:
                continue
            same = [h for h in self.histories.values() if h.observation.id != history.observation.id
                    and h.observation.state is LIVE and outcome.keep and h.current.text == outcome.keep.text]
            if comes_back(history, outcome) and same and not same[0].current.lineage & gone:
                outcome = given_way(outcome, same[0].observation.id, same[0].current.lineage)
                event("gave way")
            event(outcome.case.value)
            self.pending |= outcome.reopened
            self.put(after_image(history, outcome, NOW))


def lived(steps: Steps) -> World:
    world = World()
    for verb, one, two, cited in steps:
        cited -= world.erased
        here, other = world.live(one), world.live(two)
        if verb == "erase":
            world.erase(cited)
        elif not cited:
            continue
        elif verb == "create" or here is None or other is None:
            world.write(None, cited, cited)
        else:
            step(world, verb, here, other, cited, two)
    return world


def step(world: World, verb: str, here: History, other: History, cited: Ids, number: int) -> None:
    old, person = here.current.lineage, here.current.by == PERSON
    match verb:
        case "update" if not person:  # it restates what was there
            world.write(here.observation, old | cited, cited)
        case "correct" if not person:  # it puts something else in its place
            world.write(here.observation, cited, cited)
        case "support":
            world.support(here, cited)
        case "delete" if not person:
            world.retract(here, cited)
        case "merge" if here is not other and not person:  # an update drifted onto another one, which goes
            moved = cited | {e.memory_id for e in other.observation.evidence}
            world.write(here.observation, old | cited | other.current.lineage, moved)
            world.retract(other, cited)
        case "join" if here is not other and not person:  # it would say what another says that stays
            world.support(other, cited)
            world.retract(here, cited)
        case "revert":
            told = [v for v in here.versions if v.text is not None and v.state is LIVE]
            version = told[number % len(told)]
            world.write(here.observation, version.lineage, frozenset(), by=PERSON)
        case "person":
            world.write(here.observation, cited, cited, by=PERSON)
        case "undo" if len(here.versions) > 1 and here.versions[-2].text is not None:
            back = here.versions[-2]
            world.write(here.observation, back.lineage, frozenset(), state=back.state, why=back.why, by=PERSON)
        case _:
            pass


@many
@given(steps=steps, gone=memories)
def test_nothing_that_is_told_comes_from_what_was_erased(steps: Steps, gone: Ids) -> None:
    world = lived(steps)
    world.erase(gone)
    for history in world.histories.values():
        assert not {e.memory_id for e in history.observation.evidence} & world.erased
        for version in history.versions:
            assert not set((version.text or "").split()) & world.erased


@many
@given(steps=steps, gone=memories)
def test_what_has_a_clean_version_is_not_lost(steps: Steps, gone: Ids) -> None:
    """The newest version that the erased gave neither words nor the only reason for stands; only where there is none it goes."""
    world = lived(steps)
    before = {id: h for id, h in world.histories.items() if h.observation.state is not ObservationState.ERASED}
    for history in before.values():
        outcome = erase(history, gone)
        told = [v for v in history.versions if v.text is not None]
        clean = [v for v in told if not set((v.text or "").split()) & gone and not (v.why and v.why <= gone)]
        assert (outcome.keep is None) == (not clean)
        if outcome.keep is not None:
            assert outcome.keep == clean[-1]
            if outcome.keep.number != history.current.number:  # what came later was said of another text
                assert all(e.since_version <= outcome.keep.number for e in outcome.evidence)
            served = without(history, gone)
            assert served is not None
            assert served.observation.text == outcome.keep.text
        assert set(outcome.purge) >= {v.number for v in told if tainted(v, gone)}


DELETED: Steps = [("create", 0, 0, frozenset({"m1"})), ("update", 0, 0, frozenset({"m3"})), ("delete", 0, 0, frozenset({"m2"}))]


@many
@example(steps=DELETED, gone=frozenset({"m3"}))
@given(steps=steps, gone=memories)
def test_no_memory_falls_out_of_sight(steps: Steps, gone: Ids) -> None:
    """Each memory that was cited and is not erased is evidence of something, justified something, or is told anew."""
    world = lived(steps)
    world.erase(gone)
    held = {e.memory_id for h in world.histories.values() for e in h.observation.evidence}
    justified = {m for h in world.histories.values() for v in h.versions for m in v.why | v.lineage}
    assert world.cited - world.erased <= held | justified | world.pending


@many
@given(steps=steps, gone=memories)
def test_an_erasure_repeated_changes_nothing_more(steps: Steps, gone: Ids) -> None:
    world = lived(steps)
    world.erase(gone)
    before = dict(world.histories)
    world.erase(gone)
    assert world.histories == before


def test_uncited_origins() -> None:
    others = {"m5": "Tobias: the clinic is in Southmead", "m6": "Maren: lovely weather"}
    assert uncited_origins("Tobias has a clinic at Southmead.", ["Tobias: I have news"], others) == ["m5"]
    assert uncited_origins("Tobias has news.", ["Tobias: I have news"], others) == []


def test_a_date_that_was_reckoned_comes_from_nobody_else() -> None:
    told = datetime(2026, 5, 4, 9, tzinfo=UTC)  # a Monday
    others = {"m5": "The lease runs until 2 September 2026.", "m6": "We met in May, on a Saturday."}
    moved = "Tobias moved to Easton on Saturday, 2 May 2026."
    assert uncited_origins(moved, ["Tobias: I moved to Easton two days ago"], others, [told]) == []
    ends = "Tobias has his flat in Easton until 2 September 2026."
    assert uncited_origins(ends, ["Tobias: I have a flat in Easton"], others, [told]) == ["m5"]
