"""A program that somebody else runs, as it was watched: all that it called, and what was traced anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

# How the watch names what it marks in the profile while a window is recorded; the rest of the name is the kind.
MARK: Final = "graphlens_mark:"

# In the folder of a recording: a line for each thing that a script did outside of itself before it was recorded.
DEEDS: Final = "deeds.txt"

# A part of a recording: what the libraries that a script uses do not support, where that is what ended it.
UNSUPPORTED: Final = "unsupported.txt"

# What a trace was for.  Only ``retrace`` is one that the program need not have paid for: ``first`` is a function's
# first, ``variables`` a second one for the variables that the first created, ``relaxed`` one that Keras or
# ``reduce_retracing`` made to spare further ones.
TraceKind = Literal["first", "variables", "relaxed", "retrace"]

# How it is said what changed, after the argument's name; what it is, is told by how the line begins or ends.
PYTHON_VALUE: Final = "the Python value"
SHAPE: Final = "the shape"
DATA_TYPE: Final = "the data type"
ANOTHER_OBJECT: Final = "another object"
NOT_DIVIDED: Final = "because it no longer divides the number of samples"
MADE_ANEW: Final = "the tf.function is a new object: it was made again, and knows nothing of earlier traces"
ANOTHER_CONTEXT: Final = "the same arguments: it was called in another graph, or within another strategy"


@dataclass(frozen=True, slots=True)
class ScriptTrace:
    """A call in which a function was traced.

    Attributes
    ----------
    function
        The id of the function among ``Script.functions``.
    call
        The number of the call, from 1.
    at_ns, ns
        When it began, from the first call of the script, and how long it took, execution included.
    kind
        What it was for.
    changed
        What differs from the trace before: one line for each argument (``x: the Python value 3 became 4``).
    lost_ns
        What it cost: the call less a usual call of the function; ``None`` where there is no usual one.
    """

    function: str
    call: int
    at_ns: int
    ns: int
    kind: TraceKind
    changed: tuple[str, ...] = ()
    lost_ns: int | None = None


@dataclass(frozen=True, slots=True)
class ScriptFunction:
    """A function or a Session's fetches, with all its calls, whichever Python object was called.

    Attributes
    ----------
    id
        Unique in the script.
    name
        As it is written in Python.
    source
        The line of its definition, ``file:line``; empty where there is none.
    calls, ns
        All its outermost calls, and how long they took together.
    traces
        How often it was traced.
    traced_ns
        How long the calls took in which it was.
    concretes
        The names of its concrete functions (``__inference_step_12``), as profiles have them.
    objects
        How many Python objects were called: more than one for a function that is made anew.
    states, shapes
        For each of ``concretes`` the number of the set of variables that it uses, and that of the types and shapes of
        its tensors: two with the same numbers do the same, but for Python values that they were given.
    period_ns, periods
        The median time from the start of a call to that of the next one on its thread while nothing was recorded, and
        of how many; ``None`` where there was none.
    unrecorded_ns
        For those of ``concretes`` that were called while nothing was recorded, how long such calls took, those left out
        in which something was traced; of many some.
    alike_ns
        The same for calls that were given what all recorded calls of that trace were given: where these loop over
        data, it is the same data, and the calls made as many steps.
    """

    id: str
    name: str
    source: str = ""
    calls: int = 0
    ns: int = 0
    traces: int = 0
    traced_ns: int = 0
    concretes: tuple[str, ...] = ()
    objects: int = 1
    states: tuple[int, ...] = ()
    shapes: tuple[int, ...] = ()
    period_ns: int | None = None
    periods: int = 0
    unrecorded_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    alike_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowAccess:
    """A variable of which rows were read or written by their numbers: TensorFlow copies it at whole reads from then on.

    Attributes
    ----------
    variable
        As ``CapturedVariable.key`` has it.
    op
        What did it first (``ResourceGather``, ``ResourceScatterSub``).
    function
        The function in whose trace that was; empty where it was done eagerly.
    """

    variable: str
    op: str
    function: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """What was seen of a script; ``ns`` is from its first call of TensorFlow to its end, ``recorded_ns`` the window."""

    ns: int = 0
    recorded_ns: int = 0
    functions: tuple[ScriptFunction, ...] = ()
    traces: tuple[ScriptTrace, ...] = ()
    eager_steps: int = 0
    row_accesses: tuple[RowAccess, ...] = ()
