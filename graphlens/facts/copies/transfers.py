"""Tensors that cross memories inside the step, each with its cause: of the run, and of a simulated placement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, NamedTuple

from graphlens.errors import UsageError
from graphlens.facts.clock.device_time import Busy
from graphlens.facts.copies.device_facts import device_busy, device_windows
from graphlens.facts.copies.memcpy_causes import Known, cause_of_event, ends_of, memories_of, result_of
from graphlens.facts.copies.memcpys import join
from graphlens.facts.copies.pairs import Pair, memory_of, pairs_of
from graphlens.facts.core import Facts, fact
from graphlens.facts.crossing import UNKNOWN, Cause, Crossing, End, Kernels, Memory, cause_of, is_accelerator, shape_ops
from graphlens.facts.flat.names import Names
from graphlens.facts.graphs import executed_graph, joined_loosely, judged_graph, origins, renamed, traced_graph
from graphlens.facts.placement.kernels import table_for, versions
from graphlens.facts.placement.registry import GpuKernels
from graphlens.facts.time.attribution import timings
from graphlens.facts.time.paths import critical_path
from graphlens.facts.work.kernel_work import alike_kernels
from graphlens.ir.devices import Copy, short_device
from graphlens.ir.instructions import COPY_START
from graphlens.ir.nodes import Op
from graphlens.ir.run import CopyEvent, Instruction, Profile, ProfiledDevice
from graphlens.ir.table import NO_OPS, Table

_HOST: Final = "CPU:0"  # the host's end of a copy of which only the device tells


class Transfer(NamedTuple):
    """A copy, the events in which the device reported it, and the ops that make it.

    Those are send and receive, or an instruction of a compiled program; none where code outside of any op copies.
    """

    copy: Copy
    events: Sequence[CopyEvent] = ()
    ops: tuple[str, ...] = ()


@fact
def transfers(facts: Facts) -> tuple[Transfer, ...]:
    """Return one entry per transfer, by falling bytes: those that ran, then those of a simulated placement.

    Every memcpy event of the profile belongs to exactly one entry, joined to a pair or not.
    """
    run = _Run(facts, facts.evidence.profile or Profile())
    joined = join(run.profile, run.pairs)
    found = [
        Transfer(_of_pair(run, pair, events), events, (pair.send.name, pair.receive.name))
        for pair, events in zip(run.pairs, joined.of_pairs, strict=True)
    ]
    found += [Transfer(_alone(run, events), events, _instruction_of(events)) for events in joined.alone]
    simulated = map(Transfer, facts.evidence.placement_copies)
    return (*sorted(found, key=_rank), *sorted(simulated, key=_rank))


@fact
def copies(facts: Facts) -> tuple[Copy, ...]:
    """Tensors that cross devices, or the memories of one, and the copies of a simulated placement."""
    return tuple(transfer.copy for transfer in facts(transfers))


@fact
def accelerators(facts: Facts) -> tuple[str, ...]:
    """Return the names of the accelerators that took part, or would in a simulated placement; none on a processor."""
    profile, placement = facts.evidence.profile or Profile(), facts.evidence.placement
    profiled = [device.name for device in profile.devices if is_accelerator(device.name)]
    executed = facts(executed_graph)
    ran = {op.device for op in executed.ops()} if executed is not None else ()
    named = [short_device(device) for device in sorted(ran) if is_accelerator(device)]
    assumed = [placement.device] if placement else []
    return tuple(dict.fromkeys([*profiled, *named, *assumed]))


@fact
def gpu_kernels(facts: Facts) -> Kernels | None:
    """What TensorFlow's registry says of the kernels of a GPU; ``None``: not known.

    It is that of the TensorFlow that ran, and the newest one where its version is not known.
    """
    version = str(facts.evidence.environment.get("tensorflow") or versions()[-1])
    try:
        return GpuKernels(table_for(version))
    except UsageError:
        return None


def _rank(transfer: Transfer) -> tuple[int, str, str]:
    return -(transfer.copy.bytes or 0), transfer.copy.src, transfer.copy.dst


@dataclass(frozen=True)
class _Run:
    """What the copies of one run have in common."""

    facts: Facts
    profile: Profile

    @cached_property
    def graph(self) -> Table:
        ran = self.facts(executed_graph)
        return ran if ran is not None else NO_OPS

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        return pairs_of(self.graph)

    @cached_property
    def shapes(self) -> frozenset[str]:
        return shape_ops(self.graph)

    @cached_property
    def on_path(self) -> frozenset[str] | None:
        path = self.facts(critical_path)
        return frozenset(path.ops) if path else None

    @cached_property
    def seen(self) -> Mapping[str, str]:
        """The types as which the ops of the host ran."""
        if not self.profile.ops:
            return {}
        from graphlens.ir.columns import OpEvents  # needs numpy, which graphs alone do not

        return dict(OpEvents.of(self.profile.ops).kinds_by_last())

    @cached_property
    def known(self) -> Known:
        launched = {alike.kernel.node: alike.kernel.op for alike in self.facts(alike_kernels) if alike.kernel.node}
        graph = self.facts(judged_graph)
        types = {**launched, **self.seen, **{name: op.type for name, op in graph.items()}}
        shapes = self.shapes if self.facts(executed_graph) is not None else shape_ops(graph)
        names = Names(graph, self.facts(joined_loosely), self.facts(renamed))
        return Known(graph, names, types, shapes, self.requested, self.profile.instructions)

    def requested(self, name: str) -> str:
        """Return the device that the program asks for, for one of the traced ops that ``name`` stands for."""
        written = self.facts(traced_graph)
        if written is None:
            return ""
        if self.facts(executed_graph) is None:
            return written.op(name).device if name in written else ""
        asked = (written.op(origin).device for origin in self.facts(origins).get(name, ()))
        return next(filter(None, asked), "")


# -- a pair of send and receive -----------------------------------------------------------------------------------


def _of_pair(run: _Run, pair: Pair, events: Sequence[CopyEvent]) -> Copy:
    """Return the copy of a pair, with the device's own time and size where it reported any."""
    cause = _cause(run, pair)
    timing = run.facts(timings).get(pair.receive.name) or run.facts(timings).get(pair.send.name)
    copy = Copy(
        src=pair.src,
        dst=cause.at_fault if cause.at_fault and pair.is_read_by(cause.at_fault) else _reader(pair),
        src_device=pair.send.device,
        dst_device=pair.receive.device,
        bytes=pair.nbytes,
        ns=_wait_ns(run.facts, pair),
        reason=cause.reason,
        on_critical_path=_is_on_path(run.on_path, pair),
        kind=pair.kind,
        detail=cause.detail,
        calls_per_step=timing.calls_per_step if timing else None,
        tensor=str(pair.tensor) if pair.tensor else None,
        at_fault=cause.at_fault,
    )
    return _as_reported(run, copy, events) if events else copy


def _reader(pair: Pair) -> str:
    return pair.readers[0][0] if pair.readers else pair.receive.name


def _cause(run: _Run, pair: Pair) -> Cause:
    """Return the first known cause over the readers; a control dependency moves no bytes and has none."""
    if pair.kind == "control":
        return UNKNOWN
    src = _end(run, pair.send, pair.src, pair.port)
    readers = [_end(run, pair.receive, name, port) for name, port in pair.readers]
    is_shape = pair.src in run.shapes
    causes = [cause_of(Crossing(src, reader, pair.tensor, is_shape), run.facts(gpu_kernels)) for reader in readers]
    return max(causes, key=lambda cause: (cause.reason is not None, cause.detail is not None), default=UNKNOWN)


def _end(run: _Run, transfer: Op, name: str, port: int | None) -> End:
    return End(run.graph.op(name), memory_of(transfer), transfer.device, port, run.requested(name))


def _wait_ns(facts: Facts, pair: Pair) -> int | None:
    times = facts(timings)
    seen = [timing.self_ns for op in (pair.send, pair.receive) if (timing := times.get(op.name))]
    return sum(seen) if seen else None


def _is_on_path(path: frozenset[str] | None, pair: Pair) -> bool | None:
    """Whether the critical path goes over this transfer: through its own ops, or from its producer to a reader."""
    if path is None:
        return None
    if pair.send.name in path or pair.receive.name in path:
        return True
    return pair.src in path and any(name in path for name, _ in pair.readers)


# -- what a device reports ----------------------------------------------------------------------------------------


def _alone(run: _Run, events: Sequence[CopyEvent]) -> Copy:
    """Return the copy of events that belong to no pair, with what they themselves name."""
    first = events[0]
    device = run.profile.devices[first.device]
    cause = cause_of_event(first, device.name, run.known, run.facts(gpu_kernels))
    src, dst = ends_of(first)
    is_in_program = first.op == COPY_START
    if is_in_program and not dst:
        result = result_of(first.node, run.graph)
        dst = result.reader if result else ""
    host = f"{device.host}/" if device.host and len(run.profile.hosts) > 1 else ""
    places = [_place(host, device, memory) if first.kind else "" for memory in memories_of(first)]
    copy = Copy(
        src=src,
        dst=dst,
        src_device=places[0],
        dst_device=places[1],
        reason=cause.reason,
        kind=first.kind,
        detail=cause.detail,
        at_fault=cause.at_fault,
        tensor=run.profile.instructions.get(first.node, Instruction()).output or None,
        on_critical_path=first.node in run.on_path if is_in_program and run.on_path is not None else None,
    )
    return _as_reported(run, copy, events)


def _instruction_of(events: Sequence[CopyEvent]) -> tuple[str, ...]:
    """Return the instruction that makes the copy, where a compiled program does."""
    return (events[0].node,) if events[0].op == COPY_START else ()


def _place(host: str, device: ProfiledDevice, memory: Memory) -> str:
    return host + (device.name if memory == "device" else _HOST)


def _as_reported(run: _Run, copy: Copy, events: Sequence[CopyEvent]) -> Copy:
    """Put the device's own numbers into ``copy``; per step where it is known what a step is."""
    windows = run.facts(device_windows).get(events[0].device)
    inside = windows.inside(events) if windows else list(events)
    sizes = [event.nbytes for event in events]
    total = sum(size for size in sizes if size is not None) if None not in sizes else None
    return replace(
        copy,
        bytes=copy.bytes if total is None else round(total / len(events)),
        ns=round(_duration_ns(inside) / windows.steps) if windows else None,
        calls_per_step=len(inside) / windows.steps if windows else None,
        stream=Counter(event.stream for event in events).most_common(1)[0][0],
        overlap_share=_overlap(run.facts(device_busy).get(events[0].device), inside or events),
        events=len(events),
        event_bytes=total,
    )


def _duration_ns(events: Iterable[CopyEvent]) -> int:
    return sum(event.end_ns - event.start_ns for event in events)


def _overlap(busy: Busy | None, events: Sequence[CopyEvent]) -> float | None:
    """Return the share of the copies' time during which the device computed; ``None`` when they took none."""
    duration_ns = _duration_ns(events)
    if not duration_ns:
        return None
    within_ns = busy.all_within_ns([(event.start_ns, event.end_ns) for event in events]) if busy else 0
    return within_ns / duration_ns
