"""A dataset's graph: serialized as written and as TensorFlow rewrites it, and made a dataset again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from graphlens.tf import private

# What TensorFlow does to a dataset by itself unless it is told otherwise (its `inject_prefetch` acts on synchronous
# ends only); each with the option that switches it.
DEFAULT_REWRITES: Final = (
    "noop_elimination",
    "map_and_batch_fusion",
    "shuffle_and_repeat_fusion",
    "map_parallelization",
    "inject_prefetch",
)
_OTHER_REWRITES: Final = ("filter_fusion", "filter_parallelization", "map_fusion", "map_and_filter_fusion")
# Of tensors that a dataset holds itself: its graph holds them again, and a graph ends at two gigabytes.
MOST_HELD_BYTES: Final = 1 << 28


class TooLargeError(Exception):
    """A dataset holds so much that its graph is not written down; the message says how much."""


def graph_of(dataset: Any) -> Any:
    """Return the ``GraphDef`` of a dataset as it is written.

    Raises
    ------
    TooLargeError
        If that would hold too much of its data.
    """
    check_size(dataset)
    return _parsed(private.serialized_dataset(dataset))


def rewritten_graph_of(dataset: Any) -> Any:
    """Return the ``GraphDef`` of a dataset as TensorFlow would run it; see ``graph_of``."""
    check_size(dataset)
    return _parsed(private.rewritten_dataset(dataset, rewrites_of(dataset.options())))


def dataset_of(graph_def: Any, element_spec: Any) -> Any:
    """Return the dataset of a graph; its functions in Python are those of this process."""
    return private.dataset_of_graph(graph_def.SerializeToString(), element_spec)


def check_size(dataset: Any) -> None:
    """Refuse what holds too much of its data to be written down.

    Raises
    ------
    TooLargeError
        If it does.
    """
    held = held_bytes(dataset)
    if held > MOST_HELD_BYTES:
        raise TooLargeError(f"it holds {held >> 20:,} MB of data itself, and its graph would hold them again")


def held_bytes(dataset: Any) -> int:
    """Return how much data a dataset holds itself, with all that it is made of."""
    return sum(_bytes_of(tensor) for one in all_of(dataset) for tensor in private.dataset_tensors(one))


def _bytes_of(tensor: Any) -> int:
    count = tensor.shape.num_elements() if hasattr(tensor, "shape") else None
    return 0 if count is None else count * max(1, tensor.dtype.size or 0)


def all_of(dataset: Any) -> Iterator[Any]:
    """Yield a dataset, and all that it is made of, each once: what is zipped with itself again and again is no tree."""
    seen: dict[int, Any] = {}
    waiting = [dataset]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen[id(one)] = one  # kept, so that no other one has its number
            yield one
            waiting += reversed(private.dataset_inputs(one))


def options_of(dataset: Any) -> dict[str, Any]:
    """Return the options of a dataset that were set, by their dotted names.

    >>> import tensorflow as tf
    >>> options = tf.data.Options()
    >>> options.threading.private_threadpool_size = 3
    >>> options_of(tf.data.Dataset.range(1).with_options(options))["threading.private_threadpool_size"]
    3
    """
    return dict(_set_in(private.dataset_options(dataset.options()), ""))


def _set_in(message: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for field, value in message.ListFields():
        name = prefix + _SHORT.get(field.name, field.name)
        if field.message_type is not None:
            yield from _set_in(value, f"{name}.")
        elif field.enum_type is not None:
            yield name, field.enum_type.values_by_number[value].name.lower()
        else:
            yield name, value


# As the options are called in Python.
_SHORT: Final[Mapping[str, str]] = {
    "threading_options": "threading",
    "autotune_options": "autotune",
    "optimization_options": "experimental_optimization",
    "distribute_options": "experimental_distribute",
    "service_options": "experimental_service",
}


def rewrites_of(options: Any) -> list[str]:
    """Return the graph rewrites that TensorFlow makes under these options."""
    asked = options.experimental_optimization
    default = DEFAULT_REWRITES if asked.apply_default_optimizations is not False else ()
    chosen = {name: getattr(asked, name, None) for name in (*DEFAULT_REWRITES, *_OTHER_REWRITES)}
    return [name for name, value in chosen.items() if value or (value is None and name in default)]


def _parsed(serialized: bytes) -> Any:
    import tensorflow as tf

    return tf.compat.v1.GraphDef.FromString(serialized)
