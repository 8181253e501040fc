"""What an op becomes when the axes of what it reads are in another order: one entry for each kind of op.

A *layout* tells how a tensor is kept: axis ``k`` of the tensor as it is written is axis ``layout[k]`` of the one that
is kept, so that ``written = transpose(kept, layout)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from math import prod
from types import MappingProxyType
from typing import Any, Final

from graphlens.ir.layouts import CHANNELS_FIRST, CHANNELS_LAST
from graphlens.ir.ops import BINARY, COMPARISONS, PER_ELEMENT

Layout = tuple[int, ...]
Shape = tuple[int | None, ...] | None
Changes = Mapping[int, tuple[int, ...]]

# What no shape tells of an axis (a batch, mostly) is taken for so many elements where tensors are compared.
OPEN_ELEMENTS: Final = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """An op as it is written.

    Attributes
    ----------
    attribute
        Gives an attribute by name, ``None`` where it is absent.
    inputs, outputs
        Shapes of its tensors.
    numbers
        Gives the whole numbers that an input always holds, flattened; ``None`` where they are not fixed or not known.
    """

    type: str
    attribute: Callable[[str], Any]
    inputs: Sequence[Shape]
    outputs: Sequence[Shape]
    numbers: Callable[[int], tuple[int, ...] | None]


@dataclass(frozen=True, slots=True)
class Moved:
    """The op that does the same for tensors in other layouts.

    Attributes
    ----------
    inputs
        The layout in which it reads each input; ``None`` for one that stays as it is.
    outputs
        The layout in which it gives each output; ``None`` for one that is as it was.
    numbers
        Inputs that get other numbers.
    attributes
        Attributes that get other values.
    is_exact
        Whether it gives the same bits: sums in another order may not.
    """

    inputs: tuple[Layout | None, ...]
    outputs: tuple[Layout | None, ...]
    numbers: Changes = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    is_exact: bool = True


# -- layouts ------------------------------------------------------------------------------------------------------


def is_identity(layout: Sequence[int]) -> bool:
    """Whether a layout is the order as it is written."""
    return all(axis == index for index, axis in enumerate(layout))


def composed(layout: Layout | None, permutation: Layout) -> Layout:
    """Return the layout of what a transpose gives, which reads a tensor in ``layout`` and is left out.

    >>> composed((0, 3, 1, 2), (0, 2, 3, 1)), composed(None, (0, 3, 1, 2))
    ((0, 1, 2, 3), (0, 3, 1, 2))
    """
    return permutation if layout is None else tuple(layout[axis] for axis in permutation)


def inverse(layout: Sequence[int]) -> Layout:
    """Return the permutation that turns the tensor as it is written into the one that is kept.

    >>> inverse((0, 3, 1, 2))
    (0, 2, 3, 1)
    """
    return tuple(sorted(range(len(layout)), key=layout.__getitem__))


def moves_nothing(shape: Shape, permutation: Sequence[int]) -> bool:
    """Whether a transpose of a tensor of this shape only renames axes: those longer than 1 keep their order.

    >>> moves_nothing((1, 8, 1, 1), (0, 2, 3, 1)), moves_nothing((2, 8, 4, 4), (0, 2, 3, 1))
    (True, False)
    """
    if shape is None or len(shape) != len(permutation):
        return is_identity(permutation)
    long = [axis for axis in permutation if shape[axis] != 1]
    return long == sorted(long)


def elements(shape: Shape) -> int:
    """Return the number of elements, with a guess for axes whose length is open.

    >>> elements((None, 3)), elements(())
    (48, 1)
    """
    return prod(OPEN_ELEMENTS if size is None else size for size in shape) if shape is not None else OPEN_ELEMENTS**2


def permuted(values: Sequence[Any], layout: Sequence[int]) -> tuple[Any, ...]:
    """Bring one value per axis into the order in which the axes are kept.

    >>> permuted("NCHW", (0, 3, 1, 2))
    ('N', 'H', 'W', 'C')
    """
    return tuple(values[axis] for axis in inverse(layout))


def _without(layout: Layout, axes: Sequence[int]) -> Layout:
    """Return the layout of what is left without some axes.

    >>> _without((0, 3, 1, 2), (2, 3)), _without((0, 3, 1, 2), (0,))
    ((0, 1), (2, 0, 1))
    """
    left = [layout[axis] for axis in range(len(layout)) if axis not in axes]
    return tuple(sorted(left).index(axis) for axis in left)


def _within(axes: Sequence[int] | None, rank: int) -> tuple[int, ...] | None:
    """Return axes counted from the first; ``None`` for those that no tensor of this rank has."""
    if axes is None or any(not -rank <= axis < rank for axis in axes):
        return None
    return tuple(axis % rank for axis in axes)


# -- kinds of ops -------------------------------------------------------------------------------------------------

Rule = Callable[[Asked, Layout], Moved | None]


def _elementwise(asked: Asked, layout: Layout) -> Moved | None:
    """Each number by itself, or with those in its place; a shorter shape is filled up with axes of one in front."""
    ranks = [len(shape) if shape is not None else None for shape in asked.inputs]
    if len(ranks) == 1:
        ranks = [len(layout)]
    if any(rank is None or rank > len(layout) for rank in ranks) or len(layout) not in ranks:
        return None
    return Moved(tuple(layout if rank else None for rank in ranks), (layout,) * len(asked.outputs))


def _alike(asked: Asked, layout: Layout) -> Moved | None:
    """Elementwise, where a shorter shape would not be filled up in front."""
    same = all(shape is not None and len(shape) == len(layout) for shape in asked.inputs)
    return _elementwise(asked, layout) if same else None


def _only_the_first(asked: Asked, layout: Layout) -> Moved | None:
    """Elementwise in the first input; all others are single numbers."""
    if any(shape is None or len(shape) for shape in asked.inputs[1:]):
        return None
    return _kept(asked, layout)


def _kept(
    asked: Asked, layout: Layout, port: int = 0, numbers: Changes = MappingProxyType({}), **how: Any
) -> Moved | None:
    """Return an op that gives all its outputs in the layout in which it reads input ``port``."""
    inputs = tuple(layout if index == port else None for index in range(len(asked.inputs)))
    return Moved(inputs, (layout,) * len(asked.outputs), numbers, **how)


def _per_axis(*ports: int) -> Rule:
    """An op with one number per axis, or several in turn."""

    def rule(asked: Asked, layout: Layout) -> Moved | None:
        changed = {port: _rows(asked.numbers(port), layout) for port in ports}
        found = {port: numbers for port, numbers in changed.items() if numbers is not None}
        return _kept(asked, layout, 0, found) if len(found) == len(changed) else None

    return rule


def _rows(numbers: Sequence[int] | None, layout: Layout) -> tuple[int, ...] | None:
    if numbers is None or not numbers or len(numbers) % len(layout):
        return None
    width = len(numbers) // len(layout)
    rows = [numbers[start : start + width] for start in range(0, len(numbers), width)]
    return tuple(number for row in permuted(rows, layout) for number in row)


def _along(port: int, tensor: int = 0, *, is_exact: bool = True) -> Rule:
    """An op along the axes that input ``port`` names, which keeps them."""

    def rule(asked: Asked, layout: Layout) -> Moved | None:
        axes = _within(asked.numbers(port), len(layout))
        if axes is None:
            return None
        return _kept(asked, layout, tensor, {port: tuple(layout[axis] for axis in axes)}, is_exact=is_exact)

    return rule


def _reduction(*, is_exact: bool) -> Rule:
    def rule(asked: Asked, layout: Layout) -> Moved | None:
        axes = _within(asked.numbers(1), len(layout))
        if axes is None:
            return None
        kept = layout if asked.attribute("keep_dims") else _without(layout, axes)
        outputs = (None if is_identity(kept) else kept,)
        return Moved((layout, None), outputs, {1: tuple(layout[axis] for axis in axes)}, is_exact=is_exact)

    return rule


def _concat(asked: Asked, layout: Layout) -> Moved | None:
    last = len(asked.inputs) - 1
    axes = _within(asked.numbers(last), len(layout))
    if axes is None or len(axes) != 1:
        return None
    return Moved((*(layout,) * last, None), (layout,), {last: (layout[axes[0]],)})


def _along_the_last(asked: Asked, layout: Layout) -> Moved | None:
    return _kept(asked, layout) if layout[-1] == len(layout) - 1 else None


def _gather(asked: Asked, layout: Layout) -> Moved | None:
    axes, indices = _within(asked.numbers(2), len(layout)), asked.inputs[1]
    if axes is None or len(axes) != 1 or asked.attribute("batch_dims") or indices is None or len(indices) > 1:
        return None
    kept = layout if indices else _without(layout, axes)
    return Moved((layout, None, None), (None if is_identity(kept) else kept,), {2: (layout[axes[0]],)})


def _per_channel(asked: Asked, layout: Layout) -> Moved | None:
    """A bias or normalization; on a CPU, only channels that come last are sure to have a kernel."""
    rank = len(layout)
    written = asked.attribute("data_format") or "NHWC"
    if written not in CHANNELS_FIRST | CHANNELS_LAST:
        return None
    channels = 1 if written in CHANNELS_FIRST else rank - 1
    if layout[channels] != rank - 1:
        return None
    new = "NDHWC" if written in {"NCDHW", "NDHWC"} else "NHWC"
    inputs = (layout, *(None,) * (len(asked.inputs) - 1))
    outputs = (layout, *(None,) * (len(asked.outputs) - 1))
    return Moved(inputs, outputs, {}, {"data_format": new}, is_exact=asked.type == "BiasAdd")


# -- parts of a tensor --------------------------------------------------------------------------------------------

_MASKS: Final = ("begin_mask", "end_mask", "shrink_axis_mask")


def _strided_slice(asked: Asked, layout: Layout) -> Moved | None:
    """Name what is taken along every axis, and bring that into the order of the axes."""
    given = [asked.numbers(port) for port in (1, 2, 3)]
    if asked.attribute("new_axis_mask") or any(numbers is None for numbers in given):
        return None
    columns = [list(numbers or ()) for numbers in given]
    columns += [_bits(asked.attribute(mask), len(columns[0])) for mask in _MASKS]
    whole = (0, 0, 1, 1, 1, 0)
    rows = list(zip(*columns, strict=True))
    ellipsis = _bits(asked.attribute("ellipsis_mask"), len(rows))
    at = ellipsis.index(1) if 1 in ellipsis else len(rows)
    rows[at : at + 1] = [whole] * (len(layout) - len(rows) + (1 in ellipsis))
    if len(rows) != len(layout):
        return None
    begin, end, stride, *masks = zip(*permuted(rows, layout), strict=True)
    kept = _without(layout, [axis for axis, row in enumerate(rows) if row[-1]])
    attributes = {name: _mask(bits) for name, bits in zip(_MASKS, masks, strict=True)} | {"ellipsis_mask": 0}
    inputs = (layout, None, None, None)
    return Moved(inputs, (None if is_identity(kept) else kept,), {1: begin, 2: end, 3: stride}, attributes)


def _bits(mask: Any, count: int) -> list[int]:
    return [int(mask or 0) >> index & 1 for index in range(count)]


def _mask(bits: Sequence[int]) -> int:
    return sum(bit << index for index, bit in enumerate(bits))


# -- other shapes of a tensor -------------------------------------------------------------------------------------


def _squeeze(asked: Asked, layout: Layout) -> Moved | None:
    shape = asked.inputs[0]
    axes = _within(asked.attribute("squeeze_dims"), len(layout))
    if not axes:
        if shape is None or None in shape:
            return None
        axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    kept = _without(layout, axes)
    gone = tuple(sorted(layout[axis] for axis in axes))
    return Moved((layout,), (None if is_identity(kept) else kept,), {}, {"squeeze_dims": gone})


def _expand(asked: Asked, layout: Layout) -> Moved | None:
    axes = _within(asked.numbers(1), len(layout) + 1)
    if axes is None or len(axes) != 1:
        return None
    axis = axes[0]
    place = layout[axis] if axis < len(layout) else layout[-1] + 1
    shifted = [other + (other >= place) for other in layout]
    made = (*shifted[:axis], place, *shifted[axis:])
    return Moved((layout, None), (None if is_identity(made) else made,), {1: (place,)})


def _reshape(asked: Asked, layout: Layout) -> Moved | None:
    """Join or split axes that lie beside each other in both orders."""
    before, numbers = asked.inputs[0], asked.numbers(1)
    if before is None or numbers is None or len(before) != len(layout):
        return None
    groups = _groups(before, _sizes_told(numbers, asked.outputs[0] if asked.outputs else None))
    order = _order_kept(before, layout, groups) if groups is not None else None
    if groups is None or order is None:
        return None
    axes = [axis for index in order for axis in groups[index][1]]
    kept = inverse(axes)
    return Moved((layout, None), (None if is_identity(kept) else kept,), {1: tuple(numbers[axis] for axis in axes)})


def _sizes_told(numbers: Sequence[int], known: Shape) -> tuple[int | None, ...]:
    """Return the shape that a reshape gives: what its numbers leave open may be known, never the other way round.

    >>> _sizes_told((-1, 16, 8), (None, None, 8)), _sizes_told((-1, 3), (5, 3)), _sizes_told((-1, 3), None)
    ((None, 16, 8), (5, 3), (None, 3))
    """
    told = known if known is not None and len(known) == len(numbers) else (None,) * len(numbers)
    return tuple(size if number < 0 else number for number, size in zip(numbers, told, strict=True))


Group = tuple[tuple[int, ...], tuple[int, ...]]


def _groups(before: Sequence[int | None], after: Sequence[int | None]) -> list[Group] | None:
    """Return the axes before and after a reshape that hold the same elements, fewest at a time.

    >>> _groups((2, 4, 3, 1), (8, 3))
    [((0, 1), (0,)), ((2,), (1,)), ((3,), ())]
    """
    groups: list[Group] = []
    i = j = 0
    while i < len(before) or j < len(after):
        start, other = i, j
        sizes = (before[i] if i < len(before) else 1, after[j] if j < len(after) else 1)
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        left, right = sizes
        while left != right:
            if left is None or right is None or 0 in (left, right):
                return None
            if left < right and i < len(before):
                left, i = _times(left, before[i]), i + 1
            elif right < left and j < len(after):
                right, j = _times(right, after[j]), j + 1
            else:
                return None
        groups.append((tuple(range(start, i)), tuple(range(other, j))))
    return groups


def _times(size: int, other: int | None) -> int | None:
    return None if other is None else size * other


def _order_kept(before: Sequence[int | None], layout: Layout, groups: Sequence[Group]) -> list[int] | None:
    """Return the groups in the order in which they are kept; ``None`` where one is torn apart or turned."""
    group_of = {axis: index for index, (axes, _) in enumerate(groups) for axis in axes}
    long = [axis for axis in inverse(layout) if before[axis] != 1]
    met = [index for index, _ in groupby(group_of[axis] for axis in long)]
    in_turn = all(a < b for a, b in pairwise(long) if group_of[a] == group_of[b])
    if len(met) != len(set(met)) or not in_turn:
        return None
    return [*met, *(index for index in range(len(groups)) if index not in met)]


# -- the table ----------------------------------------------------------------------------------------------------

_ELEMENTWISE: Final = (
    PER_ELEMENT | BINARY | COMPARISONS
    | frozenset(
        """Equal NotEqual LogicalAnd LogicalOr FloorDiv FloorMod Mod TruncateDiv TruncateMod MulNoNan Xdivy Xlogy
        Xlog1py Atan2 AddN SelectV2 ReluGrad Relu6Grad EluGrad SeluGrad LeakyReluGrad TanhGrad SigmoidGrad SoftplusGrad
        SoftsignGrad RsqrtGrad SqrtGrad ReciprocalGrad InvGrad IsNan IsInf IsFinite ZerosLike OnesLike
        BitwiseAnd BitwiseOr BitwiseXor _UnaryOpsComposition Swish _FusedMish""".split()
    )
)  # fmt: skip
_FAKE_QUANTIZATIONS: Final = frozenset({"FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars"})


@dataclass(frozen=True, slots=True)
class _Kind:
    rule: Rule
    tensor: int | None = 0  # the input that decides on the layout; ``None``: any


_TABLE: Final[Mapping[str, _Kind]] = {
    **dict.fromkeys(_ELEMENTWISE, _Kind(_elementwise, None)),
    "Select": _Kind(_alike, None),
    **dict.fromkeys(_FAKE_QUANTIZATIONS | {"ClipByValue"}, _Kind(_only_the_first)),
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad", "Tile"), _Kind(_per_axis(1))),
    **dict.fromkeys(("Max", "Min", "All", "Any", "ArgMax", "ArgMin"), _Kind(_reduction(is_exact=True))),
    **dict.fromkeys(("Sum", "Mean", "Prod", "EuclideanNorm"), _Kind(_reduction(is_exact=False))),
    **dict.fromkeys(("Cumsum", "Cumprod"), _Kind(_along(1, is_exact=False))),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _Kind(_along_the_last)),
    **dict.fromkeys(("BiasAdd", "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _Kind(_per_channel)),
    "ReverseV2": _Kind(_along(1)),
    "Slice": _Kind(_per_axis(1, 2)),
    "StridedSlice": _Kind(_strided_slice),
    "Split": _Kind(_along(0, tensor=1), 1),
    "SplitV": _Kind(_along(2)),
    "ConcatV2": _Kind(_concat, None),
    "GatherV2": _Kind(_gather),
    "Squeeze": _Kind(_squeeze),
    "ExpandDims": _Kind(_expand),
    "Reshape": _Kind(_reshape),
}  # fmt: skip


def deciding_inputs(op_type: str, count: int) -> range:
    """Return which of ``count`` inputs may bring a layout of theirs into an op of this type."""
    kind = _TABLE.get(op_type)
    if kind is None:
        return range(0)
    return range(count) if kind.tensor is None else range(kind.tensor, min(kind.tensor + 1, count))


def moved(asked: Asked, layout: Layout) -> Moved | None:
    """Return what an op becomes whose tensor is kept in ``layout``; ``None`` where its axes are fixed."""
    kind = _TABLE.get(asked.type)
    shape = asked.inputs[kind.tensor] if kind and kind.tensor is not None and len(asked.inputs) > kind.tensor else None
    if kind is None or (shape is not None and len(shape) != len(layout)):
        return None
    return kind.rule(asked, layout)
