"""Layers and forward ops of what ran: those of the ops as written that it stands for."""

from __future__ import annotations

from collections.abc import Sequence

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat import scopes as flat
from graphlens.facts.flat.executed import HLO_MODULE
from graphlens.facts.graphs import (
    executed_by,
    judged_graph,
    judged_stage,
    operations_of_origins,
    origins,
    traced_graph,
)
from graphlens.facts.training.as_written import as_written, has_run, of_most, with_inserted
from graphlens.facts.training.forward_ops import written_forward
from graphlens.facts.training.gradients import gradient_name
from graphlens.facts.training.layers import written_layers
from graphlens.facts.training.phases import written_phases
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


@fact
def layer_names(facts: Facts) -> Sequence[str | None]:
    """What the layer of each op of the judged graph is called, in its order: its path, else the scope that names it."""
    if facts(layers_are_known):  # a scope is no layer's name: they are numbered
        return [layer.path if layer is not None else None for layer in facts(layers_of_ops)]
    origin_of = facts.known(origins, {}) if facts(judged_stage) == "executed" else {}
    names = facts(judged_graph).names
    return _scopes_of_layers(facts, [(origin_of.get(name) or (name,))[-1] for name in names])


@fact
def layers_are_known(facts: Facts) -> bool:
    """Whether layers are known by more than their scopes."""
    noted = bool(facts.evidence.scopes) or bool(facts.known(written_phases, {}))
    return noted and any(facts.known(layers_of_ops, ()))


def layer_of_op(facts: Facts, name: str, stage: str | None = None) -> str | None:
    """Return what the layer of op ``name`` is called, ``None`` at the top level; in the judged graph as its table says.

    ``stage`` is the graph that the op is of; by default the judged one, or that as written.
    """
    graph = facts(judged_graph)
    if name in graph and stage in (None, facts(judged_stage)):
        return facts(layer_names)[graph.position(name)]
    if facts(layers_are_known):
        layer = facts(written_layers).get(name)
        return layer.path if layer is not None else None
    return _scopes_of_layers(facts, [name])[0]


def _scopes_of_layers(facts: Facts, written: Sequence[str]) -> Sequence[str | None]:
    """Return the scopes that name the layers of ops as written; a gradient is of the layer of its forward op."""
    graph, phase_of = facts(traced_graph), facts.known(written_phases, {})
    forward = [
        f"{told.forward}/" if phase_of.get(name) == "backward" and (told := gradient_name(name)) else name
        for name in written
    ]
    return flat.layers_of(forward, facts(judged_graph) if graph is None else graph)
