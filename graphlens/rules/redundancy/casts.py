"""Rule about casts that undo each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph, judged_stage
from graphlens.facts.time.savings import saving_without
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.edits import Ops, RemoveCasts
from graphlens.ir.graph import data_consumers, data_inputs, input_specs
from graphlens.ir.ops import RESHAPES, runtime_type
from graphlens.rules.needs import GRAPH
from graphlens.rules.phrases import with_stage
from graphlens.rules.registry import found, rule

# Ops that move elements and do not look at them: a cast commutes with them.
_CAST_AGNOSTIC: Final = RESHAPES | {"Identity", "Transpose"}


# -- casts --------------------------------------------------------------------------------------------------------

# Types whose every value another type holds exactly.
_HOLDS: Final = {
    "float64": {"float32", "float16", "bfloat16", "int32", "int16", "int8", "uint8", "bool"},
    "float32": {"float16", "bfloat16", "int16", "int8", "uint8", "bool"},
    "int64": {"int32", "int16", "int8", "uint8", "bool"},
    "int32": {"int16", "int8", "uint8", "bool"},
    "float16": {"int8", "uint8", "bool"},
    "int16": {"int8", "uint8", "bool"},
}
_FLOATS: Final = frozenset({"float64", "float32", "float16", "bfloat16"})


@dataclass(frozen=True, slots=True)
class _Casts:
    """Casts that can go, and why; ``exact`` tells whether leaving them out changes no bit."""

    vanishing: tuple[str, ...]
    nodes: tuple[str, ...]
    words: str
    exact: bool


@rule("GL208", "redundant-cast", needs=(GRAPH,))
def redundant_cast(facts: Facts) -> Iterator[Finding]:
    """Casts to another type and back, to the same type, or of one tensor to one type several times.

    ## What it finds

    `Cast` pairs that return to the type they came from, casts that change nothing, and repeated casts of one tensor.
    Going through an integer or a boolean is no round trip: it rounds on purpose.

    ## Why it costs

    A cast reads and writes its whole tensor and computes nothing.

    ## Example

    ```bad
    x   = Placeholder() float32[1024]
    a   = Cast(x) float64[1024] 20us {SrcT: float32, DstT: float64}
    b   = Cast(a) float32[1024] 20us {SrcT: float64, DstT: float32}
    out = _Retval(b)
    ```

    ```good
    x   = Placeholder() float32[1024]
    a   = Cast(x) int32[1024] 20us {SrcT: float32, DstT: int32}
    b   = Cast(a) float32[1024] 20us {SrcT: int32, DstT: float32}
    out = _Retval(b)
    ```

    ## Fix

    Use the tensor as it was before the first cast. Where the type between was the narrower one, the values lost
    digits on the way; without the casts they keep them, so outputs are compared with a tolerance.

    ## When it is fine

    When the loss of digits is wanted, as in a simulation of low precision.

    ## Source

    `SrcT` and `DstT` of the judged graph. Grappler removes casts to the same type and repeated casts by itself, so
    these are not reported where nothing was executed.
    """
    cases = list(_redundant_casts(facts))
    vanishing = list(dict.fromkeys(name for case in cases for name in case.vanishing))
    if not vanishing:
        return
    yield found(
        title=f"{len(vanishing)} casts can be left out" if len(vanishing) > 1 else "A cast can be left out",
        nodes=dict.fromkeys(name for case in cases for name in case.nodes),
        evidence={"casts": [{"ops": list(case.nodes), "what": case.words} for case in cases]},
        reason=with_stage(facts, "; ".join(dict.fromkeys(case.words for case in cases))),
        saving=saving_without(facts, vanishing),
        removes=vanishing,
        fix=Fix(
            "Read the tensor as it was before the casts",
            "exact" if all(case.exact for case in cases) else "tolerance",
            tuple(RemoveCasts(Ops(case.vanishing)) for case in cases),
        ),
    )


def _redundant_casts(facts: Facts) -> Iterator[_Casts]:
    graph = facts(judged_graph)
    repeated: dict[tuple[str, int | None, str], list[str]] = defaultdict(list)
    stage = facts(judged_stage)
    for name in graph.of_types({"Cast"}):
        types = _cast_types(facts, name)
        if types is None:
            continue
        source, edge = graph.in_edges(name)[0]
        if types[0] == types[1]:
            if stage == "executed":
                yield _Casts((name,), (name,), f"a cast from {types[0]} to {types[0]} changes nothing", True)
            continue
        repeated[source, edge.src_port, types[1]].append(name)
        trip = _round_trip(facts, name, types)
        if trip:
            yield trip
    if stage == "executed":
        for (source, _, dtype), names in repeated.items():
            if len(names) > 1:
                yield _Casts(tuple(names[1:]), (source, *names), f"one tensor is cast to {dtype} several times", True)


def _round_trip(facts: Facts, last: str, types: tuple[str, str]) -> _Casts | None:
    graph = facts(judged_graph)
    between: list[str] = []
    name = data_inputs(graph, last)[0]
    while runtime_type(graph.op(name).type) in _CAST_AGNOSTIC and data_inputs(graph, name):
        between.append(name)
        name = data_inputs(graph, name)[0]
    first = _cast_types(facts, name) if graph.op(name).type == "Cast" else None
    if first is None or first[0] != types[1] or first[1] != types[0]:
        return None
    outer, inner = first
    exact = outer in _HOLDS.get(inner, ())
    if not exact and not {outer, inner} <= _FLOATS:
        return None
    path = [name, *reversed(between), last]
    is_private = all(data_consumers(graph, src) == [dst] for src, dst in pairwise(path))
    if between and not is_private:
        return None
    loss = "" if exact else f", which loses the digits that {inner} does not hold"
    words = f"the values go from {outer} to {inner} and back{loss}"
    return _Casts((name, last) if is_private else (last,), tuple(path), words, exact)


def _cast_types(facts: Facts, name: str) -> tuple[str, str] | None:
    graph = facts(judged_graph)
    op = graph.op(name)
    if not graph.in_edges(name):
        return None
    before = input_specs(graph, name)[0]
    source = op.attrs.get("SrcT") or (before.dtype if before else None)
    target = op.attrs.get("DstT") or (op.outputs[0].dtype if op.outputs else None)
    return (str(source), str(target)) if source and target else None
