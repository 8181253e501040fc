"""The work that a profile itself tells of the kernels on devices: operations and bytes of one execution, by op."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.names import kernel_name
from graphlens.ir.run import Instruction, Kernel


@dataclass(frozen=True, slots=True)
class Work:
    """What one kernel of an op does, in the mean over its executions; ``None`` where the profile does not say."""

    flops: int | None = None
    nbytes: int | None = None


class AlikeKernels(NamedTuple):
    """The kernels of a device that differ by nothing but time: what they share, how many, and how long in all."""

    kernel: Kernel
    device: int
    times: int
    ns: int


@fact
def alike_kernels(facts: Facts) -> tuple[AlikeKernels, ...]:
    """The kernels on devices of the whole profile: there may be a million, of which few differ."""
    profile = facts.evidence.profile
    if profile is None or not profile.kernels_on_device:
        return ()
    from graphlens.ir.columns import DeviceEvents  # needs numpy, which graphs alone do not

    return tuple(AlikeKernels(*one) for one in DeviceEvents.of(profile.kernels_on_device).totals())


@fact
def kernel_work(facts: Facts) -> Mapping[str, Work]:
    """Op -> operations and bytes of one of its kernels, as the profile tells them."""
    return _by_op(facts(alike_kernels))


@fact
def told_instructions(facts: Facts) -> Mapping[str, Instruction]:
    """Instruction of a compiled program -> what the profile tells of it."""
    profile = facts.evidence.profile
    return profile.instructions if profile else {}


def told_of(facts: Facts, name: str) -> Instruction:
    """Return what the profile tells of the instruction ``name`` of a compiled program; empty for any other op."""
    return facts(told_instructions).get(name) or Instruction()


def _by_op(alike: Iterable[AlikeKernels]) -> Mapping[str, Work]:
    """Return the work of the kernels of each op; that of an instruction which starts or awaits a copy is the copy."""
    found: dict[str, list[AlikeKernels]] = defaultdict(list)
    for one in alike:
        if one.kernel.flops is not None or one.kernel.nbytes is not None:
            found[kernel_name(one.kernel)[0]].append(one)
    return {name: _work(group) for name, group in found.items()}


def _work(group: Sequence[AlikeKernels]) -> Work:
    flops = _mean((one.times, one.kernel.flops) for one in group)
    return Work(flops, _mean((one.times, one.kernel.nbytes) for one in group))


def _mean(amounts: Iterable[tuple[int, int | None]]) -> int | None:
    known = [(times, amount) for times, amount in amounts if amount is not None]
    total = sum(times * amount for times, amount in known)
    return round(total / sum(times for times, _ in known)) if known else None
