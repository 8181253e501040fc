"""Rules about ops that tracing left in the graph although the model's answer does not need them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.facts.patterns.exclusive import exclusive_inputs
from graphlens.facts.time.savings import saving_without
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.edits import Ops, RemoveDebugOps
from graphlens.ir.ops import ASSERTIONS, CHECKS, DEBUGGER, PRINTS
from graphlens.rules.needs import GRAPH
from graphlens.rules.phrases import with_stage
from graphlens.rules.registry import found, rule
from graphlens.units import counted

# Kind -> (op types, what it is for, how to be rid of it).
_KINDS: Final[Mapping[str, tuple[frozenset[str], str, str]]] = {
    "printing": (
        PRINTS,
        "it was called while the function was traced, so it runs in every step",
        "Remove tf.print and summaries from the exported function",
    ),
    "assertion": (
        ASSERTIONS,
        "an assertion has a side effect, so Grappler keeps it and all that it checks",
        "Check inputs before the call, or set the optimizer option debug_stripper",
    ),
    "numerics check": (
        CHECKS,
        "it reads every element of its tensor, and Grappler keeps it because it can fail",
        "Remove tf.debugging.check_numerics and enable_check_numerics from the exported function",
    ),
    "debugger": (
        DEBUGGER,
        "the graph was traced while TensorFlow's debugger was enabled",
        "Export the model again without tf.debugging.experimental.enable_dump_debug_info",
    ),
}


@rule("GL404", "debug-op", needs=(GRAPH,))
def debug_op(facts: Facts) -> Iterator[Finding]:
    """Prints, assertions, numerics checks and debugger ops that run in every step.

    ## What it finds

    `Print`, `Assert`, `CheckNumerics`, summary and debugger ops, and what is computed for them alone. One finding for
    each kind.

    ## Why it costs

    They are not part of the answer, but TensorFlow may not remove them: each has a side effect. Checks read whole
    tensors, prints format and write text, and all of them order the ops around them.

    ## Example

    ```bad
    x   = Placeholder() float32[1024]
    y   = Relu(x) float32[1024] 20us
    z   = CheckNumerics(y) float32[1024] 20us
    out = _Retval(z)
    ```

    ```good
    x   = Placeholder() float32[1024]
    y   = Relu(x) float32[1024] 20us
    out = _Retval(y)
    ```

    ## Fix

    Leave them out of the function that is exported or run in production.

    ## When it is fine

    When a wrong input must stop the step. Assertions on shapes alone cost next to nothing.

    ## Source

    Op types of the judged graph. The saving is the time of these ops and of those whose results only they read.
    """
    graph = facts(judged_graph)
    kinds = {kind: graph.of_types(types) for kind, (types, _, _) in _KINDS.items()}
    present = (kind for kind, names in kinds.items() if names)
    for kind in sorted(present, key=lambda kind: graph.position(kinds[kind][0])):
        yield _finding(facts, kind, kinds[kind])


def _finding(facts: Facts, kind: str, names: Sequence[str]) -> Finding:
    _, why, advice = _KINDS[kind]
    only_for_them = exclusive_inputs(facts(judged_graph), names)
    # A check hands its input on: what computes that input is needed without the check as well.
    gone = [*names, *(only_for_them if not _hands_on(facts, names) else ())]
    return found(
        title=f"{counted(len(names), f'{kind} op')} in the step",
        nodes=gone,
        evidence={"ops": list(names), "computed_for_them": gone[len(names) :]},
        reason=with_stage(facts, why),
        saving=saving_without(facts, gone),
        removes=gone,
        fix=Fix(advice, "manual", (RemoveDebugOps(Ops(tuple(names))),)),
    )


def _hands_on(facts: Facts, names: Sequence[str]) -> bool:
    graph = facts(judged_graph)
    return any(edge.kind != "control" for name in names for _, edge in graph.out_edges(name))
