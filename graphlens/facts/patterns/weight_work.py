"""Work on weights alone: what is computed in every step, though no input has anything to do with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import constant_ops, frozen_ops, is_training, judged_graph, judged_stage, op_order, weights
from graphlens.facts.patterns.affine import affine_chains
from graphlens.facts.patterns.input_affine import input_chains
from graphlens.facts.patterns.invariants import invariants_by_loop
from graphlens.facts.time.attribution import attribution, timings
from graphlens.ir.graph import data_consumers, data_inputs
from graphlens.ir.nodes import Op
from graphlens.ir.ops import CONSTANTS, FED, REFERENCE_VARIABLES, UNTRACED, VARIABLE_READS, WHOLE_READS, family
from graphlens.ir.table import Table

# Grappler keeps an op whose folded result is over 100 kB and larger than what it is computed from, because the model
# would grow; the same bound is used here.
LARGEST_GROWN_RESULT_BYTES: Final = 100 * 1024
# Of fewer elements than this, a value is a counter, a rate or a threshold, and no weight.
FEWEST_ELEMENTS: Final = 64
# These give numbers that are there already, in other places or more often: to store them again is no gain.
_MOVES: Final = frozenset({"data-movement"})
_SOURCES: Final = CONSTANTS | WHOLE_READS | REFERENCE_VARIABLES | FED

Group = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FrozenWork:
    """The connected groups of ops that compute something from values that never change.

    Attributes
    ----------
    folded
        Those whose results are worth storing.
    left_out
        Those whose results are larger than what they are made from, so that the model would grow.
    """

    folded: tuple[Group, ...]
    left_out: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class WeightWork:
    """A connected group of ops that work on weights alone.

    Attributes
    ----------
    ops
        All of them.
    frozen
        Those whose value is the same in every step, because nothing that they are made from is written.
    """

    ops: Group
    frozen: Group


@fact
def frozen_work(facts: Facts) -> FrozenWork:
    """The work on constants, captured tensors and variables that nobody writes, but what belongs to a larger pattern.

    That is what goes into the weights of a layer as a whole, and what a loop computes anew.  In a step that trains,
    small variables that the graph only reads are rates and factors, which Python sets between steps.
    """
    folded: list[Group] = []
    left_out: list[Group] = []
    frozen, claimed = facts(frozen_ops), facts(_claimed)
    for group in _groups(facts, frozen - claimed):
        if _costs_something(facts, group) and not (facts(is_training) and _is_made_of_rates(facts, group)):
            (left_out if result_bytes(facts, group) is not None else folded).append(group)
    return FrozenWork(tuple(folded), tuple(left_out))


@fact
def weight_work(facts: Facts) -> tuple[WeightWork, ...]:
    """The work on weights alone that is not worth storing by its size, or cannot be: the graph writes them.

    What only moves numbers, and what gives only a few, is left out.
    """
    told = {name for group in facts(frozen_work).folded for name in group}
    groups = _groups(facts, facts(weights).ops - facts(_claimed) - told)
    frozen = facts(frozen_ops)
    return tuple(
        WeightWork(group, tuple(name for name in group if name in frozen))
        for group in groups
        if _is_work(facts, group) and _costs_something(facts, group)
    )


@fact
def _claimed(facts: Facts) -> frozenset[str]:
    claimed = {name for invariant in facts(invariants_by_loop).values() for name in invariant}
    if not facts(is_training):
        claimed.update(name for chain in facts(affine_chains) for name in chain.folded)
        claimed.update(name for chain in facts(input_chains) for name in chain.folded)
    return frozenset(claimed)


def depends_on_variables(facts: Facts, names: Iterable[str]) -> bool:
    """Tell whether the values of ops are made from a variable; what an input goes into is not followed."""
    return any(op.type in VARIABLE_READS | REFERENCE_VARIABLES for op in _made_from(facts, names))


def _made_from(facts: Facts, names: Iterable[str]) -> Iterator[Op]:
    graph, made = facts(judged_graph), facts(weights).ops
    pending = list(names)
    seen = set(pending)
    while pending:
        name = pending.pop()
        yield graph.op(name)
        fresh = [src for src in data_inputs(graph, name) if src in made and src not in seen]
        seen.update(fresh)
        pending += fresh


def _is_work(facts: Facts, group: Sequence[str]) -> bool:
    graph = facts(judged_graph)
    ops = [graph.op(name) for name in group]
    computes = any(op.type not in UNTRACED and family(op.type) not in _MOVES for op in ops)
    held = any(op.type in VARIABLE_READS | REFERENCE_VARIABLES | FED for op in _made_from(facts, group))
    return computes and held and _is_large(ops)


def _is_large(ops: Iterable[Op]) -> bool:
    sizes = [spec.elements for op in ops for spec in op.outputs]
    return not sizes or any(count is None or count >= FEWEST_ELEMENTS for count in sizes)


def _is_made_of_rates(facts: Facts, group: Sequence[str]) -> bool:
    graph = facts(judged_graph)
    return not _is_large(graph.op(name) for name in group) and depends_on_variables(facts, group)


def _costs_something(facts: Facts, group: Sequence[str]) -> bool:
    graph = facts(judged_graph)
    if all(graph.op(name).type in UNTRACED for name in group):
        return False
    if facts(judged_stage) == "traced":  # Grappler computes what depends on constants alone when the model is loaded
        return not facts(constant_ops).issuperset(group)
    times = facts(timings)
    return not facts(attribution).timings or any(times.get(name) for name in group)


def result_bytes(facts: Facts, group: Sequence[str]) -> int | None:
    """Return the size of what a group gives, where that is large and larger than what it is made from."""
    inside = set(group)
    graph = facts(judged_graph)
    results = [name for name in group if any(dst not in inside for dst in data_consumers(graph, name))]
    sources = {src for name in group for src in data_inputs(graph, name) if src not in inside}
    made = sum(spec.nbytes or 0 for name in results for spec in graph.op(name).outputs)
    read = sum(spec.nbytes or 0 for name in sources for spec in graph.op(name).outputs[:1])
    return made if made > LARGEST_GROWN_RESULT_BYTES and made > read else None


def _groups(facts: Facts, names: Collection[str]) -> list[Group]:
    """Return the maximal connected groups among ops, without constants, captured tensors and reads of variables."""
    graph = facts(judged_graph)
    computed = {name for name in names if graph.bodies[graph.position(name)].type not in _SOURCES}
    return _connected(graph, [name for name in facts(op_order) if name in computed])


def _connected(graph: Table, names: list[str]) -> list[Group]:
    """Return the groups of ``names`` that are joined by tensors, each as ordered, by their first in the file."""
    group_of: dict[str, list[str]] = {}
    for name in names:
        groups = [[name], *(group_of[src] for src in data_inputs(graph, name) if src in group_of)]
        largest = max(groups, key=len)
        for group in {id(group): group for group in groups if group is not largest}.values():
            largest.extend(group)
            group_of.update(dict.fromkeys(group, largest))
        group_of[name] = largest
    rank = {name: index for index, name in enumerate(names)}
    found = {id(group): group for group in group_of.values()}.values()
    by_file = sorted(found, key=lambda group: min(map(graph.position, group)))
    return [tuple(sorted(group, key=rank.__getitem__)) for group in by_file]
