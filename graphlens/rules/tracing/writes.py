"""Rules about what a serving function writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph, judged_stage, weights
from graphlens.facts.patterns.weight_work import FEWEST_ELEMENTS, depends_on_variables
from graphlens.facts.time.attribution import attribution, timings
from graphlens.facts.time.savings import saving_without
from graphlens.facts.training.executed import layer_of_op
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.graph import Variable, data_inputs
from graphlens.rules.needs import GRAPH, INFERENCE
from graphlens.rules.phrases import known_sum, with_stage, wrapper_of
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_bytes

VARIABLES_LISTED: Final = 20


@rule("GL407", "write-in-inference", needs=(GRAPH, INFERENCE))
def write_in_inference(facts: Facts) -> Iterator[Finding]:
    """Weights that a function that does not train writes in every call.

    ## What it finds

    Variables of 64 elements and more that the graph writes as a whole, with what it makes of weights alone: no input
    has anything to do with the new value. One finding names all of them, with the layers that write them.

    ## Why it costs

    Each write computes, copies and stores a whole tensor, in every call. Calls that run at once write the same memory,
    a model that writes its weights cannot be frozen, and every later read has to wait for the write.

    ## Example

    ```bad
    x     = Placeholder() float32[1,64]
    w     = ReadVariableOp(kernel) float32[64,64]
    mask  = ReadVariableOp(pruned) float32[64,64]
    kept  = Mul(w, mask) float32[64,64] 40us
    put   = AssignVariableOp(kernel, kept) 20us
    again = ReadVariableOp(kernel, ^put) float32[64,64]
    y     = MatMul(x, again) float32[1,64] 20us
    out   = _Retval(y)
    ```

    ```good
    x     = Placeholder() float32[1,64]
    count = Placeholder() resource[]
    one   = Const() int64[] = 1
    w     = ReadVariableOp(kernel) float32[64,64]
    y     = MatMul(x, w) float32[1,64] 20us
    add   = AssignAddVariableOp(count, one)
    out   = _Retval(y)
    ```

    ## Fix

    Export the model without what writes its weights: strip the wrappers of pruning and clustering, keep moving averages
    out of the call, and pass `training=False` to layers that update weights in training.

    ## When it is fine

    When the weights are meant to change from call to call although nothing is learned. State is not reported: what is
    written from an input (the cell of a recurrent network, a cache, a metric), drawn (a generator of random numbers) or
    counted up, nor tables, which are no variables.

    ## Source

    The ops of the judged graph that write variables, and the data dependencies of what they write. How often they run
    is counted by the profile.
    """
    graph = facts(judged_graph)
    written = {
        write: handle
        for write, handle in facts(weights).written.items()
        if _is_weight(facts, write, handle) and _may_run(facts, write)
    }
    if not written:
        return
    layers = list(dict.fromkeys(layer for write in written if (layer := layer_of_op(facts, write))))
    wrapper = wrapper_of(layers)
    variables = [_variable(facts, write, handle) for write, handle in written.items()]
    size = known_sum([variable["bytes"] for variable in variables])
    many = counted(len({variable["variable"] for variable in variables}), "variable")
    yield found(
        title=f"{many} of a function that does not train "
        f"{'is' if many.startswith('1 ') else 'are'} written in every call"
        + (f" ({format_bytes(size)})" if size is not None else ""),
        nodes=list(written),
        stage=facts(judged_stage),
        evidence={
            "variables": variables[:VARIABLES_LISTED],
            "count": len(variables),
            "bytes_per_step": size,
            "layers": layers[:VARIABLES_LISTED],
            "wrapper": wrapper.name if wrapper else None,
            "ops": [graph.op(write).type for write in written][:VARIABLES_LISTED],
        },
        reason=with_stage(facts, _why(layers, wrapper.name if wrapper else None)),
        saving=saving_without(facts, list(written)),
        removes=list(written),
        fix=Fix(
            f"Strip {wrapper.name} before the model is exported"
            if wrapper
            else "Export the model without what writes its weights",
            "manual",
            (),
            wrapper.snippet if wrapper else None,
        ),
        floor="low",
    )


def _is_weight(facts: Facts, write: str, handle: str) -> bool:
    """Tell whether what an op writes is large enough to be a weight, and made of variables: a reset is a constant."""
    graph = facts(judged_graph)
    values = data_inputs(graph, write)[1:]
    known = _captures(facts).get(handle)
    specs = [*([known.spec] if known else []), *(spec for name in values for spec in graph.op(name).outputs[:1])]
    is_large = any(spec.elements is not None and spec.elements >= FEWEST_ELEMENTS for spec in specs)
    return is_large and depends_on_variables(facts, values)


def _may_run(facts: Facts, write: str) -> bool:
    """Tell whether an op ran, as far as is known: a branch that was not taken writes nothing."""
    return not facts(attribution).timings or write in facts(timings)


def _variable(facts: Facts, write: str, handle: str) -> Mapping[str, Any]:
    """Return what is known of one write: the variable's name in the checkpoint, its size, who writes it, how often."""
    known = _captures(facts).get(handle)
    value = next(iter(data_inputs(facts(judged_graph), write)[1:]), None)
    specs = facts(judged_graph).op(value).outputs if value is not None else ()
    timing = facts(timings).get(write)
    return {
        "variable": known.name if known else handle,
        "bytes": specs[0].nbytes if specs else None,
        "op": write,
        "layer": layer_of_op(facts, write),
        "times_per_step": timing.calls_per_step if timing else None,
    }


def _captures(facts: Facts) -> Mapping[str, Variable]:
    """Return which variables the arguments of the judged graph are bound to."""
    evidence = facts.evidence
    graph = evidence.executed if facts(judged_stage) == "executed" else evidence.traced
    return graph.main.captures if graph is not None else {}


def _why(layers: Sequence[str], wrapper: str | None) -> str:
    if wrapper is not None:
        return f"{wrapper} were exported with the model: they prepare the weights for training, in every call"
    where = f"'{layers[0]}' writes" if len(layers) == 1 else "the model writes"
    return f"{where} what is made of weights alone, whatever the input is"
