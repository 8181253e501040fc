"""The measurement of one opened target, stage by stage, into a capture directory."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from graphlens.config import DEFAULT_STEPS
from graphlens.errors import ExecutionError, UsageError
from graphlens.ir.capture import MAIN, CapturedProgram
from graphlens.ir.run import STEP_MARKER
from graphlens.loaders.capture.parts import PROFILE
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.tf import private
from graphlens.tf.errors import first_line
from graphlens.tf.open import consumers, inputs
from graphlens.tf.open.opened import Opened, Traced
from graphlens.tf.record import dump, environment, graphs, hlo
from graphlens.tf.record.clock import empty_call_ns, synchronous, timed, timed_steps, without_garbage_collection

WARM_UP_CALLS = 2
# After some 90 executions the runtime drops an op that it found to be cheap from the profile.  All calls up to the
# end of the profile stay below this, with a margin for ops that run twice a step.
CALLS_BEFORE_OPS_VANISH = 50
# An event is recorded when it ends, and threads end theirs a moment after the result of the last step is there; on a
# busy machine they wait for a processor first.
SETTLING_S = 0.05
ROOF_SHARE = 0.25  # of the time left that measuring the machine itself may use
RESERVED_SHARE = 0.5  # of the time left that profiled and unprofiled steps may use; replay and writing need the rest

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """What the user asked for; ``before_placer``: to keep the graph as it is before placement, too."""

    steps: int = DEFAULT_STEPS
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    batch: int | None = None
    arrays: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float | None = None  # on the clock of time.monotonic
    refuse: Callable[[Any], str | None] = lambda _: None  # why a traced graph must not be executed, if so
    xla_dump: Path | None = None
    before_placer: bool = False

    def seconds_left(self) -> float:
        """Return how long optional work may still take."""
        return float("inf") if self.deadline_s is None else self.deadline_s - time.monotonic()


@dataclass(frozen=True)
class Prepared:
    """A traced function with its inputs made; ``step`` runs it once and returns when its outputs are complete.

    ``random_tensors`` makes other inputs of the same shapes from a seed.
    """

    traced: Traced
    graph_def: Any
    specs: Sequence[inputs.InputSpec]
    tensors: Sequence[Any]
    step: Callable[[], Any]
    random_tensors: Callable[[int], Sequence[Any]]


def trace(opened: Opened, plan: Plan, capture: CaptureDirectory) -> tuple[Traced, Any, tuple[inputs.InputSpec, ...]]:
    """Trace the target for its inputs' shapes and write the traced graph; nothing is executed."""
    with _stage(capture, "trace"):
        capture.note(*opened.notes)
        capture.content["training"] = opened.training
        capture.content["target"]["signature"] = opened.signature
        examples = {name: value for name, value in opened.examples.items() if name not in plan.shapes}
        if plan.batch is not None and examples:
            raise UsageError("--batch does not change the target's own example arguments: use --shape NAME=… instead")
        specs = inputs.resolve(opened.specs, plan.shapes, plan.batch, {**examples, **plan.arrays})
        traced = _traced(opened, specs)
        name = private.function_name(traced.concrete)
        capture.write_program(CapturedProgram(MAIN, name, main=True, signature=opened.signature))
        graph_def = traced.concrete.graph.as_graph_def(add_shapes=True)
        if opened.kind != "saved_model":  # the parent reads that one from its file, where nothing was renamed
            graphs.write_traced(capture, traced.concrete, graph_def)
    return traced, graph_def, _placed(specs, traced)


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
        _record(prepare(opened, plan, capture), plan, capture, progress)
    finally:
        if plan.xla_dump is not None:
            shutil.rmtree(plan.xla_dump, ignore_errors=True)


def _record(prepared: Prepared, plan: Plan, capture: CaptureDirectory, progress: Progress) -> None:
    with _stage(capture, "graphs"):
        progress("first step", 0, 1)
        partitions = _first_step(capture, prepared, plan)
        capture.content["environment"] = environment.describe()
    _measure_steps(prepared, plan, capture, progress)
    if partitions:
        progress("measuring the machine", 0, 1)
        _optional(capture, plan, "roof", lambda: _roof(capture, plan, partitions))
    _optional(
        capture, plan, "hlo", lambda: hlo.write(capture, prepared.traced.concrete, prepared.tensors, plan.xla_dump)
    )
    if private.is_jit_compiled(prepared.traced.concrete):
        return  # replayed op by op it would show ops that never ran as such
    progress("replaying", 0, 1)
    _optional(capture, plan, "replay", lambda: _replay(capture, prepared, partitions))


def prepare(opened: Opened, plan: Plan, capture: CaptureDirectory) -> Prepared:
    """Trace the target and make its inputs."""
    traced, graph_def, specs = trace(opened, plan, capture)
    refusal = plan.refuse(graph_def)
    if refusal is not None:
        raise ExecutionError(refusal)
    _note_placement(capture, graph_def)
    followed = consumers.graph_of(graph_def, graphs.captured_shapes(traced.concrete))
    made = inputs.make(specs, plan.arrays, followed, opened.examples)
    capture.content["inputs"] = [one.as_json() for one in made]
    tensors = [_tensor(one) for one in made]

    def random_tensors(seed: int) -> list[Any]:
        return [_tensor(one) for one in inputs.make(specs, {}, followed, seed=seed)]

    return Prepared(traced, graph_def, specs, tensors, synchronous(lambda: traced.call(tensors)), random_tensors)


def _traced(opened: Opened, specs: Sequence[inputs.InputSpec]) -> Traced:
    try:
        return opened.trace(specs)
    except Exception as error:  # tracing runs the user's own code
        raise ExecutionError(f"tracing the function failed: {first_line(error)}") from error


def _placed(specs: Sequence[inputs.InputSpec], traced: Traced) -> tuple[inputs.InputSpec, ...]:
    names = [tensor.op.name for tensor in private.arguments(traced.concrete)]
    if len(names) != len(specs):  # a composite tensor is one input and several placeholders
        return tuple(specs)
    return tuple(replace(spec, placeholder=name) for spec, name in zip(specs, names, strict=True))


def _tensor(made: inputs.Input) -> Any:
    if made.spec.dtype == "bfloat16":
        return tf.cast(made.value, tf.bfloat16)
    return tf.convert_to_tensor(made.value, dtype=made.spec.dtype)


def _note_placement(capture: CaptureDirectory, graph_def: Any) -> None:
    functions = (node for function in graph_def.library.function for node in function.node_def)
    asked = {node.device for nodes in (graph_def.node, functions) for node in nodes if "GPU" in node.device.upper()}
    if asked and not tf.config.list_physical_devices("GPU"):
        capture.note("The graph asks for a GPU: its GPU placement was not honoured, since this machine has no GPU.")


# -- steps ---------------------------------------------------------------------------------------------------------


def _first_step(capture: CaptureDirectory, prepared: Prepared, plan: Plan) -> list[Any]:
    concrete = prepared.traced.concrete
    graphs.write_renamed(capture, concrete)

    def step() -> list[Any]:
        return graphs.write_executed(capture, concrete, prepared.step)

    try:
        partitions = dump.recorded(capture, concrete, prepared.graph_def, step) if plan.before_placer else step()
    except tf.errors.OpError as error:
        raise ExecutionError(f"the model failed on its first step: {first_line(error)}; {_advice(error)}") from error
    if not capture.content["executed"] and private.is_jit_compiled(concrete):
        capture.note("The whole function is compiled by XLA: there is no executed TensorFlow graph, only HLO.")
    return partitions


def _advice(error: Exception) -> str:
    if isinstance(error, tf.errors.ResourceExhaustedError) or "MemoryError" in str(error):
        return "it needs more memory than this machine gives it; try a smaller --batch"
    if "No OpKernel" in str(error) or isinstance(error, tf.errors.UnimplementedError):
        return "this TensorFlow build cannot run it; use the version or device that the model was made for"
    if "pyfunc" in str(error):
        return "it calls back into the Python program that saved it; give that program's function as module:callable"
    if "ninitialized" in str(error) or isinstance(error, tf.errors.FailedPreconditionError):
        return "its variables or tables have no values in this file; give the SavedModel or a frozen graph"
    return "if its inputs are at fault, give real ones with --inputs FILE.npz"


def _measure_steps(prepared: Prepared, plan: Plan, capture: CaptureDirectory, progress: Progress) -> None:
    with _stage(capture, "profile"), without_garbage_collection():
        warm_ns = [timed(prepared.step) for _ in range(WARM_UP_CALLS)]
        steps, before, profiled = _counts(plan, warm_ns[-1], capture)
        unprofiled = timed_steps(prepared.step, before)
        capture.content["unprofiled_ns"] = unprofiled
        capture.content["profiled_steps"] = _profile(prepared.step, profiled, capture, progress)
    with _stage(capture, "timing"), without_garbage_collection():
        progress("timing", before, steps)
        unprofiled += timed_steps(prepared.step, steps - before)
        capture.content["empty_call_ns"] = empty_call_ns()


def _counts(plan: Plan, step_ns: int, capture: CaptureDirectory) -> tuple[int, int, int]:
    """Return how many steps to time, how many of these before the profile, and how many to profile."""
    affordable = RESERVED_SHARE * plan.seconds_left() * 1e9 / 2 / max(step_ns, 1)
    steps = max(1, plan.steps if affordable > plan.steps else int(affordable))
    if steps < plan.steps:
        capture.note(f"The time budget allowed {steps} steps instead of {plan.steps}.")
    room = CALLS_BEFORE_OPS_VANISH - WARM_UP_CALLS - 1
    profiled = min(steps, room)
    if profiled < steps:
        capture.note(f"Only {profiled} of {steps} steps were profiled: later ones would lack the cheap ops.")
    return steps, min(steps // 3, room - profiled), profiled


def _profile(step: Callable[[], Any], count: int, capture: CaptureDirectory, progress: Progress) -> int:
    """Profile ``count`` steps; returns how many were, 0 when the profiler is not available."""
    folder = capture.path / "profile.part"
    try:
        tf.profiler.experimental.start(str(folder))
    except (tf.errors.OpError, ImportError, AttributeError) as error:
        capture.fail("profile", f"TensorFlow's profiler did not start: {first_line(error)}")
        return 0
    try:
        for number in range(count):
            with tf.profiler.experimental.Trace(STEP_MARKER, step_num=number, _r=1):
                step()
            progress("profiling", number + 1, count)
        time.sleep(SETTLING_S)
    finally:
        tf.profiler.experimental.stop()
    for found in folder.rglob("*.xplane.pb"):
        # The profiler writes down where it wrote; dots of the same length keep the message valid and say less.
        own_name = str(folder).encode()
        capture.write(PROFILE, found.read_bytes().replace(own_name, b"." * len(own_name)))
    shutil.rmtree(folder, ignore_errors=True)
    return count


def _replay(capture: CaptureDirectory, prepared: Prepared, partitions: Sequence[Any]) -> None:
    from graphlens.tf.record import replay

    replay.write(capture, prepared.traced.concrete, prepared.tensors, prepared.graph_def, partitions)


def _roof(capture: CaptureDirectory, plan: Plan, partitions: Sequence[Any]) -> None:
    from graphlens.tf.record import roofline

    if ROOF_SHARE * plan.seconds_left() < roofline.SECONDS:
        capture.note("The time budget was too short to measure what this machine can do at best.")
        return
    roofline.write(capture, partitions)


# -- stages --------------------------------------------------------------------------------------------------------


@contextmanager
def _stage(capture: CaptureDirectory, name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    capture.finish(name, time.monotonic() - start)


def _optional(capture: CaptureDirectory, plan: Plan, name: str, work: Callable[[], None]) -> None:
    """Do a stage that the report can live without, unless the time is spent; its failure is noted, not fatal."""
    if plan.seconds_left() <= 0:
        capture.note(f"The time budget was spent before the stage '{name}'.")
        return
    try:
        with _stage(capture, name):
            work()
    except Exception as error:  # whatever TensorFlow throws here, the measurement is already complete
        capture.fail(name, f"the stage '{name}' failed: {first_line(error)}")
