"""Sentences, clauses and lead-ins of spoken text. Pure."""

from __future__ import annotations

import itertools
import re

from consolidator import words
from consolidator.actions import clean
from consolidator_providers.rules.durable import has_verb

MAX_WORDS = 30
MAX_TEXT = 400

ABBREVIATED = re.compile(r"(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|St|Prof|Sr|Jr|No|vs|approx|e\.g|i\.e|[A-Z])\.$")
WIDE_END = re.compile(r"(?<=[。！？])")
# Long quotations are other people's words, not the speaker's statement.
QUOTATION = re.compile(r'"[^"]{20,}(?:"|$)|“[^”]{20,}(?:”|$)|«[^»]{20,}(?:»|$)', re.DOTALL)
INTERJECTION = (
    "and|but|so|well|oh|aw|aww|ah|ooh|wow|hey|hi|hello|yes|yeah|yep|no|nope|right|i know|ha|haha|okay|ok|sure|also|me|lovely|"
    "listen|oh dear|then|noted|anyway|actually|sorry|look|honestly|luckily|thanks|naturally|of course|by the way|i mean|you know|"
    "hang on|no wait|wait|to be honest|on top of that|either way|in fact|guess what|apart from that|before i forget|"
    r"one correction|(?:good|bad|sad|great|big) news(?: from us)?"
)
GOING_ON = r"i|my|we|(?:i|we)['\u2019]\w+|our|it|it['\u2019]s|he|she|they|the|from|there|then|yes|no|guess|also|now|before"
LEAD = re.compile(
    rf"(?:(?:{INTERJECTION})\b\s*[,!.:;…-]+\s*|you know (?:that )?(?=i\b)|then (?=[A-Z])"
    rf"|(?:and|but|so)\s+(?=(?:{GOING_ON})\b)|(?:and|but)\s+(?=[A-Z]))+",
    re.IGNORECASE,
)
TAIL = re.compile(
    r",\s*(?:by the way|too|i['\u2019]m afraid|you know|though|i really mean it|it['\u2019]s true)(?=[.!]?$)", re.IGNORECASE
)
BORDER = re.compile(
    r"\s*(?:[;:–—]|,(?=\s)|\s-\s)\s*"
    r"|\s+(?=(?:because|although|while|(?:and|but|so) (?:i|we|he|she|it|they|you|there|that)(?:['\u2019]\w+)?)\s)",
    re.IGNORECASE,
)
HANGING = re.compile(
    r"(?:(?<!now )\b(?:and|but|or|so|because|which|that|if|when|although|while|the|a|an|to|of|for|with|in|on|at|not|no|by|"
    r"from|my|is|was)\s*)+$",
    re.IGNORECASE,
)
CONDITION = re.compile(r"\b(?:if|unless|as long as|provided|only|until|except|without|nobody|not)\b", re.IGNORECASE)


def spoken(text: str) -> list[str]:
    """The sentences of a text as said, cleaned; an abbreviation ends none."""
    parts: list[str] = []
    for block in re.split(r"\n{2,}", text):
        for found in words.sentences(block):
            for raw in WIDE_END.split(found):
                piece = clean(raw)
                if parts and ABBREVIATED.search(parts[-1]):
                    parts[-1] = f"{parts[-1]} {piece}"
                elif piece:
                    parts.append(piece)
    return parts


def own_words(text: str) -> tuple[str, bool]:
    """The text with long quotations taken out, and whether there were any. What stood around one goes with its sentence."""
    found = QUOTATION.sub(" ⟦⟧. ", text)
    return found, found != text


def bare(sentence: str) -> str:
    """The sentence without lead-in and asides; its first letter raised."""
    lead = LEAD.match(sentence)
    body = TAIL.sub("", sentence[lead.end() if lead else 0 :]).strip()
    return body[:1].upper() + body[1:]


def count(text: str) -> int:
    return len(text.split())


def clauses(sentence: str) -> list[str]:
    """The sentence cut at its clause borders; joined with a space they may lose a comma."""
    cuts = [0, *(match.end() for match in BORDER.finditer(sentence) if match.end() < len(sentence)), len(sentence)]
    return [part for start, end in itertools.pairwise(cuts) if (part := sentence[start:end].strip())]


def shorten(sentence: str, limit: int) -> str:
    """The head of a sentence, of at most `limit` words, cut at a clause border; "" when none is safe.

    What follows must not turn the head's meaning: a cut before a condition or a denial is refused.
    """
    if count(sentence) <= limit:
        return sentence
    reach = len(" ".join(sentence.split()[: limit + 1]))
    for match in reversed(list(BORDER.finditer(sentence, 0, reach))):
        head = HANGING.sub("", sentence[: match.start()].rstrip(" ,;:-–—")).rstrip(" ,;:-–—")
        rest = sentence[match.end() :].split(maxsplit=6)[:6]
        if 3 <= count(head) <= limit and not CONDITION.search(" ".join(rest[:4])) and _whole(head, rest):
            return head
    return ""


def _whole(head: str, rest: list[str]) -> bool:
    """Whether the head can do without the rest: it has its verb, or the rest has none to lend it."""
    return has_verb(head) or rest[:1] == ["to"] or not has_verb(" ".join(rest))


def closed(text: str) -> str:
    """The text with a full stop, unless it has an end already."""
    return text if not text or text[-1] in ".!?…。！？)\"'”\u2019" else text.rstrip(" ,;:") + "."
