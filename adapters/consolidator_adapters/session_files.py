"""Sessions of agents from files: found, read one by one, or many of them scanned, each whole and streamed."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from consolidator.errors import InvalidInput
from consolidator.records import SessionLog
from consolidator.sampling import Scan, scan
from consolidator.sessions import parse

ENDINGS = (".jsonl", ".json")
NAMED_ENDINGS = (*ENDINGS, ".ndjson", ".txt", ".md", ".log")  # plain text counts as a session only where it is named outright
LONGEST_LINE = 64 * 2**20  # bytes; what is longer is cut there, and so a bad line
WORKERS = 2
ALONE = 200  # files that are not worth another process
TOGETHER = 32  # files that a process takes at a time
GARBAGE = 200_000  # objects between two looks for cycles: what is parsed has none, and to look costs a quarter of the time
PLACES = (Path(".claude", "projects"), Path(".codex", "sessions"))  # where agents keep theirs, below the home folder


def places(home: Path) -> list[Path]:
    """The folders in which known agents keep their sessions, those that there are."""
    return [home / place for place in PLACES if (home / place).is_dir()]


def find(where: Path) -> list[Path]:
    """The session files in a folder and below it, by their paths; a file stands for itself. Links to folders are not followed.

    Raises FileNotFoundError.
    """
    if where.is_file():
        return [where]
    if not where.is_dir():
        raise FileNotFoundError(f"there is no folder {where}; name one that holds sessions (*.jsonl, *.json)")
    found = (Path(folder, name) for folder, _, names in os.walk(where) for name in names if name.lower().endswith(ENDINGS))
    return sorted(path for path in found if path.is_file())


def read_session(path: Path, *, id: str | None = None) -> SessionLog:
    """The session in a file. id: else "session/" and the file's name without its ending. Raises InvalidInput."""
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder; name a session's file in it")
    if path.suffix.lower() not in NAMED_ENDINGS:
        raise InvalidInput(f"{path} is no session's file; its name ends with {', '.join(NAMED_ENDINGS)}")
    try:
        with path.open("rb") as file:
            name = id or f"session/{_spelt(path.stem)}"
            log = parse(_lines(file.readline), id=name, modified=_modified(path), text=_may_be_text(path.name))
    except FileNotFoundError:
        raise InvalidInput(f"there is no file {path}") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from None
    if not log.steps:
        raise InvalidInput(f"{path} is empty" if not path.stat().st_size else f"{path} holds no message of a session")
    return log


def scan_file(path: Path, folder: Path) -> Scan:
    """What a whole file tells; never an error: one that cannot be read is skipped, with the reason."""
    name, modified = _spelt(path.name), _modified(path)
    file_of = {"path": _spelt(path), "below": _spelt(_below(path, folder))}
    try:
        with path.open("rb") as file:
            told = scan(_lines(file.readline), name=name, modified=modified, text=_may_be_text(path.name))
            if not os.fstat(file.fileno()).st_size:
                file_of["skipped"] = "the file is empty"
    except OSError as error:
        told = Scan(name=name, at=modified)
        file_of["skipped"] = f"it cannot be read: {error.strerror or error}"
    return told.model_copy(update=file_of)


def scan_files(
    found: Sequence[tuple[Path, Path]], *, workers: int = WORKERS, on_read: Callable[[int], None] | None = None
) -> list[Scan]:
    """What many files tell, each with the folder that it was found in, in the order given. on_read: told how many were read."""
    scans: list[Scan] = []
    for some in _scanned(found, workers):
        scans += some
        if on_read:
            on_read(len(scans))
    return scans


def _scanned(found: Sequence[tuple[Path, Path]], workers: int) -> Iterator[list[Scan]]:
    if workers < 2 or len(found) <= ALONE:
        yield from map(_scan_some, _chunks(found))
        return
    seldom = partial(gc.set_threshold, GARBAGE)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=seldom) as pool:
        yield from pool.map(_scan_some, _chunks(found))


def _scan_some(found: Sequence[tuple[Path, Path]]) -> list[Scan]:
    return [scan_file(path, folder) for folder, path in found]


def _chunks(found: Iterable[tuple[Path, Path]]) -> Iterator[tuple[tuple[Path, Path], ...]]:
    rest = iter(found)
    while some := tuple(islice(rest, TOGETHER)):
        yield some


def _below(path: Path, folder: Path) -> str:
    return path.name if path == folder else path.relative_to(folder).as_posix()


def _lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    return iter(partial(readline, LONGEST_LINE), b"")


def _may_be_text(name: str) -> bool:
    return not name.lower().endswith((*ENDINGS, ".ndjson"))


def _spelt(name: str | Path) -> str:
    """Without bytes that are no letters, which no JSON can hold."""
    return os.fsencode(name).decode("utf-8", "replace")


def _modified(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValueError, OverflowError):
        return None
