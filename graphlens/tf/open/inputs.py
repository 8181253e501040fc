"""Make the inputs of a step: their shapes from what the user said, their values from what the graph does with them.

Deterministic, and free of TensorFlow except where an image or a serialized example has to be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from graphlens.errors import UsageError
from graphlens.ir.capture import CapturedInput
from graphlens.tf.open import consumers

SEED = 0
# Ids for an integer input that indexes nothing we can see: small, so that they fit any table a model would have.
UNBOUND_ID_LIMIT = 2
PIXEL_LIMIT = 256  # a uint8 that indexes nothing is a pixel
IMAGE_SIDE = 224  # pixels of a made image file: the size most image models resize to
SPARSE_VALUES = 1  # values of a made sparse feature: one is what a single-valued feature holds

Origin = Literal["given", "made", "example"]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input of the function: its name for the user, its placeholder in the graph, dtype, and shape if known."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    placeholder: str = ""


@dataclass(frozen=True, slots=True)
class Input:
    """An input as it is fed, and where its value comes from."""

    spec: InputSpec
    value: Any
    origin: Origin

    def captured(self) -> CapturedInput:
        """Return what the capture says about this input."""
        return CapturedInput(self.spec.name, self.spec.dtype, np.shape(self.value), self.origin)


def resolve(
    specs: Sequence[InputSpec],
    shapes: Mapping[str, tuple[int, ...]],
    batch: int | None,
    arrays: Mapping[str, Any],
) -> tuple[InputSpec, ...]:
    """Give every input a full shape, from ``--inputs``, ``--shape``, ``--batch`` or its own specification.

    Raises
    ------
    UsageError
        If a name given fits no input, or a shape cannot be told; the message names the input and the flag.
    """
    _refuse_unknown_names(specs, shapes, "--shape")
    _refuse_unknown_names(specs, arrays, "--inputs")
    return tuple(replace(spec, shape=_shape(spec, shapes, batch, arrays)) for spec in specs)


def _refuse_unknown_names(specs: Sequence[InputSpec], given: Mapping[str, object], flag: str) -> None:
    known = [spec.name for spec in specs]
    unknown = [name for name in given if name not in known]
    if unknown:
        has = ", ".join(known) if known else "none"
        raise UsageError(f"{flag} names the input '{unknown[0]}', which the model does not have; its inputs: {has}")


def _shape(
    spec: InputSpec, shapes: Mapping[str, tuple[int, ...]], batch: int | None, arrays: Mapping[str, Any]
) -> tuple[int, ...]:
    if spec.name in arrays:
        return _fitting(spec, tuple(np.shape(arrays[spec.name])), "--inputs")
    if spec.name in shapes:
        return _fitting(spec, shapes[spec.name], "--shape")
    if spec.shape is None:
        raise UsageError(f"input '{spec.name}' has no shape in the model: give one with --shape {spec.name}=1,…")
    if None in spec.shape[1:]:
        sizes = [batch or 1 if spec.shape[0] is None else spec.shape[0], *spec.shape[1:]]
        wanted = ",".join("?" if size is None else str(size) for size in sizes)
        raise UsageError(
            f"input '{spec.name}' has sizes that the model leaves open ({wanted}): "
            f"give them with --shape {spec.name}={wanted}, every ? a number"
        )
    return tuple((batch or 1) if size is None else size for size in spec.shape)


def _fitting(spec: InputSpec, shape: tuple[int, ...], flag: str) -> tuple[int, ...]:
    wanted = spec.shape
    fits = wanted is None or (
        len(wanted) == len(shape) and all(want in (None, size) for want, size in zip(wanted, shape, strict=True))
    )
    if not fits:
        said = ",".join("?" if size is None else str(size) for size in wanted or ())
        given = ",".join(map(str, shape))
        raise UsageError(f"{flag} gives '{spec.name}' the shape ({given}), but the model wants ({said})")
    return shape


def make(
    specs: Sequence[InputSpec],
    arrays: Mapping[str, Any],
    graph: consumers.Graph,
    examples: Mapping[str, Any] | None = None,
    seed: int = SEED,
) -> tuple[Input, ...]:
    """Give every resolved input a value: the user's array, the target's own example, or one the graph can digest."""
    random = np.random.default_rng(seed)
    return tuple(_input(spec, arrays, examples or {}, graph, random) for spec in specs)


def _input(
    spec: InputSpec,
    arrays: Mapping[str, Any],
    examples: Mapping[str, Any],
    graph: consumers.Graph,
    random: np.random.Generator,
) -> Input:
    if spec.name in arrays:
        return Input(spec, _given(spec, arrays[spec.name]), "given")
    if spec.name in examples and tuple(np.shape(examples[spec.name])) == spec.shape:
        return Input(spec, examples[spec.name], "example")
    return Input(spec, _made(spec, graph, random), "made")


def _given(spec: InputSpec, array: Any) -> Any:
    if spec.dtype == "string":
        return np.asarray(array, dtype=object)
    if spec.dtype == "bfloat16":
        return np.asarray(array)
    given = np.asarray(array)
    if not np.can_cast(given.dtype, spec.dtype, casting="same_kind"):
        raise UsageError(f"--inputs gives '{spec.name}' as {given.dtype}, but the model wants {spec.dtype}")
    return given.astype(spec.dtype)


def _made(spec: InputSpec, graph: consumers.Graph, random: np.random.Generator) -> Any:
    shape = tuple(size or 0 for size in spec.shape or ())
    if spec.dtype == "string":
        return _strings(spec, shape, graph, random)
    if spec.dtype == "bool":
        # A mask lets everything through; a scalar is a switch such as `training`, which is off.
        return np.full(shape, bool(shape))
    if spec.dtype in {"bfloat16", "half"} or spec.dtype.startswith("float"):
        return random.random(shape, np.float32).astype("float32" if spec.dtype == "bfloat16" else spec.dtype)
    if spec.dtype.startswith("complex"):
        return (random.random(shape) + 1j * random.random(shape)).astype(spec.dtype)
    if spec.dtype.startswith(("int", "uint")):
        unbound = PIXEL_LIMIT if spec.dtype == "uint8" else UNBOUND_ID_LIMIT
        limit = consumers.id_limit(graph, spec.placeholder) or unbound
        return random.integers(0, min(limit, int(np.iinfo(spec.dtype).max) + 1), shape).astype(spec.dtype)
    raise UsageError(
        f"input '{spec.name}' is of type {spec.dtype}, which cannot be made up: wrap the model in a callable "
        "that takes plain tensors (module:callable)"
    )


def _strings(
    spec: InputSpec, shape: tuple[int, ...], graph: consumers.Graph, random: np.random.Generator
) -> np.ndarray:
    values = np.empty(shape, dtype=object)
    features = consumers.example_features(graph, spec.placeholder)
    for index in np.ndindex(shape):
        values[index] = _string(spec, features, graph, random)
    return values


def _string(
    spec: InputSpec,
    features: Sequence[consumers.Feature],
    graph: consumers.Graph,
    random: np.random.Generator,
) -> bytes:
    if features:
        return serialized_example(features, random)
    if consumers.is_image_file(graph, spec.placeholder):
        return _image_file(random)
    return b"1" if consumers.is_number_text(graph, spec.placeholder) else b"graphlens"


def serialized_example(features: Sequence[consumers.Feature], random: np.random.Generator) -> bytes:
    """Write a ``tf.train.Example`` that holds the given features."""
    import tensorflow as tf

    example = tf.train.Example()
    for feature in features:
        count = SPARSE_VALUES if feature.shape is None else int(np.prod(feature.shape))
        target = example.features.feature[feature.key]
        if feature.dtype == "float32":
            target.float_list.value.extend(random.random(count).tolist())
        elif feature.dtype == "int64":
            target.int64_list.value.extend(random.integers(0, UNBOUND_ID_LIMIT, count).tolist())
        else:
            target.bytes_list.value.extend([b"graphlens"] * count)
    return bytes(example.SerializeToString())


def _image_file(random: np.random.Generator) -> bytes:
    import tensorflow as tf

    pixels = random.integers(0, 256, (IMAGE_SIDE, IMAGE_SIDE, 3)).astype("uint8")
    return bytes(tf.io.encode_jpeg(pixels).numpy())
