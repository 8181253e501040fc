"""What a predicted placement leaves out, in words: what holds for all of them, and what this graph meets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from graphlens.facts.placement.arguments import fed_with
from graphlens.facts.placement.gpus import Gpu
from graphlens.facts.placement.kernels import CUDA, GPU
from graphlens.facts.placement.netlist import RESOURCE
from graphlens.facts.placement.prediction import Simulated
from graphlens.ir import stablehlo
from graphlens.ir.devices import Copy
from graphlens.ir.nodes import ARGUMENT, Op, TensorSpec
from graphlens.ir.ops import CONDITIONALS, FED, LOOPS, PLAIN_CALLS
from graphlens.units import counted, format_bytes, format_ns

ALWAYS: Final = (
    "several GPUs: everything is placed on one",
    "variables that the program puts on the host by name: all but int32 and string ones are taken to be on the GPU",
    "XLA: clusters are compiled and placed as a whole, and Keras compiles by itself where it sees a GPU",
    "Python that asks for the device: Keras takes cuDNN's recurrent ops where it sees a GPU, which is another graph",
    "copies inside kernels: Where, Unique, NonMaxSuppression, DynamicPartition and others read sizes back",
    "copies outside the step: inputs made from arrays (one each, before the step) and results that are read",
    "what the host waits for: times are those of the PCIe link at its best",
)
# Not lowered into the graph, so what is inside is neither placed nor copied here.
_OPAQUE: Final = CONDITIONALS | LOOPS | PLAIN_CALLS
NO_OPTIMIZER: Final = (
    "the graph optimizer did not run: constants that it folds and ops that it removes or adds are counted as written, "
    "and no changes were tried"
)
NOT_LOWERED: Final = (
    "the graph was not lowered: ops of all branches count as run, and what goes in and out of loops is not counted"
)
NOT_EXECUTED: Final = "nothing was executed: dynamic sizes and the number of iterations are not known"


def not_covered(simulated: Simulated, found: tuple[Copy, ...], lost: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return what the prediction leaves out; ``lost`` is what this run of it had to do without."""
    return (*lost, *_of_this_graph(simulated, found), *ALWAYS)


def _of_this_graph(simulated: Simulated, found: tuple[Copy, ...]) -> list[str]:
    ops = simulated.netlist.ops
    said = []
    opaque = [op.name for op in ops if op.type in _OPAQUE]
    if opaque:
        said.append(f"{len(opaque)} calls, loops or branches that TensorFlow does not inline ({opaque[0]})")
    if any(slot.is_ref for slots in simulated.netlist.inputs for slot in slots):
        said.append("reference variables of TensorFlow 1, beyond keeping their users with them")
    unknown = sorted({op.type for op in ops if not simulated.kernels.knows(op)})
    if unknown:
        version = simulated.kernels.version
        said.append(
            f"ops that TensorFlow {version} does not have ({', '.join(unknown)}): they are taken to be on the host"
        )
    refusing = [op for op in ops if op.type == stablehlo.MODULE_OP and stablehlo.refuses(op.attrs, CUDA)]
    if refusing:
        platforms = "/".join(refusing[0].attrs["platforms"])
        said.append(
            f"{counted(len(refusing), 'op')} ({refusing[0].name}) with a StableHLO program for {platforms} alone: "
            "taken to be on the host, but TensorFlow would place it on the GPU, where it refuses to run; export it "
            "with native_serialization_platforms=('cpu', 'cuda')"
        )
    unsized = sum(copy.bytes is None and copy.kind in ("host-to-device", "device-to-host") for copy in found)
    if unsized:
        said.append(f"sizes of {unsized} copies, which are not known")
    return said


def assumed(simulated: Simulated, inputs: Sequence[TensorSpec], gpu: Gpu) -> tuple[str, ...]:
    """Return what a prediction takes for granted of this graph: that its inputs are on the GPU when a step starts.

    TensorFlow places an argument where its tensor is.  One that the program hands over as an array is copied first.
    """
    fed = [op for op in _fed(simulated, inputs) if simulated.devices[op.name] == GPU]
    if not fed:
        return ()
    sizes = [op.outputs[0].nbytes if op.outputs else None for op in fed]
    known = [size for size in sizes if size is not None]
    cost = f", {format_bytes(sum(known))} and {format_ns(sum(map(gpu.copy_ns, known)))}" if None not in sizes else ""
    names = fed[0].name if len(fed) == 1 else f"{fed[0].name} and {len(fed) - 1} more"
    are = "is" if len(fed) == 1 else "are"
    return (
        f"{counted(len(fed), 'input')} ({names}) {are} taken to be on the device when the step starts; handed over as "
        f"{'an array' if len(fed) == 1 else 'arrays'}, {counted(len(fed), 'copy')} more a step{cost}",
    )


def _fed(simulated: Simulated, inputs: Sequence[TensorSpec]) -> list[Op]:
    """Return the arguments that the caller feeds: those that are no variable's, and come before what is captured."""
    ops = simulated.netlist.ops
    callers = fed_with(ops, inputs)
    return [
        op
        for op in ops
        if op.type in FED and (op.attrs.get("T") or op.attrs.get("dtype")) != RESOURCE
        if op.type != ARGUMENT or op.name in callers
    ]
