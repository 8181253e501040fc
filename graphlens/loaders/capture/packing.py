"""A recorded folder: completed by what was known without TensorFlow, and packed into one file."""

from __future__ import annotations

import json
import os
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from graphlens.errors import TargetError
from graphlens.ir.graph import Variable
from graphlens.loaders.capture.parts import MANIFEST, TRACED
from graphlens.loaders.capture.reading import open_capture, readable
from graphlens.loaders.files import MESSAGE_LIMIT_BYTES

# What a capture holds; a recorder's log and compiler dumps stay behind, since they may show paths or weights.
_PART: Final = re.compile(
    r"^(capture\.json|(traced|optimized|before_placer|profile\.xplane|executed/\d+)\.pb|profiles/[^/]+\.xplane\.pb|replay\.json"
    r"|hlo/[^/]+\.txt)$"
)

# The same parts give the same bytes: no clock, no user, no machine.
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)
_ZIP_MODE: Final = 0o644 << 16


def write_capture(directory: str | os.PathLike[str], file: str | os.PathLike[str]) -> None:
    """Pack the parts in ``directory`` into the one file ``file``, which appears only when it is complete.

    Raises
    ------
    TargetError
        When ``directory`` is no capture, holds more than could be read again, or ``file`` cannot be written.
    """
    source, target = Path(directory), Path(file)
    capture = open_capture(source)
    size = sum((source / name).stat().st_size for name in capture.names if _PART.match(name))
    if size > MESSAGE_LIMIT_BYTES:
        raise TargetError(
            f"what was recorded is larger than {MESSAGE_LIMIT_BYTES >> 20} MiB, which no capture can hold; "
            "record for a shorter time, or fewer programs at once"
        )
    with readable(target):
        handle, partial = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        try:
            _pack(source, sorted(name for name in capture.names if _PART.match(name)), partial)
            os.chmod(partial, 0o644)
            os.replace(partial, target)
        except BaseException:
            os.unlink(partial)
            raise


def _pack(source: Path, names: Sequence[str], target: str) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.external_attr = _ZIP_MODE
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, (source / name).read_bytes())


def add_traced(
    directory: str | os.PathLike[str],
    graph_def: bytes,
    traced_root: str,
    captures: Mapping[str, Variable] = MappingProxyType({}),
) -> None:
    """Put the graph as it was read from the target's file into the capture folder ``directory``.

    It replaces what the recorder traced, whose root is not the target's own.  ``captures`` says which variable an
    argument of the root is bound to.
    """
    (Path(directory) / TRACED).write_bytes(graph_def)
    variables = {name: _described(variable) for name, variable in captures.items()}
    _write_manifest(directory, {"traced_root": traced_root, "variables": variables})


def take_traced(directory: str | os.PathLike[str], other: str | os.PathLike[str]) -> None:
    """Put the traced graph of the capture ``other`` into the capture folder ``directory``."""
    source = open_capture(other)
    (Path(directory) / TRACED).write_bytes(source.part(TRACED))
    _write_manifest(directory, {name: source.manifest.get(name) for name in ("traced_root", "variables", "training")})


def amend(
    directory: str | os.PathLike[str], target: Mapping[str, Any] | None = None, notes: Sequence[str] = ()
) -> None:
    """Say in the capture folder ``directory`` which target it is about, and add notes."""
    known = open_capture(directory).manifest
    said = [*(known.get("notes") or ()), *notes]
    _write_manifest(directory, {"target": dict(target or known["target"]), "notes": list(dict.fromkeys(said))})


def _write_manifest(directory: str | os.PathLike[str], changed: Mapping[str, Any]) -> None:
    manifest = {**open_capture(directory).manifest, **changed}
    (Path(directory) / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _described(variable: Variable) -> dict[str, Any]:
    shape = variable.spec.shape
    return {
        "name": variable.name,
        "dtype": variable.spec.dtype,
        "shape": None if shape is None else list(shape),
        "trainable": variable.trainable,
    }
