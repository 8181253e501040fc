"""What `host-sync` says of a script that waits for values of tensors, with the script's own lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from graphlens.facts.copies.reads import Read, reads
from graphlens.facts.copies.syncs import GAP_NS
from graphlens.facts.core import Facts
from graphlens.facts.time.period import period
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.rules.registry import found
from graphlens.units import format_ns, format_share

_WRITTEN: Final = {
    "__array__": "numpy.array(tensor)",
    "__bool__": "bool(tensor)",
    "__complex__": "complex(tensor)",
    "__float__": "float(tensor)",
    "__format__": "a format with the tensor in it",
    "__index__": "an index that is a tensor",
    "__int__": "int(tensor)",
    "__repr__": "repr(tensor)",
    "__str__": "print(tensor)",
    "numpy": "tensor.numpy()",
}


def waiting_reads(facts: Facts, least_share: float) -> Iterator[Finding]:
    """Yield a finding for each line that waits for values; one that is there already is read in a few microseconds."""
    for read in facts(reads):
        if read.each_ns >= GAP_NS and read.share >= least_share:
            yield _finding(facts, read)


def _finding(facts: Facts, read: Read) -> Finding:
    between = facts(period)
    assert between is not None  # there are no reads without it
    written = _WRITTEN.get(read.how, read.how)
    times = "once" if round(read.per_step, 1) == 1 else f"{read.per_step:.1f} times"
    return found(
        title=f"Python waits {format_ns(read.step_ns)} each step for a value: {written}",
        nodes=(),
        evidence={
            "source": read.source,
            "how": read.how,
            "reads_per_step": read.per_step,
            "read_ns": read.each_ns,
            "gap_from_ns": GAP_NS,
            "share": read.share,
        },
        reason=f"{read.source} reads a tensor {times} a step and has its value after {format_ns(read.each_ns)}: "
        f"{format_share(read.share)} of the time from step to step, in which the next step is not called",
        saving=Saving(round(read.share * between.ns), read.share, "bound"),
        fix=Fix("Read the value every hundredth step, or sum it up in a variable and read that at the end", "manual"),
        floor="low",
    )
