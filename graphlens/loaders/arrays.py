"""Arrays that the user hands over in a file, to be fed to a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphlens.errors import UsageError
from graphlens.loaders.files import ARCHIVE_ERRORS, HEAD_BYTES, pointer_in_words


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of ``--inputs FILE.npz``; pickled objects are refused, because reading one runs code."""
    try:
        with path.open("rb") as file:
            pointer = pointer_in_words(file.read(HEAD_BYTES))
        if pointer:
            raise UsageError(f"--inputs {path} is {pointer}")
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError(f"--inputs {path} holds one array without a name: write it with numpy.savez(path, NAME=…)")
        with archive:
            return {name: archive[name] for name in archive.files}
    except (*ARCHIVE_ERRORS, TypeError, MemoryError) as error:
        raise UsageError(f"--inputs {path}: not a readable .npz file of plain arrays ({error})") from error
