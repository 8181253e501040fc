"""The facts as rules of plug-ins may ask for them: any fact, and by name what rules could always read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from graphlens.facts import graphs
from graphlens.facts.copies import device_facts, syncs, transfers
from graphlens.facts.core import Fact, Facts
from graphlens.facts.patterns import affine, fusion
from graphlens.facts.patterns.dataflow import dataflow
from graphlens.facts.programs import judged_program as programs
from graphlens.facts.rows import op_rows as rows
from graphlens.facts.time import attribution, ledger, paths, quality, savings
from graphlens.facts.training.executed import layer_of_op
from graphlens.facts.work import kernel_work, memory, roofline
from graphlens.facts.work.costs import cost_of
from graphlens.ir.analysis import Figure, Saving
from graphlens.ir.evidence import Evidence
from graphlens.ir.nodes import Op
from graphlens.ir.run import Instruction, OpTiming
from graphlens.ir.table import Table

if TYPE_CHECKING:
    import networkx as nx

T = TypeVar("T")

# What the members of earlier versions are called now.
_MEMBERS: Final[Mapping[str, Fact[Any]]] = {
    "stage": graphs.judged_stage,
    "order": graphs.op_order,
    "origins": graphs.origins,
    "renamed": graphs.renamed,
    "executed_by": graphs.executed_by,
    "joined_loosely": graphs.joined_loosely,
    "constant_ops": graphs.constant_ops,
    "frozen_ops": graphs.frozen_ops,
    "training": graphs.is_training,
    "programs": programs.programs,
    "profile": programs.judged_profile,
    "attribution": attribution.attribution,
    "step": ledger.step_time,
    "step_times_ns": ledger.step_times_ns,
    "ledger": ledger.ledger,
    "quality": quality.quality,
    "path_weights_ns": paths.path_weights_ns,
    "critical_path": paths.critical_path,
    "slack_ns": paths.slack_ns,
    "call_share": savings.call_share,
    "kernel_work": kernel_work.kernel_work,
    "roofline": roofline.roofline,
    "roof_shares": roofline.roof_shares,
    "memory": memory.peak_memory,
    "affine_chains": affine.affine_chains,
    "dataflow": dataflow,
    "fusion_candidates": fusion.fusion_candidates,
    "unfused": fusion.unfused,
    "kernels": transfers.gpu_kernels,
    "copies": transfers.copies,
    "transfers": transfers.transfers,
    "accelerators": transfers.accelerators,
    "syncs": syncs.syncs,
    "device_uses": device_facts.device_uses,
    "device_busy": device_facts.device_busy,
    "device_running": device_facts.device_running,
    "device_windows": device_facts.device_windows,
    "devices": device_facts.device_rows,
    "distribution": device_facts.distribution,
    "op_rows": rows.op_rows,
}


class PluginFacts:
    """The facts that a rule of a plug-in is handed: ``facts(ledger)``, and ``facts.ledger`` as in earlier versions.

    ``graph``, ``traced`` and ``executed`` are ``networkx.MultiDiGraph`` objects with an ``Op`` as ``op`` on nodes and
    an ``Edge`` as ``edge`` on edges; each is made when it is first read, and frozen.  ``facts(judged_graph)`` is the
    same graph as a ``Table``, which takes less time and memory.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def __call__(self, fact: Fact[T]) -> T:
        """Return what ``fact`` comes to (see ``Facts``)."""
        return self._facts(fact)

    def __getattr__(self, name: str) -> Any:
        if name not in _MEMBERS:
            raise AttributeError(f"facts have no member {name!r}; ask for a fact as facts(it)")
        return self._facts(_MEMBERS[name])

    @property
    def evidence(self) -> Evidence:
        """Everything that is known before judging."""
        return self._facts.evidence

    @property
    def graph(self) -> nx.MultiDiGraph:
        """The judged graph, flat."""
        return self._facts(graphs.judged_graph).networkx()

    @property
    def traced(self) -> nx.MultiDiGraph | None:
        """The graph as written, flat; ``None`` where only a profile is known."""
        return _networkx(self._facts(graphs.traced_graph))

    @property
    def executed(self) -> nx.MultiDiGraph | None:
        """The graph that ran, flat; ``None`` when nothing was executed."""
        return _networkx(self._facts(graphs.executed_graph))

    @property
    def path_ns(self) -> int | None:
        """The length of the critical path as it was profiled."""
        path = self._facts(paths.longest_path)
        return path.ns if path else None

    def op(self, name: str) -> Op:
        """Return the op ``name`` of the judged graph."""
        return self._facts(graphs.judged_graph).op(name)

    def timing(self, name: str) -> OpTiming | None:
        """Return the time of op ``name`` of the judged graph, or ``None`` when it was not seen."""
        return self._facts(attribution.timings).get(name)

    def layer(self, name: str) -> str | None:
        """Return the layer that op ``name`` of the judged graph belongs to, or ``None`` at the top level."""
        return layer_of_op(self._facts, name)

    def saving(self, nodes: Iterable[str]) -> Saving:
        """Model what a step saves when the ops ``nodes`` of the judged graph are no longer run."""
        return savings.saving_without(self._facts, nodes)

    def saving_at(self, remaining: Mapping[str, float]) -> Saving:
        """Model what a step saves when of the time of some ops only a share remains."""
        return savings.saving_at(self._facts, remaining)

    def flops(self, name: str) -> int | None:
        """Return the floating-point operations of one execution of op ``name``; ``None`` where it is not known."""
        return cost_of(self._facts(graphs.judged_graph), name).flops

    def bytes(self, name: str) -> int | None:
        """Return the bytes read and written by one execution of op ``name``; ``None`` where a shape is unknown."""
        return cost_of(self._facts(graphs.judged_graph), name).bytes

    def told(self, name: str) -> Instruction:
        """Return what the profile tells of the instruction ``name`` of a compiled program; empty for any other op."""
        return kernel_work.told_of(self._facts, name)

    def figure(self, nodes: Iterable[str], stage: graphs.Stage | None = None) -> Figure | None:
        """Return the ops around ``nodes`` (two hops, capped), for drawing."""
        return rows.figure_of(self._facts, tuple(nodes), stage)

    def figure_after(self, figure: Figure, removed: Iterable[str]) -> Figure | None:
        """Return ``figure`` without the ops ``removed``, what they read joined to what read them."""
        return rows.figure_without(self._facts, figure, removed)


def _networkx(table: Table | None) -> nx.MultiDiGraph | None:
    return table.networkx() if table is not None else None
