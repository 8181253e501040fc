"""Which of several programs is judged, and with which graphs: the one that the user names, else that with most time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from graphlens.errors import UsageError
from graphlens.facts.programs.judged_program import Programs, is_our_own, named, programs_of
from graphlens.facts.programs.program_graphs import matched
from graphlens.facts.programs.program_names import base_name, short_name
from graphlens.facts.programs.program_runs import ProgramRuns
from graphlens.facts.programs.retraced import joined
from graphlens.facts.rows.program_rows import ids_of
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Graph
from graphlens.ir.program import Program
from graphlens.ir.run import EAGER_LOOP
from graphlens.ir.script import Script

FEWEST_UNRECORDED: Final = 20  # calls, of which a tenth is not one alone

DID_NOT_RUN: Final = "the profile shows no run of this program"


def choose(evidence: Evidence, wanted: str | None = None) -> Evidence:
    """Return ``evidence`` about the program that is to be judged: with its graphs, and nothing measured of another.

    Raises
    ------
    UsageError
        When no program, or more than one, is called ``wanted``; the message lists those that ran.
    """
    evidence = joined(evidence)
    if not evidence.programs:
        return evidence if wanted is None else _of_profile(evidence, wanted)
    if wanted is None and len(evidence.programs) == 1 and _is_our_own(evidence):
        return evidence
    shown = programs_of(evidence.profile)
    told = replace(evidence, programs=_told(evidence, shown.all))
    return _of_most_time(told, shown) if wanted is None else _of_name(told, shown.all, wanted)


def _of_profile(evidence: Evidence, wanted: str) -> Evidence:
    """Return the evidence about a program of a recording that does not tell whose its graphs are."""
    ran = programs_of(evidence.profile).all
    judged = named(ran, wanted)
    if judged is None:
        raise UsageError(_none_such(wanted, ran, ()))
    return _with_its_module(replace(evidence, program=wanted), judged)


def _told(evidence: Evidence, ran: Sequence[ProgramRuns]) -> tuple[Program, ...]:
    """Return the programs whose graphs are known, called as they ran; what we called ourselves is the main one."""
    programs = matched(evidence.programs, ran, evidence.profile)
    if not ran or not _is_our_own(evidence) or _of(programs, ran[0]) is not None:
        return programs
    return tuple(replace(one, name=ran[0].name) if one.main and not _has_run(one, ran) else one for one in programs)


def _is_our_own(evidence: Evidence) -> bool:
    return evidence.profile is not None and is_our_own(evidence.profile)


def _has_run(program: Program, ran: Sequence[ProgramRuns]) -> bool:
    return any(one.name == program.name for one in ran)


def _of(programs: Sequence[Program], judged: ProgramRuns) -> Program | None:
    return next((one for one in programs if one.name == judged.name), None)


def _of_most_time(evidence: Evidence, shown: Programs) -> Evidence:
    if evidence.profile is None and evidence.script is not None:
        about = _about(evidence, _longest_called(evidence.script, evidence.programs), None)
        return replace(about, static_reason=evidence.static_reason)
    if shown.judged is None or _is_our_own(evidence):
        return evidence  # it is about the main program already
    program = _graphs_of(evidence, shown.judged, shown.all)
    told_apart = () if program is not None else tuple(_of_others(evidence.programs))
    about = _about(evidence, program, shown.judged)
    return replace(about, program=None, notes=(*about.notes, *told_apart))


def _longest_called(script: Script, programs: Sequence[Program]) -> Program | None:
    """Return the program of the function that took most of a script's time, of those whose graphs are known."""
    names = [name for function in script.functions for name in function.concretes]
    return min((one for one in programs if one.name in names), key=lambda one: names.index(one.name), default=None)


def _of_others(programs: Sequence[Program]) -> Iterator[str]:
    """Say whose the main program's graph is when what took most time is another one."""
    for one in programs:
        if one.main and one.traced is not None:
            yield f"the graph that was given is not of what took most time, but of {one.name}: --program {one.name}"


def _graphs_of(evidence: Evidence, judged: ProgramRuns, ran: Sequence[ProgramRuns]) -> Program | None:
    """Return the program that ran as ``judged``; the main one where nobody can tell as what that ran."""
    untold = (one for one in evidence.programs if one.main and not _has_run(one, ran))
    return _of(evidence.programs, judged) or next(untold, None)


def _of_name(evidence: Evidence, ran: Sequence[ProgramRuns], wanted: str) -> Evidence:
    program = _called(evidence.programs, wanted)
    if program is not None and program.main and not ran:
        return _with_graphs(evidence, program)
    if program is not None:
        return _about(evidence, program, _runs_of(evidence, program, ran))
    judged = named(ran, wanted)
    if judged is None:
        raise UsageError(_none_such(wanted, ran, evidence.programs))
    return _with_its_module(_about(evidence, _graphs_of(evidence, judged, ran), judged), judged)


def _called(programs: Sequence[Program], wanted: str) -> Program | None:
    """Return the program that is named, whose graphs are known: by its name first, then by its id or its signature."""
    by_name = [one for one in programs if one.name and wanted in (one.name, base_name(one.name), short_name(one.name))]
    otherwise = [one for one in programs if one.id == wanted] or [one for one in programs if one.signature == wanted]
    return next((found[0] for found in (by_name, otherwise) if len(found) == 1), None)


def _runs_of(evidence: Evidence, program: Program, ran: Sequence[ProgramRuns]) -> ProgramRuns | None:
    """Return as what ``program`` ran: where nobody can tell of the main one, what took most time and is no other."""
    own = next((one for one in ran if one.name == program.name), None)
    unclaimed = ran[0] if program.main and ran and _of(evidence.programs, ran[0]) is None else None
    return own or unclaimed


# -- what is known of one program ----------------------------------------------------------------------------------


def _about(evidence: Evidence, program: Program | None, judged: ProgramRuns | None) -> Evidence:
    """Return the evidence about ``program``, which ran as ``judged``; ``None``: the one or the other is not known."""
    about = _with_graphs(evidence, program)
    profile = evidence.profile
    if profile is None or (program is not None and program.main and is_our_own(profile)):
        return about
    if judged is None:
        return replace(about, profile=None, static_reason=DID_NOT_RUN)
    # Our marks are around the main program: of another one they are no steps.
    marks = () if is_our_own(profile) else profile.steps
    if judged.name == EAGER_LOOP:  # which alone was timed without the profiler
        about = replace(about, unprofiled_ns=evidence.unprofiled_ns)
    elif evidence.script is not None and not any(profile.runs[run].iterations for run in judged.runs):
        about = replace(about, unprofiled_ns=_unrecorded_ns(evidence.script, judged))
    return replace(about, profile=replace(profile, steps=marks), program=judged.name)


def _unrecorded_ns(script: Script, judged: ProgramRuns) -> tuple[int, ...]:
    """Return how long calls of a function took that are one step each, while nothing was recorded; if of many."""
    times = next((one.unrecorded_ns[judged.name] for one in script.functions if judged.name in one.unrecorded_ns), ())
    return times if len(times) >= FEWEST_UNRECORDED else ()


def _with_graphs(evidence: Evidence, program: Program | None) -> Evidence:
    """Return the evidence with the graphs of ``program``; those of another one explain nothing of what it ran."""
    known = program or Program("")
    about = replace(
        evidence,
        traced=known.traced,
        optimized=known.optimized,
        executed=known.executed,
        renamed=known.renamed,
        scopes=known.scopes,
        hlo={**_of_no_program(evidence), **known.hlo},
        training=known.training,
        inputs=known.inputs,
        fed=known.fed,
        judged=program.id if program is not None else None,
        target=replace(
            evidence.target, signature=known.signature, chosen=evidence.target.chosen if known.main else None
        ),
    )
    return about if known.main else _without_times_of_main(about)


def _of_no_program(evidence: Evidence) -> dict[str, Graph]:
    """Return the modules that the profile itself holds."""
    own = {name for program in evidence.programs for name in program.hlo}
    return {name: module for name, module in evidence.hlo.items() if name not in own}


def _with_its_module(evidence: Evidence, judged: ProgramRuns) -> Evidence:
    """Return the evidence of a program that devices report themselves without the graphs of the other ones."""
    runs = evidence.profile.runs if evidence.profile else ()
    if any(runs[position].device is None for position in judged.runs):
        return evidence
    return replace(evidence, hlo={name: graph for name, graph in evidence.hlo.items() if name == judged.name})


def _without_times_of_main(evidence: Evidence) -> Evidence:
    """Leave out what was measured of the main program alone: its calls without the profiler, and its replay."""
    return replace(
        evidence,
        unprofiled_ns=(),
        replay={},
        static_reason=None if evidence.executed is not None else evidence.static_reason,
    )


def _none_such(wanted: str, ran: Sequence[ProgramRuns], known: Sequence[Program]) -> str:
    names = _as_shown(ran, known)
    alike = [shown for name, shown in names.items() if wanted in name]
    if not names:
        return f"--program {wanted}: nothing that was recorded tells one program from another"
    which = f"is a part of {len(alike)} names" if alike else "is no program that ran"
    return f"--program {wanted} {which}; there are: {', '.join(alike or names.values())}"


def _as_shown(ran: Sequence[ProgramRuns], known: Sequence[Program]) -> Mapping[str, str]:
    """Return name -> what reports call the program, which ``--program`` takes."""
    others = {one.name or one.id: one.name or one.id for one in known}
    return {**others, **ids_of(ran)}
