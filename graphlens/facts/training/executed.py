"""Layers and forward ops of what ran: those of the ops as written that it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import executed_by, judged_graph, judged_stage, origins, traced_graph
from graphlens.facts.training.forward_ops import written_forward
from graphlens.facts.training.layers import written_layers
from graphlens.ir.training import LayerScope


@fact
def layers_of_ops(facts: Facts) -> Sequence[LayerScope | None]:
    """The layer of each op of the judged graph, in its order; of one that stands for several, that of most of them."""
    known = facts(written_layers)
    return [_of_most([known[one] for one in written if one in known]) for written in _written(facts)]


@fact
def forward_of_ops(facts: Facts) -> Sequence[str | None]:
    """The op of the judged graph whose gradient each one is, in its order; ``None`` for others and where unknown."""
    known = facts(written_forward)
    runs_as = facts(executed_by) if _has_run(facts) else {}
    forward = (next((known[one] for one in reversed(written) if one in known), None) for written in _written(facts))
    return [one if one is None else runs_as.get(one) if _has_run(facts) else one for one in forward]


def _has_run(facts: Facts) -> bool:
    return facts(judged_stage) == "executed" and facts(traced_graph) is not None


def _written(facts: Facts) -> Sequence[Sequence[str]]:
    """Return for each op of the judged graph the ops as written that it stands for."""
    names = facts(judged_graph).names
    if not _has_run(facts):
        return [(name,) for name in names]
    origin_of = facts(origins)
    return [origin_of.get(name, ()) for name in names]


def _of_most(several: Sequence[LayerScope]) -> LayerScope | None:
    counts = Counter(several)
    most = max(counts.values(), default=0)
    return next((layer for layer in reversed(several) if counts[layer] == most), None)
