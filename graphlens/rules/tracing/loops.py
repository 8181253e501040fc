"""Rules about how the steps of a program are called: one by one from Python, or by a loop within tf.data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import is_training, judged_graph
from graphlens.facts.programs.judged_program import loops_within_tf_data, programs
from graphlens.facts.programs.program_names import base_name
from graphlens.facts.time.attribution import attribution, timings
from graphlens.facts.time.ledger import step_time
from graphlens.facts.time.period import parts_of_period, period
from graphlens.facts.time.recorded import calls_are_single_steps
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.edits import ScriptSetting
from graphlens.ir.ops import LOOP_OVER_DATASET, family
from graphlens.rules.needs import PERIOD, PROFILE
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_ns, format_share

# Eigen gives a thread no less than 10,000 cycles of work (tensorflow/core/util/work_sharder.cc), which is some
# microseconds: what takes longer by a factor of fifty is split into as many parts as there are threads.
SPLIT_OP_NS: Final = 200_000
_SPLIT: Final = frozenset({"matmul", "convolution", "normalization", "pooling", "softmax", "elementwise and other"})
# Below it, ops that could be split are not what the step is made of.
NOTABLE_SHARE: Final = 0.10

BUSY_SHARE: Final = 0.5  # the executor works for less than half of the period: most of it is spent around it
STEPS_TOGETHER: Final = 8  # of each call's own time seven eighths are gone then, and more steps gain little
_KERAS: Final = "multi_step_on_iterator"


@rule("GL405", "loop-in-dataset", needs=(PROFILE, PERIOD))
def loop_in_dataset(facts: Facts) -> Iterator[Finding]:
    """A loop over a dataset inside a function: its steps run within tf.data, each op on one thread.

    ## What it finds

    A `tf.function` with `for x in dataset`, whose steps hold ops that take 0.2 ms and more each, a tenth of the step
    or more together, of kinds that TensorFlow splits among threads.

    ## Why it costs

    AutoGraph turns the loop into `ScanDataset` and `ReduceDataset`: the whole step becomes a function of the input
    pipeline. tf.data runs its functions with an intra-op parallelism of 1, so that large products, convolutions and
    element-wise ops use one core, whatever the machine has. Tools that look for input time file the step under it.

    ## Example

    ```bad
    called: train_epoch dispatch 50us input 10us python 50us steps 8 reduces
    x   = Placeholder() float32[1024,1024]
    w   = Const() float32[1024,1024]
    y   = MatMul(x, w) float32[1024,1024] 9ms
    out = _Retval(y)
    ```

    ```good
    called: train_epoch dispatch 50us input 10us python 50us steps 8
    x   = Placeholder() float32[1024,1024]
    w   = Const() float32[1024,1024]
    y   = MatMul(x, w) float32[1024,1024] 9ms
    out = _Retval(y)
    ```

    ## Fix

    Loop over `iter(dataset)`: that is a `While`, whose body runs in the executor with all threads. Or give the dataset
    the option `threading.max_intra_op_parallelism = 0`.

    ## When it is fine

    When several such loops share the machine, or its cores are busy with the input pipeline anyway.

    ## Source

    The profile: `ReduceDatasetOp` around the steps. The saving is a bound: as if those ops were as many times faster as
    the machine has cores.
    """
    if not facts(loops_within_tf_data):
        return
    cores = facts.evidence.environment.get("cores")
    if cores == 1 or facts.evidence.environment.get("intra_op_threads") == 1:
        return
    ops = _could_be_split(facts)
    step, split_ns = facts(step_time), sum(ops.values())
    if step is None or split_ns < NOTABLE_SHARE * step.profiled_ns:
        return
    yield found(
        title=f"the steps run within tf.data, where each op has one thread: {counted(len(ops), 'op')} could use more",
        nodes=[name for name in sorted(ops, key=lambda name: -ops[name]) if name in facts(judged_graph)],
        evidence={"ops_ns": split_ns, "cores": cores, "op_ns": dict(ops)},
        reason=(
            "`for x in dataset` inside a function becomes a function of tf.data, which runs it with an intra-op "
            f"parallelism of 1; ops of 0.2 ms and more take {format_ns(split_ns)} of the step"
        ),
        saving=_split_saving(split_ns, step.profiled_ns, step.median_ns, cores),
        fix=Fix(
            "Loop over iter(dataset) inside the function, or set the dataset's option "
            "threading.max_intra_op_parallelism to 0",
            "tolerance",
            (ScriptSetting("iterate", function=_function(facts)),),
            "for x in iter(dataset):\n    train_step(x)",
        ),
    )


def _could_be_split(facts: Facts) -> Mapping[str, int]:
    """Return the ops that are long enough to be split among threads, with their time in a step."""
    types = facts(attribution).op_types
    return {
        name: timing.self_ns
        for name, timing in facts(timings).items()
        if timing.self_ns >= SPLIT_OP_NS * max(timing.calls_per_step, 1.0)
        and family(types.get(name, "")) in _SPLIT
        and types.get(name) != LOOP_OVER_DATASET
    }


def _split_saving(split_ns: int, profiled_ns: int, step_ns: int, cores: int | None) -> Saving:
    if not cores:
        return Saving()
    share = min(split_ns / profiled_ns, 1.0) * (1 - 1 / cores)
    return Saving(round(share * step_ns), share, "bound")


@rule("GL406", "short-step", needs=(PROFILE, PERIOD))
def short_step(facts: Facts) -> Iterator[Finding]:
    """Training steps so short that calling them takes longer than they do.

    ## What it finds

    A training step that Python calls one by one, whose ops and executor work for less than half of the time from one
    step to the next, where most of the rest is the call itself: Python's binding of arguments, and eager dispatch.

    ## Why it costs

    A call of a `tf.function` takes some 0.2 ms whatever it computes, and Keras' `fit` adds eager ops of its own. With
    several steps in each call that is paid once for all of them.

    ## Example

    ```bad
    training
    called: multi_step_on_iterator dispatch 300us input 20us python 80us
    x   = Placeholder() float32[64,20]
    w   = Const() float32[20,32]
    y   = MatMul(x, w) float32[64,32] 150us
    out = _Retval(y)
    ```

    ```good
    training
    called: multi_step_on_iterator dispatch 300us input 20us python 80us steps 8
    x   = Placeholder() float32[64,20]
    w   = Const() float32[20,32]
    y   = MatMul(x, w) float32[64,32] 150us
    out = _Retval(y)
    ```

    ## Fix

    Keras: `model.compile(..., steps_per_execution=8)`; callbacks are then called once for each execution. Else loop
    inside the function: `for x in iter(dataset)`. Larger batches help as well, and change what is learned.

    ## When it is fine

    When callbacks have to see every batch, or what follows depends on each step's result.

    ## Source

    The period of the steps (its ledger). The saving is a bound: seven eighths of what the calls themselves take.
    """
    whole, parts = facts(period), facts(parts_of_period)
    if whole is None or whole.executor_ns is None or not facts(calls_are_single_steps) or not facts(is_training):
        return
    call_ns, others_ns = parts.call_ns, parts.others_ns
    if whole.executor_ns >= BUSY_SHARE * whole.ns or call_ns <= max(others_ns.values(), default=0):
        return
    ns = call_ns * (STEPS_TOGETHER - 1) // STEPS_TOGETHER
    is_keras = _function(facts) == _KERAS
    yield found(
        title=f"calling the step takes {format_ns(call_ns)}, and its ops {format_ns(whole.executor_ns)}",
        nodes=(),
        evidence={"period_ns": whole.ns, "executor_ns": whole.executor_ns, "call_ns": call_ns, **others_ns},
        reason=(
            f"of {format_ns(whole.ns)} from one step to the next the executor works for "
            f"{format_share(whole.executor_ns / whole.ns)}, and the call takes {format_share(call_ns / whole.ns)}: "
            f"with {STEPS_TOGETHER} steps in each it would be paid once for all of them"
        ),
        saving=Saving(ns, ns / whole.ns, "bound"),
        fix=_several_at_once(is_keras),
    )


def _several_at_once(is_keras: bool) -> Fix:
    if is_keras:
        return Fix(
            f"Run several steps in each call: compile the model with steps_per_execution={STEPS_TOGETHER}",
            "exact",
            (ScriptSetting("steps_per_execution", str(STEPS_TOGETHER)),),
            f"model.compile(..., steps_per_execution={STEPS_TOGETHER})",
        )
    return Fix(
        "Run several steps in each call: loop over iter(dataset) inside the tf.function",
        "manual",
        snippet="@tf.function\ndef train(elements):\n    for x in elements:\n        step(x)\n\ntrain(iter(dataset))",
    )


def _function(facts: Facts) -> str:
    judged = facts(programs).judged
    return base_name(judged.name) if judged else ""
