"""Sentences, clauses and lead-ins of spoken text. Pure."""

from __future__ import annotations

import re

from consolidator import words
from consolidator.actions import clean

MAX_WORDS = 30
MAX_TEXT = 400

ABBREVIATED = re.compile(r"(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|St|Prof|Sr|Jr|No|vs|approx|e\.g|i\.e|[A-Z])\.$")
WIDE_END = re.compile(r"(?<=[。！？])")
# Long quotations are other people's words, not the speaker's statement.
QUOTATION = re.compile(r'"[^"]{20,}(?:"|$)|“[^”]{20,}(?:”|$)|«[^»]{20,}(?:»|$)', re.DOTALL)
LEAD = re.compile(
    r"(?:(?:and|but|so|well|oh|ah|ooh|wow|hey|hi|hello|yes|yeah|yep|no|nope|right|i know|ha|haha|okay|ok|sure|also|me|lovely|listen|poor you|oh dear|then|noted|anyway|actually|"
    r"sorry|look|listen|honestly|luckily|thanks|naturally|of course|by the way|i mean|you know|hang on|no wait|wait|"
    r"to be honest|on top of that|either way|in fact|guess what|apart from that|before i forget|sad news from us|one correction|now the big one)\b\s*[,!.:;…-]+\s*"
    r"|you know (?:that )?(?=i\b)|then (?=[A-Z])"
    r"|(?:and|but|so)\s+(?=(?:i|i['’]\w+|my|we|we['’]\w+|our|it|it['’]s|he|she|they|the|from|there|then|yes|no|guess|also|now|before)\b)"
    r"|(?:and|but)\s+(?=[A-Z]))+",
    re.IGNORECASE,
)
TAIL = re.compile(r",\s*(?:by the way|too|i(?:'|’)m afraid|you know|though|i really mean it|it(?:'|’)s true)(?=[.!]?$)", re.IGNORECASE)
BORDER = re.compile(r"\s*(?:[;:–—]|,(?=\s)|\s-\s)\s*|\s+(?=(?:and|but|so|because|which|although|while)\s)", re.IGNORECASE)
HANGING = re.compile(r"(?:(?<!now )\b(?:and|but|or|so|because|which|that|if|when|although|while|the|a|an|to|of|for|with|in|on|at|not|no|by|from|my|is|was)\s*)+$", re.IGNORECASE)
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
    return [part for start, end in zip(cuts, cuts[1:], strict=False) if (part := sentence[start:end].strip())]


def shorten(sentence: str, limit: int) -> str:
    """The head of a sentence, of at most `limit` words, cut at a clause border; "" when none is safe.

    What follows must not turn the head's meaning: a cut before a condition or a denial is refused.
    """
    if count(sentence) <= limit:
        return sentence
    for match in reversed(list(BORDER.finditer(sentence))):
        head = HANGING.sub("", sentence[: match.start()].rstrip(" ,;:-–—")).rstrip(" ,;:-–—")
        rest = sentence[match.end() :].split()
        if 3 <= count(head) <= limit and not CONDITION.search(" ".join(rest[:4])):
            return head
    return ""


def closed(text: str) -> str:
    """The text with a full stop, unless it has an end already."""
    return text if not text or text[-1] in ".!?…。！？)\"'”’" else text.rstrip(" ,;:") + "."
