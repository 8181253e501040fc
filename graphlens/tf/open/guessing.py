"""Sizes that a model leaves open, told by the graph: images are guessed, and row splits fit what they split."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from graphlens.tf.open import sizes
from graphlens.tf.open.following import Graph
from graphlens.tf.open.inputs import IMAGE_SIDE, InputSpec

# An image has so many channels: grey, RGB, RGB with alpha.
_CHANNELS: Final = (1, 3, 4)
_INTEGERS: Final = ("int32", "int64")
_NUMBERED: Final = re.compile(r"(?P<base>.+)[_/](?P<number>\d+)")


def may_be_told(specs: Sequence[InputSpec], given: Collection[str]) -> bool:
    """Whether there is an input that the graph may tell something about; ``given`` are those that the user has shaped.

    Looking at a graph takes time, and of a function that is not traced yet another trace.
    """
    return any(_spatial_axes(spec) for spec in specs if spec.name not in given) or any(_split_by(specs).values())


def told(specs: Sequence[InputSpec], given: Collection[str], graph: Graph) -> tuple[InputSpec, ...]:
    """Return the inputs with what the graph says: images with a size, row splits with what they split."""
    splits = {
        splitter: values
        for splitter, values in _split_by(specs).items()
        if values and sizes.is_row_splits(graph, _placeholder(specs, splitter))
    }
    return tuple(
        replace(spec, splits_of=splits[spec.name], innermost=_is_last(spec.name, splits))
        if spec.name in splits
        else _sized(spec, graph)
        if spec.name not in given
        else spec
        for spec in specs
    )


def _placeholder(specs: Sequence[InputSpec], name: str) -> str:
    return next(spec.placeholder for spec in specs if spec.name == name)


# -- images --------------------------------------------------------------------------------------------------------


def _sized(spec: InputSpec, graph: Graph) -> InputSpec:
    """Return an input with the size of an image where it is one and leaves it open."""
    axes = _spatial_axes(spec)
    # Without a leading axis it might be a sequence: resizing is what nobody does to one.
    asks = sizes.is_image if spec.shape and len(spec.shape) == 4 else sizes.is_resized
    if not axes or not asks(graph, spec.placeholder):
        return spec
    assert spec.shape is not None
    shape = tuple(IMAGE_SIDE if axis in axes else size for axis, size in enumerate(spec.shape))
    return replace(spec, shape=shape, guessed=f"{IMAGE_SIDE} x {IMAGE_SIDE} guessed, the model leaves the size open")


def _spatial_axes(spec: InputSpec) -> tuple[int, int] | None:
    """Return the axes of height and width where both are open and nothing else but the batch is."""
    shape = spec.shape or ()
    layouts = {3: ((0, 1, 2),), 4: ((1, 2, 3), (2, 3, 1))}.get(len(shape), ())
    for height, width, channels in layouts:
        if shape[height] is None and shape[width] is None and shape[channels] in _CHANNELS:
            return height, width
    return None


# -- ragged tensors ------------------------------------------------------------------------------------------------


def _split_by(specs: Sequence[InputSpec]) -> Mapping[str, str | None]:
    """Return input -> the one whose values it may split into rows, which has its name without the number behind it.

    A signature takes a ragged tensor apart: into its values and, numbered, the splits of its rows, outer ones first.
    """
    names = {spec.name for spec in specs}
    return {spec.name: _values(spec, names) for spec in specs if len(spec.shape or ()) == 1}


def _values(spec: InputSpec, names: Collection[str]) -> str | None:
    numbered = _NUMBERED.fullmatch(spec.name)
    if numbered is None or spec.dtype not in _INTEGERS or spec.shape != (None,):
        return None
    first = numbered["base"], f"{numbered['base']}/0"
    return next((name for name in first if name in names and name != spec.name), None)


def _is_last(name: str, splits: Mapping[str, str]) -> bool:
    of_same = [other for other, values in splits.items() if values == splits[name]]
    return name == max(of_same, key=_number)


def _number(name: str) -> int:
    numbered = _NUMBERED.fullmatch(name)
    return int(numbered["number"]) if numbered else 0
