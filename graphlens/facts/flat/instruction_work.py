"""What one instruction of XLA computes, by the shapes in its module: its FLOPs, and the op that most of them are of.

A multiply and an add are two operations and a transcendental function is one, as for the ops of TensorFlow (``costs``);
what a fusion or a call computes is what its instructions do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Final

from graphlens.ir.graph import Function, Graph, input_specs
from graphlens.ir.nodes import Op, TensorSpec

Specs = Sequence[TensorSpec | None]

_ONE_PER_OUTPUT: Final = frozenset(
    """abs add and atan2 cbrt ceil clamp compare cosine divide erf exponential exponential-minus-one floor imag
    is-finite log log-plus-one logistic map maximum minimum multiply negate not or popcnt power real remainder
    round-nearest-afz round-nearest-even rsqrt select shift-left shift-right-arithmetic shift-right-logical sign sine
    sqrt subtract tan tanh xor""".split()
)
# These move, rename or convert data and compute nothing, as TensorFlow's ops that do the same.
_NO_FLOPS: Final = frozenset(
    """parameter constant tuple get-tuple-element bitcast bitcast-convert copy copy-start copy-done transpose reshape
    broadcast slice dynamic-slice dynamic-update-slice concatenate pad gather iota reverse convert after-all
    optimization-barrier get-dimension-size partition-id replica-id""".split()
)
# They compute what the computations that they call do, once.
_CONTAINERS: Final = frozenset({"fusion", "call"})


def flops_of(op: Op, function: Function, module: Graph) -> int | None:
    """Return the operations of one execution of an instruction of ``function``; ``None`` where they are not known."""
    if op.type in _CONTAINERS:
        parts = [flops_of(part, body, module) for body in _bodies(op, module) for part in body.graph.ops()]
        return None if not parts or None in parts else sum(part for part in parts if part is not None)
    if op.type in _NO_FLOPS:
        return 0
    if op.type in _ONE_PER_OUTPUT:
        return op.outputs[0].elements if op.outputs else None
    formula = _FORMULAS.get(op.type)
    return formula(op, input_specs(function.graph, op.name)) if formula else None


def stands_for(op: Op, function: Function, module: Graph) -> str:
    """Return the type of the op, as TensorFlow calls it, that most of an instruction's operations belong to.

    Where it computes nothing, or nobody says which ops it was made of, that is its own opcode: that of the last
    instruction of a fusion.
    """
    work: dict[str, int] = defaultdict(int)
    for part, body in parts_of(op, function, module):
        work[str(part.attrs.get("op_type", part.type))] += flops_of(part, body, module) or 0
    most = max(work, key=lambda kind: work[kind], default="")
    if most and work[most]:
        return most
    return _last_opcode(op, module) if op.type in _CONTAINERS or op.type in _NO_FLOPS else _type_of(op)


def _type_of(op: Op) -> str:
    return str(op.attrs.get("op_type", op.type))


def parts_of(op: Op, function: Function, module: Graph) -> Iterator[tuple[Op, Function]]:
    """Yield the instructions that do the work of one, each with the computation that it stands in."""
    if op.type not in _CONTAINERS:
        yield op, function
        return
    for body in _bodies(op, module):
        for part in body.graph.ops():
            yield from parts_of(part, body, module)


def _bodies(op: Op, module: Graph) -> Iterator[Function]:
    yield from (module.functions[call.function] for call in op.calls if call.function in module.functions)


def _last_opcode(op: Op, module: Graph) -> str:
    for body in _bodies(op, module) if op.type in _CONTAINERS else ():
        for root in body.outputs:
            return _last_opcode(body.graph.op(root), module)
    return op.type


# -- formulas ------------------------------------------------------------------------------------------------------


def _dot(op: Op, inputs: Specs) -> int | None:
    """2 * outputs * contracted size."""
    elements, left, contracted = _elements(op), _shape(inputs, 0), op.attrs.get("lhs_contracting_dims")
    if elements is None or left is None or contracted is None or any(dim >= len(left) for dim in contracted):
        return None
    return 2 * elements * prod(left[dim] for dim in contracted)


def _convolution(op: Op, inputs: Specs) -> int | None:
    """2 * outputs * filter taps * input channels per group: all of the filter but its output channels.

    Taps on zeros around the input count, as TensorFlow counts them.
    """
    elements, kernel = _elements(op), _shape(inputs, 1)
    output_channels = int(op.attrs.get("kernel_output_dim", -1))
    if elements is None or kernel is None or not 0 <= output_channels < len(kernel) or not kernel[output_channels]:
        return None
    return 2 * elements * (prod(kernel) // kernel[output_channels])


def _reduce(_: Op, inputs: Specs) -> int | None:
    """One operation per element of what is reduced."""
    return inputs[0].elements if inputs and inputs[0] else None


def _reduce_window(op: Op, _: Specs) -> int | None:
    """One operation per element of each window."""
    elements, window = _elements(op), op.attrs.get("window")
    return None if elements is None or not window else elements * prod(window)


def _select_and_scatter(op: Op, inputs: Specs) -> int | None:
    """One operation per element of each window, and one that adds its gradient (the second input)."""
    window, gradient = op.attrs.get("window"), _shape(inputs, 1)
    return None if not window or gradient is None else prod(gradient) * (prod(window) + 1)


def _scatter(_: Op, inputs: Specs) -> int | None:
    """One operation per element that is scattered (the last input)."""
    updates = _shape(inputs, len(inputs) - 1)
    return None if updates is None or len(inputs) != 3 else prod(updates)


_FORMULAS: Final[Mapping[str, Callable[[Op, Specs], int | None]]] = {
    "dot": _dot,
    "convolution": _convolution,
    "reduce": _reduce,
    "reduce-window": _reduce_window,
    "select-and-scatter": _select_and_scatter,
    "scatter": _scatter,
}


def _elements(op: Op) -> int | None:
    return op.outputs[0].elements if op.outputs else None


def _shape(inputs: Specs, index: int) -> tuple[int, ...] | None:
    spec = inputs[index] if 0 <= index < len(inputs) else None
    if spec is None or spec.shape is None or None in spec.shape:
        return None
    return tuple(size for size in spec.shape if size is not None)
