"""Why a chain of ops is not fused: cut it out, change one thing at a time, and let the real Grappler decide.

The child gets one ``ProbeRequest`` and sends one ``FusionAnswer`` per chain; ``children.ask_fusion`` is the parent's
side.  Whether oneDNN is used is settled when TensorFlow is imported, so each setting
needs a process of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, Final

from graphlens.children.ask_fusion import Onednn, ProbeRequest
from graphlens.children.channel import requests, reserve_stdout
from graphlens.errors import GraphLensError
from graphlens.ir.fusion import (
    COMPILE,
    Chain,
    FusionAnswer,
    Obstacle,
    Surrounding,
)
from graphlens.tf.probe.relax import Relaxed, relaxations

# `run(chain, surroundings)` -> what became of it; the real one is `chain_graph.run`.
Run = Callable[[Chain, Sequence[Surrounding]], Any]

MOST_SURROUNDINGS: Final = 16  # a value with more readers than this is shared on purpose; each costs one run


def explain(chain: Chain, run: Run) -> FusionAnswer:
    """Say why ``chain`` is not fused, by experiments with ``run``.

    First as it is with all that surrounds it, then alone, then with one property changed, then with two.  What
    surrounds the chain is tried item by item on the first form that is fused alone: each that hinders it is named.
    """
    around = chain.surroundings[:MOST_SURROUNDINGS]
    try:
        whole = run(chain, around)
        if whole.fused:
            return FusionAnswer(chain.key, "fuses")
        alternatives = _alternatives(chain, run)
        changes = tuple(dict.fromkeys(tuple(some) for some in _with_surroundings(chain, alternatives, run)))
    except GraphLensError as error:
        return FusionAnswer(chain.key, "failed", why=str(error))
    return FusionAnswer(chain.key, "explained" if changes else "unsupported", changes)


def _alternatives(chain: Chain, run: Run) -> list[tuple[tuple[Obstacle, ...], Chain]]:
    """Return the smallest sets of changes with which the chain is fused alone, each with the chain so changed."""
    if _fuses(chain, (), run):
        return [((), chain)]
    singles = list(relaxations(chain))
    alone: list[tuple[tuple[Obstacle, ...], Chain]] = [
        ((obstacle,), changed) for obstacle, changed in singles if _fuses(changed, (), run)
    ]
    return alone or [(both, changed) for both, changed in _pairs(singles) if _fuses(changed, (), run)]


def _pairs(singles: Sequence[Relaxed]) -> list[tuple[tuple[Obstacle, Obstacle], Chain]]:
    """Return every two changes together; the second is looked for again in the chain that the first one left."""
    found = []
    for (first, changed), (second, _) in combinations(singles, 2):
        both = next((chain for obstacle, chain in relaxations(changed) if _is_same(obstacle, second)), None)
        if both is not None:
            found.append(((first, second), both))
    return found


def _is_same(left: Obstacle, right: Obstacle) -> bool:
    return (left.kind, left.op) == (right.kind, right.op)


def _with_surroundings(
    chain: Chain, alternatives: Sequence[tuple[tuple[Obstacle, ...], Chain]], run: Run
) -> list[tuple[Obstacle, ...]]:
    """Add to each alternative the surroundings that hinder it; leave out those that nothing was found for."""
    result = []
    for obstacles, changed in alternatives:
        near = [item for item in changed.surroundings[:MOST_SURROUNDINGS] if item in chain.surroundings]
        hindering = [item for item in near if not _fuses(changed, (item,), run)]
        if obstacles or hindering:
            around = tuple(Obstacle(item.kind, item.op, item.type) for item in hindering)
            result.append((*obstacles, *around))
    return result


def _fuses(chain: Chain, around: Sequence[Surrounding], run: Run) -> bool:
    """Whether a changed chain is fused; one that Grappler refuses was changed to something that is no graph."""
    try:
        return bool(run(chain, around).fused)
    except GraphLensError:
        return False


# -- the process ---------------------------------------------------------------------------------------------------


def main() -> int:
    """Answer one request, until its time is up."""
    emit = reserve_stdout()
    from graphlens.tf import private
    from graphlens.tf.probe.chain_graph import run
    from graphlens.tf.probe.xla_trial import compile_alone

    for request in requests(ProbeRequest):
        deadline_s = time.monotonic() + request.time_limit_s
        emit(Onednn(private.onednn_enabled()))
        for chain in request.chains:
            if time.monotonic() > deadline_s:
                break
            emit(compile_alone(chain) if chain.kind == COMPILE else explain(chain, run))
        break
    return 0


if __name__ == "__main__":
    sys.exit(main())
