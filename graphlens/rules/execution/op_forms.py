"""What an op is besides its type: a convolution that is a matrix product, a product with a vector, a mere move.

Everything here is read off shapes and attributes, and true of any device.  Where they are not known, nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal

from graphlens.ir.graph import input_specs
from graphlens.ir.nodes import Op, TensorSpec
from graphlens.ir.ops import BINARY, UNARY, family, is_matmul, runtime_type
from graphlens.ir.table import Table

Kind = Literal[
    "product", "depthwise", "grouped", "vector", "small-products", "lookup", "elementwise", "reshape", "move"
]
Shape = tuple[int, ...]

# Products of matrices below this size leave most of a kernel's blocks empty (16 floats fill a vector of AVX-512).
SMALL_MATRIX: Final = 16
# So many small products in one op are what it is about.
MANY_PRODUCTS: Final = 8

_CONVOLUTION = re.compile(r"_?(?:Fused|Padded|PadWith)*Conv([23])D(?:WithBias)?")
_BACKWARD = re.compile(r"Conv([23])DBackprop(Input|Filter)(?:V2)?")
_DEPTHWISE = re.compile(r"_?(?:Fused)?DepthwiseConv2d(?:Native)?(?:Backprop(Input|Filter))?")
_LOOKUPS = frozenset({"GatherV2", "Gather", "ResourceGather"})
_ELEMENTWISE = BINARY | UNARY | {"AddN", "BiasAdd", "Select", "SelectV2"}
_SPATIAL: Final[Mapping[str, slice]] = {
    "NHWC": slice(1, 3), "NDHWC": slice(1, 4), "NCHW": slice(2, 4), "NCDHW": slice(2, 5)
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Form:
    """What an op is: its kind, and the words for it, which are a phrase that follows "is" or stands for itself."""

    kind: Kind
    words: str


def form_of(graph: Table, name: str, trains: bool = False) -> Form | None:
    """Return what op ``name`` is, or ``None`` where its type says all, or its shapes are not known.

    ``trains`` says whether the graph does: what goes backward through a convolution is a gradient there, and a layer of
    its own in others.
    """
    op = graph.op(name)
    shapes = [_known(spec) for spec in input_specs(graph, name)]
    seen = _Seen(op, runtime_type(op.type), shapes, _known(op.outputs[0]) if op.outputs else None, trains)
    return next((form for told in _TOLD if (form := told(seen)) is not None), None)


@dataclass(frozen=True, slots=True)
class _Seen:
    """An op with its runtime type and the shapes that are known whole."""

    op: Op
    kind: str
    shapes: Sequence[Shape | None]
    output: Shape | None
    trains: bool

    def shape(self, index: int) -> Shape | None:
        return self.shapes[index] if index < len(self.shapes) else None


# -- convolutions -------------------------------------------------------------------------------------------------


def _convolution(seen: _Seen) -> Form | None:
    found, image, taps = _CONVOLUTION.fullmatch(seen.kind), seen.shape(0), seen.shape(1)
    rank = int(found[1]) if found else 0
    pixels = _pixels(seen.op, image, rank)
    if image is None or taps is None or pixels is None or len(taps) != rank + 2:
        return None
    called = _ranked("convolution", rank)
    if (groups := _groups(seen.op, image, taps)) > 1:
        each = f"{groups:,} groups of {taps[-2]:,} channels"
        return Form("grouped", f"a grouped {called}: {each}, each with filters of its own")
    return _as_product(seen.op, called, pixels, taps)


def _as_product(op: Op, called: str, pixels: Shape, taps: Shape) -> Form | None:
    if prod(pixels) == 1:
        return Form("product", f"a {called} of one pixel is a matrix product")
    if prod(taps[:-2]) == 1 and _steps(op) == 1:
        return Form("product", f"a {_by(taps)} {called} is a matrix product")
    if taps[:-2] == pixels and op.attrs.get("padding") == "VALID":
        return Form("product", f"a {called} with a filter as large as its image is a matrix product")
    return None


def _backward(seen: _Seen) -> Form | None:
    """Say what goes backward through a convolution: by the input, or by the filter."""
    found = _BACKWARD.fullmatch(seen.kind)
    if found is None:
        return None
    rank, by_filter = int(found[1]), found[2] == "Filter"
    taps, image = (seen.output, seen.shape(0)) if by_filter else (seen.shape(1), seen.output)
    pixels = _pixels(seen.op, seen.shape(2), rank)
    if taps is None or image is None or pixels is None or len(taps) != rank + 2 or _groups(seen.op, image, taps) > 1:
        return None
    gradient = by_filter or seen.trains
    called = _ranked("convolution" if gradient else "transposed convolution", rank)
    of = "the gradient of a" if gradient else "a"
    if prod(pixels) == 1 and not by_filter:
        return Form("product", f"{of} {called} {'to' if gradient else 'of'} one pixel is a matrix product")
    if prod(taps[:-2]) == 1 and _steps(seen.op) == 1:
        return Form("product", f"{of} {_by(taps)} {called} is a matrix product")
    return None


def _depthwise(seen: _Seen) -> Form | None:
    found = _DEPTHWISE.fullmatch(seen.kind)
    taps = seen.output if found and found[1] == "Filter" else seen.shape(1)
    if found is None or taps is None or len(taps) != 4:
        return None
    called = "a depthwise convolution" if found[1] is None else "the gradient of a depthwise convolution"
    return Form("depthwise", f"{called}: {_by(taps)} weights for each channel by itself, which is no matrix product")


def _groups(op: Op, image: Shape, taps: Shape) -> int:
    channels = image[1] if str(op.attrs.get("data_format", "")).startswith("NC") else image[-1]
    return channels // taps[-2] if taps[-2] else 1


def _pixels(op: Op, image: Shape | None, rank: int) -> Shape | None:
    """Return the spatial dimensions of ``image``; in TensorFlow's own layout unless the op names another."""
    where = _SPATIAL.get(str(op.attrs.get("data_format", "NHWC" if rank == 2 else "NDHWC")))
    return image[where] if image is not None and where is not None and rank and len(image) == rank + 2 else None


def _steps(op: Op) -> int:
    strides: Any = op.attrs.get("strides", ())
    return max((step for step in strides if isinstance(step, int)), default=1)


def _ranked(called: str, rank: int) -> str:
    return (
        called if rank == 2 else f"{rank}-D {called}" if called == "convolution" else f"transposed {rank}-D convolution"
    )


def _by(taps: Shape) -> str:
    return "x".join(map(str, taps[:-2]))


# -- everything else ----------------------------------------------------------------------------------------------


def _product(seen: _Seen) -> Form | None:
    left, output = seen.shape(0), seen.output
    if not is_matmul(seen.kind) or seen.kind == "Einsum" or not left or not output or min(len(left), len(output)) < 2:
        return None
    transposed = seen.op.attrs.get("transpose_a") or seen.op.attrs.get("adj_x")
    rows, columns, inner = output[-2], output[-1], left[-2] if transposed else left[-1]
    count = prod(output[:-2])
    if count >= MANY_PRODUCTS and max(rows, columns, inner) <= SMALL_MATRIX:
        return Form("small-products", f"{count:,} products of {rows}x{inner} by {inner}x{columns}, each on its own")
    if min(rows, columns) == 1 < max(rows, columns):
        return Form("vector", "a matrix times a vector: each weight is read for one multiplication")
    return None


def _lookup(seen: _Seen) -> Form | None:
    """Say how many rows are looked up, where the shapes leave no doubt that it is rows that are (axis 0)."""
    table, indices, output = seen.shape(0), seen.shape(1), seen.output
    if seen.kind not in _LOOKUPS or indices is None or output is None or output[: len(indices)] != indices:
        return None
    row = output[len(indices) :]
    if seen.kind != "ResourceGather" and (table is None or table[1:] != row):
        return None
    return Form("lookup", f"a lookup of {prod(indices):,} rows of {prod(row):,} numbers, as of an embedding")


def _transpose(seen: _Seen) -> Form | None:
    """Tell a transpose that is a reshape: what is longer than 1 keeps its order (equal sizes might change places)."""
    before, after = seen.shape(0), seen.output
    if seen.kind != "Transpose" or before is None or after is None:
        return None
    long = [size for size in before if size != 1]
    if long != [size for size in after if size != 1] or len(set(long)) != len(long):
        return None
    return Form("reshape", "a transpose that moves only dimensions of size 1 is a reshape")


def _elementwise(seen: _Seen) -> Form | None:
    if seen.kind not in _ELEMENTWISE:
        return None
    if seen.kind == "AddN":
        return Form("elementwise", f"a sum of {len(seen.shapes)} tensors, element by element")
    last = [shape[-1] for shape in seen.shapes if shape]
    if seen.kind in BINARY and seen.output and 1 in last and seen.output[-1] > 1:
        return Form("elementwise", "elementwise, with an input that is stretched along the last dimension")
    return Form("elementwise", "elementwise: each number is read and written once")


def _move(seen: _Seen) -> Form | None:
    return Form("move", "moves data and computes nothing") if family(seen.kind) == "data-movement" else None


def _known(spec: TensorSpec | None) -> Shape | None:
    if spec is None or spec.shape is None:
        return None
    sizes = tuple(size for size in spec.shape if size is not None)
    return sizes if len(sizes) == len(spec.shape) else None


# The first that has something to say does.
_TOLD: Final = (_convolution, _backward, _depthwise, _product, _lookup, _transpose, _elementwise, _move)
