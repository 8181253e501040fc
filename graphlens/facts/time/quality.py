"""Judge the measurement before anything is concluded from it: what was joined, seen, stable, and at which overhead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import executed_graph, judged_graph
from graphlens.facts.programs.judged_program import NO_FUNCTION, programs
from graphlens.facts.time import compiled, unseen
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.ledger import ledger, step_time, step_times_ns
from graphlens.facts.time.period import period
from graphlens.ir.analysis import Quality
from graphlens.ir.inputs import InputRow
from graphlens.ir.ops import COMPOSITE, UNTRACED, UNTRACED_INSTRUCTIONS
from graphlens.ir.pipelines import DATASET
from graphlens.ir.run import EAGER_LOOP, stat_of
from graphlens.units import format_ns, format_share

# Bounds of a good measurement; below POOR_* it should not be trusted.  The join and attribution bounds are what real
# models reach (0.97 and 0.85); a spread above a quarter of the median hides differences of that size.
GOOD_JOIN_RATE: Final = 0.97
POOR_JOIN_RATE: Final = 0.80
GOOD_ATTRIBUTED_SHARE: Final = 0.85
POOR_ATTRIBUTED_SHARE: Final = 0.50
GOOD_OP_SHARE: Final = 0.50  # below it the step is mostly what happens between ops
GOOD_COVERAGE: Final = 0.90
POOR_COVERAGE: Final = 0.50
GOOD_SPREAD: Final = 0.25
POOR_SPREAD: Final = 1.00
GOOD_OVERHEAD: Final = 0.15
POOR_OVERHEAD: Final = 0.50
GOOD_STEPS: Final = 20  # the sampling error of an op's median is then 3 to 7 %
POOR_STEPS: Final = 5

# Ops that leave no event, and those whose time is that of what they call.
_NEVER_TIMED: Final = UNTRACED | UNTRACED_INSTRUCTIONS | COMPOSITE

NO_STEPS: Final = "the profile marks no steps, so that how much of it one step takes is not known"
DROPPED: Final = "the profiler lost {count} events: what ran in them is missing everywhere"
MADE_UP_DECIDES: Final = "'{name}' decides {decides}, and its value is made up: give it with --inputs FILE.npz"
SLOWED: Final = (
    "recording slowed the steps: from one to the next took {profiled} then and takes {plain} otherwise; the time of a "
    "step and those of its ops are as they were recorded"
)
NO_GRAPH: Final = "no graph was given: ops are known by the names in the profile alone"
NO_GRAPH_OF_EAGER_LOOP: Final = "an eager loop has no graph: ops are known by their types alone"


@fact
def quality(facts: Facts) -> Quality:
    """Return the quality of the measurement with its grade and the reasons for it in words."""
    joined, known = facts(attribution), facts(programs)
    notes = (*facts.evidence.notes, *known.notes, *joined.notes, *compiled.notes(facts), *unseen.notes(facts))
    notes = (*notes, *_slowed(facts))
    step = facts(step_time)
    if step is None:
        nobody = NO_FUNCTION if NO_FUNCTION in known.notes else None
        why = nobody or facts.evidence.static_reason or "nothing was executed"
        return Quality("none", reasons=(f"no measurement: {why}",), notes=notes)
    found = joined
    seen, replayed, expected = _coverage(facts)
    numbers = Quality(
        grade="none",
        join_rate=found.joined_ns / found.event_ns if found.event_ns and _has_graph(facts) else None,
        attributed_share=_ledger_share(facts, ("op", "overhead")),
        op_share=None if _is_of_dataset(facts) else _ledger_share(facts, ("op",)),
        coverage=seen / expected if expected else None,
        ops_seen=seen if expected else None,
        ops_replayed=replayed if expected else None,
        ops_expected=expected or None,
        stability=_stability(facts),
        profiler_overhead=_overhead(facts),
        steps=(step.profiled_n or step.n) if found.steps_marked else None,
        notes=notes,
    )
    missing = _missing(facts)
    unsure = [*((False, words) for words in missing), *_made_up(facts.evidence.fed)]
    return _graded(numbers, unsure, joinable=_has_graph(facts))


def _slowed(facts: Facts) -> Iterator[str]:
    """Say that steps were timed while they were recorded where it is known how much longer they took by that."""
    whole = facts.known(period, None)
    if whole is None or whole.profiled_ns is None or facts.evidence.unprofiled_ns:
        return
    if whole.profiled_ns > (1 + GOOD_OVERHEAD) * whole.ns:
        yield SLOWED.format(plain=format_ns(whole.ns), profiled=format_ns(whole.profiled_ns))


def _made_up(fed: Sequence[InputRow]) -> Iterator[tuple[bool, str]]:
    """Yield what was made up and decides what a step does: of a loop that runs otherwise nothing here may hold."""
    for row in fed:
        if row.decides:
            yield row.loop, MADE_UP_DECIDES.format(name=row.name, decides=row.decides)


def _missing(facts: Facts) -> list[str]:
    """Say what a measurement has to do without, however good it is otherwise."""
    dropped = facts.evidence.profile.dropped if facts.evidence.profile else 0
    return [
        *_without_graph(facts),
        *(() if facts(attribution).steps_marked else (NO_STEPS,)),
        *((DROPPED.format(count=dropped),) if dropped else ()),
    ]


def _without_graph(facts: Facts) -> tuple[str, ...]:
    if _has_graph(facts) or _is_of_dataset(facts):
        return ()
    return (NO_GRAPH_OF_EAGER_LOOP if _is_eager(facts) else NO_GRAPH,)


def _is_of_dataset(facts: Facts) -> bool:
    """Whether a step is the next element of a dataset, whose stages stand in its pipeline and not in a graph of ops."""
    return facts.evidence.target.kind == DATASET


def _is_eager(facts: Facts) -> bool:
    judged = facts(programs).judged
    return judged is not None and judged.name == EAGER_LOOP


def _has_graph(facts: Facts) -> bool:
    return len(facts(judged_graph)) > 0


def _ledger_share(facts: Facts, kinds: tuple[str, ...]) -> float | None:
    """Return the share of the step in ledger rows of these kinds, ``None`` when no profile says."""
    rows = facts(ledger)
    total = sum(row.ns for row in rows)
    if not total or not facts(attribution).wall_ns:
        return None
    return sum(row.ns for row in rows if row.kind in kinds) / total


def _coverage(facts: Facts) -> tuple[int, int, int]:
    """Count the executed ops that the profile saw, that only the replay saw, and that a profiler can see at all."""
    found, ran = facts(attribution), facts(executed_graph)
    if ran is None or not found.wall_ns:
        return 0, 0, 0
    expected = [name for name, op in ran.items() if op.type not in _NEVER_TIMED]
    timings = found.timings
    seen = sum(1 for name in expected if name in timings and timings[name].wall_share is not None)
    return seen, sum(1 for name in expected if name in timings) - seen, len(expected)


def _stability(facts: Facts) -> float | None:
    """Return the spread of the step times on the host where it is largest: that hosts differ is no spread."""
    stats = [stat_of(times_ns) for times_ns in facts(step_times_ns).values()]
    return max((stat.spread for stat in stats if stat and stat.n > 1), default=None)


def _overhead(facts: Facts) -> float | None:
    step = facts(step_time)
    if step is None or not facts.evidence.unprofiled_ns or not step.profiled_median_ns:
        return None
    return step.profiled_median_ns / step.median_ns - 1


def _graded(numbers: Quality, unsure: Sequence[tuple[bool, str]], joinable: bool) -> Quality:
    verdicts = [*unsure, *_verdicts(numbers, joinable)]
    grade: Literal["good", "fair", "poor"] = (
        "poor" if any(poor for poor, _ in verdicts) else "fair" if verdicts else "good"
    )
    weightiest_first = sorted(verdicts, key=lambda verdict: not verdict[0])
    reasons = tuple(words for _, words in weightiest_first) or ("every check of the measurement passed",)
    return replace(numbers, grade=grade, reasons=reasons)


def _verdicts(numbers: Quality, joinable: bool) -> Iterator[tuple[bool, str]]:
    """Yield ``(is_poor, words)`` for every check that did not pass."""
    join, attributed, coverage = numbers.join_rate, numbers.attributed_share, numbers.coverage
    if join is None and joinable:
        yield True, "no profile was joined to the graph"
    elif join is not None and join < GOOD_JOIN_RATE:
        yield join < POOR_JOIN_RATE, f"only {format_share(join)} of the measured op time was joined to a traced op"
    if attributed is not None and attributed < GOOD_ATTRIBUTED_SHARE:
        yield attributed < POOR_ATTRIBUTED_SHARE, f"only {format_share(attributed)} of the step is attributed"
    if numbers.op_share is not None and numbers.op_share < GOOD_OP_SHARE:
        yield False, f"ops that could be timed ran in only {format_share(numbers.op_share)} of the step"
    if coverage is not None and coverage < GOOD_COVERAGE:
        yield _uncovered_share(numbers) > 1 - POOR_COVERAGE, _coverage_words(numbers)
    yield from _timing_verdicts(numbers)


def _uncovered_share(numbers: Quality) -> float:
    """Return the share of the ops that neither the profile nor the replay saw."""
    seen = (numbers.ops_seen or 0) + (numbers.ops_replayed or 0)
    return 1 - seen / numbers.ops_expected if numbers.ops_expected else 0.0


def _coverage_words(numbers: Quality) -> str:
    words = f"the profiler saw {numbers.ops_seen} of {numbers.ops_expected} executed ops"
    if not numbers.ops_replayed:
        return words
    return f"{words}; {numbers.ops_replayed} more were timed by a replay, which is good for ranking only"


def _timing_verdicts(numbers: Quality) -> Iterator[tuple[bool, str]]:
    spread, overhead, steps = numbers.stability, numbers.profiler_overhead, numbers.steps
    if spread is not None and spread > GOOD_SPREAD:
        yield spread > POOR_SPREAD, f"step times spread by {format_share(spread)} of their median (p10 to p90)"
    if overhead is not None and abs(overhead) > GOOD_OVERHEAD:
        side = "slower" if overhead > 0 else "faster"
        yield (
            abs(overhead) > POOR_OVERHEAD,
            f"profiled steps were {format_share(abs(overhead))} {side} than unprofiled ones",
        )
    if steps is not None and steps < GOOD_STEPS:
        yield steps < POOR_STEPS, f"only {steps} {'steps were' if steps > 1 else 'step was'} profiled"
