"""What an option of the command line is: how its words are read, and how a value is written in words again.

The request's fields carry these descriptions; the parser is made from them, and so is the command that a report shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field
from typing import Any, Final

_KEY: Final = "option"


class WordError(ValueError):
    """A word on the command line is not what its option takes; the message says what it takes."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option; ``flag`` is empty for what is told by its place alone.

    Attributes
    ----------
    read, write
        From one word to a value, and from the value of the field to the words that give it.
    sets
        What the field becomes by an option that takes no word; ``None`` where it takes one.
    several
        It may be given several times; ``join`` makes the value of the field of all of them.
    """

    flag: str
    help: str
    metavar: str | None = None
    read: Callable[[str], Any] = str
    write: Callable[[Any], Iterable[str]] = lambda value: (str(value),)
    sets: bool | None = None
    several: bool = False
    join: Callable[[Iterable[Any]], Any] = tuple

    def words(self, value: Any) -> list[str]:
        """Return what a person would type to have ``value``, one string for each word."""
        if not self.flag:
            return [f"./{value}" if str(value).startswith("-") else str(value)]
        if self.sets is not None:
            return [self.flag]
        return [word for given in self.write(value) for word in self._with_flag(given)]

    def _with_flag(self, word: str) -> tuple[str, ...]:
        return (f"{self.flag}={word}",) if word.startswith("-") else (self.flag, word)


def asked(option: Option, default: Any = MISSING, factory: Any = MISSING) -> Any:
    """Return a field of a dataclass that ``option`` sets on the command line."""
    known = {"default": default, "default_factory": factory}
    given = {name: value for name, value in known.items() if value is not MISSING}
    return field(**given, metadata={_KEY: option})


def option_of(of: Field[Any]) -> Option | None:
    """Return the option that sets a field, ``None`` for what only the program sets."""
    return of.metadata.get(_KEY)


# -- words and values ---------------------------------------------------------------------------------------------


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read the shape of one input; ``NAME=`` is a scalar.

    >>> shape("image=1,224,224,3")
    ('image', (1, 224, 224, 3))
    """
    name, separator, sizes = text.rpartition("=")
    try:
        found = tuple(int(size) for size in sizes.split(",") if size.strip())
    except ValueError:
        found = (-1,)
    if not separator or not name or any(size < 0 for size in found):
        raise WordError(f"'{text}' is not of the form NAME=1,224,224,3, or NAME= for a scalar")
    return name, found


def shapes_in_words(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Write the shape of every input as ``shape`` reads it."""
    return [f"{name}={','.join(map(str, sizes))}" for name, sizes in shapes.items()]


def names(text: str) -> tuple[str, ...]:
    """Read names with commas between them."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def names_in_words(given: Iterable[str]) -> tuple[str, ...]:
    """Write names as ``names`` reads them."""
    return (",".join(given),)


CHANGES: Final[Mapping[str, str]] = {
    "jit_compile": "",
    "steps_per_execution": "8",
    "unroll": "",
    "iterate": "",
    "sparse_optimizer": "",
    "mixed_precision": "mixed_bfloat16",
    "onednn": "0",
    "intra_op": "1",
    "inter_op": "1",
}  # what of a script can be changed on trial, each with an example of its value where it takes one


def change(text: str) -> str:
    """Read a change of a script, which takes a value or none.

    >>> change("steps_per_execution=8"), change("unroll")
    ('steps_per_execution=8', 'unroll')
    """
    name, separator, value = text.partition("=")
    if name not in CHANGES:
        raise WordError(f"'{name}' is no change that can be tried; name one of {', '.join(CHANGES)}")
    example = CHANGES[name]
    if bool(separator) != bool(example) or (example.isdigit() and not value.isdigit()) or (example and not value):
        raise WordError(f"'{text}' is not of the form {name}{'=' + example if example else ''}")
    return text


def module(text: str) -> str:
    """Read the name of a Python module.

    >>> module("tensorflow_text")
    'tensorflow_text'
    """
    if not all(part.isidentifier() for part in text.split(".")):
        raise WordError(f"'{text}' is no name of a Python module")
    return text


def positive(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise WordError(f"'{text}' is not a whole number from 1")
    return int(text)


def number(text: str) -> int:
    """Read a whole number from 0."""
    if not text.isdigit():
        raise WordError(f"'{text}' is not a whole number from 0")
    return int(text)


def seconds(text: str) -> float:
    """Read a number of seconds above 0."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise WordError(f"'{text}' is not a number of seconds above 0")
    return found


def fraction(text: str) -> float:
    """Read a number above 0 and below 1."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1:
        raise WordError(f"'{text}' is not a number above 0 and below 1, such as 1e-3")
    return found


def number_in_words(given: float) -> tuple[str, ...]:
    """Write a number as short as the same is read from it.

    >>> number_in_words(300.0), number_in_words(0.1234567891)
    (('300',), ('0.1234567891',))
    """
    short = f"{given:g}"
    return (short if float(short) == given else repr(given),)
