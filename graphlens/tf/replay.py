"""The second route: run the traced graph in a Session with full statistics, for loops and for the shapes of everything.

The Session sees every op, however cheap and however often a loop repeats it, which the profiler does not.  Its times
inside loops are inflated several times over, so they rank ops and are never added to a step.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from graphlens.tf import private
from graphlens.tf.manifest import CaptureDirectory

v1 = tf.compat.v1

REPLAY = "replay.json"
RUNS = 3
_OWN = "graphlens_capture_"  # prefix of the ops that stand in for captures
_TABLE_LOOKUPS = {"LookupTableFindV2": ("Tin", "Tout"), "LookupTableFind": ("Tin", "Tout")}


class NotReplayable(Exception):
    """The function captures something that cannot be rebuilt in a Session; the message says what."""


def write(capture: CaptureDirectory, concrete: Any, tensors: Sequence[Any], graph_def: Any) -> None:
    """Write ``replay.json``; a function that cannot be replayed leaves a note instead."""
    try:
        seen = replay(concrete, tensors, graph_def)
    except NotReplayable as reason:
        capture.note(f"The function was not replayed, so loops and shapes are unknown: {reason}.")
        return
    capture.write(REPLAY, json.dumps(seen).encode())


def replay(concrete: Any, tensors: Sequence[Any], graph_def: Any, runs: int = RUNS) -> dict[str, dict[str, Any]]:
    """Run the function ``runs`` times in a Session and return what was seen of each op.

    Raises
    ------
    NotReplayable
        If a captured resource is neither a variable nor a table.
    """
    values = _captured_values(concrete, graph_def)
    with tf.Graph().as_default() as graph, tf.device(None):
        rebuilt = _rebuild(values)
        v1.import_graph_def(graph_def, input_map=rebuilt.replaced, name="")
        with v1.Session(graph=graph, config=_session_config()) as session:
            session.run(rebuilt.setup, rebuilt.setup_feeds)
            feeds = {**rebuilt.feeds, **_inputs(concrete, tensors)}
            return _statistics(_traced_runs(session, _fetches(graph, concrete), feeds, runs))


def _session_config() -> Any:
    cpus = len(tf.config.list_logical_devices("CPU"))
    return v1.ConfigProto(allow_soft_placement=True, device_count={"CPU": cpus})


# -- what is captured ---------------------------------------------------------------------------------------------------


def _captured_values(concrete: Any, graph_def: Any) -> list[tuple[str, str, Any]]:
    """Return ``(placeholder, what it is, value)`` of every capture, read while still executing eagerly."""
    variables = private.variables_by_handle(concrete)
    table_types = _table_types(graph_def)
    return [
        (inner.name, *_value(outer, variables.get(id(outer)), table_types))
        for outer, inner in private.captures(concrete)
    ]


def _value(outer: Any, variable: Any, table_types: Sequence[tuple[Any, Any]]) -> tuple[str, Any]:
    if variable is not None:
        return "variable", variable.numpy()
    if outer.dtype == tf.resource:
        return "table", _table_content(outer, table_types)
    if outer.dtype == tf.variant:
        raise NotReplayable("it captures a variant tensor (a dataset or a tensor list)")
    return "constant", outer.numpy()


def _table_types(graph_def: Any) -> list[tuple[Any, Any]]:
    nodes = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    found = [node for node in nodes if node.op in _TABLE_LOOKUPS]
    return sorted({(node.attr["Tin"].type, node.attr["Tout"].type) for node in found})


def _table_content(handle: Any, types: Sequence[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    for keys, values in types:
        try:
            exported = tf.raw_ops.LookupTableExportV2(
                table_handle=handle, Tkeys=tf.as_dtype(keys), Tvalues=tf.as_dtype(values)
            )
        except tf.errors.OpError:  # another kind of table, or other types: the next pair may fit
            continue
        return exported.keys.numpy(), exported.values.numpy()
    raise NotReplayable("it captures a resource that is neither a variable nor a table with a readable content")


@dataclass
class _Rebuilt:
    """Captures made again inside a v1 graph: what replaces them, how to fill them, what every run has to feed."""

    replaced: dict[str, Any] = field(default_factory=dict)
    setup: list[Any] = field(default_factory=list)
    setup_feeds: dict[Any, Any] = field(default_factory=dict)
    feeds: dict[str, Any] = field(default_factory=dict)


def _rebuild(values: Sequence[tuple[str, str, Any]]) -> _Rebuilt:
    """Make each capture again in the current graph; values are fed, so that Grappler cannot fold them as constants."""
    rebuilt = _Rebuilt()
    for index, (placeholder, what, value) in enumerate(values):
        name = f"{_OWN}{index}"
        if what == "constant":
            fed = v1.placeholder(tf.as_dtype(value.dtype if value.dtype != object else tf.string), name=name)
            fed.set_shape(value.shape)
            rebuilt.replaced[placeholder], rebuilt.feeds[fed.name] = fed, value
            continue
        make = _variable if what == "variable" else _table
        rebuilt.replaced[placeholder], operation, feeds = make(name, value)
        rebuilt.setup.append(operation)
        rebuilt.setup_feeds.update(feeds)
    return rebuilt


def _variable(name: str, value: np.ndarray) -> tuple[Any, Any, dict[Any, Any]]:
    fed = v1.placeholder(value.dtype, value.shape)
    handle = tf.raw_ops.VarHandleOp(dtype=fed.dtype, shape=value.shape, shared_name=name, name=name)
    return handle, tf.raw_ops.AssignVariableOp(resource=handle, value=fed), {fed: value}


def _table(name: str, content: tuple[np.ndarray, np.ndarray]) -> tuple[Any, Any, dict[Any, Any]]:
    keys, values = (v1.placeholder(tf.as_dtype(part.dtype if part.dtype != object else tf.string)) for part in content)
    handle = tf.raw_ops.HashTableV2(key_dtype=keys.dtype, value_dtype=values.dtype, shared_name=name, name=name)
    fill = tf.raw_ops.InitializeTableV2(table_handle=handle, keys=keys, values=values)
    return handle, fill, {keys: content[0], values: content[1]}


# -- runs ---------------------------------------------------------------------------------------------------------------


def _fetches(graph: Any, concrete: Any) -> list[Any]:
    # Control outputs are the assignments of a training step: nothing reads them, and they are half of its work.
    effects = [graph.get_operation_by_name(operation.name) for operation in concrete.graph.control_outputs]
    return [tensor.name for tensor in concrete.outputs if tensor is not None] + effects


def _inputs(concrete: Any, tensors: Sequence[Any]) -> dict[str, Any]:
    return {inner.name: tensor.numpy() for inner, tensor in zip(private.arguments(concrete), tensors, strict=True)}


def _traced_runs(session: Any, fetches: list[Any], feeds: dict[str, Any], runs: int) -> Iterator[Any]:
    # SOFTWARE_TRACE gives the same statistics as FULL_TRACE without claiming the one profiler session.
    options = v1.RunOptions(trace_level=v1.RunOptions.SOFTWARE_TRACE)
    session.run(fetches, feeds)  # the first run optimizes the graph
    for _ in range(runs):
        metadata = v1.RunMetadata()
        session.run(fetches, feeds, options=options, run_metadata=metadata)
        yield metadata.step_stats


def _statistics(runs: Iterator[Any]) -> dict[str, dict[str, Any]]:
    """Sum each op's executions per run; outputs are those of its last execution."""
    totals: dict[str, list[int]] = defaultdict(list)
    calls: dict[str, int] = {}
    outputs: dict[str, list[Any]] = {}
    for step_stats in runs:
        seen: dict[str, list[int]] = defaultdict(list)
        for node in _node_stats(step_stats):
            seen[node.node_name].append(_compute_ns(node))
            outputs[node.node_name] = _outputs(node) or outputs.get(node.node_name, [])
        for name, durations in seen.items():
            totals[name].append(sum(durations))
            calls[name] = len(durations)
    return {
        name: {"calls": calls[name], "durations_ns": totals[name], "outputs": outputs[name]} for name in sorted(totals)
    }


def _node_stats(step_stats: Any) -> Iterator[Any]:
    for device in step_stats.dev_stats:
        for node in device.node_stats:
            if node.node_name not in {"_SOURCE", "_SINK"} and not node.node_name.startswith(_OWN):
                yield node


def _compute_ns(node: Any) -> int:
    precise = node.op_end_rel_nanos - node.op_start_rel_nanos
    return int(precise if precise > 0 else (node.op_end_rel_micros - node.op_start_rel_micros) * 1000)


def _outputs(node: Any) -> list[Any]:
    slots: Mapping[int, Any] = {output.slot: output.tensor_description for output in node.output}
    return [
        [tf.as_dtype(slots[slot].dtype).name, [dim.size for dim in slots[slot].shape.dim]] for slot in sorted(slots)
    ]
