"""The plane of a TPU: programs and their runs, instructions with their work, and copies that run beside them.

A TPU reports what XLA compiled: ``XLA Modules`` holds one event for each run of a program, ``XLA Ops`` one for each
instruction in it.  A copy is an instruction that starts it, ``copy-start``, and one that waits for it, ``copy-done``;
``Async XLA Ops`` shows both as one event, on some devices of a profile only.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

from graphlens.ir.columns import Codes, DeviceEvents, Ints, first_of, numbered
from graphlens.ir.instructions import COPY_DONE, COPY_START, is_wait, module_names
from graphlens.ir.nodes import TensorSpec
from graphlens.ir.run import NO_RUN, CopyDirection, CopyEvent, Instruction, Kernel, ProfiledDevice, Run, Span
from graphlens.loaders.annotations import made_of, split_op
from graphlens.loaders.event_columns import PlaneEvents, read_events
from graphlens.loaders.events import Events
from graphlens.loaders.hlo import Written, specs, split_instruction
from graphlens.loaders.planes import XLA_KERNEL, stat_names, values

_STEPS: Final = "Steps"
_RUNS: Final = "XLA Modules"
_INSTRUCTIONS: Final = "XLA Ops"
_COPIES: Final = "Async XLA Ops"
_TELLING: Final = frozenset({"tf_op", "hlo_category", "program_id", "flops", "bytes_accessed", "source", "run_id"})

_TPU_PLANE = re.compile(r"^/device:TPU:\d+$")
_LAYOUT = re.compile(r"[a-z]\w*\[[^\]]*\](\{[^}]*\})?")  # behind data type and shape of an array
_MEMORY = re.compile(r"S\((\d+)\)")  # in a layout: the memory of an array; none is that of the device
_WAYS: Final[Mapping[CopyDirection | None, str]] = {
    "host-to-device": "to device",
    "device-to-host": "to host",
    "device-to-device": "within the device",
}
_HOST_MEMORY: Final = "5"  # as XLA numbers them (Layout::kHostMemorySpace)


def is_tpu(plane: Any) -> bool:
    """Tell whether ``plane`` is that of a TPU."""
    return bool(_TPU_PLANE.match(plane.name))


def read_tpu(plane: Any, device: ProfiledDevice, into: Events) -> None:
    """Add ``device`` with what ``plane`` shows of it.

    Its steps are those that it marks, else the runs of the program that took most of its time.
    """
    reader = _TpuReader(plane, into)
    into.devices.append(replace(device, steps=tuple(reader.steps())))
    into.runs += reader.runs
    into.kernel_columns.append(reader.kernels())
    into.copies += reader.copies()
    into.instructions.update(reader.told)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What all events of one name share: an instruction of one program.

    ``module`` is the number of its program, ``op`` the name and type of the TensorFlow op that it was made of (empty
    for another front end), ``made_of`` that type for every front end (of a copy the way it goes), ``text`` the
    instruction as XLA writes it, where the profile has that.
    """

    name: str
    category: str
    module: str
    flops: int | None
    nbytes: int | None
    op: tuple[str, str]
    made_of: str
    told: Instruction
    text: Written | None

    @property
    def key(self) -> tuple[str, str]:
        """What the instruction is known by: names are those of one program."""
        return self.module, self.name


class _TpuReader:
    """Reads one plane, whose lines hold their events as bytes; the tables of names and the runs are needed at every
    turn."""

    def __init__(self, plane: Any, into: Events) -> None:
        self.plane = plane
        self.device, self.first_run = len(into.devices), len(into.runs)
        self.stat_names = stat_names(plane)
        lines = {line.name: line for line in plane.lines}
        told = frozenset(key for key, name in self.stat_names.items() if name in _TELLING)
        self.events = {
            name: read_events([lines[name]] if name in lines else [], self.stat_names, told, into.shift_ns)
            for name in (_STEPS, _RUNS, _INSTRUCTIONS, _COPIES)
        }
        self.kinds = self._kinds()
        self.told: dict[str, Instruction] = {}

    def _kinds(self) -> Mapping[int, _Kind]:
        """Return what the events of each name share, by its number; a trace tells it at each of them."""
        kinds: dict[int, _Kind] = {}
        for events in (self.events[_INSTRUCTIONS], self.events[_COPIES]):
            first = np.unique(events.name, return_index=True)[1]
            first.sort()
            for key, told in zip(events.name[first].tolist(), self._told(events, first), strict=True):
                if key not in kinds:
                    meta = self.plane.event_metadata[key]
                    kinds[key] = _kind(meta, {**told, **dict(values(meta.stats, self.stat_names))})
        return kinds

    def _told(self, events: PlaneEvents, places: Ints) -> list[dict[str, Any]]:
        """Return what the statistics of some events tell."""
        chosen = np.zeros(len(events), bool)
        chosen[places] = True
        stats = events.stats.of_events(chosen)
        told: dict[int, dict[str, Any]] = {place: {} for place in places.tolist()}
        for place, key, value in zip(stats.event.tolist(), stats.key.tolist(), stats.values(), strict=True):
            if value is not None:
                told[place][self.stat_names.get(key, "")] = value
        return list(told.values())

    def _spans(self, line: str, places: Any = slice(None)) -> Iterator[tuple[int, int, int]]:
        """Yield events of a line: the number of the name, start and end."""
        events = self.events[line]
        columns = (column[places].tolist() for column in (events.name, events.start_ns, events.end_ns))
        return zip(*columns, strict=True)

    # -- programs and steps ---------------------------------------------------------------------------------------

    @cached_property
    def runs(self) -> list[Run]:
        """The runs of all programs, by their start."""
        runs = []
        told = self._told(self.events[_RUNS], np.arange(len(self.events[_RUNS])))
        for (key, start_ns, end_ns), own in zip(self._spans(_RUNS), told, strict=True):
            name, number = self.plane.event_metadata[key].name, _amount(own.get("run_id")) or 0
            runs.append(Run(name, start_ns, end_ns, 0, number, device=self.device))
        return sorted(runs, key=lambda run: run.start_ns)

    @cached_property
    def _run_starts_ns(self) -> list[int]:
        return [run.start_ns for run in self.runs]

    def _run_at(self, time_ns: int) -> int:
        """Return the position among ``runs`` of the one that goes on at ``time_ns``."""
        index = bisect_right(self._run_starts_ns, time_ns) - 1
        return index if index >= 0 and time_ns <= self.runs[index].end_ns else NO_RUN

    @cached_property
    def _modules(self) -> Mapping[str, str]:
        """What stands in front of the instructions of each program."""
        return module_names(run.program for run in self.runs)

    def steps(self) -> Iterator[Span]:
        """Yield the device's own steps, else the runs of the program that it spends most time in."""
        for key, start_ns, end_ns in self._spans(_STEPS):
            name = self.plane.event_metadata[key].name
            yield Span(name, start_ns, end_ns, 0, int(name) if name.isdecimal() else 0)
        if len(self.events[_STEPS]) or not self.runs:
            return
        spent_ns: dict[str, int] = defaultdict(int)
        for run in self.runs:
            spent_ns[run.program] += run.end_ns - run.start_ns
        main = max(spent_ns, key=lambda program: spent_ns[program])
        for number, run in enumerate(run for run in self.runs if run.program == main):
            yield Span(self._modules[main], run.start_ns, run.end_ns, 0, number)

    # -- instructions ---------------------------------------------------------------------------------------------

    def kernels(self) -> DeviceEvents:
        """Return the executed instructions; one that contains others (a loop) is what runs in it."""
        events = self.events[_INSTRUCTIONS]
        places = _innermost(events)
        name, start_ns, run = events.name[places], events.start_ns[places], self._runs_at(events.start_ns[places])
        programs = Codes[str]()
        program = np.array([*(programs(own.program) for own in self.runs), NO_RUN], np.int64)[run]
        alike = numbered(name, program + 1)
        first = first_of(alike)
        kinds: list[Kernel | None] = [None] * len(first)
        for place, number in sorted(zip(first.tolist(), range(len(first)), strict=True)):
            kinds[number] = self._kernel(self.kinds[int(name[place])], int(run[place]))
        return DeviceEvents(
            [kind for kind in kinds if kind is not None],
            alike,
            start_ns,
            events.end_ns[places],
            np.full(len(places), self.device),
            np.where(run == NO_RUN, NO_RUN, run + self.first_run),
        )

    def _kernel(self, kind: _Kind, run: int) -> Kernel:
        instruction = self._named(kind.name, run)
        node, op = kind.op if kind.op[1] and not is_wait(kind.category) else (instruction, XLA_KERNEL)
        self.told.setdefault(node, kind.told)
        return Kernel(kind.name, node, op, _INSTRUCTIONS, kind.category, kind.flops, kind.nbytes, kind.made_of)

    def _runs_at(self, times_ns: Ints) -> Ints:
        """Return the positions among ``runs`` of those that go on at some times."""
        if not self.runs:
            return np.full(len(times_ns), NO_RUN)
        ends_ns = np.array([run.end_ns for run in self.runs], np.int64)
        last = np.searchsorted(np.array(self._run_starts_ns, np.int64), times_ns, side="right") - 1
        return np.where((last >= 0) & (times_ns <= ends_ns[last]), last, NO_RUN)

    def _named(self, instruction: str, run: int) -> str:
        """Return the name of an instruction within its program."""
        return f"{self._modules[self.runs[run].program]}/{instruction}" if run != NO_RUN else instruction

    # -- copies ---------------------------------------------------------------------------------------------------

    def copies(self) -> Iterator[CopyEvent]:
        """Yield the copies: from the line that shows them, else each from its start to the end of the wait for it."""
        shown = self._places(_COPIES, COPY_START)
        if len(shown):
            for key, start_ns, end_ns in self._spans(_COPIES, shown):
                yield self._copy(self.kinds[key], start_ns, end_ns, _COPIES)
        else:
            yield from self._paired()

    def _places(self, line: str, *categories: str) -> Ints:
        """Return where the events of a line are whose instruction is of one of some kinds."""
        keys = [key for key, kind in self.kinds.items() if kind.category in categories]
        return np.flatnonzero(np.isin(self.events[line].name, keys))

    def _paired(self) -> Iterator[CopyEvent]:
        """Yield a copy for each wait; of one whose start is not in the profile the wait is all that is known."""
        by_key = {kind.key: kind for kind in self.kinds.values()}
        started_ns: dict[tuple[str, str], int] = {}
        places = self._places(_INSTRUCTIONS, COPY_START, COPY_DONE)
        done = np.isin(places, self._places(_INSTRUCTIONS, COPY_DONE))
        # By the device's clock a copy may begin at the very instant at which it is waited for.
        in_order = places[np.lexsort((done, self.events[_INSTRUCTIONS].start_ps[places]))]
        for number, start_ns, end_ns in self._spans(_INSTRUCTIONS, in_order):
            kind = self.kinds[number]
            if kind.category == COPY_START:
                started_ns[kind.key] = start_ns
            else:
                key = kind.module, _source(kind)
                yield self._copy(by_key.get(key, kind), started_ns.pop(key, start_ns), end_ns, _INSTRUCTIONS)

    def _copy(self, start: _Kind, start_ns: int, end_ns: int, line: str) -> CopyEvent:
        run = self._run_at(start_ns)
        node, reader = self._named(start.name, run), self._readers.get(start.key, "")
        source = _source(start) if start.category == COPY_START else ""
        arrays, memories = _moved(start.text)
        self.told[node] = start.told._replace(output=str(arrays[0]) if arrays else "")
        return CopyEvent(
            _direction(memories),
            node,
            COPY_START,
            start_ns,
            end_ns,
            self.device,
            line,
            arrays[0].nbytes if arrays else None,
            self._named(source, run) if source else "",
            self._named(reader, run) if reader else "",
        )

    @cached_property
    def _readers(self) -> Mapping[tuple[str, str], str]:
        """The first instruction that reads what each copy has brought, by the instruction that starts the copy."""
        written = [kind for kind in self.kinds.values() if kind.text is not None]
        readers: dict[tuple[str, str], str] = {}
        for kind in written:
            for operand in kind.text.operands if kind.text else ():
                readers.setdefault((kind.module, operand), kind.name)
        awaited = [(kind.module, _source(kind), kind.key) for kind in written if kind.category == COPY_DONE]
        return {(module, start): readers[done] for module, start, done in awaited if done in readers}


def _kind(meta: Any, stats: Mapping[str, Any]) -> _Kind:
    text = split_instruction(meta.name)
    written_as = str(stats.get("tf_op", ""))
    category = stats.get("hlo_category") or (text.opcode if text and is_wait(text.opcode) else "")
    return _Kind(
        name=text.name if text else meta.display_name or meta.name,
        category=str(category),
        module=str(stats.get("program_id", "")),
        flops=_amount(stats.get("flops")),
        nbytes=_amount(stats.get("bytes_accessed")),
        op=split_op(written_as),
        made_of=_WAYS.get(_direction(_moved(text)[1]), "") if is_wait(str(category)) else made_of(written_as),
        told=Instruction(
            split_op(written_as)[0] or written_as.rstrip(":"), str(stats.get("source", "")), _output(text)
        ),
        text=text,
    )


def _amount(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _output(text: Written | None) -> str:
    return ", ".join(map(str, text.outputs)) if text else ""


def _source(kind: _Kind) -> str:
    """Return the first instruction that ``kind`` reads."""
    return next(iter(kind.text.operands), "") if kind.text else ""


def _moved(text: Written | None) -> tuple[Sequence[TensorSpec], Sequence[str]]:
    """Return the copy and its original, with the memories that they are in: empty for that of the device.

    A copy's start gives a tuple of both; what waits for it takes that tuple.
    """
    if text is None:
        return (), ()
    both = text.shape if text.opcode == COPY_START else text.inside
    memories = [_MEMORY.search(layout) for layout in _LAYOUT.findall(both)]
    return specs(both)[:2], [found[1] if found else "" for found in memories[:2]]


def _direction(memories: Sequence[str]) -> CopyDirection | None:
    """Return which way a copy goes, given the memories of the copy and of its original."""
    if len(memories) < 2:
        return None
    to_host, from_host = (memory == _HOST_MEMORY for memory in memories)
    if to_host and from_host:
        return None
    return "device-to-host" if to_host else "host-to-device" if from_host else "device-to-device"


def _innermost(events: PlaneEvents) -> Ints:
    """Return where the events are that contain no other: a loop's instruction lasts as long as those of its body.

    What takes no time at all is in nothing: the clock of the device was not fine enough for it.
    """
    lasting = np.flatnonzero(events.end_ps > events.start_ps)
    ordered = lasting[np.lexsort((-events.end_ps[lasting], events.start_ps[lasting]))]
    following = np.append(events.start_ps[ordered[1:]], np.iinfo(np.int64).max)[: len(ordered)]
    contains_none = following >= events.end_ps[ordered]
    return np.concatenate([np.flatnonzero(events.end_ps <= events.start_ps), ordered[contains_none]])
