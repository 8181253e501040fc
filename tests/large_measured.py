"""Measured graphs of any size: what was recorded of a small model, several times over in one step.

``python tests/large_measured.py CAPTURE COPIES…`` judges them, and prints the executed ops and the seconds of each.
"""

from __future__ import annotations

import gc
import sys
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from graphlens.facts.clock.steps import steps_of
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Function, Graph
from graphlens.ir.nodes import CONTROL, Op
from graphlens.ir.run import Profile
from graphlens.ir.table import Table, TableBuilder
from graphlens.loaders.capture.reading import evidence_of, open_capture


def recorded(path: Path) -> Evidence:
    """Return what a capture of one program says."""
    return replace(evidence_of(open_capture(path)), programs=(), judged=None)


def repeated(evidence: Evidence, copies: int, *, in_turn: bool = False) -> Evidence:
    """Return the evidence of a step that does ``copies`` times what that of ``evidence`` does, one after the other.

    Every copy of an op has a scope of its own, ``copy0/`` for the first one; the step lasts ``copies`` times as long.

    Parameters
    ----------
    in_turn
        Whether the ops of a copy wait for those of the one before, so that the graph becomes deep and not wide.
    """
    scopes = [f"copy{number}/" for number in range(copies)]
    return replace(
        evidence,
        traced=_graph(evidence.traced, scopes, in_turn),
        optimized=_graph(evidence.optimized, scopes, in_turn),
        executed=_graph(evidence.executed, scopes, in_turn),
        profile=_profile(evidence.profile, scopes) if evidence.profile else None,
        unprofiled_ns=tuple(ns * copies for ns in evidence.unprofiled_ns),
        replay={
            scope + name: replace(record, name=scope + name)
            for scope in scopes
            for name, record in evidence.replay.items()
        },
        renamed=None if evidence.renamed is None else _scoped(evidence.renamed, scopes),
        inputs=evidence.inputs * copies,
    )


def _scoped(names: Mapping[str, str], scopes: Sequence[str]) -> dict[str, str]:
    return {scope + name: scope + other for scope in scopes for name, other in names.items()}


def _graph(graph: Graph | None, scopes: Sequence[str], in_turn: bool) -> Graph | None:
    if graph is None:
        return None
    return replace(graph, functions={**graph.functions, graph.root: _function(graph.main, scopes, in_turn)})


def _function(function: Function, scopes: Sequence[str], in_turn: bool) -> Function:
    def named(names: Iterable[str]) -> tuple[str, ...]:
        names = tuple(names)
        return tuple(scope + name for scope in scopes for name in names)

    captures = {scope + name: variable for scope in scopes for name, variable in function.captures.items()}
    back = tuple((scope + a, scope + b, edge) for scope in scopes for a, b, edge in function.back_edges)
    return replace(
        function,
        graph=_table(function.graph, scopes, in_turn),
        inputs=named(function.inputs),
        outputs=named(function.outputs),
        captures=captures,
        control_outputs=named(function.control_outputs),
        back_edges=back,
    )


def _table(table: Table, scopes: Sequence[str], in_turn: bool) -> Table:
    builder, edges = TableBuilder(), list(table.edges())
    for scope in scopes:
        for op in table.ops():
            frame = {"frame_name": scope + op.attrs["frame_name"]} if "frame_name" in op.attrs else {}
            builder.add_op(replace(op, name=scope + op.name, attrs={**op.attrs, **frame} if frame else op.attrs))
        for source, reader, edge in edges:
            builder.add_edge(scope + source, scope + reader, edge)
    if in_turn:
        for scope in scopes:
            _bracket(builder, table, scope)
        for before, after in pairwise(scopes):
            builder.add_edge(f"{before}end", f"{after}begin", CONTROL)
    return builder.table()


def _bracket(builder: TableBuilder, table: Table, scope: str) -> None:
    """Add an op that all of a copy wait for, and one that waits for all of them."""
    begin, end = f"{scope}begin", f"{scope}end"
    builder.add_op(Op(begin, "NoOp"))
    builder.add_op(Op(end, "NoOp"))
    for name in table:
        if not table.in_degree(name):
            builder.add_edge(begin, scope + name, CONTROL)
        if not table.has_readers(name):
            builder.add_edge(scope + name, end, CONTROL)


# -- events -------------------------------------------------------------------------------------------------------


class _Clock:
    """Says when a copy does what was recorded at one time: each step is followed by those of the other copies."""

    def __init__(self, profile: Profile, copies: int) -> None:
        self.copies = copies
        self.starts = sorted(window.start_ns for window in steps_of(profile).windows)
        ends = [end for part in (profile.ops, profile.steps, profile.functions) for *_, end in map(_span, part)]
        after = max(ends)
        self.lengths = [end - start for start, end in pairwise([*self.starts, after])]
        self.moved = [self.starts[0]]
        for length in self.lengths:
            self.moved.append(self.moved[-1] + length * copies)

    def at(self, ns: int, copy: int) -> int:
        step = bisect_right(self.starts, ns) - 1
        if step < 0:
            return ns
        return self.moved[step] + copy * self.lengths[step] + ns - self.starts[step]

    def last(self, ns: int) -> int:
        return self.at(ns, self.copies - 1)


def _span(event: object) -> tuple[int, int]:
    return event.start_ns, event.end_ns  # type: ignore[attr-defined]  # every event has both


def _profile(profile: Profile, scopes: Sequence[str]) -> Profile:
    clock = _Clock(profile, len(scopes))

    def each(events, **named):  # type: ignore[no-untyped-def]
        """Every event once per copy, its names in the scope of that."""
        found = (
            event._replace(
                start_ns=clock.at(event.start_ns, copy),
                end_ns=clock.at(event.start_ns, copy) + event.end_ns - event.start_ns,
                **{field: scope + value for field in named["names"] if (value := getattr(event, field))},
            )
            for copy, scope in enumerate(scopes)
            for event in events
        )
        return tuple(sorted(found, key=lambda event: event.start_ns))

    def stretched(events):  # type: ignore[no-untyped-def]
        """Every event once, around all copies."""
        return tuple(
            event._replace(start_ns=clock.at(event.start_ns, 0), end_ns=clock.last(event.end_ns)) for event in events
        )

    return replace(
        profile,
        ops=each(profile.ops, names=("node",)),
        waits=each(profile.waits, names=("name",)),
        kernels=each(profile.kernels, names=("call",)),
        kernels_on_device=each(profile.kernels_on_device, names=("node",)),
        copies=each(profile.copies, names=("node", "src", "dst")),
        steps=stretched(profile.steps),
        executors=each(profile.executors, names=()),
        functions=stretched(profile.functions),
        executions=each(profile.executions, names=("name",)),
        runs=tuple(run._replace(iterations=()) for run in stretched(profile.runs)),
    )


def main(capture: str, *counts: str) -> None:
    """Judge a capture in several copies, once for each of ``counts``."""
    from graphlens.pipeline.judge import judge

    known = recorded(Path(capture))
    judge(known)  # what is imported and read once belongs to no size
    for count in counts:
        evidence = repeated(known, int(count))
        gc.collect()
        gc.disable()  # as the pipeline does
        start = time.process_time()
        judge(evidence)
        taken = time.process_time() - start
        gc.enable()
        print(len(evidence.executed.main.graph) if evidence.executed else 0, round(taken, 3))


if __name__ == "__main__":
    main(*sys.argv[1:])
