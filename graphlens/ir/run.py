"""What was measured: a profile's events, the statistics of a run, and the ledger, as overlays keyed by op name.

Times are integer nanoseconds on one clock whose zero is arbitrary.  Nothing here refers to a file format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from graphlens.ir.iterators import InputRequest, IteratorStage

if TYPE_CHECKING:  # whoever reads times only, as proofs do, needs no graphs
    from graphlens.ir.graph import Graph

Origin = Literal["measured", "modelled", "static", "unknown"]
CopyDirection = Literal["host-to-device", "device-to-host", "device-to-device"]


STEP_MARKER: Final = "graphlens_step"  # how GraphLens marks the steps that it calls itself
NO_RUN: Final = -1  # in the place of a position in ``Profile.runs``
EAGER_LOOP: Final = "eager loop"  # steps that run op by op, in no function: what they do has no name
SESSION: Final = "Session.run"  # what a session executes has no function's name; this is what the user calls


class Window(NamedTuple):
    """A stretch of time."""

    start_ns: int
    end_ns: int


class Run(NamedTuple):
    """One execution of one program.

    A run lasts as long as the call around it, or to the end of its last event where no call is seen: never as long as
    its ``FunctionRun``, which returns early.

    Attributes
    ----------
    program
        The function's own name with its number (``__inference_train_step_946``), or that of the XLA module; empty
        where the profile does not say.
    thread
        Where it was called.
    step_id
        The runtime's number of the execution: any integer, used again later; 0 where there is none.
    traced
        Whether Python traced the function, or XLA compiled it, within this run.
    whole
        Whether the profile holds all of it: the first and the last one may be cut off.
    device
        The position in ``Profile.devices`` of the device that reported it; ``None`` for a run of the host.
    elements
        How many elements of a dataset it was handed; ``None`` where it asked for none, or the profile does not say.
    iterations
        Where it loops over a dataset: its steps.  The first one holds the setting up where the executor loops, and is
        without it where tf.data does.  Empty where the run is one step itself.
    """

    program: str
    start_ns: int
    end_ns: int
    thread: int
    step_id: int = 0
    traced: bool = False
    whole: bool = True
    device: int | None = None
    elements: int | None = None
    iterations: tuple[Window, ...] = ()


class OpEvent(NamedTuple):
    """One execution of one op on one thread of one plane.

    ``self_ns`` is the duration less the durations of events nested in it (a ``_Send`` contains its receiver).
    ``run`` is the position in ``Profile.runs`` of the run that it is part of, ``NO_RUN`` where none is known.
    ``resumed`` is true for a later stretch of an execution that other events show already.
    """

    node: str
    op: str
    start_ns: int
    end_ns: int
    self_ns: int
    thread: int
    run: int = NO_RUN
    resumed: bool = False


class Span(NamedTuple):
    """A named interval that is not an op: an executor, a function run, a step marker, a Python frame.

    ``step_id`` is the runtime's id of the function execution (0 when the event has none), ``iteration`` the loop
    iteration of an executor span, ``run`` as in ``OpEvent``.
    """

    name: str
    start_ns: int
    end_ns: int
    thread: int
    step_id: int = 0
    iteration: int = 0
    run: int = NO_RUN


# Line numbers of one host are signed 64-bit integers; those of the host at position k of a profile are moved by k times
# this.
THREADS_OF_A_HOST: Final = 1 << 64


def host_of_thread(thread: int) -> int:
    """Return the position in ``Profile.hosts`` of the host that a thread runs on.

    >>> host_of_thread(-559038737), host_of_thread(7), host_of_thread(-5 + 2 * THREADS_OF_A_HOST)
    (0, 0, 2)
    """
    return (thread + THREADS_OF_A_HOST // 2) // THREADS_OF_A_HOST


class Mark(NamedTuple):
    """What the watch of a script saw and no event of TensorFlow shows; on the profile's clock.

    ``kind`` is what happened (``session``: a whole call of ``Session.run``; ``gradient``; ``read``: a tensor became a
    Python value; ``step``: a step of an eager loop), ``detail`` what is said of it, ``source`` the user's line.
    """

    kind: str
    start_ns: int
    end_ns: int
    thread: int
    detail: str = ""
    source: str = ""


class Activity(NamedTuple):
    """Something that the host did around its ops.

    ``kind`` is ``input`` while the next element of a dataset is asked for, ``eager`` while Python runs one op that is
    no function, ``compile`` while XLA compiles.  ``name`` is the kind, the type of the eager op, or for input that a
    loop of tf.data itself asks for ``ReduceDataset``.  ``run`` is as in ``OpEvent``.
    """

    kind: Literal["input", "eager", "compile"]
    name: str
    start_ns: int
    end_ns: int
    thread: int
    run: int = NO_RUN


class Collective(NamedTuple):
    """The part of one replica in a collective op: from the moment at which it got there to its end.

    ``instance`` is the runtime's number of this very exchange: all that take part in it have the same, and the next
    execution of the op has another.  ``group`` is the number of those who take part.  ``run`` is as in ``OpEvent``.
    """

    node: str
    op: str
    start_ns: int
    end_ns: int
    thread: int
    instance: int
    group: int = 0
    run: int = NO_RUN


class Fetch(NamedTuple):
    """An element of a dataset that was asked for: ``nbytes`` is ``None`` where there was none any more.

    ``node`` is the op that asked for it, empty where Python did, and ``rows`` what its bytes say of its first
    dimension (0 for an empty one); ``None`` where they do not.  ``run`` is as in ``OpEvent``.
    """

    node: str
    start_ns: int
    end_ns: int
    thread: int
    nbytes: int | None = None
    rows: int | None = None
    run: int = NO_RUN


class KernelEvent(NamedTuple):
    """A stretch of time in which one XLA thunk ran on a processor, without those that it called.

    ``hlo_op`` is the instruction of ``hlo_module`` that it executes, ``call`` the op that called the compiled function:
    empty for one that was called by no op, and where the profile does not say.  ``resumed`` is true for a later stretch
    of the same execution of the instruction.  ``run`` is as in ``OpEvent``.
    """

    name: str
    hlo_op: str
    hlo_module: str
    start_ns: int
    end_ns: int
    thread: int
    run: int = NO_RUN
    call: str = ""
    resumed: bool = False


class DeviceEvent(NamedTuple):
    """One kernel on one stream of an accelerator.

    ``node`` and ``op`` name the TensorFlow op that launched it, empty where the profile does not say.  ``device`` is
    the position in ``Profile.devices``, ``run`` that in ``Profile.runs``.  ``category`` is the compiler's word for the
    instruction (``loop fusion``, ``all-reduce``), ``flops`` and ``nbytes`` what it says of the work of one execution;
    both ``None`` where the profile does not say.  ``made_of`` is the type of the op behind the instruction (``MatMul``,
    ``dot_general``), or the way that a copy goes which it starts or awaits.
    """

    name: str
    node: str
    op: str
    start_ns: int
    end_ns: int
    device: int
    stream: str
    run: int = NO_RUN
    category: str = ""
    flops: int | None = None
    nbytes: int | None = None
    made_of: str = ""


class Kernel(NamedTuple):
    """What the kernels of one name and op on one stream share; as in ``DeviceEvent``."""

    name: str
    node: str
    op: str
    stream: str
    category: str = ""
    flops: int | None = None
    nbytes: int | None = None
    made_of: str = ""


class Instruction(NamedTuple):
    """What a profile tells of one instruction of a compiled program, however often it ran.

    ``op_name`` is the op that it was made of (``jit(f)/jit(main)/add``), ``source`` the line that wrote that op,
    ``output`` data type and shape of the result; each is empty where the profile does not say.
    """

    op_name: str = ""
    source: str = ""
    output: str = ""


class CopyEvent(NamedTuple):
    """One transfer between memories, as a device reports it.

    ``kind`` is ``None`` where the profile does not say which way.  ``node`` is the op that caused it (empty where the
    profile does not say), ``src`` and ``dst`` the ops at both ends where the event names them, ``edge`` the name of the
    tensor.
    """

    kind: CopyDirection | None
    node: str
    op: str
    start_ns: int
    end_ns: int
    device: int
    stream: str
    nbytes: int | None = None
    src: str = ""
    dst: str = ""
    edge: str = ""


@dataclass(frozen=True, slots=True)
class ProfiledDevice:
    """One device that a profile lists, with or without events: ``GPU:4`` of a host, and what is said of it."""

    name: str
    host: str = ""
    kind: str = ""
    properties: Mapping[str, object] = field(default_factory=dict)
    steps: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """The events of one profile, sorted by start.

    ``steps`` are the step markers of the host, ``executors`` the ``ExecutorState::Process`` spans, ``functions`` the
    function runs, ``waits`` the asynchronous ops from their start to their completion, named ``node:Op`` where the
    profile has the type and ``node`` where it has not.  ``dropped`` counts events that the file says were lost.
    ``devices`` are the accelerators, ``kernels_on_device`` and ``copies`` what ran on their streams.  ``executions``
    are those of functions that XLA compiled for the host, named after the op that called each, ``kernels`` their
    thunks, and ``modules`` their instructions where the profile has them.  ``hosts`` are the machines of the profile
    where it names them; threads are numbered apart for each.  ``notes`` say what was found out about the file itself.
    ``runs`` are the executions of all programs, in the order in which they were read: events name them by their
    position.  ``instructions`` are those of compiled programs, by the ``node`` of their kernels
    (``module/instruction``).  ``marks`` are what the watch of a script left in it, ``activities`` what the host did
    besides running ops.  ``iterators`` are the stages of the input pipelines that ran, ``requests`` what was asked of
    them.  ``collectives`` are what replicas did together, ``fetches`` the elements that were asked for.

    Of ``ops``, ``executors`` and ``kernels_on_device`` there may be a million: loaders give them as columns
    (``ir.columns``), whose events are made when they are asked for.
    """

    ops: Sequence[OpEvent] = ()
    steps: tuple[Span, ...] = ()
    executors: Sequence[Span] = ()
    functions: tuple[Span, ...] = ()
    waits: tuple[Span, ...] = ()
    kernels: tuple[KernelEvent, ...] = ()
    dropped: int = 0
    devices: tuple[ProfiledDevice, ...] = ()
    kernels_on_device: Sequence[DeviceEvent] = ()
    copies: tuple[CopyEvent, ...] = ()
    hosts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()
    instructions: Mapping[str, Instruction] = field(default_factory=dict)
    executions: tuple[Span, ...] = ()
    modules: Mapping[str, Graph] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()
    activities: tuple[Activity, ...] = ()
    iterators: tuple[IteratorStage, ...] = ()
    requests: tuple[InputRequest, ...] = ()
    collectives: tuple[Collective, ...] = ()
    fetches: tuple[Fetch, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplayRecord:
    """What the second route (a replayed Session run) saw of one op, summed over its executions in one run.

    ``durations_ns`` are the totals per replayed run.  Loop timings of this route are inflated (5 to 6.5 times was
    measured), so they rank ops but are never added to the step.
    """

    name: str
    calls: int
    durations_ns: tuple[int, ...]
    outputs: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Stat:
    """Order statistics of one quantity over steps."""

    n: int
    median_ns: int
    p10_ns: int
    p90_ns: int

    @property
    def spread(self) -> float:
        """The distance from the 10th to the 90th percentile, as a share of the median."""
        return (self.p90_ns - self.p10_ns) / max(self.median_ns, 1)


def stat_of(values: Sequence[int]) -> Stat | None:
    """Summarize ``values`` (nanoseconds); ``None`` for an empty sequence, because unknown is not zero."""
    if not values:
        return None
    ordered = sorted(values)
    return Stat(len(ordered), round(median(ordered)), _quantile(ordered, 0.1), _quantile(ordered, 0.9))


def _quantile(ordered: Sequence[int], share: float) -> int:
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return round(ordered[low] + (ordered[high] - ordered[low]) * (position - low))


@dataclass(frozen=True, slots=True)
class OpTiming:
    """The time of one executed op.

    Attributes
    ----------
    self_ns
        Median of the summed self time per step, over the steps in which it was seen.
    calls_per_step
        Mean number of executions per step; of its kernels, where the host's events show none.
    wall_share
        Share of the step's wall time during which this op ran; instants with several running ops are divided
        equally, so the shares of all ops never exceed 1.
    source
        ``profile`` for the profiler's own events, ``replay`` for the second route (ranks, never totals),
        ``kernel`` for XLA thunks and for the kernels of an accelerator.
    host_ns
        What launching its kernels took on the host per step, for an op that ran on an accelerator.
    device
        The accelerators that ran its kernels, as the profile names them.
    """

    self_ns: int
    calls_per_step: float
    wall_share: float | None
    source: Literal["profile", "replay", "kernel"]
    host_ns: int | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One row of the ledger.  ``kind`` says whether the time is an op's, known overhead, or unattributed."""

    category: str
    ns: int
    kind: Literal["op", "overhead", "unattributed"] = "op"
