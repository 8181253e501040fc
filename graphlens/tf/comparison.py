"""Compare the outputs of a changed program with the original's, at a tolerance per type, or one that the user gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from graphlens.children.messages import Difference
from graphlens.errors import ExecutionError

# Allowed difference relative to the largest value of the output.  Rounding differs even where the arithmetic is the
# same, because the runtime picks other kernels for other neighbours: fixes that change no arithmetic get no tighter
# tolerance.  What is not listed (integers, booleans, strings) has to be equal.
TOLERANCES: Final[Mapping[str, float]] = {
    "float64": 1e-12,
    "complex128": 1e-12,
    "float32": 1e-5,
    "complex64": 1e-5,
    "float16": 1e-2,
    "bfloat16": 1e-2,
}

# Handles of something that only TensorFlow can look into: a dataset, a tensor list, a table.
INCOMPARABLE: Final = frozenset({"variant", "resource"})

Outputs = Mapping[str, Any]  # name -> tensor


@dataclass(frozen=True, slots=True)
class Allowed:
    """What differences are allowed: by the type that a fix computes in, or ``rtol`` where the user says so."""

    computes_in: str | None = None
    rtol: float | None = None

    def of(self, dtype: str) -> float:
        """Return the tolerance for an output of type ``dtype``.

        >>> Allowed().of("float64"), Allowed("float32").of("float64"), Allowed("float32").of("int64")
        (1e-12, 1e-05, 0.0)
        >>> Allowed("float32", rtol=1e-3).of("float64"), Allowed(rtol=1e-3).of("int64")
        (0.001, 0.0)
        """
        own = TOLERANCES.get(dtype, 0.0)
        if own and self.rtol is not None:
            return self.rtol
        return max(own, TOLERANCES.get(self.computes_in or "", 0.0)) if own else 0.0


BY_TYPE: Final = Allowed()


def compare(before: Outputs, after: Outputs, allowed: Allowed = BY_TYPE) -> list[Difference]:
    """Return one difference per output: the largest one beside its tolerance, or why the two cannot be compared.

    Raises
    ------
    ExecutionError
        If an output is of a type without values.
    """
    found = [_compared(name, before[name], after.get(name), allowed) for name in before]
    added = after.keys() - before
    return found + [_difference(name, after[name], allowed, "the original has no such output") for name in added]


def worst(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    """Return the largest difference of every output."""
    chosen: dict[str, Difference] = {}
    for one in differences:
        known = chosen.get(one.output)
        if known is None or _badness(one) > _badness(known):
            chosen[one.output] = one
    return tuple(chosen.values())


def _badness(one: Difference) -> float:
    return float("inf") if one.max_rel is None else one.max_rel


def _difference(name: str, tensor: Any, allowed: Allowed, mismatch: str | None = None) -> Difference:
    dtype = tensor.dtype.name
    return Difference(name, dtype, allowed.of(dtype), mismatch=mismatch)


def _compared(name: str, before: Any, after: Any, allowed: Allowed) -> Difference:
    if before.dtype.name in INCOMPARABLE:
        raise ExecutionError(f"output '{name}' is a {before.dtype.name}, which holds no values that could be compared")
    if after is None:
        return _difference(name, before, allowed, "it is missing")
    if after.dtype != before.dtype:
        return _difference(name, before, allowed, f"its type became {after.dtype.name}")
    if after.shape != before.shape:
        return _difference(name, before, allowed, f"its shape {tuple(before.shape)} became {tuple(after.shape)}")
    equal = _difference(name, before, allowed)
    first, second = _array(before), _array(after)
    return _numeric(equal, first, second) if equal.tolerance else _exact(equal, first, second)


def _array(tensor: Any) -> np.ndarray:
    array = np.asarray(tensor.numpy())
    # NumPy computes with neither of the short types: bfloat16 is a stranger to it, float16 overflows.
    return array.astype(np.float32) if tensor.dtype.name in {"bfloat16", "float16"} else array


def _numeric(equal: Difference, first: np.ndarray, second: np.ndarray) -> Difference:
    finite = np.isfinite(first)
    if not np.array_equal(first[~finite], second[~finite], equal_nan=True):
        return replace(equal, mismatch="NaN or infinity stand in other places")
    if not np.all(np.isfinite(second[finite])):
        return replace(equal, mismatch="NaN or infinity stand where there were numbers")
    largest = float(np.max(np.abs(second[finite] - first[finite]), initial=0.0))
    scale = float(np.max(np.abs(first[finite]), initial=0.0))
    if largest and not scale:
        return replace(equal, max_abs=largest, mismatch="the original gives nothing but zeros")
    return replace(equal, max_abs=largest, max_rel=largest / scale if largest else 0.0)


def _exact(equal: Difference, first: np.ndarray, second: np.ndarray) -> Difference:
    different = int(np.count_nonzero(first != second))
    if not different:
        return replace(equal, max_abs=0.0, max_rel=0.0)
    return replace(equal, mismatch=f"{different} of {first.size} values are not equal")
