"""The replicas of the judged step, as facts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from graphlens.facts.clock import hosts
from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.names import Names
from graphlens.facts.graphs import executed_graph, joined_loosely, renamed
from graphlens.facts.programs.judged_program import judged_profile, programs
from graphlens.facts.replicas.remote import remote_calls
from graphlens.ir.replicas import RemoteCalls, Replicas, Strategy
from graphlens.ir.table import Table

if TYPE_CHECKING:
    from graphlens.facts.replicas.observed import OneHost


@fact
def observed_hosts(facts: Facts) -> Sequence[OneHost]:
    """What each host shows of its replicas; none where accelerators did the work: their profiles tell it otherwise."""
    profile, graph = facts(judged_profile), facts(executed_graph)
    if profile is None or profile.kernels_on_device:
        return ()
    # These need numpy, which graphs alone do not.
    from graphlens.facts.replicas.observed import observed
    from graphlens.facts.replicas.placed import Placed

    names = Names(graph, facts(joined_loosely), facts(renamed), profile.modules)
    served = bool(facts(remote_work))
    found = []
    for one in hosts.each(profile):
        placed = Placed.of(graph, names, getattr(one.ops, "kinds", ()))
        if (seen := observed(one, one.steps, placed, graph, served=served)) is not None:
            found.append(seen)
    return tuple(found)


@fact
def replicas(facts: Facts) -> Replicas | None:
    """The replicas of the judged step; ``None`` where there is only one, which exchanges nothing."""
    if facts.evidence.replicas is not None:
        return facts.evidence.replicas
    seen, remote = facts(observed_hosts), facts(remote_work)
    count = sum(len(host.replicas) for host in seen)
    exchanging = any(len(one.exchanges.step) for host in seen for one in host.replicas)
    if count < 2 and not exchanging and not remote:
        return None
    from graphlens.facts.replicas.together import Together  # needs numpy, which graphs alone do not

    strategy: Strategy = (
        "parameter-server" if remote else "mirrored" if len(seen) == 1 and count > 1 else "multi-worker"
    )
    return replace(Together(seen).replicas(strategy), bytes=_bytes(facts(exchanges)), remote=remote)


@fact
def remote_work(facts: Facts) -> tuple[RemoteCalls, ...]:
    """What a coordinator has workers do; empty where every host runs its own steps."""
    profile, judged = facts.evidence.profile, facts(programs).judged
    if profile is None or judged is None or len(profile.hosts) < 2:
        return ()
    return tuple(remote_calls(profile, judged.runs))


def _bytes(found: Sequence[Exchange]) -> int | None:
    """Return what a replica hands over in a step; ``None`` where the size of one exchange is not known."""
    if not found or any(one.nbytes is None for one in found):
        return None
    return round(sum(one.per_step * (one.nbytes or 0) for one in found))


@dataclass(frozen=True, slots=True)
class Exchange:
    """A collective op of the judged step.

    ``per_step`` is how often it runs in a step, divided by the number of replicas of its host: the ops of all replicas
    together are as many as one of them takes part in.  ``least_ns`` is the median of what it takes at least.
    """

    name: str
    nbytes: int | None
    per_step: float
    least_ns: int


@fact
def exchanges(facts: Facts) -> Sequence[Exchange]:
    """The collective ops of the judged step, in the order in which they are first reached."""
    profile, graph, seen = facts(judged_profile), facts(executed_graph), facts(observed_hosts)
    if profile is None or not seen:
        return ()
    spent_ns: dict[tuple[int, int], int] = {}
    for one in profile.collectives:
        key = one.group, one.instance
        spent_ns[key] = min(one.end_ns - one.start_ns, spent_ns.get(key, one.end_ns - one.start_ns))
    least_ns: dict[str, list[int]] = defaultdict(list)
    for one in profile.collectives:
        least_ns[one.node].append(spent_ns[one.group, one.instance])
    steps = max((len(one.start_ns) for host in seen for one in host.replicas), default=0)
    replicas_of_all = sum(len(host.replicas) for host in seen)
    return tuple(
        Exchange(node, _nbytes(graph, node), len(found) / max(1, steps * replicas_of_all), round(median(found)))
        for node, found in least_ns.items()
    )


def _nbytes(graph: Table | None, node: str) -> int | None:
    op = graph.get(node) if graph is not None else None
    return op.outputs[0].nbytes if op is not None and op.outputs else None
