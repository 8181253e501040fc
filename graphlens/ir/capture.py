"""The manifest of a capture (``capture.json``): what was recorded, how far it came, and which programs it holds.

Field names are stable: they may be added to, never renamed (``schema/capture.v2.json`` is derived from this module).
The parts of the main program lie at the top of a capture and its fields at the top of the manifest; those of further
programs in ``programs/<id>/`` and in ``programs``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from graphlens.ir.codec import at_least
from graphlens.ir.failure import AnalysisError
from graphlens.ir.nodes import PythonFunction
from graphlens.ir.pipelines import WrittenPipeline
from graphlens.ir.roles import Role
from graphlens.ir.script import Script
from graphlens.ir.training import LayerScope

CAPTURE_VERSION: Final = 2
MAIN: Final = "main"  # the id of the main program, unless another one has it

# What a recorder notes of a script's steps that call no function, by how many there were.

Count = Annotated[int, at_least(int, 0)]
Seconds = Annotated[float, at_least(float, 0)]
Rate = Annotated[float, at_least(float, 0, above=True)]
Shape = tuple[Count | None, ...]

# An id is a part of file names: valid on every system, and never a way out of the folder (no `..`, no separators).
_ID: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_LONGEST_ID: Final = 100  # characters; file systems take 255 bytes, with what is put around it
_IN_NO_ID: Final = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class CapturedTarget:
    """What was recorded, as in the analysis; every field is absent where it is not known."""

    path: str | None = None
    kind: str | None = None
    signature: str | None = None
    digest: str | None = None
    chosen: str | None = None


@dataclass(frozen=True, slots=True)
class CapturedInput:
    """What one argument was fed, as in ``ir.inputs.InputRow``.

    ``origin`` is empty where nobody said, and ``made`` in captures of earlier versions for what is ``made-up``.
    """

    name: str
    dtype: str
    shape: Shape | None = None
    origin: str = ""
    range: tuple[float, float] | None = None
    source: str = ""
    decides: str = ""
    loop: bool = False


@dataclass(frozen=True, slots=True)
class CapturedVariable:
    """The variable behind an argument; sizes that it leaves open are ``None``, and so is a shape of unknown rank.

    ``written_by`` and ``key`` as in ``ir.graph.Variable``.
    """

    name: str = ""
    dtype: str = "unknown"
    shape: Shape | None = None
    trainable: bool | None = None
    written_by: str | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class CapturedRoof:
    """What the machine can do at best, as measured beside the model; see ``ir.devices.Roof``."""

    flops_per_s: Rate
    bytes_per_s: Rate
    dtype: str = "float32"
    threads: Count | None = None
    device: str = ""


@dataclass(frozen=True, slots=True)
class CapturedHost:
    """A host of a recording from several, and the part that holds its profile."""

    name: str
    profile: str


@dataclass(frozen=True, slots=True)
class CapturedProgram:
    """One program of a capture.

    Attributes
    ----------
    id
        What its folder is called, and how it may be named on the command line; unique, whatever the case of letters.
    name
        The function's own name with its number, as in the profile; empty where it is not known.
    main
        Whether it is the one whose parts and fields stand at the top: then only ``name``, ``role`` and ``signature``
        are said here.
    role, signature, training
        As in ``ir.program.Program``.
    traced_root, variables
        The root of the traced graph (empty: its main graph), and the variables behind the root's arguments.
    executed, executed_root_arguments
        The parts that hold the executed graph, one per device, and the variables behind its arguments.
    renamed, scopes
        As in ``Manifest``.
    inputs
        What the arguments were fed.
    captured, executed_captured
        The arguments of the traced and of the executed graph that are tensors which the function has captured.
    captured_numbers, executed_captured_numbers
        What those of them hold, flattened, that are few whole numbers: axes, permutations and sizes, and no weights.
    """

    id: str
    name: str = ""
    main: bool = False
    role: Role | None = None
    signature: str | None = None
    training: bool | None = None
    traced_root: str = ""
    variables: Mapping[str, CapturedVariable] = field(default_factory=dict)
    executed: tuple[str, ...] = ()
    executed_root_arguments: Mapping[str, CapturedVariable] = field(default_factory=dict)
    renamed: Mapping[str, str] | None = None
    inputs: tuple[CapturedInput, ...] = ()
    captured: tuple[str, ...] = ()
    executed_captured: tuple[str, ...] = ()
    captured_numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    executed_captured_numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scopes: Mapping[str, LayerScope] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.id) > _LONGEST_ID or not _ID.fullmatch(self.id):
            raise ValueError("has an id that cannot be the name of a folder")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a recorder says about what it left; the fields of a program are those of the main one.

    Attributes
    ----------
    unprofiled_ns, empty_call_ns
        Wall times of single steps without the profiler, and of a call that computes nothing.
    profiled_steps, profiled_s
        How many steps were profiled, or for how long.
    renamed
        Runtime name -> name in the traced graph of the root's ops that the runtime calls otherwise.
    scopes
        Scope in the traced graph, without the places that functions are called from -> the Keras layer it is of.
    hosts
        Where the profile is of several hosts: each with its part.
    static_reason
        Why nothing was executed.
    stages_done, stage_seconds
        How far the recorder came, and what each stage took.
    script
        What was seen of the script that ran, over its whole life.
    programs
        Further programs; the main one too where its name or role is known.
    pipelines
        The input pipelines that it iterated over, as written; of a dataset as target, that.
    callbacks
        The Python functions that the graphs call back, by the attribute ``token`` of the ops that do.
    """

    schema_version: int = CAPTURE_VERSION
    graphlens_version: str = ""
    target: CapturedTarget = CapturedTarget()
    environment: Mapping[str, Any] = field(default_factory=dict)
    traced_root: str = ""
    variables: Mapping[str, CapturedVariable] = field(default_factory=dict)
    inputs: tuple[CapturedInput, ...] = ()
    executed: tuple[str, ...] = ()
    executed_root_arguments: Mapping[str, CapturedVariable] = field(default_factory=dict)
    renamed: Mapping[str, str] | None = None
    training: bool | None = None
    hosts: tuple[CapturedHost, ...] = ()
    unprofiled_ns: tuple[int, ...] = ()
    empty_call_ns: Count | None = None
    profiled_steps: Count = 0
    profiled_s: Seconds | None = None
    roof: CapturedRoof | None = None
    static_reason: str | None = None
    trust: bool = False
    notes: tuple[str, ...] = ()
    errors: tuple[AnalysisError, ...] = ()
    stages_done: tuple[str, ...] = ()
    stage_seconds: Mapping[str, Seconds] = field(default_factory=dict)
    programs: tuple[CapturedProgram, ...] = ()
    captured: tuple[str, ...] = ()
    executed_captured: tuple[str, ...] = ()
    captured_numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    executed_captured_numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    script: Script | None = None
    scopes: Mapping[str, LayerScope] = field(default_factory=dict)
    pipelines: tuple[WrittenPipeline, ...] = ()
    callbacks: Mapping[str, PythonFunction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = [program.id.casefold() for program in self.programs]
        if len(set(ids)) < len(ids):
            raise ValueError("lists two programs with one id")
        if sum(program.main for program in self.programs) > 1:
            raise ValueError("lists two main programs")

    @property
    def main(self) -> CapturedProgram | None:
        """The main program as it is listed, ``None`` where it is not."""
        return next((program for program in self.programs if program.main), None)


def new_id(name: str, taken: Collection[str] = ()) -> str:
    """Return an id that reads like ``name`` and is not ``taken``, whatever the case of letters.

    >>> new_id("Iterator::Prefetch"), new_id("../../etc"), new_id("step", {"Step", "step-2"}), new_id("")
    ('Iterator_Prefetch', 'etc', 'step-3', 'program')
    """
    stem = _IN_NO_ID.sub("_", name).strip("_")[: _LONGEST_ID - 10] or "program"
    used = {one.casefold() for one in taken}
    found, number = stem, 2
    while found.casefold() in used:
        found, number = f"{stem}-{number}", number + 1
    return found
