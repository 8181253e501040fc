"""What each op reached of what the machine can do at best: the ops under the measured roof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.executed import HLO_MODULE
from graphlens.facts.graphs import judged_graph
from graphlens.facts.time.attribution import attribution, timings
from graphlens.facts.time.ledger import step_time
from graphlens.facts.work import costs
from graphlens.facts.work.hardware import stated_roof
from graphlens.facts.work.kernel_work import Work, kernel_work
from graphlens.ir.devices import Roof, Roofline, RoofPoint, short_device
from graphlens.ir.graph import input_specs
from graphlens.ir.instructions import HOST_COPY
from graphlens.ir.nodes import Op
from graphlens.ir.ops import family
from graphlens.ir.run import OpTiming

_NS_PER_S: Final = 1e9
_OTHER_LIMITS: Final = frozenset({"collective", "copy", HOST_COPY, "input"})


@fact
def roofline(facts: Facts) -> Roofline | None:
    """Return the roof with all ops that can be compared with it, by falling time; ``None`` where none was measured.

    An op can be compared when its operations and bytes are known, when the profile timed it (the replay's times are
    inflated, an accelerator's op takes as long as its kernels, an instruction of XLA as long as its thunks), and when
    it ran on the roof's device in the roof's data type; an op that only moves data has no type.  A profile that was
    taken elsewhere is compared with no roof but the peaks that it states itself, and there with the work that it tells.
    """
    roof = facts.evidence.roof
    if roof is None or facts.evidence.profile_path is not None:
        return _stated(facts)
    points = (_point(facts, roof, name, timing) for name, timing in facts(attribution).timings.items())
    return Roofline(roof, tuple(sorted((point for point in points if point), key=lambda point: -point.ns)))


@fact
def roof_shares(facts: Facts) -> Mapping[str, float]:
    """Executed op -> what it reached of the roof; ops that cannot be compared with it are absent."""
    compared = facts(roofline)
    return {point.op: point.share for point in compared.points} if compared else {}


def _point(facts: Facts, roof: Roof, name: str, timing: OpTiming) -> RoofPoint | None:
    graph = facts(judged_graph)
    if name not in graph or timing.source == "replay":
        return None
    # What has kernels on a processor are instructions of XLA: else they are those of an accelerator.
    on_host = timing.source == "profile" or (HLO_MODULE in graph.op(name).attrs and not timing.device)
    if on_host != roof.device.startswith("CPU"):
        return None
    op, cost = graph.op(name), costs.cost_of(graph, name)
    if not cost.bytes or cost.flops is None or not is_under(roof, op.device):
        return None
    if cost.flops and _dtype(facts, op) != roof.dtype:
        return None
    ns = _own_ns(facts, timing)
    if not ns:
        return None
    flops, nbytes = (round(amount * timing.calls_per_step) for amount in (cost.flops, cost.bytes))
    return RoofPoint(name, op.type, flops, nbytes, ns, time_at_roof_ns(roof, flops, nbytes) / ns)


def _stated(facts: Facts) -> Roofline | None:
    roof = facts(stated_roof)
    if roof is None:
        return None
    points = (_told(facts, roof, name, work) for name, work in facts(kernel_work).items())
    return Roofline(roof, tuple(sorted((point for point in points if point), key=lambda point: -point.ns)))


def _told(facts: Facts, roof: Roof, name: str, work: Work) -> RoofPoint | None:
    """Return the point of an op whose work the profile tells, operations and bytes.

    A collective is bound by what lies between devices, of which no peak is stated.  What is faster than the memory
    kept its tensors on the chip, and is not compared with it.
    """
    timing, op_type = facts(timings).get(name), facts(attribution).op_types.get(name, "")
    if timing is None or not timing.self_ns or family(op_type) in _OTHER_LIMITS:
        return None
    if work.flops is None or not work.nbytes:
        return None
    flops, nbytes = (round(amount * timing.calls_per_step) for amount in (work.flops, work.nbytes))
    share = time_at_roof_ns(roof, flops, nbytes) / timing.self_ns
    return RoofPoint(name, op_type, flops, nbytes, timing.self_ns, share) if share <= 1 else None


def time_at_roof_ns(roof: Roof, flops: int, nbytes: int) -> float:
    """Return how long the work takes at the roof: its operations or its bytes, whichever takes longer.

    Work over this time is ``min(flops_per_s, intensity * bytes_per_s)``, with operations per byte as the intensity.

    >>> roof = Roof(flops_per_s=100e9, bytes_per_s=10e9)
    >>> time_at_roof_ns(roof, 1000, 10), time_at_roof_ns(roof, 0, 10)
    (10.0, 1.0)
    """
    return max(flops / roof.flops_per_s, nbytes / roof.bytes_per_s) * _NS_PER_S


def is_under(roof: Roof, device: str) -> bool:
    """Tell whether an op on ``device`` ran on what the roof was measured on.

    All logical processors of a host are one machine; accelerators are not alike.
    """
    own = short_device(device) or "CPU:0"  # an op that was not placed ran on the processor
    if roof.device.startswith("CPU"):
        return own.startswith("CPU")
    return own == roof.device


def _dtype(facts: Facts, op: Op) -> str | None:
    """Return the type in which an op computes: what its attribute says, else that of its first output or input."""
    declared = op.attrs.get("T")
    if declared:
        return str(declared)
    specs = [*op.outputs[:1], *input_specs(facts(judged_graph), op.name)[:1]]
    return next((spec.dtype for spec in specs if spec), None)


def _own_ns(facts: Facts, timing: OpTiming) -> int:
    """Return the time per step in which the machine was this op's alone.

    Ops that run beside each other share the processor: of an instant in which two ran, each had half of the machine.
    The smaller of this and the op's own median is taken, which favours the op.
    """
    step = facts(step_time)
    if step is None or timing.wall_share is None:
        return timing.self_ns
    return min(timing.self_ns, round(timing.wall_share * step.profiled_ns))
