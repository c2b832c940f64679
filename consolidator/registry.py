"""Providers by name: found through entry points, imported only when they are used."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import SecretStr

from consolidator.clock import Clock
from consolidator.config import Settings
from consolidator.errors import InvalidSettings, MissingProvider
from consolidator.parts import Parts
from consolidator.points import collection_specs
from consolidator.ports import ChatModel, Embedder, Ledger, LogprobModel, Proposer, Reranker, Storage
from consolidator.proposing import ModelProposer
from consolidator.secrets import Secret, find, joined
from consolidator.words import cost

Group = Literal[
    "storages", "ledgers", "embedders", "chat_models", "proposers", "rerankers", "logprob_models", "secret_detectors",
    "tokenizers",
]
# names that are no provider's
WITHOUT_ENTRY: dict[str, set[str]] = {
    "proposers": {"model"}, "rerankers": {"none"}, "logprob_models": {"lexical"}, "secret_detectors": {"rules"},
    "tokenizers": {"estimate"},
}
LEDGER_FILE = "ledger.db"
CACHE_FILE = "vectors.db"


def provider(group: Group, name: str) -> Callable[..., Any]:
    """The factory of a provider. Raises InvalidSettings, naming what is there, or MissingProvider with what to install."""
    point = _point(group, name)
    try:
        factory: Callable[..., Any] = point.load()
    except ImportError as error:
        raise MissingProvider(f'the provider "{name}" needs a package that is not installed: {error}') from error
    return factory


def _point(group: Group, name: str) -> EntryPoint:
    points = _installed()[group]
    if name not in points:
        kind = group.removesuffix("s").replace("_", " ").replace("storage", "store")
        known = sorted(points.keys() | WITHOUT_ENTRY.get(group, set()))
        raise InvalidSettings(f'there is no {kind} "{name}"; known are {", ".join(known) or "none"}')
    return points[name]


@cache
def _installed() -> dict[str, dict[str, EntryPoint]]:
    """By group and name, read once: that takes some ten milliseconds, and opening an engine asks four times."""
    found = entry_points()
    return {group: {point.name: point for point in found.select(group=f"consolidator.{group}")} for group in get_args(Group)}


def open_detector(name: str) -> Callable[[str], list[Secret]]:
    """Our own rules joined with a detector, which is imported when it is first used, and then may raise MissingProvider.

    Raises InvalidSettings for a name that is not there.
    """
    if name == "rules":
        return find
    detector = _later("secret_detectors", name)
    return lambda text: joined(find(text), detector()(text))


def open_tokenizer(name: str) -> Callable[[str], int]:
    """Counts tokens; imported when it is first used, and then may raise MissingProvider. Raises InvalidSettings."""
    if name == "estimate":
        return cost
    tokenizer = _later("tokenizers", name)
    return lambda text: int(tokenizer()(text))


def _later(group: Group, name: str) -> Callable[[], Callable[[str], Any]]:
    _point(group, name)  # a wrong name is refused now
    return cache(lambda: provider(group, name))


async def open_embedder(settings: Settings) -> Embedder:
    s = settings.embedder
    cache = settings.folder / CACHE_FILE if s.cache else None
    options: dict[str, Any] = {"threads": s.threads}
    if s.provider == "openai":
        options = {"base_url": s.base_url, "api_key": _key(s.api_key), "dimension": s.dimension}
    elif s.base_url or s.api_key or s.dimension:
        raise InvalidSettings(f'embedder.base_url, api_key and dimension are for the provider "openai", not "{s.provider}"')
    opened: Embedder = await provider("embedders", s.provider)(model=s.model, batch=s.batch, cache=cache, **options)
    return opened


async def open_storage(settings: Settings, embedder: Embedder) -> Storage:
    s, specs = settings.store, collection_specs(embedder.dimension, embedder.name)
    options: dict[str, dict[str, Any]] = {
        "edge": {"folder": settings.folder, "durability": s.durability},
        "qdrant": {"url": s.url, "api_key": _plain(s.api_key), "prefix": s.prefix, "timeout": s.timeout},
        "shared": {"folder": settings.folder},
    }
    if s.kind == "qdrant" and not s.url:
        raise InvalidSettings('store.kind "qdrant" needs store.url, such as http://127.0.0.1:6333')
    opened: Storage = await provider("storages", s.kind)(specs=specs, **options.get(s.kind, {}))
    return opened


async def open_ledger(settings: Settings) -> Ledger:
    url = settings.ledger.url or f"sqlite:///{settings.folder.absolute() / LEDGER_FILE}"
    opened: Ledger = await provider("ledgers", "alone" if settings.alone else "sql")(url=url)
    return opened


async def open_chat_model(settings: Settings) -> ChatModel:
    s = settings.model
    kind, _, model = s.name.partition(":")
    opened: ChatModel = await provider("chat_models", kind)(
        model=model, base_url=s.base_url, api_key=_key(s.api_key), deadline=s.deadline, tries=s.tries,
        read_timeout=s.read_timeout, json_mode=s.json_mode,
    )
    return opened


async def open_proposer(settings: Settings, chat: ChatModel | None = None) -> Proposer:
    """chat: asked instead of a model that would be opened for it."""
    if settings.consolidation.proposer == "model":
        return ModelProposer(chat or await open_chat_model(settings), reply_tokens=settings.model.reply_tokens)
    opened: Proposer = await provider("proposers", settings.consolidation.proposer)()
    return opened


async def open_reranker(settings: Settings) -> Reranker | None:
    s = settings.reranker
    if s.provider == "none":
        return None
    opened: Reranker = await provider("rerankers", s.provider)(
        model=s.model, threads=s.threads, batch=s.batch, max_length=s.max_length
    )
    return opened


async def open_scorer(settings: Settings) -> LogprobModel | None:
    s = settings.importance
    if s.provider == "lexical":
        return None
    factory = provider("logprob_models", s.provider)
    shared = {"model": s.model, "max_batch": s.max_batch, "chunk_tokens": s.chunk_tokens}
    shared |= {"chat_template_kwargs": s.chat_template_kwargs or None}
    if s.provider == "transformers":
        own: dict[str, Any] = {"threads": s.threads, "device": s.device, "dtype": s.dtype}
    elif not s.base_url:
        raise InvalidSettings(f'importance.provider "{s.provider}" needs importance.base_url, such as http://127.0.0.1:8000/v1')
    else:
        own = {"base_url": s.base_url, "api_key": _plain(s.api_key), "deadline": s.deadline}
        own |= {"priority": s.priority} if s.provider != "score-endpoint" else {}
    opened: LogprobModel = await factory(**shared, **own)
    return opened


async def open_parts(
    settings: Settings, clock: Clock, *, embedder: Embedder | None = None, proposer: Proposer | None = None,
    chat: ChatModel | None = None, reranker: Reranker | None = None, scorer: LogprobModel | None = None,
) -> Parts:
    """Everything that the settings name; what is handed in is used instead. On failure all is closed again, and a folder
    that was made for it and is empty still is removed.
    """
    detector, tokenizer = open_detector(settings.harvest.detector), open_tokenizer(settings.harvest.tokenizer)
    made = not settings.folder.exists()
    make_folder(settings.folder)
    opened: list[Any] = []
    try:
        opened.append(embedder := embedder or await open_embedder(settings))
        opened.append(storage := await open_storage(settings, embedder))
        opened.append(ledger := await open_ledger(settings))
        if chat is None and proposer is None and settings.consolidation.proposer == "model":
            chat = await open_chat_model(settings)
        if chat is not None:
            opened.append(chat)
        opened.append(proposer := proposer or await open_proposer(settings, chat))
        if reranker := reranker or await open_reranker(settings):
            opened.append(reranker)
        if scorer := scorer or await open_scorer(settings):
            opened.append(scorer)
    except BaseException:
        for part in reversed(opened):
            await part.close()
        if made and not any(settings.folder.iterdir()):
            settings.folder.rmdir()
        raise
    return Parts(
        storage=storage, ledger=ledger, embedder=embedder, proposer=proposer, chat=chat, reranker=reranker, scorer=scorer,
        clock=clock, owner=_owner(settings), find_secrets=detector, count_tokens=tokenizer,
    )


def _owner(settings: Settings) -> str:
    if settings.store.kind == "edge":  # its folder has one owner at a time: the lease of a killed one is nobody's to wait for
        return "embedded"
    return f"{socket.gethostname()[:20]}-{os.getpid()}-{secrets.token_hex(4)}"


def make_folder(folder: Path) -> None:
    """Raises InvalidSettings where that cannot be."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidSettings(f"{folder} is, or lies below, a file; the memory's folder is a folder") from error
    except OSError as error:
        raise InvalidSettings(f"the folder {folder} cannot be made: {error.strerror}; choose another") from error


def _key(secret: SecretStr | None) -> str | None:
    return _plain(secret) or os.environ.get("OPENAI_API_KEY")


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
