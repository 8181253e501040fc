"""A training step in the analysis: its phases and layers, the period from one step to the next, and a picture of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from graphlens.ir.run import LedgerRow

Phase = Literal["input", "forward", "loss", "backward", "communication", "optimizer", "metrics", "other"]

SpanKind = Literal["op", "call", "wait", "python", "input", "trace"]

# In the order of a step.  ``other`` is what is known to be none of them: control flow around the step, for instance.
PHASES: Final[tuple[Phase, ...]] = (
    "input", "forward", "loss", "backward", "communication", "optimizer", "metrics", "other",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LayerScope:
    """The layer whose ops stand in a scope of a graph.

    ``path`` is that of the layer, as its variables have it; ``kind`` its class; ``source`` the user's line that made
    it, ``file:line``, empty where none is known.
    """

    path: str
    kind: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """What one phase takes of the step's op time: ``ns`` sums over all rows to ``Training.op_ns`` exactly.

    ``phase`` is ``None`` for ops of which it is not known.
    """

    phase: Phase | None
    ns: int
    share: float
    ops: int


@dataclass(frozen=True, slots=True)
class LayerRow:
    """What one layer takes of the step's op time.

    Attributes
    ----------
    layer
        Its path in the model (``sequential/dense_1``), as its variables have it.
    kind
        Its class (``Dense``); ``None`` where nobody said.
    ns, share
        All its phases together, and that as a share of ``Training.op_ns``.
    phases_ns
        The same by phase; what is missing is of none that is known.
    ops
        How many ops were timed.
    source
        The user's line that made or called it, ``file:line``.
    """

    layer: str
    ns: int
    share: float
    phases_ns: Mapping[str, int] = field(default_factory=dict)
    ops: int = 0
    kind: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """Phases and layers of a training step.

    Attributes
    ----------
    op_ns
        The self time of all ops of a step, on all threads: the sum of the phases.  A collective counts with what it
        costs, without the waiting of its replica for others.
    joined_share
        The share of ``op_ns`` of ops that were joined to the traced graph.
    given_share
        The share of ``op_ns`` that was given to a layer or to a phase that is no layer's; in a program that has no
        layers, to any phase but ``other``.
    phases, layers
        What each takes.
    divided_share
        The share of ``op_ns`` of fusions that hold ops of several layers or phases: their time is divided as the
        operations in them are.
    """

    op_ns: int
    joined_share: float | None
    given_share: float | None
    phases: tuple[PhaseRow, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    divided_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Period:
    """Where the time goes from the start of one step to the start of the next; ``rows`` sum to ``ns`` exactly.

    Attributes
    ----------
    ns
        The median period of the steps: of those that were not recorded where enough of them were seen, else of those
        that were.  Of loops within a function it is the mean of a call that was not recorded, over the same data.
    n
        Of how many.
    profiled_ns
        The median of those that were recorded, which takes time.
    executor_ns
        For how long ops or the executor were at work in it, on any thread.
    rows
        What ran within the executor, and what the Python program did around it.
    """

    ns: int
    n: int
    rows: tuple[LedgerRow, ...]
    executor_ns: int | None = None
    profiled_ns: int | None = None


@dataclass(frozen=True, slots=True)
class TimelineSpan:
    """Something that one thread did; ``start_ns`` counts from the start of the picture.

    ``kind`` is ``op`` for an op, ``call`` while a function is called, ``wait`` while the thread waits for a function,
    an element of a dataset or a result, ``python`` for what else Python does, ``input`` for the functions of a dataset,
    and ``trace`` while a function is traced.
    """

    name: str
    kind: SpanKind
    start_ns: int
    ns: int
    phase: Phase | None = None


@dataclass(frozen=True, slots=True)
class TimelineLane:
    """One thread, or one device: what it did, in order; spans of a lane do not overlap."""

    name: str
    spans: tuple[TimelineSpan, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """One typical step on all threads; ``omitted`` counts the spans that are too many or too short to be drawn."""

    ns: int
    lanes: tuple[TimelineLane, ...]
    omitted: int = 0
