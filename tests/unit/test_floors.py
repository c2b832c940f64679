"""The house: floors, public names, and what an import may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import consolidator

ROOT = Path(__file__).parents[2]

FLOORS = (
    {"errors", "clock", "keeping", "announced"},
    {"models", "words", "secrets", "tripwires"},
    {"records", "endings", "message_parts", "projects", "proposals", "plans", "periods", "transcripts"},
    {"ledgers", "phrases", "feedback", "sessions", "personal", "stretches"},
    {"ports", "events", "moments", "contexts", "targets"},
    {
        "parts", "trends", "checks", "points", "actions", "provenance", "queries", "ranking", "breakers", "invariants",
        "portable", "divergence", "lexical", "recording", "paging",
    },
    {
        "prompts", "planning", "redo", "leases", "asking", "echoes", "facts", "folding", "freshness", "gathering", "reranking",
        "lessons", "sampling", "serving", "meters", "showings",
    },
    {"runs", "dialogue", "knowledge", "holdings", "extraction"},
    {"gleaning", "masking", "merging", "recounting", "calibration", "tallies", "distilling"},
    {"requoting"},
    {
        "retention", "consolidation", "finding", "forgetting", "proposing", "parking", "revision", "importance",
        "bootstrap", "measure", "archive",
    },
    {"practice", "retelling", "sowing"},
    {"jobs", "recollection", "transfer", "harvest"},
    {"worker"},
    {"config", "arguments"},
    {"registry", "services"},
    {"reading"},
    {"measuring"},
    {"practising"},
    {"learning"},
    {"bank"},
    {"engine"},
    {"blocking"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PROVIDERS_MAY = {
    "errors", "clock", "models", "proposals", "plans", "ports", "checks", "words", "actions", "transcripts", "secrets",
    "announced",
}
MODELS = ("torch", "transformers", "sentence_transformers", "openai")
READERS = ("detect_secrets", "tiktoken", "requests", "yaml")
VENDORS = ("qdrant_client", "qdrant_edge", *MODELS, *READERS, "sqlalchemy", "typer", "rich")


def imported(path: Path) -> set[str]:
    """Modules imported anywhere in a file, also inside functions."""
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(path: Path) -> set[str]:
    parts = {name.split(".")[1] for name in imported(path) if name.startswith("consolidator.")}
    return parts & (FLOOR_OF.keys() | {"testing"})


@pytest.mark.parametrize("path", sorted((ROOT / "consolidator").glob("*.py")), ids=lambda p: p.stem)
def test_a_room_imports_lower_floors_only(path: Path) -> None:
    if path.stem == "__init__":
        return
    assert path.stem in FLOOR_OF, f"{path.name} stands on no floor: name it in FLOORS"
    above = {room for room in rooms(path) if FLOOR_OF.get(room, 99) >= FLOOR_OF[path.stem]}
    assert not above, f"{path.name} imports {above} from its own floor or above"


@pytest.mark.parametrize("path", sorted((ROOT / "consolidator").rglob("*.py")), ids=lambda p: p.stem)
def test_the_engine_knows_no_vendor_and_no_way_in(path: Path) -> None:
    known = {name.split(".")[0] for name in imported(path)}
    assert not known & {*VENDORS, "consolidator_providers", "consolidator_adapters"}


@pytest.mark.parametrize("path", sorted((ROOT / "providers").rglob("*.py")), ids=lambda p: p.stem)
def test_a_provider_stands_on_the_low_floors(path: Path) -> None:
    assert rooms(path) <= PROVIDERS_MAY
    assert not {name for name in imported(path) if name.startswith("consolidator_adapters")}


@pytest.mark.parametrize("path", sorted((ROOT / "adapters").rglob("*.py")), ids=lambda p: p.stem)
def test_a_way_in_knows_no_provider(path: Path) -> None:
    assert not {name for name in imported(path) if name.startswith("consolidator_providers")}


def test_public_names() -> None:
    assert sorted(consolidator.__all__) == [
        "Bank", "ConsolidatorError", "Engine", "Settings", "__version__", "connect", "load",
    ]
    assert all(getattr(consolidator, name) for name in consolidator.__all__)


def test_import_loads_no_vendor() -> None:
    code = f"import consolidator.engine, consolidator.blocking, sys; print([v for v in {VENDORS!r} if v in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
