"""Messages as lines of JSON: a frozen dataclass on one side of a pipe is the same one on the other.

Standard library only.  A line names the class of its message; the reader lists the classes that it expects, and builds
each field by its annotation.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

_NAME: Final = "message"

Message = TypeVar("Message")


class MessageError(Exception):
    """A line holds none of the messages that are expected."""


def to_line(message: Any) -> str:
    """Return a message as one line, without its end."""
    return json.dumps({_NAME: type(message).__name__, **to_data(message)})


def from_line(line: str, expected: Sequence[type[Message]]) -> Message:
    """Return the message in a line, which is of one of the ``expected`` classes.

    Raises
    ------
    MessageError
        If it is not.
    """
    try:
        data = json.loads(line)
        name = data.pop(_NAME)
        kind = next(kind for kind in expected if kind.__name__ == name)
    except (ValueError, StopIteration, KeyError, AttributeError, TypeError) as error:
        raise MessageError(f"no message that is expected here: {line[:200]!r}") from error
    return cast(Message, from_data(data, kind))


def to_data(value: Any) -> Any:
    """Return a dataclass, and all it holds, as JSON data."""
    if is_dataclass(value):
        return {field.name: to_data(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_data(item) for key, item in value.items()}
    return [to_data(item) for item in value] if isinstance(value, (list, tuple)) else value


def from_data(data: Any, kind: Any) -> Any:
    """Return what :func:`to_data` was given, a value of type ``kind``; a ``list`` is JSON data, and stays as it is.

    Raises
    ------
    MessageError
        If the data does not fit the type.
    """
    origin, of = get_origin(kind), get_args(kind)
    if kind is Any and isinstance(data, list):
        return tuple(from_data(item, Any) for item in data)
    if origin in (Union, types.UnionType):
        return _first_that_fits(data, of)
    if origin is tuple and isinstance(data, list) and (of[-1] is ... or len(of) == len(data)):
        return tuple(from_data(item, of[0] if of[-1] is ... else of[place]) for place, item in enumerate(data))
    if origin is Mapping and isinstance(data, dict):
        return {key: from_data(item, of[1]) for key, item in data.items()}
    if is_dataclass(kind) and isinstance(data, dict):
        return _object(data, kind)
    if _is_plain(data, kind) or (origin is list and isinstance(data, list)) or (origin is Literal and data in of):
        return data
    raise MessageError(f"{data!r:.200} is no {kind}")


def _first_that_fits(data: Any, kinds: Sequence[Any]) -> Any:
    for kind in kinds:
        try:
            return from_data(data, kind)
        except MessageError:
            continue
    raise MessageError(f"{data!r:.200} is none of {kinds}")


def _object(data: Mapping[str, Any], kind: Any) -> Any:
    hints = _hints(kind)
    try:
        return kind(**{name: from_data(value, hints[name]) for name, value in data.items()})
    except (TypeError, KeyError) as error:
        raise MessageError(f"{kind.__name__} has other fields: {error}") from error


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _is_plain(data: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(data, (int, float)) and not isinstance(data, bool)
    return kind is Any or (kind in (bool, int, str, type(None)) and type(data) is kind)
