"""Everything that is known about one target before it is judged: graphs, profile, step times, notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphlens.ir.analysis import Target
from graphlens.ir.devices import Copy, Placement, Roof
from graphlens.ir.failure import AnalysisError
from graphlens.ir.fusion import FusionAnswer
from graphlens.ir.graph import Graph
from graphlens.ir.inputs import InputRow
from graphlens.ir.nodes import PythonFunction, TensorSpec
from graphlens.ir.pipelines import WrittenPipeline
from graphlens.ir.program import Program
from graphlens.ir.replicas import Replicas
from graphlens.ir.run import Profile, ReplayRecord
from graphlens.ir.script import Script
from graphlens.ir.training import LayerScope


@dataclass(frozen=True, slots=True)
class Evidence:
    """The input of the judge; every part but ``target`` may be missing.

    Attributes
    ----------
    traced, optimized, executed
        The three stages of the function.  ``executed`` joins the partitions of all devices in one root function.
    profile
        The events of the profiled steps.
    profile_path
        Where the profile was read from when it was not recorded together with the graphs.
    unprofiled_ns
        Wall times of single steps of the same function without the profiler.
    empty_call_ns
        Wall time of calling a function that computes nothing, in the same process.
    replay
        What the second route saw, by the op's name in the executed graph (runtime name).
    renamed
        Runtime name -> name in the traced graph of the root's ops that the runtime calls otherwise; ``None`` where the
        recorder did not say.
    scopes
        Scope in the traced graph, without the places that functions are called from -> the Keras layer whose ops stand
        there, as noted while it was traced; empty where nobody noted it.
    hlo
        The optimized HLO modules of XLA-compiled functions, as graphs named by module.
    training
        Whether the target is a training step (``None``: unknown).
    fusion_answers
        Why ops were not fused, as found out by experiments, by the key of the candidate (``facts.fusion``).
    roof
        What the machine of the run can do at best, as measured beside the model.
    placement
        The simulated placement on a device that the machine does not have.
    placement_copies
        The copies of that placement.
    program
        The name of the program to judge, or a part of it; ``None``: the one with most time.
    programs
        The programs whose graphs are known; those of the judged one are ``traced``, ``optimized`` and ``executed``.
    inputs
        What the caller of the judged program handed over, in order; empty where nothing is known of it.
    fed
        What its inputs were fed, and where that came from; empty where nobody said.
    judged
        The id of the judged one among ``programs``; ``None`` where its graphs are not known, or there are none.
    script
        What was seen of the script that ran; ``None`` where GraphLens ran the program itself, or nobody watched it.
    pipelines
        The input pipelines that ran, as written; of a dataset as target, that.
    callbacks
        The Python functions that the graphs call back, by the attribute ``token`` of the ops that do.
    replicas
        The replicas of many hosts, whose profiles were read one after the other: ``profile`` is that of one.
    static_reason
        Why nothing was executed (``--static`` was given, unsafe ops, an error), ``None`` when it was executed.
    """

    target: Target
    environment: Mapping[str, Any] = field(default_factory=dict)
    traced: Graph | None = None
    optimized: Graph | None = None
    executed: Graph | None = None
    profile: Profile | None = None
    profile_path: str | None = None
    unprofiled_ns: tuple[int, ...] = ()
    empty_call_ns: int | None = None
    replay: Mapping[str, ReplayRecord] = field(default_factory=dict)
    renamed: Mapping[str, str] | None = None
    hlo: Mapping[str, Graph] = field(default_factory=dict)
    training: bool | None = None
    static_reason: str | None = None
    notes: tuple[str, ...] = ()
    errors: tuple[AnalysisError, ...] = ()
    fusion_answers: Mapping[str, FusionAnswer] = field(default_factory=dict)
    roof: Roof | None = None
    placement: Placement | None = None
    placement_copies: tuple[Copy, ...] = ()
    program: str | None = None
    programs: tuple[Program, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    fed: tuple[InputRow, ...] = ()
    judged: str | None = None
    script: Script | None = None
    scopes: Mapping[str, LayerScope] = field(default_factory=dict)
    replicas: Replicas | None = None
    pipelines: tuple[WrittenPipeline, ...] = ()
    callbacks: Mapping[str, PythonFunction] = field(default_factory=dict)

    @property
    def is_about_main(self) -> bool:
        """Whether the judged program is the one of which the recording was made, if it was made of one."""
        return not self.programs or any(one.main and one.id == self.judged for one in self.programs)
