"""What a trial of a script and its parent say to each other, as the lines of ``messages``; standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphlens.ir.edit_data import AnyEdit


@dataclass(frozen=True, slots=True)
class Watched:
    """The program of a script before whose calls a trial stands still.

    Attributes
    ----------
    name
        The function as Python has it; empty for what a Session runs.
    number
        Which of several functions of that name, in the order in which they are first called.
    called_again
        Whether it is a loop over all the data that a script calls a few times: it is called again by the trial, with
        the same arguments.
    """

    name: str
    number: int = 0
    called_again: bool = False


@dataclass(frozen=True, slots=True)
class RunToGate:
    """Run the script, changed by ``edits``, until its program is steady; see ``AtGate``.

    Attributes
    ----------
    at_step
        Where another run of it stood still, and this one is to, or soon after; 0: wherever it is steady.
    threads
        The sizes of TensorFlow's pools.
    does_again
        Whether it may do outside of its process what it does before it stands still.
    """

    watched: Watched
    edits: tuple[AnyEdit, ...] = ()
    at_step: int = 0
    threads: Mapping[str, int] = field(default_factory=dict)
    does_again: bool = False


@dataclass(frozen=True, slots=True)
class AtGate:
    """The script stands still before a step.

    Attributes
    ----------
    step, calls
        How many steps and calls of the program were made.
    first_ns, last_ns
        How long its first call and its last one took.
    applied
        How often each option of the edits changed a call.
    accelerated, onednn, threads
        As in ``messages.OpenedTarget``.
    endless
        Whether it goes through its data again and again from now on.
    """

    step: int
    calls: int
    first_ns: int
    last_ns: int
    applied: Mapping[str, int]
    accelerated: bool
    onednn: bool | None
    threads: Mapping[str, int]
    endless: bool = False


@dataclass(frozen=True, slots=True)
class Over:
    """The script came to its end, or was stopped before it did something to the world; ``why`` says what."""

    why: str


@dataclass(frozen=True, slots=True)
class RunSteps:
    """Let the script make ``steps`` steps; see ``Block``."""

    steps: int


@dataclass(frozen=True, slots=True)
class RunBlock:
    """Let the script make steps until ``ms`` are over; see ``Block``.

    The first call wakes the process and is not timed.
    """

    ms: float


@dataclass(frozen=True, slots=True)
class TakeElements:
    """Take elements of the script's dataset, through an iterator of its own, for ``ms``; see ``messages.Block``.

    ``edits`` are the change that is tried: the dataset is the one that the script began to iterate over last of those
    that can be changed so, as this script has it, changed or not.
    """

    edits: tuple[AnyEdit, ...]
    ms: float


@dataclass(frozen=True, slots=True)
class KeepValues:
    """Write the values of the program's variables to a file; answered by ``Done``."""

    file: str


@dataclass(frozen=True, slots=True)
class TakeValues:
    """Give the program's variables the values that a file has for those of the same name and shape; see ``Taken``.

    ``nudged``: each but for its last bit.
    """

    file: str
    nudged: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """How many variables had other values before, of how many that a file has values for."""

    different: int
    of: int


@dataclass(frozen=True, slots=True)
class CompareValues:
    """Compare the variables with what a file has for them; see ``messages.Comparison``."""

    file: str
    computes_in: str | None = None
    rtol: float | None = None
