"""Where a device waits for the host within a step: a value is read back, and nothing runs until the host saw it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from graphlens.facts.clock.device_time import Busy, Windows
from graphlens.facts.copies.device_facts import device_running, device_windows
from graphlens.facts.copies.transfers import Transfer, transfers
from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph
from graphlens.ir.devices import Copy
from graphlens.ir.ops import DECIDERS
from graphlens.ir.run import CopyEvent, Profile

# Kernels that were launched ahead follow each other faster: of the 663 gaps within a BERT step on a V100, 98 % are
# shorter.  A gap of this length after a copy to the host means that nothing was waiting to run.
GAP_NS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Sync:
    """A copy to the host for which the device waits.

    Attributes
    ----------
    decides
        The type of the op that takes the value to decide what runs next; empty when it is no such op.
    waits, idle_ns
        How often per step the device was then seen without work, and for how long in all; ``None`` without a profile
        of the device.
    """

    copy: Copy
    decides: str = ""
    waits: float | None = None
    idle_ns: int | None = None


@fact
def syncs(facts: Facts) -> tuple[Sync, ...]:
    """Return the copies to the host that stop a device within the step, by falling idle time."""
    profile = facts.evidence.profile or Profile()
    found = list(_found(facts, facts(transfers), _idle_after(facts, profile)))
    return tuple(sorted(found, key=lambda sync: (-(sync.idle_ns or 0), sync.copy.src)))


def _found(facts: Facts, transfers: Sequence[Transfer], idle: Mapping[CopyEvent, int]) -> Iterator[Sync]:
    windows = facts(device_windows)
    for copy, events, _ in transfers:
        if copy.kind != "device-to-host" or copy.calls_per_step == 0:
            continue
        decides = _decider(facts, copy)
        gaps = [idle[event] for event in events if event in idle]
        if gaps:
            steps = windows[events[0].device].steps
            yield Sync(copy, decides, len(gaps) / steps, round(sum(gaps) / steps))
        elif decides:
            yield Sync(copy, decides)


def _decider(facts: Facts, copy: Copy) -> str:
    """Return the type of the op that reads the value, when it decides what runs next."""
    graph = facts(judged_graph)
    types = {placed.name: placed.op for placed in facts.evidence.placement.ops} if facts.evidence.placement else {}
    op_type = graph.op(copy.dst).type if copy.dst in graph else types.get(copy.dst, "")
    return op_type if op_type in DECIDERS else ""


def _idle_after(facts: Facts, profile: Profile) -> Mapping[CopyEvent, int]:
    """Map the copies to the host after which a device had nothing to do to how long that lasted.

    Of several copies in one gap the last one counts; the gap after the last kernel of a step is the step's end.
    """
    # An instruction that waits for a copy was launched before: the host is not what the device waits for.
    running, windows = facts(device_running), facts(device_windows)
    found: dict[CopyEvent, int] = {}
    for device, events in _downloads(profile).items():
        if device in windows and device in running:
            found.update(_gaps(events, running[device], windows[device]))
    return found


def _downloads(profile: Profile) -> Mapping[int, list[CopyEvent]]:
    events: dict[int, list[CopyEvent]] = defaultdict(list)
    for event in profile.copies:
        if event.kind == "device-to-host":
            events[event.device].append(event)
    return events


def _gaps(events: Sequence[CopyEvent], running: Busy, windows: Windows) -> Iterator[tuple[CopyEvent, int]]:
    last_in_gap: dict[int, CopyEvent] = {}
    for event in sorted(events, key=lambda event: event.end_ns):
        resumes_ns, step = running.next_start_ns(event.end_ns), windows.around(event.end_ns)
        if resumes_ns is not None and step is not None and resumes_ns < step.end_ns:
            last_in_gap[resumes_ns] = event
    for resumes_ns, event in last_in_gap.items():
        if resumes_ns - event.end_ns >= GAP_NS:
            yield event, resumes_ns - event.end_ns
