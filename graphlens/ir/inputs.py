"""What a program was fed: a row for each input, with where its value came from and what hangs on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

InputOrigin = Literal["given", "example", "made-up"]

MADE_UP: Final = "made-up"


@dataclass(frozen=True, slots=True)
class InputRow:
    """One input as it was fed.

    Attributes
    ----------
    name, dtype, shape
        Its name for who calls the model, and the type and sizes of what was fed; a shape that is not known is ``None``.
    range
        Its least and its greatest element; ``None`` where elements have no order (text, complex numbers), where there
        is none, where one is not a number, and where nobody wrote it down.
    origin
        ``given`` by the user, an ``example`` that came with the target, or ``made-up`` by GraphLens.
    source
        What the value was taken from or made by, in words; empty where the origin says it all.
    decides
        What a made-up value decides about the work of a step, in words: how often a loop runs, how large a tensor is.
        Empty where it decides nothing of that kind, or is not made up.
    loop
        Whether what it decides is how often a loop runs.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    range: tuple[float, float] | None
    origin: InputOrigin
    source: str = ""
    decides: str = ""
    loop: bool = False
