"""Rules about the memory that a step needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import executed_graph, judged_graph
from graphlens.facts.work import hardware
from graphlens.facts.work.memory import peak_memory
from graphlens.ir.analysis import Finding, Fix
from graphlens.ir.devices import LiveTensor, Memory
from graphlens.rules.needs import GRAPH, Need
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_bytes, format_share

# The estimate leaves out what kernels allocate for themselves and what the allocator loses between its blocks: a third
# more than what was requested has been seen.  From there on a slightly larger batch is likely to fail.
NEARLY_FULL: Final = 0.70
# A spike is twice as high as everything outside of a tenth of the step.
SPIKE_HEIGHT: Final = 0.5
SPIKE_WIDTH: Final = 0.10
# Below that a spike is no reason to change a model: no machine that runs TensorFlow is short of a quarter of a GiB.
SMALLEST_SPIKE_BYTES: Final = 256 << 20
MOST_UNSIZED: Final = 0.10  # ops of unknown output size, as a share of all; with more the estimate is none
TENSORS_LISTED: Final = 10


def _too_unknown(facts: Facts) -> str:
    if facts(executed_graph) is None and facts.evidence.profile is None:
        return "nothing was executed, and a peak depends on the order in which ops run"
    peak = facts(peak_memory)
    if peak is None:
        return "the sizes of too few tensors are known"
    return f"the sizes that {counted(peak.unknown, 'op')} make are not known"


SIZES = Need(
    "known tensor sizes",
    lambda facts: (peak := facts(peak_memory)) is not None and peak.unknown <= MOST_UNSIZED * len(facts(judged_graph)),
    _too_unknown,
)


@rule("GL601", "memory-peak", needs=(GRAPH, SIZES))
def memory_peak(facts: Facts) -> Iterator[Finding]:
    """A step whose tensors nearly fill the device's memory, or need twice as much for a moment as otherwise.

    ## What it finds

    Two things, from the estimated lives of all tensors: a peak that together with the weights takes 70 % and more of
    the memory of the device; and a peak of 256 MiB and more that is a spike, twice as high as the memory is in nine
    tenths of the step.

    ## Why it costs

    Memory decides which batch fits, and so the throughput, and how many models share a machine. A spike is paid for all
    the time although it is needed for a moment. It costs no time of the step by itself, so there is no saving to show.

    ## Example

    ```bad
    x = Placeholder() float32[64,1024]
    w = Const() float32[1024,2000000]
    a = MatMul(x, w) float32[64,2000000] 900us
    b = Softmax(a) float32[64,2000000] 900us
    c = Max(b) float32[64] 400us
    *40 d# = Tanh(c) float32[64] 5us
    ```

    ```good
    x = Placeholder() float32[64,1024]
    w = Const() float32[1024,20000]
    a = MatMul(x, w) float32[64,20000] 90us
    b = Softmax(a) float32[64,20000] 90us
    c = Max(b) float32[64] 40us
    *40 d# = Tanh(c) float32[64] 5us
    ```

    ## Fix

    Make the tensors at the peak in pieces (a loop over the batch, sampled or chunked softmax), let one fused kernel
    make and use them (attention), recompute them in the backward pass (`tf.recompute_grad`), or take a smaller batch.

    ## When it is fine

    Where the memory is there and nobody else needs it.

    ## Source

    An estimate from the shapes and the order in which the ops began: views share memory, elementwise ops work in place,
    what kernels allocate for themselves is left out. The memory of the device is that of the profile or the recording.
    """
    memory = facts(peak_memory)
    assert memory is not None  # its need is met
    device_bytes = hardware.memory_bytes(facts, memory.device)
    needed = memory.peak_bytes + (memory.weights_bytes or 0)
    if device_bytes is not None and needed >= NEARLY_FULL * device_bytes:
        yield _full_finding(memory, needed, device_bytes)
    elif memory.peak_bytes >= SMALLEST_SPIKE_BYTES and _width(memory) <= SPIKE_WIDTH:
        yield _spike_finding(memory, device_bytes)


def _width(memory: Memory) -> float:
    """Return the part of the step in which more than half of the peak is alive."""
    return sum(alive > SPIKE_HEIGHT * memory.peak_bytes for alive in memory.curve) / len(memory.curve)


def _full_finding(memory: Memory, needed: int, device_bytes: int) -> Finding:
    share = format_share(needed / device_bytes)
    return found(
        title=f"Tensors and weights need {format_bytes(needed)}, {share} of the memory of {_owner(memory)}",
        nodes=_responsible(memory),
        evidence=_evidence(memory, device_bytes),
        reason=f"at {memory.at_op} an estimated {format_bytes(memory.peak_bytes)} of tensors are alive beside "
        f"{format_bytes(memory.weights_bytes)} of weights",
        fix=_fix(),
        floor="medium",
    )


def _spike_finding(memory: Memory, device_bytes: int | None) -> Finding:
    ops = _responsible(memory)
    return found(
        title=f"For {format_share(_width(memory))} of its ops the step needs twice the memory of all others "
        f"({format_bytes(memory.peak_bytes)})",
        nodes=ops,
        evidence=_evidence(memory, device_bytes),
        reason=f"{counted(len(ops), 'tensor')} {'makes' if len(ops) == 1 else 'make'} up the peak at {memory.at_op}; "
        f"outside of it less than {format_bytes(round(SPIKE_HEIGHT * memory.peak_bytes))} are alive, by an estimate",
        fix=_fix(),
    )


def _owner(memory: Memory) -> str:
    return "this machine" if memory.device.startswith("CPU") else memory.device


def _responsible(memory: Memory) -> list[str]:
    """Return the ops whose tensors have to go for the peak to be half as high."""
    left, ops = memory.peak_bytes, []
    for tensor in memory.alive:
        if left <= SPIKE_HEIGHT * memory.peak_bytes:
            break
        left -= tensor.bytes
        ops.append(tensor.op)
    return list(dict.fromkeys(ops))


def _evidence(memory: Memory, device_bytes: int | None) -> dict[str, object]:
    return {
        "peak_bytes": memory.peak_bytes,
        "weights_bytes": memory.weights_bytes,
        "device_bytes": device_bytes,
        "at_op": memory.at_op,
        "origin": memory.origin,
        "tensors": _listed(memory.alive),
    }


def _listed(tensors: Sequence[LiveTensor]) -> list[dict[str, object]]:
    return [{"op": one.op, "tensor": one.tensor, "bytes": one.bytes} for one in tensors[:TENSORS_LISTED]]


def _fix() -> Fix:
    return Fix(
        "Make the largest tensors in pieces or in one fused kernel, recompute them, or take a smaller batch", "manual"
    )
