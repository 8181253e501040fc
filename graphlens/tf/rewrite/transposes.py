"""``remove-transposes``: let the ops between transposes work on the order of axes that comes in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from graphlens.errors import RewriteError
from graphlens.ir.edits import RemoveTransposes
from graphlens.ir.nodes import Tensor
from graphlens.ir.permuting import Asked, Shape
from graphlens.ir.relayout import TRANSPOSE, relayouts
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.moving import carry_out
from graphlens.tf.rewrite.values import Values


@rewrite
def remove_transposes(draft: Draft, edit: RemoveTransposes) -> None:
    """Take out the transposes named, or all that can be; what has to do with them may go as well."""
    values, wanted = Values(draft), named(edit)
    all_of_them = [name for name in draft if _is_run(draft, values, name)]
    found = [name for name in wanted or all_of_them if name in draft and draft.node(name).op == TRANSPOSE]
    if not found:
        raise RewriteError(f"'{wanted[0]}' is no transpose of the traced graph" if wanted else "there is no transpose")
    regions = [
        region
        for region in relayouts(_Sight(draft, values, all_of_them))
        if not wanted or not {*found}.isdisjoint(region.vanishing)
    ]
    left = {*found} - {name for region in regions for name in region.vanishing}
    if (wanted and left) or not regions:
        raise RewriteError(f"without '{min(left)}', as much would have to be transposed elsewhere: {_why(draft, left)}")
    for region in regions:
        carry_out(draft, values, region)


def _is_run(draft: Draft, values: Values, name: str) -> bool:
    """Whether an op is a transpose of a tensor that is not the same in every call."""
    return draft.node(name).op == TRANSPOSE and not values.is_constant(nodes.tensor(name))


def _why(draft: Draft, left: Iterable[str]) -> str:
    """Name what reads or gives the transposed tensors, and its axes have a meaning."""
    around = dict.fromkeys(
        other
        for name in sorted(left)
        for other in (*draft.reads(nodes.tensor(name)), nodes.source(nodes.data_inputs(draft.node(name))[0]))
    )
    described = [f"'{name}' ({draft.node(name).op})" for name in around if draft.node(name).op != TRANSPOSE]
    return f"the axes of {' and '.join(described[:2]) or 'what is returned'} are fixed"


class _Sight:
    """The draft, as :mod:`graphlens.ir.relayout` looks at it; it is not changed meanwhile."""

    def __init__(self, draft: Draft, values: Values, transposes: Sequence[str]) -> None:
        self._draft, self._values, self._transposes = draft, values, transposes
        self.asked = cache(self._asked)
        self._places = {name: place for place, name in enumerate(draft.inputs_first(draft))}

    def transposes(self) -> Iterable[str]:
        return self._transposes

    def place(self, op: str) -> int:
        return self._places[op]

    def _asked(self, op: str) -> Asked:
        node = self._draft.node(op)
        inputs = nodes.data_inputs(node)
        return Asked(
            node.op,
            lambda key: _attribute(node, key),
            [_sizes(self._draft.shape(ref)) for ref in inputs],
            [_sizes(self._draft.shape(nodes.tensor(op, port))) for port in range(len(nodes.output_types(node)))],
            lambda port: self._numbers(inputs[port]) if port < len(inputs) else None,
        )

    def inputs(self, op: str) -> Sequence[Tensor]:
        return [_tensor(ref) for ref in nodes.data_inputs(self._draft.node(op))]

    def readers(self, tensor: Tensor) -> Sequence[str]:
        return self._draft.reads(nodes.tensor(*tensor))

    def is_returned(self, tensor: Tensor) -> bool:
        return nodes.tensor(*tensor) in self._draft.outputs or (tensor.op in self._draft.effects)

    def is_constant(self, tensor: Tensor) -> bool:
        return self._values.is_constant(nodes.tensor(*tensor))

    def _numbers(self, ref: str) -> tuple[int, ...] | None:
        if not self._draft.dtype(ref).is_integer or not self._values.is_frozen(ref):
            return None
        return tuple(int(number) for number in self._values.of([ref])[0].reshape(-1))

    def takes_time(self, transpose: str) -> bool:
        del transpose
        return True


def _tensor(ref: str) -> Tensor:
    return Tensor(nodes.source(ref), nodes.port(ref))


def _sizes(shape: Any) -> Shape:
    return None if shape.rank is None else tuple(shape.as_list())


def _attribute(node: Any, key: str) -> Any:
    if key not in node.attr:
        return None
    attribute = node.attr[key]
    kind = attribute.WhichOneof("value")
    if kind == "list":
        return tuple(attribute.list.i)
    return attribute.s.decode() if kind == "s" else getattr(attribute, kind)
