"""The second route: run the traced graph in a Session with full statistics, for loops and for the shapes of everything.

The Session sees every op, however cheap and however often a loop repeats it, which the profiler does not.  Its times
inside loops are inflated several times over, so they rank ops and are never added to a step.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from graphlens.ir.ops import LOOPS
from graphlens.loaders.capture.collecting import Context
from graphlens.loaders.capture.parts import REPLAY
from graphlens.tf import private
from graphlens.tf.record import alignment, state
from graphlens.tf.record.collectors.executed import ExecutedGraphs

v1 = tf.compat.v1

LOOP_RUNS = 3  # loop ops are timed by this route only, so their median wants several runs
SHAPE_RUNS = 1  # without loops it is only asked for shapes and ops too cheap for the profiler
_REPEATED = LOOPS | {"LoopCond", "MapDefun"}


class Replay:
    """Writes ``replay.json``, under the names of the executed graph; what cannot be replayed leaves a note instead."""

    stage = "replay"

    def __init__(self, concrete: Any, tensors: Sequence[Any], graph_def: Any, executed: ExecutedGraphs) -> None:
        self._concrete = concrete
        self._tensors = tensors
        self._graph_def = graph_def
        self._executed = executed

    def start(self, context: Context) -> None:
        """The function is run again when all else is recorded."""

    def stop(self, context: Context) -> bool:
        context.progress("replaying", 0, 1)
        runs = LOOP_RUNS if _has_loops(self._graph_def) else SHAPE_RUNS
        try:
            seen = replay(self._concrete, self._tensors, self._graph_def, runs)
        except state.NotReplayable as reason:
            context.capture.note(f"The function was not replayed, so loops and shapes are unknown: {reason}.")
            return True
        if self._executed.partitions:
            runs_as = {written: ran for ran, written in (context.capture.manifest.renamed or {}).items()}
            named = {runs_as.get(name, name): record for name, record in seen.items()}
            seen = alignment.align(named, self._executed.partitions)
        context.capture.write(REPLAY, json.dumps(seen, sort_keys=True).encode())
        return True

    def cancel(self) -> None:
        """Nothing has to be ended."""


def replay(concrete: Any, tensors: Sequence[Any], graph_def: Any, runs: int) -> dict[str, dict[str, Any]]:
    """Run the function ``runs`` times in a Session and return what was seen of each op.

    Raises
    ------
    NotReplayable
        If the function holds on to something whose value cannot be read.
    """
    held = state.read(concrete, graph_def)
    with tf.Graph().as_default() as graph, tf.device(None):
        rebuilt = state.rebuild(held, graph_def)
        with v1.Session(graph=graph, config=_session_config()) as session:
            session.run(rebuilt.setup, rebuilt.setup_feeds)
            feeds = {**rebuilt.feeds, **_inputs(concrete, tensors)}
            return _statistics(_traced_runs(session, _fetches(graph, concrete), feeds, runs))


def _has_loops(graph_def: Any) -> bool:
    bodies = [graph_def.node, *(function.node_def for function in graph_def.library.function)]
    return any(node.op in _REPEATED for nodes in bodies for node in nodes)


def _session_config() -> Any:
    cpus = len(tf.config.list_logical_devices("CPU"))
    return v1.ConfigProto(allow_soft_placement=True, device_count={"CPU": cpus})


def _fetches(graph: Any, concrete: Any) -> list[Any]:
    # Control outputs are the assignments of a training step: nothing reads them, and they are half of its work.
    # They are fetched through an op of our own, because TensorFlow does not inline a call that is itself fetched.
    effects = [graph.get_operation_by_name(operation.name) for operation in concrete.graph.control_outputs]
    with tf.control_dependencies(effects):
        done = tf.no_op(name=f"{state.OWN}_done")
    return [tensor.name for tensor in concrete.outputs if tensor is not None] + [done]


def _inputs(concrete: Any, tensors: Sequence[Any]) -> dict[str, Any]:
    placeholders = private.arguments(concrete)
    if len(placeholders) != len(tensors):
        raise state.NotReplayable("it takes a ragged or sparse tensor")
    return {inner.name: tensor.numpy() for inner, tensor in zip(placeholders, tensors, strict=True)}


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
            if node.node_name not in {"_SOURCE", "_SINK"} and not node.node_name.startswith(state.OWN):
                yield node


def _compute_ns(node: Any) -> int:
    precise = node.op_end_rel_nanos - node.op_start_rel_nanos
    return int(precise if precise > 0 else (node.op_end_rel_micros - node.op_start_rel_micros) * 1000)


def _outputs(node: Any) -> list[Any]:
    slots: Mapping[int, Any] = {output.slot: output.tensor_description for output in node.output}
    return [
        [tf.as_dtype(slots[slot].dtype).name, [dim.size for dim in slots[slot].shape.dim]] for slot in sorted(slots)
    ]
