"""Commands that measure importance, and look at it: score, importance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.console import Group as Lines
from rich.text import Text

from consolidator.errors import InvalidInput
from consolidator_adapters.cli import scoring_views as views
from consolidator_adapters.cli.call import Call, full_id
from consolidator_adapters.cli.reading import Id, memory_of, observation_of
from consolidator_adapters.cli.replacing import replace
from consolidator_adapters.cli.transcribed import Item, Shown, opened, shown_of, transcript_of
from consolidator_adapters.cli.views import cut
from consolidator_adapters.heatmap import number, svg

if TYPE_CHECKING:
    from rich.console import RenderableType

    from consolidator.engine import Bank
    from consolidator.importance import Mode
    from consolidator.runs import IncrementalReport
    from consolidator.transcripts import Group, Matrix

MODES = ("auto", "matrix", "two-level")
File = Annotated[Path, typer.Argument(metavar="TRANSCRIPT", help="JSON Lines, a turn on each.", show_default=False)]
Name = Annotated[str | None, typer.Option("--id", help="Name of the conversation; else the file's.", show_default=False)]


async def score(  # noqa: PLR0913 (one parameter for each option)
    call: Call, file: File, id: Name = None,
    mode: Annotated[str, typer.Option("--mode", help=f"{', '.join(MODES)}: buckets first where there are many.")] = "auto",
    item: Annotated[str | None, typer.Option("--item", help="Only this memory or observation.", show_default=False)] = None,
    due: Annotated[bool, typer.Option("--due", help="Only what is due, each kept before the next is measured.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave what stays open to the background, too.")] = False,
    image: Annotated[Path | None, typer.Option("--image", help="Draw it, an .svg; it holds texts.", show_default=False)] = None,
) -> None:
    """Measure what each memory that a conversation shows was worth to each answer.

    What is measured is kept, and bears on recall. The same file again moves nothing twice.
    """
    _check(mode, image, due=due, dry_run=dry_run, keep=keep, alone=item is not None or mode != "auto")
    transcript = transcript_of(file, id)
    async with opened(call) as bank:
        shown = await shown_of(bank, transcript, file)
        found: Matrix | IncrementalReport
        if due:
            found = await _due(call, bank, shown)
        else:
            only = await full_id(bank, item) if item is not None else None
            with call.progress() as bar:
                bar.add_task("scoring", total=None)
                found = await bank.score(transcript, mode=cast("Mode", mode), item=only, dry_run=dry_run)
        kept = await bank.keep_transcript(transcript) if keep else None
    _told(call, found, shown, file, image=image, kept=kept, dry_run=dry_run)


def _check(mode: str, image: Path | None, *, due: bool, dry_run: bool, keep: bool, alone: bool) -> None:
    if mode not in MODES:
        raise InvalidInput(f'--mode: there is no mode "{mode}"; known are {", ".join(MODES)}')
    if due and (dry_run or alone or image):
        raise InvalidInput("--due has its own order and no picture: it goes without --mode, --item, --dry-run and --image")
    if dry_run and (keep or image):
        raise InvalidInput("--dry-run measures nothing: it goes without --keep and --image")
    if image is not None and image.suffix != ".svg":
        raise InvalidInput(f"--image draws an SVG; name it {image.with_suffix('.svg').name}")
    if image is not None and not image.absolute().parent.is_dir():
        raise InvalidInput(f"there is no folder {image.parent} for the picture")


async def _due(call: Call, bank: Bank, shown: Shown) -> IncrementalReport:
    with call.progress() as bar:
        task = bar.add_task("scoring", total=None)

        async def scored(group: Group, value: float) -> None:
            bar.update(task, advance=1, description=f"{number(value)} {cut(views.label(shown, group), 30)}")

        return await bank.score_due(shown.transcript, on_score=scored)


def _told(
    call: Call, found: Matrix | IncrementalReport, shown: Shown, file: Path, *, image: Path | None, kept: bool | None,
    dry_run: bool,
) -> None:
    from consolidator.transcripts import Matrix

    value: dict[str, Any] = {"transcript": shown.transcript.id, "plain_text": shown.unknown, "kept": kept}
    if not isinstance(found, Matrix):
        return call.answer({**value, "report": found}, lambda: _with(views.due(found, shown), kept, image))
    sheet = views.sheet_of(found, shown, f"{file.name}: what each memory was worth to each answer")
    if image is not None:
        replace(image, svg(sheet))
    document = {**value, "image": None if image is None else str(image), **summed(found, shown)}
    view = (
        (lambda: views.rehearsal(found, shown)) if dry_run
        else (lambda: _with(views.matrix(found, shown, sheet, call.out.width), kept, image))
    )
    return call.answer(document, view)


def summed(matrix: Matrix, shown: Shown) -> dict[str, Any]:
    """A matrix with its sums, null where nothing is known, what of them lacks an unknown cell, and the texts of what it names."""
    named = {id for group in matrix.groups for id in group.items}
    important = {
        response: [{"group": group.id, "value": value} for group, value in matrix.important_for(response)]
        for response in matrix.responses
    }
    return {
        "matrix": matrix, "incomplete": matrix.incomplete,
        "importance": {group.id: matrix.row(place) for place, group in enumerate(matrix.groups)},
        "dependence": {response: matrix.column(place) for place, response in enumerate(matrix.responses)},
        "lacking": {
            "importance": [group.id for place, group in enumerate(matrix.groups) if matrix.row_incomplete(place)],
            "dependence": [response for place, response in enumerate(matrix.responses) if matrix.column_incomplete(place)],
        },
        "important": important, "texts": {id: item.text for id, item in shown.items.items() if id in named},
    }


def _with(view: RenderableType, kept: bool | None, image: Path | None) -> RenderableType:
    lines = [Text(f"\ndrawn in {image}")] if image else []
    if kept is not None:
        not_kept = "not kept for the background: it was kept before with as many turns, or shows what was erased"
        lines.append(Text("kept: the background measures what stays open" if kept else not_kept))
    return Lines(view, *lines)


async def importance(call: Call, id: Id) -> None:
    """Show how important a memory or an observation has been, and its latest scores."""
    async with opened(call) as bank:
        id = await full_id(bank, id)
        observation = await observation_of(bank, id)
        text = observation.text if observation else (await memory_of(bank, id)).text
        kind: Literal["observation", "memory"] = "observation" if observation else "memory"
        told = await bank.importance(id)
    value = {"id": id, "kind": kind, "text": text, "states": told.states, "scores": told.scores}
    call.answer(value, lambda: views.importance(told, Item(id, kind, text), bank.id))
