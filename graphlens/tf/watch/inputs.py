"""Variations of a script's input: the datasets that it iterates over are replaced by others with the same elements."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

from graphlens.errors import RewriteError
from graphlens.ir.edits import AddCache, Edit
from graphlens.tf import private
from graphlens.tf.watch import arguments

# As many of its first batches are given again and again: few enough to keep, and more than a step could get used to.
KEPT: Final = 8

FILLING_S: Final = 20.0  # an epoch that takes longer is measured as its cache is filled

_ITERATORS: Final = "tensorflow.python.data.ops.iterator_ops"
_FUNCTIONS: Final = "tensorflow.python.eager.polymorphic_function.polymorphic_function"
_LOOPS: Final = "tensorflow.python.data.ops.dataset_autograph"

Note = Callable[[], None]
Wrapper = Callable[[ModuleType], None]


def served(note: Note, *, endless: bool = False) -> Mapping[str, Wrapper]:
    """Return what has each dataset give its first batches again and again, from memory, as often as it has batches.

    Parameters
    ----------
    endless
        Whether it does so for ever where Python makes the iterator: its steps would soon be over.  A dataset that a
        function loops over ends in any case.
    """
    return _replacing(lambda dataset, in_python: _from_memory(dataset, note, endless=endless and in_python), endless)


def changed(edits: Sequence[Edit], note: Note) -> Mapping[str, Wrapper]:
    """Return what has each dataset changed that has the stages which edits name."""
    return _replacing(lambda dataset, _: _edited(dataset, edits, note))


def _from_memory(dataset: Any, note: Note, *, endless: bool) -> Any:
    kept = dataset.take(KEPT).cache()
    if not sum(1 for _ in kept):  # fills it
        return dataset
    note()
    count = int(dataset.cardinality())
    again = kept.repeat()
    return again if count < 0 or endless else again.take(count)


def _edited(dataset: Any, edits: Sequence[Edit], note: Note) -> Any:
    from graphlens.tf.datasets import changing, serializing

    try:
        graph = changing.changed(serializing.graph_of(dataset), edits)
    except (RewriteError, serializing.TooLargeError):  # another dataset of the script is meant
        return dataset
    note()
    copied = changing.with_options(serializing.dataset_of(graph, dataset.element_spec), edits)
    if any(isinstance(edit, AddCache) for edit in edits):
        _fill(copied)
    return copied


def _fill(dataset: Any) -> None:
    """Go through an epoch, which fills a cache: what comes out of it is to be measured."""
    end_s = time.monotonic() + FILLING_S
    for _ in dataset:
        if time.monotonic() > end_s:
            return


def _replacing(replacement: Callable[[Any, bool], Any], apart: bool = False) -> Mapping[str, Wrapper]:
    """Return what has each dataset that is iterated over replaced; the same one always by the same.

    ``replacement`` is told whether Python takes the elements, if one for Python is to be ``apart``.
    """
    by_taker: Mapping[bool, weakref.WeakKeyDictionary[Any, Any]] = {
        in_python: weakref.WeakKeyDictionary() for in_python in (False, True)
    }
    own: weakref.WeakSet[Any] = weakref.WeakSet()  # what replaces others, and what these are filled by
    busy = [False]

    def replaced(dataset: Any, *, in_python: bool = False) -> Any:
        in_python = in_python and apart
        known = by_taker[in_python]
        if busy[0] or dataset in own or not private.is_eager_tensor(private.dataset_variant(dataset)):
            return dataset
        if dataset not in known:
            busy[0] = True  # what is iterated over meanwhile is our own
            try:
                with private.eagerly():  # a function that is being traced may have found it outside
                    known[dataset] = replacement(dataset, in_python)
            finally:
                busy[0] = False
            own.add(known[dataset])
        return known[dataset]

    return {
        _ITERATORS: lambda module: _wrap_iterators(module.OwnedIterator, replaced),
        _FUNCTIONS: lambda module: _wrap_calls(module.Function, replaced),
        _LOOPS: lambda module: _wrap_loops(module, replaced),
    }


def _wrap_iterators(kind: Any, replaced: Callable[..., Any]) -> None:
    initialize = kind.__init__

    def initialized(self: Any, dataset: Any = None, *args: Any, **kwargs: Any) -> None:
        in_python = private.is_executing_eagerly()
        initialize(self, None if dataset is None else replaced(dataset, in_python=in_python), *args, **kwargs)

    kind.__init__ = initialized


def _wrap_calls(kind: Any, replaced: Callable[[Any], Any]) -> None:
    """Replace datasets that a function is given: it may loop over them."""
    call = kind.__call__

    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = arguments.with_datasets((args, kwargs), replaced)
        return call(self, *args, **kwargs)

    kind.__call__ = called


def _wrap_loops(module: Any, replaced: Callable[[Any], Any]) -> None:
    """Replace datasets from outside of a function that loops over them."""
    loop = module._tf_ag_dataset_for_stmt

    def looped(dataset: Any, *args: Any) -> Any:
        return loop(replaced(dataset), *args)

    module._tf_ag_dataset_for_stmt = looped  # before it is registered, which is done on the module's behalf
