"""What records a program while it runs: collectors that are started before it and stopped after it, whoever runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from graphlens.errors import first_line
from graphlens.loaders.capture.writing import CaptureDirectory

Progress = Callable[[str, int, int], None]


def without_limit() -> float:
    """Return the seconds left where nobody set a limit."""
    return float("inf")


@dataclass(frozen=True, slots=True)
class Context:
    """Where collectors leave what they record, how much time there is, and whom to tell what is going on."""

    capture: CaptureDirectory
    progress: Progress = lambda _what, _done, _of: None
    seconds_left: Callable[[], float] = without_limit


class Collector(Protocol):
    """Records one thing about a program.

    ``stage`` names a stage of the recording that a report can live without: its failure is noted, and it is left out
    when the time is spent.  ``None``: the recording stands and falls with it.
    """

    @property
    def stage(self) -> str | None:
        """The name of the stage."""

    def start(self, context: Context) -> None:
        """Begin, just before the program runs."""

    def stop(self, context: Context) -> bool:
        """End, just after it, and leave parts in the capture; returns whether there was anything to record."""

    def cancel(self) -> None:
        """End without a result, since the program failed or time is up."""


@contextmanager
def collecting(context: Context, collectors: Sequence[Collector]) -> Iterator[None]:
    """Record what runs within under all ``collectors``: the first one is started first and stopped last.

    When it fails, none of them leaves anything.
    """
    started: list[Collector] = []
    try:
        for collector in collectors:
            collector.start(context)
            started.append(collector)
        yield
        while started:
            _stop(started.pop(), context)
    except BaseException:
        for collector in reversed(started):
            collector.cancel()
        raise


def _stop(collector: Collector, context: Context) -> None:
    stage, begun_s = collector.stage, time.monotonic()
    if stage is None:
        collector.stop(context)
        return
    if context.seconds_left() <= 0:
        collector.cancel()
        context.capture.note(f"The time budget was spent before the stage '{stage}'.")
        return
    try:
        if collector.stop(context):
            context.capture.finish(stage, time.monotonic() - begun_s)
    except Exception as error:  # whatever TensorFlow throws here, what the recording is about is already complete
        context.capture.fail(stage, f"the stage '{stage}' failed: {first_line(error)}")
