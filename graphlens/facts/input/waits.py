"""How long steps waited for input: the time in which they asked for an element and did nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from graphlens.facts.clock.periods import Stretch
from graphlens.facts.core import Facts, fact
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.time.data_loops import first_of_loops
from graphlens.facts.time.recorded import stretches
from graphlens.ir.iterators import InputRequest, IteratorStage
from graphlens.ir.pipelines import PhaseKind
from graphlens.ir.run import NO_RUN, Profile

WARM_UP: Final = "warm-up"
FILLING: Final = "filling"
STEADY: Final = "steady"

_CACHE: Final = "Cache"


class StepWait(NamedTuple):
    """A step, or a call that makes several, and how long it waited in all."""

    stretch: Stretch
    wait_ns: int
    kind: PhaseKind

    @property
    def step_ns(self) -> float:
        """How long each step of it waited."""
        return self.wait_ns / self.stretch.steps


@fact
def judged_requests(facts: Facts) -> tuple[InputRequest, ...]:
    """What the steps of the judged program asked of input pipelines, within its runs or next to them on its threads."""
    profile, judged = facts.evidence.profile, facts(programs).judged
    if profile is None or judged is None:
        return ()
    runs = frozenset(judged.runs)
    threads = frozenset(profile.runs[run].thread for run in runs)
    return tuple(one for one in profile.requests if one.run in runs or (one.run == NO_RUN and one.thread in threads))


@fact
def step_waits(facts: Facts) -> tuple[StepWait, ...]:
    """What each recorded step of the judged program waited; none where no program calls it again and again.

    Time in which it computes is no waiting, though the next element is asked for meanwhile.  The first element of a
    call that loops over a dataset is a part of its start, as in the rows of the period.
    """
    recorded, profile, judged = facts(stretches), facts.evidence.profile, facts(programs).judged
    requests = facts(judged_requests)
    if profile is None or judged is None or not recorded or not requests:
        return ()
    from graphlens.facts.input.exposed import exposed_ns  # needs numpy, which graphs alone do not

    are_calls = any(stretch.steps > 1 for stretch in recorded)
    first = set(first_of_loops(profile).values()) if are_calls else set()
    asked = [request for request in requests if request not in first]
    waits_ns = exposed_ns(profile, frozenset(judged.runs), asked, recorded)
    kinds = _kinds(profile, requests, recorded)
    return tuple(StepWait(*row) for row in zip(recorded, waits_ns, kinds, strict=True))


def _kinds(profile: Profile, requests: Sequence[InputRequest], recorded: Sequence[Stretch]) -> list[PhaseKind]:
    """Return which steps began with empty buffers, and which were taken while a cache was filled."""
    chains = {profile.iterators[one.stage].chain for one in requests if one.stage >= 0}
    stages = [stage for stage in profile.iterators if stage.chain in chains]
    started = _first_requests(profile, requests)
    fillings = [(stage.start_ns, stage.end_ns) for stage in stages if fills_cache(profile, stage)]
    return [_kind(stretch, started, fillings) for stretch in recorded]


def _kind(stretch: Stretch, started: Sequence[int], fillings: Sequence[tuple[int, int]]) -> PhaseKind:
    if any(stretch.start_ns <= moment < stretch.end_ns for moment in started):
        return "warm-up" if stretch.steps == 1 else "steady"  # of several steps in one call it is one
    is_filling = any(start < stretch.end_ns and end > stretch.start_ns for start, end in fillings)
    return "filling" if is_filling else "steady"


def _first_requests(profile: Profile, requests: Sequence[InputRequest]) -> list[int]:
    """Return when each chain that was made while it was recorded was first asked."""
    since_ns = min((request.start_ns for request in requests), default=0)
    first: dict[int, int] = {}
    for request in sorted(requests):
        if request.stage >= 0:
            first.setdefault(profile.iterators[request.stage].chain, request.start_ns)
    return [moment for moment in first.values() if moment > since_ns]


def fills_cache(profile: Profile, stage: IteratorStage) -> bool:
    """Tell whether a stage ran to fill a cache: what a cache reads is asked once for each element, and never again."""
    if stage.parent is None or _CACHE in stage.kind:
        return False
    return _CACHE in profile.iterators[stage.parent].kind
