"""Marks in TensorFlow's profile, of what no event of its own shows; where no profile is recorded they cost nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from tensorflow.python.profiler.internal import _pywrap_traceme

from graphlens.loaders.marks import DETAIL, SOURCE, event_name, written


def is_recorded() -> bool:
    """Tell whether a profile is being recorded: else a mark is lost, and need not be made."""
    return bool(_pywrap_traceme.traceme_enabled())


class Mark:
    """A stretch of time of one thread, from the making of this object to ``end``; also a context manager.

    Parameters
    ----------
    kind
        What happens, as in ``ir.run.Mark``.
    detail, source
        What is said of it, and the user's line; either may be told at the end as well.
    """

    __slots__ = ("_event",)

    def __init__(self, kind: str, detail: str = "", source: str = "") -> None:
        self._event: Any = None
        if is_recorded():
            self._event = _pywrap_traceme.TraceMe(event_name(kind), **_said(detail, source))

    def end(self, detail: str = "", source: str = "") -> None:
        """End the stretch of time; only the first end counts.  It is recorded if the profile still is."""
        if self._event is None:
            return
        if detail or source:
            self._event.SetMetadata(**_said(detail, source))
        self._event.Stop()
        self._event = None

    def __enter__(self) -> Mark:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def _said(detail: str, source: str) -> dict[str, str]:
    return {name: written(text) for name, text in ((DETAIL, detail), (SOURCE, source)) if text}
