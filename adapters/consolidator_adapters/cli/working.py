"""Commands around the work in the background: worker, status, pause, resume."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer

from consolidator.errors import InvalidInput, StoreLocked
from consolidator_adapters.cli import work_views
from consolidator_adapters.cli.call import Call, known_bank

if TYPE_CHECKING:
    from consolidator.engine import Engine
    from consolidator.events import PassDone
    from consolidator.plans import Standing

SIGNALS = (signal.SIGTERM, signal.SIGINT)
BY_ITSELF = "an application consolidates by itself what it has open; workers of their own are for a Qdrant server"
ALONE = "this worker has the folder to itself: every other command waits until it ends; a Qdrant server has room for several"
BankName = Annotated[str, typer.Argument(help="The bank.", metavar="BANK", show_default=False)]


async def worker(
    call: Call, drain: Annotated[bool, typer.Option("--drain", help="End when nothing is left to do now.")] = False
) -> None:
    """Consolidate whatever is due, until SIGTERM or Ctrl-C; a line for each pass.

    With --drain it ends by itself, and the exit code is 1 where a bank failed.
    """
    with _Asked() as asked:
        try:
            async with call.everything() as engine:
                engine.on_pass(_teller(call))
                if not (drain or call.json) and call.settings().store.kind == "edge":
                    call.err.print(ALONE, style="yellow", soft_wrap=True)
                left = await _worked(call, engine, asked, drain=drain)
        except StoreLocked as error:
            raise StoreLocked(f"{error}; {BY_ITSELF}") from error
    if not drain:
        return
    if call.json:
        call.line({"left": left})
    else:
        call.out.print(work_views.left(left))
    if any(standing.last_error for standing in left):
        raise typer.Exit(1)


def _teller(call: Call) -> Callable[[PassDone], None]:
    def tell(done: PassDone) -> None:
        if call.json:
            call.line(done)
        else:
            call.out.print(work_views.passed(done, datetime.now().astimezone()), soft_wrap=True)
            call.out.file.flush()

    return tell


async def _worked(call: Call, engine: Engine, asked: _Asked, *, drain: bool) -> list[Standing]:
    ending = asyncio.create_task(_end(call, engine, asked))
    try:
        left: list[Standing] = []
        if drain:
            left = await engine.drain()
        else:
            await engine.work()
        if asked.once.is_set():
            await ending
        return left
    finally:
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)


async def _end(call: Call, engine: Engine, asked: _Asked) -> None:
    """Once asked, what is under way has its time; asked again, it has none."""
    await asked.once.wait()
    if not call.json:
        told = f"ending: what is under way has {call.settings().worker.shutdown:g} s; ask again to end at once"
        call.err.print(told, style="yellow", soft_wrap=True)
    ending, hurry = asyncio.create_task(engine.stop()), asyncio.create_task(asked.again.wait())
    await asyncio.wait([ending, hurry], return_when=asyncio.FIRST_COMPLETED)
    if not ending.done():
        await engine.stop(0.0)
    hurry.cancel()
    await ending


class _Asked:
    """While inside, a signal asks to end instead of ending."""

    def __init__(self) -> None:
        self.once, self.again = asyncio.Event(), asyncio.Event()

    def _hear(self) -> None:
        (self.again if self.once.is_set() else self.once).set()

    def __enter__(self) -> Self:
        for number in SIGNALS:
            with suppress(NotImplementedError):  # where there are none, Ctrl-C ends the process
                asyncio.get_running_loop().add_signal_handler(number, self._hear)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number in SIGNALS:
            with suppress(NotImplementedError):
                asyncio.get_running_loop().remove_signal_handler(number)


async def status(call: Call) -> None:
    """Show what waits in each bank, what is in its way, and how the model's endpoint does."""
    async with call.everything() as engine:
        found = [await bank.stats() for bank in await call.banks(engine)]
        endpoint = (await engine.describe())["consolidation"]
    call.answer({"banks": found, "consolidation": endpoint}, lambda: work_views.status(found, endpoint))


async def pause(
    call: Call, named: BankName,
    because: Annotated[str | None, typer.Option("--because", help="Why; shown until it is resumed.", show_default=False)] = None,
) -> None:
    """Stop the consolidation of a bank; it takes and recalls memories all the same."""
    if because is None:
        raise InvalidInput('say why with --because "..."; it is shown until the bank is resumed')
    async with call.everything() as engine:
        await engine.bank(known_bank(named, await engine.banks())).pause(because)
    call.answer({"bank": named, "paused": because}, lambda: work_views.paused(named))


async def resume(call: Call, named: BankName) -> None:
    """Let a paused bank be consolidated again."""
    async with call.everything() as engine:
        handle = engine.bank(known_bank(named, await engine.banks()))
        before = (await handle.stats()).paused
        await handle.resume()
    call.answer({"bank": named, "was_paused": before}, lambda: work_views.resumed(named, before))
