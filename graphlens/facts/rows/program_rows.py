"""The programs of an analysis as rows: what ran, how often, how long, and for which share of the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from graphlens.facts.clock.steps import length_ns, without_slow_first
from graphlens.facts.core import Facts, fact
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.programs.program_names import base_name, short_name
from graphlens.facts.programs.program_runs import ProgramRuns, possible_period
from graphlens.facts.programs.watched import Watched, watched, watched_by_name
from graphlens.facts.rows.sizes import graph_sizes, sizes_of_others
from graphlens.facts.time.ledger import step_time
from graphlens.ir.measured import GraphSize, ProgramRow, ProgramTrace, StepTime
from graphlens.ir.program import Program
from graphlens.ir.run import stat_of
from graphlens.ir.script import ScriptTrace, TraceKind

TRACED: Final = "the function was traced by Python or compiled by XLA in this call"
WHY: Final[Mapping[TraceKind, str]] = {
    "first": "the function was traced by Python in its first call",
    "variables": "the function was traced again because its first trace created variables",
    "relaxed": "the function was traced again for all shapes of its arguments",
    "retrace": "the function was traced again: no trace that it had fitted this call",
}
_ONLY: Final = "main"  # the id of the one program whose name nobody says


@fact
def program_rows(facts: Facts) -> tuple[ProgramRow, ...]:
    """One row per program, the judged one first; where none is judged, no row has the step of the analysis."""
    sizes, others = facts(graph_sizes), facts(sizes_of_others)
    shown = facts(programs)
    ran = shown.all
    if not ran:
        listed = list(_as_watched(_without_runs(facts, sizes, others), facts(watched_by_name)))
        return (*listed, *_only_called(listed, facts(watched)))
    ids = ids_of(ran)
    with_graphs = {program.name: program for program in facts.evidence.programs if program.name}
    rows = []
    step = facts.known(step_time, None)
    for one in ran:
        judged, program = one is shown.judged, with_graphs.get(one.name)
        graphs = sizes if judged else others.get(program.id, {}) if program else {}
        row = _row(ids[one.name], one, step if judged else _step(one), graphs)
        rows.append(replace(row, role=program.role) if program and program.role else row)
    rows.extend(_not_seen(facts.evidence.programs, others, rows))
    return tuple(_as_watched(rows, facts(watched_by_name)))


def _as_watched(rows: Iterable[ProgramRow], known: Mapping[str, Watched]) -> Iterator[ProgramRow]:
    """Yield the rows with what was seen of each program over the life of a script.

    Of a function with several programs the first one has its calls and traces: they are counted once.
    """
    told: set[str] = set()
    for row in rows:
        own = known.get(row.name)
        if own is None:
            yield row
        elif own.function.id in told:
            yield replace(row, source=own.function.source or None)
        else:
            told.add(own.function.id)
            traces = tuple(map(_trace, own.traces))
            yield replace(row, calls=own.function.calls, source=own.function.source or None, traces=traces)


def _only_called(rows: Sequence[ProgramRow], called: Iterable[Watched]) -> Iterator[ProgramRow]:
    """Yield the row of each function that a script called and whose graphs nobody has."""
    names, ids = {row.name for row in rows}, {row.id for row in rows}
    for one in called:
        function = one.function
        if names.isdisjoint(function.concretes) and function.id not in ids:
            traces = tuple(map(_trace, one.traces))
            name = next(iter(function.concretes), function.name)
            yield ProgramRow(
                function.id, name, "step", traces=traces, calls=function.calls, source=function.source or None
            )


def _trace(trace: ScriptTrace) -> ProgramTrace:
    return ProgramTrace(WHY[trace.kind], trace.ns, trace.kind, trace.at_ns, trace.call, trace.changed, trace.lost_ns)


def _not_seen(
    programs: Iterable[Program], others: Mapping[str, Mapping[str, GraphSize]], seen: Sequence[ProgramRow]
) -> Iterator[ProgramRow]:
    """Yield the rows of programs whose graphs are known, and of which the profile shows no run."""
    names, ids = {row.name for row in seen}, {row.id for row in seen}
    for program in programs:
        if program.id in others and program.name not in names:
            row = _graphs_only(program, others[program.id])
            yield replace(row, id=program.name or program.id) if program.id in ids else row


def _without_runs(
    facts: Facts, sizes: Mapping[str, GraphSize], others: Mapping[str, Mapping[str, GraphSize]]
) -> list[ProgramRow]:
    """Return the rows of an analysis whose profile, if any, shows no runs."""
    evidence = facts.evidence
    judged = next((one.name for one in evidence.programs if one.id == evidence.judged), "")
    name = judged or evidence.target.signature or (evidence.traced.root if evidence.traced else "")
    step = facts.known(step_time, None)
    identity = base_name(judged) or name or _ONLY
    rows = [ProgramRow(identity, name, "step", step=step, graphs=sizes)] if sizes or step else []
    listed = [one for one in evidence.programs if one.id in others and one.executed is not evidence.executed]
    return rows + [_graphs_only(program, others[program.id]) for program in listed]


def _graphs_only(program: Program, sizes: Mapping[str, GraphSize]) -> ProgramRow:
    return ProgramRow(program.id, program.name, program.role or "step", graphs=sizes)


def ids_of(programs: Sequence[ProgramRuns]) -> Mapping[str, str]:
    """Return name -> id: the name as it was written in Python, with its number where several have the same one."""
    shared = Counter(base_name(one.name) for one in programs)
    return {
        one.name: base_name(one.name) if shared[base_name(one.name)] == 1 else short_name(one.name) for one in programs
    }


def _row(identity: str, one: ProgramRuns, step: StepTime | None, graphs: Mapping[str, GraphSize]) -> ProgramRow:
    traces = tuple(ProgramTrace(TRACED, trace.ns) for trace in one.traces)
    return ProgramRow(identity, one.name, one.role, len(one.runs), one.count, step, one.share, graphs, traces)


def _step(one: ProgramRuns) -> StepTime | None:
    stat = stat_of([length_ns(step) for step in without_slow_first(one.steps)])
    if stat is None:
        return None
    period_ns = possible_period(one, stat.median_ns)
    return StepTime(
        stat.median_ns,
        stat.p10_ns,
        stat.p90_ns,
        stat.n,
        profiled_median_ns=stat.median_ns,
        profiled_n=stat.n,
        period_ns=period_ns,
    )
