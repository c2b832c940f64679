"""How importance looks on a terminal: a heat map in letters, the memories that each answer leant on, states and scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.style import Style
from rich.text import Text

from consolidator_adapters.cli.views import count, cut, minute, on, plain, short, table
from consolidator_adapters.heatmap import MORE, Box, Sheet, is_dark, number, shade
from consolidator_adapters.heatmap import cut as shortened

if TYPE_CHECKING:
    from consolidator.importance import Measured
    from consolidator.runs import IncrementalReport
    from consolidator.transcripts import Cell, Group, Importance, Matrix
    from consolidator_adapters.cli.transcribed import Item, Shown

ALL = "sum"
ABSENT, UNKNOWN, SHARED = "·", "?", "~"
TEXT = 46
LEAST_LABEL, LONGEST_LABEL = 28, 44
ROWS_SHOWN, ANSWERS_SHOWN, IMPORTANT_SHOWN, REASONS_SHOWN = 40, 40, 5, 4
GREY = "bright_black"
UNITS = "nats per token by which an answer gets less likely without a memory"
WORDS_ALONE = "lexical/"
LATER = "moved no mean: a later answer, which may have the fact from an earlier one"
REASONS = {  # of a cell; what a provider said follows some of them
    "not_in_context": "the answer was not shown it", "empty_response": "the answer says nothing",
    "too_short": "the answer is too short", "over_budget": "over the budget of prompts and tokens",
    "dry_run": "a dry run", "not_opened": "its bucket was not opened", "context_too_long": "the context is too long",
    "unavailable": "the model cannot be reached", "rejected": "the model refuses it", "misaligned": "the numbers do not fit",
    "unsupported": "the model gives no log-probabilities", "failed": "it failed",
}
SKIPS = {
    "not_due": "measured a short while ago, or nothing new was answered", "no_response": "no answer comes after it",
    "window_not_full": "too few answers after it yet", "unsupported": "the model cannot measure it",
    "over_budget": "over the budget of prompts and tokens",
}


# the sheet


def sheet_of(matrix: Matrix, shown: Shown, title: str) -> Sheet:
    """The most important rows first; what is not known at all comes last."""
    sums = [matrix.row(place) for place in range(len(matrix.groups))]
    order = sorted(range(len(matrix.groups)), key=lambda g: (sums[g] is None, -(sums[g] or 0.0)))
    groups = [matrix.groups[place] for place in order]
    columns = range(len(matrix.responses))
    return Sheet(
        title=title, subtitle=f"{UNITS}; {told_unit(matrix.unit)}", rows=tuple(label(shown, group) for group in groups),
        heads=tuple(map(head, matrix.responses)), captions=tuple(plain(shown.answer(r)) or "(empty)" for r in matrix.responses),
        boxes=tuple(tuple(_box(cell) for cell in matrix.cells[place]) for place in order),
        row_sums=tuple(_sum(sums[place], lacks=matrix.row_incomplete(place)) for place in order),
        column_sums=tuple(_sum(matrix.column(column), lacks=matrix.column_incomplete(column)) for column in columns),
        notes=tuple(notes(matrix, shown)),
    )


def label(shown: Shown, group: Group) -> str:
    others = f" (+{len(group.items) - 1})" if len(group.items) > 1 else ""
    return plain(shown.face(group).text) + others


def head(response: str) -> str:
    """The place of the answer among the turns, as the end of its id has it."""
    return "/" + response.rpartition("/")[2]


def _box(cell: Cell) -> Box:
    hint = _reason(cell.reason) if cell.value is None else f"{cell.value:+.4f} nats per token, {count(cell.tokens, 'token')}"
    if cell.value is None:
        return Box(mark=ABSENT if cell.status == "not_applicable" else UNKNOWN, hint=hint)
    return Box(value=cell.value, mark=SHARED if cell.how == "bucket" else "", hint=hint)


def _sum(value: float | None, *, lacks: bool) -> Box:
    if value is None:
        return Box(mark=UNKNOWN if lacks else ABSENT)
    return Box(value=value, mark=UNKNOWN if lacks else "", hint="lacks what is unknown" if lacks else "")


def _reason(reason: str) -> str:
    word, _, told = reason.partition(": ")
    return REASONS.get(word, word) + (f": {plain(told)}" if told else "")


def told_unit(unit: str) -> str:
    return f"unit {plain(unit)}" + (", the words alone" if unit.startswith(WORDS_ALONE) else "")


def notes(matrix: Matrix, shown: Shown) -> Iterator[str]:
    """What the marks stand for, what it cost, what is not in it."""
    cells = [cell for row in matrix.cells for cell in row]
    for status, mark in (("not_applicable", ABSENT), ("failed", UNKNOWN)):
        if reasons := Counter(_reason(cell.reason) for cell in cells if cell.status == status):
            yield f"{mark} {'not applicable' if mark == ABSENT else 'unknown, not 0'}: {listed(reasons)}"
    if any(cell.how == "bucket" for cell in cells):
        yield f"{SHARED} its share of what several groups together were worth"
    if matrix.incomplete:
        yield f"a sum with {UNKNOWN} lacks what is unknown"
    if any(len(group.items) > 1 for group in matrix.groups):
        yield "(+n): left out together with n more that say the same, or that it rests on"
    yield spent(matrix.prompts_sent, matrix.tokens_sent)
    yield from unknown_items(shown)


def listed(reasons: Mapping[str, int]) -> str:
    told = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    more = len(told) - REASONS_SHOWN
    parts = [f"{reason} ({many:,})" for reason, many in told[:REASONS_SHOWN]] + ([f"{more:,} more reasons"] if more > 0 else [])
    return "; ".join(parts)


def spent(prompts: int, tokens: int) -> str:
    return f"{count(prompts, 'prompt')} and {count(tokens, 'token')} were sent" if prompts else "nothing was sent to a model"


def unknown_items(shown: Shown) -> Iterator[str]:
    if shown.unknown:
        are = "is" if shown.unknown == 1 else "are"
        yield f"{shown.unknown:,} of {count(shown.asked, 'item')} {are} unknown to bank {shown.bank}, and read as plain text"


# the terminal


def matrix(told: Matrix, shown: Shown, sheet: Sheet, width: int) -> RenderableType:
    """The heat map, and below it each answer with what it leant on."""
    if not told.groups or not told.responses:
        return Lines(Text("no answer comes after a memory that was shown: there is nothing to measure"), *_grey(sheet.notes))
    return Lines(*_map(sheet, width), Text(), *_grey([sheet.subtitle, *sheet.notes]), Text(), *_answers(told, shown))


def _grey(lines: Iterable[str]) -> Iterator[Text]:
    return (Text(line, GREY) for line in lines)


def _map(sheet: Sheet, width: int) -> Iterator[Text]:
    wide = 1 + max(cell_len(text) for text in _texts(sheet))
    columns = _fitting(sheet, width, wide)
    room = min(LONGEST_LABEL, max(LEAST_LABEL, width - wide * (len(columns) + 1) - 1))
    labelled = min(room, max(cell_len(text) for text in (*sheet.rows, ALL)))
    yield _line("", labelled, [Text(sheet.heads[c].rjust(wide), GREY) for c in columns], Text("sum".rjust(wide), "bold"))
    for row, boxes, total in list(zip(sheet.rows, sheet.boxes, sheet.row_sums, strict=True))[:ROWS_SHOWN]:
        yield _line(row, labelled, [_cell(boxes[c], wide, sheet.most) for c in columns], _bold(total, wide))
    yield _line(ALL, labelled, [_bold(sheet.column_sums[c], wide) for c in columns], Text())
    yield from _left_out(sheet, columns)


def _texts(sheet: Sheet) -> Iterator[str]:
    yield from ("sum", *sheet.heads)
    for boxes in (*sheet.boxes, sheet.row_sums, sheet.column_sums):
        yield from (box.text for box in boxes)


def _fitting(sheet: Sheet, width: int, wide: int) -> list[int]:
    """The columns that there is room for: those that depend most on memory, in their order."""
    fit = max(1, (width - LEAST_LABEL - 1 - wide) // wide)
    sums = sheet.column_sums
    strongest = sorted(range(len(sums)), key=lambda c: (sums[c].text == ABSENT, -abs(sums[c].value or 0.0), c))
    return sorted(strongest[:fit])


def _line(name: str, room: int, cells: Sequence[Text], last: Text) -> Text:
    named, width = name, room
    while cell_len(named) > room:  # letters may be two cells wide
        named, width = shortened(name, width, keep=MORE), width - 1
    return Text.assemble((set_cell_size(named, room), "bold" if name == ALL else ""), " ", *cells, last)


def _cell(box: Box, wide: int, most: float) -> Text:
    colour = shade(box.value, most)
    if colour is None:
        return Text(box.text.rjust(wide), GREY if box.value is None else "")
    letters = Color.from_rgb(255, 255, 255) if is_dark(colour) else Color.from_rgb(0, 0, 0)
    return Text.assemble(" ", (box.text.rjust(wide - 1), Style(color=letters, bgcolor=Color.from_rgb(*colour))))


def _bold(box: Box, wide: int) -> Text:
    return Text(box.text.rjust(wide), GREY if box.value is None else "bold")


def _left_out(sheet: Sheet, columns: Sequence[int]) -> Iterator[Text]:
    if len(columns) < len(sheet.heads):
        shown = f"{len(columns):,} of {count(len(sheet.heads), 'answer')}"
        yield Text(f"{shown} fit in here: those that depend most on memory; --image and --json have all", "yellow")
    if len(sheet.rows) > ROWS_SHOWN:
        yield Text(f"the first {ROWS_SHOWN} of {len(sheet.rows):,} rows; --image and --json have all", "yellow")


def _answers(told: Matrix, shown: Shown) -> Iterator[RenderableType]:
    for column, response in enumerate(told.responses[:ANSWERS_SHOWN]):
        text = plain(shown.answer(response))
        yield Text.assemble((head(response), "bold"), f" “{cut(text, 68)}”" if text else " (empty)")
        leant = told.important_for(response)
        yield from (_leant(shown.face(group), value) for group, value in leant[:IMPORTANT_SHOWN])
        if (more := len(leant) - IMPORTANT_SHOWN) > 0:
            yield Text(f"     and {more:,} more: --json has them", GREY)
        if not leant:
            yield Text(f"   {_leant_on_nothing([row[column] for row in told.cells])}", GREY)
    if (more := len(told.responses) - ANSWERS_SHOWN) > 0:
        yield Text(f"and {count(more, 'more answer')}: --json has them", "yellow")


def _leant(item: Item, value: float) -> Text:
    text = set_cell_size(cut(item.text, TEXT), TEXT)
    return Text.assemble(f"   {number(value):>6}  {text}", (f"  {item.kind} {short(item.id)}", GREY))


def _leant_on_nothing(cells: Sequence[Cell]) -> str:
    if any(cell.status == "failed" for cell in cells):
        return "what it leant on is unknown"
    return "leant on no memory" if any(cell.value is not None for cell in cells) else "not applicable"


def rehearsal(told: Matrix, shown: Shown) -> RenderableType:
    """What it would cost."""
    what = f"{count(len(told.groups), 'group')} of memories against {count(len(told.responses), 'answer')}"
    if not told.prompts_sent:
        cost = "no prompt and no token"
    else:
        cost = f"{count(told.prompts_sent, 'prompt')} and {count(told.tokens_sent, 'token')}"
    over = sum(cell.reason == "over_budget" for row in told.cells for cell in row)
    lines = [Text(f"{what} would send {cost}; nothing was sent or kept"), Text(told_unit(told.unit), GREY)]
    beyond = f"{count(over, 'cell')} would be over the budget of prompts and tokens, and stay unknown"
    lines += [Text(beyond, "yellow")] if over else []
    return Lines(*lines, *_grey(unknown_items(shown)))


# one run of what is due


def due(report: IncrementalReport, shown: Shown) -> RenderableType:
    scored, passed, failed = len(report.scored), len(report.skipped), len(report.failed)
    head = f"{report.due:,} due, {scored:,} scored, {passed:,} passed over, {failed:,} failed"
    lines: list[RenderableType] = [Text(head)]
    if report.scored:
        made = table("value", "memory", "id", right=("value",), wide="memory")
        for group, value in sorted(report.scored, key=lambda pair: (-pair[1], pair[0].id)):
            made.add_row(number(value), Text(label(shown, group)), short(shown.face(group).id))
        lines += [Text(), made, Text()]
    skips = Counter(SKIPS.get(why, why) for _, why in report.skipped)
    lines += [Text(f"passed over: {listed(skips)}", GREY)] if skips else []
    failures = Counter(_reason(why) for _, why in report.failed)
    lines += [Text(f"failed, and still unknown: {listed(failures)}", "yellow")] if failures else []
    cost = spent(report.prompts_sent, report.tokens_sent)
    told = [f"{UNITS}; {told_unit(report.unit)}"] if report.scored else [told_unit(report.unit)]
    return Lines(*lines, *_grey([*told, cost, *unknown_items(shown)]))


# one item


def importance(told: Measured, item: Item, bank: str) -> RenderableType:
    title = Lines(Text(plain(item.text), "bold"), Text(f"{item.kind} {item.id}", GREY))
    if not told.states and not told.scores:
        how = f"`consolidator score TRANSCRIPT.jsonl{on(bank)}` measures it"
        return Lines(title, Text(f"nothing is known of its importance, which is not 0: {how}"))
    states: list[RenderableType] = [_state(state) for state in told.states]
    scores = table("value", "tokens", "answer", "left out with it", "at", "", right=("value", "tokens"), wide="answer")
    for s in told.scores:
        kind = ([] if s.counts else ["moved no mean"]) + ([f"{SHARED} of a bucket"] if s.how == "bucket" else [])
        others, remark = _beside(s.items, item.id), Text(", ".join(kind), GREY)
        scores.add_row(number(s.value), f"{s.tokens:,}", Text(plain(s.response)), others, minute(s.at), remark)
    later = [] if all(s.counts for s in told.scores) else [LATER]
    return Lines(title, Text(), *states, Text(), scores, Text(), *_grey([UNITS, *later]))


def _state(s: Importance) -> Text:
    mean = f"{number(s.mean)} on average, {number(s.maximum)} at most; "
    worth = f"{count(s.updates, 'update')}, {s.tokens:,} tokens, worth {s.n:.1f} measurements, the last {minute(s.last_scored)}"
    return Text.assemble((told_unit(s.unit), "bold"), "\n  ", mean, worth)


def _beside(items: Sequence[str], item: str) -> str:
    others = [short(id) for id in items if id != item]
    return ", ".join(others[:1]) + (f" (+{len(others) - 1})" if len(others) > 1 else "")
