"""Folders to work in, and files that appear whole: what is left goes with the next run where a run was killed.

Standard library only.  A folder holds a locked file.  Whoever holds the lock no more was killed; a folder without that
file is not ours.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

try:
    import fcntl
except ImportError:  # Windows: what a killed run leaves there stays
    fcntl = None  # type: ignore[assignment]

_LONGEST_NAME: Final = 50  # letters of the target's name in that of the folder: file systems allow 255 bytes
_TEMPORARY: Final = "graphlens-"
_LOCK: Final = ".graphlens-lock"
_NEW_LOCK: Final = ".graphlens-lock-new"
_UNFINISHED: Final = ".unfinished"


@contextmanager
def temporary() -> Iterator[Path]:
    """Yield a folder among the temporary files, which is gone afterwards."""
    with _made(Path(tempfile.gettempdir()), _TEMPORARY) as folder:
        yield folder


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Yield a folder from which ``target`` can be renamed into its place."""
    with _made(target.parent, _prefix(target)) as folder:
        yield folder


def remove_abandoned(target: Path) -> None:
    """Remove what killed runs left beside ``target``, which may be the size of a model."""
    _clean(target.parent, _prefix(target))


@contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write; it becomes ``target`` when all is written, and nothing is left where that fails.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    _sweep(target)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}{_UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            _lock(file.fileno())
            yield file
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)  # it is there only if something went wrong


def _lock(file: int) -> None:
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sweep(target: Path) -> None:
    """Remove what killed runs left of ``target``: whose process is gone here, and whose lock nobody holds elsewhere."""
    if fcntl is None:
        return
    leftover = re.compile(rf"\.{re.escape(target.name)}\.(\d{{1,10}}){re.escape(_UNFINISHED)}")
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            found = leftover.fullmatch(entry.name)
            if found and not _is_running(int(found[1])):
                with suppress(OSError):  # it is gone already, of somebody else, or in use on another machine
                    _remove_unlocked(entry.path)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _remove_unlocked(path: str) -> None:
    held = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(held)


def _prefix(target: Path) -> str:
    return f".{target.name[:_LONGEST_NAME]}.graphlens-"


@contextmanager
def _made(parent: Path, prefix: str) -> Iterator[Path]:
    _clean(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        lock = _locked(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                os.close(lock)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _locked(folder: Path) -> int | None:
    """Put a file into a new folder that is locked before it has the name by which others look for it."""
    if fcntl is None:
        return None
    lock = os.open(folder / _NEW_LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without locks: nobody could tell that this folder is in use
        os.close(lock)
        return None
    os.rename(folder / _NEW_LOCK, folder / _LOCK)
    return lock


def _clean(parent: Path, prefix: str) -> None:
    """Remove the folders of killed runs of this user; whatever is in the way stays."""
    if fcntl is None:
        return
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                with suppress(OSError):  # it is gone already, or of somebody else
                    _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
