"""A stretch of this process that is watched from within, and judged when it is asked for."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from graphlens import workplace
from graphlens.config import Request, no_progress
from graphlens.errors import TargetError, UsageError
from graphlens.loaders.capture.parts import MANIFEST
from graphlens.pipeline import watched
from graphlens.pipeline.result import Analysis

if TYPE_CHECKING:
    from graphlens.tf.watch.inside import Inside

NEVER_CALLED: Final = "no function and no Session of TensorFlow was called meanwhile: nothing to judge"
NEVER_STEADY: Final = (
    "nothing was called often enough to be recorded: a few calls without tracing, and those of the recording"
)
WATCHED_ALREADY: Final = (
    "this process is watched already, by another graphlens.profile(), a ProfileCallback or `graphlens run`: "
    "that one goes on, and this one records nothing"
)
_NOT_ENDED: Final = "it is still recording; ask for the analysis after the `with` block"
_ONCE: Final = "it has recorded already; make another one with graphlens.profile()"


class Profiling:
    """Watches this process within a ``with`` block; what ``graphlens.profile`` returns."""

    def __init__(self, request: Request, name: str) -> None:
        self._request, self._name = request, name
        self._folders = ExitStack()  # what was recorded, until it is judged
        self._folder = Path()
        self._watch: Inside | None = None
        self._is_begun = False
        self._is_ended = False
        self._is_refused = False
        self._analysis: Analysis | None = None

    def __enter__(self) -> Profiling:
        if self._is_begun:
            raise UsageError(_ONCE)
        from graphlens.tf.watch import inside

        self._is_begun = True
        if inside.is_watched():
            warnings.warn(f"graphlens: {WATCHED_ALREADY}", RuntimeWarning, stacklevel=2)
            self._is_refused = True
            return self
        self._folder = self._folders.enter_context(workplace.temporary())
        self._watch = inside.Inside(self._folder, self._name, self._request.recording.steps)
        self._watch.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_ended = True
        if self._watch is not None:
            self._watch.end()

    @property
    def has_recorded(self) -> bool:
        """Whether all that was to be recorded is; it may be so long before the block ends."""
        return self._watch is not None and self._watch.has_recorded

    @property
    def analysis(self) -> Analysis:
        """What was recorded, judged when this is first asked for; TensorFlow is not called for it.

        Raises
        ------
        TargetError
            When there is nothing to judge: TensorFlow was not called, or not often enough, or its profiler was in use.
        UsageError
            When the block has not ended, or was within another one that is recorded.
        """
        if self._analysis is None:
            self._analysis = self._judged()
            self._folders.close()
        return self._analysis

    def _judged(self) -> Analysis:
        if self._is_refused:
            raise UsageError(WATCHED_ALREADY)
        if not self._is_ended:
            raise UsageError(_NOT_ENDED)
        if not (self._folder / MANIFEST).exists():
            raise TargetError(watched.noted_failure(self._folder) or NEVER_CALLED)
        return watched.judged(self._request, self._folder, no_progress, NEVER_STEADY)
