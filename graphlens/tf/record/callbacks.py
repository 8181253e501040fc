"""The Python functions that a graph calls back, named while the process that made them still has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from types import FunctionType
from typing import Any, Final

from graphlens.ir.nodes import PythonFunction
from graphlens.ir.ops import PYTHON
from graphlens.loaders.sources import is_framework
from graphlens.tf import private

_DEEPEST: Final = 12  # wrappers around one function: those of TensorFlow are at most four


def python_functions(graph_def: Any) -> Mapping[str, PythonFunction]:
    """Return token -> function of what the ops of a graph call back; nothing is called."""
    found = {token: private.called_back(token) for token in _tokens(graph_def)}
    return {token: described(function) for token, function in found.items() if function is not None}


def described(function: Any) -> PythonFunction:
    """Return how a function is named, and where it is written if that is in no framework.

    >>> described(len)
    PythonFunction(name='len', source='')
    """
    innermost = _innermost(function)
    name = getattr(innermost, "__qualname__", None) or type(innermost).__qualname__
    code = innermost.__code__ if isinstance(innermost, FunctionType) else _code_of_call(innermost)
    if code is None or is_framework(code.co_filename):
        return PythonFunction(_as_written(name))
    return PythonFunction(_as_written(name), f"{code.co_filename}:{code.co_firstlineno}")


def _tokens(graph_def: Any) -> Iterator[str]:
    for nodes in (graph_def.node, *(function.node_def for function in graph_def.library.function)):
        for node in nodes:
            if node.op in PYTHON:
                yield node.attr["token"].s.decode("utf-8", "replace")


def _innermost(function: Any) -> Any:
    for _ in range(_DEEPEST):
        inner = _within(function)
        if inner is None:
            break
        function = inner
    return function


def _within(function: Any) -> Any:
    """Return what a wrapper is around: TensorFlow's object for eager functions, a method, a partial, a decorator."""
    if isinstance(function, partial):
        return function.func
    held = getattr(function, "__dict__", {})
    inner = held.get("__wrapped__") or held.get("_func") or getattr(function, "__func__", None)
    if inner is None and _is_of_autograph(function):
        inner = next((cell.cell_contents for cell in function.__closure__ or ()), None)
    return inner if callable(inner) else None


def _is_of_autograph(function: Any) -> bool:
    """Whether this is how TensorFlow has a function left as it is, which it encloses and names nowhere."""
    return isinstance(function, FunctionType) and function.__qualname__ == "do_not_convert.<locals>.wrapper"


def _code_of_call(called: Any) -> Any:
    """Return the code of an object that can be called, ``None`` where that is not written in Python."""
    return getattr(vars(type(called)).get("__call__"), "__code__", None)


def _as_written(name: str) -> str:
    """Return the name without the places that autograph puts it in.

    >>> _as_written("outer_factory.<locals>.inner_factory.<locals>.tf__step.<locals>.<lambda>")
    'step.<locals>.<lambda>'
    """
    return name.rpartition("inner_factory.<locals>.tf__")[2]
