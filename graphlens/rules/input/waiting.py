"""Rules about steps that wait for input, and about elements that are not made ahead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphlens.facts.core import Facts
from graphlens.facts.input.verdict import Verdict, makes_ahead, verdict
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.edits import AddPrefetch
from graphlens.rules.needs import INPUT
from graphlens.rules.registry import found, rule
from graphlens.units import format_ns, format_share


def evidence_of(told: Verdict) -> Mapping[str, Any]:
    """Return what a finding about the pipeline has to show."""
    stage = told.stage
    return {
        "pipeline": told.pipeline.id,
        "wait_ns": told.wait_ns,
        "period_ns": told.period_ns,
        "stage": stage.name if stage else None,
        "source": stage.source if stage else None,
        "function": stage.function if stage else None,
        "stage_step_ns": stage.step_ns if stage else None,
        "parallelism": stage.parallelism if stage else None,
    }


@rule("GL301", "input-bound", needs=(INPUT,))
def input_bound(facts: Facts) -> Iterator[Finding]:
    """Steps that wait for the next element of their dataset.

    ## What it finds

    A program whose steps do nothing but wait for input for a twentieth of the time or more, in the steady state: after
    the first element of an epoch, and after a cache was filled.

    ## Why it costs

    While a step waits, the processors and accelerators of the model stand still. The stage that limits the pipeline is
    named: the one whose own work takes most of a step with the parallelism that it was granted, and not the one in
    which most time is spent, which may be waiting itself.

    ## Example

    ```bad
    called: train_step dispatch 50us input 6ms python 50us
    pipeline: Prefetch buffer 2 <- Map (MapDataset:1) 9ms
    x   = Placeholder() float32[32,64]
    y   = Relu(x) float32[32,64] 3ms
    out = _Retval(y)
    ```

    ```good
    called: train_step dispatch 50us input 20us python 50us
    pipeline: Prefetch buffer 2 <- Map (MapDataset:1) 2ms
    x   = Placeholder() float32[32,64]
    y   = Relu(x) float32[32,64] 3ms
    out = _Retval(y)
    ```

    ## Fix

    Make the limiting stage faster: several of its elements at a time, batches instead of elements, results that are
    kept. Where one of these applies, a rule of its own says so.

    ## When it is fine

    In the first epoch, which fills caches, and where the data cannot come faster.

    ## Source

    The profile: requests for elements during which neither ops nor the executor of the step worked, without what
    asking for an element costs that lies ready. The saving is a bound: input that costs nothing.
    """
    told = facts(verdict)
    if told is None or not told.waits:
        return
    stage = told.stage
    own = f", whose own work takes {format_ns(stage.step_ns)} of each" if stage and stage.step_ns else ""
    yield found(
        title=f"steps wait {format_ns(told.wait_ns)} of {format_ns(told.period_ns)} for input: {told.name} limits it",
        nodes=(),
        evidence=evidence_of(told),
        reason=(
            f"{format_share(told.share)} of the time from step to step nothing is done but to wait for the next "
            f"element; the slowest stage is {told.name}{own}{told.some_wait}"
        ),
        saving=Saving(told.wait_ns, told.share, "bound"),
        fix=Fix(f"Make {told.name} faster, or have less to do in it", "manual"),
        general=True,
    )


@rule("GL304", "missing-prefetch", needs=(INPUT,))
def missing_prefetch(facts: Facts) -> Iterator[Finding]:
    """Elements that are made while the step waits for them, though they could be made before.

    ## What it finds

    A pipeline without a prefetch at its end whose steps wait, where its stages could keep up if they had a buffer: the
    last one makes elements only when asked, or makes one ahead and is fast enough on average.

    ## Why it costs

    The step and the pipeline work by turns. TensorFlow adds a prefetch by itself behind a stage that works when it is
    asked, unless its optimizations are off; behind a parallel map, and a map and a batch in one, it adds none.

    ## Example

    ```bad
    called: train_step dispatch 50us input 2ms python 50us
    pipeline: Batch (BatchDatasetV2:2) 20us <- Map (MapDataset:1) 2ms
    x   = Placeholder() float32[32,64]
    y   = Relu(x) float32[32,64] 6ms
    out = _Retval(y)
    ```

    ```good
    called: train_step dispatch 50us input 2ms python 50us
    pipeline: MapAndBatch (MapDataset:1,BatchDatasetV2:2) 9ms parallel 1
    x   = Placeholder() float32[32,64]
    y   = Relu(x) float32[32,64] 6ms
    out = _Retval(y)
    ```

    ## Fix

    End the pipeline with `.prefetch(tf.data.AUTOTUNE)`.

    ## When it is fine

    When memory for another batch is not there. Where the pipeline is slower than the step a buffer runs empty: then
    another stage is to be made faster.

    ## Source

    The chain of iterators in the profile. The saving is a bound: what can be done at the same time.
    """
    told = facts(verdict)
    if told is None or not told.waits or not told.pipeline.stages:
        return
    top = told.pipeline.stages[0]
    if "Prefetch" in top.kind:
        return
    if makes_ahead(top) and (told.stage is None or (told.stage.step_ns or 0) > told.other_ns):
        return
    ns = told.wait_ns if makes_ahead(top) else min(told.wait_ns, told.other_ns)
    how = "makes one element ahead at most" if makes_ahead(top) else "makes elements only when it is asked"
    yield found(
        title=f"nothing is prefetched: steps wait {format_ns(told.wait_ns)} of {format_ns(told.period_ns)} for input",
        nodes=(),
        evidence={**evidence_of(told), "last_stage": top.name, "last_source": top.source},
        reason=f"the last stage, {top.name}, {how}, and the step and the pipeline wait for each other",
        saving=Saving(ns, ns / told.period_ns, "bound"),
        fix=Fix(
            "End the pipeline with a prefetch",
            "exact",
            (AddPrefetch(),),
            "dataset = dataset.prefetch(tf.data.AUTOTUNE)",
        ),
    )
