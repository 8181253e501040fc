"""Rules about an accelerator that has nothing to do: it waits for the host, or for most of the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from graphlens.facts.clock.device_time import DeviceUse
from graphlens.facts.copies.device_facts import device_rows, device_uses
from graphlens.facts.copies.syncs import GAP_NS, Sync, syncs
from graphlens.facts.core import Facts
from graphlens.facts.flat.names import device_name
from graphlens.facts.graphs import judged_graph
from graphlens.facts.time.ledger import step_time
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.rules.copies.copies import COPIES_LISTED, device_of, reason_of, scope_of
from graphlens.rules.copies.reads import waiting_reads
from graphlens.rules.needs import DEVICE_STEPS, WAITS
from graphlens.rules.phrases import known_sum
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_ns, format_share

# Half of the step, as TensorFlow's own adviser (`tfprof`) and the PyTorch profiler have it: below, what the device does
# is not what the step waits for.
IDLE_SHARE: Final = 0.5

# Launching a kernel takes the host 4 to 10 us: shorter kernels end before the next one can be launched.
LAUNCH_NS: Final = 10_000

# Less of the step than a finding of severity `low` could save: so short a wait may as well be chance.
WAIT_SHARE: Final = 0.005

# A cause is named when it explains most of the idle time.
MOST: Final = 0.5


@rule("GL105", "host-sync", needs=(WAITS,))
def host_sync(facts: Facts) -> Iterator[Finding]:
    """Values that are read back within the step, so that the accelerator waits until the host has seen them.

    ## What it finds

    Copies to the host after which the device runs nothing for 20 us and more although the step goes on, where that adds
    up to a share of the step that counts; and predicates of loops and conditionals that the device computes and the
    host needs in order to go on.

    ## Why it costs

    The host launches kernels ahead of the device, which hides what launching takes. A value that it must see first
    stops that: the device runs dry, and the copy, the host's work and the next launch are all waited for.

    ## Example

    ```bad
    x    = _Arg() float32[256] @GPU:0
    a    = Relu(x) float32[256] 40us @GPU:0
    p    = Any(a) bool[] 5us @GPU:0
    p/_1 = _Send(p) 1us @GPU:0
    p/_2 = _HostRecv(p/_1) bool[] 12us @GPU:0
    more = LoopCond(p/_2) bool[] 50us
    late = Tanh(a, ^more) float32[256] 40us @GPU:0
    ```

    ```good
    x    = _Arg() float32[256] @GPU:0
    a    = Relu(x) float32[256] 40us @GPU:0
    late = Tanh(a) float32[256] 40us @GPU:0
    out  = _Retval(late)
    ```

    ## Fix

    Decide on the host with values that are there anyway: a loop over a Python integer or an int32 counter, which never
    leaves host memory. Replace a conditional on data by `tf.where`. Read losses and metrics every hundredth step
    instead of each one.

    ## When it is fine

    When the value is the result of the step, or decides about much more work than the wait is long.

    ## Source

    The device's own copies and kernels: the time from the end of a copy to the host to the next kernel of the same
    step. Reads are timed where Python calls the tensor's method; what NumPy takes from its buffer without
    (`np.asarray(loss)`, `np.mean(loss)`) is not seen. Predicates are found in the executed graph, or in the
    simulated placement, where the wait is not known.
    """
    yield from waiting_reads(facts, WAIT_SHARE)
    decisions = [sync for sync in facts(syncs) if sync.decides and sync.idle_ns is None]
    measured = [sync for sync in facts(syncs) if sync.idle_ns is not None]
    for group in _by_cause(facts, measured):
        if (_idle_saving(facts, _idle_ns(group)).share or 0.0) >= WAIT_SHARE:
            yield _sync(facts, group, f"{_device(group)} waits for the host {_times(group)} each step")
    for group in _by_cause(facts, decisions):
        of = "loop or conditional" if len(group) == 1 else "loops and conditionals"
        yield _sync(facts, group, f"the host reads {counted(len(group), 'predicate')} back to decide a {of}")


def _by_cause(facts: Facts, syncs: Sequence[Sync]) -> list[list[Sync]]:
    groups: dict[Any, list[Sync]] = {}
    for sync in syncs:
        groups.setdefault((sync.copy.origin, sync.decides, scope_of(facts, sync.copy)), []).append(sync)
    return list(groups.values())


def _device(group: Sequence[Sync]) -> str:
    return device_of(sync.copy for sync in group)


def _idle_ns(group: Sequence[Sync]) -> int | None:
    return known_sum(sync.idle_ns for sync in group)


def _times(group: Sequence[Sync]) -> str:
    waits = sum(sync.waits or 0.0 for sync in group)
    return "once" if round(waits, 1) == 1 else f"{waits:.1f} times"


def _sync(facts: Facts, group: Sequence[Sync], title: str) -> Finding:
    copies = [sync.copy for sync in group]
    idle_ns = _idle_ns(group)
    names = dict.fromkeys(name for copy in copies for name in (copy.src, copy.dst))
    graph = facts(judged_graph)
    return found(
        title=title[:1].upper() + title[1:] + (f" ({format_ns(idle_ns)} idle)" if idle_ns is not None else ""),
        nodes=[name for name in names if name in graph],
        evidence={
            "idle_ns": idle_ns,
            "gap_from_ns": GAP_NS,
            "origin": copies[0].origin,
            "read_back": [
                {
                    "tensor": sync.copy.src,
                    "read_by": sync.copy.dst,
                    "decides": sync.decides or None,
                    "waits_per_step": sync.waits,
                    "idle_ns": sync.idle_ns,
                    "bytes": sync.copy.bytes,
                }
                for sync in group[:COPIES_LISTED]
            ],
        },
        reason=_why(group),
        saving=_idle_saving(facts, idle_ns),
        fix=Fix(_advice(group), "manual"),
        floor="medium",
    )


def _why(group: Sequence[Sync]) -> str:
    if group[0].decides:
        return f"the host must see {group[0].copy.src} before it knows what to launch next ({group[0].decides})"
    return f"the host reads {group[0].copy.src or 'a value'} back and launches nothing meanwhile; " + reason_of(
        [sync.copy for sync in group]
    )


def _advice(group: Sequence[Sync]) -> str:
    if group[0].decides:
        return "Decide by an int32 counter or a Python value, which are on the host, or compute both ways with tf.where"
    return "Keep the value on the device until the end of the step, or read it less often"


def _idle_saving(facts: Facts, idle_ns: int | None, device_step_ns: int = 0) -> Saving:
    """Bound the saving by the idle time: some of it is the next launch, which remains.

    A device may mark longer steps than the program does: its idle time is a part of its own step then.
    """
    step = facts(step_time)
    if idle_ns is None or step is None:
        return Saving()
    share = min(1.0, idle_ns / max(step.profiled_median_ns or step.median_ns, device_step_ns))
    return Saving(round(share * step.median_ns), share, "bound")


@rule("GL106", "idle-accelerator", needs=(DEVICE_STEPS,))
def idle_accelerator(facts: Facts) -> Iterator[Finding]:
    """Accelerators that compute in less than half of the step, or not at all.

    ## What it finds

    Devices that run kernels for less than half of the time of their steps, and devices that run none while others of
    the same machine do.

    ## Why it costs

    The step takes as long as its slowest part, and that is not what the device computes: faster kernels, or a faster
    device, would gain next to nothing.

    ## Example

    ```bad
    x = _Arg() float32[64] @GPU:0
    a = Relu(x) float32[64] 10us @GPU:0
    b = Tanh(a) float32[64] 10us @GPU:0
    gap: 400us
    ```

    ```good
    x = _Arg() float32[4096] @GPU:0
    a = Relu(x) float32[4096] 300us @GPU:0
    b = Tanh(a) float32[4096] 300us @GPU:0
    gap: 20us
    ```

    ## Fix

    By what the idle time is spent on. Copies: see `host-device-copy`. Many kernels of a few microseconds: a larger
    batch, or `jit_compile=True`, which makes fewer of them. Neither: the host is busy with its input, with Python or
    with ops that run on it; the other findings name them.

    ## When it is fine

    When requests come one by one and latency is all that counts, or the device is shared.

    ## Source

    The kernels and copies that the devices report, within the steps that are marked. A device whose own program waits
    for a copy is not idle: `host-device-copy` tells of that. The saving is a bound: with the device always busy, the
    step would take as long as its kernels.
    """
    profile = facts.evidence.profile
    assert profile is not None  # `DEVICE_STEPS` is met by a profile alone
    for use in facts(device_uses):
        if use.running_share < IDLE_SHARE:
            yield _idle(facts, use, device_name(profile, use.device))
    working_hosts = {row.host for row in facts(device_rows) if row.kernels}
    beside = [(number, row) for number, row in enumerate(facts(device_rows)) if row.host in working_hosts]
    idle = [device_name(profile, number) for number, row in beside if not row.kernels]
    if idle:
        yield _unused(idle, len(beside))


def _idle(facts: Facts, use: DeviceUse, name: str) -> Finding:
    idle_ns = use.step_ns - use.busy_ns - use.waiting_ns
    return found(
        title=f"{name} computes in {format_share(use.busy_share)} of the step",
        nodes=(),
        evidence={
            "busy_share": use.busy_share,
            "step_ns": use.step_ns,
            "busy_ns": use.busy_ns,
            "only_copying_ns": use.copy_ns,
            "kernels_per_step": use.kernels,
            "median_kernel_ns": use.kernel_ns,
        },
        reason=_spent_on(use, idle_ns),
        saving=_idle_saving(facts, idle_ns, use.step_ns),
        fix=Fix(_what_to_do(use, idle_ns), "manual"),
        floor="low",
    )


def _is_copying(use: DeviceUse, idle_ns: int) -> bool:
    return use.copy_ns >= MOST * idle_ns


def _is_launch_bound(use: DeviceUse, idle_ns: int) -> bool:
    """Whether launching its kernels takes the host most of the idle time, and each is shorter than its launch."""
    return use.kernel_ns < LAUNCH_NS and use.kernels * LAUNCH_NS >= MOST * idle_ns


def _spent_on(use: DeviceUse, idle_ns: int) -> str:
    if _is_copying(use, idle_ns):
        return f"it copies for {format_ns(use.copy_ns)} of the {format_ns(idle_ns)} in which it does not compute"
    if _is_launch_bound(use, idle_ns):
        return (
            f"its {use.kernels:,.0f} kernels are over in {format_ns(use.kernel_ns)} each (median), before the host has "
            "launched the next one"
        )
    return (
        f"for {format_ns(idle_ns)} of the step there is no kernel to run: the host prepares the input, runs Python or "
        "ops of its own"
    )


def _what_to_do(use: DeviceUse, idle_ns: int) -> str:
    if _is_copying(use, idle_ns):
        return "Remove the copies, or let them overlap with kernels"
    if _is_launch_bound(use, idle_ns):
        return "Use a larger batch, or jit_compile=True, which makes fewer and longer kernels"
    return "Prepare the input ahead (Dataset.prefetch) and keep Python and host ops out of the step"


def _unused(names: Sequence[str], of: int) -> Finding:
    noun = counted(len(names), "accelerator")
    return found(
        title=f"{noun} of {of} ran no kernel",
        nodes=(),
        evidence={"devices": list(names), "of": of},
        reason="the profile lists them and shows no kernel on them while others of the same machine computed",
        fix=Fix(
            "Give them a share of the batch (tf.distribute.MirroredStrategy), or hide them from the program", "manual"
        ),
        floor="low",
    )
