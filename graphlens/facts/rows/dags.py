"""The graphs of an analysis as the columns that its document holds: what is known of each op, and the edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import (
    executed_by,
    executed_graph,
    judged_stage,
    optimized_graph,
    origins,
    traced_graph,
)
from graphlens.facts.rows.op_rows import shape_costs
from graphlens.facts.rows.program_rows import program_rows
from graphlens.facts.rows.sizes import graph_sizes, graphs_of_others, sizes_of_others
from graphlens.facts.time.attribution import timings
from graphlens.facts.training.executed import layer_names
from graphlens.facts.work import costs
from graphlens.ir.dag import Dag, Edges, Stage, Tensors, Words, distinct
from graphlens.ir.nodes import Op
from graphlens.ir.run import OpTiming
from graphlens.ir.table import Table


@fact
def dags(facts: Facts) -> tuple[Dag, ...]:
    """The graphs of all programs, those of the judged one first."""
    ids = _ids(facts)
    judged = ids.get(id(facts(graph_sizes)), "")
    stages: list[tuple[Stage, Table | None]] = [
        ("traced", facts.known(traced_graph, None)),
        ("optimized", facts.known(optimized_graph, None)),
        ("executed", facts.known(executed_graph, None)),
    ]
    others = facts.known(graphs_of_others, {})
    return (
        *(_judged_dag(facts, table, stage, judged) for stage, table in stages if table is not None),
        *(
            bare_dag(table, stage, ids.get(id(facts(sizes_of_others)[program]), program))
            for program, graphs in others.items()
            for stage, table in graphs.items()
        ),
    )


def _ids(facts: Facts) -> Mapping[int, str]:
    """Return the ids of the programs, as their rows have them, by the sizes of their graphs: the very same objects."""
    return {id(row.graphs): row.id for row in reversed(facts.known(program_rows, ()))}


def bare_dag(table: Table, stage: Stage, program: str) -> Dag:
    """Return what a graph says by itself, with what its shapes say of the work of its ops."""
    return _dag(table, stage, program, costs.costs_of(table))


def _dag(table: Table, stage: Stage, program: str, work: Sequence[costs.Cost]) -> Dag:
    ops = list(table.ops())
    return Dag(
        program,
        stage,
        name=tuple(table.names),
        op=Words.of([op.type for op in ops]),
        device=Words.of([op.device or None for op in ops]),
        outputs=_outputs(ops),
        flops=_if_any([cost.flops for cost in work]),
        bytes=_if_any([cost.bytes for cost in work]),
        source=Words.of([op.source for op in ops]),
        edges=_edges(table),
    )


def _judged_dag(facts: Facts, table: Table, stage: Stage, program: str) -> Dag:
    """Return a graph of the judged program, with the times of its ops and what they stand for.

    In the traced graph an op has a time if it ran on its own; otherwise it has the name of the executed op, whose time
    is never divided.
    """
    names, judged = table.names, stage == facts(judged_stage)
    ran_as: Sequence[str | None] = names
    if stage == "traced":
        executed = facts.known(executed_by, {})
        ran_as = [executed.get(name) for name in names]
    timed = _timed(facts, ran_as, alone_only=stage == "traced")
    origin_of = facts.known(origins, {})
    return replace(
        _dag(table, stage, program, facts(shape_costs) if judged else costs.costs_of(table)),
        self_ns=_if_any([timing.self_ns if timing else None for timing in timed]),
        calls_per_step=_if_any([timing.calls_per_step if timing else None for timing in timed]),
        timing=Words.of([timing.source if timing else None for timing in timed]),
        origin=tuple(origin_of.get(name, ()) for name in names) if judged and stage == "executed" else (),
        executed_as=_if_any(ran_as) if stage == "traced" else (),
        layer=Words.of(facts(layer_names)) if judged else Words(),
    )


def _timed(facts: Facts, ran_as: Sequence[str | None], *, alone_only: bool) -> Sequence[OpTiming | None]:
    """Return the times of what ops ran as; none where what ran is not known, or stands for others too."""
    if facts(judged_stage) != "executed":
        return ()
    seen, origin_of = facts.known(timings, {}), facts.known(origins, {})
    return [
        seen.get(name) if name is not None and (not alone_only or len(origin_of[name]) == 1) else None
        for name in ran_as
    ]


def _outputs(ops: Sequence[Op]) -> Tensors:
    """Return what ops put out; they share the tuples of their outputs, so that each is compared once."""
    shared = {id(op.outputs): op.outputs for op in ops}
    values, codes = distinct([outputs or None for outputs in shared.values()])
    code = dict(zip(shared, codes or [None] * len(shared), strict=True))
    return Tensors(values, tuple(code[id(op.outputs)] for op in ops)) if values else Tensors()


def _edges(table: Table) -> Edges:
    shared = {id(edge): edge for edge in table.links}
    kinds, codes = distinct(list(shared.values()))
    code: dict[int, Any] = dict(zip(shared, codes, strict=True))
    counts = tuple(end - start for start, end in pairwise(table.first))
    return Edges(counts, tuple(table.sources), kinds, tuple(code[id(edge)] for edge in table.links))


def _if_any(column: Sequence[Any]) -> tuple[Any, ...]:
    """Return a column, or an empty one where it says nothing."""
    return () if column.count(None) == len(column) else tuple(column)
