"""What programs are for."""

from __future__ import annotations

from typing import Final, Literal

Role = Literal["step", "eval", "predict", "dataset", "initialization", "cluster"]

# What a user means by the program first: the work itself comes before what feeds it or sets it up.
BY_IMPORTANCE: Final[tuple[Role, ...]] = ("step", "predict", "eval", "cluster", "dataset", "initialization")
