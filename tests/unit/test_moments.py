"""Moments: the period that a question names, and how near a time is to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consolidator.moments import LONGEST, asked_period
from consolidator.periods import Period, closeness

NOW = datetime(2026, 6, 17, 15, 30, tzinfo=UTC)  # a Wednesday

NAMED = {  # question: start/end as dates or times, either side may be open
    # days
    "What did I eat yesterday?": "2026-06-16/2026-06-17",
    "Who called yesterday evening?": "2026-06-16T18/2026-06-17",
    "what did we decide this morning": "2026-06-17T05/2026-06-17T12",
    "What did she say last night?": "2026-06-16T18/2026-06-17T06",
    "What is on for today?": "2026-06-17/2026-06-18",
    "What happened the day before yesterday?": "2026-06-15/2026-06-16",
    "What is she doing tomorrow?": "2026-06-18/2026-06-19",
    "What did we discuss on Monday?": "2026-06-15/2026-06-16",
    "Where was Ana last Friday?": "2026-06-12/2026-06-13",
    "Where was Ana last Wednesday?": "2026-06-10/2026-06-11",
    "What did Bob cook on Sunday evening?": "2026-06-14T18/2026-06-15",
    "Who came on Tuesday last week?": "2026-06-09/2026-06-10",
    "what happened last week on friday": "2026-06-12/2026-06-13",
    # counted back
    "What did she do 3 days ago?": "2026-06-14/2026-06-15",
    "Where was he two weeks ago?": "2026-05-31/2026-06-07",
    "What was I reading a couple of weeks ago?": "2026-05-31/2026-06-07",
    "What did he buy a few days ago?": "2026-06-12/2026-06-16",
    "Where did she work five months ago?": "2026-01-01/2026-02-01",
    "Where did she work a year ago?": "2025-01-01/2026-01-01",
    "Who rang an hour ago?": "2026-06-17T14/2026-06-17T15",
    "What has changed over the past month?": "2026-05-17T15:30/2026-06-17T15:30",
    "What did we do in the last two weeks?": "2026-06-03T15:30/2026-06-17T15:30",
    "How did she sleep during the last week?": "2026-06-10T15:30/2026-06-17T15:30",
    "What has he read in the past 6 months?": "2025-12-17T15:30/2026-06-17T15:30",
    # weeks, months, years, seasons
    "What did we plan last week?": "2026-06-08/2026-06-15",
    "What is due this week?": "2026-06-15/2026-06-22",
    "What did they do last weekend?": "2026-06-13/2026-06-15",
    "What did they do over the weekend?": "2026-06-13/2026-06-15",
    "How much did I run last month?": "2026-05-01/2026-06-01",
    "Who left the company last year?": "2025-01-01/2026-01-01",
    "What did she learn earlier this year?": "2026-01-01/2027-01-01",
    "What about the year before last?": "2024-01-01/2025-01-01",
    "Where did we travel last spring?": "2026-03-01/2026-06-01",
    "Where did Ana move last summer?": "2025-06-01/2025-09-01",
    "What are the plans for this summer?": "2026-06-01/2026-09-01",
    "Where was she last winter?": "2025-12-01/2026-03-01",
    "Who got married in the fall?": "2025-09-01/2025-12-01",
    "What did we see in the summer of 2023?": "2023-06-01/2023-09-01",
    "Which races did he run in autumn 2024?": "2024-09-01/2024-12-01",
    "where did he live in winter 2023": "2023-12-01/2024-03-01",
    # months
    "When did she move in March?": "2026-03-01/2026-04-01",
    "Who visited in July?": "2025-07-01/2025-08-01",
    "what happened in june": "2026-06-01/2026-07-01",
    "What did she do in may?": "2026-05-01/2026-06-01",
    "What was sold in March 2025?": "2025-03-01/2025-04-01",
    "What was sold in March of last year?": "2025-03-01/2025-04-01",
    "Who was hired last year in October?": "2025-10-01/2025-11-01",
    "What happened last March?": "2026-03-01/2026-04-01",
    "Which trips did they take in early September?": "2025-09-01/2025-10-01",
    "What did he promise at the end of May?": "2026-05-01/2026-06-01",
    "What happened on 31 February 2024?": "2024-02-01/2024-03-01",
    "How were sales in Q3 2024?": "2024-07-01/2024-10-01",
    # days of a month
    "What did Bob say on 5 May?": "2026-05-05/2026-05-06",
    "What did Bob say on 5 November?": "2025-11-05/2025-11-06",
    "Who came on May 5th, 2024?": "2024-05-05/2024-05-06",
    "Who came on the 5th of May?": "2026-05-05/2026-05-06",
    "What happened on Monday, 5 May 2025 in the office?": "2025-05-05/2025-05-06",
    "what happened on 2024-02-29": "2024-02-29/2024-03-01",
    "Who was born on 29 February?": "2024-02-29/2024-03-01",
    "Where was she May 3-7, 2025?": "2025-05-03/2025-05-08",
    "Where was she from 3 to 7 April?": "2026-04-03/2026-04-08",
    "Show the notes of 05.03.2024": "2024-03-05/2024-03-06",
    "Show the notes of 3/25/2024": "2024-03-25/2024-03-26",
    # years
    "What did I learn in 2023?": "2023-01-01/2024-01-01",
    "2023": "2023-01-01/2024-01-01",
    "What were my 2023 goals?": "2023-01-01/2024-01-01",
    "Where did she live in the early 1990s?": "1990-01-01/2000-01-01",
    "In 2023 his sister moved; where?": "2023-01-01/2024-01-01",
    # from here on, up to there
    "What has she done since January?": "2026-01-01/",
    "What has she done since last week?": "2026-06-08/",
    "Where did he work before 2024?": "/2024-01-01",
    "Which books had I read by 2020?": "/2021-01-01",
    "Where did she live until last week?": "/2026-06-15",
    "What happened after March?": "2026-04-01/",
    "What was done before the end of March?": "/2026-04-01",
    "What changed since two weeks ago?": "2026-05-31/",
    "Where was Tim in the week before 16 November 2023?": "2023-11-09/2023-11-16",
    "Whom did Maria meet two weeks before August 11, 2023?": "2023-07-25/2023-08-01",
    "Where did he work a year after 2020?": "2021-01-01/2022-01-01",
    "What did she do the month after March 2024?": "2024-04-01/2024-05-01",
    "What did she do a few days before March 2024?": "/2024-03-01",
    # from one to another
    "What did we do between March and May?": "2026-03-01/2026-06-01",
    "What did we do between November and February?": "2025-11-01/2026-03-01",
    "What did we do between March and May 2024?": "2024-03-01/2024-06-01",
    "What was sold from March 2024 to May?": "2024-03-01/2024-06-01",
    "Where did he work from 2019 to 2022?": "2019-01-01/2023-01-01",
    "Where did he work 2019-2022, and as what?": None,  # a range, a product, a score: not said
    "What happened from last Monday until yesterday?": "2026-06-15/2026-06-17",
    "What happened between last week and now?": "2026-06-08/2026-06-17T15:30",
    "Who joined in 2022 or 2023?": "2022-01-01/2024-01-01",
    "Who joined in March or April?": "2026-03-01/2026-05-01",
    "Who joined after 2020 and before 2023?": "2021-01-01/2023-01-01",
}

TRAPS = [  # look like dates, or name two that exclude each other
    "Where does Alice live?", "How long has she been a nurse?", "When did they meet?", "What did she do recently?",
    "You may want to know which dog he has", "May I see her notes?", "Who may 5 people call?", "What might she do, may I ask?",
    "Did they march 5 miles?", "Which march in Washington did he join?", "Does Theresa May like tea?", "What did April say?",
    "What did she get from April?", "Did she confide in June?", "What is in April's room?", "Who called before May left?",
    "Who wrote to August?", "What was written by June?", "What is Jan's job?",
    "Which spring mattress did she buy?", "Who wore this spring dress?", "What makes her fall asleep?",
    "Did he fall in the bath?",
    "What did she cook: last spring rolls?", "Which summer camp does he like?", "Is winter her best season?",
    "Who came second?", "What was the second book?", "Wait a second", "Which day is best?",
    "How many of the 2000 steps are done?", "Did 2023 people come?", "How far is it in 2000 metres?",
    "What does it cost in 2023 dollars?",
    "What is in room 2023?", "Which Windows 2000 server?", "Does he like 2001: A Space Odyssey?", "Has she read 1984 by Orwell?",
    "Who pays $2023 a month?", "How many points in 2048?", "Did he sell it for 2000?",
    "What is open 24/7?", "Was it version 3.5.2024b?", "What happened on 03/04/2024?", "What happened on 31/02/2024?",
    "Who sings the song Yesterday?", "Who sings 'Last Christmas'?", "Does she like the film \"Last summer\"?",
    "What was the last book she read?", "When did she last swim?", "On the last day of school?", "The last week of what?",
    "Does she work on Mondays?", "What does she do next?", "A long time ago?", "How many days ago?",
    "What did she do more than two years ago?", "What did we do in 2021, and what in March 2025?", "What else, except in March?",
    "Who lives at 5 March Street?", "What is a weekend of hers like?", "Is it 10 to 12?", "the 5th of them", "", "    ", "?",
    "What did we decide on Wednesday?", "Is next Friday free or the one after?", "year 20233", "12.13.14", "in 2023%",
]


def told(period: Period | None) -> str | None:
    if period is None:
        return None
    return "/".join(side.isoformat() if side else "" for side in (period.start, period.end))


def expected(text: str) -> Period:
    sides = [datetime.fromisoformat(side).replace(tzinfo=UTC) if side else None for side in text.split("/")]
    return Period(start=sides[0], end=sides[1])


@pytest.mark.parametrize(("question", "period"), NAMED.items())
def test_what_a_question_names(question: str, period: str | None) -> None:
    assert told(asked_period(question, NOW)) == told(expected(period) if period else None)


@pytest.mark.parametrize("question", TRAPS)
def test_what_only_looks_like_a_date(question: str) -> None:
    assert told(asked_period(question, NOW)) is None


ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-11)), timezone(timedelta(hours=14)), ZoneInfo("Europe/Berlin")])


@given(st.text(max_size=300), st.datetimes(timezones=ZONES))
def test_no_text_is_too_odd(question: str, now: datetime) -> None:
    asked_period(question, now)


WORDS = st.sampled_from([
    "between", "from", "since", "before", "until", "in", "on", "the", "last", "this", "next", "past", "and", "to", "or", ",",
    "may", "March", "5th", "31", "2024", "1999", "monday", "week", "weekend", "year", "summer", "winter", "fall", "ago", "two",
    "999", "days", "decades", "months", "early", "end", "of", "Q4", "1990s", "2024-02-30", "after",
    "yesterday", "morning", "now", "-",
])


@given(st.lists(WORDS, max_size=9), st.datetimes(timezones=ZONES))
@example(["999", "decades", "ago"], NOW)
@example(["last", "year"], datetime(1, 1, 1, tzinfo=UTC))
@example(["next", "month"], datetime(9999, 12, 31, tzinfo=UTC))
def test_a_period_starts_before_it_ends(words: list[str], now: datetime) -> None:
    period = asked_period(" ".join(words), now)
    assert period is None or period.start is None or period.end is None or period.start < period.end


@given(st.integers(0, 999))
def test_days_ago_are_exact(days: int) -> None:
    midnight = NOW.replace(hour=0, minute=0)
    assert asked_period(f"What did I do {days} days ago?", NOW) == Period(
        start=midnight - timedelta(days=days), end=midnight - timedelta(days=days - 1)
    )


def test_days_are_those_of_the_one_who_asks() -> None:
    late = datetime(2026, 6, 17, 1, 0, tzinfo=ZoneInfo("Asia/Tokyo"))
    period = asked_period("What did I eat yesterday?", late)
    assert told(period) == "2026-06-15T15:00:00+00:00/2026-06-16T15:00:00+00:00"


def test_a_reference_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="zone"):
        asked_period("yesterday", datetime(2026, 6, 17))


def test_only_the_beginning_of_a_very_long_text_is_read() -> None:
    assert asked_period("word " * LONGEST + "yesterday", NOW) is None


def test_a_period_is_bounded_and_in_order() -> None:
    with pytest.raises(ValueError, match="at least one side"):
        Period()
    with pytest.raises(ValueError, match="before it ends"):
        Period(start=NOW, end=NOW)


DAY = timedelta(days=1)
SPANS = st.builds(lambda length: Period(start=NOW, end=NOW + length), st.timedeltas(DAY / 24, 1000 * DAY))
OPEN = st.sampled_from([Period(start=NOW), Period(end=NOW)])


@given(SPANS | OPEN, st.timedeltas(-2000 * DAY, 2000 * DAY))
def test_closeness_is_a_share_and_1_inside(period: Period, away: timedelta) -> None:
    time = NOW + away
    inside = (period.start is None or period.start <= time) and (period.end is None or time < period.end)
    assert 0 <= closeness(time, period) <= 1
    assert not inside or closeness(time, period) == 1


@given(SPANS, st.lists(st.timedeltas(timedelta(), 200 * DAY), min_size=2, max_size=6))
def test_closeness_falls_with_the_distance_on_both_sides_alike(period: Period, gaps: list[timedelta]) -> None:
    assert period.start
    assert period.end
    for near, far in pairwise(sorted(gaps)):
        assert closeness(period.end + near, period) >= closeness(period.end + far, period)
    assert closeness(period.start - gaps[0], period) == pytest.approx(closeness(period.end + gaps[0], period))


def test_how_closeness_falls() -> None:
    day = Period(start=NOW, end=NOW + DAY)
    month, year = Period(start=NOW, end=NOW + 30 * DAY), Period(start=NOW, end=NOW + 365 * DAY)
    assert closeness(NOW - DAY / 2, day) == pytest.approx(0.5)
    assert closeness(NOW - DAY, day) == closeness(NOW + 40 * DAY, day) == 0
    assert closeness(NOW - 15 * DAY, month) == pytest.approx(0.5)
    assert closeness(NOW - 45 * DAY, year) == pytest.approx(0.5)
    assert closeness(NOW - 90 * DAY, year) == 0
    assert closeness(NOW - 15 * DAY, Period(start=NOW)) == pytest.approx(0.5)
