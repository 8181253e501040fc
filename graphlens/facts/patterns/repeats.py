"""Ops that compute what another op of the same graph computes already, found by numbering values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.constants import is_pure
from graphlens.facts.flat.executed import HLO_MODULE
from graphlens.facts.graphs import frozen_ops, judged_graph, op_order
from graphlens.ir.nodes import Op
from graphlens.ir.ops import CONSTANTS, UNTRACED, VARIABLE_READS
from graphlens.ir.table import Table


@dataclass(frozen=True, slots=True)
class Repeat:
    """Ops with equal types, attributes and inputs, the first one first.

    ``same_inputs`` tells whether they read the very same ops, and not only equal values; ``waits_differ`` whether they
    wait for different ops by control edges; ``through_reads`` whether their inputs are equal because they come from
    several reads of one variable.
    """

    ops: tuple[str, ...]
    same_inputs: bool
    waits_differ: bool
    through_reads: bool


@fact
def repeats(facts: Facts) -> tuple[Repeat, ...]:
    """Return the groups of the judged graph whose members give the same value, without constants and frozen values."""
    graph = facts(judged_graph)
    values = _values(facts)
    groups: dict[object, list[str]] = defaultdict(list)
    frozen = facts(frozen_ops)
    for name, value in values.items():
        op = graph.op(name)
        if value != name and op.type not in UNTRACED | VARIABLE_READS and name not in frozen:
            groups[value].append(name)
    return tuple(_repeat(graph, names) for names in groups.values() if len(names) > 1)


def _values(facts: Facts) -> Mapping[str, object]:
    """Number the values: ops with the same number compute the same; an op of its own number has its own name."""
    graph = facts(judged_graph)
    numbers: dict[object, object] = {}
    values: dict[str, object] = {}
    for name in facts(op_order):
        key = _key(facts, name, graph.op(name), values)
        values[name] = name if key is None else numbers.setdefault(key, ("value", len(numbers)))
    return values


def _key(facts: Facts, name: str, op: Op, values: Mapping[str, object]) -> object | None:
    """Return what determines the value of an op, ``None`` where nothing of the graph does."""
    if op.type in CONSTANTS:
        spec = op.outputs[0] if op.outputs else None
        known = op.constant and (op.constant.values, op.constant.digest)
        return (op.type, spec, known) if known and known != (None, None) else None
    inputs = tuple((values[src], edge.src_port) for src, edge in facts(judged_graph).in_edges(name))
    is_frozen_read = op.type == "ReadVariableOp" and name in facts(frozen_ops)
    if not inputs or HLO_MODULE in op.attrs or not (is_frozen_read or is_pure(op)):
        return None
    attrs = tuple(sorted((key, repr(value)) for key, value in op.attrs.items() if not key.startswith("_")))
    return (op.type, op.device, attrs, inputs)


def _repeat(graph: Table, names: list[str]) -> Repeat:
    read = [tuple((src, edge.src_port) for src, edge in graph.in_edges(name)) for name in names]
    waits = [frozenset(graph.control_inputs(name)) for name in names]
    direct = {src for some in read for src, _ in some if src not in {src for src, _ in read[0]}}
    through = any(graph.op(src).type in VARIABLE_READS for src in direct)
    return Repeat(tuple(names), len(set(read)) == 1, len(set(waits)) > 1, through)
