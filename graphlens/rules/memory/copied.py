"""Rules about variables that are copied when they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from graphlens.facts.core import Facts
from graphlens.facts.patterns.copied_reads import CopiedRead, copied_reads
from graphlens.facts.time.savings import saving_without
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.rules.needs import GRAPH, PROFILE
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_byte_rate, format_bytes, format_ns

_NS_PER_S: Final = 1e9
_UNDO: Final = "tf.raw_ops.DisableCopyOnRead(resource=table.handle)  # as tf.train.Checkpoint(table=table).save does"
_LOOK_UP: Final = "rows = tf.gather(table, ids)  # of the tf.Variable itself, not of its value"


@rule("GL604", "copied-read", needs=(GRAPH, PROFILE))
def copied_read(facts: Facts) -> Iterator[Finding]:
    """Variables that are copied at each whole read, since rows of them were gathered or scattered once.

    ## What it finds

    Variables of 1 MiB and more that a step reads as a whole, where the read took the time of a copy (20 us at least,
    instead of the few that handing on a buffer takes), and of which rows were read or written by their numbers before:
    by the step itself, by another function of the script that was watched, or eagerly.

    ## Why it costs

    A read of a whole variable hands on its buffer, whatever its size. The first `ResourceGather` or `ResourceScatter*`
    on a variable switches it to copying for good, as rows may change while somebody holds the buffer: from then on each
    whole read allocates and copies all of it. Keras' `Embedding` reads the whole table to look up a few rows, and SGD,
    RMSprop, Adagrad, Adadelta and Adafactor scatter into tables (Adam, AdamW, Lion, Nadam and Ftrl do not): a table of
    51 MB made a `predict` of 1.2 ms one of 70 ms after it was trained. Neither `assign` nor saving and loading weights
    undoes it; `tf.train.Checkpoint.save` does, until rows are gathered or scattered again.

    ## Example

    ```bad
    ids   = Placeholder() int64[320]
    axis  = Const() int32[] = 0
    whole = ReadVariableOp(table) float32[100000,64] 1200us
    rows  = GatherV2(whole, ids, axis) float32[320,64] 50us
    put   = ResourceScatterSub(table, ids, rows) 80us
    ```

    ```good
    ids   = Placeholder() int64[320]
    rows  = ResourceGather(table, ids) float32[320,64] 50us
    put   = ResourceScatterSub(table, ids, rows) 80us
    ```

    ## Fix

    Where a few rows are needed, look them up in the variable itself: `tf.gather(variable, ids)` reads them alone, and
    `tf.gather(variable.read_value(), ids)` the whole. Where the whole variable is needed after training, undo it once:
    `tf.raw_ops.DisableCopyOnRead(resource=variable.handle)`, which is what `tf.train.Checkpoint.save` does. Both give
    the same numbers.

    ## When it is fine

    When the copy is small beside the step, or is what keeps a reader's values apart from a writer's.

    ## Source

    `EnsureSparseVariableAccess` of TensorFlow's `resource_variable_ops.cc`. The watch of a script notes of which
    variables rows are accessed; the graph shows those of the step itself; the time of the read is measured. The saving
    is a bound: what is read in place may cost the readers some time.
    """
    for copied in facts(copied_reads):
        yield _finding(facts, copied)


def _finding(facts: Facts, copied: CopiedRead) -> Finding:
    saving = saving_without(facts, copied.reads)
    reads = counted(len(copied.reads), "whole read")
    return found(
        title=f"{copied.variable.name} ({format_bytes(copied.nbytes)}) is copied at {reads} in each step",
        nodes=copied.reads,
        evidence=_evidence(copied),
        reason=_why(copied),
        saving=_at_most(saving, copied.self_ns),
        fix=_fix(copied),
    )


def _at_most(saving: Saving, ns: int) -> Saving:
    """Return the saving as a bound: no more than what the reads take in the median of the steps."""
    if saving.ns is None or saving.share is None or not saving.ns:
        return saving
    part = min(1.0, ns / saving.ns)
    return Saving(round(saving.ns * part), saving.share * part, "bound")


def _evidence(copied: CopiedRead) -> dict[str, Any]:
    return {
        "variable": copied.variable.name,
        "shape": list(copied.variable.spec.shape or ()),
        "bytes": copied.nbytes,
        "reads": list(copied.reads),
        "reads_ns": copied.self_ns,
        "bytes_per_s": round(_rate(copied)),
        "accessed_by": copied.accessed_by,
        "accessed_in": copied.accessed_in or None,
        "accessed_in_the_step": copied.is_accessed_here,
        "only_rows_needed": copied.only_rows_needed,
    }


def _rate(copied: CopiedRead) -> float:
    return copied.nbytes * len(copied.reads) / copied.self_ns * _NS_PER_S


def _why(copied: CopiedRead) -> str:
    where = f"in {copied.accessed_in}" if copied.accessed_in else "eagerly"
    when = "in each step" if copied.is_accessed_here else f"{where}, before this step"
    return (
        f"{copied.accessed_by} accessed rows of it {when}, and TensorFlow copies such a variable whenever it is read "
        f"as a whole: {format_ns(copied.self_ns)} at {format_byte_rate(_rate(copied))}, where handing on its buffer "
        "takes a few microseconds"
    )


def _fix(copied: CopiedRead) -> Fix:
    if copied.only_rows_needed:
        summary = "Look rows up in the variable itself (tf.gather(variable, ids)), which reads no others"
        undo = (
            "" if copied.is_accessed_here else "; or undo it once after training (DisableCopyOnRead, Checkpoint.save)"
        )
        return Fix(summary + undo, "manual", (), _LOOK_UP if copied.is_accessed_here else _UNDO)
    if copied.is_accessed_here:
        return Fix("Use rows of the variable instead of all of it, or keep what is read whole in another one", "manual")
    return Fix("Undo it once after training: DisableCopyOnRead, as Checkpoint.save does", "manual", (), _UNDO)
