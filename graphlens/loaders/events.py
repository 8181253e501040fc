"""The events of a profile while it is read, from however many planes, hosts and files; and what then was read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from graphlens.ir.columns import DeviceEvents, OpEvents, Spans, by_start
from graphlens.ir.graph import Graph
from graphlens.ir.iterators import InputRequest, IteratorStage
from graphlens.ir.run import (
    Activity,
    Collective,
    CopyEvent,
    DeviceEvent,
    Fetch,
    Instruction,
    KernelEvent,
    Mark,
    OpEvent,
    Profile,
    ProfiledDevice,
    Run,
    Span,
)


class Recorded(NamedTuple):
    """What a recording holds: the profile, and the graphs that it was recorded with.

    ``partitions`` are ``GraphDef`` messages, ``modules`` the graphs of XLA's modules that ran, by their names.
    """

    profile: Profile
    partitions: tuple[Any, ...] = ()
    modules: Mapping[str, Graph] = {}


@dataclass(slots=True)
class Events:
    """What was found so far; ``markers`` are GraphLens's own step markers, ``other_steps`` those of the program.

    Events that are found one by one are in lists, those that are read as columns in lists of such.  ``first_thread``
    and ``shift_ns`` are added to the threads and times of the host that is being read, so that threads of several hosts
    stay apart and their times lie on one clock.
    """

    ops: list[OpEvent] = field(default_factory=list)
    markers: list[Span] = field(default_factory=list)
    other_steps: list[Span] = field(default_factory=list)
    executors: list[Span] = field(default_factory=list)
    functions: list[Span] = field(default_factory=list)
    waits: list[Span] = field(default_factory=list)
    kernels: list[KernelEvent] = field(default_factory=list)
    devices: list[ProfiledDevice] = field(default_factory=list)
    kernels_on_device: list[DeviceEvent] = field(default_factory=list)
    copies: list[CopyEvent] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    activities: list[Activity] = field(default_factory=list)
    instructions: dict[str, Instruction] = field(default_factory=dict)
    modules: dict[str, Graph] = field(default_factory=dict)
    executions: list[Span] = field(default_factory=list)
    host_modules: dict[str, Graph] = field(default_factory=dict)
    op_columns: list[OpEvents] = field(default_factory=list)
    executor_columns: list[Spans] = field(default_factory=list)
    kernel_columns: list[DeviceEvents] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    iterators: list[IteratorStage] = field(default_factory=list)
    requests: list[InputRequest] = field(default_factory=list)
    collectives: list[Collective] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)
    dropped: int = 0
    first_thread: int = 0
    shift_ns: int = 0

    def profile(self) -> Profile:
        """Return the profile, its events sorted by start."""
        # GraphLens's own markers win over those of the program, which may wrap several steps or none.
        steps = self.markers or self.other_steps
        return Profile(
            ops=by_start(OpEvents.joined([OpEvents.of(self.ops), *self.op_columns])),
            steps=_by_start(steps),
            executors=by_start(Spans.joined([Spans.of(self.executors), *self.executor_columns])),
            functions=_by_start(self.functions),
            waits=_by_start(self.waits),
            kernels=_by_start(self.kernels),
            dropped=self.dropped,
            devices=tuple(self.devices),
            kernels_on_device=by_start(self.all_kernels_on_device()),
            copies=_by_start(self.copies),
            hosts=tuple(self.hosts),
            notes=tuple(dict.fromkeys(self.notes)),
            runs=tuple(self.runs),
            instructions=self.instructions,
            executions=_by_start(self.executions),
            modules=self.host_modules,
            marks=_by_start(self.marks),
            activities=_by_start(self.activities),
            iterators=tuple(self.iterators),
            requests=_by_start(self.requests),
            collectives=_by_start(self.collectives),
            fetches=_by_start(self.fetches),
        )

    def all_kernels_on_device(self) -> DeviceEvents:
        """Return the kernels on devices that were found so far."""
        return DeviceEvents.joined([DeviceEvents.of(self.kernels_on_device), *self.kernel_columns])


def _by_start(events: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(events, key=attrgetter("start_ns")))
