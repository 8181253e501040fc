"""Where the step's wall time went, in rows that sum to the step exactly; and what leaving out ops would save."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from graphlens.facts.attribution import Attribution
from graphlens.facts.division import COPY, DISPATCH, EXECUTOR, HANDOFF, STATES
from graphlens.facts.paths import length_ns
from graphlens.facts.program_runs import ProgramRuns, possible_period
from graphlens.ir.analysis import Saving, StepKind, StepTime
from graphlens.ir.evidence import Evidence
from graphlens.ir.ops import family
from graphlens.ir.run import LedgerRow, stat_of

if TYPE_CHECKING:
    from graphlens.facts.asked import Facts

# Rows of the ledger that are no op's time.  The hand-off between threads (a function runs, but neither an op nor the
# executor is active on any thread) has no known cause: it is the unattributed rest.
OVERHEAD_ROWS: Final[Mapping[str, str]] = {
    EXECUTOR: "executor: scheduling, control flow and ops too cheap to be timed",
    DISPATCH: "dispatch: Python and the call of the function",
}
UNATTRIBUTED: Final = "unattributed"
COPIES: Final = family("Memcpy")  # between memories, while no kernel ran


def step_time(evidence: Evidence, attribution: Attribution, judged: ProgramRuns | None = None) -> StepTime | None:
    """Return the step's time: without the profiler where that was measured, else with it."""
    profiled = stat_of(attribution.wall_ns)
    plain = stat_of(evidence.unprofiled_ns) or profiled
    if plain is None:
        return None
    cycle = attribution.cycle
    return StepTime(
        plain.median_ns,
        plain.p10_ns,
        plain.p90_ns,
        plain.n,
        "measured",
        profiled.median_ns if profiled else None,
        profiled.n if profiled else None,
        mean_ns=cycle.mean_ns,
        cycle=cycle.length,
        kinds=tuple(StepKind(kind.count, kind.median_ns, kind.ops) for kind in cycle.kinds),
        period_ns=possible_period(judged, plain.median_ns) if judged else None,
    )


def ledger(step: StepTime | None, attribution: Attribution) -> tuple[LedgerRow, ...]:
    """Apportion the step's median to the composition of the profiled steps.

    The composition is that of the typical profiled steps (the middle half by length).  Integer nanoseconds are
    apportioned by largest remainder, so the rows sum to ``step.median_ns`` exactly.
    """
    if step is None:
        return ()
    weights = _weights(attribution)
    if not weights:
        return (LedgerRow(UNATTRIBUTED, step.median_ns, "unattributed"),)
    keys = sorted(weights, key=lambda key: (-weights[key], key))
    parts = apportion(step.median_ns, [weights[key] for key in keys])
    rows = [_row(key, ns) for key, ns in zip(keys, parts, strict=True)]
    return tuple(sorted(rows, key=lambda row: (row.kind != "op", row.kind == "unattributed", -row.ns)))


def _weights(attribution: Attribution) -> Mapping[str, float]:
    weights: dict[str, float] = defaultdict(float)
    for key, ns in attribution.active_ns.items():
        booked = COPIES if key == COPY else key if key in STATES else family(attribution.op_types.get(key, ""))
        weights[booked] += ns
    return weights


def _row(key: str, ns: int) -> LedgerRow:
    if key == HANDOFF:
        return LedgerRow(UNATTRIBUTED, ns, "unattributed")
    return LedgerRow(OVERHEAD_ROWS[key], ns, "overhead") if key in OVERHEAD_ROWS else LedgerRow(key, ns, "op")


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Divide ``total`` in proportion to ``weights`` (largest remainder): the parts are integers and sum to it.

    >>> apportion(10, [1, 1, 1])
    [4, 3, 3]
    """
    whole = sum(weights)
    if not weights or whole <= 0:
        return [0] * len(weights)
    exact = [total * weight / whole for weight in weights]
    parts = [int(value) for value in exact]
    by_remainder = sorted(range(len(parts)), key=lambda index: parts[index] - exact[index])
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


def saving(facts: Facts, nodes: Sequence[str]) -> Saving:
    """Model the saving of no longer running ``nodes``: their time, and what executor and call take for them."""
    saved = saving_at(facts, dict.fromkeys(nodes, 0.0))
    if saved.share is None or facts.step is None:
        return saved
    ran = sum(name in facts.graph for name in nodes) / max(len(facts.graph), 1)
    share = min(1.0, saved.share + ran * (_share_of(facts, EXECUTOR) + call_share(facts)))
    return replace(saved, ns=round(share * facts.step.median_ns), share=share)


def call_share(facts: Facts) -> float:
    """Return the share of the step in which the call prepares what it runs, about as long for each op of the graph.

    That is the dispatch without what calling a function takes that computes nothing; 0 where this was not measured.
    """
    empty_ns = facts.evidence.empty_call_ns
    if facts.step is None or empty_ns is None:
        return 0.0
    return max(0.0, _share_of(facts, DISPATCH) - empty_ns / facts.step.median_ns)


def _share_of(facts: Facts, state: str) -> float:
    active_ns = facts.attribution.active_ns
    return active_ns.get(state, 0.0) / (sum(active_ns.values()) or 1.0)


def saving_at(facts: Facts, remaining: Mapping[str, float]) -> Saving:
    """Model the saving when of the time of some ops only a share remains (0: they no longer run).

    The ops' own share of the wall time, capped by what the critical path then allows: a step can never be shorter than
    the longest chain of ops that it still has to run.
    """
    step, timings = facts.step, facts.attribution.timings
    seen = {name: share for name in remaining if name in timings and (share := timings[name].wall_share) is not None}
    if step is None or not seen:
        return Saving()
    shortest_ns = length_ns(facts.graph, _shortened(facts, remaining))
    saved = sum(share * (1 - remaining[name]) for name, share in seen.items())
    share = min(saved, max(0.0, 1 - shortest_ns / step.profiled_ns))
    return Saving(round(share * step.median_ns), share, "modelled")


def _shortened(facts: Facts, remaining: Mapping[str, float]) -> Mapping[str, int]:
    return {name: round(ns * remaining.get(name, 1.0)) for name, ns in facts.path_weights_ns.items()}
