"""Rules about embedding tables: what passes over all rows of a variable of which a step needs a few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_graph
from graphlens.facts.patterns.tables import DenseTable, dense_tables
from graphlens.facts.time.attribution import timings
from graphlens.facts.time.savings import saving_without
from graphlens.ir.analysis import Finding, Fix, Saving
from graphlens.ir.edits import ScriptSetting
from graphlens.rules.needs import EXECUTED, PROFILE
from graphlens.rules.registry import found, rule
from graphlens.units import counted, format_bytes, format_count, format_ns, format_share

# Of more rows than this share, updating them one by one is no faster than passing over all: rows are read and written
# in any order, and each pass streams.
MOST_ROWS_TOUCHED: Final = 0.25
# A pass over less than this takes some ten microseconds, no longer than what starts it.
SMALLEST_TABLE_BYTES: Final = 1 << 20
OPS_LISTED: Final = 40

_SCATTERING: Final = "model.compile(optimizer=keras.optimizers.SGD(learning_rate=0.01), loss=model.loss)"


@rule("GL603", "dense-embedding-gradient", needs=(EXECUTED, PROFILE))
def dense_embedding_gradient(facts: Facts) -> Iterator[Finding]:
    """Embedding tables that are updated as a whole, although a step looks up a few of their rows.

    ## What it finds

    Variables of 1 MiB and more of which a step looks up less than a quarter of the rows, and whose gradient is made a
    tensor of all rows (`UnsortedSegmentSum`) before the optimizer uses it. The finding counts the passes over the
    table: the executed ops that compute from, or write into, a tensor of the table's shape, for it and for the moments
    that the optimizer keeps beside it. Reading a variable hands on its buffer and is no pass, nor is looking up rows.

    ## Why it costs

    The gradient of a lookup is a few rows with their numbers (`tf.IndexedSlices`). Adam, AdamW, Nadam, Lion and Ftrl of
    Keras make it dense, Adam twice, and then compute every element of the table and of its moments anew in each step:
    Adam passes 13 times over memory that has nothing to do with the batch. The time grows with the table, not with the
    work.

    ## Example

    ```bad
    ids   = Placeholder() int64[320]
    axis  = Const() int32[] = 0
    rows  = Const() int32[] = 100000
    rate  = Const() float32[] = 0.01
    whole = ReadVariableOp(table) float32[100000,64] 1us
    found = GatherV2(whole, ids, axis) float32[320,64] 50us
    grad  = Mul(found, rate) float32[320,64] 5us
    dense = UnsortedSegmentSum(grad, ids, rows) float32[100000,64] 1400us
    put   = AssignSubVariableOp(table, dense) 900us
    ```

    ```good
    ids   = Placeholder() int64[320]
    axis  = Const() int32[] = 0
    rate  = Const() float32[] = 0.01
    whole = ReadVariableOp(table) float32[100000,64] 1us
    found = GatherV2(whole, ids, axis) float32[320,64] 50us
    grad  = Mul(found, rate) float32[320,64] 5us
    put   = ResourceScatterSub(table, ids, grad) 80us
    ```

    ## Fix

    Train the table with an optimizer that scatters: `SGD` without momentum updates the rows of the batch and no others;
    a lazy Adam, which keeps the moments of rows that are not looked up as they are, has to be written
    (`tensor_scatter_nd_sub` or `scatter_sub` on the table and both moments). Adagrad and RMSprop scatter into the
    table, and still pass over their accumulators. All of them train to other numbers than Adam does.

    A variable that was scattered into is copied whenever it is read as a whole from then on, which is how Keras'
    `Embedding` looks rows up: see `copied-read` (GL604).

    ## When it is fine

    When the moments of all rows are meant to decay in each step, as Adam defines it; when a batch needs most rows; when
    the gradient is one of all rows anyway, because the table is regularized or is the output layer too (neither is
    reported).

    ## Source

    `UnsortedSegmentSum` of the executed graph with the table's shape, and what its results and the variables that it
    updates are used for. Rows come from the shape of the list of rows, passes are counted, and their time is measured.
    Where a batch has no fixed size, looking up has to take less than a quarter of the time of one pass. The saving is a
    bound: updating the rows themselves takes some of it.
    """
    for table in facts(dense_tables):
        times_ns = _times_ns(facts, table.passes)
        if times_ns and _is_large(table) and _is_sparse(facts, table, times_ns):
            yield _dense_finding(facts, table, sum(times_ns))


def _is_large(table: DenseTable) -> bool:
    return (table.spec.nbytes or 0) >= SMALLEST_TABLE_BYTES


def _is_sparse(facts: Facts, table: DenseTable, times_ns: Sequence[int]) -> bool:
    if table.rows_touched is not None:
        return table.rows_touched <= MOST_ROWS_TOUCHED * table.rows
    lookups_ns = _times_ns(facts, table.lookups)
    return bool(lookups_ns) and sum(lookups_ns) <= MOST_ROWS_TOUCHED * sum(times_ns) / len(times_ns)


def _times_ns(facts: Facts, names: Iterable[str]) -> list[int]:
    seen = facts(timings)
    return [seen[name].self_ns for name in names if name in seen]


def _dense_finding(facts: Facts, table: DenseTable, passes_ns: int) -> Finding:
    saving = saving_without(facts, table.passes)
    name = " and ".join(table.variables)
    return found(
        title=f"{counted(len(table.passes), 'pass', 'passes')} over all {format_count(table.rows)} rows of {name} "
        f"({format_bytes(table.spec.nbytes)}) in each step, {_touched(table)}",
        nodes=table.passes,
        evidence=_evidence(facts, table, passes_ns, saving),
        reason=_why(table, passes_ns, saving),
        saving=replace(saving, origin="bound") if saving.ns is not None else saving,
        removes=table.passes,
        fix=Fix(
            "Update the rows of the batch only: SGD without momentum for the table, or a lazy Adam; then each read of "
            "the whole table copies it (GL604)",
            "manual",
            (ScriptSetting("sparse_optimizer"),) if facts.evidence.script is not None else (),
            _SCATTERING,
        ),
    )


def _touched(table: DenseTable) -> str:
    if table.rows_touched is None:
        return "which looks few of them up"
    return f"which looks up {format_count(table.rows_touched)}"


def _evidence(facts: Facts, table: DenseTable, passes_ns: int, saving: Saving) -> dict[str, Any]:
    graph, seen = facts(judged_graph), facts(timings)
    passes = [
        {"op": name, "type": graph.op(name).type, "self_ns": seen[name].self_ns if name in seen else None}
        for name in table.passes
    ]
    return {
        "variables": list(table.variables),
        "shape": list(table.spec.shape or ()),
        "bytes": table.spec.nbytes,
        "rows_touched": table.rows_touched,
        "rows_updated": table.rows,
        "made_dense": len(table.sums),
        "passes": len(table.passes),
        "passes_ns": passes_ns,
        "passes_share": saving.share,
        "ops": passes[:OPS_LISTED],
        "whole_reads": len(table.reads),
    }


def _why(table: DenseTable, passes_ns: int, saving: Saving) -> str:
    dense = counted(len(table.sums), "time")
    share = f", {format_share(saving.share)} of the step" if saving.share is not None else ""
    return (
        f"the optimizer makes the gradient of the looked-up rows a tensor of the whole table ({dense}) and computes "
        f"every row anew: {format_ns(passes_ns)} of op time{share}"
    )
