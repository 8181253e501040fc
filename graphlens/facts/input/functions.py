"""Which ops the functions of a pipeline's stages ran, as the profile shows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from graphlens.ir.columns import OpEvents, first_of, numbered
from graphlens.ir.run import NO_RUN, Profile

_OF_PIPELINES = ("Iterator::", "ReduceIterator::")


def ops_by_stage(profile: Profile) -> Mapping[str, frozenset[str]]:
    """Return the types of ops that functions ran, by the path of the stage that called them, without numbers."""
    programs = {run.program: 0 for run in profile.runs if run.program.startswith(_OF_PIPELINES)}
    names = list(programs)
    code_of = {name: code for code, name in enumerate(names)}
    program = np.array([code_of.get(run.program, NO_RUN) for run in profile.runs], np.int64)
    events = OpEvents.of(profile.ops)
    known = np.flatnonzero(events.run != NO_RUN)
    known = known[program[events.run[known]] != NO_RUN] if len(program) else known[:0]
    own, codes = program[events.run[known]], events.code[known]
    first = first_of(numbered(own, codes))
    found: dict[str, set[str]] = defaultdict(set)
    for stage, code in zip(own[first].tolist(), codes[first].tolist(), strict=True):
        found[names[stage]].add(events.kinds[code][1])
    return {name: frozenset(ops) for name, ops in found.items()}
