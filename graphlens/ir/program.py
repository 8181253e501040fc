"""A program: one function that ran, with its graphs; a recording holds one or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from graphlens.ir.graph import Graph

Role = Literal["step", "eval", "predict", "dataset", "initialization", "cluster"]

# What a user means by the program first: the work itself comes before what feeds it or sets it up.
BY_IMPORTANCE: Final[tuple[Role, ...]] = ("step", "predict", "eval", "cluster", "dataset", "initialization")


@dataclass(frozen=True, slots=True)
class Program:
    """The graphs of one program.

    Attributes
    ----------
    id
        What the parts of a capture are called after; unique in it.
    name
        The function's own name with its number, as in the profile; empty where it is not known.
    role
        What it is for; ``None`` where nobody said: then it is told by what ran.
    signature
        The signature of the model that it is.
    traced, optimized, executed
        Its graph at each stage, where known.
    training
        Whether it trains (``None``: not known).
    """

    id: str
    name: str = ""
    role: Role | None = None
    signature: str | None = None
    traced: Graph | None = None
    optimized: Graph | None = None
    executed: Graph | None = None
    training: bool | None = None
