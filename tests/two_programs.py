"""A capture of two programs, made without TensorFlow: a training step, of which it was made, and an evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from load_helpers import add_function, graph_def
from test_load_xplane import HostPlane

from graphlens.ir.capture import MAIN, CapturedInput, CapturedProgram, CapturedTarget, CapturedVariable
from graphlens.loaders.capture.parts import EXECUTED_FOLDER, PROFILE, REPLAY, TRACED
from graphlens.loaders.capture.writing import CaptureDirectory, ProgramParts

TRAIN, EVALUATE = "__inference_train_step_12", "__inference_evaluate_34"
TRAIN_NS, EVALUATE_NS = 800_000, 300_000  # of each call
CALLS = 6
MODULE = """HloModule {name}, is_scheduled=true

ENTRY %main (p: f32[2]) -> f32[2] {{
  %p = f32[2]{{0}} parameter(0)
  ROOT %neg = f32[2]{{0}} negate(%p), metadata={{op_type="Neg" op_name="layer/Neg"}}
}}
"""


class Called(NamedTuple):
    """A function that ran: its name, how long it took, and its one op."""

    name: str
    ns: int
    node: str
    op: str


CALLED = (Called(TRAIN, TRAIN_NS, "train/neg", "Neg"), Called(EVALUATE, EVALUATE_NS, "eval/abs", "Abs"))


def profile(*called: Called, marked: bool = False) -> bytes:
    """Each function in turn, as its executor and the eager runtime show it; ``marked``: with our own step markers."""
    plane, now_ns = HostPlane(), 0
    for number in range(CALLS):
        for one in called or CALLED:
            step_id = 1 + now_ns  # any number that no other call has
            end_ns = now_ns + one.ns
            if marked and one is (called or CALLED)[0]:
                plane.event("graphlens_step", now_ns, end_ns, step_num=number, _r=1)
            plane.event("EagerExecute", now_ns, end_ns, is_func=1, eager_op=one.name)
            plane.event("FunctionRun", now_ns + 10, now_ns + 20, id=step_id)
            plane.event("ExecutorState::Process", now_ns + 30, end_ns - 20, thread=2, id=step_id, iter_num=0)
            plane.event(f"{one.node}:{one.op}", now_ns + 40, end_ns - 40, thread=2)
            now_ns = end_ns + 50
    return bytes(plane.space.SerializeToString())


def traced(called: Called) -> bytes:
    """The graph of one function: an argument, and an op on it."""
    return bytes(graph_def(("x", "Placeholder", ()), (called.node, called.op, ("x",))).SerializeToString())


def executed(called: Called) -> bytes:
    """The same as it ran."""
    return bytes(graph_def(("x", "_Arg", ()), (called.node, called.op, ("x",))).SerializeToString())


def write(place: Path, recorded: bytes, main: str = TRAIN, other: str = EVALUATE) -> CaptureDirectory:
    """Write the capture, with the evaluation as the further program, into the folder ``place``."""
    capture = CaptureDirectory(place, CapturedTarget("train.py", "callable"))
    train, evaluate = CALLED
    capture.write(TRACED, traced(train))
    capture.write(f"{EXECUTED_FOLDER}0.pb", executed(train))
    capture.write(PROFILE, recorded)
    capture.write(
        REPLAY, b'{"train/neg": {"calls": 1, "durations_ns": [5]}, "eval/abs": {"calls": 7, "durations_ns": [9]}}'
    )
    capture.manifest = replace(
        capture.manifest, executed=(f"{EXECUTED_FOLDER}0.pb",), unprofiled_ns=(TRAIN_NS,) * CALLS
    )
    capture.write_program(CapturedProgram(MAIN, main, main=True, role="step"))
    function = graph_def()
    add_function(function, "root", [(evaluate.node, evaluate.op, ("x",))], args=("x",), results={"y": "eval/abs:y:0"})
    capture.write_program(
        CapturedProgram(
            capture.id_for("evaluation"),
            other,
            role="eval",
            signature="called",
            training=False,
            traced_root="root",
            variables={"x": CapturedVariable("weights", "float32", (2,), trainable=True)},
            executed_root_arguments={"x": CapturedVariable("weights", "float32", (2,), trainable=True)},
            inputs=(CapturedInput("x", "float32", (2,), "example"),),
        ),
        ProgramParts(
            traced=function.SerializeToString(),
            optimized=executed(evaluate),
            executed=[executed(evaluate)],
            hlo=[MODULE.format(name="evaluated")],
        ),
    )
    return capture


def write_program_manifest(place: Path, **changed: Any) -> None:
    """Change the entry of the evaluation in the manifest, whatever a recorder would say to that."""
    file = place / "capture.json"
    manifest = json.loads(file.read_text())
    manifest["programs"][1].update(changed)
    file.write_text(json.dumps(manifest))
