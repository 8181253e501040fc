"""The times of single steps, by the clock and without the profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphlens.loaders.capture.collecting import Context
from graphlens.tf.record.clock import timed_steps


class StepTimes:
    """Keeps the nanoseconds of each step that is timed meanwhile; what there is stays where a later one fails."""

    stage = None

    def __init__(self) -> None:
        self._ns: list[int] = []

    def time(self, step: Callable[[], Any], count: int) -> None:
        """Time ``count`` calls of ``step``."""
        self._ns += timed_steps(step, count)

    def start(self, context: Context) -> None:
        context.capture.content["unprofiled_ns"] = self._ns

    def stop(self, context: Context) -> bool:  # noqa: ARG002  # the capture holds the list
        return bool(self._ns)

    def cancel(self) -> None:
        """Nothing has to be ended."""
