"""Open a Python object as a target: ``module:callable``, a dataset, or a live function, model or module."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from graphlens.errors import ExecutionError, TargetError, UsageError, first_line
from graphlens.tf import private
from graphlens.tf.open.datasets import open_dataset
from graphlens.tf.open.inputs import Examples, InputSpec
from graphlens.tf.open.keras_models import from_keras
from graphlens.tf.open.opened import Opened, Traced, dims, fill, from_concrete, is_array, tensors_in


def open_name(name: str) -> Opened:
    """Open ``package.module:callable``; the current folder is importable.

    A plain function without required parameters that returns something callable, or ``(callable, example_args)``,
    is a factory, and so is one that returns a dataset, and a class; any other function is the step itself.
    """
    found = _resolve(name)
    if private.is_dataset(found):
        return open_dataset(found)
    if _is_plain_factory(found):
        return _open_factory(found, name)
    return open_object(found)


def open_object(target: Any, example: Any = None) -> Opened:
    """Open a live object; ``example`` are its arguments: a tuple, a mapping of keywords, or one tensor."""
    if _is_keras(target):
        return _open_keras(target, example)
    if isinstance(target, tf.types.experimental.ConcreteFunction):
        return _with_examples(from_concrete(target, kind="callable", owner=target), example)
    function = _as_tf_function(target)
    if example is None and function.input_signature is None:
        return _open_without_example(function, target)
    if example is None:
        return _open_structured(function, (tuple(function.input_signature), {}), target)
    return _open_structured(function, _with_defaults(_structure(example), function), target)


# -- names ---------------------------------------------------------------------------------------------------------


def _resolve(name: str) -> Any:
    module_name, _, path = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise TargetError(f"{name}: no module named '{error.name}' here; run from the folder that holds it") from error
    except Exception as error:  # a module of the user may fail in any way while it is imported
        raise ExecutionError(f"{name}: importing '{module_name}' failed: {first_line(error)}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise TargetError(f"{name}: '{module_name}' has no '{part}'")
        found = getattr(found, part)
    return found


def _is_plain_factory(found: Any) -> bool:
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return False
    parameters = inspect.signature(found).parameters.values()
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(one.default is not one.empty or one.kind in optional for one in parameters)


def _open_factory(factory: Callable[[], Any], name: str) -> Opened:
    try:
        made = factory()
    except Exception as error:  # the user's code may fail in any way
        raise ExecutionError(f"{name}() failed: {first_line(error)}") from error
    if private.is_dataset(made):
        return open_dataset(made)
    if isinstance(made, tuple) and len(made) == 2 and callable(made[0]):
        return open_object(made[0], made[1])
    return open_object(made) if callable(made) and not is_array(made) else open_object(factory)


# -- objects -------------------------------------------------------------------------------------------------------


def _is_keras(target: Any) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(target, keras.Model)


def _as_tf_function(target: Any) -> Any:
    if isinstance(target, tf.types.experimental.PolymorphicFunction):
        return target
    if not callable(target):
        raise TargetError(f"{target!r} is not callable: give a tf.function, a Keras model, or a function")
    bound = type(target).__call__ if isinstance(target, tf.Module) else None
    if isinstance(bound, tf.types.experimental.PolymorphicFunction):
        return target.__call__
    return tf.function(target)


def _structure(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return example arguments as ``(args, kwargs)``; NumPy arrays and tensors are what is fed."""
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, (list, tuple)):
        return tuple(example), {}
    return (example,), {}


def _with_defaults(structure: tuple[tuple[Any, ...], dict[str, Any]], function: Any) -> Any:
    """Add the defaults of parameters that are not given: a traced function wants every argument."""
    args, kwargs = structure
    try:
        bound = inspect.signature(function.python_function).bind(*args, **kwargs)
    except (TypeError, ValueError, AttributeError):  # a bound method, or wrong arguments: tracing says which
        return structure
    bound.apply_defaults()
    return bound.args, bound.kwargs


def _parameter_names(target: Any) -> list[str]:
    python = getattr(target, "python_function", target)
    try:
        parameters = inspect.signature(python).parameters.values()
    except (TypeError, ValueError):
        return []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in plain and one.name != "self"]


def _leaves(structure: tuple[tuple[Any, ...], dict[str, Any]], target: Any) -> list[tuple[str, Any]]:
    args, kwargs = structure
    names = _parameter_names(target)
    named = [(names[index] if index < len(names) else f"argument_{index}", arg) for index, arg in enumerate(args)]
    found: list[tuple[str, Any]] = []
    for name, value in [*named, *((key, kwargs[key]) for key in sorted(kwargs))]:
        tensors = tensors_in(value)
        found += [(name if len(tensors) == 1 else f"{name}/{index}", leaf) for index, leaf in enumerate(tensors)]
    return found


def _spec(name: str, leaf: Any) -> InputSpec:
    spec = leaf if isinstance(leaf, tf.TensorSpec) else tf.TensorSpec.from_tensor(tf.convert_to_tensor(leaf))
    return InputSpec(name, spec.dtype.name, dims(spec.shape))


def _open_structured(function: Any, structure: tuple[tuple[Any, ...], dict[str, Any]], target: Any) -> Opened:
    leaves = _leaves(structure, target)
    specs = tuple(_spec(name, leaf) for name, leaf in leaves)
    examples = {name: leaf for name, leaf in leaves if not isinstance(leaf, tf.TensorSpec)}

    def trace(resolved: Sequence[InputSpec]) -> Traced:
        args, kwargs = fill(structure, [tf.TensorSpec(spec.shape, spec.dtype) for spec in resolved])
        concrete = function.get_concrete_function(*args, **kwargs)
        return Traced(concrete, lambda tensors: _call(concrete, structure, tensors))

    return Opened("callable", specs, trace, examples=Examples(examples), owner=(function, target))


def _call(concrete: Any, structure: Any, tensors: Sequence[Any]) -> Any:
    args, kwargs = fill(structure, tensors)
    return concrete(*args, **kwargs)


def _open_without_example(function: Any, target: Any) -> Opened:
    """Open a function that says nothing about its inputs: ``--shape`` or ``--inputs`` have to say it."""
    names = _parameter_names(target)
    specs = tuple(InputSpec(name, "float32", None) for name in names)

    def trace(resolved: Sequence[InputSpec]) -> Traced:
        concrete = function.get_concrete_function(*[tf.TensorSpec(spec.shape, spec.dtype) for spec in resolved])
        return Traced(concrete, lambda tensors: concrete(*tensors))

    notes = ("The function does not say the types of its inputs: float32 was assumed.",) if names else ()
    return Opened("callable", specs, trace, notes=notes, owner=(function, target))


def _open_keras(model: Any, example: Any) -> Opened:
    if example is None:
        return from_keras(model, kind="callable")
    function = tf.function(lambda *args, **kwargs: model(*args, **{"training": False, **kwargs}), autograph=False)
    opened = _open_structured(function, _structure(example), model.call)
    return Opened("callable", opened.specs, opened.trace, training=False, examples=opened.examples, owner=model)


def _with_examples(opened: Opened, example: Any) -> Opened:
    if example is None:
        return opened
    args, kwargs = _structure(example)
    leaves = tensors_in((args, kwargs))
    if len(leaves) != len(opened.specs):
        raise UsageError(f"the function takes {len(opened.specs)} tensors, the example arguments hold {len(leaves)}")
    examples = {spec.name: np.asarray(leaf) for spec, leaf in zip(opened.specs, leaves, strict=True)}
    return Opened(opened.kind, opened.specs, opened.trace, examples=Examples(examples), owner=opened.owner)
