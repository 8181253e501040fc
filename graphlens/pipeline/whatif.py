"""What a machine with a GPU would do with the target: placement, copies and what would change them, all simulated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Final

from graphlens import workplace
from graphlens.children import ask_placement
from graphlens.config import Progress, Request
from graphlens.errors import ExecutionError, GraphLensError, UsageError, in_words
from graphlens.facts import placement
from graphlens.facts.core import FactError, Facts
from graphlens.facts.flat.scopes import with_shapes
from graphlens.facts.graphs import traced_graph
from graphlens.facts.placement import changes, limits, pinning, prediction
from graphlens.facts.placement.gpus import Gpu, gpu_named
from graphlens.facts.placement.prediction import Simulated
from graphlens.ir import unsafe
from graphlens.ir.devices import Copy, Counterfactual, Placement
from graphlens.ir.evidence import Evidence
from graphlens.ir.failure import AnalysisError
from graphlens.ir.graph import Function, Graph
from graphlens.ir.nodes import TensorSpec
from graphlens.ir.table import Table
from graphlens.loaders.capture.parts import BEFORE_PLACER
from graphlens.loaders.graphdef import build_graph, parse_graph_def
from graphlens.pipeline.gather import Gathered

_WHEELS: Final = ("tensorflow", "tensorflow-cpu")
PLACE: Final = "place"  # the stage of an error
NO_GRAPH: Final = "--assume-device: there is no graph to place, only a profile; give the model or its capture"


def check_device(request: Request) -> None:
    """Refuse a device that nothing is known of before any work is done.

    Raises
    ------
    UsageError
        For an unknown device.
    """
    if request.judging.assume_device is not None:
        gpu_named(request.judging.assume_device)


def with_placement(request: Request, gathered: Gathered, facts: Facts, progress: Progress) -> Facts:
    """Return the facts with the placement that was asked for, if one was and the graph as written could be derived.

    Raises
    ------
    UsageError
        When there is no kernel table for the TensorFlow that recorded the target, or no graph.
    """
    assumed = request.judging.assume_device
    if assumed is None:
        return facts
    try:
        traced = facts(traced_graph)
    except FactError:
        return facts  # among whose errors it is
    evidence, gpu = facts.evidence, gpu_named(assumed)
    kernels = placement.table_for(_version(evidence))
    progress(f"placing the ops on a {gpu.name}", 0, 0)
    whatif = _WhatIf(evidence, traced, evidence.inputs, gpu, kernels, None, progress)
    try:
        return facts.with_(_placed(request, gathered, whatif))
    except GraphLensError:
        raise
    except Exception as error:  # what was measured takes minutes, and needs no placement to be judged
        failed = AnalysisError(PLACE, f"the placement failed with {in_words(error)}; please report it")
        return facts.with_(replace(evidence, errors=(*evidence.errors, failed)))


def _placed(request: Request, gathered: Gathered, whatif: _WhatIf) -> Evidence:
    dumped = gathered.part(BEFORE_PLACER)
    if dumped is None:
        return whatif.of_traced()
    lowered = build_graph(parse_graph_def(dumped, BEFORE_PLACER))
    why = _reason_not_to_optimize(request, gathered, lowered, whatif.kernels.version)
    if why is not None:
        return whatif.of_lowered(lowered.main, (f"{limits.NO_OPTIMIZER} ({why})",))
    with _optimizer(dumped) as optimizer:
        return replace(whatif, optimizer=optimizer).of_lowered(lowered.main, ())


def _reason_not_to_optimize(request: Request, gathered: Gathered, lowered: Graph, version: str) -> str | None:
    """Say why Grappler cannot see the graph.  It runs what it folds, so a stranger's graph is judged first."""
    installed = _installed()
    if installed is None:
        return "TensorFlow is not installed here"
    if not installed.startswith(f"{version}."):
        return f"TensorFlow {installed} is installed here, and another one recorded it"
    if gathered.capture is None or request.recording.trust:
        return None
    return unsafe.refusal(unsafe.unsafe_ops(lowered))


def _version(evidence: Evidence) -> str:
    """Return the TensorFlow that ran the graph; where nothing was run the one that would, or the newest known."""
    recorded = evidence.environment.get("tensorflow")
    return str(recorded or _installed() or placement.versions()[-1])


def _installed() -> str | None:
    for wheel in _WHEELS:
        try:
            return metadata.version(wheel)
        except metadata.PackageNotFoundError:
            continue
    return None


@contextmanager
def _optimizer(dumped: bytes) -> Iterator[ask_placement.Optimizer]:
    with workplace.temporary() as folder, ask_placement.optimizer(dumped, folder) as optimizer:
        yield optimizer


@dataclass(frozen=True, slots=True)
class _WhatIf:
    """What one prediction needs at every turn."""

    evidence: Evidence
    traced: Table | None
    inputs: tuple[TensorSpec, ...]
    gpu: Gpu
    kernels: placement.KernelTable
    optimizer: ask_placement.Optimizer | None
    progress: Progress

    # -- the two kinds of graph -----------------------------------------------------------------------------------

    def of_lowered(self, function: Function, lost: tuple[str, ...]) -> Evidence:
        """Place the graph that TensorFlow's own placer was given on the processor."""
        netlist = placement.netlist_of(function)
        try:
            simulated = self._simulate(netlist, function)
        except ExecutionError as error:
            lost = (f"{limits.NO_OPTIMIZER} ({error})",)
            simulated = replace(self, optimizer=None)._simulate(netlist, function)
        found = prediction.copies(simulated, self.gpu, self.evidence.replay)
        tried = () if lost else tuple(self._tried(simulated, found))
        return self._with(simulated, found, tried, lost)

    def of_traced(self) -> Evidence:
        """Place the graph as written, inlined: what there is when nothing was executed."""
        if self.traced is None:
            raise UsageError(NO_GRAPH)
        function = Function("", self.traced)
        simulated = self._simulate(placement.netlist_of(function), function)
        found = prediction.between_ops(simulated, prediction.copies(simulated, self.gpu, self.evidence.replay))
        lost = (limits.NOT_LOWERED, limits.NO_OPTIMIZER, *(() if self.evidence.replay else (limits.NOT_EXECUTED,)))
        return self._with(simulated, found, (), lost)

    def _with(
        self,
        simulated: Simulated,
        found: tuple[Copy, ...],
        tried: tuple[Counterfactual, ...],
        lost: tuple[str, ...],
    ) -> Evidence:
        on_device = sum(device == placement.GPU for device in simulated.devices.values())
        predicted = Placement(
            device=self.gpu.name,
            table=self.kernels.version,
            stage="traced" if limits.NOT_LOWERED in lost else "executed",
            ops_on_device=on_device,
            ops_on_host=len(simulated.devices) - on_device,
            copies=prediction.count(found),
            ops=prediction.placed_ops(simulated),
            islands=prediction.islands(simulated, found),
            counterfactuals=tried,
            not_covered=limits.not_covered(simulated, found, lost),
            assumed=limits.assumed(simulated, self.inputs, self.gpu),
        )
        return replace(self.evidence, placement=predicted, placement_copies=found)

    # -- one simulation -------------------------------------------------------------------------------------------

    def _simulate(
        self,
        netlist: placement.Netlist,
        function: Function,
        change: ask_placement.Change = ask_placement.NO_CHANGE,
    ) -> Simulated:
        placed = placement.place(netlist, self.kernels, placement.assigned_on_gpu(netlist))
        devices = {name: item.device for name, item in placed.items()}
        if self.optimizer is not None:
            function, devices = self._optimized(devices, change)
        after = replace(function, graph=self._with_shapes(function.graph))
        return Simulated(netlist, placed, after, devices, self.kernels)

    def _optimized(
        self, devices: Mapping[str, placement.DeviceType], change: ask_placement.Change
    ) -> tuple[Function, dict[str, placement.DeviceType]]:
        assert self.optimizer is not None
        data = self.optimizer.optimized(devices, self.gpu.compute_capability, change)
        function = build_graph(parse_graph_def(data, "the optimized graph")).main
        after = placement.netlist_of(function)
        found = placement.devices_of(after)
        return function, pinning.with_pinned_constants(after, found, self.kernels) if change.pin_to_host else found

    def _with_shapes(self, graph: Table) -> Table:
        shaped = with_shapes(graph, self.traced, self.evidence.replay)
        fed = placement.fed_with(shaped.ops(), self.inputs)
        return shaped.with_ops({name: replace(shaped.op(name), outputs=(spec,)) for name, spec in fed.items()})

    def _tried(self, simulated: Simulated, found: tuple[Copy, ...]) -> Iterator[Counterfactual]:
        """Try each change that applies on a copy of the graph."""
        before = prediction.count(found)
        fed = placement.fed_with(simulated.before.ops, self.inputs)
        trials = changes.trials(simulated.before, simulated.placed, found, fed)
        for number, trial in enumerate(trials):
            self.progress(f"trying {trial.words}", number, len(trials))
            change = ask_placement.Change(trial.shapes, trial.cut, trial.pin_to_host)
            try:
                changed = self._simulate(trial.netlist, simulated.after, change)
            except ExecutionError as error:
                yield trial.failed(before, str(error))
                continue
            after = prediction.count(prediction.copies(changed, self.gpu, self.evidence.replay))
            yield trial.outcome(before, after)
