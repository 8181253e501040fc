"""The replicas of all hosts side by side: what their exchanges cost, and who waits for whom."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import accumulate, pairwise
from statistics import median
from typing import Final, Literal

import numpy as np

from graphlens.facts.clock.steps import FEWEST_STEPS_TO_DROP_FIRST
from graphlens.facts.replicas.intervals import Instants
from graphlens.facts.replicas.observed import NO_REPLICA, UNKNOWN, OneHost, OneReplica
from graphlens.facts.time.ledger import apportion
from graphlens.ir.columns import Ints
from graphlens.ir.replicas import Replicas, ReplicaStep, SlowOp, Strategy
from graphlens.units import format_count, format_ns, format_share

# Who causes as much of all the waiting is who the others wait for; where replicas are late by turns it is chance.
MOST_OF_WAITING: Final = 0.6
# It gets to the exchanges by as much later than they do, or is scheduled later now and then.
LONGER: Final = 1.1
SLOW_OPS: Final = 5
# An op counts as slow where it takes longer than on others by as much: one and the same op varies by less.
SLOWER: Final = 1.25


@dataclass(frozen=True, eq=False)
class Table:
    """The exchanges of all replicas, a row each: whose it is, what it costs at least, and who is waited for.

    ``late`` is the replica that is the last one to get there, ``UNKNOWN`` where only one was seen to take part.
    """

    replica: Ints
    step: Ints
    start_ns: Ints
    end_ns: Ints
    least_ns: Ints
    late: Ints

    @property
    def reached_ns(self) -> Ints:
        """When the last one had got there: from then on each costs something."""
        return np.maximum(self.start_ns, self.end_ns - self.least_ns)


@dataclass(frozen=True, eq=False)
class Together:
    """The replicas of all hosts."""

    hosts: Sequence[OneHost]

    @cached_property
    def all(self) -> Sequence[tuple[str, OneReplica]]:
        """Each replica with its host, in the order of their numbers."""
        return [(host.host, one) for host in self.hosts for one in host.replicas]

    @cached_property
    def exchanges(self) -> Table:
        """The exchanges of all: each costs what the one spends in it that is the last to get there."""
        parts = [one.exchanges for _, one in self.all]
        replica = np.repeat(np.arange(len(parts)), [len(part.step) for part in parts])
        columns = {
            name: np.concatenate([np.zeros(0, np.int64), *(getattr(part, name) for part in parts)])
            for name in ("step", "instance", "start_ns", "end_ns", "least_ns", "awaited")
        }
        spent_ns = columns["end_ns"] - columns["start_ns"]
        least_ns, late = _least(replica, columns["step"], columns.pop("instance"), spent_ns)
        received, awaited = columns["least_ns"] != UNKNOWN, columns.pop("awaited")
        columns["least_ns"] = np.where(received, columns["least_ns"], least_ns)
        first = np.repeat(self._first_of_host, [len(part.step) for part in parts])
        sender = np.where(awaited == UNKNOWN, replica, np.where(awaited == NO_REPLICA, UNKNOWN, awaited + first))
        late = np.where(received, sender, late)
        return Table(replica, **columns, late=late)

    @cached_property
    def _first_of_host(self) -> Sequence[int]:
        """For each replica the number of the first one of its host."""
        first = accumulate((len(host.replicas) for host in self.hosts), initial=0)
        return [number for host, number in zip(self.hosts, first, strict=False) for _ in host.replicas]

    @cached_property
    def _part(self) -> Sequence[slice]:
        """Where the exchanges of each replica stand in the table."""
        borders = [0, *accumulate(len(one.exchanges.step) for _, one in self.all)]
        return [slice(first, last) for first, last in pairwise(borders)]

    @property
    def least_of(self) -> Literal["replicas", "steps"]:
        """Whether costs are told by several replicas, or by the steps of one."""
        told = any((one.exchanges.least_ns != UNKNOWN).any() for _, one in self.all)
        late = self.exchanges.late
        return "steps" if len(late) and not told and not (late != UNKNOWN).any() else "replicas"

    def replicas(self, strategy: Strategy) -> Replicas:
        """Return what they do in a step, in the mean."""
        rows = [self._row(number) for number in range(len(self.all))]
        known = bool(len(self.exchanges.step))
        costs = [self._costs_ns(number) for number in range(len(self.all))]
        slowest = self._slowest(rows)
        work = [row.work_ns for row in rows]
        mean_work = sum(work) / max(len(work), 1)
        result = Replicas(
            strategy,
            tuple(rows),
            collectives=round(self._count(), 3),
            collective_ns=_mean(costs) if known else None,
            exposed_ns=_mean([row.communication_ns for row in rows]) if known else None,
            waiting_ns=_mean([row.waiting_ns for row in rows]) if known else None,
            least_of=self.least_of,
            imbalance=round(max(work) / mean_work - 1, 4) if len(work) > 1 and mean_work else None,
            slowest=slowest,
            slow_ops=() if slowest is None else tuple(self._slow_ops(slowest)),
            uneven_rows=tuple(self._uneven()),
        )
        return replace(result, words=_words(result))

    def _first_step(self, number: int) -> int:
        """Return the first step that counts: first ones are slow."""
        return 1 if len(self.all[number][1].start_ns) >= FEWEST_STEPS_TO_DROP_FIRST else 0

    def _own(self, number: int) -> Table:
        """Return the exchanges of a replica in the steps that count."""
        part, found = self._part[number], self.exchanges
        counted = found.step[part] >= self._first_step(number)
        return Table(*(getattr(found, one.name)[part][counted] for one in fields(Table)))

    def _steps(self, number: int) -> int:
        return len(self.all[number][1].start_ns) - self._first_step(number)

    def _count(self) -> float:
        """Return how many exchanges a replica takes part in per step."""
        counts = [len(self._own(number).step) / self._steps(number) for number in range(len(self.all))]
        return sum(counts) / max(len(counts), 1)

    def _reached(self, number: int) -> Instants:
        """Return when exchanges of a replica were under way that all who take part had reached."""
        own = self._own(number)
        return Instants.of(own.reached_ns, own.end_ns)

    def _costs_ns(self, number: int) -> int:
        """Return for how long that is so in a step, in the mean."""
        reached = self._reached(number)
        return round(int((reached.end_ns - reached.start_ns).sum()) / self._steps(number))

    def _row(self, number: int) -> ReplicaStep:
        host, one = self.all[number]
        first = self._first_step(number)
        since, until = one.start_ns[first:], one.end_ns[first:]
        steps = len(since)
        working = one.idle.within(self._reached(number))
        in_exchange = int(one.idle.lengths_ns(since, until).sum())
        exposed = int(working.lengths_ns(since, until).sum())
        work, whole = int(one.work_ns[first:].sum()), int((until - since).sum())
        parts = [work, exposed, in_exchange - exposed, max(0, whole - work - in_exchange)]
        step_ns = round(whole / max(steps, 1))
        rows, empty = self._rows(number)
        work_ns, exposed_ns, waiting_ns, other_ns = apportion(step_ns, parts)
        caused_ns = self._caused_ns
        awaited_ns = None if caused_ns is None else round(caused_ns[number] / max(steps, 1))
        return ReplicaStep(
            number, host, one.device, steps, step_ns, work_ns, exposed_ns, waiting_ns, other_ns, awaited_ns, rows, empty
        )

    # -- who is waited for ----------------------------------------------------------------------------------------

    @cached_property
    def _caused_ns(self) -> Sequence[float] | None:
        """How long others waited for each, all steps together; ``None`` where it is not known who was late."""
        if len(self.all) < 2 or not (self.exchanges.late != UNKNOWN).any():
            return None
        caused_ns = np.zeros(len(self.all))
        for number, (_, one) in enumerate(self.all):
            own = self._own(number)
            waiting = (own.late != UNKNOWN) & (own.late != number)
            waited_ns = one.idle.lengths_ns(own.start_ns[waiting], own.reached_ns[waiting])
            np.add.at(caused_ns, own.late[waiting], waited_ns)
        return caused_ns.tolist()

    def _slowest(self, rows: Sequence[ReplicaStep]) -> int | None:
        """Return the replica that most of the waiting is for, as it takes longer itself."""
        caused_ns = self._caused_ns or ()
        most = max(range(len(caused_ns)), key=lambda number: caused_ns[number], default=None)
        if most is None or not caused_ns[most]:
            return None
        own_ns = [row.work_ns + row.other_ns for row in rows]
        others_ns = median(ns for number, ns in enumerate(own_ns) if number != most)
        is_late = caused_ns[most] >= MOST_OF_WAITING * sum(caused_ns) and own_ns[most] >= LONGER * others_ns
        return most if is_late else None

    def _slow_ops(self, slowest: int) -> Iterator[SlowOp]:
        """Yield ops that take longer there: the same op, or one that others have not and whose type takes longer."""
        per_step = [_per_step(one) for _, one in self.all]
        own, others = per_step[slowest], [ops for number, ops in enumerate(per_step) if number != slowest]
        own_types, other_types = _by_type(own), list(map(_by_type, others))
        slow = []
        for (name, op), ns in own.items():
            others_ns = median(ops.get((name, op), 0.0) for ops in others)
            if others_ns or own_types[op] > SLOWER * median(types.get(op, 0.0) for types in other_types):
                slow.append(SlowOp(name, op, round(ns), round(others_ns)))
        kept = [op for op in slow if op.ns > SLOWER * op.others_ns]
        yield from sorted(kept, key=lambda op: op.others_ns - op.ns)[:SLOW_OPS]

    # -- rows -----------------------------------------------------------------------------------------------------

    def _rows(self, number: int) -> tuple[int | None, int | None]:
        """Return how many rows a replica is given as a rule, and in how many steps none."""
        position = number - self._first_of_host[number]
        own = [rows[position] for rows in self._host_of[number].rows]
        return (round(median(own)), own.count(0)) if own else (None, None)

    @cached_property
    def _host_of(self) -> Sequence[OneHost]:
        return [host for host in self.hosts for _ in host.replicas]

    def _uneven(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Yield the rows of steps in which a replica of a host has none, and how often."""
        yield from Counter(rows for host in self.hosts for rows in host.rows if 0 in rows).most_common()


def _least(replica: Ints, step: Ints, instance: Ints, spent_ns: Ints) -> tuple[Ints, Ints]:
    """Return what each collective takes at least, and which replica spends that: the last one to get there.

    Of one that nobody else was seen in it is the least that any such of the same replica takes, and the last one is
    not known.
    """
    if not len(instance):
        return spent_ns, replica
    _, number = np.unique(instance, return_inverse=True)
    order = np.lexsort((spent_ns, number))
    first = order[np.concatenate([np.ones(1, bool), np.diff(number[order]) > 0])]  # by number
    takers = np.bincount(np.unique(np.stack([number, replica]), axis=1)[0])
    least_ns, late = spent_ns[first][number], replica[first][number]
    alone = takers[number] < 2
    if not alone.any():
        return least_ns, late
    place = _place_in_step(replica, step, instance)
    of_place = np.full(place.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(of_place, place[alone], spent_ns[alone])
    return np.where(alone, of_place[place], least_ns), np.where(alone, UNKNOWN, late)


def _place_in_step(replica: Ints, step: Ints, instance: Ints) -> Ints:
    """Return which exchange of its step each is, for each replica apart: the same one of every step is alike."""
    order = np.lexsort((instance, step, replica))
    fresh = np.ones(len(order), bool)
    fresh[1:] = (step[order][1:] != step[order][:-1]) | (replica[order][1:] != replica[order][:-1])
    begins = np.flatnonzero(fresh)
    rank = np.arange(len(order)) - np.repeat(begins, np.diff([*begins.tolist(), len(order)]))
    place = np.empty_like(order)
    place[order] = rank + replica[order] * (int(rank.max()) + 1)
    return place


def _per_step(one: OneReplica) -> Mapping[tuple[str, str], float]:
    steps = max(1, len(one.start_ns))
    return {kind: ns / steps for kind, ns in one.op_ns.items()}


def _by_type(ops: Mapping[tuple[str, str], float]) -> Mapping[str, float]:
    found: dict[str, float] = defaultdict(float)
    for (_, op), ns in ops.items():
        found[op] += ns
    return found


def _mean(values: Sequence[int]) -> int | None:
    return round(sum(values) / len(values)) if values else None


def _words(found: Replicas) -> str:
    """Say the most important of it in a sentence."""
    if not found.replicas or found.waiting_ns is None or found.exposed_ns is None:
        return ""
    step_ns = max(1, round(sum(row.step_ns for row in found.replicas) / len(found.replicas)))
    parts = []
    if found.slowest is not None and found.waiting_ns:
        waiting = [row.waiting_ns for row in found.replicas if row.number != found.slowest]
        parts.append(
            f"the others wait for replica {found.slowest}: {format_ns(_mean(waiting))} of {format_ns(step_ns)}"
        )
    exposed = format_share(found.exposed_ns / step_ns)
    what = "reading variables takes" if found.strategy == "parameter-server" else "exchanges take"
    parts.append(f"{what} {format_ns(found.exposed_ns)} of a step, {exposed}, while nothing is computed")
    if found.uneven_rows:
        count = sum(often for _, often in found.uneven_rows)
        parts.append(f"a replica is given no row in {format_count(count)} steps")
    return "; ".join(parts)
