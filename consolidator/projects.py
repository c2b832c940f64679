"""Names of projects in what a session shows: working folders, paths, remotes of git. Pure. A name is in lower case."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

NAME = re.compile(r"(?!\.)[a-z0-9._+-]{1,100}(?<!\.)")
PATH = re.compile(r"/[\w.@+-]+(?:/[\w.@+-]+)+/?")
DRIVE = re.compile(r"(?<![A-Za-z])[A-Za-z]:$")
HOST = r"\b(?:github|gitlab|bitbucket|codeberg)\.(?:com|org)[/:](?:repos/)?([\w.-]+)/([\w.-]+)"
REMOTE = re.compile(
    rf"{HOST}|\bgit@[\w.-]+:(?:[\w.-]+/)+([\w.-]+)|\b(?:https?|ssh|git)://[\w.@:-]+/(?:[\w.-]+/)*([\w.-]+)\.git\b"
)
NO_OWNERS = frozenset({
    "features", "orgs", "settings", "marketplace", "topics", "sponsors", "apps", "login", "search", "about", "pricing",
    "explore", "user-attachments",
})

HOMES = frozenset({"home", "users"})
SYSTEM = frozenset({
    "applications", "bin", "boot", "dev", "etc", "lib", "lib64", "library", "nix", "opt", "private", "proc", "run", "sbin",
    "snap", "sys", "system", "tmp", "usr", "var", "windows",
})
GATHERING = frozenset({"checkouts", "projects", "repos", "repositories", "workspaces"})  # projects stand below them
KEEPING = GATHERING | frozenset({"code", "src", "work", "workspace"})  # they also stand within a project
PASSED = KEEPING | frozenset({
    "data", "desktop", "dev", "development", "documents", "downloads", "git", "github", "gitlab", "go", "media", "mnt",
    "onedrive", "source", "srv", "volumes", "www",
})
HOSTS = frozenset({"github.com", "gitlab.com", "bitbucket.org", "codeberg.org"})
NO_PROJECTS = frozenset({
    "node_modules", "site-packages", "library", "appdata", "bin", "lib", "tmp", "temp", "venv", "public", "pictures", "music",
})


def clean(name: str) -> str | None:
    """A name as all spell it, or None."""
    name = name.strip().rstrip(".").lower().removesuffix(".git")
    return name if NAME.fullmatch(name) and name not in NO_PROJECTS else None


def remotes(text: str) -> Iterator[str]:
    """The projects whose remotes a text names, as they follow each other."""
    if "git" not in text and "bitbucket." not in text and "codeberg." not in text:
        return
    for found in REMOTE.finditer(text):
        owner, *names = found.groups()
        name = clean(next(filter(None, names)))
        if name and (owner or "").lower() not in NO_OWNERS:
            yield name


def paths(text: str) -> Iterator[str]:
    """The projects in whose folders the paths of a text lie, as they follow each other."""
    if ":\\" in text:
        text = text.replace("\\\\", "/").replace("\\", "/")
    for found in PATH.finditer(text):
        before = text[max(0, found.start() - 3) : found.start()]
        if (not before or (before[-1] not in ".-$}/:~" and not before[-1].isalnum())) or DRIVE.search(before):
            name = of_path(found[0])
        elif before[-1] == "~" and not before[-2:-1].isalnum():
            name = of_path("~" + found[0])
        else:
            continue
        if name:
            yield name


@lru_cache(maxsize=16_384)
def of_path(path: str, *, folder: bool = False) -> str | None:
    """The project in whose folder a path lies: never a home, nor what belongs to the system. folder: it is one itself."""
    told = [part.lower() for part in path.replace("\\", "/").split("/") if part]
    inside, at_home = _below_home(told)
    if not inside or (not at_home and inside[0] in SYSTEM):
        return None
    below = _below_keeping(inside, at_home=at_home)
    kept = len(below) < len(inside)
    if not below or not (kept or at_home or folder):
        return None
    alone = len(below) == 1 and not folder
    return None if alone and (not kept or "." in below[0]) else clean(below[0])


def _below_home(parts: list[str]) -> tuple[list[str], bool]:
    """What stands below a home folder; else below the root."""
    if parts[:1] in (["~"], ["root"]):
        return parts[1:], True
    if parts and DRIVE.fullmatch(parts[0]):
        parts = parts[1:]
    place = next((n for n, part in enumerate(parts[:3]) if part in HOMES), None)
    return (parts, False) if place is None else (parts[place + 2 :], True)


def _below_keeping(parts: list[str], *, at_home: bool) -> list[str]:
    """What stands below the folders that people keep their projects in."""
    first = 0
    while first < len(parts) and parts[first] in PASSED | HOSTS:
        first += 2 if parts[first] in HOSTS else 1
    if first:
        return parts[first:]
    keeping = GATHERING if at_home else KEEPING
    place = next((n for n, part in enumerate(parts[:4]) if part in keeping), None)
    return parts if place is None or any(part.startswith(".") for part in parts[:place]) else parts[place + 1 :]
