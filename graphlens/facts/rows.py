"""The facts in the form that reports show: one row per op, and the small figure around a finding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from graphlens.facts import costs, flat
from graphlens.facts.executed import HLO_MODULE, HLO_STANDS_FOR
from graphlens.facts.kernel_work import Work
from graphlens.ir.analysis import Figure, FigureNode, OpRow
from graphlens.ir.graph import Op, data_inputs, op_of
from graphlens.ir.ops import CONSTANTS, family, is_instruction
from graphlens.ir.run import OpTiming
from graphlens.ir.table import Table

if TYPE_CHECKING:
    from graphlens.facts.asked import Facts

FIGURE_HOPS: Final = 2
FIGURE_OPS_LIMIT: Final = 28  # what a reader takes in at once, and what dot lays out in under 0.1 s
FIGURE_SUBJECT_LIMIT: Final = 14

# Plumbing that says nothing in a figure.
_HIDDEN = frozenset({"ReadVariableOp", "Identity", "NoOp", "_Arg", "_Retval", "VarHandleOp"}) | CONSTANTS


def op_rows(facts: Facts) -> tuple[OpRow, ...]:
    """Return one row per op, by falling self time; unseen ops last, in graph order."""
    rows = [_row(facts, op) for op in facts.graph.ops()]
    rows += [_row_of_profile(facts, name, timing) for name, timing in _in_no_graph(facts)]
    return tuple(sorted(rows, key=lambda row: (row.self_ns is None, -(row.self_ns or 0), row.name)))


def _row(facts: Facts, op: Op) -> OpRow:
    executed = facts.stage == "executed"
    origin = facts.origins.get(op.name, ()) if executed else ()
    written = op_of(facts.traced, origin[-1]) if origin and facts.traced is not None else op
    timing = facts.timing(op.name)
    cost, work = costs.cost_of(facts.graph, op.name), facts.kernel_work.get(op.name, Work())
    return OpRow(
        name=op.name,
        op=written.type,
        scope=op.scope,
        device=op.device or (timing.device if timing else None),
        executed_as=_executed_as(facts, op) if executed else facts.attribution.op_types.get(op.name),
        self_ns=timing.self_ns if timing else None,
        calls_per_step=timing.calls_per_step if timing else None,
        flops=work.flops if work.flops is not None else cost.flops,
        bytes=work.nbytes if work.nbytes is not None else cost.bytes,
        source=written.source or facts.told(op.name).source or None,
        phase=_phase(op.name) if facts.training else None,
        origin=origin,
        timing=timing.source if timing else None,
        wall_share=timing.wall_share if timing else None,
        layer=facts.layer(op.name),
        category=family(_ran_as(facts, op)),
        slack_ns=facts.slack_ns.get(op.name),
        output=", ".join(map(str, op.outputs)) or None,
        host_ns=timing.host_ns if timing else None,
        roof_share=facts.roof_shares.get(op.name),
    )


def _ran_as(facts: Facts, op: Op) -> str:
    """Return the type of an op; of an instruction of XLA what its events say, since the graph has its opcode alone."""
    seen = facts.attribution.op_types.get(op.name, "")
    return seen if is_instruction(seen) else str(op.attrs.get(HLO_STANDS_FOR, op.type))


def _executed_as(facts: Facts, op: Op) -> str:
    """Return the type that an op ran as; an instruction, and the call of a compiled function, say that they are XLA's.

    An instruction of a processor has its opcode: what it was made of is another column.
    """
    if HLO_MODULE in op.attrs and not is_instruction(facts.attribution.op_types.get(op.name, "")):
        return f"XLA {op.type}"
    return f"{op.type} (XLA)" if flat.is_compiled(op) else _ran_as(facts, op)


def _in_no_graph(facts: Facts) -> Iterator[tuple[str, OpTiming]]:
    """Yield what was timed and is an op of no graph, where the executed one is not known: all of it without a graph."""
    if facts.joined_loosely:
        yield from ((name, timing) for name, timing in facts.attribution.timings.items() if name not in facts.graph)


def _row_of_profile(facts: Facts, name: str, timing: OpTiming) -> OpRow:
    """Return the row of an op of which only its name and its events are known."""
    kind = facts.attribution.op_types.get(name, "")
    work, told = facts.kernel_work.get(name, Work()), facts.told(name)
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
        roof_share=facts.roof_shares.get(name),
    )


def _phase(name: str) -> str:
    """Name the phase of a training step from TensorFlow's own scopes."""
    if "gradient_tape" in name or "/gradients/" in name or name.startswith("gradients/"):
        return "backward"
    return "optimizer" if any(part in name.lower() for part in ("adam", "/sgd", "rmsprop", "optimizer")) else "forward"


def figure(facts: Facts, nodes: Sequence[str], stage: Literal["executed", "traced"]) -> Figure | None:
    """Return the ops around ``nodes`` in graph ``stage``; ``None`` when none of them is in it."""
    graph = facts.graph if stage == facts.stage else facts.traced
    if graph is None:
        return None
    present = [name for name in nodes if name in graph]
    subjects = _first_group(graph, present)
    if not subjects:
        return None
    shown = _neighbourhood(graph, subjects)
    return Figure(
        stage,
        tuple(_figure_node(facts, graph, name, name in set(subjects), stage) for name in shown),
        tuple(_edges(graph, shown)),
        len(present) - len(subjects),
    )


def _first_group(graph: Table, nodes: Sequence[str]) -> list[str]:
    """Return the subjects to draw: those that hang together with the first one, so that the figure is one picture."""
    if not nodes:
        return []
    wanted, group, pending = set(nodes), [nodes[0]], [nodes[0]]
    while pending and len(group) < FIGURE_SUBJECT_LIMIT:
        name = pending.pop(0)
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
            if other not in shown and op_of(graph, other).type not in _HIDDEN
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
    op = op_of(graph, name)
    timing = facts.timing(name) if stage == facts.stage else None
    return FigureNode(
        name,
        op.type,
        "subject" if subject else "context",
        timing.self_ns if timing else None,
        op.device or None,
        str(op.outputs[0]) if op.outputs else None,
    )


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
