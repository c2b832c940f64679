"""Commands on episodes: record an attempt at a task, and read what attempts have taught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from consolidator.errors import InvalidInput
from consolidator_adapters.cli.call import Call, moment
from consolidator_adapters.cli.views import cut, plain, table
from consolidator_adapters.cli.writing import piped, read

if TYPE_CHECKING:
    from consolidator.practising import Recorded
    from consolidator.retelling import Lessons, Practised

FIELDS = (
    "task", "score", "steps", "summary", "mistakes", "successes", "cards", "findings", "id", "occurred_at", "tags", "trust",
)


async def episode(  # noqa: PLR0913 (one parameter for each field of an episode)
    call: Call,
    task: Annotated[str | None, typer.Argument(help="The task that was attempted.", show_default=False)] = None,
    score: Annotated[float | None, typer.Option("--score", help="How it went, from 0 to 1.")] = None,
    steps: Annotated[int, typer.Option("--steps", help="How many steps it took.")] = 0,
    summary: Annotated[str, typer.Option("--summary", help="What happened, in a sentence or two.")] = "",
    mistake: Annotated[list[str] | None, typer.Option("--mistake", help="What went wrong; give it again for more.")] = None,
    success: Annotated[list[str] | None, typer.Option("--success", help="What worked; give it again for more.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="An episode as a JSON object; - reads standard input.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="The same for the same episode: sent twice, it is kept once.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="When it was: a date (UTC), or a time with its zone.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", help="A tag; give it again for more.")] = None,
) -> None:
    """Record an attempt at a task."""
    if (task is None) == (file is None):
        raise InvalidInput("give either a task, such as deploy, with --score, or --file with an episode")
    if file is not None:
        told = _episode(file)
    elif score is None:
        raise InvalidInput("--score is missing: how it went, from 0 (failed) to 1 (as wanted)")
    else:
        told = {
            "task": task, "score": score, "steps": steps, "summary": summary, "mistakes": mistake or (),
            "successes": success or (),
        }
    told |= {name: value for name, value in (("id", id), ("occurred_at", moment(at, "--at")), ("tags", tag)) if value}
    async with call.memory(must_exist=False) as bank:
        kept = await bank.record_episode(**told)
    call.answer(kept, lambda: _recorded(kept))


def _episode(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(piped() if str(file) == "-" else read(file))
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{file} is no JSON: {error.msg} in line {error.lineno}") from None
    except (ValueError, RecursionError):
        raise InvalidInput(f"{file} is no episode: it is nested too deep, or holds a number that nobody can read") from None
    if not isinstance(told, dict) or "score" not in told:
        raise InvalidInput(f'{file} is no episode; write an object with "task" and "score"')
    if unknown := sorted(told.keys() - set(FIELDS)):
        raise InvalidInput(f'{file}: there is no field "{unknown[0]}"; known are {", ".join(FIELDS)}')
    if isinstance(when := told.get("occurred_at"), str):
        told["occurred_at"] = moment(when, "occurred_at")
    return told


def _recorded(kept: Recorded) -> RenderableType:
    known = "" if kept.new else "; all of it was known"
    held = f"; {kept.held} of them held: they look like orders" if kept.held else ""
    masked = f"; {kept.redacted} secrets masked" if kept.redacted else ""
    return Text(
        f"episode {kept.id} kept as {kept.memories} memories{known}{held}{masked}\n"
        f"`consolidator consolidate` makes rules of it; `consolidator forget --source {kept.source}` takes it back"
    )


async def lessons(
    call: Call,
    task: Annotated[str | None, typer.Argument(help="The task; without one, the figures of all.", show_default=False)] = None,
    about: Annotated[str | None, typer.Option("--about", help="What it is about: finds lessons of similar tasks.")] = None,
    budget: Annotated[int, typer.Option("--budget", help="Tokens of the whole text.")] = 400,
    max_rules: Annotated[int, typer.Option("--max-rules", help="Rules of the task, and as many general ones; 0: none.")] = 5,
    max_recent: Annotated[int, typer.Option("--max-recent", help="Recent attempts; 0: none.")] = 3,
    tag: Annotated[list[str] | None, typer.Option("--tag", "-t", help="A tag; give it again for more.")] = None,
    distil: Annotated[bool, typer.Option("--distil", help="First draw general rules from all attempts that wait.")] = False,
) -> None:
    """Show what earlier attempts have taught, for the top of a prompt."""
    for name, told, least in (("--budget", budget, 1), ("--max-rules", max_rules, 0), ("--max-recent", max_recent, 0)):
        if told < least:
            raise InvalidInput(f"{name} is {told}; it is at least {least}")
    async with call.memory() as bank:
        if distil:
            await bank.distil()
        if task is None:
            figures = await bank.practice()
            return call.answer(figures, lambda: _figures(figures))
        found = await bank.lessons_context(
            task, description=about, token_budget=budget, max_rules=max_rules, max_recent=max_recent, tags=tag or ()
        )
    return call.answer(found, lambda: _lessons(found))


def _lessons(found: Lessons) -> RenderableType:
    return Text(found.text or f"nothing to show: {found.reason}")


def _figures(told: Practised) -> RenderableType:
    head = Text(
        f"{told.episodes:,} episodes, {told.waiting:,} of them not distilled yet; {told.general_rules:,} general rules, "
        f"{sum(told.task_rules.values()):,} of tasks; {told.mistakes:,} mistakes, {told.successes:,} successes, "
        f"{told.cards:,} cards"
    )
    right = ("episodes", "mean", "recent", "rules")
    scores = table("task", "episodes", "mean", "recent", "trend", "rules", right=right, wide="task")
    for task, row in told.scores.items():
        rules = told.task_rules.get(task, 0)
        scores.add_row(plain(task), f"{row.episodes:,}", f"{row.mean:.2f}", f"{row.recent:.2f}", row.trend or "", f"{rules:,}")
    cards = table("seen", "mistake", "task", "lesson", right=("seen",), wide="lesson")
    for card in told.top_cards:
        cards.add_row(f"{card.seen}x", plain(card.mistake_type), plain(card.task), cut(card.text, 60))
    shown: list[RenderableType] = [head]
    shown += [Text(), scores] if told.scores else []
    shown += [Text(), cards] if told.top_cards else []
    return Group(*shown)
