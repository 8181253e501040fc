"""Where the step's wall time went, in rows that sum to the step exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from graphlens.facts.clock.division import COPY, DISPATCH, EXECUTOR, HANDOFF, STATES
from graphlens.facts.core import Facts, fact
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.programs.program_runs import ProgramRuns, possible_period
from graphlens.facts.programs.watched import watched_by_name
from graphlens.facts.time.attribution import Attribution, attribution
from graphlens.ir.measured import StepKind, StepTime
from graphlens.ir.ops import family
from graphlens.ir.run import EAGER_LOOP, LedgerRow, stat_of

# Rows of the ledger that are no op's time.  The hand-off between threads (a function runs, but neither an op nor the
# executor is active on any thread) has no known cause: it is the unattributed rest.
SCHEDULING: Final = "executor: scheduling, control flow and ops too cheap to be timed"
OVERHEAD_ROWS: Final[Mapping[str, str]] = {
    EXECUTOR: SCHEDULING,
    DISPATCH: "dispatch: Python and the call of the function",
}
UNATTRIBUTED: Final = "unattributed"
COPIES: Final = family("Memcpy")  # between memories, while no kernel ran


@fact
def step_time(facts: Facts) -> StepTime | None:
    """The step's time: without the profiler where that was measured, else with it; ``None`` when nothing ran."""
    profiled = stat_of(facts(attribution).wall_ns)
    plain = stat_of(facts.evidence.unprofiled_ns) or profiled
    if plain is None:
        return None
    judged, cycle = facts(programs).judged, facts(attribution).cycle
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
        period_ns=_period_ns(facts, judged, plain.median_ns) if judged else None,
    )


def _period_ns(facts: Facts, judged: ProgramRuns, step_ns: int) -> int | None:
    """Return the period beside a step of that length: of a script both are without the profiler, or with it."""
    if judged.name == EAGER_LOOP and facts.evidence.unprofiled_ns:
        return step_ns  # which lasts until the next one begins
    called = facts(watched_by_name).get(judged.name) if facts.evidence.unprofiled_ns else None
    if called is None:
        return possible_period(judged, step_ns)
    return called.function.period_ns


@fact
def step_times_ns(facts: Facts) -> Mapping[str, tuple[int, ...]]:
    """The wall times of single steps by host: without the profiler where those were measured, else with it."""
    unprofiled_ns = facts.evidence.unprofiled_ns
    return {"": unprofiled_ns} if unprofiled_ns else facts(attribution).host_wall_ns


@fact
def ledger(facts: Facts) -> tuple[LedgerRow, ...]:
    """Where the step's time went: its median, apportioned to the composition of the profiled steps.

    The composition is that of the typical profiled steps (the middle half by length).  Integer nanoseconds are
    apportioned by largest remainder, so the rows sum to ``step.median_ns`` exactly.
    """
    step = facts(step_time)
    if step is None:
        return ()
    weights = _weights(facts(attribution))
    if not weights:
        return (LedgerRow(UNATTRIBUTED, step.median_ns, "unattributed"),)
    keys = sorted(weights, key=lambda key: (-weights[key], key))
    parts = apportion(step.median_ns, [weights[key] for key in keys])
    rows = [_row(key, ns) for key, ns in zip(keys, parts, strict=True)]
    return tuple(sorted(rows, key=lambda row: (row.kind != "op", row.kind == "unattributed", -row.ns)))


def _weights(found: Attribution) -> Mapping[str, float]:
    weights: dict[str, float] = defaultdict(float)
    for key, ns in found.active_ns.items():
        booked = COPIES if key == COPY else key if key in STATES else family(found.op_types.get(key, ""))
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
