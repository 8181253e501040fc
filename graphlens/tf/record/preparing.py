"""From an opened target to a step that can be called: traced for its inputs' shapes, with inputs made."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from graphlens.config import DEFAULT_STEPS
from graphlens.errors import ExecutionError, first_line
from graphlens.ir.capture import MAIN, CapturedProgram
from graphlens.loaders.capture.writing import CaptureDirectory
from graphlens.tf import private
from graphlens.tf.open import following, guessing, inputs
from graphlens.tf.open.opened import Opened, Traced
from graphlens.tf.record import graphs, layers
from graphlens.tf.record.clock import synchronous


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

    ``random_tensors`` makes other inputs of the same shapes from a seed, all but those that decide how much work
    a step is.
    """

    traced: Traced
    graph_def: Any
    specs: Sequence[inputs.InputSpec]
    tensors: Sequence[Any]
    step: Callable[[], Any]
    random_tensors: Callable[[int], Sequence[Any]]


def trace(opened: Opened, plan: Plan, capture: CaptureDirectory) -> tuple[Traced, Any, tuple[inputs.InputSpec, ...]]:
    """Trace the target for its inputs' shapes and write the traced graph; nothing is executed."""
    with capture.stage("trace"):
        capture.note(*opened.notes)
        target = replace(capture.manifest.target, signature=opened.signature)
        capture.manifest = replace(capture.manifest, training=opened.training, target=target)
        layers.watch()
        known = {**_examples(opened, plan).values, **plan.arrays}
        asked = _told_by_graph(opened, {*plan.shapes, *known})
        capture.note(*(_guess_in_words(spec) for spec in asked if spec.guessed))
        specs = inputs.resolve(asked, plan.shapes, plan.batch, known)
        traced = _traced(opened, specs)
        name = private.function_name(traced.concrete)
        capture.write_program(CapturedProgram(MAIN, name, main=True, signature=opened.signature))
        graph_def = traced.concrete.graph.as_graph_def(add_shapes=True)
        if opened.kind != "saved_model":  # the parent reads that one from its file, where nothing was renamed
            graphs.write_traced(capture, traced.concrete, graph_def)
    return traced, graph_def, _placed(specs, traced)


def _by_all_names(opened: Opened, plan: Plan) -> Plan:
    shapes, arrays = (inputs.under_all_names(opened.specs, given) for given in (plan.shapes, plan.arrays))
    return replace(plan, shapes=shapes, arrays=arrays)


def _examples(opened: Opened, plan: Plan) -> inputs.Examples:
    return inputs.usable(opened.examples, opened.specs, {*plan.shapes, *plan.arrays}, plan.batch)


def _told_by_graph(opened: Opened, given: set[str]) -> tuple[inputs.InputSpec, ...]:
    """Return the inputs with what the graph says of sizes that the target leaves open, where it can be traced so."""
    if not guessing.may_be_told(opened.specs, given):
        return opened.specs
    try:
        traced = opened.trace(opened.specs)
    except Exception:  # the user's own code may need to know sizes: it is traced again once they are
        return opened.specs
    graph = following.graph_of(traced.concrete.graph.as_graph_def(add_shapes=True))
    return guessing.told(_placed(opened.specs, traced), given, graph)


def _guess_in_words(spec: inputs.InputSpec) -> str:
    sizes = ",".join("1" if size is None else str(size) for size in spec.shape or ())
    return f"Input '{spec.name}': {spec.guessed}; --shape {spec.name}={sizes} with other numbers gives another one."


def prepare(opened: Opened, plan: Plan, capture: CaptureDirectory) -> Prepared:
    """Trace the target and make its inputs."""
    plan = _by_all_names(opened, plan)
    traced, graph_def, specs = trace(opened, plan, capture)
    refusal = plan.refuse(graph_def)
    if refusal is not None:
        raise ExecutionError(refusal)
    _note_placement(capture, graph_def)
    followed = following.graph_of(graph_def, graphs.captured_shapes(traced.concrete))
    made = inputs.make(specs, plan.arrays, followed, _examples(opened, plan))
    capture.manifest = replace(capture.manifest, inputs=tuple(one.captured() for one in made))
    tensors = [_tensor(one) for one in made]

    kept = inputs.deciding(made, followed)

    def random_tensors(seed: int) -> list[Any]:
        return [_tensor(one) for one in inputs.make(specs, kept, followed, seed=seed)]

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
