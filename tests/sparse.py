"""Files that are large, and empty for the most part, as the embedded store's are: only what was written is copied, or read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

BLANK = bytes(1 << 16)


def copy(template: Path, folder: Path) -> None:
    """As `cp --sparse=always`."""
    for path in template.rglob("*"):
        to = folder / path.relative_to(template)
        if path.is_dir():
            to.mkdir(parents=True, exist_ok=True)
            continue
        to.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as old, to.open("wb") as new:
            new.truncate(path.stat().st_size)
            for start, end in data_of(old.fileno()):
                for at in range(start, end, len(BLANK)):
                    block = os.pread(old.fileno(), min(len(BLANK), end - at), at)
                    if block != BLANK:
                        os.pwrite(new.fileno(), block, at)


def written(path: Path) -> bytes:
    """All of a file but its holes, which hold zeros alone; a zero stands for each."""
    with path.open("rb") as file:
        return b"\0".join(os.pread(file.fileno(), end - start, start) for start, end in data_of(file.fileno()))


def data_of(file: int) -> Iterator[tuple[int, int]]:
    """Where a file has bytes, and no holes."""
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # there are none beyond
                return
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end
