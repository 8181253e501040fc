"""Hand the outputs of a program from one trial process to another, each with the inputs that they belong to.

The file is an ``.npz`` of bytes: first, as JSON, a list of ``{"inputs": digest, "outputs": [[name, type], …]}``, then
each of these outputs as TensorFlow serializes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf

from graphlens.errors import ExecutionError

STEPS: Final = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def digest(tensors: Sequence[Any]) -> str:
    """Return what two lists of tensors have in common only if they are equal, bit by bit."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype.name} {tuple(tensor.shape)} ".encode())
        found.update(tf.io.serialize_tensor(tensor).numpy())
    return found.hexdigest()


def write(path: Path, observed: Sequence[tuple[Sequence[Any], Mapping[str, Any]]]) -> None:
    """Write the outputs, by name, for each list of inputs; any type of tensor, strings and bfloat16 included."""
    index = [
        {"inputs": digest(inputs), "outputs": [[name, tensor.dtype.name] for name, tensor in outputs.items()]}
        for inputs, outputs in observed
    ]
    _save(path, index, [tensor for _, outputs in observed for tensor in outputs.values()])


def _save(path: Path, index: Sequence[Any], tensors: Sequence[Any]) -> None:
    parts = [json.dumps(index).encode(), *(tf.io.serialize_tensor(tensor).numpy() for tensor in tensors)]
    np.savez(path, *(np.frombuffer(part, np.uint8) for part in parts))


def _open(path: Path) -> tuple[list[Any], Iterator[Any]]:
    with np.load(path, allow_pickle=False) as archive:
        index, *parts = (archive[f"arr_{number}"].tobytes() for number in range(len(archive.files)))
    return json.loads(index), iter(parts)


def read(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return the outputs in a file by the digest of their inputs."""
    index, serialized = _open(path)
    return {
        row["inputs"]: {
            name: tf.io.parse_tensor(next(serialized), tf.as_dtype(dtype)) for name, dtype in row["outputs"]
        }
        for row in index
    }


def write_values(path: Path, values: Mapping[str, Any]) -> None:
    """Write tensors by name."""
    _save(path, [[name, tensor.dtype.name] for name, tensor in values.items()], list(values.values()))


def read_values(path: Path) -> Mapping[str, Any]:
    """Return the tensors in such a file by name."""
    index, serialized = _open(path)
    return {name: tf.io.parse_tensor(next(serialized), tf.as_dtype(dtype)) for name, dtype in index}


def assign_nudged(path: Path, variables: Mapping[str, Any]) -> None:
    """Give variables the values that a file has for their names, those with a fraction off by their last bit.

    What comes out of that differently is not determined by the program to begin with: a rewritten one that rounds
    otherwise somewhere is off by as much (N. Higham, *Accuracy and Stability of Numerical Algorithms*, 1.5).

    Raises
    ------
    ExecutionError
        If the two are not of the same program.
    """
    values = read_values(path)
    if {name: (one.shape, one.dtype) for name, one in values.items()} != {
        name: (one.shape, one.dtype) for name, one in variables.items()
    }:
        raise ExecutionError("the target has other variables in the second process, so its outputs cannot be compared")
    for name, variable in variables.items():
        variable.assign(nudged(values[name]))


def nudged(tensor: Any) -> Any:
    """Return numbers with a fraction times 1 plus or minus the distance from 1 to the next one of their type."""
    step = STEPS.get(tensor.dtype.name)
    if step is None:
        return tensor
    up = np.random.default_rng(0).random(tensor.shape) < 0.5
    return tensor * tf.cast(np.where(up, 1 + step, 1 - step), tensor.dtype)


def outputs_on(tensors: Sequence[Any], known: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the outputs that belong to the inputs ``tensors``.

    Raises
    ------
    ExecutionError
        If the other process had other inputs: outputs on those say nothing.
    """
    found = known.get(digest(tensors))
    if found is None:
        raise ExecutionError("the target made other inputs in the second process, so its outputs cannot be compared")
    return found
