"""A callback for ``fit`` that records some steps and explains them.  Keras is imported with this module."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from graphlens import api, pipeline
from graphlens.config import DEFAULT_STEPS
from graphlens.errors import GraphLensError, UsageError
from graphlens.pipeline.result import Analysis
from graphlens.tf.watch.callback import Callback, runs_on

__all__ = ["ProfileCallback"]


class ProfileCallback(Callback):  # type: ignore[misc]  # Keras has no types
    """Records some steps of ``fit`` once they are steady, and explains them.

    Training goes on meanwhile and afterwards as it would without it.  The recording is judged, and the report written,
    at the end of the epoch in which it was complete; at the end of training at the latest.  What cannot be recorded or
    written is a warning: it never ends a training.

    Parameters
    ----------
    output
        Where the report is written; the suffix picks the format, as in ``Analysis.save``.  ``None``: nowhere.
    steps
        How many calls of the training function are recorded.
    select, ignore
        The rules that judge: codes, prefixes or names.

    Raises
    ------
    UsageError
        When ``output`` or ``steps`` is none that could be, or Keras does not run on TensorFlow.

    Examples
    --------
    ::

        explained = ProfileCallback("report.html")
        model.fit(x, y, epochs=5, callbacks=[explained])
        print(explained.analysis.step.median_ns)
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | None = None,
        steps: int = DEFAULT_STEPS,
        *,
        select: Sequence[str] = (),
        ignore: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if runs_on() != "tensorflow":
            raise UsageError(f"Keras runs on {runs_on()} here, and GraphLens explains TensorFlow")
        self._output = None if output is None else os.fspath(output)
        pipeline.check_outputs([] if self._output is None else [self._output])
        self._options: Mapping[str, Any] = {"steps": steps, "select": select, "ignore": ignore}
        self._profiling = api.profile(**self._options)
        self._is_recording = False

    @property
    def analysis(self) -> Analysis:
        """What was recorded in the last ``fit``, judged.

        Raises
        ------
        TargetError, UsageError
            When there is nothing to judge, or it is still recording; see ``graphlens.profile``.
        """
        return self._profiling.analysis

    def on_train_begin(self, _logs: Mapping[str, Any] | None = None) -> None:
        """Begin to record; what an earlier ``fit`` has left open is ended."""
        self._end()
        self._profiling = api.profile(**self._options)
        self._profiling.__enter__()
        self._is_recording = True

    def on_epoch_end(self, _epoch: int, _logs: Mapping[str, Any] | None = None) -> None:
        """Explain the steps if they were recorded."""
        if self._profiling.has_recorded:
            self._end()

    def on_train_end(self, _logs: Mapping[str, Any] | None = None) -> None:
        """Explain what was recorded."""
        self._end()

    def _end(self) -> None:
        if not self._is_recording:
            return
        self._is_recording = False
        self._profiling.__exit__(None, None, None)
        try:
            if self._output is not None:
                self.analysis.save(self._output)
        except GraphLensError as error:
            warnings.warn(f"graphlens: {error}", RuntimeWarning, stacklevel=2)
