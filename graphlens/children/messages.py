"""What parents and children say to each other, as lines of JSON; standard library only, since both ends import it.

A line names the class of its message; the reader lists the classes that it expects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from graphlens.ir import codec
from graphlens.ir.capture import CapturedTarget
from graphlens.ir.edit_data import AnyEdit

_NAME: Final = "message"

Message = TypeVar("Message")


class MessageError(Exception):
    """A line holds none of the messages that are expected."""


def to_line(message: Any) -> str:
    """Return a message as one line, without its end."""
    return json.dumps({_NAME: type(message).__name__, **codec.encode(message, exact=True)})


def from_line(line: str, expected: Sequence[type[Message]]) -> Message:
    """Return the message in a line, which is of one of the ``expected`` classes.

    Raises
    ------
    MessageError
        If it is not.
    """
    try:
        data = json.loads(line)
        name = data.pop(_NAME)
        kind = next(kind for kind in expected if kind.__name__ == name)
    except (ValueError, StopIteration, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise MessageError(f"no message that is expected here: {line[:200]!r}") from error
    try:
        return codec.decode(kind, data, exact=True)
    except codec.MismatchError as error:
        raise MessageError(f"a message that is no {name}: {error.place} {error}") from error


# -- to any parent -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """What the child is doing, and how much of it is done."""

    what: str
    done: int = 0
    of: int = 1


@dataclass(frozen=True, slots=True)
class Done:
    """All that was asked for is done, and what was to be written is."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What was asked for could not be done; ``why`` is one line for the user."""

    why: str
    exit_code: int = 1


Emit = Callable[[Any], None]  # sends one message to the parent

# -- to a child ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordRequest:
    """Open a target, trace it, and record it unless only the trace is wanted.

    Attributes
    ----------
    target, kind
        A path, or ``module:callable``, and what it was found to be.
    shown_as
        The target as the user wrote it.
    inputs
        The path of an ``.npz`` file.
    warm_up_request
        The number of the model's own request to feed; 0 for none, ``None`` for the first one that fits.
    before_placer
        Keep the graph as it is before placement, too.
    import_path
        The folder in which a callable and the modules in ``imports`` are looked for.  A model's file must not pull in
        whatever lies in the current one.
    imports
        Modules to import before the target is opened.
    text, digest
        What the parent found out about a graph's file.
    chosen
        Which of several signatures is meant, and why, as in ``ir.analysis.Target``.
    """

    target: str
    kind: str
    shown_as: str | None = None
    signature: str | None = None
    tag: str | None = None
    inputs: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    batch: int | None = None
    warm_up_request: int | None = None
    steps: int | None = None
    time_budget_s: float | None = None
    trust: bool = False
    mode: Literal["record", "trace"] = "record"
    before_placer: bool = False
    import_path: str | None = None
    imports: tuple[str, ...] = ()
    text: bool = False
    digest: str | None = None
    chosen: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceRequest:
    """Profile programs that run elsewhere; ``services`` are ``host:port``, ``target`` is what the capture is about."""

    services: tuple[str, ...]
    duration_s: float
    target: CapturedTarget


@dataclass(frozen=True, slots=True)
class PlacedGraph:
    """Have Grappler optimize a graph as it would beside a GPU.

    Attributes
    ----------
    graph, result
        Files: the serialized graph, and where to write what becomes of it.
    devices
        Op -> ``GPU`` or ``CPU``.
    architecture
        The GPU's compute capability, as ``8.0``.
    shapes, cut, pin_to_host
        What is changed about the graph before (see ``ask_placement.Change``).
    """

    graph: str
    result: str
    devices: Mapping[str, str]
    architecture: str
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    cut: tuple[str, ...] = ()
    pin_to_host: bool = False


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """Write the demo model to the folder ``path``."""

    path: str


# -- to a trial, and what it answers -------------------------------------------------------------------------------

Edits = tuple[AnyEdit, ...]  # of one fix: applied together or not at all


@dataclass(frozen=True, slots=True)
class Refusal:
    """Edits that cannot be applied to this program; ``edit`` is the number of the group to blame, if one is."""

    why: str
    edit: int | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Open a target, with thread pools (``intra_op``, ``inter_op``) of these sizes; see ``OpenedTarget``."""

    request: RecordRequest
    threads: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenedTarget:
    """The target is open: ``accelerated`` when it runs on more than CPUs, so that CPU time tells nothing."""

    accelerated: bool
    onednn: bool | None
    threads: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Apply:
    """Make a variant by groups of edits, one after another, and call it twice; see ``Calls``."""

    variant: str
    edits: tuple[Edits, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What XLA compiled of a changed program: ``ops`` of ``of_ops`` that compute something, to ``fusions`` kernels.

    ``fusions`` is ``None`` where XLA did not write down what it made.
    """

    ops: int
    of_ops: int
    fusions: int | None = None


@dataclass(frozen=True, slots=True)
class ChangeDataset:
    """Make the one variant of a process from the open dataset; see ``Calls``.

    ``stages`` are those of the dataset as the edits name them, sources first: numbers in names may be others in another
    process.
    """

    edits: Edits
    stages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Calls:
    """What the first two calls of a variant took, compiling included, and what XLA compiled of it."""

    first_ns: int
    second_ns: int
    compiled: Compiled | None = None


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare the outputs of a variant with the original's; see ``Comparison``.

    ``computes_in`` is the type that the edits change to, ``outputs`` the file with the outputs of another process,
    ``rtol`` the difference that is allowed for types with a fraction instead of what is for each.
    """

    variant: str
    computes_in: str | None = None
    outputs: str | None = None
    rtol: float | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """How one output of the changed program differs from the original's, over all inputs tried.

    ``max_rel`` is relative to the largest value of that output.  Where the numbers cannot be compared, for a different
    shape or a NaN in other places, ``mismatch`` says so and the numbers are ``None``.  ``floor`` is what the tolerance
    rests on where its type would allow less: the ``max_rel`` of the unchanged program with ``floor_from``.
    """

    output: str
    dtype: str
    tolerance: float
    max_abs: float | None = None
    max_rel: float | None = None
    mismatch: str | None = None
    floor: float | None = None
    floor_from: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.mismatch is None and self.max_rel is not None and self.max_rel <= self.tolerance


@dataclass(frozen=True, slots=True)
class Comparison:
    """All outputs on ``inputs`` sets of inputs; ``unstable`` are outputs in which the original differs from itself.

    ``uncompared`` says why nothing could be compared, where that is so and no fault of the change.
    """

    differences: tuple[Difference, ...]
    inputs: int
    unstable: tuple[Difference, ...] = ()
    uncompared: str = ""


@dataclass(frozen=True, slots=True)
class Observe:
    """Write a variant's outputs to a file, for the process that compares them.

    ``values`` is a file with values to give to the variables before, each but for its last bit.
    """

    variant: str
    file: str
    values: str | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """Write the values of the original's variables to a file, as they were when it was opened."""

    file: str


@dataclass(frozen=True, slots=True)
class TimePairs:
    """Time pairs of blocks of calls, in the order A B, B A, A B, …; see ``Pairs``."""

    before: str
    after: str
    pairs: int
    block_ms: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Two blocks of calls timed side by side: nanoseconds per call, by the clock and of the CPU (all threads)."""

    before_ns: float
    after_ns: float
    before_cpu_ns: float
    after_cpu_ns: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs in the order in which they were timed."""

    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class TimeBlock:
    """Time one block, while another process with another variant is idle; see ``Block``."""

    variant: str
    block_ms: float


@dataclass(frozen=True, slots=True)
class Block:
    """Nanoseconds per call, by the clock and of the CPU."""

    wall_ns: float
    cpu_ns: float


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget a variant."""

    variant: str


@dataclass(frozen=True, slots=True)
class Load:
    """Open another target, with the same inputs, as a variant."""

    variant: str
    request: RecordRequest


@dataclass(frozen=True, slots=True)
class Write:
    """Write the target as a SavedModel with edits applied, by signature; see ``Written``."""

    request: RecordRequest
    edits: Mapping[str, Edits]
    directory: str


@dataclass(frozen=True, slots=True)
class Written:
    """What the user of the written model has to know."""

    notes: tuple[str, ...]
