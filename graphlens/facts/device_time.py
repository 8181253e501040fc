"""When a device computed, and which of its events lie within the steps."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from graphlens.facts.devices import merged
from graphlens.facts.steps import steps_of
from graphlens.ir.run import CopyEvent, Profile, Span


class Windows(NamedTuple):
    """The steps of one device: from when to when they lasted in all, and how many there were."""

    start_ns: int
    end_ns: int
    steps: int

    def inside(self, events: Iterable[CopyEvent]) -> list[CopyEvent]:
        """Return the events that begin within the steps."""
        return [event for event in events if self.start_ns <= event.start_ns < self.end_ns]


def windows_of(profile: Profile, device: int) -> Windows | None:
    """Return the steps of a device: those that it marks itself, else those of the profile."""
    spans = profile.devices[device].steps or _steps_of_host(profile, profile.devices[device].host)
    if not spans:
        return None
    return Windows(min(span.start_ns for span in spans), max(span.end_ns for span in spans), len(spans))


def _steps_of_host(profile: Profile, host: str) -> tuple[Span, ...]:
    steps = steps_of(profile)
    return steps.by_host.get(host, ()) if len(profile.hosts) > 1 else steps.windows


class Busy:
    """When a device computed: stretches of time in which at least one kernel ran, and the time up to each of them."""

    def __init__(self, kernels: Iterable[tuple[int, int]]) -> None:
        self.starts_ns: list[int] = []
        self.ends_ns: list[int] = []
        self.before_ns: list[int] = [0]
        for start_ns, end_ns in merged(kernel for kernel in kernels if kernel[0] < kernel[1]):
            self.starts_ns.append(start_ns)
            self.ends_ns.append(end_ns)
            self.before_ns.append(self.before_ns[-1] + end_ns - start_ns)

    def within_ns(self, start_ns: int, end_ns: int) -> int:
        """Return for how long of an interval the device computed."""
        return self._until(end_ns) - self._until(start_ns)

    def next_start_ns(self, time_ns: int) -> int | None:
        """Return when the device computes again after ``time_ns``; that instant itself when it does so then."""
        index = bisect_left(self.ends_ns, time_ns + 1)
        return max(time_ns, self.starts_ns[index]) if index < len(self.starts_ns) else None

    def _until(self, time_ns: int) -> int:
        index = bisect_left(self.starts_ns, time_ns)
        return self.before_ns[index] - (max(0, self.ends_ns[index - 1] - time_ns) if index else 0)


def busy_of(profile: Profile) -> Mapping[int, Busy]:
    """Return when each device of the profile computed, by its number; absent when it ran no kernel."""
    kernels: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for event in profile.kernels_on_device:
        kernels[event.device].append((event.start_ns, event.end_ns))
    return {device: Busy(intervals) for device, intervals in kernels.items()}
