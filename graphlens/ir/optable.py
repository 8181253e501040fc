"""What TensorFlow's registry says of each op: arguments, defaults and state, shipped as data; unknown ops are fine."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from graphlens.ir.nodes import ARGUMENT

# An op whose attribute asks for more tensors than this is corrupt (TensorFlow itself has no such op).
ARGUMENT_LIMIT = 65_536
_TABLE = Path(__file__).parent.parent / "data" / "op-arguments.json.gz"


class Argument(NamedTuple):
    """One input or output argument, as ``fixtures/make_op_table.py`` writes it.

    ``repeat`` names the attribute that holds the number of its tensors; ``is_ref`` marks references (TensorFlow 1).
    """

    name: str
    type: str
    repeat: str | None
    is_ref: bool = False


class OpInfo(NamedTuple):
    """The outputs and inputs of an op type in order, and its attributes' defaults.

    ``is_stateful`` is TensorFlow's own word: the op reads or changes something besides its tensors, so it is neither
    folded nor shared with another.  ``calls`` tells whether an attribute of it names a function.
    """

    outputs: tuple[Argument, ...]
    defaults: Mapping[str, Any]
    inputs: tuple[Argument, ...] = ()
    is_stateful: bool = False
    calls: bool = False


@lru_cache(maxsize=1)
def table() -> Mapping[str, OpInfo]:
    """Return what is known of every op type of TensorFlow."""
    known = {name: info for name in _told()["ops"] if (info := info_of(name)) is not None}
    # Without this, every argument of a function would get the registry's `index` default.
    known[ARGUMENT] = OpInfo((Argument("output", "T", None),), {}, is_stateful=True)
    return known


@lru_cache(maxsize=4096)
def info_of(op: str) -> OpInfo | None:
    """Return what the registry says of one op type: who asks for a few has not to wait for all."""
    told = _told()
    if op not in told["ops"]:
        return None
    outputs, defaults, inputs = told["ops"][op]
    is_stateful, calls = op in told["stateful"], op in told["calls"]
    return OpInfo(_arguments(outputs), _frozen(defaults), _arguments(inputs), is_stateful, calls)


@lru_cache(maxsize=1)
def _told() -> dict[str, Any]:
    told = json.loads(gzip.decompress(_TABLE.read_bytes()))
    return {"ops": told["ops"], "stateful": frozenset(told["stateful"]), "calls": frozenset(told["calls"])}


def _arguments(listed: list[list[Any]]) -> tuple[Argument, ...]:
    return tuple(Argument(*arg) for arg in listed)


def _frozen(defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in defaults.items()}


def dtypes_of(arguments: Sequence[Argument], attrs: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]] | None:
    """Return ``(argument name, dtypes of its tensors)`` in order; ``None`` where the attributes do not say how many."""
    result = []
    for arg in arguments:
        dtypes = _dtypes(arg, attrs)
        if dtypes is None:
            return None
        result.append((arg.name, dtypes))
    return result


def _dtypes(arg: Argument, attrs: Mapping[str, Any]) -> tuple[str, ...] | None:
    if arg.type.startswith("*"):
        listed = attrs.get(arg.type[1:])
        return tuple(map(str, listed)) if isinstance(listed, tuple) else None
    dtype = arg.type[1:] if arg.type.startswith("=") else attrs.get(arg.type)
    count = attrs.get(arg.repeat) if arg.repeat else 1
    if not isinstance(count, int) or not 0 <= count <= ARGUMENT_LIMIT:
        return None
    return (dtype if isinstance(dtype, str) else "unknown",) * count
