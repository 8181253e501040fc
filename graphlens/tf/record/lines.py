"""The Python line that wrote each traced op, from the op's own traceback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphlens.loaders.sources import MAIN, source_lines, user_line
from graphlens.tf import private


def add_lines(graph_def: Any, concrete: Any) -> None:
    """Write into ``graph_def``, the graph of ``concrete``, which line of the user wrote each of its ops.

    Where files of the framework lie is known here, and not on the machine that reads the capture: of each traceback the
    one frame is kept that is the user's.  Ops without one, those of a model that was read from a file, are left out.
    """
    graph_def.ClearField("debug_info")
    files: dict[str, int] = {}
    for function, lines in _lines(graph_def, concrete):
        for op, line in lines.items():
            path, _, number = line.rpartition(":")
            frame = graph_def.debug_info.traces[f"{op}@{function}" if function else op].file_line_cols.add()
            frame.file_index, frame.line = files.setdefault(path, len(files)), int(number)
    graph_def.debug_info.files.extend(files)


def _lines(graph_def: Any, concrete: Any) -> Iterator[tuple[str, Mapping[str, str]]]:
    found = {operation.name: _user_line(operation.traceback) for operation in concrete.graph.get_operations()}
    yield MAIN, {name: line for name, line in found.items() if line is not None}
    for function in graph_def.library.function:
        name = function.signature.name
        info = private.debug_information(name)
        yield name, source_lines(info, None).get(MAIN, {}) if info is not None else {}


def _user_line(traceback: Any | None) -> str | None:
    """Return the user's line; an op that was loaded from a file has no traceback."""
    if traceback is None:
        return None
    innermost_first = (traceback[index] for index in range(len(traceback) - 1, -1, -1))
    return user_line((frame.filename, frame.lineno) for frame in innermost_first)
