"""The ways to name a period in English, each a pattern with what it means on a calendar. Pure.

What could as well be a number, a verb or a name ("2000 steps", "may", "April") is told apart by the words around it, and
left alone in doubt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from consolidator.periods import PARTS, SEASONS, Calendar, Span, Which
from consolidator.words import STOP

Resolver = Callable[[re.Match[str], Calendar], Span | None]

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
COUNTS = {word: number for number, word in enumerate(NUMBERS, start=1)} | {"a": 1, "an": 1, "a couple of": 2, "couple of": 2}
SOME = frozenset({"a few", "few", "several"})  # two to five
NEAR_DAYS = {"day before yesterday": -2, "yesterday": -1, "today": 0, "tomorrow": 1, "day after tomorrow": 2}
AHEAD = {"last": -1, "this": 0, "current": 0, "next": 1}
FAR = 10  # years ahead; beyond, a number such as 2048 is likelier none
AUXILIARY = STOP | frozenset({"does", "having", "went", "got", "ago", "until", "till", "since", "before", "after", "during"})
OF_A_SEASON = frozenset({"break", "holiday", "holidays", "vacation", "term", "semester", "season", "trip"})
ALSO_NAMES = frozenset({"april", "may", "june", "august", "jan", "march"})
PEOPLE = frozenset({"people", "children", "men", "women", "percent", "km", "kg"})
NO_PLURALS = frozenset({"was", "is", "has", "does", "his", "this", "as", "us", "its", "always", "perhaps", "sometimes"})

YEAR = r"(?:19|20)[0-9]{2}(?![0-9]|[.,:][0-9]|%|-[0-9]{1,2}\b)"
MONTH = (r"(?:(?:january|february|march|april|may|june|july|august|september|october|november|december)\b"
         r"|(?:jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\b\.?)")
WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
SEASON = "|".join(SEASONS)
COUNT = rf"(?:a couple of|couple of|a few|few|several|{'|'.join(NUMBERS)}|an?|[0-9]{{1,3}})"
NUMBER = r"[0-9]{1,2}(?:st|nd|rd|th)?(?![0-9a-z:%])"
PART = rf"(?: (?P<part>{'|'.join(PARTS)})\b)?"
WHEN_YEAR = rf"(?P<year>{YEAR}|(?:last|this|next)(?= year))(?: year)?"
FOLLOWING = re.compile(r"\s([^\W\d_]+(?:'[a-z]+)?)")
HUNDREDS = re.compile("00$")
PRICED = re.compile(r"\b(?:for|by|around) $")
OWNED = re.compile(r"\b(?:the|my|our|his|her|their|your|year|happened) $")
INEXACT = re.compile(r"\b(?:over|under|than|least|most|nearly|almost) $")
STREET = re.compile(r" (?:street|st|road|rd|avenue|ave|lane|drive|square)\b", re.IGNORECASE)

INTO = frozenset({"since", "before", "prior to", "after", "until", "till", "up to", "between", "inside"})
WITHIN = INTO | {"in", "during", "throughout"}
LATELY = re.compile(r"\b(?:in|over|during|within|throughout|for) the $")


@dataclass(frozen=True, slots=True)
class Rule:
    """A way to name a period. leads: the words of which one must stand before it; None: it needs none.

    floats: without a year in its words it is the latest one.
    """

    pattern: re.Pattern[str]
    resolve: Resolver
    leads: frozenset[str] | None = None
    floats: bool = False

    def span(self, match: re.Match[str], calendar: Calendar) -> Span | None:
        try:
            span = self.resolve(match, calendar)
        except (ValueError, OverflowError):  # 31 February, or a year that no calendar holds
            return None
        return span if span and span.start < span.end else None


def before(match: re.Match[str]) -> str:
    """The end of what stands before, in lower case."""
    return match.string[max(0, match.start() - 30) : match.start()].lower()


def _after(match: re.Match[str]) -> str:
    """The word that follows; none behind a mark."""
    found = FOLLOWING.match(match.string, match.end())
    return found[1] if found else ""


def _number_of(names: tuple[str, ...], told: str) -> int:
    return names.index(told[:3].lower())


def _month_of(told: str) -> int:
    return _number_of(MONTHS, told) + 1


def _is_name(match: re.Match[str], told: str) -> bool:
    """Whether a month may be a person or a verb here: April's, before May left, confide in June, in march formation."""
    follows, ahead = _after(match), before(match)
    if match.string.startswith("'s", match.end()):
        return True
    if told.lower() not in ALSO_NAMES:
        return False
    led = re.search(r"\b(?:in|during|throughout|between|from|to|and|or|of) (?:the )?$|(?:early|late|mid[- ]?) ?$", ahead)
    odd = re.search(r"\b(?:believ|confid|trust|interest|invest|faith)\w* in $", ahead)
    named = bool(follows) and follows.lower() not in AUXILIARY and (not led or told in ("may", "march"))
    return bool(odd) or named


def _is_count(match: re.Match[str]) -> bool:
    """Whether what follows is counted, or is a street."""
    follows = _after(match)
    plural = follows.islower() and follows.endswith("s") and not follows.endswith(("ss", "us")) and follows not in NO_PLURALS
    return follows in PEOPLE or plural or bool(STREET.match(match.string, match.end()))


# What each way of naming a period means. Groups are the parts that its pattern marks.


def _ago(match: re.Match[str], calendar: Calendar) -> Span | None:
    if INEXACT.search(before(match)):
        return None
    times, unit = (2, "week") if match[2].lower() == "fortnight" else (1, match[2].lower())
    if match[1].lower() in SOME:
        return calendar.back(5 * times, unit, until=2 * times)
    count = count_of(match[1])
    return None if count is None else calendar.back(times * count, unit)


def count_of(told: str) -> int | None:
    """A count in digits or words; None for "a few"."""
    return None if told.lower() in SOME else COUNTS.get(told.lower()) or int(told)


def _rolling(match: re.Match[str], calendar: Calendar) -> Span:
    return calendar.rolling(count_of(match[2] or "one") or 5, match[3].lower(), ahead=match[1].lower() == "next")


def _near_day(match: re.Match[str], calendar: Calendar) -> Span:
    return _part(calendar, calendar.day(NEAR_DAYS[match[1].lower().removeprefix("the ")]), match["part"])


def _part(calendar: Calendar, day: Span, name: str | None) -> Span:
    return calendar.part(day, name.lower()) if name else day


def _this_part(match: re.Match[str], calendar: Calendar) -> Span:
    told = match[0].lower()
    if told == "last night":
        return calendar.part(calendar.day(-1), "night")
    return calendar.part(calendar.day(0), "night" if told == "tonight" else told.split()[1])


def _which_unit(match: re.Match[str], calendar: Calendar) -> Span | None:
    """The unit before, around or after; "in the last week" counts from now, and "the last week" alone may be any."""
    which, unit = match[1].lower(), match[2].lower()
    if which == "last" and before(match).endswith("the "):
        return calendar.rolling(1, unit) if LATELY.search(before(match)) and unit != "weekend" else None
    of = {"week": calendar.week, "weekend": calendar.weekend, "month": calendar.month, "quarter": calendar.quarter,
          "year": calendar.year, "decade": calendar.decade}[unit]
    just_over = unit == "weekend" and which == "last" and calendar.weekend(0).end <= calendar.now
    return of(0 if just_over else AHEAD[which])


def _before_last(match: re.Match[str], calendar: Calendar) -> Span:
    of = {"week": calendar.week, "month": calendar.month, "year": calendar.year}
    return of[match[1].lower()](-2)


def _weekend(_: re.Match[str], calendar: Calendar) -> Span:
    coming = calendar.weekend(0)
    return coming if coming.start <= calendar.now else calendar.weekend(-1)


def _year_of(told: str, calendar: Calendar) -> int:
    """A year in digits, or last, this, next."""
    return int(told) if told.isdigit() else calendar.today.year + AHEAD[told.lower()]


def _month_in_year(match: re.Match[str], calendar: Calendar) -> Span:
    return calendar.months(_year_of(match["year"], calendar), _month_of(match["month"]))


def _which_month(match: re.Match[str], calendar: Calendar) -> Span | None:
    if match[2] in ("may", "march") or _is_name(match, match[2]) or _is_count(match):
        return None
    month = _month_of(match[2])
    if match[1].lower() == "this":
        return calendar.months(calendar.today.year, month)
    return calendar.which(cast(Which, match[1].lower()), lambda year: calendar.months(year, month))


def _bare_month(match: re.Match[str], calendar: Calendar) -> Span | None:
    month = _month_of(match[1])
    return None if _is_name(match, match[1].rstrip(".")) else calendar.latest(lambda year: calendar.months(year, month))


def _days(match: re.Match[str], calendar: Calendar) -> Span | None:
    """A day of a month, or from one to another; without a year the latest."""
    sure = match["year"] or not match["first"].isdigit()
    verb = match["month"] in ("may", "march") and not before(match).endswith("on ")
    if not sure and (_is_count(match) or verb):
        return None
    month = _month_of(match["month"])
    first, last = (int((told or match["first"]).rstrip("stndrhSTNDRH")) for told in match.group("first", "last"))

    def of_year(year: int) -> Span:
        return Span(calendar.date(year, month, first).start, calendar.date(year, month, last).end)

    span = of_year(int(match["year"])) if match["year"] else calendar.latest(of_year)
    return _part(calendar, span, match["part"]) if span and first == last else span


def _digits(match: re.Match[str], calendar: Calendar) -> Span:
    return calendar.date(*(int(match[name]) for name in ("y", "m", "d")))


def _slashes(match: re.Match[str], calendar: Calendar) -> Span | None:
    """Month and day, or day and month: where both could be, it is not said."""
    one, other, year = (int(match[n]) for n in (1, 2, 3))
    if one != other and max(one, other) <= 12:
        return None
    return calendar.date(year, min(one, other), max(one, other))


def _which_weekday(match: re.Match[str], calendar: Calendar) -> Span | None:
    day = calendar.weekday(cast(Which, match[1].lower()), _number_of(WEEKDAYS, match[2]))
    return _part(calendar, day, match["part"]) if day else None


def _bare_weekday(match: re.Match[str], calendar: Calendar) -> Span | None:
    number = _number_of(WEEKDAYS, match[1])
    day = calendar.weekday("last", number) if number != calendar.today.weekday() else None
    return _part(calendar, day, match["part"]) if day else None


def _weekday_in_week(match: re.Match[str], calendar: Calendar) -> Span:
    monday = calendar.week(AHEAD[match["week"].lower()]).start.date()
    return calendar.day((monday - calendar.today).days + _number_of(WEEKDAYS, match["day"]))


def _season_in_year(match: re.Match[str], calendar: Calendar) -> Span:
    return calendar.season(_year_of(match["year"], calendar), match["season"].lower())


def _season_alone(match: re.Match[str]) -> bool:
    """Whether it is the season, not what is named after it: no "spring mattress"."""
    follows = _after(match)
    return not follows or follows.lower() in AUXILIARY | OF_A_SEASON or (follows[0].isupper() and not match[0].istitle())


def _which_season(match: re.Match[str], calendar: Calendar) -> Span | None:
    if not _season_alone(match):
        return None
    return calendar.which(cast(Which, match[1].lower()), lambda year: calendar.season(year, match[2].lower()))


def _bare_season(match: re.Match[str], calendar: Calendar) -> Span | None:
    return calendar.latest(lambda year: calendar.season(year, match[1].lower())) if _season_alone(match) else None


def _quarter(match: re.Match[str], calendar: Calendar) -> Span | None:
    month = 3 * int(match[1]) - 2
    if match[2]:
        return calendar.months(int(match[2]), month, 3)
    return calendar.latest(lambda year: calendar.months(year, month, 3))


def _decade(match: re.Match[str], calendar: Calendar) -> Span:
    told = match[1]
    return calendar.years(int(told) if len(told) == 4 else 1900 + int(told), 10)


def _led_year(match: re.Match[str], calendar: Calendar) -> Span | None:
    price = HUNDREDS.search(match[1]) and PRICED.search(before(match))
    far = int(match[1]) > calendar.today.year + FAR
    return None if price or far or _is_count(match) else calendar.years(int(match[1]))


def _lone_year(match: re.Match[str], calendar: Calendar) -> Span | None:
    """A year without a preposition: all there is, or "my 2023 goals"."""
    owned = OWNED.search(before(match)) and not HUNDREDS.search(match[1])
    return calendar.years(int(match[1])) if owned or match[0] == match.string.strip("?.! ") else None


def _rule(pattern: str, resolve: Resolver, leads: frozenset[str] | None = None, *, floats: bool = False) -> Rule:
    return Rule(re.compile(pattern, re.IGNORECASE), resolve, leads, floats)


UNIT = r"(hour|day|week|month|quarter|year|decade)"
DAYS = rf"(?P<first>{NUMBER})(?: ?(?:-|–|to|and) ?(?:the )?(?P<last>{NUMBER}))?"
RULES: tuple[Rule, ...] = (
    _rule(rf"({COUNT}) (hour|day|week|fortnight|month|year|decade)s? ago\b", _ago),
    _rule(rf"(last|past|next) ({COUNT}) {UNIT}s?\b(?! of\b)", _rolling),
    _rule(rf"(past)() {UNIT}\b(?! of\b)", _rolling),
    _rule(rf"((?:the )?day before yesterday|yesterday|today|(?:the )?day after tomorrow|tomorrow)\b{PART}", _near_day),
    _rule(r"(?:last night|tonight|this (?:morning|afternoon|evening))\b", _this_part),
    _rule(r"(week|month|year) before last\b", _before_last),
    _rule(rf"(?P<day>{WEEKDAY}),? (?:of )?(?P<week>last|this|next) week\b", _weekday_in_week),
    _rule(rf"(?P<week>last|this|next) week,? (?:on )?(?P<day>{WEEKDAY})\b", _weekday_in_week),
    _rule(rf"(?:{WEEKDAY},? )?(?:the )?{DAYS}(?: of)? (?P<month>{MONTH})(?:,? (?P<year>{YEAR}))?{PART}", _days, floats=True),
    _rule(rf"(?:{WEEKDAY},? )?(?P<month>{MONTH}) (?:the )?{DAYS}(?:,? (?P<year>{YEAR}))?{PART}", _days, floats=True),
    _rule(rf"(?P<month>{MONTH}),? (?:of )?{WHEN_YEAR}", _month_in_year),
    _rule(rf"(?P<year>last|this|next) year,? (?:in )?(?P<month>{MONTH})", _month_in_year),
    _rule(rf"(?P<season>{SEASON}),? (?:of )?{WHEN_YEAR}", _season_in_year),
    _rule(rf"(?P<year>last|this|next) year,? (?:in )?(?:the )?(?P<season>{SEASON})\b", _season_in_year),
    _rule(r"(?P<y>(?:19|20)[0-9]{2})([-/])(?P<m>[0-9]{1,2})\2(?P<d>[0-9]{1,2})(?![0-9/-])", _digits),
    _rule(r"(?P<d>[0-9]{1,2})\.(?P<m>[0-9]{1,2})\.(?P<y>(?:19|20)[0-9]{2})\b", _digits),
    _rule(r"([0-9]{1,2})/([0-9]{1,2})/((?:19|20)[0-9]{2})\b", _slashes),
    _rule(r"([0-9]{4})-(0[1-9]|1[0-2])(?![0-9-])", lambda match, calendar: calendar.months(int(match[1]), int(match[2]))),
    _rule(rf"q([1-4])(?:,? (?:of )?({YEAR}))?\b", _quarter, floats=True),
    _rule(r"((?:19|20)[0-9]0)'?s\b", _decade),
    _rule(r"'([5-9]0)s\b", _decade),
    _rule(r"(last|this|next|current) (week|weekend|month|quarter|year|decade)\b(?! of\b)(?!-)", _which_unit),
    _rule(rf"(last|this|next) ({MONTH})", _which_month),
    _rule(rf"(last|this|next) ({WEEKDAY})\b{PART}", _which_weekday),
    _rule(rf"(last|this|next) ({SEASON})\b", _which_season),
    _rule(r"weekend\b(?! of\b)", _weekend, WITHIN | {"over", "at", "on"}),
    _rule(rf"({WEEKDAY})\b(?!,? (?:the )?[0-9]|,? {MONTH} [0-9]){PART}", _bare_weekday, INTO | {"on", "by", "from"}, floats=True),
    _rule(r"(fall)\b", _bare_season, frozenset({"in", "during", "over", "between", "inside"}), floats=True),
    _rule(rf"({SEASON})\b", _bare_season, WITHIN | {"over", "by", "from"}, floats=True),
    _rule(rf"({MONTH})", _bare_month, WITHIN, floats=True),
    _rule(rf"(?!(?:{'|'.join(ALSO_NAMES)})\b)({MONTH})", _bare_month, frozenset({"by", "from", "for"}), floats=True),
    _rule(rf"({YEAR})", _led_year, WITHIN | {"by", "from", "for", "around"}),
    _rule(rf"({YEAR})", _lone_year),
)
