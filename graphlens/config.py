"""What the user asks for: one frozen request, made by the command line or by the Python API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

DEFAULT_STEPS: Final = 30  # the sampling error of a per-op median is then 2 to 5 %
MOST_STEPS: Final = 47  # with warm-up calls 50 in all: beyond that the profiler drops cheap ops

# Recording a model takes seconds to a few minutes; a child that is silent for longer hangs.
DEFAULT_TIME_BUDGET_S: Final = 1800.0
DEFAULT_PROOF_BUDGET_S: Final = 60.0

# Some hundred steps of most programs, and a profile of a few megabytes.
DEFAULT_SERVICE_DURATION_S: Final = 2.0

# `progress(what, done, of)`; `of` is 0 when the amount of work is not known.
Progress = Callable[[str, int, int], None]


def no_progress(what: str, done: int, of: int) -> None:
    """Report progress to nobody."""


@dataclass(frozen=True, slots=True)
class Request:
    """One analysis or recording, as asked for.

    Attributes
    ----------
    target
        What the user wrote: a path or ``package.module:callable``; empty where programs elsewhere are recorded and
        their graph is not at hand.
    shapes
        Input name -> shape, for inputs whose shape the model leaves open.
    time_budget_s
        What recording may take, and again what all proofs may take; ``None`` for the defaults of both.
    static
        Never execute the model.
    prove
        Apply the fixes of findings to copies and measure them.
    profile
        A profile that was recorded elsewhere: the target is judged with it and not run.
    trust
        Execute although the graph holds ops that touch files, network or Python.
    keep_run
        A run of a log folder in which to leave the profile as TensorBoard and XProf read it.
    assume_device
        Predict the placement on a device that this machine does not have: ``gpu`` or ``gpu:NAME``.
    program
        The program to judge, of several that ran; ``None``: the one with most time.
    keep_unplaced
        Keep the graph as TensorFlow hands it to its placer, so that a placement can be predicted elsewhere.
    """

    target: str
    signature: str | None = None
    tag: str | None = None
    inputs: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    batch: int | None = None
    steps: int = DEFAULT_STEPS
    time_budget_s: float | None = None
    static: bool = False
    prove: bool = True
    trust: bool = False
    profile: str | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    keep_run: Path | None = None
    assume_device: str | None = None
    keep_unplaced: bool = False
    program: str | None = None
