"""Memories by their words: found, listed with numbers, and picked by a person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import RenderableType
from rich.text import Text

from consolidator.errors import InvalidInput
from consolidator_adapters.cli import views
from consolidator_adapters.cli.call import Call, interruptible

if TYPE_CHECKING:
    from consolidator.models import Memory

ALL, NONE = ("all", "a"), ("none", "n", "no", "")
QUESTION = "Which ones? Numbers and ranges such as 1 3-5, all, or none"
# scripts that put no blanks between words: there a word may begin and end anywhere
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def words_of(told: str) -> list[str]:
    from consolidator.words import plain

    return [word for word in plain(told).split() if re.search(r"\w", word)]


def holds(memory: Memory, told: str) -> bool:
    """Whether its text has every one of these words, in any case; `doctor*` stands for all words that begin so."""
    from consolidator.words import plain

    text = plain(memory.text)
    return all(_pattern(word).search(text) for word in words_of(told))


def _pattern(word: str) -> re.Pattern[str]:
    if UNSPACED.search(word):
        return re.compile(re.escape(word.rstrip("*")))
    edge = r"[^\W_]"
    before, after = f"(?<!{edge})", "" if word.endswith("*") else f"(?!{edge})"
    return re.compile(before + re.escape(word.rstrip("*")) + after)


def numbered(found: Sequence[Memory]) -> RenderableType:
    made = views.table("", "happened", "source", "text", right=("",), wide="text")
    for number, memory in enumerate(found, start=1):
        made.add_row(str(number), views.day(memory.time), Text(views.cut(memory.source, 20)), Text(views.plain(memory.spoken)))
    return made


def picked(call: Call, found: Sequence[Memory]) -> list[Memory]:
    """Those that a person names; asked again until it can be understood."""
    while True:
        try:
            with interruptible():
                told: str = typer.prompt(QUESTION, default="none", err=True)
            return [found[number - 1] for number in numbers(told, len(found))]
        except typer.Abort:
            return []
        except InvalidInput as error:
            call.err.print(str(error), soft_wrap=True)


def numbers(told: str, most: int) -> list[int]:
    """Those that "1, 3-5", "all" or "none" name, each once, in order. Raises InvalidInput."""
    told = told.strip().casefold()
    if told in ALL + NONE:
        return list(range(1, most + 1)) if told in ALL else []
    chosen: set[int] = set()
    for part in re.split(r"[\s,;]+", re.sub(r"\s*(?:-|–|\.\.)\s*", "-", told).strip(",;")):
        span = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (0, 0)
        if not 1 <= first <= last <= most:
            raise InvalidInput(f'"{views.plain(part)}" is none of 1 to {most}; write such as 1 3-5, all, or none')
        chosen.update(range(first, last + 1))
    return sorted(chosen)
