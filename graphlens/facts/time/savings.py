"""What a step would save without some of its ops, or with faster ones: modelled from times and the longest path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from graphlens.facts.clock.division import DISPATCH, EXECUTOR
from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph
from graphlens.facts.time.attribution import attribution, timings
from graphlens.facts.time.ledger import step_time
from graphlens.facts.time.paths import length_ns, longest_path, path_weights_ns
from graphlens.ir.analysis import Saving


def saving_without(facts: Facts, nodes: Iterable[str]) -> Saving:
    """Model what a step saves when the ops ``nodes`` of the judged graph are no longer run.

    The share is the sum of the ops' wall shares, capped by what the critical path of the remaining ops allows, and
    their part of what executor and call take; ``ns`` is that share of the step.  Unknown (all ``None``) when no
    profile saw any of them.
    """
    gone = dict.fromkeys(nodes, 0.0)
    saved, step = saving_at(facts, gone), facts(step_time)
    if saved.share is None or step is None:
        return saved
    graph = facts(judged_graph)
    ran = sum(name in graph for name in gone) / max(len(graph), 1)
    share = min(1.0, saved.share + ran * (_share_of(facts, EXECUTOR) + facts(call_share)))
    return replace(saved, ns=round(share * step.median_ns), share=share)


@fact
def call_share(facts: Facts) -> float:
    """The share of the step in which the call prepares what it runs, about as long for each op of the graph.

    That is the dispatch without what calling a function takes that computes nothing; 0 where this was not measured.
    """
    empty_ns, step = facts.evidence.empty_call_ns, facts(step_time)
    if step is None or empty_ns is None:
        return 0.0
    return max(0.0, _share_of(facts, DISPATCH) - empty_ns / step.median_ns)


def _share_of(facts: Facts, state: str) -> float:
    active_ns = facts(attribution).active_ns
    return active_ns.get(state, 0.0) / (sum(active_ns.values()) or 1.0)


def saving_at(facts: Facts, remaining: Mapping[str, float]) -> Saving:
    """Model the saving when of the time of some ops only a share remains (0: they no longer run).

    The ops' own share of the wall time, capped by what the critical path then allows: a step can never be shorter than
    the longest chain of ops that it still has to run.
    """
    step, times = facts(step_time), facts(timings)
    seen = {name: share for name in remaining if name in times and (share := times[name].wall_share) is not None}
    if step is None or not seen:
        return Saving()
    saved = sum(share * (1 - remaining[name]) for name, share in seen.items())
    share = min(saved, _most(facts, remaining, saved, step.profiled_ns))
    return Saving(round(share * step.median_ns), share, "modelled")


def _most(facts: Facts, remaining: Mapping[str, float], saved: float, step_ns: int) -> float:
    """Return the share that the critical path allows; where that of all ops allows ``saved``, theirs: it is longest."""
    path = facts(longest_path)
    allowed = max(0.0, 1 - path.ns / step_ns) if path and max(remaining.values()) <= 1 else 0.0
    if saved <= allowed:
        return allowed
    return max(0.0, 1 - length_ns(facts(judged_graph), _shortened(facts, remaining)) / step_ns)


def _shortened(facts: Facts, remaining: Mapping[str, float]) -> Mapping[str, int]:
    weights = facts(path_weights_ns)
    return {**weights, **{name: round(weights[name] * left) for name, left in remaining.items() if name in weights}}
