"""Templates compiled once and kept for the next page, in the user's own cache folder.

Compiling them takes most of the time of a page without figures.  What is kept is code that will be run, so that it is
read from a folder only that nobody but the user can write to; where there is none, each process compiles for itself.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

import jinja2
from jinja2.bccache import Bucket, BytecodeCache

from graphlens._version import __version__

NO_CACHE_VARIABLE = "GRAPHLENS_NO_CACHE"


class KeptTemplates(BytecodeCache):
    """Compiled templates as files of ``folder``; one that cannot be read or written costs a compilation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill ``bucket`` unless nothing is kept, or what is kept is of another source or Python, or damaged."""
        with suppress(OSError):
            digest, _, code = self._path(bucket).read_bytes().partition(b"\n")
            if digest == _digest(code):
                bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep ``bucket``: whole or not at all, since another process may read it at this moment."""
        code = bucket.bytecode_to_string()
        with suppress(OSError):
            with NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
                file.write(_digest(code) + b"\n" + code)
            os.replace(file.name, self._path(bucket))

    def _path(self, bucket: Bucket) -> Path:
        return self.folder / f"{bucket.key}.template"


def kept_templates() -> KeptTemplates | None:
    """Return where compiled templates are kept, or ``None`` where no folder is the user's alone."""
    if os.environ.get(NO_CACHE_VARIABLE):
        return None
    folder = _caches() / "graphlens" / f"templates-{_compiler()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return KeptTemplates(folder) if _is_own(folder) else None
    except (OSError, RuntimeError):  # RuntimeError: nobody has a home
        return None


def _digest(code: bytes) -> bytes:
    return sha256(code).hexdigest().encode()


def _caches() -> Path:
    named = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return Path(named) if named and Path(named).is_absolute() else Path.home() / ".cache"


def _compiler() -> str:
    """Name what compiles: templates are kept apart by the versions of Jinja, Python and this program."""
    versions = (__version__, jinja2.__version__, sys.implementation.cache_tag)
    return sha256("\n".join(map(str, versions)).encode()).hexdigest()[:12]


def _is_own(folder: Path) -> bool:
    """Tell whether ``folder`` is a real one of this user's, in which nobody else can write."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return False
    if not hasattr(os, "getuid"):
        return True  # Windows keeps a user's own folders from others
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
