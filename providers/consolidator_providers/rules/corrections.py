"""Explicit corrections: which value was wrong, which is right, and the old statement with the right one. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from consolidator import words
from consolidator.actions import clean
from consolidator_providers.rules.lexicon import MONTH, WEEKDAY
from consolidator_providers.rules.matching import ATTRIBUTED, BEFORE, DATED

SPOKEN = 2000  # characters; what is longer is a document, and corrects nobody
REPAIR = re.compile(
    r"\b(?:no wait|wait, no|sorry|correct\w*|let me get it right|i (?:had|got) it wrong|i said|i told you|i meant|actually|"
    r"isn['\u2019]t|not)\b",
    re.IGNORECASE,
)
FIGURE = rf"(?:the )?(?:\d[\d.,:]*\d|\d)(?:st|nd|rd|th)?(?: of (?:{MONTH}))?|(?:{WEEKDAY})s?"
NAME = r"[A-Z][a-z]\w+"
LINK = "it['\u2019]s|it is|it was|he['\u2019]s|she['\u2019]s|they['\u2019]re"
AT = "(?: called| named| on| at| in| from)?"
NUMBER = re.compile(rf"\d[\d.,:]*\d|\d|\b(?:{WEEKDAY})s?\b", re.IGNORECASE)
TOLD = re.compile(r"\b(?:I|we) (?:said|told you|wrote) (?P<told>[^.;!?]*?)[.;!?,]\s+(?P<rest>.+)", re.DOTALL)
ORDINAL = r"(?P<ordinal>st|nd|rd|th)?"


def _forms(value: str) -> tuple[re.Pattern[str], ...]:
    return (
        re.compile(rf"(?:\bnot|(?:is|was|are)n['\u2019]t){AT} (?P<old>{value}),? (?:but|{LINK}){AT} (?P<new>{value})"),
        re.compile(rf"\b(?P<new>{value})[^.;!?\d]{{0,24}}?,? (?:and )?not{AT} (?P<old>{value})\b"),
    )


FORMS = (*_forms(FIGURE), *_forms(NAME))


@dataclass(frozen=True, slots=True)
class Swap:
    """A value that was wrong, and the right one."""

    old: str
    new: str


def swap_in(text: str) -> Swap | None:
    """The wrong and the right value of an explicit correction; None where either is unclear."""
    if len(text) > SPOKEN or not REPAIR.search(text):
        return None
    for form in FORMS:
        match = form.search(text)
        if match and (swap := _swap(match["old"], match["new"])):
            return swap
    match = TOLD.search(text)
    return _from_told(match["told"], match["rest"]) if match else None


def _from_told(told: str, rest: str) -> Swap | None:
    """ "I said the 19th of February, but it's the 9th": one value there, one of the same kind here."""
    old, new = NUMBER.findall(told), NUMBER.findall(rest)
    return _swap(old[0], new[0]) if len(old) == 1 and len(new) == 1 else None


def _swap(old: str, new: str) -> Swap | None:
    old, new = _bare(old), _bare(new)
    alike = old[:1].isdigit() == new[:1].isdigit()
    common = {old.casefold(), new.casefold()} & words.STOP
    return Swap(old, new) if alike and not common and old.casefold() != new.casefold() else None


def _bare(value: str) -> str:
    found = NUMBER.search(value)
    return (found[0] if found else value).rstrip(".,:")


def corrected(old_text: str, swap: Swap) -> str | None:
    """The old statement with the right value; in a quotation it stands in brackets. None where it has no such value, or two."""
    current = BEFORE.sub("", old_text)
    wrong = re.compile(rf"(?<![\w.,:]){re.escape(swap.old)}{ORDINAL}(?!\w|[.,:]\d)")
    dated = [match.span() for match in DATED.finditer(current)]
    found = [match for match in wrong.finditer(current) if not any(start <= match.start() < end for start, end in dated)]
    quoted = ATTRIBUTED.match(current)
    if len(found) != 1 or (quoted and found[0].start() < quoted.start("said")):
        return None
    right = f"[{_right(found[0], swap)}]" if quoted else _right(found[0], swap)
    return clean(f"{current[: found[0].start()]}{right}{current[found[0].end() :]}")


def _right(match: re.Match[str], swap: Swap) -> str:
    return swap.new + _ending(swap.new) if match["ordinal"] else swap.new


def _ending(digits: str) -> str:
    if digits[-2:-1] == "1":
        return "th"
    return {"1": "st", "2": "nd", "3": "rd"}.get(digits[-1:], "th")


def beside(text: str, swap: Swap) -> str:
    """The text with a mark for each sentence that makes the correction; a clause after it that opens with a name is kept."""
    return " ".join(_beside(sentence, swap) for sentence in words.sentences(text))


def _beside(sentence: str, swap: Swap) -> str:
    values = list(re.finditer(rf"(?<!\w)(?:{re.escape(swap.old)}|{re.escape(swap.new)})(?:st|nd|rd|th)?(?!\w)", sentence))
    if not values:
        return sentence
    rest = re.match(r"[^.;!?]*?,? and (?=[A-Z])(?P<clause>.+)", sentence[values[-1].end() :])
    return rest["clause"] if rest else "⟦⟧."
