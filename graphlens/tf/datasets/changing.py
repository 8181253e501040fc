"""Edits of an input pipeline, carried out on a copy of its graph; what is an option is set on the copy's dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, get_args

import tensorflow as tf

from graphlens.errors import RewriteError
from graphlens.ir.edits import (
    AddCache,
    AddPrefetch,
    Edit,
    InputEdit,
    InputThreads,
    NotDeterministic,
    ParallelInterleave,
    ParallelMap,
    VectorizeMap,
)
from graphlens.ir.pipelines import AUTOTUNE
from graphlens.tf.datasets.draft import Draft, redirect
from graphlens.tf.datasets.elements import is_per_element
from graphlens.tf.datasets.nodes import arguments_of

_BATCHES: Final = frozenset({"BatchDatasetV2", "BatchDataset", "ParallelBatchDataset"})
_MAPS: Final = frozenset({"MapDataset", "ParallelMapDatasetV2"})

Change = Callable[[Draft, Any], None]


def changed(graph_def: Any, edits: Iterable[Edit], stages: Sequence[str] = ()) -> Any:
    """Return a copy of a dataset's graph with edits applied, one after another.

    Parameters
    ----------
    stages
        The stages of the graph as the edits name them, sources first, where that may be otherwise than it does itself.

    Raises
    ------
    RewriteError
        If one cannot be, or is none of a pipeline.
    """
    draft = Draft(graph_def)
    for edit in edits:
        _change_of(edit)(draft, _in_own_names(edit, draft, stages))
    return draft.graph_def


def _in_own_names(edit: Any, draft: Draft, stages: Sequence[str]) -> Any:
    """Return an edit with the name that its stage has in the graph: that at the same place, of the same kind."""
    own = [one for one in draft.named if "/" not in one]
    outer = [one for one in stages if "/" not in one]
    named = getattr(edit, "stage", "")
    if named not in outer or [_kind(one) for one in own] != [_kind(one) for one in outer]:
        return edit
    return replace(edit, stage=own[outer.index(named)])


def _kind(name: str) -> str:
    return name.partition(":")[0]


def with_options(dataset: Any, edits: Iterable[Edit]) -> Any:
    """Return a dataset with the options that edits set."""
    options = tf.data.Options()
    for edit in edits:
        if isinstance(edit, NotDeterministic):
            options.deterministic = False
        elif isinstance(edit, InputThreads):
            options.threading.private_threadpool_size = edit.threads
    return dataset.with_options(options)


def _change_of(edit: Edit) -> Change:
    change = _CHANGES.get(type(edit))
    if change is None:
        raise RewriteError(f"'{edit.kind}' is no change of an input pipeline")
    return change


# -- maps ----------------------------------------------------------------------------------------------------------


def _map_in_parallel(draft: Draft, edit: ParallelMap) -> None:
    node = draft.stage(edit.stage)
    calls = draft.number(edit.parallelism)
    if node.op == "ParallelMapDatasetV2":
        node.input[-1] = calls
        return
    if node.op != "MapDataset":
        raise RewriteError(f"'{edit.stage}' is a {node.op}, and no map")
    draft.replace(node, "ParallelMapDatasetV2", [*node.input, calls])
    node.attr.pop("force_synchronous", None)
    node.attr["deterministic"].s = b"default"


def _batch_before_map(draft: Draft, edit: VectorizeMap) -> None:
    node = draft.stage(edit.stage)
    batch = draft.only_reader(node)
    if node.op not in _MAPS or batch is None or batch.op not in _BATCHES:
        raise RewriteError(f"'{edit.stage}' is no map with a batch right behind it")
    if not is_per_element(draft.graph, node):
        raise RewriteError(f"the function of '{edit.stage}' does more than the same to each row of a batch")
    elements = draft.graph.inputs(node)[0]
    batched_shapes, mapped_types = _shapes_of(batch), _types_of(batch)
    draft.put_behind(node, batch)
    redirect(batch, node.name, elements.name)
    redirect(node, elements.name, batch.name)
    _tell_elements(node, mapped_types, batched_shapes)
    size = draft.graph.number(batch, "batch_size") if _drops_rest(draft, batch) else None
    _tell_elements(batch, _types_of(elements), [_batched(shape, size) for shape in _shapes_of(elements)])
    _forget_shapes(draft.own_function(node))


def _shapes_of(node: Any) -> list[Any]:
    return [tf.TensorShape(shape) for shape in node.attr["output_shapes"].list.shape]


def _types_of(node: Any) -> list[int]:
    name = "output_types" if "output_types" in node.attr else "Toutput_types"  # of datasets that hold their elements
    return list(node.attr[name].list.type)


def _batched(shape: Any, size: int | None) -> Any:
    return tf.TensorShape([size]).concatenate(shape)


def _drops_rest(draft: Draft, batch: Any) -> bool:
    name = draft.graph.argument(batch, "drop_remainder")
    constant = draft.graph.nodes.get(name) if name else None
    return constant is not None and bool(tf.make_ndarray(constant.attr["value"].tensor))


def _tell_elements(node: Any, types: Iterable[int], shapes: Iterable[Any]) -> None:
    del node.attr["output_types"].list.type[:]
    node.attr["output_types"].list.type.extend(types)
    del node.attr["output_shapes"].list.shape[:]
    node.attr["output_shapes"].list.shape.extend(shape.as_proto() for shape in shapes)


def _forget_shapes(function: Any) -> None:
    """Let a function take what it was not traced for."""
    for attributes in (*function.arg_attr.values(), *(node for node in function.node_def)):
        attributes.attr.pop("_output_shapes", None)
        attributes.attr.pop("shape", None)


# -- what is made ahead, kept, or read in turns ---------------------------------------------------------------------


def _prefetch(draft: Draft, edit: AddPrefetch) -> None:
    node = draft.stage(edit.stage)
    added = draft.add("PrefetchDataset", [node.name, draft.number(edit.buffer_size)], node)
    added.attr["legacy_autotune"].b = edit.buffer_size == AUTOTUNE
    draft.put_behind(added, node)


def _cache(draft: Draft, edit: AddCache) -> None:
    node = draft.stage(edit.stage)
    memory = draft.add("DummyMemoryCache", [])
    draft.put_behind(draft.add("CacheDatasetV2", [node.name, draft.text(""), memory.name], node), node)


def _interleave_in_parallel(draft: Draft, edit: ParallelInterleave) -> None:
    node = draft.stage(edit.stage)
    if node.op != "InterleaveDataset":
        raise RewriteError(f"'{edit.stage}' is a {node.op}, and no interleave that reads one input at a time")
    if draft.graph.number(node, "cycle_length") == AUTOTUNE:  # with the same for the calls, it would mix fewer
        node.input[arguments_of(node)["cycle_length"]] = draft.number(_available_cores())
    ahead = [draft.number(AUTOTUNE) for _ in ("buffer_output_elements", "prefetch_input_elements")]
    draft.replace(node, "ParallelInterleaveDatasetV4", [*node.input, *ahead, draft.number(edit.parallelism)])
    node.attr["deterministic"].s = b"default"


def _available_cores() -> int:
    """Return how many inputs an interleave mixes where it is not said how many."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _set_as_option(_draft: Draft, _edit: Edit) -> None:
    """What is an option changes no stage."""


_CHANGES: Final[Mapping[type[Any], Change]] = {
    ParallelMap: _map_in_parallel,
    VectorizeMap: _batch_before_map,
    AddPrefetch: _prefetch,
    AddCache: _cache,
    ParallelInterleave: _interleave_in_parallel,
    NotDeterministic: _set_as_option,
    InputThreads: _set_as_option,
}
assert set(_CHANGES) == set(get_args(InputEdit))
