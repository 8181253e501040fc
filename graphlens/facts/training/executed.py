"""Layers and forward ops of what ran: those of the ops as written that it stands for."""

from __future__ import annotations

from collections.abc import Sequence

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.executed import HLO_MODULE
from graphlens.facts.graphs import executed_by, judged_graph, operations_of_origins
from graphlens.facts.training.as_written import as_written, has_run, of_most, with_inserted
from graphlens.facts.training.forward_ops import written_forward
from graphlens.facts.training.layers import written_layers
from graphlens.ir.training import LayerScope


@fact
def layers_of_ops(facts: Facts) -> Sequence[LayerScope | None]:
    """The layer of each op of the judged graph, in its order; of one that stands for several, that of most of them.

    What XLA put in, such as a copy, is of the layer of all that reads it, or else of all that it reads, if that is one.
    """
    found = of_most(facts(as_written), facts(written_layers))
    compiled = facts(operations_of_origins)
    if not compiled:
        return found
    graph = facts(judged_graph)
    inserted = [HLO_MODULE in op.attrs and name not in compiled for name, op in graph.items()]
    return with_inserted(graph, found, inserted)


@fact
def forward_of_ops(facts: Facts) -> Sequence[str | None]:
    """The op of the judged graph whose gradient each one is, in its order; ``None`` for others and where unknown."""
    known = facts(written_forward)
    forward = [
        next((known[one] for one, _ in reversed(written) if one is not None and one in known), None)
        for written in facts(as_written)
    ]
    if not has_run(facts):
        return forward
    runs_as = facts(executed_by)
    return [None if one is None else runs_as.get(one) for one in forward]
