"""What one host shows of its replicas, in columns that stay small: the profile itself may be let go after it."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from graphlens.facts.flat.names import without_replica
from graphlens.facts.replicas.intervals import Instants
from graphlens.facts.replicas.placed import Placed
from graphlens.ir.columns import Ints, OpEvents, sums
from graphlens.ir.devices import short_device
from graphlens.ir.ops import RECEIVES, SENDS, TRANSFERS, family
from graphlens.ir.run import NO_RUN, Collective, Fetch, Profile, Span
from graphlens.ir.table import Table

UNKNOWN: Final = -1  # in the place of a time, or of a replica
NO_REPLICA: Final = -2  # in the place of a replica: what is awaited is none
# Of each replica's ops, as many are kept: what makes one late takes long.
OPS_KEPT: Final = 200
_GET_NEXT: Final = "IteratorGetNext"

Row = tuple[int, int, int, int, int, int]  # of ``Exchanges``


@dataclass(frozen=True, eq=False)
class Exchanges:
    """The exchanges of one replica, a row each: the step, which exchange it is, from when to when.

    What a replica receives from another one of its host costs ``least_ns``, and ``awaited`` is that one; both are
    ``UNKNOWN`` of a collective: all who take part in it tell them.
    """

    step: Ints
    instance: Ints
    start_ns: Ints
    end_ns: Ints
    least_ns: Ints
    awaited: Ints

    @staticmethod
    def of(rows: Sequence[Row]) -> Exchanges:
        """Return rows as columns."""
        table = np.array(rows, np.int64).reshape(len(rows), 6)
        return Exchanges(*(np.ascontiguousarray(column) for column in table.T))


@dataclass(frozen=True, eq=False)
class OneReplica:
    """One replica of a host: its steps, a row each, and its exchanges.

    ``idle`` are the instants at which nothing of it ran but an exchange was under way; ``op_ns`` its slowest ops by
    name and type, the scope of the replica left out.
    """

    device: str
    start_ns: Ints
    end_ns: Ints
    work_ns: Ints
    exchanges: Exchanges
    idle: Instants
    op_ns: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class OneHost:
    """One host: its replicas, and the rows that they were given together, as far as that is known."""

    host: str
    replicas: Sequence[OneReplica]
    rows: Sequence[tuple[int, ...]] = ()


class _Exchange(NamedTuple):
    replica: int
    row: Row


def observed(
    profile: Profile, steps: Sequence[Span], placed: Placed, graph: Table | None, *, served: bool = False
) -> OneHost | None:
    """Return what the profile of one host shows of its replicas; ``None`` where it shows no step with an op.

    Parameters
    ----------
    profile
        The events of the judged program, on this host alone.
    steps
        Its steps.
    graph
        The executed graph, where it is known: it tells who receives from whom, and how much.
    served
        Whether variables are on a parameter server: then what is received comes from there.
    """
    ops, kept = OpEvents.of(profile.ops), sorted(steps, key=lambda step: step.start_ns)
    if not kept or not len(ops):
        return None
    starts = np.array([step.start_ns for step in kept], np.int64)
    ends = np.array([step.end_ns for step in kept], np.int64)
    exchanges: dict[int, list[Row]] = defaultdict(list)
    together = list(_collectives(profile, placed, starts, ends))
    received = _from_servers(profile, starts, ends) if served else _received(profile, placed, starts, ends, graph)
    for found in together or received:
        exchanges[found.replica].append(found.row)
    works = np.fromiter((_is_work(op) for _, op in ops.kinds), bool, len(ops.kinds))
    owner = np.fromiter((placed.replica(*kind) for kind in ops.kinds), np.int64, len(ops.kinds))
    replicas = [
        _one(
            placed.devices[number],
            ops.where(works[ops.code] & (owner[ops.code] == number)),
            exchanges[number],
            starts,
            ends,
        )
        for number in range(len(placed.devices))
    ]
    host = next(iter(profile.hosts), "")
    return OneHost(host, replicas, tuple(_rows(profile, placed)))


def _is_work(op: str) -> bool:
    return op not in TRANSFERS and family(op) != "collective"


def _one(device: str, ops: OpEvents, exchanged: Sequence[Row], starts: Ints, ends: Ints) -> OneReplica:
    busy = Instants.of(ops.start_ns, ops.end_ns)
    exchanges = Exchanges.of(exchanged)
    pending = Instants.of(exchanges.start_ns, exchanges.end_ns)
    first, last = starts.copy(), starts.copy()
    at = np.searchsorted(starts, ops.start_ns, "right") - 1
    inside = (at >= 0) & (ops.start_ns < ends[at])
    first[:] = np.iinfo(np.int64).max
    for step, begun_ns, ended_ns in (
        (at[inside], ops.start_ns[inside], ops.end_ns[inside]),
        (exchanges.step, exchanges.start_ns, exchanges.end_ns),
    ):
        np.minimum.at(first, step, begun_ns)
        np.maximum.at(last, step, ended_ns)
    seen = first < last
    first, last = np.where(seen, first, starts), np.where(seen, last, starts)
    return OneReplica(
        device, first, last, busy.lengths_ns(first, last), exchanges, pending.without(busy), _slowest(ops.where(inside))
    )


def _slowest(ops: OpEvents) -> Mapping[tuple[str, str], int]:
    total = sums(ops.code, ops.end_ns - ops.start_ns, len(ops.kinds))
    found: dict[tuple[str, str], int] = defaultdict(int)
    for code in np.argsort(-total, kind="stable")[:OPS_KEPT].tolist():
        node, op = ops.kinds[code]
        if total[code]:
            found[without_replica(node), op] += int(total[code])
    return found


# -- exchanges ----------------------------------------------------------------------------------------------------


def _step_at(starts: Ints, ends: Ints, time_ns: int) -> int | None:
    at = int(np.searchsorted(starts, time_ns, "right")) - 1
    return at if at >= 0 and time_ns < ends[at] else None


def _collectives(profile: Profile, placed: Placed, starts: Ints, ends: Ints) -> Iterator[_Exchange]:
    by_instance: dict[tuple[int, int], list[Collective]] = defaultdict(list)
    for one in profile.collectives:
        by_instance[one.group, one.instance].append(one)
    for (_, instance), parts in by_instance.items():
        for part, replica in zip(parts, placed.of_instance(parts), strict=True):
            step = _step_at(starts, ends, part.start_ns)
            if step is not None:
                yield _Exchange(replica, (step, instance, part.start_ns, part.end_ns, UNKNOWN, UNKNOWN))


def _received(profile: Profile, placed: Placed, starts: Ints, ends: Ints, graph: Table | None) -> Iterator[_Exchange]:
    """Yield what replicas receive from each other: it costs what it takes once it was sent."""
    senders = _senders(graph, placed) if graph is not None else {}
    if not senders:
        return
    wanted = set(senders.values())
    sent: dict[tuple[str, int], int] = {}
    ops = OpEvents.of(profile.ops)
    sends = np.fromiter((placed.names.find(*kind) in wanted for kind in ops.kinds), bool, len(ops.kinds))
    for event in ops.where(sends[ops.code]):
        sent[placed.names.find(event.node, event.op) or event.node, event.run] = event.start_ns
    for wait in profile.waits:
        node, _, op = wait.name.rpartition(":")
        found = placed.names.find(node, op)
        if found is None or found not in senders or wait.run == NO_RUN:
            continue
        step, sent_ns = _step_at(starts, ends, wait.start_ns), sent.get((senders[found], wait.run))
        if step is not None and sent_ns is not None:
            least_ns = max(0, wait.end_ns - max(wait.start_ns, sent_ns))
            sender = placed.replica(senders[found], op)
            row = (step, UNKNOWN, wait.start_ns, wait.end_ns, least_ns, sender if sent_ns > wait.start_ns else UNKNOWN)
            yield _Exchange(placed.replica(node, op), row)


def _from_servers(profile: Profile, starts: Ints, ends: Ints) -> Iterator[_Exchange]:
    """Yield what a worker receives from parameter servers: all of its time is that of the exchange."""
    for wait in profile.waits:
        step = _step_at(starts, ends, wait.start_ns)
        if step is not None and wait.name.rpartition(":")[2] in RECEIVES:
            row = (step, UNKNOWN, wait.start_ns, wait.end_ns, wait.end_ns - wait.start_ns, NO_REPLICA)
            yield _Exchange(0, row)


def _senders(graph: Table, placed: Placed) -> Mapping[str, str]:
    """Return the receives of one replica from another, and what sends to each."""
    found = {}
    for receive in graph.positions_of(RECEIVES):
        for send in graph.before(receive):
            devices = (short_device(graph.bodies[one].device) for one in (send, receive))
            if graph.bodies[send].type in SENDS and len({placed.by_device.get(device) for device in devices}) > 1:
                found[graph.names[receive]] = graph.names[send]
    return found


# -- rows ---------------------------------------------------------------------------------------------------------


def _rows(profile: Profile, placed: Placed) -> Iterator[tuple[int, ...]]:
    """Yield the rows that the replicas were given together: of one run, or one after the other before a run."""
    count = len(placed.devices)
    for fetches in (*_of_runs(profile, placed), *_before_runs(profile, count)):
        rows = [0 if fetch.nbytes is None else fetch.rows for fetch in fetches]
        if len(rows) == count and any(rows) and None not in rows:
            yield tuple(row or 0 for row in rows)


def _of_runs(profile: Profile, placed: Placed) -> Iterator[Sequence[Fetch]]:
    by_run: dict[int, dict[str, list[Fetch]]] = defaultdict(lambda: defaultdict(list))
    for fetch in profile.fetches:
        if fetch.run != NO_RUN and fetch.node:
            by_run[fetch.run][fetch.node].append(fetch)
    for nodes in by_run.values():
        replica = placed.in_order(nodes, _GET_NEXT)
        in_order = sorted(nodes, key=lambda node: replica[node])
        yield from zip(*(nodes[node] for node in in_order), strict=False)


def _before_runs(profile: Profile, count: int) -> Iterator[Sequence[Fetch]]:
    """Yield what Python asked for between two runs of the program, where that is one element for each replica."""
    asked = [fetch for fetch in profile.fetches if fetch.run == NO_RUN and not fetch.node]
    starts = sorted(run.start_ns for run in profile.runs if run.thread in {fetch.thread for fetch in asked})
    groups: dict[int, list[Fetch]] = defaultdict(list)
    for fetch in asked:
        groups[bisect_right(starts, fetch.start_ns)].append(fetch)
    yield from (group for group in groups.values() if len(group) == count)
