"""Where temporary folders are made: in memory, if there is room. The tests make thousands, and no disk has to be waited for.

A TMPDIR that is set is kept. What a killed process has written outlives it there as on a disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

MEMORY = Path("/dev/shm")
NEEDED = 1024**3 * (1 + min(8, os.cpu_count() or 1))  # bytes: a process of `make test` has a gigabyte in use at most


def prefer_memory(place: Path = MEMORY) -> None:
    if "TMPDIR" not in os.environ and suits(place):
        os.environ["TMPDIR"] = str(place)
        tempfile.tempdir = None  # it is looked up anew


def suits(place: Path) -> bool:
    """Some tests run programs that they have written there."""
    if not place.is_dir() or not os.access(place, os.W_OK):
        return False
    return not os.statvfs(place).f_flag & os.ST_NOEXEC and shutil.disk_usage(place).free >= NEEDED
