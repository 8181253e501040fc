"""The orders of a tensor's axes, by the names that TensorFlow gives them."""

from __future__ import annotations

from typing import Final

CHANNELS_FIRST: Final = frozenset({"NCHW", "NCDHW"})
CHANNELS_LAST: Final = frozenset({"NHWC", "NDHWC"})
_SPATIAL: Final = "DHW"


def spatial_axes(layout: str) -> tuple[int, ...] | None:
    """Return where depth, height and width are in a tensor; ``None`` for a layout that is packed or not known.

    >>> spatial_axes("NHWC"), spatial_axes("NCHW"), spatial_axes("NCHW_VECT_C")
    ((1, 2), (2, 3), None)
    """
    if layout not in CHANNELS_FIRST | CHANNELS_LAST:
        return None
    return tuple(index for index, letter in enumerate(layout) if letter in _SPATIAL)
