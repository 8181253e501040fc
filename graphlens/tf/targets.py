"""Open a target: whatever the user points at becomes a function with named inputs that can be traced and called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tensorflow as tf

from graphlens.errors import ExecutionError, TargetError, UsageError
from graphlens.loaders.savedmodel import BINARY
from graphlens.loaders.signatures import CALL, DEFAULT
from graphlens.tf import private, retired
from graphlens.tf.errors import first_line
from graphlens.tf.inputs import InputSpec

DEFAULT_SIGNATURE = DEFAULT
KERAS_2_OPTIMIZER = b"\n\toptimizer"  # SavedUserObject.identifier, as protobuf writes it
# The first Keras whose safe mode holds for all that it reads: before it, .keras and .h5 files could run code anyway.
RELIABLE_SAFE_MODE = (3, 11, 3)
# What TensorFlow raises when a file parses but is not a model that it can build or restore.
LOAD_FAILURES = (tf.errors.OpError, ValueError, TypeError, KeyError, AttributeError, OSError, ImportError, RuntimeError)


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
    examples: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    owner: Any = None


def open_target(
    path: str,
    kind: str,
    signature: str | None = None,
    tag: str | None = None,
    *,
    trust: bool = False,
    text: bool = False,
) -> Opened:
    """Open the target at ``path``, which the parent found to be of ``kind`` and, a graph file, to be ``text``.

    Raises
    ------
    TargetError, UsageError
        If the path, the signature or the tag names nothing.
    ExecutionError
        If TensorFlow cannot load it.
    """
    if kind == "callable":
        from graphlens.tf import callables

        return callables.open_name(path)
    if kind == "saved_model":
        return _saved_model(path, signature, tag)
    if kind in {"graph_def", "meta_graph"}:
        return _graph_file(Path(path), kind, text)
    if kind == "keras":
        return _keras_file(Path(path), trust)
    raise TargetError(f"{path}: GraphLens cannot execute a target of kind '{kind}'")


# -- SavedModel ----------------------------------------------------------------------------------------------------


def _saved_model(path: str, signature: str | None, tag: str | None) -> Opened:
    with loaded_saved_model(path, tag) as (loaded, notes):
        name, function = _choose(loaded, path, signature)
        return from_concrete(function, kind="saved_model", signature=name, notes=notes, owner=loaded)


@contextmanager
def loaded_saved_model(path: str, tag: str | None) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield the object loaded from ``path``, and notes; its asset files may be gone afterwards.

    Raises
    ------
    ExecutionError
        If TensorFlow cannot load it.
    """
    notes: tuple[str, ...] = (private.OPTIMIZER_SKIPPED,) if _holds_unknown_optimizer(path) else ()
    if notes:
        private.stand_in_for_missing_optimizer()
    tags = [part for part in (tag or "").split(",") if part] or None
    with retired.loadable(path) as (folder, replaced):
        try:
            loaded = tf.saved_model.load(folder, tags=tags)
        except LOAD_FAILURES as error:
            raise ExecutionError(f"TensorFlow cannot load {path}: {first_line(error)}") from error
        yield loaded, notes + replaced


def _holds_unknown_optimizer(path: str) -> bool:
    """Whether Keras 2 saved its optimizer along, which only ``tf_keras`` knows how to revive."""
    file = Path(path) / BINARY
    return find_spec("tf_keras") is None and file.is_file() and KERAS_2_OPTIMIZER in file.read_bytes()


def _choose(loaded: Any, path: str, wanted: str | None) -> tuple[str, Any]:
    """Pick the signature asked for, else the default one, else the only one, else what calling the object runs."""
    signatures = signatures_in(loaded, path)
    if wanted == CALL or (wanted is None and not signatures):
        return CALL, _called_function(loaded, path)
    if wanted is not None and wanted not in signatures:
        raise UsageError(f"--signature {wanted}: {path} has {', '.join(sorted(signatures)) or 'no signatures'}")
    name = wanted or (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else None)
    if name is None and len(signatures) > 1:
        raise UsageError(f"{path} has several signatures, choose one with --signature: {', '.join(sorted(signatures))}")
    name = name or next(iter(signatures))
    return name, signatures[name]


def signatures_in(loaded: Any, path: str) -> dict[str, Any]:
    """Return the signatures; a file may put anything in their place, whose methods must not be called."""
    found = getattr(loaded, "signatures", {})
    if not isinstance(found, Mapping) or not all(map(_is_concrete, found.values())):
        raise ExecutionError(f"the signatures in {path} are no functions: export it again")
    return dict(found)


def _is_concrete(function: Any) -> bool:
    return isinstance(function, tf.types.experimental.ConcreteFunction)


def _called_function(loaded: Any, path: str) -> Any:
    function = loaded.__call__ if callable(loaded) else None
    generic = isinstance(function, tf.types.experimental.PolymorphicFunction)
    functions = getattr(function, "concrete_functions", ()) if generic else ()
    if not functions or not _is_concrete(functions[0]):
        raise ExecutionError(f"{path} has no signature and is not callable: export it again with signatures=…")
    return functions[0]


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


def fill(structure: Any, tensors: Sequence[Any]) -> Any:
    """Return ``structure`` with its tensor leaves replaced by ``tensors``, in order."""
    replacements = iter(tensors)
    leaves = [next(replacements) if is_array(leaf) else leaf for leaf in tf.nest.flatten(structure)]
    return tf.nest.pack_sequence_as(structure, leaves)


def _named_specs(structure: tuple[Any, Mapping[str, Any]], placeholders: Sequence[str]) -> tuple[InputSpec, ...]:
    args, kwargs = structure
    named = [(leaf.name or f"argument_{index}", leaf) for index, leaf in enumerate(_tensors(args))]
    for key in sorted(kwargs):
        leaves = _tensors(kwargs[key])
        named += [(key if len(leaves) == 1 else f"{key}/{index}", leaf) for index, leaf in enumerate(leaves)]
    padded = [*placeholders, *[""] * (len(named) - len(placeholders))]
    return tuple(
        InputSpec(name, leaf.dtype.name, dims(leaf.shape), placeholder)
        for (name, leaf), placeholder in zip(named, padded, strict=False)
    )


def _tensors(structure: Any) -> list[Any]:
    return [leaf for leaf in tf.nest.flatten(structure) if is_array(leaf)]


def dims(shape: Any) -> tuple[int | None, ...] | None:
    """Return a ``TensorShape`` as a tuple, ``None`` when the rank is unknown."""
    shape = tf.TensorShape(shape)
    return None if shape.rank is None else tuple(shape.as_list())


# -- graph files ---------------------------------------------------------------------------------------------------


def _graph_file(path: Path, kind: str, text: bool) -> Opened:
    graph_def = _read_graph(path, kind, text)
    try:
        wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph_def, name=""), [])
        graph = wrapped.graph
        feeds = [op.outputs[0] for op in graph.get_operations() if op.type == "Placeholder"]
        function = wrapped.prune(feeds, _sinks(graph))
    except LOAD_FAILURES as error:
        raise ExecutionError(f"TensorFlow cannot import the graph {path}: {first_line(error)}") from error
    return from_placeholders(function, kind, owner=wrapped)


def _read_graph(path: Path, kind: str, text: bool) -> Any:
    from google.protobuf import message, text_format

    proto = tf.compat.v1.MetaGraphDef() if kind == "meta_graph" else tf.compat.v1.GraphDef()
    try:
        if text:
            text_format.Parse(path.read_text(encoding="utf-8"), proto)
        else:
            proto.ParseFromString(path.read_bytes())
    except (OSError, message.DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise TargetError(f"{path} is not a readable {kind}: {first_line(error)}") from error
    return proto.graph_def if kind == "meta_graph" else proto


def _sinks(graph: Any) -> list[Any]:
    """Return what nobody reads: the outputs of a frozen graph, or the last ops of one that has none."""
    read = {tensor.op for op in graph.get_operations() for tensor in op.inputs}
    read |= {control for op in graph.get_operations() for control in op.control_inputs}
    sinks = [op for op in graph.get_operations() if op not in read and op.type not in {"Placeholder", "Const"}]
    if not sinks:
        raise ValueError("nothing in it computes anything")
    return [op.outputs[0] if op.outputs else op for op in sinks]


# -- Keras ---------------------------------------------------------------------------------------------------------


def _keras_file(path: Path, trust: bool) -> Opened:
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
        why = "it holds Python code, a Lambda layer for instance; --trust runs it" if unsafe else first_line(error)
        raise ExecutionError(f"Keras cannot load {path}: {why}") from error
    return from_keras(model, kind="keras")


def _version(text: str) -> tuple[int, ...]:
    """Read a version's leading numbers.

    >>> _version("3.11.3"), _version("3.12.0rc1")
    ((3, 11, 3), (3, 12, 0))
    """
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def from_keras(model: Any, kind: str, examples: Mapping[str, Any] | None = None) -> Opened:
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

    return Opened(kind, specs, trace, training=False, examples=examples or {}, notes=notes, owner=model)


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
