"""What every command shares: its options, the two streams, the engine, and one JSON document instead of views."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, cast
from uuid import UUID

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from consolidator.errors import InvalidInput, NotFound
from consolidator_adapters.cli import places

if TYPE_CHECKING:
    from consolidator.clock import Clock
    from consolidator.config import Settings
    from consolidator.engine import Bank, Engine

EVERYWHERE = "Options of every command"
Folder = Annotated[str | None, typer.Option("--folder", "-f", help="Folder of the memory.", rich_help_panel=EVERYWHERE)]
Config = Annotated[str | None, typer.Option("--config", "-c", help="Settings, a TOML file.", rich_help_panel=EVERYWHERE)]
BANK_HELP = 'Bank; else "default" (fsck, status: all).'
BankId = Annotated[str | None, typer.Option("--bank", "-b", help=BANK_HELP, rich_help_panel=EVERYWHERE)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=EVERYWHERE)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and logs.", rich_help_panel=EVERYWHERE)]
SHARED: dict[str, Any] = {"folder": Folder, "config": Config, "bank": BankId, "json": AsJson, "debug": Debug}
AN_ID = "5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11"
PREFIX = re.compile(r"[0-9a-f][0-9a-f-]{3,34}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One run of a command. `out` carries answers, `err` progress and errors."""

    folder: str | None = None
    config: str | None = None
    bank: str | None = None  # as it was named; most commands take "default" then
    json: bool = False
    debug: bool = False
    out: Console
    err: Console

    def settings(self) -> Settings:
        """From the file, the variables, then the options. Raises InvalidSettings."""
        from consolidator.config import load
        from consolidator.errors import InvalidSettings

        for told in (self.config, self.folder):
            if told is not None and (not told.strip() or re.match(r"https?://", told)):
                load(told)  # which says what is wrong with it
        if self.config is not None and not self.config.endswith(".toml"):
            raise InvalidSettings(f"--config takes a TOML file, such as consolidator.toml; {self.config} is none")
        settings = load(self.config)
        return settings.model_copy(update={"folder": Path(self.folder)}) if self.folder is not None else settings

    @asynccontextmanager
    async def engine(self, settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Engine]:
        """The engine, without a worker in the background: a command is short, and consolidation comes when it is asked for.

        Raises InvalidInput for a folder that cannot be used; one that was made in vain goes again.
        """
        from consolidator.clock import system_clock
        from consolidator.engine import connect

        folder, quiet = settings.folder, settings.worker.model_copy(update={"background": False})
        settings = settings.model_copy(update={"worker": quiet})
        if problem := places.unusable(settings):
            raise InvalidInput(problem)
        async with AsyncExitStack() as stack:
            with places.left_as_it_was(folder):
                try:
                    engine = await stack.enter_async_context(connect(settings=settings, clock=clock or system_clock))
                except OSError as error:
                    raise InvalidInput(places.denied(folder, places.why(error))) from error
            yield engine

    @asynccontextmanager
    async def everything(self, *, must_exist: bool = True) -> AsyncIterator[Engine]:
        """The engine. With `must_exist`, a folder that is not there is not made by looking into it."""
        settings = self.settings()
        if problem := places.blocked(settings.folder):
            raise InvalidInput(problem)
        if must_exist and settings.store.kind == "edge" and not settings.folder.is_dir():
            raise NotFound(f"there is no memory in {settings.folder}; `consolidator retain` makes one")
        async with self.engine(settings) as engine:
            yield engine

    @asynccontextmanager
    async def memory(self, *, must_exist: bool = True) -> AsyncIterator[Bank]:
        """The bank."""
        async with self.everything(must_exist=must_exist) as engine:
            yield engine.bank(self.bank or "default")

    @asynccontextmanager
    async def rehearsal(self) -> AsyncIterator[Bank]:
        """The bank, for what changes nothing: where there is no memory yet, an empty one that goes again."""
        settings = self.settings()
        if settings.store.kind != "edge" or settings.folder.exists():
            async with self.memory() as bank:
                yield bank
            return
        with tempfile.TemporaryDirectory() as folder:
            async with self.engine(settings.model_copy(update={"folder": Path(folder)})) as engine:
                yield engine.bank(self.bank or "default")

    async def banks(self, engine: Engine) -> list[Bank]:
        """The one that was named, else all. Raises NotFound for one that is not there."""
        known = await engine.banks()
        return [engine.bank(id) for id in ([known_bank(self.bank, known)] if self.bank is not None else known)]

    def answer(self, value: object, view: Callable[[], RenderableType]) -> None:
        """The value as JSON, or the view of it."""
        if self.json:
            self.document(value)
        else:
            self.out.print(view())

    def document(self, value: object) -> None:
        from consolidator.models import dump

        sys.stdout.write(json.dumps(dump(value), ensure_ascii=False, indent=2, allow_nan=False) + "\n")

    def line(self, value: object) -> None:
        """The value as JSON on one line, seen at once by whoever reads."""
        from consolidator.models import dump

        sys.stdout.write(json.dumps(dump(value), ensure_ascii=False, allow_nan=False) + "\n")
        sys.stdout.flush()

    def progress(self) -> Progress:
        """A bar on stderr; silent where that is no terminal."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self.err, transient=True, disable=not self.err.is_terminal)

    def spinner(self, told: str) -> AbstractContextManager[object]:
        """Something moves on stderr, beside what is done; silent where that is no terminal."""
        return self.err.status(told) if self.err.is_terminal else nullcontext()

    @property
    def alone(self) -> bool:
        """Whether nobody can be asked."""
        return self.json or not sys.stdin.isatty()


def known_bank(id: str, known: Sequence[str]) -> str:
    """Raises NotFound, with what there is."""
    if id not in known:
        raise NotFound(f'there is no bank "{id}"; ' + (f"known are {', '.join(known[:10])}" if known else "there is none yet"))
    return id


def command(work: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A command of `work(call, ...)` that takes the shared options too, after its name as well as before it."""
    own = list(inspect.signature(work, eval_str=True).parameters.values())[1:]

    def run(ctx: typer.Context, **given: Any) -> None:
        told = merged(ctx, {name: given.pop(name) for name in SHARED})
        asyncio.run(work(call_of(told), **given))

    keyword = inspect.Parameter.KEYWORD_ONLY
    first = inspect.Parameter("ctx", keyword, annotation=typer.Context)
    mine = [parameter.replace(kind=keyword) for parameter in own]
    others = [
        inspect.Parameter(name, keyword, annotation=kind, default=False if name in ("json", "debug") else None)
        for name, kind in SHARED.items()
    ]
    parameters = [first, *mine, *others]
    run.__name__, run.__doc__ = work.__name__, work.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def merged(ctx: typer.Context, after: dict[str, Any]) -> dict[str, Any]:
    """The shared options that stand before a command's name, and those after it, which win."""
    return {**(ctx.obj or {}), **{name: value for name, value in after.items() if value not in (None, False)}}


def group(alone: Callable[..., Coroutine[Any, Any, None]], works: Mapping[str, Any], about: str) -> typer.Typer:
    """Commands below a command. Without one of them it does `alone`."""
    made = typer.Typer(help=about, rich_markup_mode="rich")

    @made.callback(invoke_without_command=True)
    def run(
        ctx: typer.Context, folder: Folder = None, config: Config = None, bank: BankId = None, json: AsJson = False,
        debug: Debug = False,
    ) -> None:
        ctx.obj = merged(ctx, {"folder": folder, "config": config, "bank": bank, "json": json, "debug": debug})
        if ctx.invoked_subcommand is None:
            asyncio.run(alone(call_of(ctx.obj)))

    run.__doc__ = about
    for name, work in works.items():
        made.command(name)(command(work))
    return made


def call_of(told: dict[str, Any]) -> Call:
    given = {name: value for name, value in told.items() if value is not None}
    return Call(**given, out=_console(), err=_console(stderr=True))


def _console(*, stderr: bool = False) -> Console:
    file = None if stderr or sys.stdout.isatty() else cast(IO[str], _Trimmed())
    return Console(file=file, stderr=stderr, highlight=False, markup=False, emoji=False)


class _Trimmed:
    """Standard output for files and pipes: without the blanks that fill a table's cells up."""

    encoding = property(lambda self: sys.stdout.encoding)

    def write(self, text: str) -> int:
        return sys.stdout.write(re.sub(r" +$", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        sys.stdout.flush()


@contextmanager
def interruptible() -> Iterator[None]:
    """Where a person is waited for, Ctrl-C ends the wait: the event loop's own handler would only be heard after it."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def moment(told: str | None, option: str, *, end_of_day: bool = False) -> datetime | None:
    """A time with its zone, or a date: its first instant in UTC, or its last. Raises InvalidInput."""
    if told is None:
        return None
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", told):
            return datetime.combine(date.fromisoformat(told), time.max if end_of_day else time.min, tzinfo=UTC)
        when = datetime.fromisoformat(told)
    except ValueError:
        raise InvalidInput(f'{option}: "{told}" is no time; write 2026-05-02 or 2026-05-02T14:30:00+02:00') from None
    if when.tzinfo is None:
        raise InvalidInput(f'{option}: "{told}" has no zone; write {told}Z for UTC, or {told}+02:00')
    return when


async def full_id(bank: Bank, told: str) -> str:
    """The id that a unique beginning of it stands for. Raises NotFound, InvalidInput."""
    told = told.strip().lower()
    if _is_id(told):
        return told
    if not PREFIX.fullmatch(told):
        raise NotFound(f'"{told}" is no id; write one such as {AN_ID}, or its first 4 characters or more')
    ids = {o.id for o in await bank.observations()} | {m.id for m in await bank.memories()}
    ids |= {entry.observation_id for entry in await bank.journal(limit=100_000) if entry.observation_id}
    return only(told, ids, f'bank "{bank.id}" has nothing whose id begins with {told}')


def only(told: str, ids: Iterable[str], missing: str) -> str:
    """The one id that begins so. Raises NotFound with `missing`, InvalidInput for several."""
    found = sorted({id for id in ids if id.startswith(told)})
    if not found:
        raise NotFound(missing)
    if len(found) > 1:
        raise InvalidInput(f"{told} is the beginning of {len(found)} ids: {', '.join(found[:5])}; write more of it")
    return found[0]


def _is_id(told: str) -> bool:
    try:
        return bool(UUID(told))
    except ValueError:
        return False
