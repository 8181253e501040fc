"""What TensorFlow makes of a function when it is instantiated: optimized, and one part per device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from graphlens.ir.capture import CapturedVariable
from graphlens.ir.nodes import ARGUMENT
from graphlens.loaders.capture.collecting import Context
from graphlens.loaders.capture.parts import EXECUTED_FOLDER, OPTIMIZED
from graphlens.loaders.tensors import strip_weights
from graphlens.tf import private
from graphlens.tf.record.graphs import described, few_numbers, is_tensor, write_renamed


class ExecutedGraphs:
    """Has the function instantiated anew by the step that runs meanwhile, and writes the graphs that ran.

    ``partitions`` are these afterwards, none where TensorFlow does not hand them out.
    """

    stage = None

    def __init__(self, concrete: Any) -> None:
        self.partitions: list[Any] = []
        self._concrete = concrete

    def start(self, context: Context) -> None:
        write_renamed(context.capture, self._concrete)
        context.capture.note(*private.forget_warm_kernels())
        let_go_of_what_failed()
        context.capture.note(*private.start_collecting_graphs())

    def stop(self, context: Context) -> bool:
        ran = graphs_of(private.stop_collecting_graphs(), self._concrete)
        if ran is None:
            return False
        capture = context.capture
        capture.write(OPTIMIZED, strip_weights(ran.post_optimization_graph).SerializeToString())
        names = tuple(f"{EXECUTED_FOLDER}{index}.pb" for index in range(len(ran.partition_graphs)))
        for name, partition in zip(names, ran.partition_graphs, strict=True):
            capture.write(name, strip_weights(partition).SerializeToString())
        capture.manifest = replace(
            capture.manifest,
            executed=names,
            executed_root_arguments=arguments_of(ran, self._concrete),
            executed_captured=tensors_of(ran, self._concrete),
            executed_captured_numbers=numbers_of(ran, self._concrete),
        )
        self.partitions = list(ran.partition_graphs)
        return True

    def cancel(self) -> None:
        private.stop_collecting_graphs()


def graphs_of(collected: Sequence[Any], concrete: Any) -> Any | None:
    """Pick the function's own graphs among those of small eager ops that ran along with it.

    Those that are joined to the graphs of another function are left out: what is whose cannot be told.
    """
    wanted = {operation.name for operation in concrete.graph.get_operations()}
    collected = [graphs for graphs in collected if _are_of_one_function(graphs)]

    def common(graphs: Any) -> int:
        return sum(node.name in wanted for node in graphs.pre_optimization_graph.node)

    best = max(collected, key=common, default=None)
    return best if best is not None and common(best) > 0 else None


def _are_of_one_function(graphs: Any) -> bool:
    """Whether the graphs are those of one: after a function that failed, TensorFlow joins its graphs to the next."""
    names = [node.name for node in graphs.pre_optimization_graph.node]
    return len(set(names)) == len(names)


def let_go_of_what_failed() -> None:
    """Have TensorFlow hand out what it kept of a function that failed, joined to the graphs of one of no use."""
    private.start_collecting_graphs()
    tf.function(lambda: tf.constant(0.0), autograph=False)()
    private.stop_collecting_graphs()


def _captured(ran: Any, concrete: Any) -> Mapping[str, Any]:
    """Return ``_Arg`` name -> what the function captured there, matched by the position in the whole function."""
    pairs = private.captures(concrete)
    first = len(concrete.inputs) - len(pairs)
    arguments = [node for node in ran.pre_optimization_graph.node if node.op == ARGUMENT]
    numbered = ((node.name, node.attr["index"].i - first) for node in arguments)
    return {name: pairs[position][0] for name, position in numbered if 0 <= position < len(pairs)}


def arguments_of(ran: Any, concrete: Any) -> Mapping[str, CapturedVariable]:
    """Return ``_Arg`` name -> variable, of the graph that was instantiated of a function."""
    captured, variables = _captured(ran, concrete), private.variables_by_handle(concrete)
    return {name: described(variables[id(outer)]) for name, outer in captured.items() if id(outer) in variables}


def tensors_of(ran: Any, concrete: Any) -> tuple[str, ...]:
    """Return the ``_Arg`` of each tensor that the function captured, and that is the same in every call."""
    return tuple(name for name, outer in _captured(ran, concrete).items() if is_tensor(outer))


def numbers_of(ran: Any, concrete: Any) -> Mapping[str, tuple[int, ...]]:
    """Return ``_Arg`` name -> what it holds, of captured tensors of few whole numbers."""
    found = {name: few_numbers(outer) for name, outer in _captured(ran, concrete).items()}
    return {name: numbers for name, numbers in found.items() if numbers is not None}
