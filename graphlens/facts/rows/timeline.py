"""One typical step on all threads, as much of it as can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.names import Names
from graphlens.facts.graphs import joined_loosely, judged_graph, renamed
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.rows.op_rows import op_rows
from graphlens.facts.time.recorded import stretches
from graphlens.ir.training import PHASES, Timeline, TimelineLane

MOST_SPANS: Final = 2000  # more of them no eye tells apart, and a page with all of them opens slowly


@fact
def timeline(facts: Facts) -> Timeline | None:
    """The step whose period is nearest to the median; a whole call where it makes several steps at once."""
    recorded, profile = facts(stretches), facts.evidence.profile
    if not recorded or profile is None:
        return None
    shown = sorted(recorded, key=lambda one: one.step_ns)[len(recorded) // 2]
    phases = {row.name: row.phase for row in facts.known(op_rows, ()) if row.phase in PHASES}
    names = Names(facts(judged_graph), facts(joined_loosely), facts(renamed), profile.modules)
    from graphlens.facts.rows.lanes import lanes_of  # needs numpy, which graphs alone do not

    lanes = lanes_of(profile, facts(programs), shown, names, phases)
    return _bounded(shown.end_ns - shown.start_ns, lanes)


def _bounded(ns: int, lanes: Sequence[TimelineLane]) -> Timeline:
    """Return the picture with as many spans as can be drawn: the longest."""
    lengths = sorted((span.ns for lane in lanes for span in lane.spans), reverse=True)
    if len(lengths) <= MOST_SPANS:
        return Timeline(ns, tuple(lanes))
    least_ns = lengths[MOST_SPANS]
    kept = [replace(lane, spans=tuple(span for span in lane.spans if span.ns > least_ns)) for lane in lanes]
    drawn = tuple(lane for lane in kept if lane.spans)
    return Timeline(ns, drawn, len(lengths) - sum(len(lane.spans) for lane in drawn))
