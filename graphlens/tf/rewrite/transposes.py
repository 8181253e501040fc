"""``remove-transposes``: leave out transposes that undo each other, across the elementwise ops between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from graphlens.errors import RewriteError
from graphlens.ir.edits import RemoveTransposes
from graphlens.ir.ops import BINARY, PER_ELEMENT
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.values import Values


class _NoWay(Exception):
    """The transposes cannot be cancelled; the message says what is in the way."""


@dataclass
class _Region:
    """The elementwise ops between transposes, and what each of their inputs becomes without them."""

    permutation: tuple[int, ...]
    last: str
    inputs: dict[str, list[Any]] = field(default_factory=dict)  # op -> new inputs: refs, or arrays to be stored


@rewrite
def remove_transposes(draft: Draft, edit: RemoveTransposes) -> None:
    """Cancel the transposes named, or all that can be."""
    values = Values(draft)
    wanted = named(edit)
    found = [name for name in wanted or draft if name in draft and draft.node(name).op == "Transpose"]
    if wanted and not found:
        raise RewriteError(f"'{wanted[0]}' is no transpose of the traced graph")
    reasons = {name: _cancel(draft, values, name) for name in found if name in draft}
    if all(reasons.values()):
        raise RewriteError(
            "; ".join(list(dict.fromkeys(filter(None, reasons.values())))[:2]) or "there is no transpose"
        )
    left = [name for name in wanted if name in draft and reasons.get(name) and draft.is_needed(name)]
    if left:
        raise RewriteError(f"'{left[0]}' would still be needed: {reasons[left[0]]}")


def _cancel(draft: Draft, values: Values, last: str) -> str | None:
    """Cancel ``last`` against the transposes before it; returns what is in the way, if something is."""
    try:
        permutation = _permutation(draft, values, last)
        region = _Region(permutation, last)
        source = nodes.data_inputs(draft.node(last))[0]
        if list(permutation) != sorted(permutation):
            source = _without(draft, values, source, region)
            _refuse_readers_outside(draft, region)
        elif draft.is_fetched(last) and draft.producer(source).op == "Placeholder":
            return f"'{last}' hands an input on as an output"
    except _NoWay as reason:
        return str(reason)
    _rewire(draft, region)
    draft.bypass(last, source)
    return None


def _permutation(draft: Draft, values: Values, name: str) -> tuple[int, ...]:
    ref = nodes.data_inputs(draft.node(name))[1]
    if not values.is_frozen(ref):
        raise _NoWay(f"the permutation of '{name}' is computed in the call")
    return tuple(int(axis) for axis in values.of([ref])[0])


def _without(draft: Draft, values: Values, ref: str, region: _Region) -> str:
    """Return the tensor that ``ref`` would be if nothing had been transposed; what lies between joins the region."""
    node = draft.producer(ref)
    if node.op == "Transpose":
        first = _permutation(draft, values, node.name)
        if len(first) != len(region.permutation) or any(first[axis] != i for i, axis in enumerate(region.permutation)):
            raise _NoWay(f"'{node.name}' and '{region.last}' do not undo each other")
        return nodes.data_inputs(node)[0]
    if node.op not in PER_ELEMENT | BINARY:
        raise _NoWay(f"'{node.name}' ({node.op}) lies before '{region.last}', and its axes have a meaning")
    if node.name not in region.inputs:
        region.inputs[node.name] = []  # so that a second path to it ends here
        region.inputs[node.name] = [_operand(draft, values, one, region) for one in nodes.data_inputs(node)]
    return ref


def _operand(draft: Draft, values: Values, ref: str, region: _Region) -> Any:
    """Return an operand as it is without transposes: a tensor, or an array for a constant whose axes move."""
    if not values.is_frozen(ref):
        return _without(draft, values, ref, region)
    value = values.of([ref])[0]
    if value.ndim > len(region.permutation):
        raise _NoWay(f"the constant '{nodes.source(ref)}' has more axes than '{region.last}' transposes")
    if value.size == 1:
        return ref
    full = value.reshape((1,) * (len(region.permutation) - value.ndim) + value.shape)
    return np.ascontiguousarray(np.transpose(full, region.permutation))


def _refuse_readers_outside(draft: Draft, region: _Region) -> None:
    inside = {region.last, *region.inputs}
    for name in region.inputs:
        outside = [reader for reader in draft.readers(name) if reader not in inside]
        if outside or draft.is_fetched(name):
            who = f"'{outside[0]}' reads" if outside else "the function returns"
            raise _NoWay(f"{who} '{name}' as it is transposed")


def _rewire(draft: Draft, region: _Region) -> None:
    for name, operands in region.inputs.items():
        refs = [
            draft.constant(f"{name}/untransposed", operand, draft.node(name))
            if isinstance(operand, np.ndarray)
            else operand
            for operand in operands
        ]
        draft.set_inputs(name, [*refs, *nodes.control_inputs(draft.node(name))])
        draft.set_shape(name, _transposed(draft.shape(nodes.tensor(name)), region.permutation))


def _transposed(shape: Any, permutation: Sequence[int]) -> Any:
    known = shape.rank == len(permutation)
    return tf.TensorShape([shape[axis] for axis in permutation] if known else None)
