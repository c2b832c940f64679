"""Relative dates that one reading alone allows, resolved against the event time. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta

from consolidator_providers.rules.lexicon import PAST, SMALL_NUMBERS, WEEKDAY, WEEKDAYS

Resolver = Callable[[re.Match[str], date], str | None]

FUTURE = re.compile(
    r"\b(?:will|shall|going to|next|tomorrow|plan\w*)\b|['\u2019]ll\b|['\u2019](?:re|m)\s+(?:not\s+)?\w+ing\b", re.IGNORECASE
)
PRESENT_PERFECT = re.compile(r"(?:\b(?:have|has|is|are|am|be)|['\u2019](?:ve|s|re|m))\s+(?:\w+ly |just |already )?\w+")
WORD = re.compile(r"[a-z']+")
COUNT = "|".join([*SMALL_NUMBERS, r"\d{1,2}"])


def with_dates(sentence: str, when: date | None, brackets: str = "()") -> str:
    """The sentence with each relative date followed by what it means, such as `last Tuesday (17 March 2026)`.

    Left alone: what two readings allow ("next Friday" said on a Monday), and anything without an event time.
    """
    if when is None:
        return sentence
    for pattern, resolve in RULES:
        def told(match: re.Match[str], resolve: Resolver = resolve) -> str:
            meaning = resolve(match, when) if match.string[match.end() : match.end() + 2] not in (" (", " [") else None
            return f"{match[0]} {brackets[0]}{meaning}{brackets[1]}" if meaning else match[0]

        sentence = pattern.sub(told, sentence)
    return sentence


def _day(value: date) -> str:
    return f"{value.day} {value:%B %Y}"


def _shifted(days: int) -> Resolver:
    return lambda _, when: _moved(when, days)


def _moved(when: date, days: int) -> str | None:
    try:
        return _day(when + timedelta(days=days))
    except OverflowError:
        return None


def _before(when: date, weekday: str) -> int:
    """Days back to the latest such weekday before `when`."""
    return (when.weekday() - WEEKDAYS.index(weekday.lower()) - 1) % 7 + 1


def _last(match: re.Match[str], when: date) -> str | None:
    return _moved(when, -_before(when, match[1]))


def _next(match: re.Match[str], when: date) -> str | None:
    ahead = 7 - _before(when, match[1]) or 7
    return _moved(when, ahead) if when.weekday() + ahead > 6 else None


def _on(match: re.Match[str], when: date) -> str | None:
    """A bare weekday leans on the tense: past and nothing else, or future and nothing else."""
    back = _before(when, match[1])
    if back == 7:
        return None
    clause = PRESENT_PERFECT.sub("", re.split(r"[,;:.!?]", match.string[: match.start()].lower())[-1])
    told = [word for word in WORD.findall(clause) if word in PAST or (word.endswith("ed") and len(word) > 4)]
    if FUTURE.search(match.string):
        return _moved(when, 7 - back) if not told else None
    return _moved(when, -back) if told else None


def _span(match: re.Match[str], when: date, sign: int) -> str | None:
    number = SMALL_NUMBERS.get(match[1].lower()) or int(match[1])
    if match[2].lower().startswith("month"):
        return _month(when, sign * number)
    if match[2].lower().startswith("year"):
        return str(when.year + sign * number)
    days = number * (7 if match[2].lower().startswith("week") else 1)
    told = _moved(when, sign * days)
    return f"about {told}" if told and days > 13 else told


def _month(when: date, months: int) -> str | None:
    index = when.year * 12 + when.month - 1 + months
    return f"{date(index // 12, index % 12 + 1, 1):%B %Y}" if 12 <= index < 119_000 else None


def _week(match: re.Match[str], when: date) -> str:
    return f"the {match[1].lower()} before {_day(when)}"


def _rule(pattern: str, resolve: Resolver) -> tuple[re.Pattern[str], Resolver]:
    return re.compile(pattern, re.IGNORECASE), resolve


RULES: tuple[tuple[re.Pattern[str], Resolver], ...] = (
    _rule(r"\bthe day before yesterday\b", _shifted(-2)),
    _rule(r"(?<!before )\b(?:yesterday|last night)\b(?! \()", _shifted(-1)),
    _rule(r"\bthe day after tomorrow\b", _shifted(2)),
    _rule(r"(?<!after )\btomorrow\b(?! \()", _shifted(1)),
    _rule(r"\ba week today\b", _shifted(7)),
    _rule(r"(?<!week )\b(?:today|this (?:morning|afternoon|evening)|tonight)\b", _shifted(0)),
    _rule(rf"\blast ({WEEKDAY})\b(?!['\u2019])", _last),
    _rule(rf"\bnext ({WEEKDAY})\b(?!['\u2019])", _next),
    _rule(rf"(?<=\bon )({WEEKDAY})\b(?!['\u2019]| the \d| \d| morning)", _on),
    _rule(rf"\bin ({COUNT}) (days?|weeks?|months?|years?)\b(?! time)", lambda match, when: _span(match, when, 1)),
    _rule(rf"\b({COUNT}) (days?|weeks?|months?|years?) ago\b", lambda match, when: _span(match, when, -1)),
    _rule(r"\blast (week|weekend)\b(?! (?:in|of|before)\b)", _week),
    _rule(r"\blast month\b", lambda _, when: _month(when, -1)),
    _rule(r"\bnext month\b", lambda _, when: _month(when, 1)),
    _rule(r"\blast year\b", lambda _, when: str(when.year - 1)),
    _rule(r"\bnext year\b", lambda _, when: str(when.year + 1)),
)
