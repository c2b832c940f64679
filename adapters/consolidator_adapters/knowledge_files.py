"""What was learnt, as a folder: `index.json` for programs, Markdown for people, one file for each project and agent.

The files hold texts: what is erased later is still in them until they are written again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from consolidator.knowledge import Knowledge, handles

HEADINGS = {
    "pitfall": "Pitfalls", "tool-quirk": "Tool quirks", "pattern": "Patterns that worked", "fact": "Facts",
    "question": "Open questions",
}
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def files_of(items: Sequence[Knowledge]) -> dict[Path, str]:
    """Their texts by their places in the folder. What holds everywhere is under `global`, archived items in the index alone."""
    named = handles([item.id for item in items])
    index = [_entry(item, named[item.id]) for item in items]
    made = {Path("index.json"): json.dumps({"items": index}, ensure_ascii=False, indent=2) + "\n"}
    shown: dict[Path, tuple[str, list[Knowledge]]] = {}
    for item in items:
        if not item.archived:
            for place, title in _places(item):
                shown.setdefault(place, (title, []))[1].append(item)
    return made | {place: _page(title, found, named) for place, (title, found) in sorted(shown.items())}


def _entry(item: Knowledge, handle: str) -> dict[str, Any]:
    o = item.observation
    seen = [e.occurred_at for e in o.evidence if e.supports]
    return {
        "id": o.id, "handle": handle, "fact": o.text, "category": item.category, "domain": _domain(item),
        "confidence": round(item.confidence, 3), "tags": sorted(o.tags), "source_count": item.sources,
        "first_seen": min(seen, default=o.created_at).isoformat(), "last_confirmed": item.confirmed.isoformat(),
        "archived": item.archived, "related": [item.disputed] if item.disputed else [],
    }


def _domain(item: Knowledge) -> str:
    return next((tag.removeprefix("project:") for tag in sorted(item.observation.tags) if tag.startswith("project:")), "global")


def _places(item: Knowledge) -> Iterable[tuple[Path, str]]:
    agents = [tag.removeprefix("agent:") for tag in sorted(item.observation.tags) if tag.startswith("agent:")]
    for agent in agents:
        yield Path("agents") / f"{_safe(agent)}.md", f"Agent {agent}"
    if (domain := _domain(item)) != "global":
        yield Path("repos") / f"{_safe(domain)}.md", f"Project {domain}"
    elif not agents:
        yield Path("global") / f"{item.category}.md", HEADINGS[item.category]


def _safe(name: str) -> str:
    """A file's name that stays in its folder."""
    return UNSAFE.sub("-", name).strip(".-")[:100] or "unnamed"


def _page(title: str, items: Sequence[Knowledge], named: dict[str, str]) -> str:
    lines = [f"# {' '.join(title.split())}", ""]
    for category, heading in HEADINGS.items():
        if found := [item for item in items if item.category == category]:
            lines += [f"## {heading}", "", *(_line(item, named[item.id]) for item in found), ""]
    return "\n".join(lines)


def _line(item: Knowledge, handle: str) -> str:
    sources = f"{item.sources} source{'' if item.sources == 1 else 's'}"
    text = " ".join(item.observation.text.split())
    return f"- [{handle}] {text} ({item.confidence:.2f}, {sources}, {item.confirmed:%Y-%m-%d})"
