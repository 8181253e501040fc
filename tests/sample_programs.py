"""Analyses of several programs, of steps that differ, and of a measurement that cannot be; their facts are invented."""

from __future__ import annotations

from dataclasses import replace

from graphlens.ir.analysis import CONTRADICTION, Quality
from graphlens.ir.failure import AnalysisError
from graphlens.ir.measured import ProgramRow, ProgramTrace, StepKind, StepTime
from tests.sample_document import RICH, STATIC

TRAIN = StepTime(21_000_000, 15_100_000, 30_100_000, 15, period_ns=23_100_000)
TRACED = ProgramTrace("the function was traced by Python or compiled by XLA in this call", 177_000_000)

EVALUATED = StepTime(6_900_000, 6_200_000, 12_200_000, 7)
MAPPED = StepTime(133_000, 79_000, 278_000, 24)
INITIALIZED = StepTime(7_800_000, 7_800_000, 7_800_000, 1)
STAGES = tuple(f"Iterator::Root::{stage}" for stage in ("Map", "ParallelMap", "Prefetch", "Zip"))

PROGRAMS = (
    ProgramRow("train_946", "__inference_train_946", "step", 16, 16, TRAIN, 0.39),
    ProgramRow("train_988", "__inference_train_988", "eval", 8, 8, EVALUATED, 0.25, traces=(TRACED,)),
    *(ProgramRow(stage, stage, "dataset", 24, 24, MAPPED, 0.004) for stage in STAGES),
    ProgramRow("initialize", "__inference_initialize_7", "initialization", 1, 1, INITIALIZED, 0.01),
)

SEVERAL = replace(RICH, step=TRAIN, programs=PROGRAMS)

# One call holds four steps; the other program is what the first one calls by itself.
IN_A_LOOP = replace(
    RICH,
    step=replace(TRAIN, period_ns=109_000_000),
    programs=(
        ProgramRow("fit", "__inference_fit_3", "step", 4, 16, replace(TRAIN, period_ns=109_000_000), 0.91),
        ProgramRow("evaluate", "__inference_evaluate_4", "eval", 1, 2, TRAIN, 0.05),
    ),
)

BY_TURNS = replace(
    RICH,
    step=StepTime(
        24_000_000, 23_000_000, 43_500_000, 16, mean_ns=29_000_000, cycle=4,
        kinds=(StepKind(12, 24_000_000, 62), StepKind(4, 43_000_000, 236)), period_ns=24_500_000,
    ),
)  # fmt: skip

# What is judged when a step is shorter than what ran in it: the graphs alone.
WHY_NOT = (
    "ops ran for 5.72 s on 2 threads within 15 steps of 100 us in all: what was taken for the steps of this profile is "
    "not one, so no time is shown"
)
ALARM = replace(
    STATIC,
    quality=Quality("none", reasons=(f"no measurement: {WHY_NOT}",)),
    errors=(AnalysisError(CONTRADICTION, WHY_NOT),),
)
