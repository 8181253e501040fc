"""An analysis of a script that trains: its programs, traces, period, phases, layers and a step; all facts invented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from graphlens.ir.analysis import Target
from graphlens.ir.measured import CriticalPath, ProgramRow, ProgramTrace, StepTime
from graphlens.ir.run import LedgerRow
from graphlens.ir.training import (
    LayerRow,
    Period,
    Phase,
    PhaseRow,
    Timeline,
    TimelineLane,
    TimelineSpan,
    Training,
)
from tests.sample_document import HOSTILE_NAMES, RICH, hostile

STEP = StepTime(8_000_000, 7_600_000, 9_100_000, 30, period_ns=12_000_000)

MAPPED = StepTime(60_000, 55_000, 90_000, 30)

# layer -> kind and its forward, backward and optimizer time, us
LAYERS = {
    "network/first": ("Conv2D", 1_500, 3_000, 300),
    "network/first_norm": ("BatchNormalization", 700, 900, 120),
    "network/second": ("Conv2D", 900, 1_800, 400),
    "network/pool": ("GlobalAveragePooling2D", 40, 60, 0),
    "network/dense": ("Dense", 120, 230, 180),
    "network/dense_1": ("Dense", 20, 30, 50),
}
OP_NS = 12_000_000


def _layers() -> Iterator[LayerRow]:
    for number, (path, (kind, forward, backward, optimizer)) in enumerate(LAYERS.items()):
        parts = {"forward": forward * 1000, "backward": backward * 1000, "optimizer": optimizer * 1000}
        ns = sum(parts.values())
        by_phase = {phase: part for phase, part in parts.items() if part}
        yield LayerRow(path, ns, ns / OP_NS, by_phase, 12, kind, f"train.py:{20 + number}")


def _phases() -> Iterator[PhaseRow]:
    layers = list(_layers())
    outside = {"forward": 100_000, "backward": 150_000, "optimizer": 50_000}
    for phase in ("forward", "backward", "optimizer"):
        ns = sum(row.phases_ns.get(phase, 0) for row in layers) + outside[phase]
        yield PhaseRow(phase, ns, ns / OP_NS, 40)
    rest: tuple[tuple[Phase | None, int], ...] = (("input", 500_000), ("loss", 250_000), ("metrics", 300_000))
    known = sum(row.ns for row in layers) + sum(outside.values()) + sum(ns for _, ns in rest)
    for phase, ns in (*rest, (None, OP_NS - known)):
        yield PhaseRow(phase, ns, ns / OP_NS, 9)


TRAINING = Training(OP_NS, 0.994, 0.975, tuple(_phases()), tuple(_layers()))

PERIOD = Period(
    12_000_000, 30,
    (
        LedgerRow("ops of the step", 6_100_000),
        LedgerRow("Python between steps", 2_400_000, "overhead"),
        LedgerRow("executor: scheduling, control flow and ops too cheap to be timed", 1_200_000, "overhead"),
        LedgerRow("waiting for input", 1_300_000, "overhead"),
        LedgerRow("calling the function: Python and eager dispatch", 700_000, "overhead"),
        LedgerRow("unattributed", 300_000, "unattributed"),
    ),
    7_300_000,
)  # fmt: skip


def _of_thread(thread: int) -> Iterator[TimelineSpan]:
    """Fifty ops of three phases and of none, and a wait."""
    phases: tuple[Phase | None, ...] = ("forward", "loss", "backward", "optimizer", "metrics", None)
    at_ns, layers = 1_500_000 + 90_000 * thread, list(LAYERS)
    for number in range(50):
        phase = phases[min(number * 6 // 46, 5)]
        ns = 40_000 + 37_000 * ((number * 7 + thread * 3) % 9)
        name = f"StatefulPartitionedCall/{layers[number % 6]}/{'gradient_tape/' * (phase == 'backward')}Conv2D_{number}"
        yield TimelineSpan(name, "op", at_ns, ns, phase)
        at_ns += ns + 6_000 * (number % 4)


TIMELINE = Timeline(
    12_000_000,
    (
        TimelineLane(
            "python (MainThread)",
            (
                TimelineSpan("Python between steps", "python", 0, 1_100_000),
                TimelineSpan("IteratorGetNext", "wait", 1_100_000, 350_000, "input"),
                TimelineSpan("train_step", "call", 1_450_000, 9_600_000),
                TimelineSpan("float(loss)", "python", 11_100_000, 700_000),
            ),
        ),
        *(TimelineLane(f"tf_Compute/{thread}", tuple(_of_thread(thread))) for thread in range(4)),
        TimelineLane("tf_data_iterator_resource/7", (TimelineSpan("Map", "input", 200_000, 1_200_000),)),
    ),
    omitted=41,
)  # fmt: skip

TRACES = (
    ProgramTrace("traced", 900_000_000, "first", 0, 1),
    ProgramTrace("traced", 410_000_000, "variables", 900_000_000, 1),
    ProgramTrace(
        "traced", 320_000_000, "retrace", 4_200_000_000, 120,
        ("images: float32[64,32,32,3] became float32[40,32,32,3]",), 308_000_000,
    ),
    ProgramTrace(
        "traced", 330_000_000, "relaxed", 6_800_000_000, 190, ("images: float32[40,32,32,3] became float32[?,32,32,3]",)
    ),
    *(
        ProgramTrace(
            "traced", 300_000_000, "retrace", 9_000_000_000 + 700_000_000 * number, 240 + 10 * number,
            (f"rate: the Python value {number} became {number + 1}",), 288_000_000 if number else None,
        )
        for number in range(6)
    ),
)  # fmt: skip

PROGRAMS = (
    ProgramRow(
        "train_step", "__inference_train_step_946", "step", 30, 30, STEP, 0.61,
        traces=TRACES, calls=400, source="train.py:41",
    ),
    ProgramRow(
        "test_step", "__inference_test_step_1183", "eval", 6, 6, StepTime(2_000_000, 1_900_000, 2_300_000, 6), 0.08,
        traces=(ProgramTrace("traced", 350_000_000, "first", 5_000_000_000, 1),), calls=40, source="train.py:58",
    ),
    ProgramRow("Iterator::Root::Map", "Iterator::Root::Map", "dataset", 30, 30, MAPPED, 0.03),
)  # fmt: skip

OPS = tuple(
    replace(op, layer=list(LAYERS)[number % 4], phase=("forward", "backward")[number % 2])
    for number, op in enumerate(RICH.ops)
)

TRAINED = replace(
    RICH,
    target=Target("train.py", "script"),
    step=STEP,
    ledger=tuple(replace(row, ns=row.ns * 8_000_000 // 23_550_000) for row in RICH.ledger),
    ops=OPS,
    programs=PROGRAMS,
    critical_path=CriticalPath(5_000_000, tuple(op.name for op in OPS[:6])),
    training=TRAINING,
    period=PERIOD,
    timeline=TIMELINE,
    devices=(),
    copies=(),
    placement=None,
    distribution=None,
)


def hostile_parts(names: Sequence[str]) -> dict[str, Any]:
    """Return a training step of which every text is one of ``names``."""
    spans = tuple(TimelineSpan(name, "op", 100 * at, 90) for at, name in enumerate(names))
    layers = tuple(LayerRow(name, 10, 10 / 1000, {"forward": 10}, 1, name, name) for name in names)
    return {
        "training": Training(1000, 0.5, 0.5, (PhaseRow("forward", 1000, 1.0, 1),), layers),
        "period": Period(1000 * len(names), 3, tuple(LedgerRow(name, 1000) for name in names)),
        "timeline": Timeline(100 * len(names), tuple(TimelineLane(name, spans) for name in names)),
        "programs": tuple(
            ProgramRow(
                name, name, "step", 1, 2, STEP, 0.5, calls=3, source=name,
                traces=(ProgramTrace(name, 5), ProgramTrace(name, 5, "retrace", 7, 2, (name, *names), 3)),
            )
            for name in names
        ),
    }  # fmt: skip


HOSTILE = replace(hostile(), **hostile_parts(HOSTILE_NAMES))
