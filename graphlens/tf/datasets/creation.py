"""Where in the user's program datasets are made: noted as they are, once TensorFlow's module for them is there."""

from __future__ import annotations

import functools
import importlib
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from graphlens.loaders.sources import is_framework

DEFINING: Final = "tensorflow.python.data.ops.dataset_ops"

_LINES: Final[weakref.WeakKeyDictionary[Any, tuple[str, str]]] = weakref.WeakKeyDictionary()
_KERAS: Final = re.compile(r"[/\\](?:keras|tf_keras)[/\\]src[/\\]")
_OWN: Final = f"{Path(__file__).parents[2]}/"
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
    if not hasattr(initialize, _NOTED):
        module.DatasetV2.__init__ = functools.wraps(initialize)(noting(initialize))


def noting(initialize: Callable[..., None]) -> Callable[..., None]:
    """Return how a dataset is initialized, with the line noted that made it."""

    def initialized(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        _note(self)

    setattr(initialized, _NOTED, True)
    return initialized


def line_of(dataset: Any) -> str:
    """Return the user's line that made a dataset, ``file:line``; empty where nobody saw it."""
    return _LINES.get(dataset, ("", ""))[0]


def library_of(dataset: Any) -> str:
    """Return ``keras`` for a dataset that Keras made on behalf of the user's line, else nothing."""
    return _LINES.get(dataset, ("", ""))[1]


def _note(dataset: Any) -> None:
    calls = list(_calls(sys._getframe(2)))
    users = next((index for index, (path, _) in enumerate(calls) if not (is_framework(path) or _is_own(path))), None)
    if users is not None:
        path, number = calls[users]
        is_keras = any(_KERAS.search(within) for within, _ in calls[:users])
        _LINES[dataset] = f"{path}:{number}", "keras" if is_keras else ""


def _is_own(path: str) -> bool:
    return path.startswith(_OWN)


def _calls(frame: FrameType | None) -> Iterator[tuple[str, int]]:
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
