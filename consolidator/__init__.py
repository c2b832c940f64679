"""A memory for agents that consolidates: verbatim memories, evidence-linked observations, provable erasure.

    async with consolidator.connect("./memory") as engine:
        alice = engine.bank("alice")
        await alice.retain("I live in Lisbon.", speaker="Alice", source="chat-1")
        await alice.consolidate()
        hits = await alice.recall("Where does Alice live?")

`consolidator.blocking.connect` gives the same verbs without `await`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from consolidator.errors import ConsolidatorError

if TYPE_CHECKING:
    from consolidator.config import Settings, load
    from consolidator.engine import Bank, Engine, connect

logging.getLogger("consolidator").addHandler(logging.NullHandler())  # an application that listens is told; else silence
__version__ = "0.1.0"
__all__ = ["Bank", "ConsolidatorError", "Engine", "Settings", "__version__", "connect", "load"]

_HOMES = {"connect": "engine", "Engine": "engine", "Bank": "engine", "Settings": "config", "load": "config"}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"consolidator.{_HOMES[name]}"), name)
