"""Work as the number of lines of Python that are executed, which no machine and no load changes.

Each function of GraphLens is looked at by itself: in the sum, one that walks a graph once per finding would be lost
among those that walk it once.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import graphlens

PACKAGE = str(Path(graphlens.__file__).parent)
MOST_GROWTH = 2.1  # with twice as much to do
FEW_LINES = 200  # what a function may execute more than that: a second finding, a larger number in words


def lines_of(run: Callable[[], Any]) -> Counter[CodeType]:
    """Return how many lines each function of GraphLens executes; each turn of a comprehension is one."""
    lines: Counter[CodeType] = Counter()

    def in_function(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            lines[frame.f_code] += 1
        return in_function

    def anywhere(frame: FrameType, _event: str, _: Any) -> Any:
        return in_function if frame.f_code.co_filename.startswith(PACKAGE) else None

    before = sys.gettrace()
    sys.settrace(anywhere)
    try:
        run()
    finally:
        sys.settrace(before)
    return lines


def what_grows_faster(once: Counter[CodeType], twice: Counter[CodeType]) -> dict[str, tuple[int, int]]:
    """Return the functions whose lines more than double, with their numbers."""
    return {
        f"{code.co_filename.removeprefix(PACKAGE)}:{code.co_firstlineno} {code.co_name}": (once[code], lines)
        for code, lines in twice.items()
        if lines > once[code] * MOST_GROWTH + FEW_LINES
    }
