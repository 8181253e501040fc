"""The recording of a dataset: its graph, how fast its elements come, and a profile of some of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import tensorflow as tf

from graphlens.collector import collector_paused
from graphlens.errors import ExecutionError, first_line
from graphlens.ir.capture import MAIN, CapturedProgram
from graphlens.ir.pipelines import DATASET
from graphlens.loaders.capture.collecting import Context, Progress
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.tf import private
from graphlens.tf.datasets import reading
from graphlens.tf.open.datasets import Elements
from graphlens.tf.open.opened import Opened
from graphlens.tf.record import environment
from graphlens.tf.record.clock import empty_call_ns
from graphlens.tf.record.collectors.profile import profiled_steps
from graphlens.tf.record.preparing import Plan

# Elements come in bursts where several are made at a time: a block is long beside what makes one.
BLOCKS: Final = 20
BLOCK_S: Final = 0.1
FEWEST_IN_BLOCK: Final = 4
WARM_UP_S: Final = 0.5  # what was made ahead is used up then, and TensorFlow has chosen its threads
PROFILED_S: Final = 0.5
MOST_PROFILED: Final = 400  # elements: each leaves some ten events for each of its stages
SHARE_OF_TIME: Final = 0.5  # of what is left
LONGEST_S: Final = 120.0  # for both together, where elements are slow and nobody set a limit


def record(opened: Opened, plan: Plan, capture: CaptureDirectory, progress: Progress, mode: str) -> None:
    """Write down the pipeline of an opened dataset, and measure it unless only its graph is wanted.

    Raises
    ------
    ExecutionError
        If it has no element, or making one fails.
    """
    _write_pipeline(opened.owner, capture)
    if mode == "trace":
        return
    try:
        _measure(opened, plan, Context(capture, progress, plan.seconds_left))
    except tf.errors.OpError as error:
        raise ExecutionError(f"the dataset failed on an element: {_told(error)}") from error


def _told(error: tf.errors.OpError) -> str:
    """Return what a stage says in one line, without the nodes that it came through.

    >>> _told(tf.errors.InvalidArgumentError(None, None, "{{function_node f}} Error in {{node x}} here [Op:Next]"))
    'Error in here'
    """
    return " ".join(_NODES.sub("", first_line(error)).split())


_NODES: Final = re.compile(r"\{\{\w+ [^}]*\}\}|\[Op:\w+\].*$")


def _write_pipeline(dataset: Any, capture: CaptureDirectory) -> None:
    with capture.stage("dataset"):
        pipeline, notes = reading.pipeline_of(dataset, DATASET)
        capture.note(*notes)
        target = replace(capture.manifest.target, kind=DATASET)
        capture.manifest = replace(capture.manifest, pipelines=(pipeline,), target=target)


def _measure(opened: Opened, plan: Plan, context: Context) -> None:
    capture = context.capture
    element_ns = _timed(opened, plan, context)
    with capture.stage("profile"), collector_paused():
        traced = opened.trace(())
        capture.write_program(CapturedProgram(MAIN, private.function_name(traced.concrete), main=True))
        wanted = max(plan.steps, min(MOST_PROFILED, int(PROFILED_S * 1e9 / max(1, min(element_ns)))))
        fitting = int(SHARE_OF_TIME * min(plan.seconds_left(), LONGEST_S) * 1e9 / max(element_ns))
        _repeated(lambda: traced.call(()), WARM_UP_S, 1)
        profiled = profiled_steps(lambda: traced.call(()), max(1, min(wanted, fitting)), context)
        capture.manifest = replace(capture.manifest, profiled_steps=profiled)


def _timed(opened: Opened, plan: Plan, context: Context) -> list[int]:
    """Write down what an element takes while nothing is profiled; nothing runs on behalf of it afterwards."""
    capture, elements = context.capture, Elements(opened.owner)
    capture.manifest = replace(capture.manifest, environment=environment.describe())
    with capture.stage("timing"), collector_paused():
        context.progress("timing elements", 0, 0)
        element_ns = _timed_blocks(elements, SHARE_OF_TIME * min(plan.seconds_left(), LONGEST_S))
        capture.manifest = replace(capture.manifest, unprofiled_ns=tuple(element_ns), empty_call_ns=empty_call_ns())
    return element_ns


def _timed_blocks(elements: Elements, most_s: float) -> list[int]:
    """Return what an element takes, in each of some blocks of them: the time of the block by their number.

    Raises
    ------
    ExecutionError
        If there is none.
    """
    end_s, step = time.monotonic() + most_s, elements.next
    step()
    _repeated(step, min(WARM_UP_S, most_s / 4), 1)
    found: list[int] = []
    while len(found) < BLOCKS and (not found or time.monotonic() < end_s):
        begun_ns = time.perf_counter_ns()
        count = _repeated(step, BLOCK_S, FEWEST_IN_BLOCK)
        found.append((time.perf_counter_ns() - begun_ns) // count)
    return found


def _repeated(step: Callable[[], Any], seconds: float, fewest: int) -> int:
    """Take elements for so long, and ``fewest`` at least; return how many."""
    end_ns = time.perf_counter_ns() + seconds * 1e9
    count = 0
    while count < fewest or time.perf_counter_ns() < end_ns:
        step()
        count += 1
    return count
