"""The command line that asks for a request again, in words that a shell takes apart as they were meant."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from graphlens.config import OPTIONS, Request

# A word as `quoted` writes it: in quotes of either kind, with escapes after a dollar, or plain.
_WORD: Final = re.compile(r"""(?:\$'(?:[^'\\]|\\.)*'|'[^']*'|"[^"]*"|[^\s'"])+""")


def command_of(request: Request) -> str:
    """Return the line of ``graphlens analyze`` that makes this request, as a person would type it.

    Where reports and profiles are left is no part of it.
    """
    return " ".join(map(quoted, ["graphlens", "analyze", *_options_of(request)]))


def script_command_of(request: Request, words: Sequence[str], *, reruns: bool = False) -> tuple[str, str]:
    """Return the line of ``graphlens run`` in two parts: more options go between them.

    What comes after a script is the script's own.

    Parameters
    ----------
    words
        The script and its arguments, or ``-m`` and a module.
    reruns
        Whether the script may be run again whatever it does.
    """
    options = [*_options_of(request, but="target"), *(["--rerun"] if reruns else [])]
    return " ".join(map(quoted, ["graphlens", "run", *options])), "".join(f" {quoted(word)}" for word in words)


def _options_of(request: Request, but: str = "") -> Iterator[str]:
    """Yield the words of the target, and of each option that is not as it is by itself; ``but`` is left out."""
    untouched = dict(Request.of("").values())
    for name, value in request.values():
        if name in OPTIONS and name != but and (name == "target" or value != untouched[name]):
            yield from OPTIONS[name].words(value)


def without(command: str, flags: Sequence[str]) -> str:
    """Return a line of ``command_of`` without these options, each of which takes one word.

    >>> without("graphlens analyze 'a b' --assume-device gpu --select GL203", ["--assume-device"])
    "graphlens analyze 'a b' --select GL203"
    """
    words = _WORD.findall(command)
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before not in flags and word.partition("=")[0] not in flags
    ]
    return " ".join(kept)


def quoted(word: str) -> str:
    """Quote ``word`` for a shell, in characters that can be seen: a file's name may hold any others.

    >>> print(quoted("a b'; rm -rf x"), quoted("two\\nlines"))
    'a b'"'"'; rm -rf x' $'two\\x0alines'
    """
    if word.isprintable():
        return shlex.quote(word)
    plain = "".join(char if char.isprintable() and char not in "\\'" else _escaped(char) for char in word)
    return f"$'{plain}'"


def _escaped(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
