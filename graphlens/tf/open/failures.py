"""What it means that TensorFlow or Keras does not take a model, and what to do: one line each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, TypeVar

import tensorflow as tf

from graphlens.errors import ExecutionError, UsageError, ends, first_line
from graphlens.ir import foreign_ops
from graphlens.ir.stablehlo import unreadable
from graphlens.tf import private
from graphlens.tf.open.opened import LOAD_FAILURES

Loaded = TypeVar("Loaded")

_NOT_REGISTERED: Final = "Op type not registered"
_ARTIFACT: Final = re.compile(r"produced by: StableHLO_v([\d.]+)(?s:.*)using StableHLO_v([\d.]+)")
_NEWER_OP: Final = re.compile(r"unregistered operation '([\w.]+)'")


def with_registered_ops(
    load: Callable[[], Loaded], types: Callable[[], Iterable[str]]
) -> tuple[Loaded, tuple[str, ...]]:
    """Return what ``load`` returns, and notes; packages that register ops which it wants are imported if need be.

    Parameters
    ----------
    types
        Returns the types of all ops that are loaded, those of functions included; asked when loading fails.

    Raises
    ------
    ExecutionError
        If ops are of types that nobody registers; the message names them all.
    """
    try:
        return load(), ()
    except LOAD_FAILURES as error:
        if _NOT_REGISTERED not in str(error):
            raise
        missing = sorted(kind for kind in set(types()) if not private.is_registered(kind))
        imported = _imported(missing, error)
    loaded = load()
    return loaded, (f"imported for the ops that the model needs: {', '.join(imported)}",)


def _imported(missing: list[str], error: Exception) -> list[str]:
    """Import the packages that register ops of these types; returns their names."""
    packages = [one for one in foreign_ops.packages_of(missing) if find_spec(one.module.partition(".")[0])]
    for package in packages:
        try:
            import_module(package.module)
        except Exception as failure:  # of a library of another TensorFlow: undefined symbols, and what follows them
            raise ExecutionError(
                f"{package.name}, which registers {foreign_ops.listed(missing)}, cannot be imported: "
                f"{first_line(failure)}"
            ) from error
    rest = [kind for kind in missing if not private.is_registered(kind)]
    if rest or not packages:
        raise ExecutionError(
            f"no package that was imported registers the types of its ops: {foreign_ops.listed(rest)}; "
            f"{foreign_ops.how_to_register(rest)}"
        ) from error
    return [package.name for package in packages]


def import_named(modules: Iterable[str]) -> None:
    """Import what the user named, which registers ops or Keras classes.

    Raises
    ------
    UsageError
        If one is not there, or fails.
    """
    for name in modules:
        try:
            import_module(name)
        except Exception as error:  # the user's code may fail in any way
            raise UsageError(f"--import {name}: {type(error).__name__}: {first_line(error)}") from error


def types_in(graph_def: Any) -> set[str]:
    """Return the types of all ops of a ``GraphDef``, those that are calls of its own functions left out."""
    functions = {function.signature.name for function in graph_def.library.function}
    nodes = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    return {node.op for node in nodes} - functions


# -- a step that fails ---------------------------------------------------------------------------------------------


def of_first_step(error: Exception) -> str:
    """Say why the first step failed, and what to do."""
    artifact = _ARTIFACT.search(str(error))
    if artifact:
        ops = ", ".join(dict.fromkeys(name.removeprefix("vhlo.") for name in _NEWER_OP.findall(str(error))))
        program = unreadable(artifact[1], "this TensorFlow", artifact[2], ops)
        return f"its StableHLO program was {program} ({ends(error)})"
    return f"{ends(error)}; {_advice(error)}"


def _advice(error: Exception) -> str:
    if isinstance(error, tf.errors.ResourceExhaustedError) or "MemoryError" in str(error):
        return "it needs more memory than this machine gives it; try a smaller --batch"
    if "No OpKernel" in str(error) or isinstance(error, tf.errors.UnimplementedError):
        return "this TensorFlow build cannot run it; use the version or device that the model was made for"
    if "pyfunc" in str(error):
        return "it calls back into the Python program that saved it; give that program's function as module:callable"
    if "ninitialized" in str(error) or isinstance(error, tf.errors.FailedPreconditionError):
        return "its variables or tables have no values in this file; give the SavedModel or a frozen graph"
    return "if its inputs are at fault, give real ones with --inputs FILE.npz"
