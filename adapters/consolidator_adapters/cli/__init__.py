"""The command line: `consolidator --help` names its commands."""

from __future__ import annotations

from consolidator_adapters.cli.app import main

__all__ = ["main"]
