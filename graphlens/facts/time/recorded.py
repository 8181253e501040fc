"""The steps of the judged program while they were recorded: their stretches of time, and what went on in usual ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphlens.facts.clock.periods import Stretch, stretches_of, typical_of
from graphlens.facts.core import Facts, fact
from graphlens.facts.programs.judged_program import is_our_own, programs
from graphlens.facts.time.attribution import attribution
from graphlens.ir.run import EAGER_LOOP, SESSION


@fact
def stretches(facts: Facts) -> Sequence[Stretch]:
    """The periods of the judged program's steps; none where GraphLens itself called it, or nothing is judged."""
    profile, judged = facts.evidence.profile, facts(programs).judged
    if profile is None or judged is None or is_our_own(profile):
        return ()
    return tuple(stretches_of(profile, judged.runs, judged.steps))


@fact
def recorded_parts(facts: Facts) -> Mapping[str, float] | None:
    """What the judged program's usual steps did while they were recorded, and for how long in all."""
    recorded, profile, judged = facts(stretches), facts.evidence.profile, facts(programs).judged
    if not recorded or profile is None or judged is None:
        return None
    from graphlens.facts.time.around import divided

    return divided(profile, judged, facts(usual_stretches))


@fact
def usual_stretches(facts: Facts) -> Sequence[Stretch]:
    """The middle half of them; of steps that do different work by turns all, in whole cycles, so that none is lost."""
    recorded, cycle = facts(stretches), facts(attribution).cycle
    return _in_whole_cycles(recorded, cycle.length) if recorded and cycle.kinds else typical_of(recorded)


def _in_whole_cycles(recorded: Sequence[Stretch], length: int | None) -> Sequence[Stretch]:
    over = len(recorded) % length if length else 0
    return recorded[: len(recorded) - over] or recorded


@fact
def calls_are_single_steps(facts: Facts) -> bool:
    """Whether Python calls a function for each step: neither a loop of several, nor a Session, nor op by op."""
    profile, judged = facts.evidence.profile, facts(programs).judged
    if profile is None or judged is None or judged.name == EAGER_LOOP or judged.name.startswith(SESSION):
        return False
    return not any(profile.runs[run].iterations for run in judged.runs)
