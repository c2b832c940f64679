"""The measures: each by hand on a small history, over any window, and unknown where nothing is known."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolidator.calibration import Trial, calibration
from consolidator.engine import Bank
from consolidator.holdings import Attempt
from consolidator.measure import Measure, dashboard
from consolidator.models import Evidence, Observation
from consolidator.records import SessionRecord, project_scope
from consolidator.tallies import NAMED, Figure, Measurement, Measures, gathered, measured, measures
from consolidator.testing import ScriptedProposer
from tests.conftest import NOW, Open
from tests.learnt import ANY_CONFIDENCE, Learner, ago


@pytest.fixture
async def bank(open_engine: Open) -> AsyncIterator[Bank]:
    async with open_engine(consolidation=ANY_CONFIDENCE) as engine:
        yield engine.bank("alice")


@pytest.fixture
def learner(bank: Bank, script: ScriptedProposer) -> Learner:
    return Learner(bank, script)


def ran(session: str, days: float, *, last: int = 9, **fields: Any) -> SessionRecord:
    return SessionRecord.model_validate({"session": session, "first": 0, "last": last, "digest": "", "at": ago(days), **fields})


def knows(id: str, *days: float, project: str | None = "shop") -> Observation:
    evidence = tuple(Evidence(memory_id=f"{id}{n}", source=f"{id}{n}", occurred_at=ago(age)) for n, age in enumerate(days))
    told = {"bank": "alice", "text": id, "category": "fact", "confidence": 0.9, "created_at": NOW, "updated_at": NOW}
    return Observation.model_validate({**told, "id": id, "tags": project_scope(project), "evidence": evidence})


def of(
    *records: SessionRecord, attempts: tuple[Attempt, ...] = (), items: tuple[Observation, ...] = (), days: float | None = None
) -> Measures:
    return measures(gathered(records, attempts, items), since=None if days is None else ago(days), until=NOW)


def tried(task: str, score: float, days: float) -> Attempt:
    return Attempt(episode=f"{task}{days}", task=task, score=score, at=ago(days))


def test_d07_unknown_is_not_nought() -> None:
    told = of()
    assert {named.field: getattr(told, named.field) for named in NAMED} == {named.field: Figure() for named in NAMED}
    assert told.recurrence_change.value is None
    assert told.age_mean.value is None


def test_velocity_by_the_day_and_by_the_million_tokens() -> None:
    told = of(ran("a", 10, tokens=400_000), ran("b", 2, tokens=100_000), items=(knows("x", 10), knows("y", 4, 1), knows("z", 1)))
    assert told.velocity == Figure(value=0.3, n=3)
    assert told.per_million == Figure(value=6.0, n=500_000)
    late = of(ran("b", 2, tokens=100_000), items=(knows("x", 10), knows("y", 4, 1)), days=5)
    assert (late.velocity, late.per_million) == (Figure(value=0.2, n=1), Figure(value=10.0, n=100_000))
    assert of(ran("b", 2), days=5).velocity == Figure(value=0.0, n=0), "a session that taught nothing is known"
    assert of(ran("b", 2), days=1).velocity == Figure(value=None, n=0), "and no session is not"


def test_coverage_counts_projects_with_ten_items_that_are_given_out() -> None:
    items = [knows(f"a{n}", 1) for n in range(10)] + [knows(f"b{n}", 1, project="mobile") for n in range(9)]
    weekly = [ran(f"s{n}", n * 7, project="mobile") for n in range(30)]
    others = (knows("old", 200, project="mobile"), knows("all", 1, project=None))
    told = of(ran("s", 1, project="web"), *weekly, items=(*items, *others))
    assert told.coverage == Figure(value=1 / 3, n=3)
    assert told.projects == {"mobile": 9, "shop": 10, "web": 0}
    assert (told.items, told.archived) == (20, 1)


def test_hits_are_briefed_items_that_were_used() -> None:
    told = of(
        ran("a", 3, briefed=("k1", "k2", "k3"), used=("k1",)), ran("a", 2, last=20, briefed=("k1", "k2", "k3"), used=("k2",)),
        ran("b", 1, briefed=("k1",), used=("other",)), ran("c", 1, used=("k1",)),
    )
    assert told.hits == Figure(value=0.5, n=4)
    assert told.hit_sessions == Figure(value=0.5, n=2)


def test_errors_that_an_earlier_session_had_met() -> None:
    records = (
        ran("a", 9, errors=("e1", "e2")), ran("b", 7, errors=("e1", "e3")), ran("c", 2, errors=("e4",)),
        ran("c", 1, last=20, errors=("e4",)),
    )
    told = of(*records)
    assert told.recurrence == Figure(value=0.2, n=5), "what a session meets twice had not been met before"
    assert told.recurrence_change.value == -0.25
    assert of(*records, days=8).recurrence == Figure(value=1 / 3, n=3), "what came before the window counts as before"


def test_completion_of_sessions_whose_end_is_known_with_and_without_a_briefing() -> None:
    told = of(
        ran("a", 5, outcome="success", briefed=("k",)), ran("b", 4, outcome="partial"), ran("c", 3, outcome="failure"),
        ran("d", 2), ran("e", 2, outcome="failure"), ran("e", 1, last=20, outcome="success"),
    )
    assert told.completion == Figure(value=0.5, n=4)
    assert told.completion_briefed == Figure(value=1.0, n=1)
    assert told.completion_unbriefed == Figure(value=1 / 3, n=3)


def test_attempts_and_first_tries() -> None:
    builds = (tried("build", 0.3, 9), tried("build", 0.95, 3))
    attempts = (*builds, tried("deploy", 0.85, 2), tried("deploy", 0.1, 1), tried("test", 0.84, 1))
    told = of(attempts=attempts)
    assert (told.episodes, told.first_try) == (Figure(value=0.4, n=5), Figure(value=1 / 3, n=3))
    assert of(attempts=attempts, days=5).first_try == Figure(value=0.5, n=2), "the first attempt at build lies before it"


def test_age_is_the_time_since_the_last_confirmation() -> None:
    told = of(items=(knows("x", 10), knows("y", 40, 4), knows("z", 1)))
    assert (told.age, told.age_mean) == (Figure(value=4.0, n=3), Figure(value=5.0, n=3))


def test_d22_the_series_has_a_value_for_each_of_seven_days() -> None:
    past = gathered([ran("a", 2, outcome="success"), ran("b", 0, outcome="failure")], [], [knows("x", 2)])
    days = measured(past, since=None, until=NOW).days
    assert [day.until.day for day in days] == [26, 27, 28, 29, 30, 31, 1]
    assert [day.completion.value for day in days] == [None, None, None, None, 1.0, None, 0.0]
    assert [day.items for day in days] == [0, 0, 0, 0, 1, 1, 1]
    assert [day.velocity.value for day in days][4:] == [1.0, None, 0.0]
    assert len(measured(past, since=ago(2), until=NOW).days) == 3


recorded = st.builds(
    ran, st.sampled_from("abcd"), st.floats(0, 20), last=st.integers(0, 9), tokens=st.integers(0, 9999),
    errors=st.lists(st.sampled_from("xyz")).map(tuple), briefed=st.lists(st.sampled_from("klm")).map(tuple),
    used=st.lists(st.sampled_from("klm")).map(tuple), outcome=st.sampled_from(["success", "failure", "partial", "unknown"]),
    project=st.sampled_from(["", "shop", "a|b\n#"]),
)


known = st.builds(knows, st.sampled_from("pq"), st.floats(0, 30))


@given(st.lists(recorded, max_size=8), st.lists(known, max_size=4), st.floats(0, 25))
def test_shares_are_shares_and_all_of_it_can_be_written(
    records: list[SessionRecord], items: list[Observation], days: float
) -> None:
    told = measured(gathered(records, [], items), since=ago(days), until=NOW)
    for one in (told.whole, *told.days):
        for named in NAMED:
            figure = getattr(one, named.field)
            assert figure.value is None or figure.value >= 0
            assert not named.share or figure.value is None or figure.value <= 1
    assert Measurement.model_validate(json.loads(told.model_dump_json())) == told
    rows = [line for line in dashboard(told).splitlines() if line.startswith("| ")]
    assert {row.count("|") for row in rows} <= {3, 4, 2 + len(told.days)}


# from the stores


async def test_d22_measured_from_the_stores_alone(bank: Bank, learner: Learner) -> None:
    first = await learner.learn("The ledger listens on port 5433.", [("s1", 3)])
    await learner.session("s1", 3, tokens=50_000, errors=("e1",), outcome="failure")
    await learner.session("s2", 1, tokens=50_000, errors=("e1",), outcome="success", briefed=(first.id,), used=(first.id,))
    await learner.attempt("e1", 2, 0.9)
    await bank.retain("Not a record.", source="s3", metadata={"lesson": {"role": "session", "about": "shop", "first": "no"}})
    told = (await Measure(bank._parts).measure("alice")).whole
    assert (told.sessions, told.attempts, told.items) == (2, 1, 1)
    assert (told.hits.value, told.recurrence.value, told.completion.value, told.episodes.value) == (1.0, 0.5, 0.5, 1.0)
    assert told.per_million.value == 10.0
    assert (await Measure(bank._parts).measure("bob")).whole.sessions == 0


async def test_what_is_forgotten_is_not_measured(bank: Bank, learner: Learner) -> None:
    await learner.learn("The ledger listens on port 5433.", [("s1", 3)])
    await learner.session("s1", 3, outcome="failure")
    assert await bank._parts.ledger.claim("alice", "another", 600)
    assert (await bank.forget(source="s1")).state == "accepted"
    told = (await Measure(bank._parts).measure("alice")).whole
    assert (told.sessions, told.items, told.velocity.value) == (0, 0, None)


async def test_d01_the_dashboard_says_it_in_markdown(bank: Bank, learner: Learner) -> None:
    await learner.learn("The ledger listens on port 5433.", [("s1", 3)])
    await learner.session("s1", 3, outcome="success", project="shop|x\n# Big")
    service = Measure(bank._parts)
    told = dashboard(await service.measure("alice", since=ago(5)), await service.calibration("alice"))
    assert "| Sessions that succeeded | 100% | 1 sessions with a known end |" in told
    assert "| Sessions that used their briefing | – | 0 briefed sessions |" in told
    assert "| shop¦x # Big | 0 |" in told
    assert "Not known: too little is known" in told
    tested = calibration([Trial(id="1", confidence=0.9, verdict="confirmed")])
    assert "Brier score 0.010" in dashboard(Measurement(whole=Measures(until=NOW)), tested)


def test_a_day_later_nothing_of_the_window_has_moved() -> None:
    past = gathered([ran("a", 2, outcome="success")], [tried("build", 0.9, 2)], [knows("x", 2)])
    at = ago(1)
    assert measured(past, since=ago(4), until=at).whole == measured(
        gathered([ran("a", 2, outcome="success"), ran("b", 0)], [tried("build", 0.9, 2)], [knows("x", 2), knows("y", 0)]),
        since=ago(4), until=at,
    ).whole
    assert at < NOW < at + timedelta(days=2)
