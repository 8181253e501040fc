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
    if not wanted:
        _share(draft, _groups(_numbered(draft)))
        return
    if len(wanted) < 2:
        raise RewriteError("share-computation names the ops that compute the same, two or more")
    first, *others = wanted
    different = [name for name in others if not _computes_the_same(draft, first, name)]
    if different:
        raise RewriteError(f"'{different[0]}' does not compute the same as '{first}'")
    _share(draft, [draft.inputs_first(wanted)])  # so that none waits for itself


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
    for name in draft.inputs_first(draft):
        if _has_a_value(draft, values, name):
            key = (_described(draft, name), tuple(_inputs(draft, draft.node(name), numbers)))
            numbers[name] = known.setdefault(key, len(known))
    return {name: number for name, number in numbers.items() if draft.node(name).op not in _KEPT}


def _computes_the_same(draft: Draft, one: str, other: str) -> bool:
    """Whether two ops would have the same number; what both are computed from is looked at no further."""
    values = Values(draft)
    todo, seen = [(one, other)], set()
    if draft.node(one).op in _KEPT:
        return False
    while todo:
        pair = todo.pop()
        if pair in seen:
            continue
        seen.add(pair)
        if not all(_has_a_value(draft, values, name) for name in pair):
            return False
        if _described(draft, pair[0]) != _described(draft, pair[1]):
            return False
        for refs in zip(*(nodes.data_inputs(draft.node(name)) for name in pair), strict=True):
            sources = nodes.source(refs[0]), nodes.source(refs[1])
            if refs[0] == refs[1] or _are_held_alike(draft, sources):
                continue
            if sources[0] == sources[1] or nodes.port(refs[0]) != nodes.port(refs[1]):
                return False
            todo.append(sources)
    return True


def _are_held_alike(draft: Draft, names: tuple[str, str]) -> bool:
    held = [draft.bindings[name].value for name in names if name in draft.bindings]
    return len(held) == 2 and held[0] is held[1]


def _has_a_value(draft: Draft, values: Values, name: str) -> bool:
    """Whether an op gives a value that depends on its inputs only."""
    node = draft.node(name)
    return node.op == "Const" or nodes.is_pure(node) or _reads_unwritten(draft, values, name)


def _reads_unwritten(draft: Draft, values: Values, name: str) -> bool:
    return draft.node(name).op in nodes.READS and values.variable_of(name) is not None


def _described(draft: Draft, name: str) -> tuple[object, ...]:
    """Return all that tells ops apart but what they read."""
    node = draft.node(name)
    waits = tuple(nodes.control_inputs(node)) if draft.has_dataflow else ()
    return node.op, node.device, _attributes(node), len(nodes.data_inputs(node)), waits


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
