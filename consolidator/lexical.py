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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

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
        counts = Counter(word for text in texts for word in words_of(text))
        return cls(counts=counts, total=counts.total())

    def probability(self, word: str) -> float:
        if not self.total:
            return 1 / VOCABULARY
        return (1 - UNSEEN) * self.counts.get(word, 0) / self.total + UNSEEN / VOCABULARY


@dataclass(frozen=True, slots=True)
class Words:
    """How often each word is said in one text, and how many words it has."""

    counts: Mapping[str, int]
    total: int

    @classmethod
    def of(cls, text: str) -> Words:
        counts = Counter(words_of(text))
        return cls(dict(counts), counts.total())


class Exchange:
    """Query and response after all that was shown, from which any group may be left out.

    A group costs as much as its own words: of the others only the length of what is left matters, and is reckoned once for each.
    """

    def __init__(self, query: str, response: str, shown: Mapping[str, int], length: int, background: Background) -> None:
        """shown: counts of at least the words that are said, in what was shown, which has `length` words."""
        answer = words_of(response)
        self.answer = len(answer)
        self._said = Counter(words_of(query) + answer)
        self.words = self._said.total()
        self._shown = {word: shown[word] for word in self._said if shown.get(word)}
        self._rest = {word: (1 - SHOWN) * background.probability(word) for word in self._said}
        self._length = length
        self._without: dict[int, tuple[float, float]] = {}
        self._cells: dict[float, Cell] = {}

    def lost(self, parts: Sequence[Words]) -> float:
        """What it loses without these, in nats per word."""
        length = sum(part.total for part in parts)
        if not length or not self.words:
            return 0.0
        out: dict[str, int] = {}
        for part in parts:
            for word in self._common(part.counts):
                out[word] = out.get(word, 0) + part.counts[word]
        less, scale = self._shorter(length)
        return (less + sum(self._term(word, scale) - self._term(word, scale, out[word]) for word in out)) / self.words

    def cell(self, parts: Sequence[Words]) -> Cell:
        """`lost`, as a cell. Most groups have no word of an exchange, and share a few values: these share a cell."""
        value = self.lost(parts)
        if value not in self._cells:
            self._cells[value] = Cell(value=value, tokens=self.words, status="scored")
        return self._cells[value]

    def _common(self, counts: Mapping[str, int]) -> list[str]:
        few, many = (counts, self._said) if len(counts) < len(self._said) else (self._said, counts)
        return [word for word in few if word in many]

    def _shorter(self, length: int) -> tuple[float, float]:
        """What is lost where as many words were left out, none of them one that is said, and the scale of what is left."""
        if length not in self._without:
            whole, scale = self._scale(0), self._scale(length)
            less = sum(self._term(word, whole) - self._term(word, scale) for word in self._shown)
            self._without[length] = less, scale
        return self._without[length]

    def _scale(self, out: int) -> float:
        left = self._length - out
        return SHOWN / left if left else 0.0

    def _term(self, word: str, scale: float, out: int = 0) -> float:
        return self._said[word] * math.log(scale * (self._shown[word] - out) + self._rest[word])


class Showing:
    """What was shown so far, each item once, and what may be said after it."""

    def __init__(self, background: Background) -> None:
        self._background = background
        self._counts: Counter[str] = Counter()
        self._length = 0

    def show(self, told: Words) -> None:
        counts = self._counts
        for word, number in told.counts.items():
            counts[word] += number
        self._length += told.total

    def exchange(self, query: str, response: str) -> Exchange:
        return Exchange(query, response, self._counts, self._length, self._background)


def divergences(
    query: str, response: str, shown: Mapping[str, str], groups: Sequence[Group], background: Background | None = None
) -> list[float]:
    """What each group was worth to an exchange, in nats per word, signed; all are left out of the same whole.

    shown: the text of every item in the context, best with date and speaker. background: of the bank; without it, of what was
    shown, which ranks almost as well and keeps no counts. 0 for a group that was not shown, or where no word was said: `cells`
    tells these apart.
    """
    told = {item: Words.of(text) for item, text in shown.items()}
    showing = Showing(background or Background.of(shown.values()))
    for words in told.values():
        showing.show(words)
    exchange = showing.exchange(query, response)
    return [exchange.lost([told[item] for item in group.items if item in told]) for group in groups]


def cells_of(exchange: Exchange, parts: Iterable[Sequence[Words]]) -> Iterator[Cell]:
    """What an exchange loses with each of several groups, as cells, words for tokens; not applicable where the response says
    nothing, or was not shown the group. parts: of each group, the items that were shown.
    """
    absent = Cell(status="not_applicable", reason="not_in_context" if exchange.answer else "empty_response")
    for part in parts:
        yield exchange.cell(part) if exchange.answer and part else absent
