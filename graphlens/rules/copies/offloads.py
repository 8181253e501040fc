"""What copies cost that a compiled program makes itself, because values are kept in host memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphlens.facts.clock.device_time import Busy
from graphlens.facts.clock.steps import length_ns
from graphlens.facts.copies.device_facts import device_windows
from graphlens.facts.copies.transfers import Transfer
from graphlens.facts.core import Facts
from graphlens.ir.devices import Copy
from graphlens.ir.run import CopyEvent
from graphlens.rules.copies.copies import exposed_by_device_ns, reason_of
from graphlens.units import format_byte_rate, format_bytes, format_ns, format_share


@dataclass(frozen=True, slots=True)
class Waits:
    """What the device that loses most time does in a step, in the mean: it waits, while so many bytes are copied.

    ``copying_ns`` is how long at least one of the copies lasts.
    """

    waiting_ns: int
    step_ns: int
    nbytes: int | None
    copying_ns: int

    @property
    def bytes_per_s(self) -> float | None:
        """What the link between host and device carried while anything was copied."""
        return self.nbytes / self.copying_ns * 1e9 if self.nbytes is not None and self.copying_ns else None

    @property
    def evidence(self) -> Mapping[str, Any]:
        """What a finding tells of it."""
        return {
            "bytes_per_device": self.nbytes,
            "waiting_ns": self.waiting_ns,
            "copying_ns": self.copying_ns,
            "link_bytes_per_s": self.bytes_per_s,
        }

    @property
    def words(self) -> str:
        """What it is in a clause."""
        share = format_share(self.waiting_ns / self.step_ns)
        rate = f" at {format_byte_rate(self.bytes_per_s)}" if self.bytes_per_s else ""
        return (
            f"the device waits for {format_ns(self.waiting_ns)} of a step of {format_ns(self.step_ns)} ({share}) while "
            f"{format_bytes(self.nbytes)} are copied{rate}"
        )


def waits_for(facts: Facts, group: Sequence[Transfer]) -> Waits | None:
    """Return what the device that waits longest for the copies loses; ``None`` where its steps are not known."""
    events = [event for transfer in group for event in transfer.events]
    waiting_ns = exposed_by_device_ns(facts, events)
    if not waiting_ns:
        return None
    device = max(waiting_ns, key=lambda number: waiting_ns[number])
    windows = facts(device_windows)[device]
    own = windows.inside(event for event in events if event.device == device)
    copying = Busy((event.start_ns, event.end_ns) for event in own)
    return Waits(
        waiting_ns=waiting_ns[device],
        step_ns=round(sum(map(length_ns, windows.spans)) / windows.steps),
        nbytes=_mean_bytes(own, windows.steps),
        copying_ns=round(sum(copying.within_ns(span.start_ns, span.end_ns) for span in windows.spans) / windows.steps),
    )


def _mean_bytes(events: Iterable[CopyEvent], steps: int) -> int | None:
    sizes = [event.nbytes for event in events]
    return None if None in sizes else round(sum(size or 0 for size in sizes) / steps)


def both_ways(copies: Sequence[Copy]) -> str:
    """Say for each direction why the copies happen."""
    ways = dict.fromkeys(copy.kind for copy in sorted(copies, key=lambda copy: copy.kind != "host-to-device"))
    return ", and ".join(reason_of([copy for copy in copies if copy.kind == kind]) for kind in ways)
