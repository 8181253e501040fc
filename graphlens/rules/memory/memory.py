"""Rules about bytes that a model carries with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

from graphlens.facts.core import Facts
from graphlens.facts.graphs import traced_graph
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.edits import ConstantToVariable, MergeConstants, Ops
from graphlens.ir.graph import Graph
from graphlens.ir.nodes import Op
from graphlens.ir.ops import CONSTANTS, FED, VARIABLE_READS
from graphlens.ir.unsafe import reachable_functions
from graphlens.rules.needs import TRACED
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_bytes

# A graph is parsed and copied several times before it runs (loading, tracing, each optimizer pass, each partition), and
# may not exceed 2 GiB as a file.  From 1 MiB on, one constant outweighs the rest of most graphs.
LARGE_CONSTANT_BYTES: Final = 1 << 20
CONSTANTS_LISTED: Final = 20
FILES_OF_FUNCTIONS: Final = frozenset({"saved_model", "meta_graph"})


class _Stored(NamedTuple):
    """A constant of one function."""

    function: str
    op: Op
    nbytes: int


@rule("GL602", "embedded-constant", needs=(TRACED,))
def embedded_constant(facts: Facts) -> Iterator[Finding]:
    """Large tensors stored inside the graph, or the same tensor stored in it several times.

    ## What it finds

    Constants of 1 MiB and more in a graph that keeps its other weights in variables, and equal constants that together
    waste 1 MiB and more. In a model's file, the tensors that its functions have captured count too: they are constants
    of its main graph.

    ## Why it costs

    The graph is copied each time it is loaded, optimized and partitioned, so start and memory grow with several times
    the size. A graph file may not exceed 2 GiB. The steps themselves are not slower.

    ## Example

    ```bad
    x       = Placeholder() float32[1024,512]
    weights = ReadVariableOp(w) float32[512,512]
    table   = Const() float32[1024,512]
    a       = AddV2(x, table) float32[1024,512] 50us
    y       = MatMul(a, weights) float32[1024,512] 90us
    ```

    ```good
    x       = Placeholder() float32[1024,512]
    weights = ReadVariableOp(w) float32[512,512]
    table   = ReadVariableOp(t) float32[1024,512]
    a       = AddV2(x, table) float32[1024,512] 50us
    y       = MatMul(a, weights) float32[1024,512] 90us
    ```

    ## Fix

    Make it a `tf.Variable(..., trainable=False)` that the model's object holds, or compute it in the graph. A NumPy
    array that a `tf.function` uses becomes a constant of every trace, and a `tf.constant` one of the file.

    ## When it is fine

    In a frozen graph, where all weights are constants on purpose: there, only equal ones are reported.

    ## Source

    `Const` ops of the graph as written, with all functions it can call; equal means equal dtype, shape and content.
    """
    graph = facts.evidence.traced
    if graph is None:
        return
    # A program holds what its functions capture in memory; a file holds it in its graph.
    in_file = facts.evidence.target.kind in FILES_OF_FUNCTIONS
    stored = _constants(graph, CONSTANTS | FED if in_file else CONSTANTS)
    repeated = _repeated(stored)
    if repeated:
        yield _repeated_finding(facts, repeated)
    large = [item for item in stored if item.nbytes >= LARGE_CONSTANT_BYTES]
    if large and _has_variables(graph):
        yield _large_finding(facts, large)


def _constants(graph: Graph, holders: Collection[str]) -> list[_Stored]:
    """Return the constants of known size, largest first; one per function and name, however often it is called."""
    found_here = [
        _Stored(function, op, op.constant.nbytes)
        for function in reachable_functions(graph)
        for op in map(graph.functions[function].graph.op, graph.functions[function].graph.of_types(holders))
        if op.constant is not None and op.constant.nbytes
    ]
    return sorted(found_here, key=lambda item: -item.nbytes)


def _repeated(stored: Sequence[_Stored]) -> list[list[_Stored]]:
    """Return the groups of equal constants that waste ``LARGE_CONSTANT_BYTES`` or more together, else nothing."""
    equal: dict[tuple[str, int, str], list[_Stored]] = defaultdict(list)
    for item in stored:
        if item.op.constant and item.op.constant.digest:
            equal[item.op.constant.digest, item.nbytes, str(item.op.outputs[:1])].append(item)
    groups = [group for group in equal.values() if len(group) > 1]
    return groups if _wasted_bytes(groups) >= LARGE_CONSTANT_BYTES else []


def _wasted_bytes(groups: Sequence[Sequence[_Stored]]) -> int:
    return sum(item.nbytes for group in groups for item in group[1:])


def _has_variables(graph: Graph) -> bool:
    return any(graph.functions[name].graph.of_types(VARIABLE_READS) for name in reachable_functions(graph))


def _large_finding(facts: Facts, large: Sequence[_Stored]) -> Finding:
    total = sum(item.nbytes for item in large)
    return found(
        title=f"{counted(len(large), 'large constant')} in the graph ({format_bytes(total)})",
        nodes=_flat_names(facts, large),
        evidence={"bytes": total, "constants": _listed(large)},
        reason="the value is stored in the graph itself, while other weights are variables: "
        + ("; ".join(dict.fromkeys(_why_stored(item.op) for item in large))),
        fix=Fix(
            "Hold the value in a variable that is not trained",
            "exact",
            tuple(ConstantToVariable(Ops((item.op.name,))) for item in large),
            "self.table = tf.Variable(table, trainable=False)",
        ),
        stage="traced",
    )


def _why_stored(op: Op) -> str:
    if op.type in FED:
        return (
            f"'{op.name}' is a tensor that the function has captured (`tf.constant`), and a file keeps these in its "
            "main graph"
        )
    return "an array that the program used, or a result that constant folding stored"


def _repeated_finding(facts: Facts, groups: Sequence[Sequence[_Stored]]) -> Finding:
    items = [item for group in groups for item in group]
    wasted = _wasted_bytes(groups)
    return found(
        title=f"Equal constants are stored several times ({format_bytes(wasted)} too many)",
        nodes=_flat_names(facts, items),
        evidence={"wasted_bytes": wasted, "groups": [_listed(group) for group in groups[:CONSTANTS_LISTED]]},
        reason="the same array was used in several traces or places, and each use stored it anew",
        fix=Fix(
            "Store it once, in a variable that is not trained",
            "exact",
            tuple(MergeConstants(Ops(tuple(item.op.name for item in group))) for group in groups),
        ),
        stage="traced",
    )


def _listed(items: Sequence[_Stored]) -> list[dict[str, object]]:
    return [
        {
            "op": item.op.name,
            "function": item.function,
            "bytes": item.nbytes,
            "tensor": ", ".join(map(str, item.op.outputs)),
        }
        for item in items[:CONSTANTS_LISTED]
    ]


def _flat_names(facts: Facts, items: Sequence[_Stored]) -> list[str]:
    """Return the names of constants in the flat graph, where functions are inlined."""
    wanted = {id(item.op.constant) for item in items}
    graph = facts(traced_graph)
    return [] if graph is None else [op.name for op in graph.ops() if op.constant and id(op.constant) in wanted]
