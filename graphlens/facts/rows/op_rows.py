"""The facts in the form that reports show: one row per op, and the small figure around a finding."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat import scopes as flat
from graphlens.facts.flat.executed import HLO_MODULE, HLO_STANDS_FOR
from graphlens.facts.graphs import (
    Stage,
    frozen_ops,
    joined_loosely,
    judged_graph,
    judged_stage,
    origins,
    traced_graph,
)
from graphlens.facts.time.attribution import Attribution, attribution, timings
from graphlens.facts.time.paths import slack_ns
from graphlens.facts.training.executed import forward_of_ops, layer_names, layers_of_ops
from graphlens.facts.training.phases import phases
from graphlens.facts.work import costs
from graphlens.facts.work.kernel_work import Work, kernel_work, told_instructions, told_of
from graphlens.facts.work.roofline import roof_shares
from graphlens.ir.analysis import Figure, FigureNode
from graphlens.ir.graph import data_inputs
from graphlens.ir.measured import OpRow
from graphlens.ir.nodes import Op
from graphlens.ir.op_rows import OpRows
from graphlens.ir.ops import CONSTANTS, family, is_instruction
from graphlens.ir.run import Instruction, OpTiming
from graphlens.ir.table import Table
from graphlens.ir.training import LayerScope

FIGURE_HOPS: Final = 2
FIGURE_OPS_LIMIT: Final = 28  # what a reader takes in at once, and what dot lays out in under 0.1 s
FIGURE_SUBJECT_LIMIT: Final = 14

# What is computed in these phases for a layer was written for it; an optimizer and metrics are of their own lines.
_OF_LAYERS: Final = frozenset({None, "forward", "backward"})

# Plumbing that says nothing in a figure.
_HIDDEN = CONSTANTS | {"ReadVariableOp", "Identity", "NoOp", "_Arg", "_Retval", "VarHandleOp"}


@fact
def op_rows(facts: Facts) -> OpRows:
    """One row per op, by falling self time; unseen ops last, by name.  What a failed fact would tell is unknown."""
    joined = facts.known(attribution, Attribution())
    in_graph = _columns(facts, joined)
    of_profile = OpRows.of(_row_of_profile(facts, joined, *seen) for seen in _in_no_graph(facts, joined))
    rows = OpRows({name: [*values, *of_profile.column(name)] for name, values in in_graph.items()})
    return rows.in_order(_ranked(rows.column("name"), rows.column("self_ns")))


@fact
def shape_costs(facts: Facts) -> Sequence[costs.Cost]:
    """Operations and bytes of an execution of each op of the judged graph, as its shapes say, in its order."""
    return costs.costs_of(facts(judged_graph))


def _ranked(names: Sequence[str], times_ns: Sequence[int | None]) -> list[int]:
    """Return the positions of rows by falling time, then by name; those without a time last."""
    by_name = sorted(range(len(names)), key=names.__getitem__)
    seen = sorted((at for at in by_name if times_ns[at] is not None), key=lambda at: -(times_ns[at] or 0))
    return [*seen, *(at for at in by_name if times_ns[at] is None)]


def _columns(facts: Facts, joined: Attribution) -> dict[str, Sequence[Any]]:
    """Return the fields of the rows of the judged graph's ops, in its order: columns cost a fraction of rows."""
    ops = list(facts(judged_graph).ops())
    names = [op.name for op in ops]
    executed, origin_of = facts(judged_stage) == "executed", facts.known(origins, {})
    sources = [origin_of.get(name, ()) for name in names] if executed else [()] * len(ops)
    written = [_written(facts, op, origin) for op, origin in zip(ops, sources, strict=True)]
    timings = [joined.timings.get(name) for name in names]
    seen = joined.op_types
    devices = _timed(timings, "device")
    flops, nbytes = _work(facts, names)
    slack, shares = facts.known(slack_ns, {}), facts.known(roof_shares, {})
    forward = facts.known(forward_of_ops, [None] * len(ops))
    return {
        "name": names,
        "op": [op.type for op in written],
        "scope": [op.scope for op in ops],
        "device": [op.device or seen_on for op, seen_on in zip(ops, devices, strict=True)],
        "executed_as": [_executed_as(seen, op) if executed else seen.get(op.name) for op in ops],
        "flops": flops,
        "bytes": nbytes,
        "source": _sources(facts, written, names, forward),
        "phase": facts.known(phases, [None] * len(ops)),
        "origin": sources,
        "timing": _timed(timings, "source"),
        "layer": facts(layer_names),
        "forward": forward,
        "category": [family(_ran_as(seen, op)) for op in ops],
        "slack_ns": [slack.get(name) for name in names],
        "output": _outputs(ops),
        "roof_share": [shares.get(name) for name in names],
        **{field: _timed(timings, field) for field in ("self_ns", "calls_per_step", "wall_share", "host_ns")},
    }


def _written(facts: Facts, op: Op, origin: Sequence[str]) -> Op:
    """Return the op as written that ``op`` is of; the last one where it stands for several."""
    written = facts(traced_graph) if origin else None
    return written.op(origin[-1]) if written is not None else op


def _timed(timings: Sequence[OpTiming | None], field: str) -> list[Any]:
    return [getattr(timing, field) if timing else None for timing in timings]


def _work(facts: Facts, names: Sequence[str]) -> tuple[list[int | None], list[int | None]]:
    """Return operations and bytes of an execution of each op: what the profile tells, else what its shapes say."""
    by_shapes = facts(shape_costs)
    flops, nbytes = [cost.flops for cost in by_shapes], [cost.bytes for cost in by_shapes]
    told = facts.known(kernel_work, {})
    for position, name in enumerate(names if told else ()):
        work = told.get(name, Work())
        flops[position] = work.flops if work.flops is not None else flops[position]
        nbytes[position] = work.nbytes if work.nbytes is not None else nbytes[position]
    return flops, nbytes


def _sources(
    facts: Facts, written: Sequence[Op], names: Sequence[str], forward: Sequence[str | None]
) -> list[str | None]:
    """Return where each op was written, as the graph says it, else the profile.

    A gradient was written where its forward op was, and what Keras wrote for a layer where that was made.
    """
    told = facts(told_instructions)
    layers = facts.known(layers_of_ops, [None] * len(names))
    phase_of = facts.known(phases, [None] * len(names))
    lines = {
        name: op.source or _told_source(told, name) or (_made_at(layer) if phase in _OF_LAYERS else None)
        for name, op, layer, phase in zip(names, written, layers, phase_of, strict=True)
    }
    return [lines.get(differentiated or "") or lines[name] for name, differentiated in zip(names, forward, strict=True)]


def _told_source(told: Mapping[str, Instruction], name: str) -> str | None:
    return told[name].source or None if name in told else None


def _made_at(layer: LayerScope | None) -> str | None:
    return (layer.source or None) if layer is not None else None


def _outputs(ops: Sequence[Op]) -> list[str | None]:
    """Write what each op puts out; ops share the tuples of their outputs, so that each is written once."""
    distinct = {id(op.outputs): op.outputs for op in ops}
    texts = {key: ", ".join(map(str, outputs)) or None for key, outputs in distinct.items()}
    return [texts[id(op.outputs)] for op in ops]


def _ran_as(seen: Mapping[str, str], op: Op) -> str:
    """Return the type of an op; of an instruction of XLA what its events say, since the graph has its opcode alone."""
    told = seen.get(op.name, "") if seen else ""
    return told if is_instruction(told) else str(op.attrs.get(HLO_STANDS_FOR, op.type))


def _executed_as(seen: Mapping[str, str], op: Op) -> str:
    """Return the type that an op ran as; an instruction, and the call of a compiled function, say that they are XLA's.

    An instruction of a processor has its opcode: what it was made of is another column.
    """
    if HLO_MODULE in op.attrs and not is_instruction(seen.get(op.name, "")):
        return f"XLA {op.type}"
    return f"{op.type} (XLA)" if flat.is_compiled(op) else _ran_as(seen, op)


def _in_no_graph(facts: Facts, joined: Attribution) -> Iterator[tuple[str, OpTiming]]:
    """Yield what was timed and is an op of no graph, where the executed one is not known: all of it without a graph."""
    graph = facts(judged_graph)
    if facts(joined_loosely):
        yield from ((name, timing) for name, timing in joined.timings.items() if name not in graph)


def _row_of_profile(facts: Facts, joined: Attribution, name: str, timing: OpTiming) -> OpRow:
    """Return the row of an op of which only its name and its events are known."""
    kind = joined.op_types.get(name, "")
    work, told = facts.known(kernel_work, {}).get(name, Work()), told_of(facts, name)
    return OpRow(
        name=name,
        op=kind,
        scope=name.rpartition("/")[0],
        device=timing.device,
        executed_as=kind,
        self_ns=timing.self_ns,
        calls_per_step=timing.calls_per_step,
        flops=work.flops,
        bytes=work.nbytes,
        source=told.source or None,
        timing=timing.source,
        wall_share=timing.wall_share,
        layer=flat.layer_of(name),
        category=family(kind),
        output=told.output or None,
        host_ns=timing.host_ns,
        roof_share=facts.known(roof_shares, {}).get(name),
    )


def figure_of(facts: Facts, nodes: Sequence[str], stage: Stage | None = None) -> Figure | None:
    """Return the ops around ``nodes`` (two hops, capped) in graph ``stage``, for drawing; by default the judged one.

    ``None`` when none of them is in it.
    """
    drawn: Stage = facts(judged_stage) if stage is None else stage
    graph = facts(judged_graph) if drawn == facts(judged_stage) else facts(traced_graph)
    if graph is None:
        return None
    present = [name for name in nodes if name in graph]
    subjects = _first_group(graph, present)
    if not subjects:
        return None
    shown = _neighbourhood(graph, subjects)
    return Figure(
        drawn,
        tuple(_figure_node(facts, graph, name, name in set(subjects), drawn) for name in shown),
        tuple(_edges(graph, shown)),
        len(present) - len(subjects),
    )


def _first_group(graph: Table, nodes: Sequence[str]) -> list[str]:
    """Return the subjects to draw: those that hang together with the first one, so that the figure is one picture."""
    if not nodes:
        return []
    wanted, group, pending = set(nodes), [nodes[0]], deque([nodes[0]])
    while pending and len(group) < FIGURE_SUBJECT_LIMIT:
        name = pending.popleft()
        for other in _around(graph, name):
            if other in wanted and other not in group and len(group) < FIGURE_SUBJECT_LIMIT:
                group.append(other)
                pending.append(other)
    return group


def _neighbourhood(graph: Table, subjects: Sequence[str]) -> list[str]:
    shown = list(subjects)
    frontier = list(subjects)
    for _ in range(FIGURE_HOPS):
        frontier = [
            other
            for name in frontier
            for other in _around(graph, name)
            if other not in shown and graph.op(other).type not in _HIDDEN
        ]
        for other in dict.fromkeys(frontier):
            if len(shown) < FIGURE_OPS_LIMIT:
                shown.append(other)
    return shown


def _around(graph: Table, name: str) -> Iterable[str]:
    yield from data_inputs(graph, name)
    yield from graph.successors(name)


def _edges(graph: Table, shown: Sequence[str]) -> list[tuple[str, str, str]]:
    inside = set(shown)
    return list(
        dict.fromkeys((name, dst, edge.kind) for name in shown for dst, edge in graph.out_edges(name) if dst in inside)
    )


def _figure_node(facts: Facts, graph: Table, name: str, subject: bool, stage: str) -> FigureNode:
    op = graph.op(name)
    timing = facts.known(timings, {}).get(name) if stage == facts(judged_stage) else None
    return FigureNode(
        name,
        op.type,
        "subject" if subject else "context",
        timing.self_ns if timing else None,
        op.device or None,
        str(op.outputs[0]) if op.outputs else None,
    )


def figure_without(facts: Facts, figure: Figure, removed: Iterable[str]) -> Figure | None:
    """Return ``figure`` without the ops ``removed``, what they read joined to what read them."""
    return figure_after(figure, frozenset(removed), facts(frozen_ops))


def figure_after(figure: Figure, removed: Collection[str], frozen: Collection[str]) -> Figure | None:
    """Return the figure without ``removed``; ``None`` when it shows none of them, or nothing else.

    What a removed op read is joined to what read it, but for values that never change: they went into a weight.  No op
    has a time, since none was measured after the fix.
    """
    kept = tuple(replace(node, self_ns=None) for node in figure.nodes if node.name not in removed)
    if not kept or len(kept) == len(figure.nodes):
        return None
    following: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for src, dst, kind in figure.edges:
        following[src].append((dst, kind))
    edges = [
        (node.name, dst, kind)
        for node in kept
        for dst, kind in _past(node.name, following, removed)
        if dst not in removed and (node.name not in frozen or (node.name, dst, kind) in figure.edges)
    ]
    return replace(figure, nodes=kept, edges=tuple(dict.fromkeys(edges)), omitted=0)


def _past(
    name: str, following: Mapping[str, list[tuple[str, str]]], removed: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield what follows ``name`` once the removed ops are passed over."""
    pending, seen = list(following.get(name, ())), set()
    while pending:
        dst, kind = pending.pop()
        if dst not in removed:
            yield dst, kind
        elif dst not in seen:
            seen.add(dst)
            pending += [(after, "data") for after, _ in following.get(dst, ())]
