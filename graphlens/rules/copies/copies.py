"""What the rules about copies share: which ones count, how they are listed, and what they cost."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final

from graphlens.facts.clock.device_time import Busy, only_copying_ns
from graphlens.facts.copies.device_facts import device_busy, device_windows
from graphlens.facts.copies.transfers import Transfer, transfers
from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.facts.time.ledger import step_time
from graphlens.facts.time.savings import saving_without
from graphlens.facts.training.executed import layer_of_op
from graphlens.ir.analysis import Saving
from graphlens.ir.devices import Copy, short_device
from graphlens.ir.run import CopyEvent
from graphlens.rules.phrases import known_sum
from graphlens.units import format_bytes

COPIES_LISTED: Final = 20
DEVICES_NAMED: Final = 2
_NUMBER = re.compile(r"\d+")


def over_the_bus(facts: Facts) -> list[Transfer]:
    """Return the transfers between host and device memory within the step."""
    return [
        transfer
        for transfer in facts(transfers)
        if transfer.copy.kind in ("host-to-device", "device-to-host") and transfer.copy.calls_per_step != 0
    ]


def grouped(
    transfers: Iterable[Transfer], key: Callable[[Transfer], Hashable]
) -> Mapping[Hashable, Sequence[Transfer]]:
    """Group transfers by ``key``, in the order in which each key is met first."""
    groups: dict[Hashable, list[Transfer]] = defaultdict(list)
    for transfer in transfers:
        groups[key(transfer)].append(transfer)
    return groups


def scope_of(facts: Facts, copy: Copy) -> str:
    """Return the layer of the op that is at fault, numbers left out: repeated layers have one and the same cause."""
    return _NUMBER.sub("#", _layer(facts, copy))


def layers_of(facts: Facts, copies: Iterable[Copy]) -> str:
    """Name the layer that copies of one cause are in: of several that are alike, with ``#`` for their numbers."""
    layers = {_layer(facts, copy) for copy in copies}
    return next(iter(layers)) if len(layers) == 1 else _NUMBER.sub("#", next(iter(layers)))


def _layer(facts: Facts, copy: Copy) -> str:
    """Return the layer of an op, the scope of its name for one of which no graph knows."""
    name = copy.at_fault or copy.dst or copy.src
    return (layer_of_op(facts, name) if name in facts(judged_graph) else name.rpartition("/")[0]) or ""


def bytes_per_step(copies: Iterable[Copy]) -> int | None:
    """Return the bytes that ``copies`` move in one step; ``None`` where a size is not known."""
    total = 0.0
    for copy in copies:
        if copy.bytes is None:
            return None
        total += copy.bytes * (1.0 if copy.calls_per_step is None else copy.calls_per_step)
    return round(total)


def sized(copies: Iterable[Copy]) -> str:
    """Write the bytes of one step, as ``1.50 MiB``, or that a size is not known."""
    total = bytes_per_step(copies)
    return format_bytes(total) if total is not None else "of unknown size"


def listed(copies: Sequence[Copy]) -> list[dict[str, Any]]:
    """Return what a finding tells of each copy."""
    return [
        {
            "tensor": copy.src,
            "read_by": copy.dst,
            "direction": copy.kind,
            "bytes": copy.bytes,
            "per_step": copy.calls_per_step,
            "ns": copy.ns,
            "why": copy.detail,
        }
        for copy in copies[:COPIES_LISTED]
    ]


def of_one_device(copies: Sequence[Copy]) -> Sequence[Copy]:
    """Return the copies of one device where all devices copy the same tensors, else all of them.

    Copies that name no op at either end may be of any tensor.
    """
    if not all(copy.src or copy.dst for copy in copies):
        return copies
    devices: dict[str, list[Copy]] = defaultdict(list)
    for copy in copies:
        devices[_accelerator(copy)].append(copy)
    tensors = {frozenset((copy.kind, copy.src, copy.dst, copy.bytes) for copy in own) for own in devices.values()}
    first = next(iter(devices.values()), [])
    return first if len(tensors) == 1 and len(first) * len(devices) == len(copies) else copies


def _accelerator(copy: Copy) -> str:
    return copy.dst_device if copy.kind == "host-to-device" else copy.src_device


def device_of(copies: Iterable[Copy]) -> str:
    """Write the accelerators at one of the ends, as ``GPU:0 and GPU:1``."""
    names = sorted({short_device(_accelerator(copy)) for copy in copies} - {""})
    if len(names) > DEVICES_NAMED:
        return f"{len(names)} devices"
    return " and ".join(names) or "the device"


def reason_of(copies: Sequence[Copy]) -> str:
    """Say why copies of one cause happen, by the first of them that tells."""
    details = list(dict.fromkeys(copy.detail for copy in copies if copy.detail))
    if not details and any(copy.src or copy.dst for copy in copies):
        return "the profile names the ops, but not what they are, so the cause is not known"
    if not details:
        return "the profile names neither an op nor a tensor, so the cause is not known"
    more = f" (and {len(details) - 1} alike)" if len(details) > 1 else ""
    return f"because {details[0]}{more}"


def nodes_of(facts: Facts, transfers: Iterable[Transfer]) -> list[str]:
    """Return the ops of a finding: those at fault, both ends, and the send and receive ops between them."""
    transfers = list(transfers)
    at_fault = [transfer.copy.at_fault for transfer in transfers]
    ends = [name for transfer in transfers for name in (transfer.copy.src, *transfer.ops, transfer.copy.dst)]
    graph = facts(judged_graph)
    return [name for name in dict.fromkeys([*at_fault, *ends]) if name and name in graph]


def saving_of(facts: Facts, transfers: Sequence[Transfer]) -> Saving:
    """Model what a step saves without ``transfers``: the time of the copies during which the device did not compute.

    Copies of several devices run side by side, so the device that loses most counts.  Of a simulated placement it is
    the modelled time of the copies, and no share: the step ran somewhere else.
    """
    copies = [transfer.copy for transfer in transfers]
    if any(copy.origin == "modelled" for copy in copies):
        ns = known_sum(copy.ns for copy in copies)
        return Saving() if ns is None else Saving(ns, None, "modelled")
    events = [event for transfer in transfers for event in transfer.events]
    if not events:
        return saving_without(facts, (name for transfer in transfers for name in transfer.ops))
    exposed_ns = max(exposed_by_device_ns(facts, events).values(), default=None)
    step = facts(step_time)
    if step is None or exposed_ns is None:
        return Saving()
    share = min(1.0, exposed_ns / (step.profiled_median_ns or step.median_ns))
    return Saving(round(share * step.median_ns), share, "modelled")


def exposed_by_device_ns(facts: Facts, events: Iterable[CopyEvent]) -> Mapping[int, int]:
    """Return for how long of a step each device copied and did not compute, by its number."""
    by_device: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        by_device[event.device].append((event.start_ns, event.end_ns))
    windows, busy = facts(device_windows), facts(device_busy)
    return {
        device: only_copying_ns(busy.get(device, Busy(())), copies, windows[device].spans)
        for device, copies in by_device.items()
        if device in windows
    }
