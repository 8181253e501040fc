"""Rules about tensors that move between devices."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from graphlens.facts.copies.transfers import Transfer, transfers
from graphlens.facts.core import Facts
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.devices import Copy
from graphlens.ir.edits import Ops, PlaceOps
from graphlens.rules.copies.copies import COPIES_LISTED, grouped, saving_of
from graphlens.rules.needs import EXECUTED
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_bytes


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
    between = [transfer for transfer in facts(transfers) if _is_between_equals(transfer.copy)]
    for group in grouped(between, lambda item: (item.copy.src_device, item.copy.dst_device)).values():
        yield _finding(facts, group)


def _finding(facts: Facts, group: Sequence[Transfer]) -> Finding:
    copies = [transfer.copy for transfer in group]
    src, dst = _short(copies[0].src_device), _short(copies[0].dst_device)
    transfers = [op for transfer in group for op in transfer.ops]
    return found(
        title=_title(copies, src, dst),
        nodes=[*dict.fromkeys(copy.src for copy in copies), *transfers],
        evidence={
            "bytes": _total(copies),
            "copies": [
                {"tensor": copy.src, "read_by": copy.dst, "bytes": copy.bytes, "ns": copy.ns}
                for copy in copies[:COPIES_LISTED]
            ],
            "on_critical_path": any(copy.on_critical_path for copy in copies),
        },
        reason=_reason(copies, src, dst),
        saving=saving_of(facts, group),
        fix=Fix(
            "Place producer and consumer on one device",
            "exact",
            (PlaceOps(Ops(tuple(copy.dst for copy in copies)), device=copies[0].src_device),),
            # A device's name is text from a file: quoted, it stays a name in the code that is shown.
            f"with tf.device({json.dumps('/' + src)}):  # where the tensor is made\n    ...",
        ),
    )


def _title(copies: Sequence[Copy], src: str, dst: str) -> str:
    """Name the tensors; where there is none, the devices only wait for each other."""
    tensors = [copy for copy in copies if copy.kind != "control"]
    if not tensors:
        return f"{dst} waits for {counted(len(copies), 'op')} on {src} each step"
    noun = "tensor goes" if len(tensors) == 1 else "tensors go"
    return f"{len(tensors)} {noun} from {src} to {dst} each step ({format_bytes(_total(tensors))})"


def _total(copies: Sequence[Copy]) -> int | None:
    sizes = [copy.bytes for copy in copies]
    return sum(size for size in sizes if size is not None) if None not in sizes else None


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
