"""``sum-by-add-n``: add two branches by ``AddN``, the only sum that Grappler takes into a convolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphlens.errors import RewriteError
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.draft import Draft, named

_SUMS = frozenset({"Add", "AddV2"})


def sum_by_add_n(draft: Draft, edit: Mapping[str, Any]) -> None:
    """Replace the sums named, or every one whose two terms surely have one shape."""
    wanted = named(edit)
    if not wanted and not any(_replaced(draft, name) for name in draft if draft.node(name).op in _SUMS):
        raise RewriteError("no sum of two tensors of one shape")
    for name in wanted:
        if draft.node(name).op not in _SUMS:
            raise RewriteError(f"'{name}' ({draft.node(name).op}) is no sum of two tensors")
        if not _replaced(draft, name):
            raise RewriteError(f"the terms of '{name}' may differ in shape, and AddN does not broadcast")


def _replaced(draft: Draft, name: str) -> bool:
    node = draft.node(name)
    terms = nodes.data_inputs(node)
    if not _have_one_shape(draft, terms):
        return False
    draft.add(
        nodes.make("AddN", name, [*terms, *nodes.control_inputs(node)], node, N=len(terms), T=nodes.dtype_of(node))
    )
    return True


def _have_one_shape(draft: Draft, terms: Sequence[str]) -> bool:
    """Whether no length differs; an open batch is the same everywhere if a single input brings it in."""
    one, other = (draft.shape(term) for term in terms)
    if one.rank is None or one.rank != other.rank:
        return False
    lengths = list(zip(one.as_list(), other.as_list(), strict=True))
    if any(first != second or first is None for first, second in lengths[1:]):
        return False
    return bool(lengths) and lengths[0][0] == lengths[0][1] and (lengths[0][0] is not None or _open_inputs(draft) == 1)


def _open_inputs(draft: Draft) -> int:
    placeholders = [name for name in draft if draft.node(name).op == "Placeholder" and name not in draft.bindings]
    shapes = [draft.shape(nodes.tensor(name)) for name in placeholders]
    return sum(not shape.is_fully_defined() for shape in shapes)
