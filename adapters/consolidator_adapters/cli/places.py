"""Folders and files that a command is given: whether they can be used, said before anything is done in them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from consolidator.errors import InvalidInput

if TYPE_CHECKING:
    from consolidator.config import Settings

NAME = "consolidator"
ELSEWHERE = "choose another with --folder"


def nearest(path: Path) -> Path:
    """The path, or the nearest of its parents that is there."""
    return next((place for place in (path, *path.parents) if os.path.exists(place)), path)


def blocked(folder: Path) -> str | None:
    """What stands where a folder is wanted, as a sentence."""
    place = nearest(folder)
    return None if place.is_dir() else f"{place} is a file; --folder takes a folder"


def unusable(settings: Settings) -> str | None:
    """Why the settings' folder, which need not be there yet, cannot hold what they put there, as a sentence."""
    folder, place = settings.folder, nearest(settings.folder)
    if problem := blocked(folder):
        return problem
    elsewhere = settings.store.kind == "qdrant" and settings.ledger.url is not None and place == folder
    return None if elsewhere or os.access(place, os.W_OK | os.X_OK) else denied(folder, "permission denied")


def own_files(settings: Settings) -> bool:
    """Whether all that is kept lies in files that the engine itself may rewrite, and not in a server's."""
    return settings.store.kind in ("edge", "memory") and (settings.ledger.url or "sqlite").startswith("sqlite")


def denied(folder: Path, why: str) -> str:
    return f"{folder} cannot be written: {why}; {ELSEWHERE}"


def why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


@contextmanager
def left_as_it_was(folder: Path) -> Iterator[None]:
    """Where the work fails, the folders that it made go again, if they are empty."""
    made = [place for place in (folder, *folder.parents) if not os.path.exists(place)]
    try:
        yield
    except BaseException:
        for place in made:
            with suppress(OSError):
                place.rmdir()
        raise


@contextmanager
def reserved(file: Path | None) -> Iterator[None]:
    """Raises InvalidInput for a file that cannot be written, before the work; leaves no empty file behind."""
    if file is None:
        yield
        return
    new = not os.path.exists(file)
    try:
        file.open("a", encoding="utf-8").close()
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {why(error)}; nothing was erased") from None
    try:
        yield
    finally:
        if new and file.exists() and not file.stat().st_size:
            file.unlink()


def program() -> str:
    """How this command line is called: by its name where that is found, else by the path that was used."""
    called = Path(sys.argv[0])
    return NAME if called.name != NAME or shutil.which(NAME) else shlex.quote(str(called))
