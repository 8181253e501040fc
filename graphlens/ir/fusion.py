"""Chains of ops that one kernel could compute, and what an experiment with the real optimizer said of them.

A :class:`Chain` is a small graph of its own: it can be cut out of a model, sent to a process that has TensorFlow, and
optimized alone.  A :class:`FusionAnswer` says what that showed.  Both are plain data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from graphlens.ir.nodes import TensorSpec

# boundary: fed from outside; constant: a value known when the graph is built; base: the kernel that could absorb the
# others; bridge: moves data between two of them; part: any op of a decomposed layer.
Role = Literal["boundary", "constant", "base", "bridge", "bias", "norm", "scale", "residual", "activation", "part"]
OUTSIDE: frozenset[str] = frozenset({"boundary", "constant"})

# The type of a boundary that is a variable; every other one is fed by a Placeholder.
VARIABLE_READ = "ReadVariableOp"

# The kind of a chain of one op that is to be compiled by XLA instead of optimized by Grappler.
COMPILE = "xla"

# To remove an obstacle of these kinds, the model would have to compute something else.
CHANGES_THE_MODEL: frozenset[str] = frozenset({"activation", "no-mask", "training"})

# fuses: it does, so the model's graph differs from what was cut out; explained: `changes` make it fuse; unsupported:
# no change that was tried does; failed: the experiment itself failed.
Verdict = Literal["fuses", "explained", "unsupported", "failed"]


@dataclass(frozen=True, slots=True)
class ChainOp:
    """One op of a chain.  ``inputs`` are ``(name, port)`` within the chain; ``device`` is ``None`` for the default."""

    name: str
    type: str
    role: Role
    inputs: tuple[tuple[str, int], ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    spec: TensorSpec | None = None
    values: tuple[float | int | bool, ...] | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Surrounding:
    """What else touches a chain's inner results: another reader, an output of the function, a control edge."""

    kind: Literal["consumer", "fetched", "control-out", "control-in"]
    at: str
    op: str
    type: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Ops that one kernel could compute, in topological order, the last one giving the result."""

    key: str
    kind: str
    ops: tuple[ChainOp, ...]
    surroundings: tuple[Surrounding, ...] = ()

    @property
    def core(self) -> tuple[ChainOp, ...]:
        """The ops that would become one kernel."""
        return tuple(op for op in self.ops if op.role not in OUTSIDE and op.role != "bridge")

    @property
    def result(self) -> str:
        """The op whose output is the chain's."""
        return self.ops[-1].name


def is_grouped(chain: Chain) -> bool:
    """Tell whether a chain starts with a convolution each of whose outputs reads only a part of the input's channels.

    Where the number of channels is not known, it is taken for an ordinary one.
    """
    base = next((op for op in chain.ops if op.role == "base"), None)
    if base is None or base.type != "Conv2D":
        return False
    known = {op.name: op.spec for op in chain.ops}
    image, weights = (known[src] for src, _ in base.inputs[:2])
    if image is None or not image.shape or weights is None or not weights.shape:
        return False
    channels = image.shape[1 if base.attrs.get("data_format") == "NCHW" else -1]
    return None not in (channels, weights.shape[-2]) and channels != weights.shape[-2]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One property of a chain, or of its surroundings, that keeps it from being fused.

    ``kind`` is ``dtype``, ``activation``, ``name``, ``layout``, ``bridge``, ``addition``, ``residual``, ``training``,
    ``device``, ``rank``, ``einsum``, ``no-mask``, ``onednn``, ``consumer``, ``fetched``, ``control-out`` or
    ``control-in``; ``op`` names the offending op and ``found`` says what it is there (a dtype, an op type, a data
    format).
    """

    kind: str
    op: str
    found: str = ""


@dataclass(frozen=True, slots=True)
class FusionAnswer:
    """What the optimizer did with one chain.

    Attributes
    ----------
    changes
        Alternatives, each of which made the chain fuse; all obstacles of one alternative have to go together.
    why
        What went wrong, for ``failed``.
    """

    key: str
    verdict: Verdict
    changes: tuple[tuple[Obstacle, ...], ...] = ()
    why: str = ""


# -- names ---------------------------------------------------------------------------------------------------------


def plain_names(chain: Chain) -> Mapping[str, str]:
    """Return short names for all ops in and around a chain, the same for chains of the same structure."""
    names = {op.name: f"op{index}" for index, op in enumerate(chain.ops)}
    for item in chain.surroundings:
        names.setdefault(item.op, f"around{len(names)}")
    return names


def renamed(chain: Chain, key: str, names: Mapping[str, str]) -> Chain:
    """Return ``chain`` under other names (of its ops and of the ops around it)."""
    ops = tuple(
        replace(op, name=names[op.name], inputs=tuple((names[src], port) for src, port in op.inputs))
        for op in chain.ops
    )
    around = tuple(replace(item, at=names[item.at], op=names.get(item.op, item.op)) for item in chain.surroundings)
    return Chain(key, chain.kind, ops, around)


def answer_for(answer: FusionAnswer, asked: Chain, other: Chain) -> FusionAnswer:
    """Return the answer of ``asked`` as that of ``other``, a chain of the same structure."""
    back = {short: name for name, short in plain_names(other).items()}
    names = {name: back[short] for name, short in plain_names(asked).items()}
    changes = tuple(tuple(replace(item, op=names.get(item.op, item.op)) for item in some) for some in answer.changes)
    return replace(answer, key=other.key, changes=changes)
