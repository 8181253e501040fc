"""Where the time goes from the start of one step to the start of the next, in rows that sum to it exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, median_low
from typing import Final

from graphlens.facts.clock.periods import Stretch, period_ns_of, stretches_of, typical_of
from graphlens.facts.core import Facts, fact
from graphlens.facts.programs.judged_program import is_our_own, programs
from graphlens.facts.programs.program_runs import ProgramRuns
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.ledger import apportion
from graphlens.ir.run import EAGER_LOOP, SESSION, LedgerRow, Profile
from graphlens.ir.script import Script, ScriptFunction
from graphlens.ir.training import Period

FEWEST_PERIODS: Final = 5  # whose median no single pause moves by much
# Of the period.  A step that waits for less asks for elements that lie ready, which takes longer while it is recorded,
# as all that it does.  Who waits for more waits no less than that while nothing is recorded.
NOTABLE_WAIT: Final = 0.1


@fact
def stretches(facts: Facts) -> Sequence[Stretch]:
    """The periods of the judged program's steps; none where GraphLens itself called it, or nothing is judged."""
    profile, judged = facts.evidence.profile, facts(programs).judged
    if profile is None or judged is None or is_our_own(profile):
        return ()
    return tuple(stretches_of(profile, judged.runs, judged.steps))


@fact
def period(facts: Facts) -> Period | None:
    """The period of the judged program's steps; ``None`` where fewer than two of them follow each other.

    Its length is what the script itself needed while nothing was recorded, as far as that was seen.  How it is divided
    is that of the middle half of those that were recorded; of all, in whole cycles, where steps do different work by
    turns, so that none of it is lost.
    """
    recorded, profile, judged = facts(stretches), facts.evidence.profile, facts(programs).judged
    if not recorded or profile is None or judged is None:
        return None
    from graphlens.facts.time.around import EXECUTOR, OPS, divided  # needs numpy, which graphs alone do not

    cycle = facts(attribution).cycle
    shown = _in_whole_cycles(recorded, cycle.length) if cycle.kinds else typical_of(recorded)
    profiled_ns = period_ns_of(recorded)
    steps_per_call = median_low(one.steps for one in recorded)
    ns, n = _unrecorded(facts, profile, judged, steps_per_call, profiled_ns) or (profiled_ns, 0)
    rows = _rows(ns, _while_unrecorded(divided(profile, judged, shown), ns / profiled_ns if profiled_ns else 1.0))
    executor_ns = sum(row.ns for row in rows if row.category in (OPS, EXECUTOR))
    return Period(ns, n or sum(one.steps for one in recorded), rows, executor_ns, profiled_ns)


def wait_while_unrecorded(share: float, faster: float) -> float:
    """Return for which share of its period a step waits for input while nothing is recorded, as far as can be told.

    Being recorded makes what runs many small ops slower, by a half and more: memory is taken for each event. For the
    functions of a pipeline that is longer waiting, where the step waits for them. What the step does itself takes as
    long as while it was recorded, if that made it no slower, and as much less as its period, if it made all slower
    alike. What is returned has the geometric mean of the two.

    Parameters
    ----------
    share
        The same while it was recorded.
    faster
        The period while nothing was recorded, as a part of the recorded one.
    """
    if share < NOTABLE_WAIT or not 0.0 < faster < 1.0:
        return share
    return max(0.0, 1 - (1 - share) / faster**0.5)


def _while_unrecorded(parts_ns: Mapping[str, float], faster: float) -> Mapping[str, float]:
    """Return the parts of a recorded period in the proportions that they have while nothing is recorded."""
    from graphlens.facts.time.around import INPUT

    total_ns = sum(parts_ns.values())
    if not parts_ns.get(INPUT) or parts_ns[INPUT] >= total_ns:
        return parts_ns
    recorded = parts_ns[INPUT] / total_ns
    share = max(wait_while_unrecorded(recorded, faster), min(recorded, NOTABLE_WAIT))  # little is known, but not none
    return {**parts_ns, INPUT: (total_ns - parts_ns[INPUT]) * share / (1 - share)}


@dataclass(frozen=True, slots=True)
class Parts:
    """What of a period is the call of the step itself, and by row what is neither that nor the executor's work."""

    call_ns: int = 0
    others_ns: Mapping[str, int] = field(default_factory=dict)


@fact
def parts_of_period(facts: Facts) -> Parts:
    """The period told apart by what several steps in one call would save, and what not."""
    whole = facts(period)
    if whole is None:
        return Parts()
    from graphlens.facts.time.around import DISPATCH, EAGER, EXECUTOR, OPS

    call = (DISPATCH, EAGER)
    rest = {row.category: row.ns for row in whole.rows if row.category not in (*call, OPS, EXECUTOR)}
    return Parts(sum(row.ns for row in whole.rows if row.category in call), rest)


@fact
def calls_are_single_steps(facts: Facts) -> bool:
    """Whether Python calls a function for each step: neither a loop of several, nor a Session, nor op by op."""
    profile, judged = facts.evidence.profile, facts(programs).judged
    if profile is None or judged is None or judged.name == EAGER_LOOP or judged.name.startswith(SESSION):
        return False
    return not any(profile.runs[run].iterations for run in judged.runs)


def _unrecorded(
    facts: Facts, profile: Profile, judged: ProgramRuns, steps_per_call: int, profiled_ns: int
) -> tuple[int, int] | None:
    """Return the period of the program's steps while nothing was recorded, and of how many; ``None`` if of too few.

    A call of a loop over a dataset is all of its steps.
    """
    if judged.name == EAGER_LOOP:  # where a step lasts until the next one begins
        plain_ns = facts.evidence.unprofiled_ns
        return (round(median(plain_ns)), len(plain_ns)) if len(plain_ns) >= FEWEST_PERIODS else None
    called = _function(facts.evidence.script, judged) if facts.evidence.script else None
    if called is None:
        return None
    if called.period_ns is None or called.periods < FEWEST_PERIODS:
        return _of_calls_alike(profile, judged, called.alike_ns.get(judged.name, ()), profiled_ns)
    return round(called.period_ns / steps_per_call), called.periods * steps_per_call


def _of_calls_alike(
    profile: Profile, judged: ProgramRuns, calls_ns: Sequence[int], profiled_ns: int
) -> tuple[int, int] | None:
    """Return the same of calls that loop over the data over which all recorded ones did, with as many steps.

    As large a part of such a call is its loop as of those that were recorded.  Where the recorded period is that from
    call to call, the program does as much between them as it did then.  The calls are few: the fastest of them tells
    most, since what else the machine does only adds to a call; and being recorded makes none faster.
    """
    runs = [profile.runs[position] for position in judged.runs]
    steps = {len(run.iterations) for run in runs}
    if not calls_ns or len(steps) != 1 or not (count := steps.pop()):
        return None
    recorded_ns = sum(run.end_ns - run.start_ns for run in runs) / len(runs)
    share = min(1.0, count * profiled_ns / max(1.0, recorded_ns))
    between_ns = max(0.0, count * profiled_ns - recorded_ns)
    ns = round((share * min(calls_ns) + between_ns) / count)
    return (ns, count * len(calls_ns)) if ns < profiled_ns else None


def _function(script: Script, judged: ProgramRuns) -> ScriptFunction | None:
    """Return what the script called to run the program; a Session that fetches several things is none of them."""
    if not judged.name.startswith(SESSION):
        return next((one for one in script.functions if judged.name in one.concretes), None)
    sessions = [one for one in script.functions if one.name == SESSION and one.periods >= FEWEST_PERIODS]
    return sessions[0] if len(sessions) == 1 else None


def _in_whole_cycles(recorded: Sequence[Stretch], length: int | None) -> Sequence[Stretch]:
    over = len(recorded) % length if length else 0
    return recorded[: len(recorded) - over] or recorded


def _rows(ns: int, parts_ns: Mapping[str, float]) -> tuple[LedgerRow, ...]:
    shares = apportion(ns, list(parts_ns.values()))
    rows = [_row(category, share) for category, share in zip(parts_ns, shares, strict=True) if share]
    return tuple(sorted(rows, key=lambda row: (row.kind != "op", row.kind == "unattributed", -row.ns)))


def _row(category: str, ns: int) -> LedgerRow:
    from graphlens.facts.time.around import HANDOFF, OPS

    return LedgerRow(category, ns, "unattributed" if category == HANDOFF else "op" if category == OPS else "overhead")
