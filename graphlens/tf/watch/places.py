"""Which Python function a ``tf.function`` is made of: whoever makes it again, of the same things, made the same one."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count, islice
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, NamedTuple

from graphlens.loaders.sources import is_framework

# How deep to look into what a function encloses: Keras' own step is made of three functions around ``train_step``.
_DEEPEST: Final = 6
_LISTED: Final = 8  # of a list of models or variables the first ones tell it apart
# What tells that an object holds variables, or is one; its type is asked, for an object may answer by running code.
_STATEFUL: Final = ("trainable_variables", "variables", "assign")


class Place(NamedTuple):
    """Where a function is written.

    Attributes
    ----------
    key
        The same for all that the user would call one function.
    name
        As it is written in Python.
    step
        The method that does its work, where a framework wraps one (``train_step``); else the name.
    source
        The line of its definition, ``file:line``; empty where it has none, or a framework wrote it.
    """

    key: Hashable
    name: str
    step: str
    source: str


class Numbers:
    """Numbers objects: each has one for as long as it lives, and none that another one had."""

    def __init__(self) -> None:
        self._next = count(1)
        self._known: dict[int, tuple[Callable[[], Any], int]] = {}

    def of(self, held: Any) -> int:
        """Return the number of an object."""
        known = self._known.get(id(held))  # what died gives its ``id`` to another one
        if known is not None and known[0]() is held:
            return known[1]
        number = next(self._next)
        with suppress(TypeError):  # where nobody can tell when it dies, it is another one each time
            self._known[id(held)] = weakref.ref(held), number
        return number


def place_of(function: Any, numbers: Numbers) -> Place:
    """Return where the function behind a ``tf.function`` is written; one that was loaded is nobody's but its own.

    Two closures of one line are two functions when they belong to two models, or enclose different functions: training
    and validation of Keras are such.  Nothing that a function is made of is called.
    """
    innermost, code = _unwrapped(function)
    if code is None or code.co_name == "restored_function_body":
        name = _name_of(function)
        return Place(("object", numbers.of(function)), name, name, "")
    parts = tuple(_parts(function, numbers, 0))
    steps = [part for part in parts if isinstance(part, str)]
    line, is_wrapped = f"{code.co_filename}:{code.co_firstlineno}", is_framework(code.co_filename)
    name = code.co_name if isinstance(innermost, FunctionType) else type(innermost).__name__
    step = steps[0] if is_wrapped and steps else name
    return Place((line, code.co_name, parts), name, step, "" if is_wrapped else line)


def _parts(held: Any, numbers: Numbers, depth: int) -> Iterator[Hashable]:
    """Yield the lines and the methods of what something encloses, and the number of each model behind them."""
    if isinstance(held, list | tuple):
        for one in islice(held, _LISTED):
            yield from _parts(one, numbers, depth + 1)
        return
    for owner in _owners(held):
        if _is_stateful(owner):
            yield numbers.of(owner)
    innermost, code = _unwrapped(held)
    if code is None:
        if depth and _is_stateful(held):
            yield numbers.of(held)
        return
    if isinstance(held, MethodType) and depth:
        yield code.co_name
    if depth:
        yield (code.co_filename, code.co_firstlineno)
    if depth < _DEEPEST and isinstance(innermost, FunctionType):
        for cell in innermost.__closure__ or ():
            yield from _parts(_content(cell), numbers, depth + 1)


def _owners(held: Any) -> Iterator[Any]:
    """Yield what the methods belong to that a function is made of, and the object that is itself called."""
    for wrapper in _layers(held):
        if isinstance(wrapper, MethodType):
            yield wrapper.__self__
    innermost = _layers(held)[-1]
    if innermost is not held and not isinstance(innermost, FunctionType):
        yield innermost


def _unwrapped(function: Any) -> tuple[Any, CodeType | None]:
    """Return the innermost function and its code; ``None`` for what is not written in Python."""
    innermost = _layers(function)[-1]
    if isinstance(innermost, FunctionType):
        return innermost, innermost.__code__
    if function is innermost:  # an object that is enclosed, or a function that TensorFlow loaded
        return innermost, None
    call = vars(type(innermost)).get("__call__")
    code = getattr(call, "__code__", None)
    return innermost, code if isinstance(code, CodeType) else None


def _layers(function: Any) -> Sequence[Any]:
    layers = [function]
    while len(layers) < 2 * _DEEPEST:
        inner = _inner(layers[-1])
        if inner is None or any(inner is one for one in layers):
            break
        layers.append(inner)
    return layers


def _inner(function: Any) -> Any:
    if isinstance(function, MethodType):
        return function.__func__
    if isinstance(function, partial):
        return function.func
    attributes = getattr(function, "__dict__", None)
    if not isinstance(attributes, dict):
        return None
    found = attributes.get("_python_function") or attributes.get("__wrapped__")
    return found if callable(found) else None


def _is_stateful(held: Any) -> bool:
    return any(hasattr(type(held), name) for name in _STATEFUL)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put there yet
        return None


def _name_of(function: Any) -> str:
    name = getattr(function, "name", None) or type(function).__name__
    return name.decode() if isinstance(name, bytes) else str(name)
