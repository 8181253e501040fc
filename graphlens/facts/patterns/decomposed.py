"""Layers that a graph spells out in small ops: activations, softmax, layer normalization and attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from graphlens.facts.patterns.candidate import Candidate
from graphlens.facts.patterns.dataflow import Dataflow
from graphlens.ir.fusion import Role
from graphlens.ir.nodes import Constant, Tensor
from graphlens.ir.ops import CONSTANTS, PRODUCTS, QUOTIENTS, RESHAPES, SCALINGS, SELECTIONS, SUMS

# The longest of these patterns (GELU by tanh, with a cubic power) has eleven ops; twice that is room enough.
_LARGEST_REGION: Final = 24

_ELEMENTWISE: Final = frozenset(
    """Mul Add AddV2 Sub RealDiv Div Neg Square Pow Exp Tanh Sigmoid Erf Erfc Relu6 Relu Softplus Log Log1p Sqrt Rsqrt
    Reciprocal SquaredDifference Maximum Minimum Cast Inv""".split()
)
# Ops that lie between the parts of a layer normalization without changing a number of it.
_MOVES: Final = RESHAPES | {"Cast"}
_IN_NORMS: Final = _ELEMENTWISE | _MOVES | {"Mean"}
_SQUARES: Final = frozenset({"SquaredDifference", "Square", "Mul", "Pow"})
# From the scores of an attention to its softmax, and from there to the product with the values.
_SCORE_MOVES: Final = frozenset({"Reshape", "Transpose", "Cast"})
_WEIGHT_MOVES: Final = _SCORE_MOVES | SCALINGS | {"SelectV2"}  # dropout included
_HOPS: Final = 6

# Op type that marks an activation -> what must be beside it, and its name.  The first that fits names it.
_MARKS: Final[tuple[tuple[frozenset[str], str, str], ...]] = (
    (frozenset({"Erf"}), "gelu", "tf.nn.gelu"),
    (frozenset({"Erfc"}), "gelu", "tf.nn.gelu"),
    (frozenset({"Softplus", "Tanh"}), "mish", "keras.activations.mish"),
    (frozenset({"Relu6", "Mul"}), "hard swish", "keras.activations.hard_silu"),
    (frozenset({"Tanh", "Pow"}), "gelu (tanh form)", "tf.nn.gelu(x, approximate=True)"),
    (frozenset({"Tanh", "Square"}), "gelu (tanh form)", "tf.nn.gelu(x, approximate=True)"),
    (frozenset({"Sigmoid", "Mul"}), "swish", "tf.nn.silu"),
)


@dataclass(frozen=True, slots=True)
class Region:
    """Ops between one tensor and one op whose value depends on nothing else that changes."""

    source: Tensor
    ops: tuple[str, ...]


def region_behind(flow: Dataflow, last: str, allowed: frozenset[str], source: Tensor | None = None) -> Region | None:
    """Walk back from ``last`` until all that changes comes from one tensor, where given: from ``source``.

    ``None`` when it does not, or when an op on the way is not ``allowed``.
    """
    frontier = {Tensor(last, 0)}
    ops: list[str] = []
    while frontier:
        if ops and len(frontier) == 1 and source in (None, *frontier):
            return Region(frontier.pop(), tuple(reversed(ops)))
        latest = max(frontier - {source}, key=lambda tensor: flow.order[tensor.op])
        if len(ops) == _LARGEST_REGION or flow.op(latest.op).type not in allowed:
            return None
        ops.append(latest.op)
        frontier.discard(latest)
        frontier.update(tensor for tensor in flow.inputs.get(latest.op, ()) if tensor.op not in flow.parameters)
    return None


# -- activations ---------------------------------------------------------------------------------------------------


_ENDS_OF_ACTIVATIONS: Final = frozenset({"Mul", "Maximum", "RealDiv", "Div"})


def activations(flow: Dataflow) -> Mapping[str, Candidate]:
    """Return the activations written as several ops, and ``Maximum(x, 0)``, by their last op."""
    found: dict[str, Candidate] = {}
    for name, op in flow.live(_ENDS_OF_ACTIVATIONS.__contains__):
        if name in flow.parameters:
            continue
        if op.type == "Mul":
            candidate = _product_activation(flow, name)
        elif op.type == "Maximum":
            candidate = _rectifier(flow, name)
        elif op.type in QUOTIENTS:
            candidate = _softmax(flow, name)
        else:
            continue
        if candidate is not None:
            found[candidate.members[-1][0]] = candidate
    return found


def _product_activation(flow: Dataflow, name: str) -> Candidate | None:
    region = region_behind(flow, name, _IN_ACTIVATIONS)
    if region is None or len(region.ops) < 2:
        return None
    types = {flow.op(op).type for op in region.ops}
    label = next((label for marks, label, _ in _MARKS if marks <= types), None)
    if label is None or not types <= _TYPES_OF[label]:
        return None
    return _activation(label, (*region.ops, *_scaling_behind(flow, name, label)))


_PLAIN: Final = SUMS | SCALINGS | {"Sub", "Neg", "Cast"}
_TYPES_OF: Final[Mapping[str, frozenset[str]]] = {
    "gelu": _PLAIN | {"Erf", "Erfc"},
    "mish": frozenset({"Mul", "Tanh", "Softplus", "Cast"}),
    "hard swish": _PLAIN | {"Relu6"},
    "gelu (tanh form)": _PLAIN | {"Tanh", "Pow", "Square"},
    "swish": frozenset({"Mul", "Sigmoid", "Cast"}),
}
_IN_ACTIVATIONS: Final = frozenset().union(*_TYPES_OF.values())


def _scaling_behind(flow: Dataflow, name: str, label: str) -> tuple[str, ...]:
    """Return the only reader of ``name`` where it halves (GELU) or divides by six (hard swish) at the end."""
    readers = flow.readers(name)
    if label in ("swish", "mish") or len(readers) != 1 or name in flow.fetched:
        return ()
    reader = readers[0].op
    others = [tensor.op for tensor in flow.inputs[reader] if tensor.op != name]
    is_scaling = flow.op(reader).type in SCALINGS and len(others) == 1 and _scalar(flow, others[0]) is not None
    return (reader,) if is_scaling else ()


def _activation(label: str, ops: Sequence[str]) -> Candidate:
    return Candidate("activation", label, ops[-1], tuple((op, "activation") for op in ops))


def _rectifier(flow: Dataflow, name: str) -> Candidate | None:
    inputs = flow.inputs[name]
    if len(inputs) != 2 or not any(_scalar(flow, tensor.op) == 0 for tensor in inputs):
        return None
    spec = flow.spec(Tensor(name, 0))
    if spec is not None and "float" not in spec.dtype:
        return None
    return _activation("relu (as Maximum)", (name,))


def _softmax(flow: Dataflow, name: str) -> Candidate | None:
    """``Exp(x - Max(x)) / Sum(…)``, where the maximum may be missing."""
    inputs = flow.inputs[name]
    if len(inputs) != 2 or flow.op(inputs[0].op).type != "Exp" or flow.op(inputs[1].op).type != "Sum":
        return None
    exp, total = inputs[0].op, inputs[1].op
    shifted = _first_of(flow, exp)
    if shifted is None or _first_of(flow, total) != inputs[0] or not _is_along_the_end(flow, total):
        return None
    before: tuple[str, ...] = ()
    if flow.op(shifted.op).type == "Sub" and len(flow.inputs.get(shifted.op, ())) == 2:
        moved, maximum = flow.inputs[shifted.op]
        if flow.op(maximum.op).type == "Max" and _first_of(flow, maximum.op) == moved:
            before = (maximum.op, shifted.op)
    return _activation("softmax", (*before, exp, total, name))


def _first_of(flow: Dataflow, name: str) -> Tensor | None:
    """Return what an op reads first; ``None`` for one that reads nothing, as there are in damaged files."""
    return next(iter(flow.inputs[name]), None)


def _scalar(flow: Dataflow, name: str) -> float | None:
    constant = flow.op(name).constant if flow.op(name).type in CONSTANTS else None
    return float(constant.values[0]) if constant and constant.values and len(constant.values) == 1 else None


# -- layer normalization -------------------------------------------------------------------------------------------


def layer_norms(flow: Dataflow) -> Iterator[Candidate]:
    """Yield the normalizations over the last axis that are written with mean, variance and inverse root."""
    for name, _ in flow.live(("Rsqrt", "Sqrt").__contains__):
        if name not in flow.parameters:
            candidate = _layer_norm(flow, name)
            if candidate is not None:
                yield candidate


def _layer_norm(flow: Dataflow, root: str) -> Candidate | None:
    variance = _variance_behind(flow, root)
    source = _normalized_tensor(flow, variance) if variance is not None else None
    last = _end_of_norm(flow, root, source) if source is not None else None
    region = region_behind(flow, last, _IN_NORMS, source) if last is not None and source is not None else None
    ops = region.ops if region is not None else ()
    if root not in ops:
        return None
    label = "layer normalization" if sum(flow.op(op).type == "Mean" for op in ops) > 1 else "RMS normalization"
    return Candidate("layer-norm", label, root, tuple((op, "part") for op in ops))


def _variance_behind(flow: Dataflow, root: str) -> str | None:
    """Return the ``Mean`` that gives the variance: behind an added epsilon and ops that move data."""
    name = root
    for _ in range(_HOPS):
        changing = [tensor.op for tensor in flow.inputs[name] if tensor.op not in flow.parameters]
        if len(changing) != 1:
            return None
        name = changing[0]
        if flow.op(name).type == "Mean":
            return name if _is_along_the_end(flow, name) else None
        if flow.op(name).type not in SUMS | _MOVES | {"Maximum"}:
            return None
    return None


def _normalized_tensor(flow: Dataflow, variance: str) -> Tensor | None:
    """Return the tensor whose variance this is: what the squares, or the differences that are squared, are made of."""
    name = variance
    for _ in range(_HOPS):
        region = region_behind(flow, name, _IN_NORMS)
        if region is None:
            return None
        if any(flow.op(op).type in _SQUARES for op in region.ops):
            return _before_mean(flow, region)
        name = region.source.op
    return None


def _before_mean(flow: Dataflow, region: Region) -> Tensor:
    """A variance whose squares are read off alone ends at the difference: step on to the tensor itself."""
    source = region.source
    inputs = flow.inputs.get(source.op, ())
    if flow.op(source.op).type == "Sub" and len(inputs) == 2:
        mean = inputs[1].op
        if flow.op(mean).type == "Mean" and _first_of(flow, mean) == inputs[0]:
            return inputs[0]
    return source


def _is_along_the_end(flow: Dataflow, name: str) -> bool:
    """Tell whether a reduction runs over the last axis, and not over the first."""
    inputs = flow.inputs[name]
    axes: Constant | None = flow.op(inputs[1].op).constant if len(inputs) > 1 else None
    if axes is None or axes.values is None:
        return False
    spec = flow.spec(inputs[0])
    rank = len(spec.shape) if spec is not None and spec.shape is not None else None
    found = {int(axis) for axis in axes.values}
    return (-1 in found or (rank is not None and rank - 1 in found)) and 0 not in found and rank not in {1, len(found)}


def _end_of_norm(flow: Dataflow, root: str, source: Tensor) -> str | None:
    """Return the last op up to which the tensor is shifted and scaled, by what it gave itself or by parameters."""
    last, name = None, root
    while True:
        following = [reader.op for reader in flow.readers(name) if _normalizes(flow, reader.op, source)]
        if not following:
            return last
        last = name = max(following, key=lambda op: flow.order[op])


def _normalizes(flow: Dataflow, name: str, source: Tensor) -> bool:
    if flow.op(name).type not in SCALINGS | SUMS | {"Sub", "Neg"}:
        return False
    parameters = [tensor for tensor in flow.inputs[name] if tensor.op in flow.parameters]
    specs = [flow.spec(tensor) for tensor in parameters]
    if any(spec is not None and spec.shape == () for spec in specs):
        return False  # one number for all is not the scale of a normalization: an activation begins here
    return region_behind(flow, name, _IN_NORMS, source) is not None


# -- attention -----------------------------------------------------------------------------------------------------


def attentions(flow: Dataflow, softmaxes: Mapping[str, Candidate]) -> Iterator[Candidate]:
    """Yield scores, softmax and weighted sum of every attention; ``softmaxes`` are those written as several ops."""
    ends = {flow.op(name).type for name in softmaxes} | {"Softmax"}
    for name, op in flow.live(ends.__contains__):
        written = softmaxes.get(name)
        if op.type != "Softmax" and (written is None or written.name != "softmax"):
            continue
        inside = written.core if written else (name,)
        before, after = _scores_behind(flow, inside[0]), _product_after(flow, name)
        if before is not None and after is not None:
            parts: list[tuple[str, Role]] = [*before, *((op, "part") for op in inside), (after, "part")]
            yield Candidate("attention", "attention", before[0][0], tuple(parts))


def _scores_behind(flow: Dataflow, softmax: str) -> list[tuple[str, Role]] | None:
    """Return product, scaling and mask in the order in which they run."""
    found: list[tuple[str, Role]] = []
    scores = _first_of(flow, softmax)
    if scores is None:
        return None
    name = scores.op
    for _ in range(_HOPS):
        op_type = flow.op(name).type
        if op_type in PRODUCTS:
            both = flow.inputs[name][:2]
            if any(tensor.op in flow.parameters for tensor in both):
                return None
            return [(name, "base"), *reversed(found)]
        role = _score_role(op_type)
        inputs = [tensor for tensor in flow.inputs[name] if tensor.op not in flow.parameters]
        if role is None or not inputs:
            return None
        found.append((name, role))
        name = _towards_product(flow, inputs).op
    return None


def _score_role(op_type: str) -> Role | None:
    if op_type in SCALINGS:
        return "scale"
    if op_type in SUMS:
        return "bias"
    if op_type in SELECTIONS:
        return "part"
    return "bridge" if op_type in _SCORE_MOVES else None


def _towards_product(flow: Dataflow, inputs: Sequence[Tensor]) -> Tensor:
    """Of a sum's or a selection's inputs, the scores are the one with a product or a scaling behind it."""
    likely = PRODUCTS | SCALINGS | _SCORE_MOVES | SELECTIONS
    return next((tensor for tensor in inputs if flow.op(tensor.op).type in likely), inputs[0])


def _product_after(flow: Dataflow, softmax: str) -> str | None:
    name = softmax
    for _ in range(_HOPS):
        readers = flow.readers(name)
        product = next((reader.op for reader in readers if flow.op(reader.op).type in PRODUCTS), None)
        if product is not None:
            return product
        moves = [reader.op for reader in readers if flow.op(reader.op).type in _WEIGHT_MOVES]
        if not moves:
            return None
        name = moves[0]
    return None
