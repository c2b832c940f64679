"""Importance without a model: how much less likely the words of an exchange get without a group of items. Pure.

    p(w | S) = 0.5 * c_S(w) / n_S + 0.5 * b(w)                    S: the items that were shown; c, n: counts of words
    b(w)     = 0.98 * c_bank(w) / n_bank + 0.02 / 50000
    d(g)     = mean over the words of query and response of  log p(w | S) - log p(w | S without g)

A unigram cache model, smoothed by Jelinek and Mercer. It is lexical evidence under a unit of its own, never put together with
a model's nats; it ranks as BM25 of query and response does.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

from consolidator.errors import InvalidInput
from consolidator.transcripts import Cell, Group

LEXICAL_UNIT = "lexical/unigram-jm50-1"
SHOWN = 0.5  # of the probability comes from what was shown
UNSEEN = 0.02  # of the background goes to words that the bank does not have
VOCABULARY = 50_000
# letters of many scripts carry marks that `\w` does not know; a word must not be torn at them
MARKS = "".join(chr(code) for code in range(0x0300, 0x1D00) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
WORD = re.compile(rf"[\w{MARKS}]+")
THAI_LAO, MYANMAR, KHMER = "\u0e00-\u0eff", "\u1000-\u109f", "\u1780-\u17ff"
HAN_KANA = "\u3005-\u3007\u3040-\u30ff\u31f0-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
UNSPACED = re.compile(f"([{THAI_LAO}{MYANMAR}{KHMER}{HAN_KANA}]+)")


def words_of(text: str) -> list[str]:
    """The words of a text in order, without regard to case and width; of scripts without spaces, overlapping pairs of signs."""
    found = WORD.findall(unicodedata.normalize("NFKC", text).casefold().replace("_", " "))
    if text.isascii():
        return found
    return [word for run in found for piece in UNSPACED.split(run) if piece for word in _pieces(piece)]


def _pieces(run: str) -> list[str]:
    return ["".join(pair) for pair in pairwise(run)] if len(run) > 1 and UNSPACED.match(run) else [run]


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """How often each word is said in the texts of a bank, and how many words there are. It is derived text, as they are."""

    counts: Mapping[str, int] = field(default_factory=dict, repr=False)
    total: int = 0

    @classmethod
    def of(cls, texts: Iterable[str]) -> Background:
        return cls().adding(texts)

    def adding(self, texts: Iterable[str]) -> Background:
        new = Counter(word for text in texts for word in words_of(text))
        return Background(counts=Counter(self.counts) + new, total=self.total + new.total())

    def removing(self, texts: Iterable[str]) -> Background:
        """As if they had never been added: a word that nothing else says is gone. Raises InvalidInput for what is not in it."""
        gone = Counter(word for text in texts for word in words_of(text))
        if not gone <= Counter(self.counts):
            raise InvalidInput("the background does not hold this text")
        return Background(counts=Counter(self.counts) - gone, total=self.total - gone.total())

    def probability(self, word: str) -> float:
        if not self.total:
            return 1 / VOCABULARY
        return (1 - UNSEEN) * self.counts.get(word, 0) / self.total + UNSEEN / VOCABULARY


def divergences(
    query: str, response: str, shown: Mapping[str, str], groups: Sequence[Group], background: Background | None = None
) -> list[float]:
    """What each group was worth to an exchange, in nats per word, signed; all are left out of the same whole.

    shown: the text of every item in the context, best with date and speaker. background: of the bank; without it, of what was
    shown, which ranks almost as well and keeps no counts. 0 for a group that was not shown, or where no word was said: `cells`
    tells these apart.
    """
    said = Counter(words_of(query) + words_of(response))
    counts = {item: Counter(words_of(text)) for item, text in shown.items()}
    base = background or Background.of(shown.values())
    whole = Counter(chain.from_iterable(part.elements() for part in counts.values()))
    rest = {word: (1 - SHOWN) * base.probability(word) for word in said}
    full = _log_likelihood(said, whole, whole.total(), rest, {})
    return [_lost(said, full, whole, rest, [counts[item] for item in group.items if item in counts]) for group in groups]


def _lost(
    said: Mapping[str, int], full: float, whole: Counter[str], rest: Mapping[str, float], parts: Sequence[Counter[str]]
) -> float:
    """Leaving out is closed form: the group's counts are taken from those of the whole."""
    length = sum(part.total() for part in parts)
    if not length or not said:
        return 0.0
    out = {word: number for word in said if (number := sum(part[word] for part in parts))}
    return (full - _log_likelihood(said, whole, whole.total() - length, rest, out)) / sum(said.values())


def _log_likelihood(
    said: Mapping[str, int], whole: Counter[str], total: int, rest: Mapping[str, float], out: Mapping[str, int]
) -> float:
    scale = SHOWN / total if total else 0.0
    return sum(n * math.log(scale * (whole[word] - out.get(word, 0)) + rest[word]) for word, n in said.items())


def cells(
    query: str, response: str, shown: Mapping[str, str], groups: Sequence[Group], background: Background | None = None
) -> list[Cell]:
    """`divergences` as cells, words for tokens; not applicable where the response says nothing, or was not shown the group."""
    answer = len(words_of(response))
    if not answer:
        return [Cell(status="not_applicable", reason="empty_response")] * len(groups)
    tokens = answer + len(words_of(query))
    values = divergences(query, response, shown, groups, background)
    absent = Cell(status="not_applicable", reason="not_in_context")
    return [
        Cell(value=value, tokens=tokens, status="scored") if shown.keys() & set(group.items) else absent
        for group, value in zip(groups, values, strict=True)
    ]
