"""Files that are there whole, or as they were."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from consolidator.errors import InvalidInput
from consolidator_adapters.cli.places import why


def replace(file: Path, text: str) -> None:
    """Write a text in the place of what was there, which a reader sees until it is whole. Raises InvalidInput."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{file.name[:100]}.", suffix=".part", dir=file.parent)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {why(error)}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        if file.exists():
            shutil.copymode(file, name)
        os.replace(name, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
