"""A recorded folder: completed by what was known without TensorFlow, and packed into one file."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final

from graphlens import workplace
from graphlens.errors import TargetError
from graphlens.ir.analysis import Target
from graphlens.ir.capture import MAIN, CapturedProgram, CapturedTarget, CapturedVariable, new_id
from graphlens.ir.graph import Function, Variable
from graphlens.ir.nodes import Op
from graphlens.ir.ops import FED
from graphlens.loaders.capture.manifest import to_bytes
from graphlens.loaders.capture.parts import MANIFEST, TRACED
from graphlens.loaders.capture.reading import open_capture, readable
from graphlens.loaders.files import MESSAGE_LIMIT_BYTES

# What a capture holds; a recorder's log and compiler dumps stay behind, since they may show paths or weights.
_PART: Final = re.compile(
    r"^(capture\.json|replay\.json|profile\.xplane\.pb|profiles/[^/]+\.xplane\.pb"
    r"|(programs/[^/]+/)?((traced|optimized|before_placer|executed/\d+)\.pb|hlo/[^/]+\.txt))$"
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
    with readable(target), workplace.whole_file(target) as packed:
        _pack(source, sorted(name for name in capture.names if _PART.match(name)), packed)


def _pack(source: Path, names: Sequence[str], target: IO[bytes]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.external_attr = _ZIP_MODE
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, (source / name).read_bytes())


def add_traced(
    directory: str | os.PathLike[str],
    graph_def: bytes,
    root: Function,
) -> None:
    """Put the graph as it was read from the target's file into the capture folder ``directory``.

    It replaces what the recorder traced, whose ``root`` is not the target's own.
    """
    (Path(directory) / TRACED).write_bytes(graph_def)
    variables = {name: _described(variable) for name, variable in root.captures.items()}
    captured = tuple(name for name in root.graph.of_types(FED) if root.graph.op(name).constant is not None)
    numbers = {name: values for name in captured if (values := _whole_numbers(root.graph.op(name))) is not None}
    _change(directory, traced_root=root.name, variables=variables, captured=captured, captured_numbers=numbers)


def _whole_numbers(argument: Op) -> tuple[int, ...] | None:
    values = argument.constant.values if argument.constant is not None else None
    is_whole = values is not None and all(type(value) is int for value in values)
    return tuple(map(int, values)) if values is not None and is_whole else None


def take_traced(directory: str | os.PathLike[str], other: str | os.PathLike[str]) -> None:
    """Put the traced graph of the capture ``other``, and what it says of its main program, into ``directory``."""
    source = open_capture(other)
    (Path(directory) / TRACED).write_bytes(source.part(TRACED))
    said = source.manifest
    _change(
        directory,
        traced_root=said.traced_root,
        variables=said.variables,
        captured=said.captured,
        captured_numbers=said.captured_numbers,
        training=said.training,
    )
    if said.main is not None:
        name_main(directory, said.main.name, said.main.signature)


def name_main(directory: str | os.PathLike[str], name: str, signature: str | None) -> None:
    """Say in the capture folder ``directory`` which function the main program is, as its graph is named."""
    listed = open_capture(directory).manifest.programs
    others = [program for program in listed if not program.main]
    identity = new_id(MAIN, [program.id for program in others])
    _change(directory, programs=(CapturedProgram(identity, name, main=True, signature=signature), *others))


def amend(directory: str | os.PathLike[str], target: Target | None = None, notes: Sequence[str] = ()) -> None:
    """Say in the capture folder ``directory`` which target it is about, and add notes."""
    known = open_capture(directory).manifest
    said = tuple(dict.fromkeys([*known.notes, *notes]))
    _change(directory, target=known.target if target is None else _target(target), notes=said)


def _change(directory: str | os.PathLike[str], **fields: Any) -> None:
    manifest = replace(open_capture(directory).manifest, **fields)
    (Path(directory) / MANIFEST).write_bytes(to_bytes(manifest))


def _target(target: Target) -> CapturedTarget:
    return CapturedTarget(target.path, target.kind, target.signature, target.digest)


def _described(variable: Variable) -> CapturedVariable:
    spec = variable.spec
    return CapturedVariable(variable.name, spec.dtype, spec.shape, variable.trainable, variable.written_by)
