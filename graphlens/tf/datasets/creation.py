"""Where in the user's program datasets are made: noted as they are, once TensorFlow's module for them is there."""

from __future__ import annotations

import functools
import importlib
import sys
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from graphlens.loaders.sources import is_framework

DEFINING: Final = "tensorflow.python.data.ops.dataset_ops"

_LINES: Final[weakref.WeakKeyDictionary[Any, str]] = weakref.WeakKeyDictionary()
_NOTED: Final = "_notes_graphlens_lines"


def watch(module: Any = None) -> None:
    """Note from now on which line makes each dataset: a walk over the stack for each, and nothing for an element.

    Parameters
    ----------
    module
        TensorFlow's own that defines datasets; imported where it is not given.
    """
    if module is None:
        module = importlib.import_module(DEFINING)
    initialize = module.DatasetV2.__init__
    if hasattr(initialize, _NOTED):
        return

    @functools.wraps(initialize)
    def initialized(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        _note(self)

    setattr(initialized, _NOTED, True)
    module.DatasetV2.__init__ = initialized


def line_of(dataset: Any) -> str:
    """Return the user's line that made a dataset, ``file:line``; empty where nobody saw it."""
    return _LINES.get(dataset, "")


def _note(dataset: Any) -> None:
    line = next((f"{path}:{number}" for path, number in _calls(sys._getframe(2)) if not is_framework(path)), "")
    if line:
        _LINES[dataset] = line


def _calls(frame: FrameType | None) -> Iterator[tuple[str, int]]:
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
