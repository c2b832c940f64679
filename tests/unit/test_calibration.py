"""Whether what was called certain proves true: verdicts, bands, intervals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolidator.calibration import BANDS, Calibration, Trial, calibration, wilson
from consolidator.engine import Bank
from consolidator.measure import Measure
from consolidator.records import project_scope
from consolidator.testing import ScriptedProposer
from tests.conftest import Open
from tests.learnt import ANY_CONFIDENCE, Learner


@pytest.fixture
async def bank(open_engine: Open) -> AsyncIterator[Bank]:
    async with open_engine(consolidation=ANY_CONFIDENCE) as engine:
        yield engine.bank("alice")


@pytest.fixture
def learner(bank: Bank, script: ScriptedProposer) -> Learner:
    return Learner(bank, script)


def tried(*rows: tuple[float, int, int]) -> list[Trial]:
    """(confidence, how many were confirmed, how many contradicted)"""
    verdicts: list[tuple[float, Any]] = []
    for confidence, yes, no in rows:
        verdicts += [(confidence, "confirmed")] * yes + [(confidence, "contradicted")] * no
    return [Trial(id=str(n), confidence=confidence, verdict=verdict) for n, (confidence, verdict) in enumerate(verdicts)]


def test_facts_of_high_confidence_prove_true_more_often() -> None:
    """D.4, test 4."""
    told = calibration(tried((0.95, 19, 1), (0.8, 8, 2), (0.6, 5, 5), (0.3, 1, 4)))
    assert (told.rises, told.reason, told.tested, told.items) == (True, None, 45, 45)
    assert [band.rate for band in told.bands] == [0.95, 0.8, 0.5, 0.2]
    assert calibration(tried((0.95, 5, 5), (0.6, 9, 1))).rises is False
    assert calibration(tried((0.95, 5, 5), (0.6, 5, 5))).rises is False, "equal is not rising"


def test_too_little_is_said_to_be_too_little() -> None:
    few = calibration(tried((0.95, 4, 0), (0.6, 5, 5)))
    assert (few.rises, few.bands[0].rate) == (None, 1.0)
    assert few.reason == "too little is known: two bands need 5 tested items each, and 1 of 4 has them"
    none = calibration([Trial(id="1", confidence=0.9, verdict="untested")])
    assert (none.items, none.tested, none.brier, none.bands[0].n, none.bands[0].rate) == (1, 0, None, 1, None)
    assert calibration([]) == Calibration(bands=none.bands[:0] + calibration([]).bands, reason=none.reason)


@pytest.mark.parametrize(("confidence", "band"), [(1.0, 0), (0.9, 0), (0.89, 1), (0.7, 1), (0.5, 2), (0.49, 3), (0.0, 3)])
def test_the_lower_end_belongs_to_a_band(confidence: float, band: int) -> None:
    told = calibration([Trial(id="1", confidence=confidence, verdict="confirmed")])
    assert [found.n for found in told.bands] == [int(n == band) for n in range(len(BANDS))]


def test_brier_is_the_mean_squared_error() -> None:
    assert calibration(tried((0.9, 1, 1))).brier == pytest.approx((0.01 + 0.81) / 2)


TABLE = [(0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0), (5, 10, 0.237, 0.763), (81, 263, 0.255, 0.366)]


@pytest.mark.parametrize(("hits", "n", "low", "high"), TABLE)
def test_wilson_as_in_the_tables(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=1e-3)


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_holds_the_rate(n: int, share: float) -> None:
    hits = round(n * share)
    found = wilson(hits, n)
    assert found is not None
    assert 0 <= found[0] <= hits / n <= found[1] <= 1
    assert wilson(0, 0) is None


async def test_later_sources_confirm_or_contradict(bank: Bank, learner: Learner) -> None:
    await learner.learn("Port 5433 is the ledger's.", confidence=0.9)
    await learner.learn("Port 5433 is the ledger's.", [("s2", 0)], confidence=0.5)
    wrong = await learner.learn("Node 16 is enough for web.", [("s1", 5)], confidence=0.8)
    await learner.learn("Node 20 is needed for web.", [("s3", 0)], confidence=0.6, contests=wrong)
    corrected = await learner.learn("CI runs on Debian 11.", confidence=0.95)
    await bank.correct(corrected.id, "CI runs on Debian 12.")
    told = await Measure(bank._parts).calibration("alice")
    by_band = [(band.n, band.confirmed, band.contradicted) for band in told.bands]
    assert by_band == [(2, 1, 1), (1, 0, 1), (1, 0, 0), (0, 0, 0)], "its first confidence counts, whatever was said later"
    assert told.brier == pytest.approx((0.01 + 0.95**2 + 0.64) / 3)


async def test_d26_a_source_that_repeats_itself_confirms_nothing(bank: Bank, learner: Learner) -> None:
    await learner.learn("Port 5433 is the ledger's.", [("s1", 3)])
    await learner.learn("Port 5433 is the ledger's.", [("s1", 1)])
    assert (await Measure(bank._parts).calibration("alice")).tested == 0


async def test_what_a_session_had_confirmed_goes_with_it(bank: Bank, learner: Learner) -> None:
    """D28."""
    for source in ("s1", "s2"):
        await learner.learn("Port 5433 is the ledger's.", [(source, 1)], tags=project_scope(None))
    assert (await Measure(bank._parts).calibration("alice")).tested == 1
    await bank.forget(source="s2")
    assert (await Measure(bank._parts).calibration("alice")).tested == 0
