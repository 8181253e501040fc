"""How long steps take while nothing is recorded, and for how much of that they wait for input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, median_low
from typing import Final, NamedTuple

from graphlens.facts.clock.periods import Stretch, period_ns_of
from graphlens.facts.core import Facts, fact
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.programs.program_runs import ProgramRuns
from graphlens.facts.time.attribution import attribution
from graphlens.facts.time.recorded import calls_are_single_steps, recorded_parts, stretches, usual_stretches
from graphlens.ir.run import EAGER_LOOP, SESSION, Profile, Run
from graphlens.ir.script import Script, ScriptFunction

FEWEST_PERIODS: Final = 5  # whose median no single pause moves by much
# Of the period.  A step that waits for less asks for elements that lie ready, which takes longer while it is recorded,
# as all that it does.  Who waits for more waits no less than that while nothing is recorded, unless that is measured.
NOTABLE_WAIT: Final = 0.1
# By how much of its own time a step is slower while it is recorded, as the model has it at most.  Steps of ten ops were
# 5 % slower with a core to themselves, and 15 to 20 % beside a pipeline that worked on both of two, which is no rule.
MOST_OF_A_STEP: Final = 0.1
# A measured wait is the difference of two lengths, each of which is off by a few percent: where little was waited while
# it was recorded, no more than so many times of that is concluded.
MOST_TIMES_RECORDED: Final = 2.0


class Unrecorded(NamedTuple):
    """The period of steps while nothing was recorded, and of how many it is."""

    ns: int
    steps: int


@dataclass(frozen=True, slots=True)
class Rest:
    """How much larger a part of its period a step does not wait while nothing is recorded; a model, or measured."""

    larger: float = 1.0
    is_measured: bool = False

    def wait(self, share: float) -> float:
        """Return the part that it waits, of which ``share`` is that while it was recorded."""
        left = max(0.0, 1 - (1 - share) * self.larger)
        if self.is_measured:
            return min(left, MOST_TIMES_RECORDED * share)
        return share if share < NOTABLE_WAIT else left

    def told(self, share: float) -> float:
        """Return the same for the rows of the period: where it is a model, a notable wait is not told as none."""
        return self.wait(share) if self.is_measured else max(self.wait(share), min(share, NOTABLE_WAIT))


@fact
def unrecorded(facts: Facts) -> Unrecorded | None:
    """The period of the program's steps while nothing was recorded, and of how many; ``None`` if of too few.

    A call of a loop over a dataset is all of its steps.
    """
    profile, judged, recorded = facts.evidence.profile, facts(programs).judged, facts(stretches)
    if profile is None or judged is None or not recorded:
        return None
    if judged.name == EAGER_LOOP:  # where a step lasts until the next one begins
        plain_ns = facts.evidence.unprofiled_ns
        return Unrecorded(round(median(plain_ns)), len(plain_ns)) if len(plain_ns) >= FEWEST_PERIODS else None
    script = facts.evidence.script
    called = _function(script, judged) if script else None
    if called is None:
        return None
    if called.period_ns is None or called.periods < FEWEST_PERIODS:
        return _of_calls_alike(profile, judged, called.alike_ns.get(judged.name, ()), recorded)
    steps_per_call = median_low(max(1, len(profile.runs[run].iterations)) for run in judged.runs)
    return Unrecorded(round(called.period_ns / steps_per_call), called.periods * steps_per_call)


def _of_calls_alike(
    profile: Profile, judged: ProgramRuns, calls_ns: Sequence[int], recorded: Sequence[Stretch]
) -> Unrecorded | None:
    """Return the same of calls that loop over the data over which all recorded ones did, with as many steps.

    The fastest calls tell how much faster they are while nothing is recorded: they are few, what else the machine does
    only adds to a call, and the end of an epoch may take as long as all of it, recorded or not.  Between calls the
    program does as much.
    """
    runs = [profile.runs[position] for position in judged.runs]
    steps, fastest_ns = {len(run.iterations) for run in runs}, min((_length_ns(run) for run in runs), default=0)
    if not calls_ns or len(steps) != 1 or not (count := steps.pop()) or min(calls_ns) >= fastest_ns:
        return None
    between_ns = _between_calls_ns(runs, recorded) if all(one.steps == count for one in recorded) else 0.0
    in_calls_ns = max(0.0, period_ns_of(recorded) - between_ns)
    return Unrecorded(round(in_calls_ns * min(calls_ns) / fastest_ns + between_ns), count * len(calls_ns))


def _between_calls_ns(runs: Sequence[Run], recorded: Sequence[Stretch]) -> float:
    """Return what lies between two calls, for each of their steps."""
    until_ns = {run.start_ns: run.end_ns for run in runs}
    return max(0.0, median((one.end_ns - until_ns.get(one.start_ns, one.end_ns)) / one.steps for one in recorded))


def _length_ns(run: Run) -> int:
    return run.end_ns - run.start_ns


def _function(script: Script, judged: ProgramRuns) -> ScriptFunction | None:
    """Return what the script called to run the program; a Session that fetches several things is none of them."""
    if not judged.name.startswith(SESSION):
        return next((one for one in script.functions if judged.name in one.concretes), None)
    sessions = [one for one in script.functions if one.name == SESSION and one.periods >= FEWEST_PERIODS]
    return sessions[0] if len(sessions) == 1 else None


@fact
def rest(facts: Facts) -> Rest:
    """How much larger a part of its period a step does not wait while nothing is recorded, as far as can be told.

    Where Python asks for the elements, and the call of the step waits for none, it is measured: such calls were timed.
    Elsewhere it is a model: being recorded makes a step slower by as much as its period, and by a tenth at most. What
    is slower by more runs many small ops, for each of which memory is taken, and that is the pipeline.
    """
    recorded, found = facts(stretches), facts(unrecorded)
    if not recorded or found is None or found.ns <= 0 or not (profiled_ns := period_ns_of(recorded)):
        return Rest()
    faster = found.ns / profiled_ns
    alone = _calls_alone(facts)
    if alone is None:
        return Rest(max(1.0, (1 - MOST_OF_A_STEP) / faster))
    return Rest(alone / faster, is_measured=True)


def _calls_alone(facts: Facts) -> float | None:
    """Return how long steps without their waiting take while nothing is recorded, as a part of what they took then.

    ``None`` where calls do not tell it: where steps do different work by turns, or some wait is within a call.
    """
    evidence, judged, parts = facts.evidence, facts(programs).judged, facts(recorded_parts)
    profile, script = evidence.profile, evidence.script
    if profile is None or judged is None or script is None or parts is None or not facts(calls_are_single_steps):
        return None
    if facts(attribution).cycle.kinds:
        return None
    called = _function(script, judged)
    calls_ns = called.unrecorded_ns.get(judged.name, ()) if called else ()
    if len(calls_ns) < FEWEST_PERIODS or any(request.run in judged.runs for request in profile.requests):
        return None
    from graphlens.facts.time.around import INPUT

    usual = facts(usual_stretches)
    until_ns = {profile.runs[run].start_ns: profile.runs[run].end_ns for run in judged.runs}
    if not usual or any(one.start_ns not in until_ns for one in usual):
        return None
    own_ns = (sum(parts.values()) - parts.get(INPUT, 0.0)) / len(usual)
    recorded_ns = sum(until_ns[one.start_ns] - one.start_ns for one in usual) / len(usual)
    return (own_ns - recorded_ns + median(calls_ns)) / own_ns if own_ns > recorded_ns else None
