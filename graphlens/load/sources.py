"""Source lines of ops, from the debug information that some SavedModels carry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# Frames inside these packages are the framework's own; the user's line is the innermost one outside of them.
_FRAMEWORK = re.compile(r"[/\\](tensorflow|tf_keras|keras|tensorflow_estimator|autograph)[/\\]|__autograph_generated_file|^<")


def source_lines(debug_info: Any, graph_def: Any) -> Mapping[str, Mapping[str, str]]:
    """Return ``{function: {op: "file:line"}}``; the main graph is ``""``; empty when nothing is known."""
    info = debug_info if debug_info is not None else getattr(graph_def, "debug_info", None)
    lines: dict[str, dict[str, str]] = {}
    if info is None:
        return lines
    frames = FrameTable(info)
    for key, frame_list in frames.traces():
        node, _, function = key.rpartition("@") if "@" in key else (key, "", "")
        line = frames.user_line(frame_list)
        if line:
            lines.setdefault(function, {})[node] = line
    return lines


class FrameTable:
    """Reads both layouts of ``GraphDebugInfo``: frames inside each trace, or shared frames by id."""

    def __init__(self, info: Any) -> None:
        self.info = info
        self.shared = dict(getattr(info, "frames_by_id", {}))
        self.by_id = dict(getattr(info, "traces_by_id", {}))

    def traces(self) -> Iterable[tuple[str, list[Any]]]:
        """Yield each op's key and frames."""
        for key, trace in self.info.traces.items():
            yield key, self._frames(trace)
        for key, trace_id in getattr(self.info, "name_to_trace_id", {}).items():
            if trace_id in self.by_id:
                yield key, self._frames(self.by_id[trace_id])

    def _frames(self, trace: Any) -> list[Any]:
        shared = [self.shared[number] for number in getattr(trace, "frame_id", ()) if number in self.shared]
        return [*trace.file_line_cols, *shared]

    def user_line(self, frames: list[Any]) -> str | None:
        """Return ``file:line`` of the innermost frame outside the framework, ``None`` when all are inside."""
        for frame in frames:
            path = self.info.files[frame.file_index] if 0 <= frame.file_index < len(self.info.files) else ""
            if path and not _FRAMEWORK.search(path):
                return f"{path}:{frame.line}"
        return None
