"""Open the inference of a Keras model, live or in a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from graphlens.errors import ExecutionError, TargetError, UsageError
from graphlens.tf import private
from graphlens.tf.open import keras_files
from graphlens.tf.open.inputs import InputSpec
from graphlens.tf.open.opened import LOAD_FAILURES, Opened, Traced

# The first Keras whose safe mode holds for all that it reads: before it, .keras and .h5 files could run code anyway.
RELIABLE_SAFE_MODE = (3, 11, 3)


def open_keras_file(path: Path, trust: bool) -> Opened:
    """Open a file; code in it runs only with ``trust``."""
    import keras

    if not trust and _version(keras.__version__) < RELIABLE_SAFE_MODE:
        wanted = ".".join(map(str, RELIABLE_SAFE_MODE))
        raise ExecutionError(
            f"not executed: Keras {keras.__version__} may run code hidden in {path} although it is told not to; "
            f"update it (pip install 'keras>={wanted}'), or pass --trust to execute it anyway"
        )
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=not trust)
    except LOAD_FAILURES as error:
        unsafe = "safe_mode" in str(error) and not trust
        written = keras_files.written_by(path)
        code = "it holds Python code, a Lambda layer for instance; --trust runs it"
        why = code if unsafe else keras_files.why(error, written)
        raise TargetError(f"{keras_files.who_cannot(keras.__version__, path, written)}: {why}") from error
    return from_keras(model, kind="keras")


def _version(text: str) -> tuple[int, ...]:
    """Read a version's leading numbers.

    >>> _version("3.11.3"), _version("3.12.0rc1")
    ((3, 11, 3), (3, 12, 0))
    """
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def from_keras(model: Any, kind: str) -> Opened:
    """Open the inference of a Keras model."""
    structure = private.keras_inputs(model)
    specs, notes = (_symbolic_specs(structure), ()) if structure is not None else _built_specs(model)

    def trace(resolved: Sequence[InputSpec]) -> Traced:
        def inference(*tensors: Any) -> Any:
            packed = tf.nest.pack_sequence_as(structure, tensors) if structure is not None else tensors[0]
            return model(_unwrapped(packed), training=False)

        signature = [tf.TensorSpec(spec.shape, spec.dtype, name=_identifier(spec.name)) for spec in resolved]
        concrete = tf.function(inference, autograph=False).get_concrete_function(*signature)
        return Traced(concrete, lambda tensors: concrete(*tensors))

    return Opened(kind, specs, trace, training=False, notes=notes, owner=model)


def _unwrapped(inputs: Any) -> Any:
    return inputs[0] if isinstance(inputs, (list, tuple)) and len(inputs) == 1 else inputs


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _symbolic_specs(structure: Any) -> tuple[InputSpec, ...]:
    leaves = tf.nest.flatten(structure)
    return tuple(
        InputSpec(leaf.name, tf.as_dtype(leaf.dtype).name, tuple(leaf.shape), _identifier(leaf.name)) for leaf in leaves
    )


def _built_specs(model: Any) -> tuple[tuple[InputSpec, ...], tuple[str, ...]]:
    """Return the input of a subclassed model from what it was built with."""
    shape = (model.get_build_config() or {}).get("input_shape")
    if not isinstance(shape, (list, tuple)) or not all(isinstance(size, (int, type(None))) for size in shape):
        raise UsageError(
            f"the Keras model '{model.name}' does not say its inputs: "
            "point at a module:callable that returns (model, example_args)"
        )
    dtype = tf.as_dtype(model.compute_dtype).name
    note = f"The Keras model '{model.name}' says its input's shape but not its type: {dtype} was assumed."
    return (InputSpec("inputs", dtype, tuple(shape), "inputs"),), (note,)
