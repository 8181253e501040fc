"""What experiments in processes with TensorFlow can find out about a model."""

from __future__ import annotations

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import is_training, judged_stage
from graphlens.facts.patterns import xla
from graphlens.facts.patterns.cutting import chain_of
from graphlens.facts.patterns.dataflow import dataflow
from graphlens.facts.patterns.fusion import fusion_candidates, unfused
from graphlens.ir.fusion import Chain


@fact
def chains_to_probe(facts: Facts) -> tuple[Chain, ...]:
    """Return what experiments can find out: chains that did not run as one op or never ran, and XLA's blockers."""
    flow = facts(dataflow)
    if flow is None:
        return ()
    trains = facts(is_training)
    if facts(judged_stage) == "executed":
        found = [item.chain for item in facts(unfused) if not trains]
    else:
        found = [chain_of(flow, candidate, {}) for candidate in facts(fusion_candidates) if not trains]
    return (*(chain for chain in found if chain is not None), *xla.trials(facts))
