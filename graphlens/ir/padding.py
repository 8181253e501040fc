"""Zeros around an image: which of them a convolution can put there itself, and in which of TensorFlow's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from graphlens.ir.ops import CONVOLUTIONS

Form = Literal["SAME", "EXPLICIT"]

# Conv3D has no such attribute; with a bias fused into a depthwise convolution that has it, TensorFlow 2.21 with oneDNN
# ends the process.
_TAKES_AMOUNTS: Final = frozenset({"Conv2D"})
# Without oneDNN, TensorFlow 2.21 computes something else in Conv3D where SAME leaves a part of the image out.
_FAILS_ON_LEFT_OUT: Final = frozenset({"Conv3D"})


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of an image (``size`` is its length without zeros, ``None``: not known) and the window along it."""

    size: int | None
    before: int
    after: int
    window: int
    stride: int
    dilation: int

    @property
    def reach(self) -> int:
        """The length that one window covers, gaps included."""
        return (self.window - 1) * self.dilation + 1

    @property
    def missing(self) -> int | None:
        """What SAME adds to the image in all; below 0 where it leaves that many elements out instead."""
        if self.size is None:
            return self.reach - 1 if self.stride == 1 else None
        return (-(-self.size // self.stride) - 1) * self.stride + self.reach - self.size

    @property
    def is_same(self) -> bool:
        """Whether SAME gives the same windows: the first starts in the same place, and there are as many.

        Zeros behind the last window, which nothing reads, make no difference.
        """
        if self.missing is None or self.before != max(self.missing, 0) // 2:
            return False
        if self.size is None:
            return self.before + self.after == self.missing
        return (self.size + self.before + self.after - self.reach) // self.stride + 1 == -(-self.size // self.stride)


def pads_only(zeros: Sequence[Sequence[int]], spatial: Sequence[int]) -> bool:
    """Whether ``zeros`` (before and after, along every axis) lie along the axes ``spatial`` alone, and none is cut."""
    return all(
        min(before, after) >= 0 and (index in spatial or before == after == 0)
        for index, (before, after) in enumerate(zeros)
    )


def form_of(op_type: str, axes: Sequence[Axis]) -> Form | None:
    """Return how a convolution without padding of its own can be told to add these zeros; ``None``: it cannot.

    SAME is preferred: more kernels take it, and it holds for other sizes of the image too.
    """
    if op_type not in CONVOLUTIONS:
        return None
    whole = op_type not in _FAILS_ON_LEFT_OUT or all((axis.missing or 0) >= 0 for axis in axes)
    if whole and all(axis.is_same for axis in axes):
        return "SAME"
    return "EXPLICIT" if op_type in _TAKES_AMOUNTS else None
