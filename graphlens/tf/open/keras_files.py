"""What a Keras file says of who wrote it, and why Keras does not read it."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any, Final

from graphlens.errors import first_line
from graphlens.loaders.files import ARCHIVE_ERRORS

_CAUSE: Final = "Exception encountered: "
_METADATA: Final = "metadata.json"
_METADATA_BYTES: Final = 1 << 16
_VERSION: Final = re.compile(r"\d+(\.\w+){1,4}")
# What Keras says after the class that it does not find: advice for who writes the class, and all of its configuration.
_ADVICE: Final = re.compile(r"\.? (Make sure custom classes|Please ensure|Full object config|See https://)")
_UNKNOWN_CLASS: Final = re.compile(r"Could not locate (class|function)|Unknown (layer|object|initializer|optimizer)")


def written_by(path: Path) -> str | None:
    """Return the version of Keras that wrote a file, ``None`` where the file does not say."""
    found = _of_archive(path) if zipfile.is_zipfile(path) else _of_hdf5(path)
    return found if isinstance(found, str) and _VERSION.fullmatch(found) else None


def _of_archive(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_METADATA) as file:
            told = json.loads(file.read(_METADATA_BYTES))
    except (*ARCHIVE_ERRORS, KeyError, RecursionError):
        return None
    return told.get("keras_version") if isinstance(told, dict) else None


def _of_hdf5(path: Path) -> Any:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("keras_version")
    except (OSError, RuntimeError, ValueError, KeyError):
        return None
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else found


def who_cannot(keras: str, path: Path, written: str | None) -> str:
    """Say which Keras cannot load a file, which wrote it, and what reads it.

    >>> who_cannot("3.15.1", Path("m.h5"), "2.13.1")
    'Keras 3.15.1 cannot load m.h5, which Keras 2.13.1 wrote (tf_keras reads it: save it as a SavedModel with that)'
    """
    if written is None:
        return f"Keras {keras} cannot load {path}"
    other = " (tf_keras reads it: save it as a SavedModel with that)" if _is_of_keras_2(written) else ""
    return f"Keras {keras} cannot load {path}, which Keras {written} wrote{other}"


def why(error: Exception, written: str | None) -> str:
    """Return the innermost cause in one line: Keras puts each error into the next one's text."""
    cause = str(error).rpartition(_CAUSE)[2]
    said = _ADVICE.split(first_line(ValueError(cause)), maxsplit=1)[0]
    if not _UNKNOWN_CLASS.search(said) or _is_of_keras_2(written):  # which has classes of its own by other names
        return said
    return f"{said}; name the Python module that registers it with --import MODULE"


def _is_of_keras_2(written: str | None) -> bool:
    return written is not None and written.startswith(("1.", "2."))
