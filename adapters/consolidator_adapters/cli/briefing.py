"""Commands that give out what was learnt, and show whether it helps: bootstrap, measure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from consolidator.errors import InvalidInput
from consolidator_adapters.cli import views
from consolidator_adapters.cli.call import Call, moment
from consolidator_adapters.cli.replacing import replace

if TYPE_CHECKING:
    from rich.console import RenderableType

    from consolidator.bootstrap import Briefing
    from consolidator.calibration import Calibration
    from consolidator.tallies import Measurement


async def bootstrap(
    call: Call,
    project: Annotated[str | None, typer.Option("--project", help="What was learnt in this one, too.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="What holds for this agent, too.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="What bears on it first; its rules and mistakes, too.")] = None,
    budget: Annotated[int, typer.Option("--budget", help="At most so many tokens.")] = 2000,
    files: Annotated[
        Path | None, typer.Option("--files", help="Write all that was learnt into this folder instead.", show_default=False)
    ] = None,
) -> None:
    """Print a briefing for the beginning of a session, from what earlier ones have learnt. Empty where nothing is known."""
    if budget < 1:
        raise InvalidInput(f"--budget is {budget}; it is at least 1 token")
    if files is not None:
        return await _into(call, files, project)
    async with call.memory() as bank:
        told = await bank.bootstrap(project=project, agent=agent, task=task, token_budget=budget)
    if call.json:
        return call.document(told)
    if told.text:
        call.out.print(Text(told.text), soft_wrap=True)
    call.err.print(Text(_beside(told), "bright_black"))


async def _into(call: Call, folder: Path, project: str | None) -> None:
    """An index and pages, each replaced whole; pages of which nothing is left any more go."""
    from consolidator_adapters.knowledge_files import files_of

    _check_folder(folder)
    async with call.memory() as bank:
        made = files_of(await bank.knowledge(project=project, archived=True))
    _write(folder, made)
    names = sorted(map(str, made))
    told = f"written into {views.plain(str(folder))}: {views.plain(', '.join(names))}"
    call.answer({"folder": str(folder), "files": names}, lambda: Text(told))


def _check_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / "index.json").is_file())):
        raise InvalidInput(f"{folder} is no folder that this command has written; name a new one")


def _write(folder: Path, made: Mapping[Path, str]) -> None:
    for name, text in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        replace(folder / name, text)
    for page in [p for part in ("global", "repos", "agents") for p in (folder / part).glob("*.md")]:
        if page.relative_to(folder) not in made:
            page.unlink()


def _beside(told: Briefing) -> str:
    """For the person who looks on: what a hook prints before a session stays clean."""
    if told.reason:
        return told.reason
    left = ", ".join(f"{number:,} {reason}" for reason, number in sorted(told.left_out.items()))
    return f"{views.count(len(told.items), 'item')}, {told.tokens:,} tokens; left out: {left or 'none'}"


async def measure(
    call: Call,
    since: Annotated[str | None, typer.Option("--since", help="Happened from this date or time on.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Happened up to the end of this date, or this time.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write a dashboard, a .md.", show_default=False)] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw it, an .svg.", show_default=False)] = None,
    calibration: Annotated[bool, typer.Option("--calibration", help="Whether confidence proves true, too.")] = False,
) -> None:
    """Measure whether what was learnt helps: from the memory alone, over any time."""
    _check(markdown, "--markdown", ".md")
    _check(plot, "--plot", ".svg")
    window = {"since": moment(since, "--since"), "until": moment(until, "--until", end_of_day=True)}
    async with call.memory() as bank:
        told = await bank.measure(**window)
        tested = await bank.calibration() if calibration else None
    if markdown is not None:
        from consolidator.measure import dashboard

        replace(markdown, dashboard(told, tested))
    if plot is not None:
        from consolidator_adapters.dashboard import svg

        replace(plot, svg(told, tested))
    written = [str(file) for file in (markdown, plot) if file is not None]
    value: dict[str, Any] = {**told.model_dump(mode="json"), "calibration": tested, "written": written}
    call.answer(value, lambda: _view(told, tested, written))


def _check(file: Path | None, option: str, ending: str) -> None:
    if file is not None and file.suffix != ending:
        raise InvalidInput(f"{option} writes {ending}; name it {file.with_suffix(ending).name}")
    if file is not None and not file.absolute().parent.is_dir():
        raise InvalidInput(f"there is no folder {file.parent} for {file.name}")


def _view(told: Measurement, tested: Calibration | None, written: list[str]) -> RenderableType:
    from consolidator.tallies import NAMED, worded

    made = views.table("measure", "value", "of", right=("value",), wide="measure")
    for named in NAMED:
        figure = getattr(told.whole, named.field)
        made.add_row(named.title, worded(figure, share=named.share), f"{figure.n:,} {named.of}")
    lines: list[RenderableType] = [made, *([Text(), _bands(tested)] if tested is not None else [])]
    return Group(*lines, *(Text(f"\nwritten: {views.plain(file)}", "bright_black") for file in written))


def _bands(tested: Calibration) -> RenderableType:
    counts = ("items", "confirmed", "contradicted", "rate")
    made = views.table("confidence", *counts, right=counts)
    for band in tested.bands:
        rate = "–" if band.rate is None else f"{band.rate:.0%}"
        made.add_row(f"{band.low:.1f} to {band.high:.1f}", f"{band.n:,}", f"{band.confirmed:,}", f"{band.contradicted:,}", rate)
    known = {True: "the rates rise with the confidence", False: "the rates do not rise with the confidence"}
    return Group(made, Text(known[tested.rises] if tested.rises is not None else tested.reason or "", "bright_black"))
