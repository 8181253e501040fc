"""Which ops of a graph are gradients: by what TensorFlow named or typed so, and by what lies between such ops."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

from graphlens.facts.flat.scopes import GRADIENT_SCOPES
from graphlens.facts.training.walking import Walk
from graphlens.ir.ops import TRANSPOSED_CONVOLUTIONS
from graphlens.ir.table import Table

# What these compute is a gradient, whatever they are called; only a transposed convolution computes forward with one.
_GRADIENT_TYPE: Final = re.compile(r"(?<!Un)(Grad(V\d)?$|Backprop(Filter|Input)?(V\d)?$|GradGrad)")
_TF1_SEGMENT: Final = re.compile(r"^(?P<op>.+)_grad$")  # `gradients/MatMul_grad/MatMul`
_FURTHER: Final = re.compile(r"^gradients_\d+$")  # of a second call of `tf.gradients`
_WITHIN: Final = re.compile(r"^(?P<op>.+_grad)/(?P<role>body|cond|then|else|branch_\d+)/(?P<inner>.+)$")
_SUMS: Final = frozenset({"AddN"})  # how a tape sums what several readers of a tensor hand back to it


class GradientName(NamedTuple):
    """What the name of a gradient op says: where it was called from, and the scope of its forward op within that."""

    place: str
    scope: str

    @property
    def forward(self) -> str:
        """The name of the forward op, or of the scope in which it stands."""
        return f"{self.place}{self.scope}"


def gradient_name(name: str) -> GradientName | None:
    """Read the name of an op that TensorFlow put into the scope of a gradient; of any other, return ``None``.

    >>> gradient_name("PartitionedCall/gradient_tape/net/dense/MatMul/MatMul_1")
    GradientName(place='PartitionedCall/', scope='net/dense/MatMul')
    >>> gradient_name("gradients/net/MatMul_grad/MatMul"), gradient_name("gradient_tape/Tile").scope
    (GradientName(place='', scope='net/MatMul'), '')

    The gradient of a loop or a branch runs the gradients of what that runs:

    >>> gradient_name("gradient_tape/net/while/net/while_grad/body/gradient_tape/net/while/gradients/net/mul_grad/Mul")
    GradientName(place='', scope='net/while/body/net/mul')
    """
    within = _WITHIN.match(name)
    whole = gradient_name(within["op"]) if within is not None else None
    if within is None or whole is None:
        return _told_by(name.split("/"))
    inner = within["inner"].split("/")
    called = [at for at, part in enumerate(inner) if part in GRADIENT_SCOPES]
    told = _told_by(inner[called[-1] :] if called else inner)
    scope = told.scope if told is not None else ""
    return whole._replace(scope="/".join(filter(None, (whole.scope, within["role"], scope))))


def _told_by(segments: Sequence[str]) -> GradientName | None:
    at = next((number for number, part in enumerate(segments[:-1]) if _opens_gradients(part, segments)), None)
    if at is None:
        return None
    place = "".join(f"{part}/" for part in segments[:at])
    half = (len(segments) - at - 1) // 2
    forward = segments[at + 1 : at + 1 + half]
    if half and [*forward, *forward[:-1], f"{forward[-1]}_grad"] == list(segments[at + 1 :]):
        return GradientName(place, "/".join(forward))  # a loop as a whole, in the scope of its name
    scope = segments[at + 1 : -1]
    for number, part in enumerate(scope):
        match = _TF1_SEGMENT.match(part)
        if match:
            scope = [*scope[:number], match["op"]]
            break
    return GradientName(place, "/".join(scope))


def _opens_gradients(part: str, segments: Sequence[str]) -> bool:
    return part in GRADIENT_SCOPES or (bool(_FURTHER.match(part)) and any(map(_TF1_SEGMENT.match, segments)))


def gradient_ops(walk: Walk) -> frozenset[int]:
    """Return the ops that carry gradients back from a loss.

    Names and types are the evidence; a name counts where the forward scope that it speaks of is there.  What is made of
    gradients and goes into further ones is a gradient itself, whoever named it: the body of a custom gradient, and
    sums of what several readers hand back.
    """
    known = frozenset(_told(walk.graph))
    if not known:
        return known
    below, above = walk.descendants(known), walk.ancestors(known)
    found = known.union(at for at in range(len(walk.graph)) if below[at] and above[at])
    return found.union(_sums_of(walk, found))


def _told(graph: Table) -> Iterator[int]:
    scopes, differentiated = _scopes(graph), frozenset(_differentiated(graph))
    typed = set(graph.positions_of({kind for kind in graph.by_type if _is_gradient_type(kind)}))
    for position, name in enumerate(graph.names):
        told = gradient_name(name)
        is_told = told is not None and name not in differentiated and _speaks_of_what_is_there(told, scopes)
        if is_told or position in typed:
            yield position


def _differentiated(graph: Table) -> Iterator[str]:
    """Yield the names after which gradients are called, and that read like a gradient's: a layer's, named so."""
    for name in graph.names:
        told = gradient_name(name)
        if told is not None and "gradients" in told.scope.split("/"):
            yield told.forward


def _is_gradient_type(kind: str) -> bool:
    return bool(_GRADIENT_TYPE.search(kind)) and kind not in TRANSPOSED_CONVOLUTIONS


def _speaks_of_what_is_there(told: GradientName, scopes: Collection[str]) -> bool:
    if not told.scope or told.scope.split("/")[0] in GRADIENT_SCOPES:  # the latter is the gradient of a gradient
        return True
    return told.forward in scopes or told.forward.rpartition("/")[0] in scopes


def _scopes(graph: Table) -> frozenset[str]:
    """Return the names of all ops that are called no gradients, and the scopes that hold any."""
    found: set[str] = {""}
    for name in graph.names:
        if not GRADIENT_SCOPES.isdisjoint(name.split("/")[:-1]):
            continue
        scope = name
        while scope not in found:
            found.add(scope)
            scope = scope.rpartition("/")[0]
    return frozenset(found)


def _sums_of(walk: Walk, gradients: Collection[int]) -> Iterator[int]:
    for position in walk.graph.positions_of(_SUMS):
        if position not in gradients and all(source in gradients for source in walk.before[position]):
            yield position
