"""A heat map: rows by columns of signed numbers, with sums at the edges. As values, as colours, and as an SVG picture.

Every number stands in its cell, so the picture reads without colour too; orange is above 0, blue below. Nothing is fetched.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

Rgb = tuple[int, int, int]
ABOVE: tuple[Rgb, Rgb] = ((254, 230, 206), (217, 95, 2))  # a faint and a full tone
BELOW: tuple[Rgb, Rgb] = ((222, 235, 247), (33, 113, 181))
FAINTEST = 0.05  # nats per token: noise, and below it a cell has no colour
LEAST_FULL = 0.2  # a picture of noise alone has no full tones
MORE = re.compile(r" \(\+\d+\)$")  # the end of a label that stands for several
NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

FONT = "font-family='DejaVu Sans, Verdana, Helvetica, Arial, sans-serif'"
LETTER = 7.2  # pixels, about, of a letter in a label
EDGE, LABEL, CELL, ROW, GAP = 16, 320, 56, 26, 10
TITLE, SLANT, HEAD = 64, 130, 24  # heights: of title and subtitle, of the slanted captions, of the columns' heads
CAPTION = 24  # letters
NARROWEST = 720
LINE = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A cell: a value, or a mark that stands for none; with both, the mark says what to think of the value."""

    value: float | None = None
    mark: str = ""
    hint: str = ""  # in full, for who points at it

    @property
    def text(self) -> str:
        if self.value is None:
            return self.mark
        return f"~{number(self.value)}" if self.mark == "~" else number(self.value) + self.mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What is drawn. boxes[row][column]. captions: of columns, in a few words. notes: below, a line each."""

    title: str
    subtitle: str
    rows: tuple[str, ...]
    heads: tuple[str, ...]
    captions: tuple[str, ...]
    boxes: tuple[tuple[Box, ...], ...]
    row_sums: tuple[Box, ...]
    column_sums: tuple[Box, ...]
    notes: tuple[str, ...] = ()

    @property
    def most(self) -> float:
        """The value of a full tone."""
        return max([LEAST_FULL, *(abs(box.value) for row in self.boxes for box in row if box.value is not None)])


def number(value: float) -> str:
    """Two places and a sign, but for 0."""
    told = f"{value:+.2f}"
    return "0.00" if told in ("+0.00", "-0.00") else told


def shade(value: float | None, most: float) -> Rgb | None:
    """The colour behind a value; None for one that is hardly there."""
    if value is None or abs(value) < FAINTEST:
        return None
    faint, full = ABOVE if value > 0 else BELOW
    share = min(abs(value) / most, 1.0) ** 0.8  # so that small ones show
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(faint, full, strict=True))
    return red, green, blue


def is_dark(colour: Rgb) -> bool:
    """White letters are read on it better than black ones."""
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue < 135


# the picture


def svg(sheet: Sheet) -> str:
    """A picture of its own, with a white ground, as tall and wide as it has to be."""
    columns, rows = len(sheet.heads), len(sheet.rows)
    slanted = SLANT * 0.75 if columns else 0
    width = max(NARROWEST, round(_left(columns) + GAP + CELL + EDGE + slanted))
    notes = [line for note in sheet.notes for line in textwrap.wrap(note, int((width - 2 * EDGE) / LETTER)) or [""]]
    below = _top(rows) + GAP + ROW + 2 * EDGE
    height = below + ROW + LINE * (len(notes) + 1) + EDGE
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' role='img'"
        f" aria-label={_attribute(sheet.title)} {FONT} font-size='13'>",
        f"<title>{_xml(sheet.title)}</title>", f"<rect width='{width}' height='{height}' fill='#ffffff'/>",
        _text(EDGE, 28, sheet.title, "font-size='17' font-weight='bold'"), _text(EDGE, 49, sheet.subtitle, "fill='#555555'"),
        *_heads(sheet), *_rows(sheet), *_sums(sheet), *_scale(sheet, below),
        *(_text(EDGE, below + ROW + LINE * (place + 2), line, "fill='#333333'") for place, line in enumerate(notes)), "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _left(column: int) -> int:
    return EDGE + LABEL + CELL * column


def _top(row: int) -> int:
    return TITLE + SLANT + HEAD + ROW * row


def _heads(sheet: Sheet) -> Iterator[str]:
    for place, (head, caption) in enumerate(zip(sheet.heads, sheet.captions, strict=True)):
        middle = _left(place) + CELL // 2
        turned = f"transform='translate({middle},{TITLE + SLANT}) rotate(-45)' fill='#333333' font-size='12'"
        yield f"<text {turned}>{_xml(cut(caption, CAPTION))}</text>"
        yield _text(middle, _top(0) - 7, head, "text-anchor='middle' fill='#555555' font-size='12'")
    yield _text(_left(len(sheet.heads)) + GAP + CELL // 2, _top(0) - 7, "sum", "text-anchor='middle' font-weight='bold'")


def _rows(sheet: Sheet) -> Iterator[str]:
    for row, (label, boxes) in enumerate(zip(sheet.rows, sheet.boxes, strict=True)):
        shown = _text(EDGE + LABEL - 8, _top(row) + 17, cut(label, int((LABEL - 8) / LETTER), keep=MORE), "text-anchor='end'")
        yield f"<g>{shown}<title>{_xml(label)}</title></g>"
        for column, box in enumerate(boxes):
            yield _box(_left(column), _top(row), box, shade(box.value, sheet.most))
        yield _box(_left(len(boxes)) + GAP, _top(row), sheet.row_sums[row], None, bold=True)


def _sums(sheet: Sheet) -> Iterator[str]:
    top = _top(len(sheet.rows)) + GAP
    yield _text(EDGE + LABEL - 8, top + 17, "sum", "text-anchor='end' font-weight='bold'")
    for column, box in enumerate(sheet.column_sums):
        yield _box(_left(column), top, box, None, bold=True)


def _box(left: int, top: int, box: Box, colour: Rgb | None, *, bold: bool = False) -> str:
    fill = "#f4f4f4" if colour is None and not bold else "none" if colour is None else _hex(colour)
    letters = "#ffffff" if colour and is_dark(colour) else "#666666" if box.value is None else "#111111"
    look = f"text-anchor='middle' fill='{letters}' font-size='12'" + (" font-weight='bold'" if bold else "")
    frame = f"<rect x='{left + 1}' y='{top + 1}' width='{CELL - 2}' height='{ROW - 2}' rx='2' fill='{fill}'/>"
    told = f"<title>{_xml(box.hint)}</title>" if box.hint else ""
    return f"<g>{told}{frame}{_text(left + CELL // 2, top + 17, box.text, look)}</g>"


def _scale(sheet: Sheet, top: int) -> Iterator[str]:
    """What the colours say."""
    for place, share in enumerate((-1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0)):
        value = share * sheet.most
        yield _box(EDGE + CELL * place, top, Box(value=value), shade(value, sheet.most))
    yield _text(EDGE + 7 * CELL + 12, top + 17, "← it got in the way · the answer leant on it →", "fill='#555555'")


def _text(left: int, base: int, text: str, look: str = "") -> str:
    return f"<text x='{left}' y='{base}' {look}>{_xml(text)}</text>"


def cut(text: str, width: int, *, keep: re.Pattern[str] | None = None) -> str:
    """To so many letters. keep: an end that stays."""
    if len(text) <= width:
        return text
    end = found[0] if keep and (found := keep.search(text)) else ""
    return text.removesuffix(end)[: width - len(end) - 1].rstrip() + "…" + end


def _xml(text: str) -> str:
    return escape(NO_XML.sub(" ", text))


def _attribute(text: str) -> str:
    return quoteattr(NO_XML.sub(" ", text))


def _hex(colour: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
