"""The folder of an embedded store: its lock, and `store.json`, the record of what it was made with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from consolidator.errors import StoreError, StoreLocked
from consolidator_providers.bm25 import Bm25Settings
from consolidator_providers.store_record import check_record, record_of

if sys.platform != "win32":
    import fcntl

RECORD = "store.json"


class FolderLock:
    """One owner for a folder, by `flock`: released by the kernel when the process ends. The file names the holder."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(folder)
        except BaseException:
            os.close(self._file)
            raise
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def _take(self, folder: Path) -> None:
        if sys.platform == "win32":  # there the shard's own lock remains
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 32, 0).decode()
            raise StoreLocked(_held(folder, holder)) from error

    def release(self) -> None:
        os.close(self._file)


def _held(folder: Path, holder: str) -> str:
    if holder == str(os.getpid()):
        return f"this process has {folder} open already: use that storage, or close it first"
    return f"process {holder or 'unknown'} has {folder} open: close it there, or use a server that both can reach"


def make_folder(folder: Path) -> None:
    """Make it for its owner alone; a folder that exists keeps its mode."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def settle_record(folder: Path, embedder: str, dimension: int) -> Bm25Settings:
    """Check the folder's record, or write it where the folder is new: always before the first shard is made."""
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return check_record(record, embedder, dimension, where=str(folder), elsewhere="another folder")
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read: restore it from a backup") from error
    if any((folder / name / "segments").exists() for name in ("memories", "observations")):
        raise StoreError(f"{path} is missing, though the folder holds data: restore it from a backup")
    _write_record(path, record_of(embedder, dimension, Bm25Settings()))
    return Bm25Settings()


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    draft = path.with_suffix(".new")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    if sys.platform != "win32":
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
