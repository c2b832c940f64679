"""The demo: a year of talk, distilled, asked about, partly forgotten, and proven to be gone. Needs no key and no server."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from consolidator.errors import ConsolidatorError, InvalidInput, MissingProvider, ModelError
from consolidator_adapters.cli import demo_views, doctor, places
from consolidator_adapters.cli.call import Call
from consolidator_adapters.cli.demo_steps import Show, Tour
from consolidator_adapters.conversation import load_conversation, load_questions

if TYPE_CHECKING:
    from consolidator.clock import Clock
    from consolidator.config import Settings

FOLDER = Path(".demo")
BANK = "demo"
MARK = ".consolidator-demo"
MARK_TEXT = "Made by `consolidator demo`. All that is in this folder is deleted when it runs again.\n"


async def demo(
    call: Call,
    keep: Annotated[bool, typer.Option("--keep/--remove", help="Keep the folder afterwards, or remove it.")] = True,
    questions: Annotated[int, typer.Option("--questions", "-n", min=1, help="How many questions to show.")] = 5,
    offline: Annotated[bool, typer.Option("--offline", help="Use the rules, even where a model is configured.")] = False,
) -> None:
    """Watch it work: retain, consolidate, recall, forget, verify. No key, no server."""
    folder = FOLDER if call.folder is None else Path(call.folder)
    settings = chosen(call.settings().model_copy(update={"folder": folder}), offline=offline)
    show = Show(call)
    _check(settings)
    show.line(about_model(settings))
    new = not folder.exists()
    start_empty(folder)
    try:
        told = await _tour(call, settings, show, questions)
    except ConsolidatorError as error:
        if new and not show.seconds:  # it was never opened
            shutil.rmtree(folder)
        if not isinstance(error, ModelError):
            raise
        call.err.print("`consolidator demo --offline` needs no model")
        raise
    if not keep:
        shutil.rmtree(folder)
    show.out.print(demo_views.farewell(folder, kept=keep), soft_wrap=keep)  # commands are copied whole
    if call.json:
        call.document({"folder": str(folder), "kept": keep, "seconds": show.seconds, **told})


def _check(settings: Settings) -> None:
    """What can be known to be missing before anything is said or made."""
    from consolidator.registry import provider

    if problem := places.unusable(settings):
        raise InvalidInput(problem)
    for needed in doctor.packages(settings):
        if needed.state == "missing":
            raise MissingProvider(f"the package {needed.name} is {needed.detail}: {needed.fix}")
    provider("embedders", settings.embedder.provider)


async def _tour(call: Call, settings: Settings, show: Show, asked: int) -> dict[str, Any]:
    conversation, questions = load_conversation(), load_questions()
    now = conversation.sessions[-1].start + timedelta(days=1)
    async with AsyncExitStack() as stack:
        with show.step("open", "Open an empty memory"):
            with waiting(call, "loading the embedder"):
                engine = await stack.enter_async_context(call.engine(settings, clock=clock_from(now)))
            show.line(demo_views.opened(await engine.describe(), now))
        bank = engine.bank(BANK)
        tour = Tour(call=call, show=show, bank=bank, conversation=conversation, questions=questions, asked=asked)
        return await tour.walk()


def waiting(call: Call, what: str) -> AbstractContextManager[object]:
    return call.err.status(what) if call.err.is_terminal else nullcontext()


def chosen(settings: Settings, *, offline: bool) -> Settings:
    """With a model, if one is configured and wanted; else with the rules."""
    configured = settings.model.base_url or settings.model.api_key or os.environ.get("OPENAI_API_KEY")
    named = settings.consolidation.proposer
    proposer = "rules" if offline else "model" if configured or named == "model" else named
    return settings.model_copy(update={"consolidation": settings.consolidation.model_copy(update={"proposer": proposer})})


def about_model(settings: Settings) -> Text:
    """Whether texts leave this machine, said before they do."""
    if settings.consolidation.proposer != "model":
        return Text(f"Consolidates with {settings.consolidation.proposer}: no model, no key, nothing leaves this machine.")
    where = settings.model.base_url or "its provider's server"
    return Text(f"Consolidates with {settings.model.name} at {where}: texts are sent there. --offline stays here.", "yellow")


def start_empty(folder: Path) -> None:
    """An empty folder with the demo's mark. Raises InvalidInput for one that holds something else."""
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARK).is_file():
            raise InvalidInput(f"{folder} holds something that is not the demo's; name another one with --folder")
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / MARK).write_text(MARK_TEXT, encoding="utf-8")


def clock_from(start: datetime) -> Clock:
    """A clock that shows `start` now, and goes on."""
    began = monotonic()
    return lambda: start + timedelta(seconds=monotonic() - began)
