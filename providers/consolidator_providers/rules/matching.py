"""Whether two statements speak of the same thing, and whether they say the same about it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from consolidator import words
from consolidator_providers.rules.lexicon import GENERIC, MONTH, PRESENT, WEEKDAY

BEFORE = re.compile(r"\s*\(before: .*\)$", re.DOTALL)
ATTRIBUTED = re.compile(r'^(?P<who>[^":]{1,60}?)(?:, (?:(?:asked|in reply to) "(?P<asked>[^"]*)"))?: "(?P<said>.*)"$', re.DOTALL)
DATED = re.compile(rf"\s*[\[(](?:about |the week(?:end)? before )?(?:\d{{1,2}} )?(?:(?:{MONTH}) )?\d{{4}}[\])]", re.IGNORECASE)
VALUE = re.compile(rf"\b\d[\d.,:]*(?:st|nd|rd|th)?\b|\b(?:{WEEKDAY})s?\b|\b(?:{MONTH})\b", re.IGNORECASE)
TOKEN = re.compile(r"[^\W_]+(?:[.,:'\u2019-][^\W_]+)*")

SAME_BY_WORDS = 0.6  # share of content words from which two statements are one, without vectors
SAME_WITH_VECTORS = 0.5  # the same, where the vectors are near as well
NEAR = 0.6  # cosine
PARAPHRASE = 0.75  # cosine of a repeat in other words; on talk, what is no repeat stays below


def root(word: str) -> str:
    """The stem without a silent ending: or doubled one: "rehearses" and "rehearse", "swimming" and "swim" meet."""
    found = words.stem(word).removesuffix("e")
    doubled = len(found) > 3 and found[-1] == found[-2] and found[-1] in "bdgmnprt"
    return found[:-1] if doubled else found


def roots(text: str) -> frozenset[str]:
    return frozenset(root(word) for word in words.WORD.findall(words.plain(text)) if word not in words.STOP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A text taken apart for comparing: who said it, what, and its content words without the speaker's name."""

    who: str | None
    said: str
    quoted: bool
    asked: str
    stems: frozenset[str]
    values: frozenset[str]
    denied: bool

    @property
    def topic(self) -> frozenset[str]:
        """Content words that can show that two statements are about one thing."""
        return frozenset(stem for stem in self.stems if len(stem) > 2 and stem not in GENERIC and not stem[0].isdigit())


@lru_cache(maxsize=4096)
def statement(text: str, speaker: str | None = None) -> Statement:
    """Take an observation's text apart; the journey's old part is left out."""
    current = BEFORE.sub("", text)
    match = ATTRIBUTED.match(current)
    said = match["said"] if match else current
    who = match["who"] if match else speaker
    plain = DATED.sub("", said)
    asked = (match["asked"] or "") if match else ""
    stems = roots(f"{asked} {plain}")
    if who:
        stems -= roots(who)
    return Statement(
        who=who, said=said, quoted=bool(match), asked=asked, stems=stems,
        values=frozenset(value.casefold().rstrip("s") for value in VALUE.findall(plain)),
        denied=bool(words.NEGATION.search(plain)),
    )


def cosine(one: list[float], other: list[float]) -> float | None:
    """The dot product of two normalised vectors; None where one is missing."""
    if not one or len(one) != len(other):
        return None
    return sum(a * b for a, b in zip(one, other, strict=True))


def same_owner(claim: Statement, old: Statement, old_text: str) -> bool:
    """Whether both are the word of one person, or are about the same named subject."""
    if claim.who and old.who:
        return claim.who == old.who or bool(_subject(claim) & _subject(old))
    if claim.who:
        return bool(re.search(rf"\b{re.escape(claim.who)}\b", old_text)) or bool(_subject(claim) & roots(old_text))
    return True


def _subject(one: Statement) -> frozenset[str]:
    """The names that a statement opens with."""
    head = " ".join(one.said.split()[:3])
    return roots(" ".join(words.names(f"x {head}"))) - {"i", "my"}


def says_no_more(claim: Statement, old: Statement, near: float | None) -> bool:
    """Whether the old statement holds all that the claim says: names, numbers and denial agree."""
    if claim.denied != old.denied or not claim.values <= old.values or not _names(claim) <= _names(old) | old.stems:
        return False
    return _alike(claim, old, near)


def says_more(claim: Statement, old: Statement, near: float | None) -> bool:
    """Whether the claim holds all that the old statement says, and something besides."""
    return (
        claim.denied == old.denied and claim.quoted == old.quoted and old.stems < claim.stems
        and old.values <= claim.values and _names(old) <= _names(claim) and _alike(old, claim, near)
    )


def says_otherwise(claim: Statement, old: Statement, near: float | None) -> bool:
    """Whether the claim repeats the old statement in other words, by meaning, and adds no name, number or date.

    Near alone is not equal: where the wordings differ in one word, or in what stands in the same place, that is the point.
    """
    if near is None or near < PARAPHRASE or claim.denied != old.denied:
        return False
    if not claim.values <= old.values or not _names(claim) <= _names(old) | old.stems:
        return False
    reworded = min(len(claim.stems - old.stems), len(old.stems - claim.stems)) >= 2
    return reworded and not new_value(claim, old, figures_only=False)


def _names(one: Statement) -> frozenset[str]:
    return frozenset(root(name.casefold()) for name in words.names(f"x {one.said}")) & one.topic


def _alike(less: Statement, more: Statement, near: float | None) -> bool:
    if len(less.topic) < 2:
        return less.stems == more.stems and bool(less.stems)
    if not less.topic <= more.stems:
        return False
    shared = words.jaccard(less.stems, more.stems)
    enough = SAME_WITH_VECTORS if near is not None and near >= NEAR else SAME_BY_WORDS
    return shared >= enough or len(less.topic) >= 3


def strangers(claim: Statement, old: Statement) -> bool:
    """Whether the old statement names somebody or something that the claim does not."""
    return bool(_names(old) - claim.stems - roots(old.who or ""))


def shared_topic(one: Statement, other: Statement) -> frozenset[str]:
    return one.topic & other.topic


def shared_verb(one: Statement, other: Statement) -> bool:
    return any(stem in VERB_STEMS for stem in one.topic & other.topic)


VERB_STEMS = frozenset(root(verb) for verb in PRESENT)


def new_value(claim: Statement, old: Statement, *, figures_only: bool) -> bool:
    """Whether both have different values in the same place: "on nights at the yard", "on days at the yard".

    `figures_only`: numbers, months and weekdays, for statements that say by no word that something changed.
    """
    ours, theirs = _slots(claim.said), _slots(old.said)
    return any(
        value not in old_values and not (ours.get(place, set()) & old_values)
        for place, old_values in theirs.items()
        for value in ours.get(place, ())
        if not figures_only or VALUE.fullmatch(value)
    )


def _slots(text: str) -> dict[tuple[str, str], set[str]]:
    """What stands between two words, where it is a value or opposite kinds of word can stand: by left and right neighbour."""
    tokens = [root(token.casefold()) for token in TOKEN.findall(DATED.sub("", text))]
    slots: dict[tuple[str, str], set[str]] = {}
    for left, value, right in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if value not in words.STOP:
            slots.setdefault((left, right), set()).add(value)
    for verb, left, value in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if VALUE.fullmatch(value) or VALUE.fullmatch(value + "s"):
            slots.setdefault((f"{verb} {left}", ""), set()).add(value)
    return slots
