"""Rules about what Python does in every step although a graph could do it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.time.eager import EagerLoop, dispatch_share, eager_loop
from graphlens.facts.time.ledger import step_time
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.rules.needs import PROFILE
from graphlens.rules.registry import found, rule
from graphlens.units import format_ns, format_share

# A call of a function is dispatched as well: 0.1 to 0.3 ms of Python and of the runtime.  Where dispatch takes less of
# the step than this, ops are so long that one call in place of them would change little.
LEAST_SHARE: Final = 0.10
# Steps that are so many times as long as what they are made of are disturbed; the profiler alone makes them shorter.
DISTURBED: Final = 1.25


@rule("GL402", "eager-loop", needs=(PROFILE,))
def eager_loop_rule(facts: Facts) -> Iterator[Finding]:
    """Training steps that Python runs op by op, outside of any `tf.function`.

    ## What it finds

    A loop that asks a `GradientTape` for gradients in no function, Keras with `run_eagerly=True`, or
    `tf.config.run_functions_eagerly(True)`, where dispatch takes a tenth of the step or more.

    ## Why it costs

    Each op is a call from Python into the runtime, which finds a kernel, checks and copies its inputs and makes its
    results objects of Python: 10 to 30 us for an op that may compute for 2. No two ops run at the same time, none is
    fused with another, and none is left out.

    ## Example

    ```bad
    eager: 25us train.py:31 train_step
    product = MatMul() 90us x6
    rest    = Mul() 60us x40
    ```

    ```good
    eager: 25us train.py:31 train_step
    product = MatMul() 60ms x6
    rest    = Mul() 2ms x40
    ```

    ## Fix

    Put `@tf.function` before the function that does one step. Leave `run_eagerly` and
    `tf.config.run_functions_eagerly` out once the program is debugged.

    ## When it is fine

    While debugging, and where every step has another structure. A step of kernels of many milliseconds hardly gains.

    ## Source

    The kernels of the eager runtime in the profile (`KernelAndDeviceFunc::Run`), and the gaps between them of at most
    a millisecond, each as long as it usually is; what takes longer is something else that the program does in Python,
    and would remain. The saving is a bound: a function has to be called as well, and its executor to schedule the ops.
    """
    loop, share = facts(eager_loop), facts(dispatch_share)
    if loop is not None and share is not None and share >= LEAST_SHARE:
        yield _finding(facts, loop, share)


def _finding(facts: Facts, loop: EagerLoop, share: float) -> Finding:
    step = facts(step_time)
    assert step is not None  # there is no share of a step that is not known
    where = loop.source or "a line that is not known"
    saved_ns = round(share * min(step.median_ns, loop.usual_ns))
    return found(
        title=f"{loop.ops_per_step:,.0f} ops a step run one by one from Python: {format_share(share)} is dispatch",
        nodes=(),
        evidence={
            "source": loop.source or None,
            "function": loop.asked.function or None,
            "how": loop.asked.how,
            "ops_per_step": loop.ops_per_step,
            "dispatch_share": share,
            "kernel_ns": loop.kernel_ns,
            "dispatch_ns": loop.dispatch_ns,
            "other_python_ns": loop.other_ns,
        },
        reason=f"gradients are asked for at {where} in no tf.function: kernels run for {format_ns(loop.kernel_ns)} of "
        f"the step of {format_ns(step.median_ns)}, and Python dispatches one after the other"
        + _besides(loop, step.median_ns),
        saving=Saving(saved_ns, saved_ns / step.median_ns, "bound"),
        fix=_fix(loop),
        floor="medium",
    )


def _besides(loop: EagerLoop, step_ns: int) -> str:
    said = f"; {format_ns(loop.other_ns)} are something else that the program does in Python" if loop.other_ns else ""
    if step_ns < DISTURBED * loop.usual_ns:
        return said
    rest_ns = step_ns - loop.usual_ns
    return f"{said}; {format_ns(rest_ns)} of the step come irregularly, as where a thread waits for a processor"


def _fix(loop: EagerLoop) -> Fix:
    if loop.asked.how == "functions":
        return Fix("Leave tf.config.run_functions_eagerly(True) out", "manual")
    if loop.asked.how == "keras":
        return Fix("Compile the model without run_eagerly=True", "manual")
    if loop.asked.function:
        return Fix(
            f"Make {loop.asked.function} a tf.function, with what is done with its gradients in it",
            "manual",
            snippet="@tf.function",
        )
    return Fix("Write the body of the loop as a function of its batch, and make that a tf.function", "manual")
