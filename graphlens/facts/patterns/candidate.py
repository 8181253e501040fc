"""What one kernel could compute, by whichever pattern it was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphlens.ir.fusion import Role

Kind = Literal["conv", "matmul", "activation", "layer-norm", "attention"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Ops of the graph as written that one kernel could compute.

    ``members`` are in topological order, each with its role; ``base`` is the op that gives the candidate its name.
    """

    kind: Kind
    name: str
    base: str
    members: tuple[tuple[str, Role], ...]

    @property
    def key(self) -> str:
        """What identifies the candidate within its graph."""
        return f"{self.kind}:{self.base}"

    @property
    def core(self) -> tuple[str, ...]:
        """The ops that would be one kernel, without what only moves data between them."""
        return tuple(name for name, role in self.members if role != "bridge")
