"""Calls that go over a dataset from its start: which requests are for their first elements."""

from __future__ import annotations

from collections.abc import Mapping

from graphlens.ir.iterators import InputRequest
from graphlens.ir.ops import LOOP_OVER_DATASET
from graphlens.ir.run import NO_RUN, Profile


def first_of_loops(profile: Profile) -> Mapping[int, InputRequest]:
    """Return the first request of each run that makes an iterator of its own, by position of the run.

    A run of several steps may as well go on with an iterator that it is given: then its first element is one as any
    other.  One that tf.data loops in makes its own; else the first request of a chain of stages tells who does.
    """
    within_tf_data = {one.run for one in profile.activities if one.name == LOOP_OVER_DATASET}
    found: dict[int, InputRequest] = {}
    chains, runs = set(), {NO_RUN}
    for request in sorted(profile.requests):
        chain = profile.iterators[request.stage].chain if request.stage >= 0 else None
        is_its_own = request.run in within_tf_data or (chain is not None and chain not in chains)
        if is_its_own and request.run not in runs and profile.runs[request.run].iterations:
            found[request.run] = request
        runs.add(request.run)
        chains.add(chain)
    return found
