"""How marks stand in a profile: an event named after the kind, with texts as statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from graphlens.ir.run import Mark
from graphlens.ir.script import MARK

DETAIL: Final = "detail"
SOURCE: Final = "source"

# What ends a statistic in the name of a TraceMe event, and what stands for such a character.
_QUOTED: Final = str.maketrans({character: f"%{ord(character):02X}" for character in "%#,=\n"})
# The profiler makes a number of what looks like one (``007``): a text is one with something before it.
_TEXT: Final = ":"


def event_name(kind: str) -> str:
    """Return what the event of a mark is called.

    >>> event_name("read")
    'graphlens_mark:read'
    """
    return MARK + kind


def written(text: str) -> str:
    """Return a text as the profiler can keep it.

    >>> written("a,b = 50%")
    ':a%2Cb %3D 50%25'
    """
    return _TEXT + text.translate(_QUOTED)


def read_mark(name: str, start_ns: int, end_ns: int, thread: int, stats: Mapping[str, Any]) -> Mark:
    """Return the mark of an event.

    >>> read_mark("graphlens_mark:read", 5, 7, 1, {"detail": ":float", "source": ":my%2Cfile.py:3"})
    Mark(kind='read', start_ns=5, end_ns=7, thread=1, detail='float', source='my,file.py:3')
    """
    return Mark(name.removeprefix(MARK), start_ns, end_ns, thread, _text(stats, DETAIL), _text(stats, SOURCE))


def _text(stats: Mapping[str, Any], name: str) -> str:
    return unquote(str(stats.get(name, "")).removeprefix(_TEXT))
