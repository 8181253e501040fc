"""A program: one function that ran, with its graphs; a recording holds one or several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphlens.ir.graph import Graph
from graphlens.ir.inputs import InputRow
from graphlens.ir.nodes import TensorSpec
from graphlens.ir.roles import Role
from graphlens.ir.training import LayerScope


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
    main
        Whether the recording was made of it: it alone was timed without the profiler and replayed.
    hlo
        What XLA compiled of it, as graphs named by module.
    inputs
        What its caller handed over, in order, where known.
    fed
        What the inputs of the recorded program were fed, and where that came from; empty where nobody said.
    renamed, scopes
        As in ``ir.evidence.Evidence``.
    """

    id: str
    name: str = ""
    role: Role | None = None
    signature: str | None = None
    traced: Graph | None = None
    optimized: Graph | None = None
    executed: Graph | None = None
    training: bool | None = None
    main: bool = False
    hlo: Mapping[str, Graph] = field(default_factory=dict)
    inputs: tuple[TensorSpec, ...] = ()
    fed: tuple[InputRow, ...] = ()
    renamed: Mapping[str, str] | None = None
    scopes: Mapping[str, LayerScope] = field(default_factory=dict)
