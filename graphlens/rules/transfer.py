"""Rules about tensors that move between devices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.transfers import transfer_ops
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.devices import Copy
from graphlens.rules.needs import EXECUTED
from graphlens.rules.registry import found, rule
from graphlens.units import format_bytes

COPIES_LISTED: Final = 20


@rule("GL103", "device-device-copy", needs=(EXECUTED,))
def device_device_copy(facts: Facts) -> Iterator[Finding]:
    """Tensors that go from one device to another one of the same kind inside the step.

    ## What it finds

    Pairs of send and receive ops between two processors, or between two accelerators, one finding for each pair of
    devices. Copies between host and accelerator belong to `host-device-copy`.

    ## Why it costs

    The receiving device waits for the sending one, and nothing that needs the tensor can start before. Between
    accelerators the bytes cross a bus as well; between two logical devices of one processor the buffer is shared and
    only the hand-over remains.

    ## Example

    ```bad
    traced:
    x = Placeholder() float32[64,64]
    y = Relu(x) float32[64,64] @CPU:0
    z = Tanh(y) float32[64,64] @CPU:1
    executed:
    x = _Arg() float32[64,64] @CPU:0
    y = Relu(x) float32[64,64] 10us @CPU:0
    y/_1 = _Send(y) 2us @CPU:0
    y/_2 = _Recv(y/_1) float32[64,64] 40us @CPU:1
    z = Tanh(y/_2) float32[64,64] 10us @CPU:1
    ```

    ```good
    x = Placeholder() float32[64,64]
    y = Relu(x) float32[64,64] 10us
    z = Tanh(y) float32[64,64] 10us
    ```

    ## Fix

    Place the producer and its consumers on the same device: drop a `tf.device` or move its boundary to where the
    tensor is smallest.

    ## When it is fine

    When each device has enough work of its own to run beside the other one (model or pipeline parallelism).

    ## Source

    `_Send` and `_Recv` ops of the executed partitions. Bytes are the size of the producer's output; the time is that
    of the send plus the receiver's wait, which includes the work it waits for.
    """
    groups: dict[tuple[str, str], list[Copy]] = defaultdict(list)
    for copy in facts.copies:
        if _is_between_equals(copy):
            groups[copy.src_device, copy.dst_device].append(copy)
    for (src_device, dst_device), copies in groups.items():
        yield _finding(facts, _short(src_device), _short(dst_device), copies)


def _finding(facts: Facts, src: str, dst: str, copies: Sequence[Copy]) -> Finding:
    transfers = dict.fromkeys(op for copy in copies for op in transfer_ops(facts.graph, copy))
    sizes = [copy.bytes for copy in copies]
    total = sum(size for size in sizes if size is not None) if None not in sizes else None
    noun = "tensor goes" if len(copies) == 1 else "tensors go"
    return found(
        title=f"{len(copies)} {noun} from {src} to {dst} each step ({format_bytes(total)})",
        nodes=[*dict.fromkeys(copy.src for copy in copies), *transfers],
        evidence={
            "bytes": total,
            "copies": [
                {"tensor": copy.src, "read_by": copy.dst, "bytes": copy.bytes, "ns": copy.ns}
                for copy in copies[:COPIES_LISTED]
            ],
            "on_critical_path": any(copy.on_critical_path for copy in copies),
        },
        reason=_reason(copies, src, dst),
        saving=facts.saving(transfers),
        fix=Fix(
            "Place producer and consumer on one device",
            "exact",
            ({"edit": "place-ops", "ops": [copy.dst for copy in copies], "device": copies[0].src_device},),
            f'with tf.device("/{src}"):  # where the tensor is made\n    ...',
        ),
    )


def _reason(copies: Sequence[Copy], src: str, dst: str) -> str:
    known = sorted({copy.reason for copy in copies if copy.reason})
    if known == ["explicit device"]:
        return f"the program asks for {src} or {dst} by name (tf.device), so the tensors between them must cross"
    return "; ".join(known) or f"producers were placed on {src}, their consumers on {dst}; why is not recorded"


def _is_between_equals(copy: Copy) -> bool:
    """Both ends are processors, or both are accelerators."""
    kinds = [_short(device).partition(":")[0] for device in (copy.src_device, copy.dst_device)]
    return all(kinds) and (kinds[0] == "CPU") == (kinds[1] == "CPU") and copy.src_device != copy.dst_device


def _short(device: str) -> str:
    """Write a device as ``CPU:1``.

    >>> _short("/job:localhost/replica:0/task:0/device:CPU:1"), _short("/gpu:0")
    ('CPU:1', 'GPU:0')
    """
    last = device.rpartition("/")[2]
    return last.removeprefix("device:").upper()
