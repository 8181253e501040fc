"""The graphs of what a program called, written as the programs of a capture."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from graphlens.errors import first_line
from graphlens.ir.capture import CapturedProgram
from graphlens.loaders.capture.writing import CaptureDirectory, ProgramParts
from graphlens.loaders.tensors import strip_weights
from graphlens.tf import private
from graphlens.tf.record import graphs, layers
from graphlens.tf.record.callbacks import python_functions
from graphlens.tf.record.collectors.executed import arguments_of, graphs_of, numbers_of, tensors_of

_LOOPS: Final = frozenset({"While", "StatelessWhile", "ReduceDataset", "ScanDataset"})
# How the ops are called that draw data or write variables.
_OF_A_STEP: Final = ("IteratorGetNext", "Assign", "ResourceApply", "ResourceSparseApply", "ResourceScatter")


def key_of(fetches: Any) -> Hashable:
    """Return what two equal fetches have in common, whatever structure they have.

    >>> key_of(["loss:0", {"step": "step:0"}]) == key_of(["loss:0", {"step": "step:0"}])
    True
    """
    if isinstance(fetches, dict):
        return tuple((name, key_of(fetched)) for name, fetched in fetches.items())
    if isinstance(fetches, list | tuple):
        return tuple(map(key_of, fetches))
    return getattr(fetches, "name", None) or str(fetches)


def is_loop(concrete: Any) -> bool:
    """Whether a function is a loop over steps, so that one call of it may be all there is.

    A loop within a step, over the time steps of a recurrent layer for instance, makes none of a function: what draws
    data or writes variables outside of its loops is one step.
    """
    outside, inside = _ops_by_place(concrete.graph.as_graph_def())
    if not inside:
        return False
    return any(map(_is_of_a_step, inside)) or not any(map(_is_of_a_step, outside))


def _ops_by_place(definition: Any) -> tuple[set[str], set[str]]:
    """Return the types of the ops outside of all loops, and of those within."""
    bodies = {function.signature.name: function.node_def for function in definition.library.function}
    found: tuple[set[str], set[str]] = (set(), set())
    todo, seen = [(definition.node, False)], set()
    while todo:
        nodes, is_inside = todo.pop()
        for node in nodes:
            found[is_inside].add(node.op)
            for name in _functions_of(node):
                called = (name, is_inside or node.op in _LOOPS)
                if called not in seen and name in bodies:
                    seen.add(called)
                    todo.append((bodies[name], called[1]))
    return found


def _functions_of(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)


def _is_of_a_step(op: str) -> bool:
    return op.startswith(_OF_A_STEP)


def write(capture: CaptureDirectory, called: Iterable[Any], collected: Sequence[Any]) -> None:
    """Write every concrete function and the graph of every Session that was called; ``collected`` is what ran.

    A function that was written before, of an earlier recording, stays the one program that it is.
    """
    for callee in called:
        if private.is_session(callee):
            _write_session(capture, callee)
            continue
        try:
            _write_function(capture, callee, collected)
        except Exception as error:  # a function whose model is gone must not cost the others their graphs
            name = private.function_name(callee)
            capture.fail("graphs", f"the graph of '{name}' could not be written: {first_line(error)}")


def _write_function(capture: CaptureDirectory, concrete: Any, collected: Sequence[Any]) -> None:
    name = private.function_name(concrete)
    before = next((one for one in capture.manifest.programs if one.name == name), None)
    ran = graphs_of(collected, concrete)
    executed = () if ran is None else tuple(map(_serialized, ran.partition_graphs))
    program = CapturedProgram(
        capture.id_for(name) if before is None else before.id,
        name,
        variables=graphs.captured_variables(concrete),
        captured=graphs.captured_tensors(concrete),
        captured_numbers=graphs.captured_numbers(concrete),
        executed_root_arguments={} if ran is None else arguments_of(ran, concrete),
        executed_captured=() if ran is None else tensors_of(ran, concrete),
        executed_captured_numbers={} if ran is None else numbers_of(ran, concrete),
        renamed=graphs.renamed_ops(concrete),
        scopes=layers.noted(concrete),
    )
    optimized = None if ran is None else _serialized(ran.post_optimization_graph)
    graph_def = concrete.graph.as_graph_def(add_shapes=True)
    traced = graphs.with_lines(concrete, graph_def)
    called_back = {**capture.manifest.callbacks, **python_functions(graph_def)}
    capture.manifest = replace(capture.manifest, callbacks=called_back)
    capture.write_program(program, ProgramParts(traced, optimized, executed))


def _write_session(capture: CaptureDirectory, session: Any) -> None:
    traced = graphs.with_lines(session, session.graph.as_graph_def())
    capture.write_program(CapturedProgram(capture.id_for("session")), ProgramParts(traced))


def _serialized(graph_def: Any) -> bytes:
    return bytes(strip_weights(graph_def).SerializeToString())
