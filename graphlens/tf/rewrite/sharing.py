"""``share-computation``: what is computed several times from the same values is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphlens.errors import RewriteError
from graphlens.ir.edits import ShareComputation
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.values import Values

_KEPT = frozenset({"Placeholder", "NoOp", "Const"})


@rewrite
def share_computation(draft: Draft, edit: ShareComputation) -> None:
    """Let the ops named be computed once, by the first of them; without names, whatever is equal."""
    wanted = [draft.node(name).name for name in named(edit)]
    numbers = _numbered(draft)
    if not wanted:
        _share(draft, _groups(numbers))
        return
    if len(wanted) < 2:
        raise RewriteError("share-computation names the ops that compute the same, two or more")
    different = [name for name in wanted[1:] if name not in numbers or numbers[name] != numbers.get(wanted[0])]
    if different:
        raise RewriteError(f"'{different[0]}' does not compute the same as '{wanted[0]}'")
    _share(draft, [sorted(wanted, key=list(numbers).index)])  # inputs first, so that none waits for itself


def _share(draft: Draft, groups: list[list[str]]) -> None:
    if not groups:
        raise RewriteError("nothing is computed twice")
    for first, *others in groups:
        for other in others:
            for index in range(1, len(nodes.output_types(draft.node(other)))):
                draft.redirect(nodes.tensor(other, index), nodes.tensor(first, index))
            draft.bypass(other, nodes.tensor(first))


def _groups(numbers: Mapping[str, int]) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for name, number in numbers.items():
        groups.setdefault(number, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _numbered(draft: Draft) -> dict[str, int]:
    """Return a number for each op whose value depends on its inputs only; equal numbers are equal values."""
    values = Values(draft)
    numbers: dict[str, int] = {}
    known: dict[Any, int] = {}
    for name in inputs_first(draft):
        node = draft.node(name)
        if node.op in {"Const"} or nodes.is_pure(node) or _reads_unwritten(draft, values, name):
            waits = tuple(nodes.control_inputs(node)) if draft.has_dataflow else ()
            key = (node.op, node.device, _attributes(node), tuple(_inputs(draft, node, numbers)), waits)
            numbers[name] = known.setdefault(key, len(known))
    return {name: number for name, number in numbers.items() if draft.node(name).op not in _KEPT}


def _reads_unwritten(draft: Draft, values: Values, name: str) -> bool:
    return draft.node(name).op in nodes.READS and values.variable_of(name) is not None


def _attributes(node: Any) -> tuple[tuple[str, bytes], ...]:
    kept = sorted(key for key in node.attr if key != "_class")
    return tuple((key, node.attr[key].SerializeToString(deterministic=True)) for key in kept)


def _inputs(draft: Draft, node: Any, numbers: Mapping[str, int]) -> Iterator[object]:
    for ref in nodes.data_inputs(node):
        name = nodes.source(ref)
        if name in numbers:
            yield numbers[name], nodes.port(ref)
        elif name in draft.bindings:
            yield "held", id(draft.bindings[name].value)
        else:
            yield ref


def inputs_first(draft: Draft) -> list[str]:
    """Return the ops of a draft in an order in which inputs come before their readers."""
    return nodes.inputs_first({name: draft.node(name) for name in draft})
