"""Rules about tensors that go between host and accelerator, and inputs that come from the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from graphlens.facts.copies.memcpy_causes import OFFLOADED
from graphlens.facts.copies.transfers import Transfer
from graphlens.facts.core import Facts
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.devices import Copy, CopyReason
from graphlens.rules.copies.copies import (
    bytes_per_step,
    device_of,
    grouped,
    layers_of,
    listed,
    nodes_of,
    of_one_device,
    over_the_bus,
    reason_of,
    saving_of,
    scope_of,
    sized,
)
from graphlens.rules.copies.copy_fixes import fix_for, simulated_changes
from graphlens.rules.copies.offloads import both_ways, waits_for
from graphlens.rules.needs import ACCELERATOR
from graphlens.rules.registry import found, rule
from graphlens.units import counted

# A copy takes about 10 us however small it is, and a PCIe bus of the third generation moves 12 GB/s: up to this size
# the bytes are not what costs.
FEW_BYTES: Final = 128 << 10
# Less of the step than a finding of severity `low` could save.
FEED_SHARE: Final = 0.005

# Copies with these reasons are the subject of rules of their own.
_OTHER_RULES: Final = frozenset({"feed", "no kernel for this device and dtype"})


@rule("GL101", "host-device-copy", needs=(ACCELERATOR,))
def host_device_copy(facts: Facts) -> Iterator[Finding]:
    """Tensors that go between host and accelerator memory inside the step, grouped by their cause.

    ## What it finds

    Copies from the host to the device and back within the step, one finding for each cause in each kind of layer:
    arguments that a kernel keeps in host memory, shape arithmetic, tables and strings, Python, an explicit device. A
    copy whose cause is not known is named as such. Of a program that XLA compiled for a TPU: the arguments and results
    that it was told to keep in host memory, with the op and the line that use them. Inputs belong to `host-fed-input`,
    ops without a kernel to `cpu-fallback`. With `--assume-device` the copies are those of a simulated placement.

    ## Why it costs

    Each copy takes about ten microseconds however small it is, and the device waits for it unless other kernels can
    run meanwhile. A copy to the host in the middle of a step stops the launching of kernels as well.

    ## Example

    ```bad
    x     = _Arg() float32[?,128] @GPU:0
    h     = Relu(x) float32[32,128] 20us @GPU:0
    n     = Shape(h) int32[2] 1us @GPU:0
    n/_1  = _HostSend(n) 1us @GPU:0
    n/_2  = _Recv(n/_1) int32[2] 12us @GPU:0
    g     = GatherV2(n/_2) int32[1] 2us @GPU:0
    g/_3  = _Send(g) 1us @GPU:0
    g/_4  = _HostRecv(g/_3) int32[1] 12us @GPU:0
    shape = Pack(g/_4) int32[1] 1us @GPU:0
    y     = Reshape(h, shape) float32[4096] 1us @GPU:0
    ```

    ```good
    x     = _Arg() float32[32,128] @GPU:0
    h     = Relu(x) float32[32,128] 20us @GPU:0
    shape = Const() int32[1] = 4096
    y     = Reshape(h, shape) float32[4096] 1us @GPU:0
    ```

    ## Fix

    By cause. Shape arithmetic: give the batch and other sizes fixed values, so that shapes are constants. Arguments in
    host memory: keep index tensors int64, which stay on the device, or let Grappler pin small integer ops to the host
    (`pin_to_host_optimization`). Tables, strings and Python: move them out of the model into the input pipeline. An
    explicit device: drop the `tf.device`. Arrays kept in host memory: keep on the device what fits there, or give it
    more to compute for each byte that is copied.

    ## When it is fine

    When the device computes during the copy (see the overlap of each copy), or when the host needs the value.

    ## Source

    Pairs of `_Send` and `_Recv` of the executed partitions, the device's own memcpy events, and the instructions of XLA
    that start and await a copy, with the memory that their layouts name; the reason follows from TensorFlow's kernel
    registry and from the program's own device requests. The saving is the time of the copies during
    which the device did not compute; of a simulated placement, the modelled time of the copies.
    """
    transfers = [item for item in over_the_bus(facts) if item.copy.reason not in _OTHER_RULES]
    for group in grouped(transfers, lambda item: _cause(facts, item.copy)).values():
        yield _copies_of_one_cause(facts, group)


def _cause(facts: Facts, copy: Copy) -> tuple[str, CopyReason | None, str]:
    return copy.origin, copy.reason, scope_of(facts, copy)


def _copies_of_one_cause(facts: Facts, group: Sequence[Transfer]) -> Finding:
    copies = [item.copy for item in group]
    waits = waits_for(facts, group) if copies[0].reason == OFFLOADED else None
    return found(
        title=_title(facts, copies),
        nodes=nodes_of(facts, group),
        evidence={
            "bytes_per_step": bytes_per_step(copies),
            "reason": copies[0].reason,
            "origin": copies[0].origin,
            "copies": listed(of_one_device(copies)),
            "on_critical_path": any(copy.on_critical_path for copy in copies),
            **simulated_changes(facts, copies),
            **(waits.evidence if waits else {}),
        },
        reason=f"{both_ways(copies)}; {waits.words}" if waits else reason_of(copies),
        saving=saving_of(facts, group),
        fix=fix_for(facts, copies),
        floor="low",
    )


def _title(facts: Facts, copies: Sequence[Copy]) -> str:
    own = of_one_device(copies)
    several = len(copies) > len(own)
    device = f"each of {len(copies) // len(own)} devices" if several else device_of(copies)
    devices = f"host and {device}"
    many = len({copy.kind for copy in copies}) > 1
    way = "between" if many else "from host to" if copies[0].kind == "host-to-device" else "from"
    if not many:
        devices = device + (" to the host" if copies[0].kind == "device-to-host" else "")
    where = layers_of(facts, copies)
    verb = "would go" if copies[0].origin == "modelled" else "goes" if len(own) == 1 else "go"
    cause = _CAUSES[copies[0].reason] + (f" in {where}" if where else "")
    size = sized(own) + (" each" if several else "")
    return f"{counted(len(own), 'tensor')} {verb} {way} {devices} each step ({size}): {cause}"


_CAUSES: Final[Mapping[CopyReason | None, str]] = {
    "int32/host-memory argument": "arguments in host memory",
    "shape arithmetic": "shape arithmetic",
    "explicit device": "a device asked for by name",
    "string/resource op": "strings and tables",
    "Python op": "Python",
    "constant on the host": "constants on the host",
    "fetch": "results for the caller",
    "cross-replica": "replicas on different devices",
    "kept in host memory": "kept in host memory",
    None: "cause unknown",
}


@rule("GL104", "host-fed-input", needs=(ACCELERATOR,))
def host_fed_input(facts: Facts) -> Iterator[Finding]:
    """Inputs that are copied from the host to the accelerator at the beginning of each step.

    ## What it finds

    Arguments and batches of an iterator that lie in host memory when the step begins, of 128 KiB and more or of a
    share of the step that counts.

    ## Why it costs

    The device has nothing to do until its input is there. Copied ahead, during the step before, it costs nothing.

    ## Example

    ```bad
    image    = _Arg() float32[32,224,224,3]
    image/_1 = _Send(image) 2us
    image/_2 = _Recv(image/_1) float32[32,224,224,3] 1600us @GPU:0
    y        = Relu(image/_2) float32[32,224,224,3] 900us @GPU:0
    ```

    ```good
    image = _Arg() float32[32,224,224,3] @GPU:0
    y     = Relu(image) float32[32,224,224,3] 900us @GPU:0
    ```

    ## Fix

    Let the input pipeline copy ahead (`tf.data.experimental.prefetch_to_device`, or `Dataset.prefetch` under a
    distribution strategy), and send small types: `uint8` images, cast to float on the device, are a quarter of the
    bytes.

    ## When it is fine

    When each call answers to a request that has just arrived, or the device computes during the copy.

    ## Source

    Copies from the host whose producer is an argument, a placeholder or an iterator, with the bytes of the tensor and
    the time that the device reports, less what its kernels cover.
    """
    fed = [item for item in over_the_bus(facts) if item.copy.reason == "feed" and item.copy.kind == "host-to-device"]
    for group in grouped(fed, lambda item: (item.copy.origin, item.copy.dst_device)).values():
        copies = [item.copy for item in group]
        saving = saving_of(facts, group)
        total = bytes_per_step(copies)
        if (total or 0) < FEW_BYTES and (saving.share or 0.0) < FEED_SHARE:
            continue
        verb = "would be copied" if copies[0].origin == "modelled" else "is copied" if len(group) == 1 else "are copied"
        yield found(
            title=f"{counted(len(group), 'input')} {verb} from the host to {device_of(copies)} each step "
            f"({sized(copies)})",
            nodes=nodes_of(facts, group),
            evidence={"bytes_per_step": total, "origin": copies[0].origin, "copies": listed(copies)},
            reason=reason_of(copies),
            saving=saving,
            fix=Fix(
                "Let the input pipeline copy ahead to the device, and send small types",
                "manual",
                (),
                'dataset = dataset.apply(tf.data.experimental.prefetch_to_device("/GPU:0"))  # the last step of it',
            ),
            floor="low",
        )
