"""A hidden folder beside what is to be written: it ends with the work, or with the next run where that was killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # Windows: what a killed run leaves there stays
    fcntl = None  # type: ignore[assignment]

_LONGEST_NAME: Final = 50  # letters of the target's name in that of the folder: file systems allow 255 bytes


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Yield an empty folder from which ``target`` can be renamed into its place.

    The folder is locked: whoever holds no lock any more was killed, and its folder is removed by the next call.
    """
    remove_abandoned(target)
    folder = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_abandoned(target: Path) -> None:
    """Remove what killed runs left beside ``target``, which may be the size of a model."""
    for folder in target.parent.iterdir():
        if folder.name.startswith(_prefix(target)) and folder.is_dir() and not folder.is_symlink():
            lock = _lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _prefix(target: Path) -> str:
    return f".{target.name[:_LONGEST_NAME]}.graphlens-"


def _lock(folder: Path) -> int | None:
    """Lock a folder until its descriptor is closed or this process ends; ``None`` when another one holds it."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another run, or a file system without locks
        os.close(descriptor)
        return None
    return descriptor
