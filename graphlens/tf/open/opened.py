"""An opened target: a function with named inputs that can be traced and called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from graphlens.tf import private
from graphlens.tf.open.inputs import NO_EXAMPLES, Examples, InputSpec

# What TensorFlow raises when a file parses but is not a model that it can build or restore.
LOAD_FAILURES = (
    tf.errors.OpError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OSError,
    ImportError,
    RuntimeError,
)


@dataclass(frozen=True)
class Traced:
    """A function traced for certain shapes; ``call`` takes the inputs' tensors, flat, in the order of the specs."""

    concrete: Any
    call: Callable[[Sequence[Any]], Any]


@dataclass(frozen=True)
class Opened:
    """A target ready to be traced.

    ``examples`` are values that came with the target; ``owner`` keeps alive what the function captures only weakly.
    """

    kind: str
    specs: tuple[InputSpec, ...]
    trace: Callable[[Sequence[InputSpec]], Traced]
    signature: str | None = None
    training: bool | None = None
    examples: Examples = NO_EXAMPLES
    notes: tuple[str, ...] = ()
    owner: Any = None


def from_concrete(function: Any, kind: str, **rest: Any) -> Opened:
    """Open a ``ConcreteFunction``: its structured signature names the inputs."""
    structure = function.structured_input_signature
    if structure is None:
        return from_placeholders(function, kind, **rest)
    names = [tensor.op.name for tensor in private.arguments(function)]
    specs = _named_specs(structure, names)

    def call(tensors: Sequence[Any]) -> Any:
        args, kwargs = fill(structure, tensors)
        return function(*args, **kwargs)

    return Opened(kind, specs, lambda _: Traced(function, call), **rest)


def from_placeholders(function: Any, kind: str, **rest: Any) -> Opened:
    """Open a function that takes its placeholders one by one, as pruned graphs do."""
    specs = tuple(
        InputSpec(tensor.op.name, tensor.dtype.name, dims(tensor.shape), tensor.op.name)
        for tensor in private.arguments(function)
    )
    return Opened(kind, specs, lambda _: Traced(function, lambda tensors: function(*tensors)), **rest)


def is_array(leaf: Any) -> bool:
    """Whether a leaf of an argument structure is a tensor to feed (anything else is a Python value, kept as it is)."""
    import numpy as np

    return isinstance(leaf, (tf.TensorSpec, tf.Tensor, np.ndarray, np.generic))


def tensors_in(structure: Any) -> list[Any]:
    """Return the tensors to feed, and specifications of such; of ragged ones their values and their row splits."""
    return [part for leaf in tf.nest.flatten(structure) for part in _parts(leaf)]


def _parts(leaf: Any) -> list[Any]:
    if _is_ragged(leaf):
        return list(tf.nest.flatten(leaf, expand_composites=True))
    return [leaf] if is_array(leaf) else []


def _is_ragged(leaf: Any) -> bool:
    return isinstance(leaf, (tf.RaggedTensor, tf.RaggedTensorSpec))


def fill(structure: Any, tensors: Sequence[Any]) -> Any:
    """Return ``structure`` with its tensor leaves replaced by ``tensors``, in order.

    Where specifications are put in the place of tensors, that of a ragged tensor stays as open as it was.
    """
    replacements = iter(tensors)
    leaves = [_filled(leaf, [next(replacements) for _ in _parts(leaf)]) for leaf in tf.nest.flatten(structure)]
    return tf.nest.pack_sequence_as(structure, leaves)


def _filled(leaf: Any, parts: Sequence[Any]) -> Any:
    if not _is_ragged(leaf):
        return parts[0] if parts else leaf
    if isinstance(parts[0], tf.TensorSpec):
        return leaf if isinstance(leaf, tf.RaggedTensorSpec) else tf.RaggedTensorSpec.from_value(leaf)
    values, *splits = parts
    return tf.RaggedTensor.from_nested_row_splits(values, splits, validate=False)


def _named_specs(structure: tuple[Any, Mapping[str, Any]], placeholders: Sequence[str]) -> tuple[InputSpec, ...]:
    args, kwargs = structure
    named = [(leaf.name or f"argument_{index}", leaf) for index, leaf in enumerate(tensors_in(args))]
    for key in sorted(kwargs):
        leaves = tensors_in(kwargs[key])
        named += [(key if len(leaves) == 1 else f"{key}/{index}", leaf) for index, leaf in enumerate(leaves)]
    padded = [*placeholders, *[""] * (len(named) - len(placeholders))]
    return tuple(
        InputSpec(name, leaf.dtype.name, dims(leaf.shape), placeholder)
        for (name, leaf), placeholder in zip(named, padded, strict=False)
    )


def dims(shape: Any) -> tuple[int | None, ...] | None:
    """Return a ``TensorShape`` as a tuple, ``None`` when the rank is unknown."""
    shape = tf.TensorShape(shape)
    return None if shape.rank is None else tuple(shape.as_list())
