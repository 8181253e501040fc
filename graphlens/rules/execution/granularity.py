"""Rules about the size of the pieces that a step is cut into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.facts.patterns.xla import blockers_of_step, compiles
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.ledger import SCHEDULING, ledger, step_time
from graphlens.facts.time.savings import call_share
from graphlens.facts.training.executed import layers_of_ops
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.edits import EVERYWHERE, JitCompile, ScriptSetting
from graphlens.ir.run import OpTiming
from graphlens.rules.needs import EXECUTED, PROFILE
from graphlens.rules.registry import found, rule
from graphlens.units import format_count, format_ns, format_share

# TensorFlow's executor itself calls a kernel cheap below 8,000 processor cycles, about 3 us: handing it to another
# thread would then cost more than running it.
CHEAP_OP_NS: Final = 3_000
# Below a hundred cheap executions per step, dispatching them costs less than 0.3 ms in all.
FEWEST_CHEAP_CALLS: Final = 100
# The executor's own time in models whose ops are large enough is a few percent of the step; from a fifth on it is a
# cause in its own right.
OVERHEAD_SHARE: Final = 0.20
TYPES_LISTED: Final = 10
RECURRENT: Final = frozenset({"LSTM", "GRU", "SimpleRNN"})  # the layers of Keras that can be unrolled
# Unrolled, a step of an LSTM is some hundred ops to be traced, forward and backward: of 32 that takes seconds.
MOST_UNROLLED: Final = 32
TYPES_TOLD: Final = 3


@rule("GL212", "op-overhead-bound", needs=(EXECUTED, PROFILE))
def op_overhead_bound(facts: Facts) -> Iterator[Finding]:
    """Many ops that are cheaper to run than to dispatch.

    ## What it finds

    Steps with a hundred and more executions of ops below 3 us, in which these ops and the executor together take a
    fifth of the step or more.

    ## Why it costs

    Before each op the executor counts its inputs, picks a thread and allocates the output. For an op of a microsecond
    that is most of its cost. It does not shrink with a smaller model or a faster processor, and threads do not help.

    ## Example

    ```bad
    x = Placeholder() float32[4]
    *150 a# = Tanh(x) float32[4] 1us
    y = MatMul(x, a1) float32[4,4] 50us
    ```

    ```good
    x = Placeholder() float32[512]
    *150 a# = Tanh(x) float32[512] 40us
    y = MatMul(x, a1) float32[4,4] 50us
    ```

    ## Fix

    Do more per op: a larger batch, vectorized code instead of a loop, a fused layer. Or compile the function
    (`jit_compile=True`), which joins small ops to a few kernels; measure it, because XLA on a processor made some
    convolution networks many times slower. Where ops stand in XLA's way (`xla-blocker`), that is not tried.

    Where most of the cheap ops are those of a recurrent layer of Keras that loops over at most 32 steps of time,
    `unroll=True` is proposed for it: each op is there once for each step then, and what the loop itself takes is gone.
    The graph grows by as much, and takes longer to trace.

    ## When it is fine

    When the step is fast enough as it is, and batches cannot be larger.

    ## Source

    Events of the profile, calls counted by the replay where the profiler dropped them, and the executor's row of the
    ledger. The saving is a bound: what the step would save if these ops, dispatching them, and preparing them in each
    call cost nothing.
    """
    cheap = {name: timing for name, timing in facts(attribution).timings.items() if _is_cheap(timing)}
    calls = sum(timing.calls_per_step for timing in cheap.values())
    executor_ns = sum(row.ns for row in facts(ledger) if row.category == SCHEDULING)
    step = facts(step_time)
    if step is None or calls < FEWEST_CHEAP_CALLS:
        return
    share = executor_ns / step.median_ns + sum(timing.wall_share or 0.0 for timing in cheap.values())
    if share < OVERHEAD_SHARE:
        return
    types = Counter[str]()
    graph = facts(judged_graph)
    for name, timing in cheap.items():
        types[graph.op(name).type if name in graph else "unknown"] += round(timing.calls_per_step)
    cheap_nodes = [name for name in cheap if name in graph]
    bound = min(1.0, share + facts(call_share) * len(cheap_nodes) / max(len(graph), 1))
    yield found(
        title=f"{format_count(round(calls))} executions per step of ops below {format_ns(CHEAP_OP_NS)} "
        f"and their dispatch take {format_share(share)} of the step",
        nodes=cheap_nodes,
        evidence={
            "cheap_calls_per_step": round(calls),
            "cheap_ops": len(cheap),
            "executor_ns": executor_ns,
            "op_types": dict(types.most_common(TYPES_LISTED)),
        },
        reason=f"each of these ops costs less than {format_ns(CHEAP_OP_NS)}, about what dispatching an op costs",
        saving=Saving(round(bound * step.median_ns), bound, "bound"),
        fix=_fix(facts, cheap),
    )


def _fix(facts: Facts, cheap: Mapping[str, OpTiming]) -> Fix:
    loop = _short_loop(facts, cheap) if facts.evidence.script is not None else None
    return _compiling(facts) if loop is None else loop.unrolled()


@dataclass(frozen=True, slots=True)
class _Loop:
    """The loop of recurrent layers of one kind over time."""

    kind: str
    iterations: int

    def unrolled(self) -> Fix:
        return Fix(
            f"Unroll the loop over {self.iterations} steps of time: give the layer {self.kind} unroll=True",
            "tolerance",
            (ScriptSetting("unroll"),),
            f"keras.layers.{self.kind}(..., unroll=True)",
        )


def _short_loop(facts: Facts, cheap: Mapping[str, OpTiming]) -> _Loop | None:
    """Return the loop that most cheap ops are executed in, where it is a short one of a recurrent layer."""
    layers = dict(zip(facts(judged_graph).names, facts(layers_of_ops), strict=True))
    kinds, iterations = Counter[str](), Counter[int]()
    for name, timing in cheap.items():
        layer, calls = layers.get(name), round(timing.calls_per_step)
        if layer is not None and layer.kind in RECURRENT and calls > 1:
            kinds[layer.kind] += calls
            iterations[calls] += 1
    if 2 * sum(kinds.values()) < sum(timing.calls_per_step for timing in cheap.values()) or not iterations:
        return None
    usual = iterations.most_common(1)[0][0]  # the condition of a loop is asked once more than its body runs
    return _Loop(kinds.most_common(1)[0][0], usual) if max(iterations) <= MOST_UNROLLED + 1 else None


def _compiling(facts: Facts) -> Fix:
    """XLA joins small ops, where it can compile the step at all: with ops in the way, that is not worth trying."""
    blocked = [blocker for blocker in facts(blockers_of_step) if not compiles(facts, blocker)]
    if blocked:
        kinds = ", ".join(list(dict.fromkeys(blocker.type for blocker in blocked))[:TYPES_TOLD])
        return Fix(
            "Do more work per op: larger batches, vectorized code, fused layers; XLA, which joins small ops, cannot "
            f"compile the step as it is, for {kinds} (xla-blocker)",
            "manual",
        )
    return Fix(
        "Do more work per op: larger batches, vectorized code, fused layers, or jit_compile where it helps",
        "tolerance",
        (JitCompile(EVERYWHERE),),
        "@tf.function(jit_compile=True)",
    )


def _is_cheap(timing: OpTiming) -> bool:
    # The replay inflates times, so an op that is cheap there is cheap indeed.
    return timing.calls_per_step > 0 and timing.self_ns / timing.calls_per_step < CHEAP_OP_NS
