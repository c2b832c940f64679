"""What is configured, what is there, what is missing and how to get it. Keys are never shown."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from consolidator.errors import ConsolidatorError, EmbedderUnavailable
from consolidator_adapters.cli import places
from consolidator_adapters.cli.call import Call
from consolidator_adapters.cli.views import count, lasting, on, plain, table

if TYPE_CHECKING:
    from consolidator.config import Settings
    from consolidator.models import Stats
    from consolidator.ports import Embedder

State = Literal["ok", "missing", "off", "look"]
STYLE = {"ok": "green", "missing": "bold red", "off": "bright_black", "look": "yellow"}
OLDEST_PYTHON = (3, 11, 0)
EXTRAS = {"qdrant-client": "qdrant", "sentence-transformers": "local"}
SURVIVES = {"process": "kill (durability: process)", "power": "power cut (durability: power)"}
SCHEMA: dict[str, Any] = {
    "type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`missing` is something needed that is not there or does not work; `off` is not used, or was not looked at; `look` works,
    and waits for a person.
    """

    name: str
    state: State
    detail: str
    fix: str = ""


UNCHECKED_STORE = Check(name="store", state="off", detail="not checked: needs the embedder")


async def doctor(
    call: Call, online: Annotated[bool, typer.Option("--online", help="Ask the chat model, where one is configured.")] = False
) -> None:
    """Check what is configured, and say how to get what is missing."""
    checks = [_settings(call.config), *await examine(call.settings(), online=online)]
    missing = [check for check in checks if check.state == "missing"]
    call.answer({"ok": not missing, "checks": [asdict(check) for check in checks]}, lambda: _view(checks))
    if missing:
        raise typer.Exit(1)


def _view(checks: list[Check]) -> RenderableType:
    made = table("check", "state", "detail", wide="detail")
    for check in checks:
        detail = Text(plain(check.detail)) + Text(f"\n→ {check.fix}" if check.fix else "", "yellow")
        made.add_row(check.name, Text(check.state, STYLE[check.state]), detail)
    missing, waiting = (sum(check.state == state for check in checks) for state in ("missing", "look"))
    told = f"{count(missing, 'thing')} missing" if missing else "all that is needed is there"
    told += f"; {count(waiting, 'thing waits', 'things wait')} for somebody to look" if waiting else ""
    return Group(made, Text(), Text(told))


async def examine(settings: Settings, *, online: bool = False) -> list[Check]:
    """Every check. A memory that is not there is not made by looking: its parts are tried in a folder that goes again."""
    there = _holds_memory(settings.folder)
    with tempfile.TemporaryDirectory(prefix="consolidator-") as scratch:
        tried = settings if there else settings.model_copy(update={"folder": Path(scratch)})
        checks = [_python(), _folder(settings, there), *packages(settings)]
        async with AsyncExitStack() as stack:
            checks.append(embedder := await _embedder(tried, stack))
            checks.append(await _store(tried, stack) if embedder.state == "ok" else UNCHECKED_STORE)
            checks.append(await _ledger(tried, stack))
        checks += [proposer := await _proposer(settings), await _model(settings, online=online)]
        checks += [await _scorer(settings, online=online), _worker(settings)]
    opens = all(check.state != "missing" for check in checks) and proposer.state == "ok"
    checks += await _banks(settings) if opens and (there or settings.ledger.url) else []
    return [Check(name=c.name, state=c.state, detail=masked(c.detail, settings), fix=c.fix) for c in checks]


def _holds_memory(folder: Path) -> bool:
    """False where it cannot be looked into."""
    return any(os.path.isfile(folder / name) for name in ("store.json", "ledger.db"))


def masked(text: str, settings: Settings) -> str:
    """Without keys and passwords, whatever a message or a URL holds of them."""
    secrets = (settings.store.api_key, settings.embedder.api_key, settings.model.api_key, settings.importance.api_key)
    known = {secret.get_secret_value() for secret in secrets if secret} | {os.environ.get("OPENAI_API_KEY", "")}
    for key in sorted(known - {""}, key=len, reverse=True):
        text = text.replace(key, "***")
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", "***", text)


def _python() -> Check:
    told = tuple(sys.version_info[:3])
    detail, good = ".".join(map(str, told)), told >= OLDEST_PYTHON
    return Check(name="python", state="ok" if good else "missing", detail=detail, fix="" if good else "install a newer Python")


def _settings(config: str | None) -> Check:
    """Where the settings come from. Of variables the names alone: their values may be keys."""
    named = sorted(name for name in os.environ if name.startswith("CONSOLIDATOR_"))
    variables = f"; variables: {', '.join(named)}" if named else ""
    return Check(name="settings", state="ok", detail=(config or "the defaults: no file was named") + variables)


def _folder(settings: Settings, there: bool) -> Check:
    if problem := places.unusable(settings):
        return Check(name="folder", state="missing", detail=problem)
    said = "" if there else " (no memory there yet: the first retain makes it)"
    return Check(name="folder", state="ok", detail=f"{settings.folder}{said}")


def packages(settings: Settings) -> Iterator[Check]:
    """What the configured parts need is needed; the rest is off where it is not installed."""
    asks = settings.consolidation.proposer == "model"
    needed = {
        "qdrant-edge-py": settings.store.kind == "edge", "qdrant-client": settings.store.kind == "qdrant", "sqlalchemy": True,
        "sentence-transformers": settings.embedder.provider == "sentence-transformers",
        "openai": asks or settings.embedder.provider == "openai",
    }
    for package, is_needed in needed.items():
        extra = EXTRAS.get(package)
        fix = f"pip install 'consolidator[{extra}]'" if extra else "pip install --force-reinstall consolidator"
        try:
            found = version(package)
        except PackageNotFoundError:
            state: State = "missing" if is_needed else "off"
            yield Check(name=package, state=state, detail="not installed" + ("" if is_needed else ", not needed"), fix=fix)
            continue
        yield Check(name=package, state="ok" if is_needed else "off", detail=found + ("" if is_needed else ", not used"))


async def _tried(name: str, attempt: Callable[[], Awaitable[str]], fix: str = "") -> Check:
    try:
        return Check(name=name, state="ok", detail=await attempt())
    except (ConsolidatorError, OSError) as error:
        return Check(name=name, state="missing", detail=str(error), fix=fix)


async def _embedder(settings: Settings, stack: AsyncExitStack) -> Check:
    async def attempt() -> str:
        embedder = await opened(settings, stack)
        (vector,) = await embedder.embed(["a short text"])
        if len(vector) != embedder.dimension:
            raise EmbedderUnavailable(f"{embedder.name} says {embedder.dimension} dimensions and gives {len(vector)}")
        return f"{embedder.name}, {embedder.dimension} dimensions"

    return await _tried("embedder", attempt)


async def opened(settings: Settings, stack: AsyncExitStack) -> Embedder:
    from consolidator.registry import open_embedder

    embedder = await open_embedder(settings)
    stack.push_async_callback(embedder.close)
    return embedder


async def _store(settings: Settings, stack: AsyncExitStack) -> Check:
    """Opening it makes its collections where they are missing, empty ones."""

    async def attempt() -> str:
        from consolidator.registry import open_storage

        storage = await open_storage(settings, await opened(settings, stack))
        try:
            durable = f", survives a {SURVIVES[settings.store.durability]}" if settings.store.kind == "edge" else ""
            return _in_words(await storage.describe(), "where") + durable
        finally:
            await storage.close()

    return await _tried("store", attempt)


async def _ledger(settings: Settings, stack: AsyncExitStack) -> Check:
    async def attempt() -> str:
        from consolidator.registry import open_ledger

        ledger = await open_ledger(settings)
        try:
            return _in_words(await ledger.describe(), "ledger" if settings.ledger.url is None else "")
        finally:
            await ledger.close()

    return await _tried("ledger", attempt)


def _in_words(told: dict[str, str], local: str) -> str:
    """What a part says of itself, but for a place that may be the folder's stand-in."""
    return ", ".join(value if name in ("store", "ledger") else f"{name} {value}" for name, value in told.items() if name != local)


async def _proposer(settings: Settings) -> Check:
    async def attempt() -> str:
        from consolidator.registry import open_proposer

        proposer = await open_proposer(settings)
        await proposer.close()
        return proposer.name

    return await _tried("consolidation", attempt)


async def _model(settings: Settings, *, online: bool) -> Check:
    if settings.consolidation.proposer != "model":
        return Check(name="model", state="off", detail='not used: consolidation.proposer is not "model"')
    where = settings.model.base_url or "the provider's own server"
    key = "a key is set" if settings.model.api_key or os.environ.get("OPENAI_API_KEY") else "no key is set"
    if not online:
        told = f"{settings.model.name} at {where}, {key}; not asked: --online asks it once"
        return Check(name="model", state="off", detail=told)

    async def attempt() -> str:
        from consolidator.ports import Message
        from consolidator.registry import open_chat_model

        model = await open_chat_model(settings)
        try:
            asked = [Message(role="user", content='Answer with the JSON object {"ok": true}.')]
            reply = await model.complete(asked, schema=SCHEMA, max_tokens=100)
            return f"{reply.model or settings.model.name} at {where} answers, {key}"
        finally:
            await model.close()

    return await _tried("model", attempt, f"check model.name, model.base_url and the key ({key})")


async def _scorer(settings: Settings, *, online: bool) -> Check:
    s = settings.importance
    if s.provider == "lexical":
        return Check(name="importance", state="ok", detail="measured by words alone")
    where = s.base_url or "this process"
    if not online:
        told = f"{s.provider}, {s.model} at {where}; not asked: --online asks it some times"
        return Check(name="importance", state="off", detail=told)

    async def attempt() -> str:
        from consolidator.registry import open_scorer

        scorer = await open_scorer(settings)
        assert scorer is not None
        try:
            return f"measured by {(await scorer.verify()).unit} at {where}"
        finally:
            await scorer.close()

    return await _tried("importance", attempt, "check importance.provider, model and base_url; until then words measure")


def _worker(settings: Settings) -> Check:
    w, budget = settings.worker, settings.model.budget_tokens_day
    times = f"a pass {w.debounce:g} to {w.max_delay:g} s after a retain, {count(w.at_once, 'bank')} at once"
    again = f"failures tried again after {lasting(w.backoff)} to {lasting(w.longest)}, {lasting(w.shutdown)} to stop"
    cost = f"{budget:,} tokens a bank and day" if budget else "no budget of tokens"
    detail = f"{times}; {again}; {cost}"
    if w.background:
        return Check(name="worker", state="ok", detail=f"in every application that connects; {detail}")
    return Check(name="worker", state="off", detail=f"not in the background: `consolidator worker` does it; {detail}")


async def _banks(settings: Settings) -> list[Check]:
    """What stands in the way of consolidation, by endpoint and by bank."""
    from consolidator.engine import connect

    quiet = settings.model_copy(update={"worker": settings.worker.model_copy(update={"background": False})})
    try:
        async with connect(settings=quiet) as engine:
            endpoint = (await engine.describe())["consolidation"]
            found = [await engine.bank(id).stats() for id in await engine.banks()]
    except ConsolidatorError as error:
        return [Check(name="banks", state="missing", detail=str(error))]
    troubled = [check for stats in found if (check := _bank(stats))]
    fine = count(len(found) - len(troubled), "bank") + (" more" if troubled else "") + ": nobody needs to look"
    return [*_endpoint(endpoint), *troubled, Check(name="banks", state="ok", detail=fine)]


def _endpoint(told: dict[str, str]) -> Iterator[Check]:
    if "endpoint" in told:
        rests = told["state"] != "in use"
        fix = "wait, or mend what it says; `consolidator consolidate` asks at once" if rests else ""
        yield Check(name="endpoint", state="look" if rests else "ok", detail=f"{told['endpoint']}: {told['state']}", fix=fix)


def _bank(s: Stats) -> Check | None:
    """A bank in which something waits for a person."""
    numbers = ((s.parked, "parked"), (s.held, "held"))
    told = [f"{number:,} {what}" for number, what in numbers if number]
    fixes = [f"`consolidator parked{on(s.bank)}`"] if told else []
    if s.paused:
        told.append(f"paused: {s.paused}")
        fixes.append(f"`consolidator resume {s.bank}`")
    if s.attempts:
        told.append(f"failed {s.attempts}×: {s.last_error}")
        fixes.append("`consolidator status`")
    return Check(name=f"bank {s.bank}", state="look", detail="; ".join(told), fix=", ".join(fixes)) if told else None
