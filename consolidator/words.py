"""Words of a text, as ranking and the guards compare them. Pure."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

WORD = re.compile(r"[^\W_]+(?:[.,:'’][^\W_]+)*")
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
NEGATION = re.compile(r"\b(?:not|no|never|none|without|cannot|\w+n['’]t|stopped|nicht|kein\w*|pas|jamais)\b", re.IGNORECASE)
# what stands behind them cannot change places with what stands before
TURNS = {"before": "before", "after": "after", "until": "until", "unless": "unless", "instead": "instead", "rather": "instead"}
TURN = re.compile(r"\b(before|after|until|unless|instead|rather)\b(?:\s+(?:of|than))?([^,.;:!?]*)", re.IGNORECASE)
REACH = 4  # words behind a turn that say what it turns on
CODE = re.compile(r"`([^`\n]+)`")
SENTENCE_END = re.compile(r"(?<=[.!?…。！？])[\"'”’)]*\s+|\n{2,}")
STOP_WORDS = """a an and are as at be been but by can could did do does for from had has have he her him his how i if in into is
it its just me my no not of on or our out she so some than that the their them then there they this to too up us was we were what
when where which who why will with would you your about also any more most very may might must shall should i'm i've it's don't"""
RUN = 6  # words
STOP = frozenset(STOP_WORDS.split())


def plain(text: str) -> str:
    """Compared without regard to case, width and spacing."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def wordings(text: str) -> frozenset[str]:
    """Every run of six words, where at least three of them say something: what two texts share only when one has the other's."""
    words = [word.casefold() for word in WORD.findall(plain(text))]
    runs = (words[start : start + RUN] for start in range(len(words) - RUN + 1))
    return frozenset(" ".join(run) for run in runs if sum(word not in STOP for word in run) >= RUN // 2)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """A light stem: plural, possessive and the commonest verb endings go; good enough to compare, never shown."""
    word = word.removesuffix("'s").removesuffix("’s")
    for ending in ("ings", "ing", "edly", "ies", "ied", "ed", "es", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending) + ("y" if ending in ("ies", "ied") else "")
    return word


def stem_list(text: str) -> list[str]:
    """The content words of a text, stemmed, in order."""
    return [stem(word) for word in WORD.findall(plain(text)) if word not in STOP]


def stems(text: str) -> frozenset[str]:
    """The content words of a text, stemmed."""
    return frozenset(stem_list(text))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared share of two sets, 0 for two empty ones."""
    return len(one & other) / len(one | other) if one or other else 0.0


def numbers(text: str) -> frozenset[str]:
    return frozenset(NUMBER.findall(text))


def names(text: str) -> frozenset[str]:
    """Capitalised words that do not open a sentence."""
    found = set()
    for sentence in SENTENCE_END.split(text):
        words = WORD.findall(sentence)
        found |= {word.removesuffix("'s").removesuffix("’s") for word in words[1:] if word[:1].isupper() and len(word) > 1}
    return frozenset(found)


def says_the_same(one: str, other: str) -> bool:
    """Whether two near texts may be merged: names, numbers, negations, turns (before what, instead of what) and code agree. Near
    alone is not equal.
    """
    return (
        numbers(one) == numbers(other)
        and _turn_alike(one, other)
        and _code_alike(one, other)
        and bool(NEGATION.search(one)) == bool(NEGATION.search(other))
        and not (names(one) ^ names(other)) - {word for word in names(one) | names(other) if _in(word, one) and _in(word, other)}
    )


def _code_alike(one: str, other: str) -> bool:
    """Where both name commands or files, one names all that the other does."""
    mine, yours = set(CODE.findall(one)), set(CODE.findall(other))
    return mine <= yours or yours <= mine


def _turn_alike(one: str, other: str) -> bool:
    mine, yours = _turns(one), _turns(other)
    return mine.keys() == yours.keys() and all(mine[turn] & yours[turn] or mine[turn] == yours[turn] for turn in mine)


def _turns(text: str) -> dict[str, set[str]]:
    """Each turn with the content words behind it."""
    found: dict[str, set[str]] = {}
    for match in TURN.finditer(text):
        found.setdefault(TURNS[match[1].lower()], set()).update(stem_list(" ".join(WORD.findall(match[2])[:REACH])))
    return found


def _in(word: str, text: str) -> bool:
    return word.casefold() in plain(text)


def sentences(text: str) -> list[str]:
    """The sentences of a text, with their punctuation, blank ones left out."""
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]


def split(text: str, limit: int) -> list[str]:
    """Parts of at most `limit` characters, cut at sentence borders, else at spaces, else hard; only white space is lost."""
    if len(text) <= limit:
        return [text]
    parts: list[str] = []
    for sentence in sentences(text):
        for piece in _pieces(sentence, limit):
            if parts and len(parts[-1]) + 1 + len(piece) <= limit:
                parts[-1] = f"{parts[-1]} {piece}"
            else:
                parts.append(piece)
    return parts


def _pieces(sentence: str, limit: int) -> list[str]:
    pieces = []
    while len(sentence) > limit:
        cut = sentence.rfind(" ", 0, limit + 1)
        cut = cut if cut > 0 else limit
        pieces.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    return [*pieces, sentence] if sentence else pieces


def cost(text: str) -> int:
    """Model tokens, estimated without a tokenizer: a quarter of the UTF-8 bytes, at least the words; rounded up."""
    return max(-(-len(text.encode()) // 4), len(WORD.findall(text)))
