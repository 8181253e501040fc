"""Make the inputs of a step: their shapes from what the user said, their values from what the graph does with them.

Deterministic, and free of TensorFlow except where an image or a serialized example has to be written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from graphlens.errors import UsageError
from graphlens.ir.capture import CapturedInput
from graphlens.ir.inputs import MADE_UP, InputOrigin
from graphlens.tf.open import consumers, sizes
from graphlens.tf.open.following import Graph

SEED = 0
# What an integer gets that decides how often a loop runs or how large a tensor is: with 0 nothing would happen, and
# more may be beyond what the other inputs hold.
DECIDING = 1
# Ids for an integer input that indexes nothing we can see: small, so that they fit any table a model would have.
UNBOUND_ID_LIMIT = 2
PIXEL_LIMIT = 256  # a uint8 that indexes nothing is a pixel
IMAGE_SIDE = 224  # pixels of a made image: the size most image models resize to
SPARSE_VALUES = 1  # values of a made sparse feature: one is what a single-valued feature holds


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input of the function.

    Attributes
    ----------
    name, placeholder
        What the user calls it, and the graph.
    dtype, shape
        Its type, and its sizes where known.
    guessed
        What of the shape was guessed, in words; empty where nothing was.
    splits_of, innermost
        The input whose values it splits into the rows of a ragged tensor, if it does, and whether it is the one that
        counts values: an outer one counts rows.
    same_as
        The input that is the same tensor by another name, if there is one: it is fed once.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    placeholder: str = ""
    guessed: str = ""
    splits_of: str = ""
    innermost: bool = True
    same_as: str = ""


@dataclass(frozen=True, slots=True)
class Examples:
    """Values that came with the target, by the names of its inputs, and where in it they stand, in words.

    ``repeats`` says that their rows are independent of each other: a batch may be filled by repeating them.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    repeats: bool = False


NO_EXAMPLES = Examples()


@dataclass(frozen=True, slots=True)
class Input:
    """An input as it is fed, where its value comes from, and what that value decides if it was made up."""

    spec: InputSpec
    value: Any
    origin: InputOrigin
    source: str = ""
    decides: sizes.Decision | None = None

    def captured(self) -> CapturedInput:
        """Return what the capture says about this input."""
        decides = self.decides or sizes.Decision("", loop=False)
        return CapturedInput(
            name=self.spec.name,
            dtype=self.spec.dtype,
            shape=np.shape(self.value),
            origin=self.origin,
            range=range_of(self.value),
            source=self.source,
            decides=decides.words,
            loop=decides.loop,
        )


def range_of(value: Any) -> tuple[float, float] | None:
    """Return the least and the greatest element; ``None`` where elements have no order, or not all are numbers.

    >>> range_of([[3, 1], [2, 2]]), range_of([]), range_of([b"text"]), range_of([1.0, float("nan")])
    ((1, 3), None, None, None)
    """
    array = np.asarray(value)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.size == 0 or array.dtype.kind not in "biuf":
        return None
    low, high = array.min().item(), array.max().item()
    return (low + 0, high + 0) if np.isfinite(low) and np.isfinite(high) else None


def under_all_names(specs: Sequence[InputSpec], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given by name; what was for a tensor that has several names stands under each of them."""
    shared = dict(given)
    for spec in specs:
        for name, other in ((spec.name, spec.same_as), (spec.same_as, spec.name)):
            if spec.same_as and other in given:
                shared.setdefault(name, given[other])
    return shared


def usable(examples: Examples, specs: Sequence[InputSpec], given: Collection[str], batch: int | None) -> Examples:
    """Return those examples that the user has not replaced by a shape or a value, repeated to fill a batch.

    Raises
    ------
    UsageError
        If a batch is asked for which examples cannot fill.
    """
    known = under_all_names(specs, examples.values)
    left = {name: value for name, value in known.items() if name not in given}
    if batch is None or not left:
        return replace(examples, values=left)
    if not examples.repeats:
        raise UsageError("--batch does not change the target's own example arguments: use --shape NAME=… instead")
    open_batch = {spec.name for spec in specs if spec.shape and spec.shape[0] is None}
    filled = {name: _repeated(value, batch) if name in open_batch else value for name, value in left.items()}
    return Examples(filled, f"{examples.source}, repeated for the batch", repeats=True)


def _repeated(value: Any, batch: int) -> Any:
    """Return an array of ``batch`` rows, those of ``value`` by turns."""
    array = np.asarray(value)
    return array[np.arange(batch) % len(array)] if len(array) else array


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
        If a name given fits no input, or shapes cannot be told; the message names all such inputs and the flag.
    """
    _refuse_unknown_names(specs, shapes, "--shape")
    _refuse_unknown_names(specs, arrays, "--inputs")
    _refuse_open_sizes([spec for spec in specs if spec.name not in {*arrays, *shapes} and _is_open(spec)], batch)
    return tuple(replace(spec, shape=_shape(spec, shapes, batch, arrays)) for spec in specs)


def _refuse_unknown_names(specs: Sequence[InputSpec], given: Mapping[str, object], flag: str) -> None:
    known = [spec.name for spec in specs]
    unknown = [name for name in given if name not in known]
    if unknown:
        has = ", ".join(known) if known else "none"
        raise UsageError(f"{flag} names the input '{unknown[0]}', which the model does not have; its inputs: {has}")


def _is_open(spec: InputSpec) -> bool:
    """Whether more than the batch is left open."""
    return spec.shape is None or None in spec.shape[1:]


def _refuse_open_sizes(specs: Sequence[InputSpec], batch: int | None) -> None:
    """Name all inputs at once whose shapes have to be given: who learns of one each time starts as often."""
    if not specs:
        return
    if len(specs) == 1 and specs[0].shape is None:
        name = specs[0].name
        raise UsageError(
            f"input '{name}' has no shape in the model: give one with --shape {name}=1,224,224,3, "
            f"or --shape {name}= for a scalar"
        )
    if len(specs) == 1:
        wanted = _with_gaps(specs[0], batch)
        raise UsageError(
            f"input '{specs[0].name}' has sizes that the model leaves open ({wanted}): "
            f"give them with --shape {specs[0].name}={wanted}, every ? a number"
        )
    flags = " ".join(f"--shape {spec.name}={_with_gaps(spec, batch)}" for spec in specs)
    raise UsageError(
        f"{len(specs)} inputs have shapes that the model leaves open: give them with {flags}, every ? a number"
        + (" and every … a whole shape (nothing, for a scalar)" if any(spec.shape is None for spec in specs) else "")
    )


def _with_gaps(spec: InputSpec, batch: int | None) -> str:
    """Return a shape as the flag takes it, with ``?`` for what is left open; ``…`` where nothing is known."""
    if spec.shape is None:
        return "…"
    sizes = [batch or 1 if spec.shape[0] is None else spec.shape[0], *spec.shape[1:]]
    return ",".join("?" if size is None else str(size) for size in sizes)


def _shape(
    spec: InputSpec, shapes: Mapping[str, tuple[int, ...]], batch: int | None, arrays: Mapping[str, Any]
) -> tuple[int, ...]:
    if spec.name in arrays:
        return _fitting(spec, tuple(np.shape(arrays[spec.name])), "--inputs")
    if spec.name in shapes:
        return _fitting(spec, shapes[spec.name], "--shape")
    assert spec.shape is not None  # or it would have been refused
    if spec.splits_of:
        return ((batch or 1) + 1,)  # where each row begins, and where the last one ends
    return tuple((batch or 1) if size is None else size for size in spec.shape)


def _fitting(spec: InputSpec, shape: tuple[int, ...], flag: str) -> tuple[int, ...]:
    wanted = spec.shape
    fits = wanted is None or (
        len(wanted) == len(shape) and all(want in (None, size) for want, size in zip(wanted, shape, strict=True))
    )
    if not fits:
        raise UsageError(
            f"{flag} gives '{spec.name}' the shape {_in_words(shape)}, but the model wants {_in_words(wanted or ())}"
            + ("" if wanted else f": --shape {spec.name}=")
        )
    return shape


def _in_words(shape: Sequence[int | None]) -> str:
    """Return a shape as the user would say it.

    >>> _in_words((None, 3)), _in_words(())
    ('(?,3)', '() of a scalar')
    """
    sizes_in_words = ",".join("?" if size is None else str(size) for size in shape)
    return f"({sizes_in_words})" if shape else "() of a scalar"


def make(
    specs: Sequence[InputSpec],
    arrays: Mapping[str, Any],
    graph: Graph,
    examples: Examples = NO_EXAMPLES,
    seed: int = SEED,
) -> tuple[Input, ...]:
    """Give every resolved input a value: the user's array, the target's own example, or one the graph can digest."""
    random = np.random.default_rng(seed)
    made = [_input(spec, arrays, examples, graph, random) for spec in specs]
    by_name = {one.spec.name: one for one in made}
    return tuple(_same(one, by_name[one.spec.same_as]) if one.spec.same_as else _rows(one, by_name) for one in made)


def deciding(made: Sequence[Input], graph: Graph) -> dict[str, Any]:
    """Return the values that decide how often a loop runs or how large a tensor is, wherever they come from."""
    integers = (one for one in made if _is_integer(one.spec) and not one.spec.splits_of)
    return {one.spec.name: one.value for one in integers if sizes.decision(graph, one.spec.placeholder)}


def _input(
    spec: InputSpec,
    arrays: Mapping[str, Any],
    examples: Examples,
    graph: Graph,
    random: np.random.Generator,
) -> Input:
    if spec.name in arrays:
        return Input(spec, _given(spec, arrays[spec.name]), "given")
    if spec.name in examples.values and tuple(np.shape(examples.values[spec.name])) == spec.shape:
        return Input(spec, examples.values[spec.name], "example", examples.source)
    decides = sizes.decision(graph, spec.placeholder) if _is_integer(spec) and not spec.splits_of else None
    return Input(spec, _made(spec, graph, random, decides), MADE_UP, spec.guessed, decides)


def _is_integer(spec: InputSpec) -> bool:
    return spec.dtype.startswith(("int", "uint"))


def _same(one: Input, other: Input) -> Input:
    """Return an input with the value of the other one, which is the same tensor."""
    return Input(one.spec, other.value, other.origin, f"the same tensor as {other.spec.name}")


def _rows(one: Input, others: Mapping[str, Input]) -> Input:
    """Return made row splits so that rows of like length hold all that they split."""
    if not one.spec.splits_of or one.origin != MADE_UP:
        return one
    values = others[one.spec.splits_of]
    count = np.shape(values.value)[0] if one.spec.innermost else _rows_within(one, others)
    splits = np.linspace(0, count, np.shape(one.value)[0]).astype(one.spec.dtype)
    return replace(one, value=splits, source=f"the rows of {values.spec.name}")


def _rows_within(one: Input, others: Mapping[str, Input]) -> int:
    """Return how many rows the splits inside of these ones make."""
    family = [other for other in others.values() if other.spec.splits_of == one.spec.splits_of]
    family.sort(key=lambda other: (len(other.spec.name), other.spec.name))  # by the numbers behind their names
    inner = family[family.index(one) + 1]
    return int(np.shape(inner.value)[0]) - 1


def _given(spec: InputSpec, array: Any) -> Any:
    if spec.dtype == "string":
        return np.asarray(array, dtype=object)
    if spec.dtype == "bfloat16":
        return np.asarray(array)
    given = np.asarray(array)
    if not np.can_cast(given.dtype, spec.dtype, casting="same_kind"):
        raise UsageError(f"--inputs gives '{spec.name}' as {given.dtype}, but the model wants {spec.dtype}")
    return given.astype(spec.dtype)


def _made(spec: InputSpec, graph: Graph, random: np.random.Generator, decides: sizes.Decision | None = None) -> Any:
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
        bound = consumers.id_limit(graph, spec.placeholder)
        if decides is not None and bound is None:
            return np.full(shape, DECIDING, spec.dtype)
        limit = bound or (PIXEL_LIMIT if spec.dtype == "uint8" else UNBOUND_ID_LIMIT)
        return random.integers(0, min(limit, int(np.iinfo(spec.dtype).max) + 1), shape).astype(spec.dtype)
    raise UsageError(
        f"input '{spec.name}' is of type {spec.dtype}, which cannot be made up: wrap the model in a callable "
        "that takes plain tensors (module:callable)"
    )


def _strings(spec: InputSpec, shape: tuple[int, ...], graph: Graph, random: np.random.Generator) -> np.ndarray:
    values = np.empty(shape, dtype=object)
    features = consumers.example_features(graph, spec.placeholder)
    for index in np.ndindex(shape):
        values[index] = _string(spec, features, graph, random)
    return values


def _string(
    spec: InputSpec,
    features: Sequence[consumers.Feature],
    graph: Graph,
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
