"""When each device computed within the steps, and what its idle time was spent on."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from operator import sub
from statistics import median
from typing import TYPE_CHECKING

from graphlens.facts.clock.devices import merged
from graphlens.facts.clock.steps import length_ns, steps_of
from graphlens.ir.instructions import is_wait
from graphlens.ir.run import CopyEvent, Profile, Span

if TYPE_CHECKING:
    from graphlens.ir.columns import DeviceEvents, Ints


@dataclass(frozen=True)
class Windows:
    """The steps of one device, in order of time; ``marked`` is false where the whole profile counts as one."""

    spans: tuple[Span, ...]
    marked: bool = True

    @property
    def steps(self) -> int:
        """How many there are."""
        return len(self.spans)

    def inside(self, events: Iterable[CopyEvent]) -> list[CopyEvent]:
        """Return the events that begin after the first step has and before the last one ends."""
        return [event for event in events if self.spans[0].start_ns <= event.start_ns < self.spans[-1].end_ns]

    def around(self, time_ns: int) -> Span | None:
        """Return the step that an instant lies in."""
        index = bisect_right(self._starts_ns, time_ns) - 1
        return self.spans[index] if index >= 0 and time_ns < self.spans[index].end_ns else None

    @cached_property
    def _starts_ns(self) -> list[int]:
        return [span.start_ns for span in self.spans]


def windows_of(profile: Profile) -> Mapping[int, Windows]:
    """Return the steps of each device by its number: those that it marks itself, else those of the profile."""
    steps = steps_of(profile)
    found = {}
    for number, device in enumerate(profile.devices):
        spans = device.steps or (steps.by_host.get(device.host, ()) if len(profile.hosts) > 1 else steps.windows)
        if spans:
            in_order = tuple(sorted(spans, key=lambda span: span.start_ns))
            found[number] = Windows(in_order, bool(device.steps) or steps.marked)
    return found


class Busy:
    """The stretches of time in which a device ran at least one kernel, and its busy time up to each of them."""

    def __init__(self, kernels: Iterable[tuple[int, int]] = ()) -> None:
        stretches = tuple(merged(kernel for kernel in kernels if kernel[0] < kernel[1]))
        self.starts_ns = [start_ns for start_ns, _ in stretches]
        self.ends_ns = [end_ns for _, end_ns in stretches]

    @staticmethod
    def of(kernels: DeviceEvents) -> Busy:
        """Return when a device that ran ``kernels`` was busy."""
        from graphlens.facts.clock.sweep import united  # needs numpy, which graphs alone do not

        lasting = kernels.start_ns < kernels.end_ns
        starts_ns, ends_ns = united(kernels.start_ns[lasting], kernels.end_ns[lasting])
        busy = Busy()
        busy.starts_ns, busy.ends_ns = starts_ns.tolist(), ends_ns.tolist()
        return busy

    @cached_property
    def before_ns(self) -> list[int]:
        """The time until the start of each stretch, and after the last one, in which it was busy."""
        return list(accumulate(map(sub, self.ends_ns, self.starts_ns), initial=0))

    def within_ns(self, start_ns: int, end_ns: int) -> int:
        """Return for how long of an interval the device computed."""
        return self._until(end_ns) - self._until(start_ns)

    def all_within_ns(self, intervals: Iterable[tuple[int, int]]) -> int:
        """Return for how long of all of some intervals the device computed."""
        import numpy as np

        times_ns = np.array(list(intervals), np.int64).reshape(-1, 2)
        starts_ns, ends_ns, before_ns = self._columns

        def until(time_ns: Ints) -> Ints:
            index = np.searchsorted(starts_ns, time_ns)
            return before_ns[index] - np.where(index > 0, np.maximum(0, ends_ns[index - 1] - time_ns), 0)

        return int((until(times_ns[:, 1]) - until(times_ns[:, 0])).sum()) if self.starts_ns else 0

    @cached_property
    def _columns(self) -> tuple[Ints, Ints, Ints]:
        import numpy as np

        starts_ns, ends_ns = np.array(self.starts_ns, np.int64), np.array(self.ends_ns, np.int64)
        return starts_ns, ends_ns, np.concatenate([[0], np.cumsum(ends_ns - starts_ns)])

    def next_start_ns(self, time_ns: int) -> int | None:
        """Return when the device computes again after ``time_ns``; that instant itself when it does so then."""
        index = bisect_left(self.ends_ns, time_ns + 1)
        return max(time_ns, self.starts_ns[index]) if index < len(self.starts_ns) else None

    def pieces(self, start_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
        """Yield the stretches within an interval, cut to it."""
        for index in range(bisect_right(self.ends_ns, start_ns), bisect_left(self.starts_ns, end_ns)):
            yield max(start_ns, self.starts_ns[index]), min(end_ns, self.ends_ns[index])

    def _until(self, time_ns: int) -> int:
        index = bisect_left(self.starts_ns, time_ns)
        return self.before_ns[index] - (max(0, self.ends_ns[index - 1] - time_ns) if index else 0)


def busy_of(profile: Profile) -> Mapping[int, Busy]:
    """Return when each device of the profile computed, by its number; absent when it ran no kernel.

    Waiting for a copy is no computing, although it is an instruction of the device.
    """
    return {device: Busy.of(kernels) for device, kernels in _computing(profile).items()}


def running_of(profile: Profile) -> Mapping[int, Busy]:
    """Return when each device of the profile was within a kernel, be it to wait; absent when it ran none."""
    return {device: Busy.of(kernels) for device, kernels in _kernels(profile).items()}


def _kernels(profile: Profile) -> Mapping[int, DeviceEvents]:
    if not profile.kernels_on_device:
        return {}
    from graphlens.ir.columns import DeviceEvents  # needs numpy, which graphs alone do not

    return DeviceEvents.of(profile.kernels_on_device).by_device


def _computing(profile: Profile) -> Mapping[int, DeviceEvents]:
    """Return the kernels of each device that do more than wait for a copy."""
    computing = {
        device: kernels.of_kinds(lambda kernel: not is_wait(kernel.category))
        for device, kernels in _kernels(profile).items()
    }
    return {device: kernels for device, kernels in computing.items() if kernels}


def _stretches(events: Iterable[CopyEvent]) -> Mapping[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        found[event.device].append((event.start_ns, event.end_ns))
    return found


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """What one device did in a typical step.

    Attributes
    ----------
    device
        Its number in the profile.
    step_ns, busy_ns, copy_ns
        Mean length of a step, mean time in which it computed, and in which it only copied.
    kernels, kernel_ns
        Kernels per step that compute, and their median length.
    waiting_ns
        Mean time in which an instruction of its own program waited for a copy.
    """

    device: int
    step_ns: int
    busy_ns: int
    copy_ns: int
    kernels: float
    kernel_ns: int
    waiting_ns: int = 0

    @property
    def busy_share(self) -> float:
        """Share of the step in which the device computed."""
        return self.busy_ns / self.step_ns if self.step_ns else 0.0

    @property
    def running_share(self) -> float:
        """Share of the step in which the device computed or waited for a copy, as its program told it to."""
        return (self.busy_ns + self.waiting_ns) / self.step_ns if self.step_ns else 0.0


def device_uses(
    profile: Profile, busy: Mapping[int, Busy], running: Mapping[int, Busy], windows: Mapping[int, Windows]
) -> tuple[DeviceUse, ...]:
    """Return what the devices that ran kernels did within their steps; none where no step is marked.

    Parameters
    ----------
    busy, running
        When each device computed, and when it was within a kernel, be it to wait.
    windows
        The steps of each device.
    """
    kernels, copies = _computing(profile), _stretches(profile.copies)
    return tuple(
        replace(
            _use(device, busy[device], kernels[device], copies.get(device, []), windows[device].spans),
            waiting_ns=_mean_ns(running[device], windows[device].spans) - _mean_ns(busy[device], windows[device].spans),
        )
        for device in sorted(busy)
        if device in windows and windows[device].marked
    )


def _use(
    device: int,
    busy: Busy,
    kernels: DeviceEvents,
    copies: Iterable[tuple[int, int]],
    spans: Sequence[Span],
) -> DeviceUse:
    inside = kernels.lengths_ns(spans[0].start_ns, spans[-1].end_ns)
    return DeviceUse(
        device=device,
        step_ns=round(sum(map(length_ns, spans)) / len(spans)),
        busy_ns=_mean_ns(busy, spans),
        copy_ns=only_copying_ns(busy, copies, spans),
        kernels=len(inside) / len(spans),
        kernel_ns=round(median(inside)) if inside else 0,
    )


def _mean_ns(times: Busy, spans: Sequence[Span]) -> int:
    return round(times.all_within_ns((span.start_ns, span.end_ns) for span in spans) / len(spans))


def only_copying_ns(busy: Busy, copies: Iterable[tuple[int, int]], spans: Sequence[Span]) -> int:
    """Return for how long of a step, in the mean of ``spans``, a device copied and did not compute.

    Copies may overlap each other: what two of them take together counts once.
    """
    copying = Busy(copies)
    pieces = [piece for span in spans for piece in copying.pieces(span.start_ns, span.end_ns)]
    copying_ns = sum(end_ns - start_ns for start_ns, end_ns in pieces)
    return round((copying_ns - busy.all_within_ns(pieces)) / len(spans))
