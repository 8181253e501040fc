"""The work that a profile itself tells of the kernels on devices: operations and bytes of one execution, by op."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphlens.facts.core import Facts, fact
from graphlens.facts.names import kernel_name
from graphlens.ir.run import DeviceEvent, Instruction, Profile


@dataclass(frozen=True, slots=True)
class Work:
    """What one kernel of an op does, in the mean over its executions; ``None`` where the profile does not say."""

    flops: int | None = None
    nbytes: int | None = None


@fact
def kernel_work(facts: Facts) -> Mapping[str, Work]:
    """Op -> operations and bytes of one of its kernels, as the profile tells them."""
    return work_by_op(facts.evidence.profile or Profile())


@fact
def told_instructions(facts: Facts) -> Mapping[str, Instruction]:
    """Instruction of a compiled program -> what the profile tells of it."""
    profile = facts.evidence.profile
    return profile.instructions if profile else {}


def told_of(facts: Facts, name: str) -> Instruction:
    """Return what the profile tells of the instruction ``name`` of a compiled program; empty for any other op."""
    return facts(told_instructions).get(name) or Instruction()


def work_by_op(profile: Profile) -> Mapping[str, Work]:
    """Return the work of the kernels of each op; that of an instruction which starts or awaits a copy is the copy."""
    kernels: dict[str, list[DeviceEvent]] = defaultdict(list)
    for kernel in profile.kernels_on_device:
        if kernel.flops is not None or kernel.nbytes is not None:
            kernels[kernel_name(kernel)[0]].append(kernel)
    return {
        name: Work(_mean([event.flops for event in events]), _mean([event.nbytes for event in events]))
        for name, events in kernels.items()
    }


def _mean(amounts: Sequence[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return round(sum(known) / len(known)) if known else None
