"""Arrays that the user hands over in a file, to be fed to a model."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from graphlens.errors import UsageError


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of ``--inputs FILE.npz``; pickled objects are refused, because reading one runs code."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError(f"--inputs {path} holds one array without a name: write it with numpy.savez(path, NAME=…)")
        with archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        raise UsageError(f"--inputs {path}: not a readable .npz file of plain arrays ({error})") from error
