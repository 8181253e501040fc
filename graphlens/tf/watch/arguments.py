"""The datasets and iterators among what a function is given, also within lists, tuples and dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from graphlens.tf import private


def datasets_in(arguments: Iterable[Any]) -> Iterator[Any]:
    """Yield the datasets among arguments."""
    return (one for one in _leaves(arguments) if private.is_dataset_type(type(one)))


def has_iterators(arguments: Iterable[Any]) -> bool:
    """Tell whether there are iterators over datasets among arguments."""
    return any(private.dataset_of_iterator(one) is not None for one in _leaves(arguments))


def with_datasets(arguments: Any, changed: Callable[[Any], Any]) -> Any:
    """Return arguments with each dataset changed; those without one as they are."""
    if not any(True for _ in datasets_in(arguments)):
        return arguments
    return _mapped(arguments, lambda one: changed(one) if private.is_dataset_type(type(one)) else one)


def with_new_iterators(arguments: Any) -> Any:
    """Return arguments with another iterator of the same dataset for each one that is used up.

    That is found out by taking one more element.
    """
    return _mapped(arguments, _iterated_anew)


def _iterated_anew(value: Any) -> Any:
    dataset = private.dataset_of_iterator(value)
    return value if dataset is None or bool(value.get_next_as_optional().has_value()) else iter(dataset)


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _leaves(value)
        elif isinstance(value, dict):
            yield from _leaves(value.values())
        else:
            yield value


def _mapped(arguments: Any, changed: Callable[[Any], Any]) -> Any:
    import tensorflow as tf

    return tf.nest.map_structure(changed, arguments)
