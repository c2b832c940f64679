"""Personal data that has a shape: addresses, telephone numbers, cards, accounts. Found and masked as secrets are. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from consolidator.secrets import Secret, joined

EMAIL = re.compile(r"(?<![\w.+-])([\w][\w.+-]{0,63})@((?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![\w-])")
PHONE = re.compile(r"(?<![\w+])\+[1-9]\d{0,2}[ ./-]?(?:\(\d{1,5}\)[ ./-]?)?\d{2,5}(?:[ ./-]?\d{2,5}){1,4}(?![\w])")
CARD = re.compile(r"(?<![\w.-])[3-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{1,4}(?![\w-]|\.\d)")
IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
ROLES = frozenset("git hg svn noreply no-reply example user admin root info support mailer-daemon".split())  # noqa: SIM905
PHONE_DIGITS = range(9, 16)


def find(text: str) -> list[Secret]:
    """Where they stand, in order, without overlaps."""
    return joined(_all(text))


def _all(text: str) -> Iterator[Secret]:
    if "@" in text:
        yield from (Secret("email", m.start(), m.end()) for m in EMAIL.finditer(text) if _of_a_person(m))
    for match in PHONE.finditer(text):
        if sum(c.isdigit() for c in match.group()) in PHONE_DIGITS:
            yield Secret("phone", match.start(), match.end())
    yield from (Secret("card", m.start(), m.end()) for m in CARD.finditer(text) if _luhn(m.group()))
    yield from (Secret("account", m.start(), m.end()) for m in IBAN.finditer(text) if _checked(m.group()))


def _of_a_person(match: re.Match[str]) -> bool:
    """Not the user of a remote, nor an example."""
    domain = match.group(2).casefold()
    return match.group(1).casefold() not in ROLES and not domain.startswith("example.") and ".example" not in domain


def _luhn(told: str) -> bool:
    digits = [int(c) for c in told if c.isdigit()]
    doubled = [d if n % 2 == 0 else d * 2 - 9 * (d > 4) for n, d in enumerate(reversed(digits))]
    return len(digits) >= 13 and len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _checked(told: str) -> bool:
    """An account number's own check digits."""
    packed = told.replace(" ", "")
    if not 15 <= len(packed) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in packed[4:] + packed[:4])) % 97 == 1
