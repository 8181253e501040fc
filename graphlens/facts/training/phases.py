"""The phases of a training step: of the ops as written, and of those that ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import is_training, judged_graph
from graphlens.facts.training.as_written import as_written, has_run, of_most, shared, with_inserted
from graphlens.facts.training.scopes import layers_by_scope, step_walk, trained_handles
from graphlens.facts.training.written_phases import phases_of
from graphlens.ir.training import PHASES, Phase


@fact
def written_phases(facts: Facts) -> Mapping[str, Phase]:
    """Op as written -> its phase; empty for a program that does not train."""
    if not facts(is_training):
        return {}
    walk, of_layer = facts(step_walk), facts(layers_by_scope)
    found = phases_of(walk, facts(trained_handles), lambda at: of_layer[at] is not None)
    return {name: phase for name, phase in zip(walk.graph.names, found, strict=True) if phase is not None}


@fact
def phases(facts: Facts) -> Sequence[Phase | None]:
    """The phase of each op of the judged graph, in its order; ``None`` where it is not known, or nothing is trained.

    An op that stands for several has the phase of most of them, and of the one that it is named after where there are
    as many of two.  One that stands for none, as what Grappler and the partitioner put in, has that of what reads it,
    the first in the order of a step, else that of all that it reads.
    """
    graph, known = facts(judged_graph), facts(written_phases)
    if not known:
        return [None] * len(graph)
    found = of_most(facts(as_written), known)
    return with_inserted(graph, found, [True] * len(graph), _first) if has_run(facts) else found


def _first(phases: Sequence[Phase | None]) -> Phase | None:
    known = set(phases) - {None, "other"}
    return min(filter(None, known), key=PHASES.index, default=shared(phases))
