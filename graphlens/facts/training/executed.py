"""Layers and forward ops of what ran: those of the ops as written that it stands for."""

from __future__ import annotations

from collections.abc import Sequence

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import executed_by
from graphlens.facts.training.as_written import as_written, has_run, of_most
from graphlens.facts.training.forward_ops import written_forward
from graphlens.facts.training.layers import written_layers
from graphlens.ir.training import LayerScope


@fact
def layers_of_ops(facts: Facts) -> Sequence[LayerScope | None]:
    """The layer of each op of the judged graph, in its order; of one that stands for several, that of most of them."""
    return of_most(facts(as_written), facts(written_layers))


@fact
def forward_of_ops(facts: Facts) -> Sequence[str | None]:
    """The op of the judged graph whose gradient each one is, in its order; ``None`` for others and where unknown."""
    known = facts(written_forward)
    forward = [next((known[one] for one in reversed(written) if one in known), None) for written in facts(as_written)]
    if not has_run(facts):
        return forward
    runs_as = facts(executed_by)
    return [None if one is None else runs_as.get(one) for one in forward]
