"""The profile of replicas in a sketch: those of all devices work at the same time, and exchange by collectives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from graphlens.ir.ops import UNTRACED, family
from graphlens.ir.run import Collective, OpEvent, Profile, Run, Span

_STEPS: Final = 5  # of which the first is left out
_CALLER: Final = -1  # the thread that calls the function
_PAUSE_NS: Final = 1_000  # between two steps


class TimedOp(NamedTuple):
    """An op with the device that it runs on, what it reads and how long it takes, ``None`` for one that is not seen."""

    name: str
    type: str
    device: str
    inputs: tuple[str, ...]
    self_ns: int | None


class _Ran(NamedTuple):
    op: TimedOp
    start_ns: int
    end_ns: int
    instance: int | None = None


def replicated_profile(ops: Sequence[TimedOp]) -> Profile:
    """Return the profile of steps in which every device runs its ops one after the other.

    An op begins when the device is free and what it reads is there.  The collectives of all devices are exchanges with
    each other, the first of each with the first of the others and so on: one ends for all of them as long after the
    last has got there as it takes, and keeps no device from other ops.
    """
    threads = {device: number for number, device in enumerate(dict.fromkeys(op.device for op in ops))}
    events: list[OpEvent] = []
    collectives: list[Collective] = []
    runs: list[Run] = []
    executors: list[Span] = []
    now_ns = 0
    for number in range(_STEPS):
        ran = list(_step(ops, now_ns))
        end_ns = max((one.end_ns for one in ran), default=now_ns)
        for op, start_ns, until_ns, instance in ran:
            if instance is None:
                thread = threads[op.device]
                events.append(OpEvent(op.name, op.type, start_ns, until_ns, until_ns - start_ns, thread, number))
            else:
                key = number * len(ops) + instance
                collectives.append(Collective(op.name, op.type, start_ns, until_ns, 100 + instance, key, 1, number))
        runs.append(Run("__inference_train_step_12", now_ns, end_ns, _CALLER))
        executors.append(Span("executor", now_ns, end_ns, 0, number, run=number))
        now_ns = end_ns + _PAUSE_NS
    waits = (Span(f"{one.node}:{one.op}", one.start_ns, one.end_ns, one.thread, run=one.run) for one in collectives)
    return Profile(
        ops=tuple(sorted(events, key=lambda one: one.start_ns)),
        executors=tuple(executors),
        waits=tuple(sorted(waits, key=lambda one: one.start_ns)),
        collectives=tuple(sorted(collectives, key=lambda one: one.start_ns)),
        runs=tuple(runs),
    )


def _step(ops: Sequence[TimedOp], start_ns: int) -> Iterator[_Ran]:
    """Yield what runs in one step: ops until they need an exchange, then the exchanges that all have reached."""
    ready_ns = {op.name: start_ns for op in ops if op.self_ns is None or op.type in UNTRACED}
    known = {op.name for op in ops}
    free_ns: dict[str, int] = defaultdict(lambda: start_ns)
    waiting = [op for op in ops if op.name not in ready_ns]
    exchanges = _exchanges(waiting)
    while waiting:
        left = []
        for op in waiting:
            inputs = [name.lstrip("^").partition(":")[0] for name in op.inputs]
            if family(op.type) == "collective" or any(name in known and name not in ready_ns for name in inputs):
                left.append(op)
                continue
            begun_ns = max([free_ns[op.device], *(ready_ns.get(name, start_ns) for name in inputs)])
            ready_ns[op.name] = free_ns[op.device] = begun_ns + (op.self_ns or 0)
            yield _Ran(op, begun_ns, ready_ns[op.name])
        done = list(_exchanged(exchanges, ready_ns, start_ns))
        for one in done:
            ready_ns[one.op.name] = one.end_ns
        yield from done
        rest = [op for op in left if op.name not in ready_ns]
        if len(rest) == len(waiting):
            raise ValueError(f"{rest[0].name!r} waits for an exchange that not all devices get to")
        waiting = rest


def _exchanges(ops: Sequence[TimedOp]) -> Sequence[Sequence[TimedOp]]:
    by_device: dict[str, list[TimedOp]] = defaultdict(list)
    for op in ops:
        if family(op.type) == "collective":
            by_device[op.device].append(op)
    most = max(map(len, by_device.values()), default=0)
    return [[own[place] for own in by_device.values() if place < len(own)] for place in range(most)]


def _exchanged(exchanges: Sequence[Sequence[TimedOp]], ready_ns: Mapping[str, int], start_ns: int) -> Iterator[_Ran]:
    for instance, parts in enumerate(exchanges):
        inputs = [[name.lstrip("^").partition(":")[0] for name in part.inputs] for part in parts]
        if parts[0].name in ready_ns or any(name not in ready_ns for own in inputs for name in own):
            continue
        reached_ns = [max((ready_ns[name] for name in own), default=start_ns) for own in inputs]
        end_ns = max(reached_ns) + max(part.self_ns or 0 for part in parts)
        yield from (_Ran(part, begun, end_ns, instance) for part, begun in zip(parts, reached_ns, strict=True))
