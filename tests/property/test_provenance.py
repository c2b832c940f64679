"""Erasure by lineage against a simple model, over any history of creates, updates, supports and retractions."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from consolidator.models import ErasureCase, Evidence, Observation, ObservationState, Version
from consolidator.plans import History
from consolidator.provenance import erase, tainted, uncited_origins

Ids = frozenset[str]
Steps = list[tuple[str, Ids]]
NOW = datetime(2026, 6, 1, tzinfo=UTC)
MEMORIES = [f"m{n}" for n in range(8)]
memories = st.frozensets(st.sampled_from(MEMORIES), min_size=1, max_size=3)
step = st.tuples(st.sampled_from(["update", "correct", "support", "retract", "restore"]), memories)


def told(steps: list[tuple[str, frozenset[str]]], first: frozenset[str]) -> History:
    """A history as the planner would write it."""
    versions = [Version(observation_id="o", number=1, text="v1", digest="", lineage=first, at=NOW)]
    since = dict.fromkeys(first, 1)
    for what, cited in steps:
        now = versions[-1]
        number = now.number + 1
        live = now.state is ObservationState.LIVE
        if what == "support" and live:
            since |= {m: now.number for m in cited if m not in since}
        elif what in ("update", "correct") and live:
            lineage = cited if what == "correct" else now.lineage | cited
            fields = {"number": number, "text": f"v{number}", "lineage": lineage, "why": frozenset()}
            versions.append(now.model_copy(update=fields))
            since |= {m: number for m in cited if m not in since}
        elif what == "retract" and live:
            versions.append(now.model_copy(update={"number": number, "state": ObservationState.RETRACTED, "why": cited}))
        elif what == "restore" and not live:
            versions.append(now.model_copy(update={"number": number, "state": ObservationState.LIVE, "why": frozenset()}))
    evidence = tuple(Evidence(memory_id=m, source=m, occurred_at=NOW, since_version=n) for m, n in since.items())
    head = Observation(
        id="o", bank="b", text=versions[-1].text or "", state=versions[-1].state, version=versions[-1].number,
        evidence=evidence, created_at=NOW, updated_at=NOW,
    )
    return History(observation=head, versions=tuple(versions))


@given(first=memories, steps=st.lists(step, max_size=8), erased=memories)
def test_what_stands_is_clean_and_nothing_clean_is_lost(first: Ids, steps: Steps, erased: Ids) -> None:
    history = told(steps, first)
    outcome = erase(history, erased)
    clean = [v for v in history.versions if not tainted(v, erased)]
    assert (outcome.keep is None) == (not clean)
    if outcome.keep is not None:
        assert outcome.keep == clean[-1]  # the newest clean version, no older one
        assert not outcome.keep.lineage & erased
    assert set(outcome.purge) >= {v.number for v in history.versions if tainted(v, erased)}
    assert not {e.memory_id for e in outcome.evidence} & erased
    assert not outcome.reopened & erased


@given(first=memories, steps=st.lists(step, max_size=8), erased=memories)
def test_no_memory_falls_out_of_sight(first: Ids, steps: Steps, erased: Ids) -> None:
    """Each memory that was cited and is not erased is evidence still, or is consolidated again."""
    history = told(steps, first)
    outcome = erase(history, erased)
    before = {e.memory_id for e in history.observation.evidence} - erased
    assert before <= {e.memory_id for e in outcome.evidence} | outcome.reopened


@given(first=memories, steps=st.lists(step, max_size=8), erased=memories)
def test_an_erasure_repeated_changes_nothing_more(first: Ids, steps: Steps, erased: Ids) -> None:
    history = told(steps, first)
    once = erase(history, erased)
    if once.keep is None or once.keep.number != history.current.number:
        return
    nothing: dict[str, object] = {"text": None, "lineage": frozenset()}
    purged = tuple(v.model_copy(update=nothing) if v.number in once.purge else v for v in history.versions)
    head = history.observation.model_copy(update={"evidence": once.evidence})
    again = erase(History(observation=head, versions=purged), erased)
    assert (again.case, again.evidence) == (ErasureCase.UNTOUCHED, once.evidence)


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
