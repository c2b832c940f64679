"""The trend's worked examples, row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolidator.models import Evidence, Trend
from consolidator.trends import trend_of

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def points(*ages: float, source: str | None = None) -> list[Evidence]:
    return [
        Evidence(memory_id=f"m{n}", source=source or f"s{n}-{age}", occurred_at=NOW - timedelta(days=age))
        for n, age in enumerate(ages)
    ]


EXAMPLES = {
    "none": (points(), "stale"),
    "5": (points(5), "new"),
    "30 exactly": (points(30), "stale"),
    "10 in the future": (points(-10), "stale"),
    "1, 5, 20": (points(1, 5, 20), "new"),
    "0 and 31": (points(0, 31), "stable"),
    "0 and 365": (points(0, 365), "stable"),
    "1 to 10 daily, and 100": (points(*range(1, 11), 100), "strengthening"),
    "5, 20, 40, 50, 70, 80": (points(5, 20, 40, 50, 70, 80), "stable"),
    "15, 60, then each 10 from 70 to 150": (points(15, 60, *range(70, 151, 10)), "weakening"),
    "1, 40, 50": (points(1, 40, 50), "stable"),
    "1, 40, 50, 60": (points(1, 40, 50, 60), "weakening"),
    "1, 16, 31, 46": (points(1, 16, 31, 46), "stable"),
    "every 15 from 1 to 166": (points(*range(1, 167, 15)), "stable"),
    "every 7 from 1 to 57": (points(*range(1, 58, 7)), "stable"),
    "every 7 from 1 to 358": (points(*range(1, 359, 7)), "stable"),
    "daily from 0 to 364": (points(*range(365)), "stable"),
    "every 30 from 5 to 725": (points(*range(5, 726, 30)), "stable"),
    "every 91 from 5 to 642": (points(*range(5, 643, 91)), "stable"),
    "every 7 from 25 to 361": (points(*range(25, 362, 7)), "weakening"),
    "every 7 from 1 to 358, and 3, 10, 17, 24": (points(*range(1, 359, 7), 3, 10, 17, 24), "strengthening"),
    "10 sources at 300, one at 1": (points(*[300] * 10, 1), "stable"),
    "10 chunks of one source at 40, another at 0": ([*points(*[40] * 10, source="a"), *points(0, source="b")], "stable"),
    "one source 5 times at 0, another at 60": ([*points(*[0] * 5, source="a"), *points(60, source="b")], "stable"),
    "one source at 400, 200 and 3": (points(400, 200, 3, source="a"), "stable"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_example(name: str) -> None:
    evidence, expected = EXAMPLES[name]
    assert trend_of(evidence, NOW) == expected


def test_contradicting_evidence_is_no_support() -> None:
    """F-7."""
    against = points(1)[0].model_copy(update={"supports": False})
    assert trend_of([against], NOW) is Trend.STALE


@given(st.lists(st.tuples(st.floats(-50, 800), st.integers(0, 5)), max_size=30), st.randoms())
def test_neither_order_nor_repeats_matter(raw: list[tuple[float, int]], chance: object) -> None:
    """F-4: a replay or a second chunk of a source at the same time changes nothing."""
    evidence = [Evidence(memory_id=str(n), source=str(s), occurred_at=NOW - timedelta(days=a)) for n, (a, s) in enumerate(raw)]
    shuffled = [*evidence, *evidence]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert trend_of(shuffled, NOW) == trend_of(evidence, NOW)
