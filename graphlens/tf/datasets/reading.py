"""A dataset's graph read as the stages of a pipeline: what each is, reads, calls, and was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from graphlens.ir.iterators import user_stages
from graphlens.ir.pipelines import WrittenPipeline, WrittenStage
from graphlens.tf import private
from graphlens.tf.datasets import serializing
from graphlens.tf.datasets.creation import library_of, line_of
from graphlens.tf.datasets.elements import is_per_element
from graphlens.tf.datasets.nodes import (
    OPTIONS,
    DatasetGraph,
    is_dataset,
    is_python,
    is_random,
    is_stateful,
    own_name,
    producer,
)
from graphlens.tf.datasets.serializing import TooLargeError

# `__inference_Dataset_map_decode_12`: the transformation, then the function as it is called in Python.
_FUNCTION: Final = re.compile(
    r"^Dataset_(map|interleave|flat_map|filter|scan|reduce|take_while|unique|group_by_window|from_generator|rejection_"
    r"resample|parallel_interleave)_(.+)$"
)
_LAMBDA: Final = "<lambda>"
# What TensorFlow's own `from_generator` is made of.
_OWN_FUNCTIONS: Final = frozenset({"flat_map_fn", "generator_next_fn", "generator_map_fn", "finalize_py_func"})

TOO_LARGE: Final = "The graph of the dataset is not known: {0}."


def pipeline_of(dataset: Any, name: str, part: str = "") -> tuple[WrittenPipeline, tuple[str, ...]]:
    """Return a dataset as it is written and as TensorFlow rewrites it, and notes on what cannot be told."""
    options = serializing.options_of(dataset)
    written = {option: str(value) for option, value in options.items()}
    try:
        graph = DatasetGraph.of(serializing.graph_of(dataset))
        rewritten = DatasetGraph.of(serializing.rewritten_graph_of(dataset))
    except TooLargeError as error:
        return WrittenPipeline(name, options=written), (TOO_LARGE.format(error),)
    stages = written_stages(graph, options, _objects_by_node(graph, dataset))
    last = written_stages(rewritten, options)
    known = {stage.name for stage in stages}
    told = tuple(replace(one, made_of=tuple(part for part in user_stages(one.name) if part in known)) for one in last)
    return WrittenPipeline(name, stages, stages[-1].name if stages else "", written, told, part), ()


def written_stages(
    graph: DatasetGraph, options: Mapping[str, Any], objects: Mapping[str, Any] | None = None
) -> tuple[WrittenStage, ...]:
    """Return the stages of a graph, sources first; those within the function of a stage come before it.

    Parameters
    ----------
    objects
        The Python objects behind the nodes of the main graph, as far as they are known.
    """
    names = stage_names(graph)
    found: list[WrittenStage] = []
    for node in graph.datasets:
        if node.op == OPTIONS:
            continue
        inner = _inner_stages(graph, node, names[node.name])
        made = (objects or {}).get(node.name)
        stage = _stage(graph, node, names[node.name], options)
        reads = (*(names[one.name] for one in _stages_read(graph, node)), *_last_of(inner))
        found += [*inner, replace(stage, inputs=reads, **({} if made is None else _told_by(made)))]
    return tuple(found)


def stage_names(graph: DatasetGraph) -> dict[str, str]:
    """Return the name of the stage of each dataset of the main graph: as profiles have it, else its node's."""
    return {node.name: own_name(node) or node.name for node in graph.datasets}


def node_of(graph: DatasetGraph, stage: str) -> Any | None:
    """Return the node of the main graph that is a stage; ``None`` where there is none."""
    return next((graph.nodes[node] for node, name in stage_names(graph).items() if name == stage), None)


def _stages_read(graph: DatasetGraph, node: Any) -> Iterator[Any]:
    """Yield the datasets that one reads; options, which make no elements, are passed over."""
    for one in graph.inputs(node):
        if one.op == OPTIONS:
            yield from _stages_read(graph, one)
        else:
            yield one


def _stage(graph: DatasetGraph, node: Any, name: str, options: Mapping[str, Any]) -> WrittenStage:
    ops = {inner.op for inner in graph.nodes_run_by(node) if not is_dataset(inner)} - graph.functions.keys()
    calls = graph.called_by(node)
    return WrittenStage(
        name=name,
        kind=node.op,
        function=_function_name(calls[0]) if calls else "",
        ops=tuple(sorted(ops)),
        parallelism=graph.number(node, "num_parallel_calls"),
        deterministic=_is_deterministic(node, options),
        batch_size=graph.number(node, "batch_size"),
        buffer_size=graph.number(node, "buffer_size"),
        cycle_length=graph.number(node, "cycle_length"),
        python=any(map(is_python, ops)) if calls else None,
        stateful=any(map(is_stateful, ops)) if calls else None,
        random=any(map(is_random, ops)) if calls else None,
        per_element=is_per_element(graph, node) if calls else None,
    )


def _function_name(name: str) -> str:
    """Return the Python function behind one of a dataset.

    >>> _function_name("__inference_Dataset_map_decode_12"), _function_name("__inference_Dataset_map_lambda_3")
    ('decode', '<lambda>')
    """
    base = private.base_name(name)
    told = _FUNCTION.match(base)
    written = told[2] if told else base
    if written in _OWN_FUNCTIONS:
        return ""
    return _LAMBDA if written == "lambda" else written


def _is_deterministic(node: Any, options: Mapping[str, Any]) -> bool | None:
    if "deterministic" not in node.attr:
        return None
    told = node.attr["deterministic"].s.decode()
    return bool(options.get("deterministic", True)) if told not in {"true", "false"} else told == "true"


def _told_by(dataset: Any) -> dict[str, Any]:
    """Return what the Python object of a stage tells of it."""
    count = int(dataset.cardinality())
    return {
        "source": line_of(dataset),
        "library": library_of(dataset),
        "cardinality": None if count < 0 else count,
    }


# -- within functions ----------------------------------------------------------------------------------------------


def _inner_stages(graph: DatasetGraph, node: Any, outer: str) -> list[WrittenStage]:
    """Return the datasets that the function of a stage makes for each element: ``Interleave:2/MapDataset``."""
    found: list[WrittenStage] = []
    for function in graph.called_by(node):
        definition = graph.functions[function]
        inner = [one for one in definition.node_def if is_dataset(one)]
        names = {one.name: f"{outer}/{one.name}" for one in inner}
        lines, within = private.lines_of_function(function), graph.within(definition)
        for one in inner:
            reads = tuple(names[made] for made in map(producer, one.input) if made in names)
            stage = _stage(within, one, names[one.name], {})
            found.append(replace(stage, inputs=reads, source=lines.get(one.name, "")))
    return found


def _last_of(stages: Sequence[WrittenStage]) -> Iterator[str]:
    """Yield the names of the stages that no other one of these reads."""
    read = {name for stage in stages for name in stage.inputs}
    return (stage.name for stage in stages if stage.name not in read)


# -- the Python objects --------------------------------------------------------------------------------------------


def _objects_by_node(graph: DatasetGraph, dataset: Any) -> dict[str, Any]:
    """Return the Python object behind each dataset of a graph: both are walked from the last dataset to the sources.

    Where one has other inputs than the other, it goes no further.
    """
    found: dict[str, Any] = {}
    waiting = [(graph.root, dataset)]
    while waiting:
        node, made = waiting.pop()
        made = _innermost(made)
        if node.name in found:
            continue
        found[node.name] = made
        nodes, objects = graph.inputs(node), private.dataset_inputs(made)
        if len(nodes) == len(objects):
            waiting += zip(nodes, objects, strict=True)
    return found


def _innermost(dataset: Any) -> Any:
    """Return the dataset within those that only stand for it, and so share its tensor."""
    inputs = private.dataset_inputs(dataset)
    while len(inputs) == 1 and private.dataset_variant(inputs[0]) is private.dataset_variant(dataset):
        dataset = inputs[0]
        inputs = private.dataset_inputs(dataset)
    return dataset
