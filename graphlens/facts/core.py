"""The one object that rules see: every derived fact of one piece of evidence, computed once when first asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Literal

import networkx as nx

from graphlens.facts import attribution, constants, costs, flat, ledger, origins, paths, quality, transfers
from graphlens.ir.analysis import Copy, CriticalPath, Figure, OpRow, Quality, Saving, StepTime
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Graph, Op, op_of
from graphlens.ir.run import LedgerRow, OpTiming

Stage = Literal["executed", "traced"]


class Facts:
    """Facts about one piece of evidence.

    Graphs here are *flat*: functions are inlined, so that a node's name is the path of call sites plus the op's name
    (``StatefulPartitionedCall/model/conv/Conv2D``), which is also how the runtime names inlined ops.  They are
    ``networkx.MultiDiGraph`` objects with ``op`` on nodes and ``edge`` on edges, acyclic, and must not be changed.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    # -- graphs ---------------------------------------------------------------------------------------------------

    @cached_property
    def traced(self) -> nx.MultiDiGraph | None:
        """The graph as written, flat; ``None`` where only a profile is known."""
        return flat.inline(self.evidence.traced) if self.evidence.traced else None

    @cached_property
    def executed(self) -> nx.MultiDiGraph | None:
        """The graph that ran (all devices), flat; ``None`` when nothing was executed."""
        return flat.inline(self.evidence.executed) if self.evidence.executed else None

    @property
    def stage(self) -> Stage:
        """Which graph is judged: the executed one where there is one."""
        return "executed" if self.evidence.executed else "traced"

    @cached_property
    def graph(self) -> nx.MultiDiGraph:
        """The judged graph (see ``stage``); empty when neither is known."""
        if self.executed is not None:
            return self.executed
        return self.traced if self.traced is not None else nx.MultiDiGraph()

    def op(self, name: str) -> Op:
        """Return the op ``name`` of the judged graph."""
        return op_of(self.graph, name)
