"""Where in the user's program a call comes from: the line and the function, told from the stack of Python's frames."""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

from graphlens.loaders.sources import is_framework

_OWN: Final = f"{Path(__file__).parents[2]}/"
_TRAINERS_OF_KERAS: Final = ("/keras/src/backend/tensorflow/trainer.py", "/keras/src/trainers/trainer.py")
_NUMPY: Final = re.compile(r"[/\\](?:site|dist)-packages[/\\]numpy[/\\]")  # asks tensors for their values
_INSTALLED: Final = re.compile(r"[/\\](?:site|dist)-packages[/\\]")
_MODULE: Final = "<module>"


class Place(NamedTuple):
    """Where a call comes from.

    ``source`` is the user's line, ``file:line``, ``function`` the name of the user's function that made what the call
    is about, and was not handed it (empty where it is in none), ``within_keras`` whether Keras' own training loop
    called.  ``stack`` is equal for calls that come the same way.
    """

    source: str
    function: str
    within_keras: bool
    stack: Hashable


def user_place(about: Any = None) -> Place | None:
    """Return the place in the user's program that the caller was called from; ``None`` where nothing of it called."""
    frames = list(_frames(sys._getframe(1)))
    users = [frame for frame in frames if _is_users(frame.f_code)]
    if not users:
        return None
    code = next((frame for frame in users if not _was_handed(frame, about)), users[0]).f_code
    return Place(
        source=f"{users[0].f_code.co_filename}:{users[0].f_lineno}",
        function="" if code.co_name == _MODULE else _name(code),
        within_keras=any(_is_trainers(frame.f_code) for frame in frames),
        stack=tuple((frame.f_code, frame.f_lasti) for frame in frames if not _is_own(frame.f_code)),
    )


def user_line() -> str:
    """Return the line of the user's program that the caller was called from; empty where nothing of it called.

    What Keras' own training loop asks for is asked by no line of the user: nothing there could be changed.  Of a
    package that is installed (a progress bar formats what it is handed) it is the line that called it, unless the
    program itself is installed.
    """
    installed = ""
    for frame in _frames(sys._getframe(1)):
        if _is_trainers(frame.f_code):
            break
        if _is_users(frame.f_code):
            line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            if not _INSTALLED.search(line):
                return line
            installed = installed or line
    return installed


def _was_handed(frame: FrameType, held: Any) -> bool:
    """Whether the function of a frame has something as an argument."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return held is not None and any(frame.f_locals.get(name) is held for name in names)


def _name(code: CodeType) -> str:
    return str(getattr(code, "co_qualname", code.co_name))  # Python 3.10 knows no qualified ones


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


@lru_cache(maxsize=4096)
def _is_own(code: CodeType) -> bool:
    return code.co_filename.startswith(_OWN)


@lru_cache(maxsize=4096)
def _is_trainers(code: CodeType) -> bool:
    return code.co_filename.endswith(_TRAINERS_OF_KERAS)


@lru_cache(maxsize=4096)
def _is_users(code: CodeType) -> bool:
    return not (_is_own(code) or is_framework(code.co_filename) or _NUMPY.search(code.co_filename))
