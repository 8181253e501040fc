"""Which of several programs is judged, and with which graphs: the one that the user names, else that with most time."""

from __future__ import annotations

from dataclasses import replace

from graphlens.errors import UsageError
from graphlens.facts.programs import ProgramRuns, named, programs_of
from graphlens.ir.evidence import Evidence
from graphlens.ir.program import Program


def choose(evidence: Evidence, wanted: str | None = None) -> Evidence:
    """Return ``evidence`` with the graphs of the program that is to be judged.

    Raises
    ------
    UsageError
        When no program, or more than one, is called ``wanted``; the message lists those that ran.
    """
    if wanted is None and not evidence.programs:
        return evidence
    ran = programs_of(evidence.profile).all
    if wanted is not None and named(ran, wanted) is None and _by_id(evidence, wanted) is None:
        raise UsageError(_none_such(wanted, ran, evidence.programs))
    judged = named(ran, wanted) if wanted is not None else next(iter(ran), None)
    if wanted is not None and judged is not None:
        evidence = _with_its_module(evidence, judged)
    known = _by_id(evidence, wanted) if wanted is not None else None
    graphs = known or next((one for one in evidence.programs if judged and one.name == judged.name), None)
    return _with_graphs(replace(evidence, program=graphs.name if graphs and graphs.name else wanted), graphs)


def _by_id(evidence: Evidence, wanted: str) -> Program | None:
    return next((one for one in evidence.programs if wanted in (one.id, one.name)), None)


def _with_graphs(evidence: Evidence, program: Program | None) -> Evidence:
    """Return the evidence with the graphs of ``program``; those of another one explain nothing of what it ran."""
    if program is None:
        return replace(evidence, traced=None, optimized=None, executed=None) if evidence.programs else evidence
    return replace(
        evidence,
        traced=program.traced,
        optimized=program.optimized,
        executed=program.executed,
        training=program.training,
        target=replace(evidence.target, signature=program.signature or evidence.target.signature),
    )


def _with_its_module(evidence: Evidence, program: ProgramRuns) -> Evidence:
    """Return the evidence of a program that devices report themselves without the graphs of the other ones."""
    runs = evidence.profile.runs if evidence.profile else ()
    if any(runs[position].device is None for position in program.runs):
        return evidence
    return replace(evidence, hlo={name: graph for name, graph in evidence.hlo.items() if name == program.name})


def _none_such(wanted: str, ran: tuple[ProgramRuns, ...], known: tuple[Program, ...]) -> str:
    names = dict.fromkeys([*(one.name for one in ran), *(one.name or one.id for one in known)])
    alike = [name for name in names if wanted in name]
    if not names:
        return f"--program {wanted}: nothing that was recorded tells one program from another"
    which = f"is a part of {len(alike)} names" if alike else "is no program that ran"
    return f"--program {wanted} {which}; there are: {', '.join(alike or names)}"
