"""The one object that rules see: the derived facts of one piece of evidence, each computed when it is first asked for.

Functions that take the facts may derive more from them, in files above this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from graphlens.facts import (
    attribution,
    constants,
    costs,
    dataflow,
    decomposed,
    device_time,
    devices,
    executed,
    flat,
    fusion,
    kernel_work,
    ledger,
    memory,
    origins,
    paths,
    patterns,
    programs,
    quality,
    renames,
    roofline,
    rows,
    syncs,
    transfers,
)
from graphlens.facts.asked import Stage
from graphlens.facts.crossing import Kernels
from graphlens.facts.dataflow import dataflow_of
from graphlens.facts.inlining import inline
from graphlens.ir.analysis import CriticalPath, Figure, Quality, Saving, StepTime
from graphlens.ir.devices import Copy, DeviceRow, Distribution, Memory, Roofline
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Op, op_of, topological_order
from graphlens.ir.op_rows import OpRows
from graphlens.ir.run import Instruction, LedgerRow, OpTiming, Profile
from graphlens.ir.table import NO_OPS, Table


class Facts:
    """Facts about one piece of evidence.

    Graphs here are *flat*: functions are inlined, so that a node's name is the path of call sites plus the op's name
    (``StatefulPartitionedCall/model/conv/Conv2D``), which is also how the runtime names inlined ops.  They are
    tables, acyclic and immutable.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    # -- graphs ---------------------------------------------------------------------------------------------------

    @cached_property
    def traced(self) -> Table | None:
        """The graph as written, flat; ``None`` where only a profile is known."""
        return inline(self.evidence.traced) if self.evidence.traced else None

    @cached_property
    def executed(self) -> Table | None:
        """The graph that ran (all devices), flat; ``None`` when nothing was executed."""
        return executed.executed_graph(self.evidence, self.traced, self.profile)

    @property
    def stage(self) -> Stage:
        """Which graph is judged: the executed one where there is one."""
        return "executed" if self.evidence.executed or self.evidence.hlo else "traced"

    @cached_property
    def graph(self) -> Table:
        """The judged graph (see ``stage``); empty when neither is known."""
        if self.executed is not None:
            return self.executed
        return self.traced if self.traced is not None else NO_OPS

    def op(self, name: str) -> Op:
        """Return the op ``name`` of the judged graph."""
        return op_of(self.graph, name)

    @cached_property
    def order(self) -> Mapping[str, int]:
        """Position of every op of the judged graph in a topological order."""
        return {name: index for index, name in enumerate(topological_order(self.graph))}

    # -- programs -----------------------------------------------------------------------------------------------------

    @cached_property
    def programs(self) -> programs.Programs:
        """The programs of the profile, the judged one first."""
        return programs.programs_of(self.evidence.profile, self.evidence.program)

    @property
    def profile(self) -> Profile | None:
        """The profile of the judged program: its steps and events; ``None`` when nothing was profiled."""
        return self.programs.profile

    # -- joins ----------------------------------------------------------------------------------------------------

    @cached_property
    def origins(self) -> Mapping[str, tuple[str, ...]]:
        """Executed op -> the traced ops that it stands for (empty tuple: none could be resolved; never a guess)."""
        if self.executed is None or self.traced is None:
            return {}
        return origins.resolve(self.executed, self.traced, self.renamed)

    @cached_property
    def renamed(self) -> Mapping[str, str | None]:
        """Runtime name -> name as written of the ops that do not run under their own names."""
        return renames.renamed_ops(self.evidence)

    @cached_property
    def executed_by(self) -> Mapping[str, str]:
        """Traced op -> the executed op that stands for it; ops that Grappler removed or folded are absent."""
        return {traced: name for name, sources in self.origins.items() for traced in sources}

    @cached_property
    def attribution(self) -> attribution.Attribution:
        """The profile joined to the ops: timings, the unjoined rest, and per-step composition.

        The ops are the executed ones; those of the graph as written where no other graph is known.
        """
        graph = self.executed if self.executed is not None else self.traced
        known = self.origins if self.executed is not None and self.traced is not None else None
        return attribution.attribute(
            self.evidence, self.profile, graph, known, loosely=self.joined_loosely, renamed=self.renamed
        )

    @property
    def joined_loosely(self) -> bool:
        """Whether the profile is of another run than the graph, or of a run whose executed graph is not known."""
        return self.evidence.profile_path is not None or self.executed is None

    def timing(self, name: str) -> OpTiming | None:
        """Return the time of op ``name`` of the judged graph, or ``None`` when it was not seen."""
        return self.attribution.timings.get(name)

    def layer(self, name: str) -> str | None:
        """Return the layer (a scope) that op ``name`` of the judged graph belongs to, or ``None`` at the top level."""
        traced = self.origins.get(name, ()) if self.stage == "executed" else (name,)
        written = self.traced if self.traced is not None else self.graph
        return flat.layer_of(traced[-1] if traced else name, written)

    # -- numbers --------------------------------------------------------------------------------------------------

    @cached_property
    def step(self) -> StepTime | None:
        """The step's wall time, ``None`` when nothing ran."""
        judged = self.programs.judged
        return ledger.step_time(self.evidence, self.attribution, judged)

    @cached_property
    def step_times_ns(self) -> Mapping[str, tuple[int, ...]]:
        """The wall times of single steps by host: without the profiler where those were measured, else with it."""
        unprofiled_ns = self.evidence.unprofiled_ns
        return {"": unprofiled_ns} if unprofiled_ns else self.attribution.host_wall_ns

    @cached_property
    def ledger(self) -> tuple[LedgerRow, ...]:
        """Where the step's time went; the rows sum to ``step.median_ns`` exactly."""
        return ledger.ledger(self.step, self.attribution)

    @cached_property
    def quality(self) -> Quality:
        """How far the measurement can be trusted."""
        return quality.judge(self)

    @cached_property
    def path_weights_ns(self) -> Mapping[str, int]:
        """Op -> the time that counts along a path (profiled self time; never the replay's)."""
        return paths.weights_ns(self.attribution.timings, by_turns=bool(self.attribution.cycle.kinds))

    @cached_property
    def critical_path(self) -> CriticalPath | None:
        """The longest chain of dependent ops by self time, as a part of ``step``; ``None`` when nothing was timed."""
        return paths.on_scale(self._longest_path, self.step)

    @property
    def path_ns(self) -> int | None:
        """The length of that chain as it was profiled."""
        return self._longest_path.ns if self._longest_path else None

    @cached_property
    def _longest_path(self) -> CriticalPath | None:
        return paths.critical_path(self.graph, self.path_weights_ns)

    @cached_property
    def slack_ns(self) -> Mapping[str, int]:
        """Executed op -> how much longer it could take without lengthening the critical path."""
        return paths.slack_ns(self.graph, self.path_weights_ns) if self.path_weights_ns else {}

    def saving(self, nodes: Iterable[str]) -> Saving:
        """Model what a step saves when the ops ``nodes`` of the judged graph are no longer run.

        The share is the sum of the ops' wall shares, capped by what the critical path of the remaining ops allows, and
        their part of what executor and call take; ``ns`` is that share of the step.  Unknown (all ``None``) when no
        profile saw any of them.
        """
        return ledger.saving(self, tuple(dict.fromkeys(nodes)))

    @cached_property
    def call_share(self) -> float:
        """The share of the step in which a call prepares what it runs, beyond what any call takes."""
        return ledger.call_share(self)

    def saving_at(self, remaining: Mapping[str, float]) -> Saving:
        """Model what a step saves when of the time of some ops only a share remains (see ``saving``)."""
        return ledger.saving_at(self, remaining)

    def flops(self, name: str) -> int | None:
        """Return the floating-point operations of one execution of op ``name``; ``None`` where it is not known."""
        return costs.cost_of(self.graph, name).flops

    def bytes(self, name: str) -> int | None:
        """Return the bytes read and written by one execution of op ``name``; ``None`` where a shape is unknown."""
        return costs.cost_of(self.graph, name).bytes

    def told(self, name: str) -> Instruction:
        """Return what the profile tells of the instruction ``name`` of a compiled program; empty for any other op."""
        profile = self.evidence.profile
        return profile.instructions.get(name, Instruction()) if profile else Instruction()

    @cached_property
    def kernel_work(self) -> Mapping[str, kernel_work.Work]:
        """Op -> operations and bytes of one of its kernels, as the profile tells them."""
        return kernel_work.work_by_op(self.evidence.profile or Profile())

    @cached_property
    def roofline(self) -> Roofline | None:
        """What the machine can do at best, and the ops under it; ``None`` where that is not known."""
        return roofline.roofline(self)

    @cached_property
    def roof_shares(self) -> Mapping[str, float]:
        """Executed op -> what it reached of the roof; ops that cannot be compared with it are absent."""
        return {point.op: point.share for point in self.roofline.points} if self.roofline else {}

    @cached_property
    def memory(self) -> Memory | None:
        """How much memory the tensors of a step need at once, an estimate; ``None`` when too few sizes are known."""
        return memory.memory(self)

    # -- values ---------------------------------------------------------------------------------------------------

    @cached_property
    def constant_ops(self) -> frozenset[str]:
        """Ops of the judged graph whose value depends on constants only (the constants included)."""
        return constants.constant_ops(self.graph)

    @cached_property
    def frozen_ops(self) -> frozenset[str]:
        """Ops of the judged graph whose value depends on constants and on variables that this graph never writes.

        Contains ``constant_ops``, the reads of such variables, and what is computed from them; ops with a state or a
        side effect of their own (random numbers, tables, prints) are never in it.
        """
        return constants.frozen_ops(self.graph)

    @cached_property
    def affine_chains(self) -> tuple[patterns.AffineChain, ...]:
        """Layers of the judged graph followed by per-channel scales and shifts that never change."""
        return patterns.affine_chains(self)

    @cached_property
    def dataflow(self) -> dataflow.Dataflow | None:
        """Who reads what in the graph as written, dead ops left out."""
        return dataflow_of(self.traced)

    @cached_property
    def fusion_candidates(self) -> tuple[decomposed.Candidate, ...]:
        """What one kernel could compute, in the graph as written."""
        return fusion.candidates(self.dataflow) if self.dataflow is not None else ()

    @cached_property
    def unfused(self) -> tuple[fusion.Unfused, ...]:
        """The candidates that ran as several ops."""
        return fusion.unfused(self)

    @cached_property
    def kernels(self) -> Kernels | None:
        """What TensorFlow's registry says of the kernels of a GPU that took part; ``None``: not known."""
        return transfers.kernels(self.evidence)

    @cached_property
    def copies(self) -> tuple[Copy, ...]:
        """Tensors that cross devices, or the memories of one, and the copies of a simulated placement."""
        return tuple(transfer.copy for transfer in self.transfers)

    @cached_property
    def transfers(self) -> tuple[transfers.Transfer, ...]:
        """The copies, each with the events in which the device reported it."""
        return transfers.transfers(self)

    @cached_property
    def accelerators(self) -> tuple[str, ...]:
        """The accelerators that took part, or would in a simulated placement; empty on processors alone."""
        return transfers.accelerators(self)

    @cached_property
    def syncs(self) -> tuple[syncs.Sync, ...]:
        """The copies to the host for which an accelerator waits within the step."""
        return syncs.syncs(self, self.transfers)

    @cached_property
    def device_uses(self) -> tuple[device_time.DeviceUse, ...]:
        """What the accelerators that ran kernels did in a typical step; none where no step is marked."""
        return device_time.device_uses(self.profile or Profile(), self.device_busy, self.device_windows)

    @cached_property
    def device_busy(self) -> Mapping[int, device_time.Busy]:
        """When each device of the profile computed, by its number; absent when it ran no kernel."""
        return device_time.busy_of(self.evidence.profile or Profile())

    @cached_property
    def device_running(self) -> Mapping[int, device_time.Busy]:
        """When each device of the profile was within a kernel, be it one that waits; absent when it ran none."""
        return device_time.running_of(self.evidence.profile or Profile())

    @cached_property
    def device_windows(self) -> Mapping[int, device_time.Windows]:
        """The steps of each device of the profile, by its number."""
        return device_time.windows_of(self.profile or Profile())

    @cached_property
    def devices(self) -> tuple[DeviceRow, ...]:
        """The accelerators of the profile with what each did; the idle ones too."""
        return devices.device_rows(self.profile)

    @cached_property
    def distribution(self) -> Distribution | None:
        """Hosts and replicas, and which of the devices did the work; ``None`` where there is nothing to compare."""
        return devices.distribution(self.evidence.profile, self.devices)

    @cached_property
    def training(self) -> bool:
        """Whether the target trains: it writes variables through an optimizer, or computes gradients."""
        return flat.is_training(self.graph, self.evidence.training)

    # -- for reports ----------------------------------------------------------------------------------------------

    @cached_property
    def op_rows(self) -> OpRows:
        """One row per op of the judged graph, by falling self time; ops that were not seen come last."""
        return rows.op_rows(self)

    def figure(self, nodes: Iterable[str], stage: Stage | None = None) -> Figure | None:
        """Return the ops around ``nodes`` (two hops, capped), for drawing."""
        return rows.figure(self, tuple(nodes), stage or self.stage)

    def figure_after(self, figure: Figure, removed: Iterable[str]) -> Figure | None:
        """Return ``figure`` without the ops ``removed``, what they read joined to what read them."""
        return rows.figure_after(figure, frozenset(removed), self.frozen_ops)
