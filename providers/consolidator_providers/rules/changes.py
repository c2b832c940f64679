"""What a claim does to an older statement: nothing, the same again, more of it, a new state, or a correction. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from consolidator import words
from consolidator.actions import clean
from consolidator.proposals import UpdateKind
from consolidator_providers.rules.claims import Claim, fits
from consolidator_providers.rules.lexicon import WEEKDAYS
from consolidator_providers.rules.matching import (
    ATTRIBUTED,
    BEFORE,
    Statement,
    new_value,
    roots,
    same_owner,
    says_more,
    says_no_more,
    says_otherwise,
    shared_topic,
    shared_verb,
    statement,
    strangers,
)
from consolidator_providers.rules.sentences import MAX_WORDS, bare, clauses, count, shorten

ENDED = re.compile(
    r"\b(?:no longer|no more|gave up|(?:have |has |['\u2019]ve )?given up|stopped|quit|cancell?ed|switched from|sold|left|"
    r"back (?:at|to|in|on)|"
    r"(?:(?:am|is|are|was)|['\u2019](?:m|re|s)) not \w+ing )"
    r"(?: a| the| my| being| strictly| fully| learning| to)*\s*(?P<object>[^,.;!?]*)",
    re.IGNORECASE,
)
ANY_MORE = re.compile(
    r"\b(?:don['\u2019]t|do not|does not|doesn['\u2019]t|not)\s+(?P<object>[^,.;!?]*?)\s*any ?more\b", re.IGNORECASE
)
AGAIN = re.compile(r"(?P<object>\b\w+ing\b[^,.;!?]{0,40}?)\s+again\b", re.IGNORECASE)
DENIED = re.compile(r"(?:\b(?:not|never|without)|n['\u2019]t)(?: \w+)?\s*$", re.IGNORECASE)
NO_MORE = re.compile(r"not any ?more\b", re.IGNORECASE)
LATER = re.compile(r"\s(?:before|since|because|after|for|until|and|all) .*", re.DOTALL)
QUOTED = re.compile(r'(?P<lead>[^"]*(?:(?:asked|in reply to) "[^"]*": )?)"(?P<said>[^"]*)"', re.DOTALL)
FELL_THROUGH = re.compile(
    r"\b(?:fell through|never went|never happened|didn['\u2019]t happen|not happening|called off|cancell?ed|"
    r"(?:is|was|are) off\b)",
    re.IGNORECASE,
)
NOW = re.compile(r"\b(?:now|these days|from now on|nowadays|instead|at present|currently|has changed)\b", re.IGNORECASE)
MOVED = re.compile(r"\bmoved (?:to|into|in with|from)\b", re.IGNORECASE)
HOME = re.compile(
    r"\b(?:lives? in|living in|moved (?:to|into)|rents? (?:an?|the)|(?:rent|flat|room|apartment|house) in|"
    r"(?:my|'s) (?:flat|room|apartment|house))\b",
    re.IGNORECASE,
)
PLAN = re.compile(
    r"\b(?:wants?|plan|plans|planning|going to|signed up|booked|offer|on for|"
    r"let['\u2019]?s|will|['\u2019]ll|['\u2019]re|i['\u2019]m in|next|concert|trip)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """The update that a claim makes to an older statement, with the text that the statement then has."""

    change: UpdateKind
    text: str
    rank: float  # among several possible targets the highest is taken
    reason: str


def effect(claim: Claim, old_text: str, near: float | None) -> Effect | None:
    """What the claim does to the statement `old_text`; None: they go side by side."""
    new = statement(claim.text, claim.speaker)
    old = statement(old_text, claim.speaker if claim.speaker and claim.speaker in old_text else None)
    if not same_owner(new, old, old_text):
        return None
    if says_no_more(new, old, near):
        return Effect(change="restate", text=old_text, rank=4 + words.jaccard(new.stems, old.stems), reason="says the same again")
    found = _changed(claim, new, old, old_text)
    if found and (text := journey(claim, old_text, found)):
        return Effect(change="state_change", text=text, rank=2 + found.rank, reason=found.reason)
    if says_more(new, old, near):
        return Effect(change="refine", text=claim.text, rank=3, reason="says the same, and more")
    if near is not None and not NOW.search(claim.body) and says_otherwise(new, old, near):
        return Effect(change="restate", text=old_text, rank=1 + near, reason="says the same in other words")
    return None


@dataclass(frozen=True, slots=True)
class Change:
    """Why a claim is a new state of the same thing, how sure that is, the content words of the thing, and the cue."""

    reason: str
    rank: float
    thing: frozenset[str]
    cue: str = ""


def _changed(claim: Claim, new: Statement, old: Statement, old_text: str) -> Change | None:
    shared = shared_topic(new, old)
    weight = words.jaccard(new.topic, old.topic) - (0.3 if strangers(new, old) else 0.0)
    if ended := _ended(claim, old, shared):
        cue = " ".join(ended[0].split()[:2]) if ended[0] in claim.text else ""
        return Change(f'a change: "{ended[0]}"', weight + 0.3, ended[1], cue)
    if (fell := FELL_THROUGH.search(claim.body)) and PLAN.search(old.said) and shared:
        return Change("a plan fell through", weight + 0.2, shared, fell[0])
    if MOVED.search(claim.body) and (home := HOME.search(old.said)) and new.who == (old.who or new.who):
        return Change("a new home", weight + 0.2, roots(home[0]))
    if _other_value(claim, new, old, shared):
        return Change("a new value for the same thing", weight + 0.1, shared)
    return None


def _ended(claim: Claim, old: Statement, shared: frozenset[str]) -> tuple[str, frozenset[str]] | None:
    """The words that say what ended or began again, and those of them that the old statement is about."""
    if NO_MORE.match(claim.body):
        wanted = roots(f"{claim.asked} {claim.body}") & shared
        return ("not any more", wanted) if wanted else None
    for pattern in (ENDED, ANY_MORE, AGAIN):
        for match in pattern.finditer(claim.body):
            phrase = roots(LATER.sub("", match["object"]))
            wanted = phrase & shared
            if DENIED.search(claim.body[: match.start()]):
                continue
            if wanted and 2 * len(wanted) >= min(2, len(phrase)) and match[0].casefold() not in old.said.casefold():
                return match[0].strip(), wanted
    return None


def _other_value(claim: Claim, new: Statement, old: Statement, shared: frozenset[str]) -> bool:
    cue = bool(NOW.search(claim.body))
    one_thing = cue or _mostly(new, old) or (shared_verb(new, old) and _weekdays(new, old))
    if shared and one_thing and (cue or new.denied == old.denied) and new_value(new, old, figures_only=not cue):
        return len(shared) >= 2 or not cue or shared_verb(new, old)
    return cue and new.denied == old.denied and shared_verb(new, old) and len(shared) >= 2 and new.values != old.values


def _mostly(new: Statement, old: Statement) -> bool:
    together = len(new.topic & old.topic)
    return together >= 2 and 2 * together >= min(len(new.topic), len(old.topic)) + 1


def _weekdays(new: Statement, old: Statement) -> bool:
    days = [frozenset(value for value in one.values if value in WEEKDAYS) for one in (new, old)]
    return bool(days[0] and days[1] and days[0] != days[1])


def journey(claim: Claim, old_text: str, found: Change) -> str:
    """The new state with the last state before it; "" where no clause of the old one names the thing and fits."""
    old = BEFORE.sub("", old_text)
    match = ATTRIBUTED.match(old)
    if match and claim.speaker == match["who"]:
        old = f'"{match["said"]}"' if not match["asked"] else f'asked "{match["asked"]}": "{match["said"]}"'
    for newer in _shorter(claim, found.cue):
        past = _about(old, MAX_WORDS - count(newer) - 1, found.thing)
        text = clean(f"{newer.rstrip('.')} (before: {past.rstrip('.')})")
        if past and fits(text):
            return text
    return ""


def _shorter(claim: Claim, cue: str) -> list[str]:
    """Ways to put the claim, longest first, each with the words that tell of the change."""
    shorter = [_about(claim.text, limit, frozenset()) for limit in (22, 18, 14) if count(claim.text) > 14]
    alone = [f'{claim.speaker}: "{claim.body}"'] if claim.asked and '"' not in claim.body else []
    return [claim.text, *(text for text in (*shorter, *alone) if text and cue.casefold() in text.casefold())]


def _about(text: str, limit: int, thing: frozenset[str]) -> str:
    """A statement, its head or one clause of it, of at most `limit` words and naming the thing; a quotation keeps its marks."""
    if count(text) <= limit:
        return text
    quoted = QUOTED.fullmatch(text)
    lead, said, mark = (quoted["lead"], quoted["said"], '"') if quoted else ("", text, "")
    room = limit - count(lead)
    parts = [shorten(said, room), *(clauses(said) if thing else ())]
    fitting = (part for part in parts if 2 < count(part) <= room and (not thing or thing & roots(f"{lead} {part}")))
    head = next(fitting, "").rstrip(" ,;:")
    return f"{lead}{mark}{bare(head)}{mark}" if head else ""
