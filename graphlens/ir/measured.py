"""What was measured, as the rows of an analysis: the time of a step, the ops, the critical path, the programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from graphlens.ir.roles import Role
from graphlens.ir.run import Origin
from graphlens.ir.script import TraceKind


@dataclass(frozen=True, slots=True)
class StepKind:
    """Steps that ran the same ops: how many were seen, their median, and how many ops one ran."""

    count: int
    median_ns: int
    ops: int


@dataclass(frozen=True, slots=True)
class StepTime:
    """The step's wall time: the median of steps without the profiler, and of those with it.

    Attributes
    ----------
    mean_ns
        The mean of the profiled steps over whole cycles, where steps of several kinds follow each other; ``None`` where
        all are alike.
    cycle
        After how many steps the kinds repeat; ``None`` where no order is seen.
    kinds
        The kinds of the profiled steps, the most frequent first.
    period_ns
        From the start of one call to that of the next, where somebody else called: the step and what is around it.
    """

    median_ns: int
    p10_ns: int
    p90_ns: int
    n: int
    origin: Origin = "measured"
    profiled_median_ns: int | None = None
    profiled_n: int | None = None
    mean_ns: int | None = None
    cycle: int | None = None
    kinds: tuple[StepKind, ...] = ()
    period_ns: int | None = None

    @property
    def profiled_ns(self) -> int:
        """The step that the times of ops are parts of: with the profiler, and the mean where steps differ by turns."""
        return self.mean_ns or self.profiled_median_ns or self.median_ns


@dataclass(frozen=True, slots=True)
class GraphSize:
    """Counts of one stage: ops and edges with functions inlined, and the number of functions."""

    nodes: int
    edges: int
    functions: int


@dataclass(frozen=True, slots=True)
class OpRow:
    """One op of the judged graph.

    ``executed_as`` is the type that really ran, ``origin`` the traced ops it stands for, ``timing`` where ``self_ns``
    comes from (``profile``, ``replay``, ``kernel``; ``None``: not seen).  ``slack_ns`` is how much longer the op could
    take without lengthening the critical path.  ``host_ns`` is what launching it took on the host, for an op whose
    ``self_ns`` is that of its kernels on a device; ``roof_share`` what it reached of the machine's measured roof.
    Times are medians over the profiled steps (``StepTime.profiled_median_ns``), also where the step was timed without.
    ``forward`` is the op of which a gradient op is the gradient.  ``source`` is the user's line that wrote the op
    (``file:line``): of a gradient that of its forward op, and of what Keras computes for a layer the line that made it.
    """

    name: str
    op: str
    scope: str
    device: str | None = None
    executed_as: str | None = None
    self_ns: int | None = None
    calls_per_step: float | None = None
    flops: int | None = None
    bytes: int | None = None
    source: str | None = None
    phase: str | None = None
    origin: tuple[str, ...] = ()
    timing: Literal["profile", "replay", "kernel"] | None = None
    wall_share: float | None = None
    layer: str | None = None
    category: str | None = None
    slack_ns: int | None = None
    output: str | None = None
    host_ns: int | None = None
    roof_share: float | None = None
    forward: str | None = None


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """The longest chain of dependent ops by measured self time, its members ``ops`` in order.

    ``ns`` is its length as a part of the step (``StepTime.median_ns``).  The times of its members are those of profiled
    steps (``StepTime.profiled_median_ns``), whose sum may be above it.
    """

    ns: int
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProgramTrace:
    """A call in which a function was traced by Python or compiled by XLA; ``ns`` is the whole call.

    ``kind``, ``at_ns``, ``call``, ``changed`` and ``lost_ns`` are known of scripts that were watched: as in
    ``ir.script.ScriptTrace``.
    """

    why: str
    ns: int
    kind: TraceKind | None = None
    at_ns: int | None = None
    call: int | None = None
    changed: tuple[str, ...] = ()
    lost_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ProgramRow:
    """One program that ran.

    Attributes
    ----------
    id, name
        What ``--program`` takes, and the function's own name.
    role
        What it is for: ``step``, ``eval``, ``predict``, ``dataset``, ``initialization`` or ``cluster``.
    runs, steps
        How often it was executed, and how many steps that were, the first ones included.
    step
        The time of a step; ``None`` when nothing was timed.
    share
        For which share of the profile at least one of its runs was under way.
    graphs
        The sizes of its graphs, as far as they are known.
    traces
        The calls that are told apart from its steps.
    calls, source
        All calls of it while the script ran, and the line of its definition, for a script that was watched.
    """

    id: str
    name: str
    role: Role
    runs: int | None = None
    steps: int | None = None
    step: StepTime | None = None
    share: float | None = None
    graphs: Mapping[str, GraphSize] = field(default_factory=dict)
    traces: tuple[ProgramTrace, ...] = ()
    calls: int | None = None
    source: str | None = None
