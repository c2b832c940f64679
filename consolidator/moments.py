"""The period of event time that a question names. Pure, English, and rather silent than wrong.

Days begin at midnight in the zone of the reference, weeks on Monday, seasons are whole months of the northern half of the
earth. What names no year is the latest that is not after the reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from consolidator.clock import to_utc
from consolidator.periods import Calendar, Period, Span
from consolidator.phrases import COUNT, RULES, YEAR, Rule, count_of

LONGEST = 2_000  # characters of a question that are read
Found = tuple[datetime | None, datetime | None, int]  # start, end, and where its words end

BETWEEN = re.compile(r"(?:between|from) ", re.IGNORECASE)
APART = re.compile(rf"(the|{COUNT}) (day|week|month|year)s? (before|after) ", re.IGNORECASE)
JOINT = re.compile(r" ?(?:,|-|–|—|\band\b|\bor\b|\bto\b|\bthrough\b|\buntil\b|\btill?\b) ?(?:in |on )?", re.IGNORECASE)
LISTED = re.compile(r",|and|or", re.IGNORECASE)
LEAD = re.compile(
    r"(?:(since|before|prior to|after|until|till|up to|by|in|during|on|over|at|throughout|within|from|for|around) )?"
    r"((?:the |very |early |late |earlier |later |mid[- ]?|year (?:of )?(?=[0-9])|"
    r"(?:beginning|start|middle|end|first half|second half|month|course) of ){0,4})",
    re.IGNORECASE,
)
INSIDE = re.compile(r"\b(?:early|late|mid|(?:beginning|start|middle|end|half|month|course) of|year)\b", re.IGNORECASE)
AT_ITS_END = re.compile(r"\b(?:late|mid|middle|end|second half)\b", re.IGNORECASE)
EXCLUDED = re.compile(
    r"\b(?:not|except|excluding|besides|than|least|most|over|under|nearly|almost)(?: for| from| in)? $", re.IGNORECASE
)
TITLED = re.compile(r"(?:\b(?:song|film|movie|book|novel|album|band|titled) |[\"“‘]|(?<!\w)')$", re.IGNORECASE)
WORD = re.compile(r"(?<![\w$€£#.,:/'-])[\w']")
NOW = re.compile(r"(?:now|today)\b", re.IGNORECASE)
MOMENT = timedelta(seconds=1)
THE_MOMENT = Rule(NOW, lambda _, calendar: Span(calendar.now - MOMENT, calendar.now))


class Reading(NamedTuple):
    """A period that was read, with the way it was named."""

    span: Span
    rule: Rule
    match: re.Match[str]

    @property
    def floating(self) -> bool:
        """Whether it names no year, and so depends on when it is said."""
        return self.rule.floats and not re.search(YEAR, self.match[0])

    def said_at(self, now: datetime) -> Reading | None:
        span = self.rule.span(self.match, Calendar(now))
        return self._replace(span=span) if span else None


def asked_period(query: str, reference: datetime) -> Period | None:
    """The period that a question names, counted from a reference time.

    Of several periods that overlap, what they share ("in March" and "last year"); of several that do not, none.
    Raises ValueError for a reference without a zone.
    """
    to_utc(reference)
    text = " ".join(query[:LONGEST].replace("’", "'").split())
    start: datetime | None = None
    end: datetime | None = None
    for since, until, _ in _bounds(text, Calendar(reference)):
        start = max(start, since) if start and since else start or since
        end = min(end, until) if end and until else end or until
    try:
        return Period(start=start, end=end)
    except (ValueError, OverflowError):  # nothing named, periods that exclude each other, or beyond what UTC can say
        return None


def _bounds(text: str, calendar: Calendar) -> Iterator[Found]:
    """Each period that the text names, from left to right."""
    at = 0
    while word := WORD.search(text, at):
        found = next(filter(None, (read(text, word.start(), calendar) for read in (_between, _apart, _led))), None)
        at = max(word.end(), found[2]) if found else word.end()
        if found:
            yield found


def _read(text: str, lead: re.Match[str] | None, word: str, calendar: Calendar) -> Reading | None:
    """What is named at the end of its lead, the most exact way first."""
    if lead is None:
        return None
    word = "inside" if INSIDE.search(lead[2]) else word
    for rule in RULES:
        match = rule.pattern.match(text, lead.end()) if rule.leads is None or word in rule.leads else None
        if match and (span := rule.span(match, calendar)):
            return Reading(span, rule, match)
    return None


def _second(text: str, first: Reading, calendar: Calendar) -> tuple[re.Match[str], Reading] | None:
    """What is joined to a period, as in "March and May", with the word that joins them."""
    joint = JOINT.match(text, first.match.end())
    if not joint:
        return None
    if now := NOW.match(text, joint.end()):
        return joint, Reading(Span(calendar.now - MOMENT, calendar.now), THE_MOMENT, now)
    second = _read(text, LEAD.match(text, joint.end()), "between", calendar)
    return (joint, second) if second else None


def _between(text: str, at: int, calendar: Calendar) -> Found | None:
    opened = BETWEEN.match(text, at)
    first = _read(text, LEAD.match(text, opened.end()), "between", calendar) if opened else None
    joined = _second(text, first, calendar) if first else None
    return _hull(first, joined[1]) if first and joined else None


def _hull(first: Reading, second: Reading) -> Found | None:
    """From the one to the end of the other. What lacks its year is moved to where it makes them follow each other."""
    try:
        if first.floating:
            first = first.said_at(second.span.end - MOMENT) or first
        elif second.floating:
            second = second.said_at(first.span.start + timedelta(days=366) - MOMENT) or second
    except OverflowError:
        return None
    if first.span.start > second.span.start:
        return None
    return first.span.start, second.span.end, second.match.end()


def _apart(text: str, at: int, calendar: Calendar) -> Found | None:
    """As long before or after something that is dated: "the week before 5 May", "two months after March 2024"."""
    told = APART.match(text, at)
    reading = _read(text, LEAD.match(text, told.end()), "before", calendar) if told else None
    if not told or not reading or EXCLUDED.search(text[max(0, at - 30) : at]):
        return None
    (start, end), unit, after = reading.span, told[2].lower(), told[3].lower() == "after"
    try:
        if told[1].lower() == "the":
            span = Calendar(end if after else start).rolling(1, unit, ahead=after)
        elif (count := count_of(told[1])) is not None:
            span = Calendar(start).back(-count if after else count, unit)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return span.start, span.end, reading.match.end()


def _led(text: str, at: int, calendar: Calendar) -> Found | None:
    """A period with the word before it, which may open it on one side: since, before, after, until."""
    lead = LEAD.match(text, at)
    if not lead or EXCLUDED.search(text[max(0, at - 30) : at]) or TITLED.search(text[max(0, lead.end() - 12) : lead.end()]):
        return None
    word = (lead[1] or "").lower()
    reading = _read(text, lead, word, calendar)
    if reading is None:
        return None
    (start, end), stop, at_its_end = reading.span, reading.match.end(), AT_ITS_END.search(lead[2])
    if word in ("before", "prior to"):
        return None, end if at_its_end else start, stop
    if word in ("until", "till", "up to", "by"):
        return None, end, stop
    if word in ("since", "after"):
        return start if at_its_end or word == "since" else end, None, stop
    return _listed(text, reading, calendar) or (start, end, stop)


def _listed(text: str, first: Reading, calendar: Calendar) -> Found | None:
    """Two periods in one breath: "in March or April", "2022 and 2023", "3 May to 7 June"."""
    joined = _second(text, first, calendar)
    if joined is None or (LISTED.search(joined[0][0]) and joined[1].rule.resolve is not first.rule.resolve):
        return None
    return _hull(first, joined[1])
