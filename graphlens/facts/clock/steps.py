"""Which stretches of a profile are its steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import median
from typing import Final

from graphlens.facts.clock import hosts
from graphlens.ir.run import Profile, Span
from graphlens.units import counted, format_ns, format_share

# The first profiled step was up to 2.5 times slower than the rest; it is left out when enough others remain.
FEWEST_STEPS_TO_DROP_FIRST: Final = 4

# Wall time is divided over the middle half of the steps (by their length), so that a step during which another program
# had the processor does not colour the whole picture; below this many steps all are used.
FEWEST_STEPS_TO_TRIM: Final = 8

# Hosts whose median steps differ by less are in step: one and the same program varies by as much.
ALIKE: Final = 1.10

# Devices that run one program after the other have next to nothing between two runs.
MOSTLY: Final = 0.9


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps to use, by host; ``marked`` is false where the profile shows none and all of a host counts as one."""

    by_host: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    marked: bool = True
    notes: tuple[str, ...] = ()

    @property
    def windows(self) -> tuple[Span, ...]:
        """The steps of all hosts."""
        return tuple(span for spans in self.by_host.values() for span in spans)


def steps_of(profile: Profile) -> Steps:
    """Return the steps of ``profile`` without a slow first one.

    Markers on the host come first, then the steps that the profiler found on the devices, then the outermost function
    runs of a profile without accelerators: on an accelerator a function returns before its kernels have run.  Each host
    has steps of its own: what they do at the same time, no profile says.
    """
    profiles = {next(iter(one.hosts), ""): one for one in hosts.each(profile)}
    marked = {host: spans for host, one in profiles.items() if (spans := _marked(one))}
    if marked:
        by_host = {host: without_slow_first(spans) for host, spans in marked.items()}
        own = hosts.has_own_steps(profile)
        apart = _apart_in_time(by_host, "devices" if own else "hosts")
        separate = [note for host in marked for note in _at_other_times(profiles[host])]
        notes = (*_unmarked(profiles, marked), *separate, *apart, *(_between(by_host) if own else ()))
        return Steps(by_host, notes=notes)
    wholes = {host: (whole,) for host, one in profiles.items() if (whole := _whole(one))}
    length = format_ns(max((length_ns(whole) for (whole,) in wholes.values()), default=0))
    note = f"the profile marks no steps: all of it ({length}) counts as one"
    return Steps(wholes, False, (note,)) if wholes else Steps()


def without_slow_first(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Return the steps without the first one, where enough are left."""
    return tuple(spans[1:] if len(spans) >= FEWEST_STEPS_TO_DROP_FIRST else spans)


def _unmarked(profiles: Mapping[str, Profile], marked: Mapping[str, Sequence[Span]]) -> Iterator[str]:
    for host, one in profiles.items():
        if host not in marked and _whole(one) is not None:
            yield f"the profile marks no steps on {host}: what it did is in no step"


def _apart_in_time(by_host: Mapping[str, Sequence[Span]], what: str) -> Iterator[str]:
    """Say so when the step of one host (or device) is longer than that of another."""
    medians = {host: median(map(length_ns, spans)) for host, spans in by_host.items()}
    least, most = (choose(medians, key=lambda host: medians[host]) for choose in (min, max))
    if medians[most] > ALIKE * medians[least]:
        yield (
            f"the step is that of {len(medians)} {what} together; its median is {format_ns(round(medians[least]))} on "
            f"{least} and {format_ns(round(medians[most]))} on {most}"
        )


def _between(by_device: Mapping[str, Sequence[Span]]) -> Iterator[str]:
    """Say so when devices have much time between their steps: they are the runs of a program, and hold no idle time."""
    in_steps_ns = sum(length_ns(span) for spans in by_device.values() for span in spans)
    in_all_ns = sum(spans[-1].end_ns - spans[0].start_ns for spans in by_device.values())
    if in_steps_ns < MOSTLY * in_all_ns:
        yield (
            f"the devices run the program in {format_share(in_steps_ns / in_all_ns)} of the time from its first step "
            "to its last: what lies between is in no step"
        )


def _marked(profile: Profile) -> Sequence[Span]:
    if profile.steps:
        return profile.steps
    on_devices = _joined(step for device in profile.devices for step in device.steps)
    if on_devices or profile.kernels_on_device or profile.copies:
        return on_devices
    if profile.runs:  # what is known of them is in the markers already
        return []
    return outermost(profile.functions) or outermost(profile.executors)


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Return one span per step, from its first start to its last end on any device of a host."""
    by_number: dict[tuple[str, int], list[Span]] = defaultdict(list)
    for span in spans:
        by_number[span.name, span.step_id].append(span)
    joined = [_around(group) for alike in by_number.values() for group in _together(alike)]
    return list(_apart(sorted(joined, key=lambda span: span.start_ns)))


def _together(alike: Iterable[Span]) -> Iterator[list[Span]]:
    """Yield the spans of one number that are of one step.

    Profilers number the steps of each device by themselves.  What begins later than any part of the step lasted is
    another step: replicas work at the same time, and the stages of a pipeline follow each other.
    """
    group: list[Span] = []
    for span in sorted(alike, key=lambda span: span.start_ns):
        if group and span.start_ns - max(one.end_ns for one in group) > max(map(length_ns, [*group, span])):
            yield group
            group = []
        group.append(span)
    yield group


def _at_other_times(profile: Profile) -> Iterator[str]:
    """Say so when what devices call one step is several: they ran at different times."""
    if profile.steps:
        return
    joined: dict[int, list[Span]] = defaultdict(list)
    for span in _joined(step for device in profile.devices for step in device.steps):
        joined[span.step_id].append(span)
    several = [spans for spans in joined.values() if len(spans) > 1]
    if several:
        first, second = several[0][:2]
        names = " and ".join(", ".join(_devices_in(profile, span)) for span in (first, second))
        yield (
            f"what {names} call step {first.step_id} is two steps, of {format_ns(length_ns(first))} and "
            f"{format_ns(length_ns(second))}: they lie {format_ns(second.start_ns - first.end_ns)} apart"
            + (f" (and {counted(len(several) - 1, 'step')} alike)" if len(several) > 1 else "")
        )


def _devices_in(profile: Profile, span: Span) -> Iterator[str]:
    for device in profile.devices:
        if any(span.start_ns <= step.start_ns < span.end_ns for step in device.steps):
            yield device.name


def _around(group: Sequence[Span]) -> Span:
    return group[0]._replace(start_ns=min(span.start_ns for span in group), end_ns=max(span.end_ns for span in group))


def _apart(spans: Sequence[Span]) -> Iterator[Span]:
    """Yield the spans, each ended by the start of the next: a device may begin a step while another ends the last."""
    for span, following in zip_longest(spans, spans[1:]):
        yield span if following is None else span._replace(end_ns=min(span.end_ns, following.start_ns))


def outermost(spans: Iterable[Span]) -> list[Span]:
    """Return the spans that begin in no other one."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda item: (item.start_ns, -item.end_ns)):
        if not kept or span.start_ns >= kept[-1].end_ns:
            kept.append(span)
    return kept


def _whole(profile: Profile) -> Span | None:
    """Return the span from the first event to the last one."""
    single = (profile.kernels, profile.waits, profile.functions, profile.copies)
    extents = [(event.start_ns, event.end_ns) for events in single for event in events]
    if profile.ops or profile.executors or profile.kernels_on_device:
        from graphlens.ir.columns import DeviceEvents, OpEvents, Spans  # need numpy, which graphs alone do not

        many = OpEvents.of(profile.ops), Spans.of(profile.executors), DeviceEvents.of(profile.kernels_on_device)
        extents += [(int(events.start_ns.min()), int(events.end_ns.max())) for events in many if events]
    return Span("profile", min(start for start, _ in extents), max(end for _, end in extents), 0) if extents else None


def typical(steps: Steps) -> list[Span]:
    """Return the middle half of the steps of each host by length, in time order."""
    return [span for windows in steps.by_host.values() for span in _middle_half(windows)]


def _middle_half(windows: Sequence[Span]) -> list[Span]:
    if len(windows) < FEWEST_STEPS_TO_TRIM:
        return list(windows)
    quarter = len(windows) // 4
    middle = sorted(windows, key=length_ns)[quarter : len(windows) - quarter]
    return sorted(middle, key=lambda span: span.start_ns)


def length_ns(span: Span) -> int:
    """Return how long a span lasts."""
    return span.end_ns - span.start_ns
