"""From the first person to the speaker's name, where grammar allows it without a guess. Pure."""

from __future__ import annotations

import re

from consolidator_providers.rules.lexicon import (
    ADVERB,
    AUXILIARY,
    CONTRACTED,
    FIRST_PERSON,
    MODAL,
    PAST,
    PRESENT,
    UNSAFE_PERSON,
)

TOKEN = re.compile(r"[\w'\u2019-]+|[^\w\s]+|\s+")
COORDINATED = re.compile(r"\b(?:and|or|but|then)\s+(?:\w+ly\s+|always\s+|never\s+)?([a-z]+)\b")
SUBJECT = frozenset({"i", *CONTRACTED})


def in_third_person(sentence: str, speaker: str) -> str | None:
    """The sentence with the speaker's name for the first person; None where that would need a guess.

    "I work" becomes "Ada works", "I'm" "Ada is", "my" "Ada's" every time: clumsy at times, never ambiguous.
    """
    if UNSAFE_PERSON.search(sentence) or '"' in sentence or "“" in sentence:
        return None
    tokens = TOKEN.findall(sentence)
    told: list[str] = []
    skip, present = 0, False
    for at, token in enumerate(tokens):
        if skip:
            skip -= 1
            continue
        lower = token.lower().replace("\u2019", "'")
        if lower in SUBJECT:
            turned = _subject(tokens, at, speaker)
            if turned is None:
                return None
            words, skip, now = turned
            present |= now
            told += words
        else:
            told.append(_possessive(token, lower, speaker))
    result = "".join(told)
    if (present and _mixed(sentence)) or re.search(r"\bi['\u2019]", result, re.IGNORECASE):
        return None
    return result


def _possessive(token: str, lower: str, speaker: str) -> str:
    if lower == "my":
        return f"{speaker}'s"
    return speaker if lower == "me" else token


def _subject(tokens: list[str], at: int, speaker: str) -> tuple[list[str], int, bool] | None:
    """The words for "I" and its verb, how many tokens they replace after the first, and whether the verb is present."""
    token = tokens[at].lower().replace("\u2019", "'")
    before = "".join(tokens[max(0, at - 2) : at]).strip().lower()
    if before in ("and", "or", "nor"):  # "Idris and I": the verb is a plural; a new clause looks the same, so neither is touched
        return None if not _clause_before(tokens, at) else _verb(tokens, at, speaker, token)
    return _verb(tokens, at, speaker, token)


def _clause_before(tokens: list[str], at: int) -> bool:
    """Whether a comma or a first person stands before this "and I": then a new clause begins, not a pair of persons."""
    earlier = [token.lower().replace("\u2019", "'") for token in tokens[:at]]
    return any(token in SUBJECT for token in earlier) or "," in earlier[-4:]


def _verb(tokens: list[str], at: int, speaker: str, token: str) -> tuple[list[str], int, bool] | None:
    if token in CONTRACTED:
        return [speaker, " ", CONTRACTED[token]], 0, token != "i'll"
    taken: list[str] = []
    for offset, follower in enumerate(tokens[at + 1 :], start=1):
        lower = follower.lower().replace("\u2019", "'")
        if follower.isspace() or lower in ADVERB:
            taken.append(follower)
            continue
        verb = _conjugated(lower)
        present = lower in PRESENT or lower in ("am", "have", "do", "don't")
        return None if verb is None else ([speaker, *taken, verb], offset, present)
    return None


def _conjugated(verb: str) -> str | None:
    if verb in AUXILIARY:
        return AUXILIARY[verb]
    if verb in MODAL or verb in PAST or (verb.endswith("ed") and len(verb) > 4 and verb not in ("need", "feed")):
        return verb
    return _third(verb) if verb in PRESENT else None


def _third(verb: str) -> str:
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2:-1] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


def _mixed(sentence: str) -> bool:
    """Whether a second verb hangs on the same "I": it would need an ending as well."""
    return any(match[1] in PRESENT or match[1] in ("am", "have", "do") for match in COORDINATED.finditer(sentence))


def speaks_of_itself(sentence: str) -> bool:
    return bool(FIRST_PERSON.search(sentence))
