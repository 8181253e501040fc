"""The measurement of one opened target: its step is called a number of times under the collectors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from graphlens.collector import collector_paused
from graphlens.config import MOST_STEPS, WARM_UP_CALLS
from graphlens.errors import ExecutionError
from graphlens.loaders.capture.collecting import Collector, Context, Progress, collecting
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.tf import private
from graphlens.tf.open import failures
from graphlens.tf.open.opened import Opened
from graphlens.tf.record import environment
from graphlens.tf.record.clock import empty_call_ns, timed
from graphlens.tf.record.collectors.executed import ExecutedGraphs
from graphlens.tf.record.collectors.hlo import Hlo
from graphlens.tf.record.collectors.profile import profiled_steps
from graphlens.tf.record.collectors.replay import Replay
from graphlens.tf.record.collectors.roof import Roof
from graphlens.tf.record.collectors.steps import StepTimes
from graphlens.tf.record.collectors.unplaced import UnplacedGraph
from graphlens.tf.record.preparing import Plan, Prepared, prepare

RESERVED_SHARE = 0.5  # of the time left that profiled and unprofiled steps may use; replay and writing need the rest

Step = Callable[[], Any]


def record(opened: Opened, plan: Plan, capture: CaptureDirectory, progress: Progress) -> None:
    """Trace, execute and measure the target.

    Raises
    ------
    UsageError
        If an input cannot be made.
    ExecutionError
        If the function cannot be traced or run, or must not be.
    """
    try:
        _record(prepare(opened, plan, capture), plan, Context(capture, progress, plan.seconds_left))
    finally:
        if plan.xla_dump is not None:
            shutil.rmtree(plan.xla_dump, ignore_errors=True)


def _record(prepared: Prepared, plan: Plan, context: Context) -> None:
    executed = ExecutedGraphs(prepared.traced.concrete)
    with collecting(context, _around_all(prepared, plan, executed)):
        with context.capture.stage("graphs"):
            context.progress("first step", 0, 1)
            _first_step(prepared, plan, context, executed)
            context.capture.manifest = replace(context.capture.manifest, environment=environment.describe())
        _measured_steps(prepared.step, plan, context)


def _around_all(prepared: Prepared, plan: Plan, executed: ExecutedGraphs) -> list[Collector]:
    """Return the collectors that have their turn when all steps are done, the last one first."""
    concrete, tensors = prepared.traced.concrete, prepared.tensors
    after: list[Collector] = [Hlo(concrete, tensors, plan.xla_dump), Roof(executed)]
    if private.is_jit_compiled(concrete):
        return after  # replayed op by op it would show ops that never ran as such
    return [Replay(concrete, tensors, prepared.graph_def, executed), *after]


# -- steps ---------------------------------------------------------------------------------------------------------


def _first_step(prepared: Prepared, plan: Plan, context: Context, executed: ExecutedGraphs) -> None:
    concrete, capture = prepared.traced.concrete, context.capture
    unplaced = [UnplacedGraph(concrete, prepared.graph_def)] if plan.before_placer else []
    try:
        with collecting(context, [*unplaced, executed]):
            prepared.step()
    except tf.errors.OpError as error:
        raise ExecutionError(f"the model failed on its first step: {failures.of_first_step(error)}") from error
    if not executed.partitions and private.is_jit_compiled(concrete):
        capture.note("The whole function is compiled by XLA: there is no executed TensorFlow graph, only HLO.")


def _measured_steps(step: Step, plan: Plan, context: Context) -> None:
    """Time steps before and after those that are profiled, all warm."""
    capture = context.capture
    times = StepTimes(capture)
    with collecting(context, [times]):
        with capture.stage("profile"), collector_paused():
            warm_ns = [timed(step) for _ in range(WARM_UP_CALLS)]
            steps, before, profiled = _counts(plan, warm_ns[-1], capture)
            times.time(step, before)
            recorded = profiled_steps(step, profiled, context)  # which writes into the manifest, too
            capture.manifest = replace(capture.manifest, profiled_steps=recorded)
        with capture.stage("timing"), collector_paused():
            context.progress("timing", before, steps)
            times.time(step, steps - before)
            capture.manifest = replace(capture.manifest, empty_call_ns=empty_call_ns())


def _counts(plan: Plan, step_ns: int, capture: CaptureDirectory) -> tuple[int, int, int]:
    """Return how many steps to time, how many of these before the profile, and how many to profile."""
    affordable = RESERVED_SHARE * plan.seconds_left() * 1e9 / 2 / max(step_ns, 1)
    steps = max(1, plan.steps if affordable > plan.steps else int(affordable))
    if steps < plan.steps:
        capture.note(f"The time budget allowed {steps} steps instead of {plan.steps}.")
    profiled = min(steps, MOST_STEPS)
    if profiled < steps:
        capture.note(f"Only {profiled} of {steps} steps were profiled: later ones would lack the cheap ops.")
    return steps, min(steps // 3, MOST_STEPS - profiled), profiled
