"""Rules about ops that run on the host although the step runs on an accelerator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from graphlens.facts.copies.transfers import Transfer
from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.facts.time.attribution import timings
from graphlens.facts.time.ledger import step_time
from graphlens.facts.time.savings import saving_without
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.ops import runtime_type
from graphlens.rules.copies.copies import (
    bytes_per_step,
    device_of,
    grouped,
    listed,
    nodes_of,
    over_the_bus,
    reason_of,
    saving_of,
    sized,
)
from graphlens.rules.needs import ACCELERATOR
from graphlens.rules.registry import found, rule
from graphlens.units import counted

OPS_LISTED: Final = 20
NO_KERNEL: Final = "no kernel for this device and dtype"


@rule("GL102", "cpu-fallback", needs=(ACCELERATOR,))
def cpu_fallback(facts: Facts) -> Iterator[Finding]:
    """Ops that run on the host in the middle of a step on an accelerator, because it has no kernel for them.

    ## What it finds

    Ops next to ops of the accelerator that TensorFlow has no kernel for there, for their type or for their data types,
    one finding for each type of op. It names what there is a kernel for. With `--assume-device` they are those of a
    simulated placement.

    ## Why it costs

    Their inputs are copied to the host and their results back, the device waits meanwhile, and the op itself runs on
    the slower processor.

    ## Example

    ```bad
    x     = _Arg() float32[1,64,1,4] @GPU:0
    a     = Relu(x) float32[1,64,1,4] 10us @GPU:0
    a/_1  = _Send(a) 1us @GPU:0
    a/_2  = _Recv(a/_1) float32[1,64,1,4] 15us
    best  = CombinedNonMaxSuppression(a/_2) float32[1,16,4] 200us
    b/_3  = _Send(best) 1us
    b/_4  = _Recv(b/_3) float32[1,16,4] 15us @GPU:0
    y     = Tanh(b/_4) float32[1,16,4] 10us @GPU:0
    ```

    ```good
    x     = _Arg() float32[1,64,1,4] @GPU:0
    a     = Relu(x) float32[1,64,1,4] 10us @GPU:0
    best  = NonMaxSuppressionV3(a) int32[16] 20us @GPU:0
    y     = GatherV2(a, best) float32[1,16,4] 10us @GPU:0
    ```

    ## Fix

    Use a data type that has a kernel, or write the op in terms of ops that have one. Where there is neither, move it to
    the beginning or the end of the step, so that the device waits once, or into the input pipeline.

    ## When it is fine

    When the op works on few bytes at the end of the step, and the caller reads the result on the host anyway.

    ## Source

    TensorFlow's kernel registry for the version that ran, and the device of the executed op. The saving is a bound: the
    host's time for these ops and the copies around them; what a kernel on the device would take is not known.
    """
    without = [item for item in over_the_bus(facts) if item.copy.reason == NO_KERNEL]
    for group in grouped(without, lambda item: (item.copy.origin, _type(facts, item))).values():
        yield _finding(facts, group)


def _finding(facts: Facts, group: Sequence[Transfer]) -> Finding:
    copies = [item.copy for item in group]
    ops = list(dict.fromkeys(copy.at_fault for copy in copies if copy.at_fault))
    runs = "would run" if copies[0].origin == "modelled" else "runs" if len(ops) == 1 else "run"
    what = f"{_type(facts, group[0])} {runs}" if len(ops) == 1 else f"{len(ops)} {_type(facts, group[0])} {runs}"
    return found(
        title=f"{what} on the host: {device_of(copies)} has no kernel for it, so {counted(len(copies), 'tensor')} "
        f"({sized(copies)}) {'crosses' if len(copies) == 1 else 'cross'} each step",
        nodes=nodes_of(facts, group),
        evidence={
            "ops": ops[:OPS_LISTED],
            "host_ns": _host_ns(facts, ops),
            "bytes_per_step": bytes_per_step(copies),
            "origin": copies[0].origin,
            "copies": listed(copies),
        },
        reason=reason_of(copies),
        saving=_saving(facts, ops, group),
        fix=Fix(
            "Use a data type or an op that has a kernel on the device, or move it to an end of the step",
            "manual",
        ),
        floor="medium",
    )


def _type(facts: Facts, item: Transfer) -> str:
    """Return the type of the op at fault: of a placement that is only simulated, as the placement says it."""
    name = item.copy.at_fault or ""
    graph = facts(judged_graph)
    if name in graph:
        return runtime_type(graph.op(name).type)
    return _simulated_types(facts).get(name, name or "an op")


def _simulated_types(facts: Facts) -> Mapping[str, str]:
    placement = facts.evidence.placement
    return {placed.name: placed.op for placed in placement.ops} if placement else {}


def _host_ns(facts: Facts, ops: Sequence[str]) -> int | None:
    times = facts(timings)
    seen = [timing.self_ns for name in ops if (timing := times.get(name))]
    return sum(seen) if seen else None


def _saving(facts: Facts, ops: Sequence[str], group: Sequence[Transfer]) -> Saving:
    """Bound the saving by the host's own time for the ops and the copies around them."""
    copied = saving_of(facts, group)
    step = facts(step_time)
    if copied.share is None or step is None:
        return copied
    graph = facts(judged_graph)
    on_host = saving_without(facts, (name for name in ops if name in graph))
    share = min(1.0, copied.share + (on_host.share or 0.0))
    return Saving(round(share * step.median_ns), share, "bound")
