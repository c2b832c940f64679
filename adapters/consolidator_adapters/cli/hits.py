"""How recall's answers look, and how a reader can add up what put each of them where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from consolidator_adapters.cli.views import corrected, count, day, plain, quoted, short, standing

if TYPE_CHECKING:
    from consolidator.models import Explanation, Hit, Memory

SEEN = 0.005  # shares below are 0.00 on one line; the table has them
FEW = 3  # candidates; with fewer, each stands far from the mean of all
LEG_NAMES = {"dense": "by meaning", "words": "by words"}


def hits(found: Sequence[Hit], *, few: bool = False) -> RenderableType:
    """Rank, score, text, witness; with its explanation where there is one. few: the candidates were fewer than `FEW`."""
    if not found:
        return Text("nothing found")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style="bold", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    for rank, hit in enumerate(found, start=1):
        body = Group(*_body(hit), *([sum_of(hit.explanation, hit.score)] if hit.explanation else []))
        grid.add_row(str(rank), f"{hit.score:.3f}", Padding(body, (0, 0, 1, 0), expand=False))
    tokens = sum(hit.tokens for hit in found)
    note = [Text("with so few candidates the standardised scores say little\n", "yellow")] if few else []
    return Group(grid, *note, Text(f"{count(len(found), 'hit')}, {count(tokens, 'token')}", "bright_black"))


def _body(hit: Hit) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(plain(hit.text), "bold" if hit.kind == "observation" else "")]
    if hit.quote:
        lines.append(witness(hit, hit.quote))
    lines.append(told_of(hit))
    if hit.superseded_by:
        lines.append(Text(f"superseded by {short(hit.superseded_by)}", "yellow"))
    return lines


def witness(hit: Hit, quote: Memory) -> Text:
    """The quote of an observation, marked where a correction has shown it to be wrong."""
    wrong = {e.memory_id for e in hit.evidence if not e.supports}
    return corrected(quoted(quote)) if quote.id in wrong else quoted(quote)


def told_of(hit: Hit) -> Text:
    """What it is and what backs it, on one line."""
    if hit.kind == "observation":
        return Text.assemble((f"observation {short(hit.id)}: ", "bright_black"), standing(hit))
    parts = [plain(hit.speaker) if hit.speaker else "", day(hit.occurred_at), plain(hit.source or "")]
    parts += [plain(tag) for tag in sorted(hit.tags)]
    return Text(f"memory {short(hit.id)}: {', '.join(part for part in parts if part)}", "bright_black")


def sum_of(why: Explanation, score: float) -> RenderableType:
    """A score as a sum: lists, terms, then the bounded multipliers."""
    from consolidator.ranking import SOFTNESS, logistic

    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), style="bright_black")
    made.add_column("part")
    for name in ("rank", "raw", "standardised", "x weight", "= share"):
        made.add_column(name, justify="right", no_wrap=True)
    for leg in why.legs:
        rank = "-" if leg.rank is None else str(leg.rank)
        numbers = (f"{leg.score:.3f}", f"{leg.standardised:.3f}", f"{leg.weight:.2f}", f"{leg.share:.3f}")
        made.add_row(leg_name(leg.leg, full=True), rank, *numbers)
    for term in why.terms:
        made.add_row(plain(term.name), "", "", "", "", f"{term.share:.3f}")
    made.add_row("sum", "", "", "", "", Text(f"{why.base:.3f}", "bold"))
    made.add_row(f"1 / (1 + e^(-sum / {SOFTNESS:g}))", "", "", "", "", f"{logistic(why.base):.3f}")
    for factor in why.factors:
        made.add_row(f"x {factor.name} ({plain(factor.value)})", "", "", "", f"{factor.weight:.2f}", f"{factor.multiplier:.3f}")
    made.add_row("score", "", "", "", "", Text(f"{score:.3f}", "bold"))
    return Group(made, *([Text(plain(why.moved), "yellow")] if why.moved else []))


def reason(why: Explanation, score: float) -> Text:
    """The same on one line: shares, their sum, the score."""
    parts = [_part(leg_name(leg.leg) + ("" if leg.rank is None else f" (rank {leg.rank})"), leg.share) for leg in why.legs]
    parts += [_part(plain(term.name), term.share) for term in why.terms if abs(term.share) >= SEEN]
    told = " ".join(parts).removeprefix("+ ") + f" = {why.base:.2f}; score {score:.3f}"
    moved = [factor for factor in why.factors if factor.multiplier != 1]
    told += "".join(f", x {factor.multiplier:.2f} {factor.name} {plain(factor.value)}" for factor in moved)
    return Text(told + (f"; {plain(why.moved)}" if why.moved else ""), "bright_black")


def _part(name: str, share: float) -> str:
    return f"{'-' if share < 0 else '+'} {abs(share):.2f} {name}"


def leg_name(leg: str, *, full: bool = False) -> str:
    collection, _, how = leg.rpartition(".")
    name = LEG_NAMES.get(how, plain(how))
    return f"{plain(collection)} {name}" if full and collection else name
