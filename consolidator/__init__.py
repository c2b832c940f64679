"""A memory for agents that consolidates: verbatim memories, evidence-linked observations, provable erasure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consolidator.errors import ConsolidatorError

if TYPE_CHECKING:
    from consolidator.config import Settings, load
    from consolidator.engine import Bank, Engine, connect

__version__ = "0.1.0"
__all__ = ["Bank", "ConsolidatorError", "Engine", "Settings", "__version__", "connect", "load"]

_HOMES = {"connect": "engine", "Engine": "engine", "Bank": "engine", "Settings": "config", "load": "config"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"consolidator.{_HOMES[name]}"), name)
