"""The times of single steps, by the clock and without the profiler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from graphlens.loaders.capture.collecting import Context
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.tf.record.clock import timed_steps


class StepTimes:
    """Keeps the nanoseconds of each step that is timed meanwhile; what there is stays where a later one fails."""

    stage = None

    def __init__(self, capture: CaptureDirectory) -> None:
        self._capture = capture
        self._ns: tuple[int, ...] = ()

    def time(self, step: Callable[[], Any], count: int) -> None:
        """Time ``count`` calls of ``step``."""
        self._ns += tuple(timed_steps(step, count))
        self._capture.manifest = replace(self._capture.manifest, unprofiled_ns=self._ns)

    def start(self, context: Context) -> None:
        """Nothing is timed yet."""

    def stop(self, context: Context) -> bool:  # noqa: ARG002  # the capture holds the list
        return bool(self._ns)

    def cancel(self) -> None:
        """Nothing has to be ended."""
