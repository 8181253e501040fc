"""Which of the programs that ran a captured graph belongs to: told by the function's own name, else by its ops."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from graphlens.facts.flat.inlining import inline
from graphlens.facts.flat.names import Names
from graphlens.facts.programs.program_names import base_name
from graphlens.facts.programs.program_runs import ProgramRuns
from graphlens.ir.program import Program
from graphlens.ir.run import Profile

# A run belongs to a graph that has this part of its ops.  Grappler renames and adds some; of another function hardly
# any op has a name that the graph knows.
_KNOWN_OPS: Final = 0.5

_Events = Mapping[str, frozenset[tuple[str, str]]]  # program that ran -> name and type of its ops


def matched(programs: Sequence[Program], ran: Sequence[ProgramRuns], profile: Profile | None) -> tuple[Program, ...]:
    """Return ``programs``, each called as it is in ``profile`` where that can be told.

    A function that was loaded or traced again has another number, and all signatures that TensorFlow wrote are called
    ``signature_wrapper``: then it is the one whose ops the graph has.
    """
    names = {one.name for one in ran}
    told = {program.id: program.name for program in programs if program.name in names}
    unsure = [program for program in programs if program.id not in told]
    if profile is not None and unsure:
        events = _events(ran, profile)
        for program in unsure:
            name = _told_by_ops(program, [one for one in ran if one.name not in told.values()], events)
            if name is not None:
                told[program.id] = name
    return tuple(replace(program, name=told.get(program.id, program.name)) for program in programs)


def _events(ran: Iterable[ProgramRuns], profile: Profile) -> _Events:
    from graphlens.ir.columns import OpEvents  # needs numpy, which graphs alone do not

    program_of = {run: one.name for one in ran for run in one.runs}
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for run, node, op in OpEvents.of(profile.ops).by_run():
        if run in program_of:
            found[program_of[run]].add((node, op))
    return {name: frozenset(ops) for name, ops in found.items()}


class _Likeness(NamedTuple):
    """How many ops of a graph one program ran, and what it is called."""

    ops: int
    name: str


def _told_by_ops(program: Program, ran: Sequence[ProgramRuns], events: _Events) -> str | None:
    """Return the one program of ``ran`` whose ops the graph has, ``None`` where it is none, or not a single one."""
    alike = sorted(_alike(program, ran, events), reverse=True)
    namesakes = [one for one in alike if program.name and base_name(one.name) == base_name(program.name)]
    if len(namesakes) == 1:
        return namesakes[0].name
    best = namesakes or alike
    if not best or (len(best) > 1 and best[0].ops == best[1].ops):
        return None
    return best[0].name


def _alike(program: Program, ran: Sequence[ProgramRuns], events: _Events) -> Iterator[_Likeness]:
    graph = program.executed or program.traced
    if graph is None:
        return
    known = Names(inline(graph), loosely=True)
    for one in ran:
        ops = events.get(one.name, frozenset())
        found = [known.find(name, kind) for name, kind in ops]
        explained = sum(name is not None for name in found)
        if ops and explained >= _KNOWN_OPS * len(ops):
            yield _Likeness(len({name for name in found if name}), one.name)
