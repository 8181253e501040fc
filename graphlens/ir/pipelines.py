"""An input pipeline: its stages as written, as TensorFlow rewrote them, and as they ran; and what a step waited for it.

The three are joined by the name that TensorFlow gives to each dataset that the user makes (``MapDataset:105``), which
its profiles write down also where stages were fused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from graphlens.ir.run import Origin

DATASET: Final = "dataset"  # the kind of a target that is a pipeline itself
AUTOTUNE: Final = -1  # in the place of a number of calls or of elements: TensorFlow chooses it while it runs


@dataclass(frozen=True, slots=True)
class WrittenStage:
    """One dataset of a pipeline, as the user made it or as TensorFlow rewrote it.

    A stage within the function of an interleave or a flat map, of which TensorFlow makes one for each element, is named
    after that: ``InterleaveDataset:4/MapDataset``, and ``InterleaveDataset:4/MapDataset#2`` for a second one of its
    kind, counted from what the function returns.

    What is not known is ``None``, of texts and lists that there is none is empty.

    Attributes
    ----------
    name
        The user's stage as profiles name it (``MapDataset:105``); of a rewritten one its own name.
    kind
        The type of its op (``MapDataset``, ``ParallelMapDatasetV2``).
    inputs
        The names of the stages that it reads, in order.
    made_of
        Of a rewritten stage, the user's stages that it stands for; empty for one that TensorFlow added.
    source
        The user's line that made it, ``file:line``.
    library
        Who made it on behalf of that line, which then cannot change it: ``keras`` for what ``fit`` makes of arrays.
        Empty for what the user's own program made.
    function
        The Python function that it calls for each element, as it is written (``decode``, ``<lambda>``).
    ops
        The types of the ops that the function runs, each once, sorted; those of functions that it calls included.
    parallelism
        How many calls at a time, or how many inputs in parallel, were asked for; ``AUTOTUNE``, or ``None`` for none.
    deterministic
        Whether elements keep their order though several are made at a time.
    batch_size, buffer_size, cycle_length
        Of a batch, of a shuffle or a prefetch, and of an interleave: how many inputs it mixes (``AUTOTUNE``).
    cardinality
        How many elements it has; ``None`` where that is not known or it never ends.
    python, stateful, random
        Whether its function calls back into Python, has state, or draws random numbers.
    per_element
        Whether its function does the same to each row of a batch as to a single element, so that it may run after the
        batch.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    made_of: tuple[str, ...] = ()
    source: str = ""
    function: str = ""
    ops: tuple[str, ...] = ()
    parallelism: int | None = None
    deterministic: bool | None = None
    batch_size: int | None = None
    buffer_size: int | None = None
    cardinality: int | None = None
    python: bool | None = None
    stateful: bool | None = None
    random: bool | None = None
    per_element: bool | None = None
    library: str = ""
    cycle_length: int | None = None


@dataclass(frozen=True, slots=True)
class WrittenPipeline:
    """A dataset that was iterated over, or that is the target itself.

    Attributes
    ----------
    id
        Unique in the recording.
    stages
        What the user made, sources first; those within the function of an interleave or a flat map too.
    root
        The name of the last one.
    options
        The ``tf.data.Options`` that differ from the defaults, by dotted name, as Python writes their values
        (``threading.private_threadpool_size``: ``16``).
    rewritten
        What TensorFlow makes of it, in the same order; empty where nobody asked.
    part
        The part of the recording that holds its graph; empty where there is none.
    """

    id: str
    stages: tuple[WrittenStage, ...] = ()
    root: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    rewritten: tuple[WrittenStage, ...] = ()
    part: str = ""


PhaseKind = Literal["warm-up", "filling", "steady"]


@dataclass(frozen=True, slots=True)
class InputWait:
    """How long steps waited for their input.

    ``median_ns`` and ``total_ns`` are over ``steps`` of them; ``share`` is the part of the time from step to step that
    was such waiting, in those that were recorded.
    """

    median_ns: int
    total_ns: int
    steps: int
    share: float | None = None
    origin: Origin = "measured"


@dataclass(frozen=True, slots=True)
class InputPhase:
    """Steps that differ: a ``warm-up`` with empty buffers, an epoch ``filling`` a cache, and the ``steady`` rest."""

    kind: PhaseKind
    wait: InputWait


@dataclass(frozen=True, slots=True)
class InputStage:
    """One stage of a pipeline that ran, or that is only known as written; unknown is ``None``.

    Attributes
    ----------
    name
        Unique in the pipeline: the user's stages (``MapDataset:1+BatchDatasetV2:2`` where they were fused), else what
        TensorFlow calls it.
    kind
        What ran (``MapAndBatch``); as written where nothing did.
    stages
        The user's stages that it stands for.
    reads
        The positions in ``InputPipeline.stages`` of those that it reads.
    source, function
        The user's line, and the function called there.
    elements
        How many it handed out while it was recorded.
    work_ns
        What making one element takes of its own work, without its inputs and without waiting.
    elements_per_s
        How many of its own it can make in a second with the parallelism granted.
    step_ns
        What its own work takes of each step: ``work_ns`` for as many elements as a step uses, by its parallelism.
    waiting_ns
        For how long of a step whoever asked it for elements waited.
    parallelism, asked
        How many it makes at a time, and how many were asked for.
    buffer_limit, buffered
        How many elements it holds ready at most, and held on average.
    origin
        Where its numbers come from: ``measured`` where it ran, else ``static``.
    """

    name: str
    kind: str
    stages: tuple[str, ...] = ()
    reads: tuple[int, ...] = ()
    source: str | None = None
    function: str | None = None
    elements: int | None = None
    work_ns: int | None = None
    elements_per_s: float | None = None
    step_ns: int | None = None
    waiting_ns: int | None = None
    parallelism: int | None = None
    asked: int | None = None
    autotune: bool | None = None
    buffer_limit: int | None = None
    buffered: float | None = None
    origin: Origin = "measured"


@dataclass(frozen=True, slots=True)
class InputPipeline:
    """One pipeline of the analysis.

    Attributes
    ----------
    id
        As in ``WrittenPipeline``; a name of its own where that is not known.
    program
        The id of the program that it feeds; ``None`` where that is not known.
    stages
        The chain that ran, the root first; as written where none did.
    written, rewritten
        The same as the user made it, and as TensorFlow says that it rewrites it.
    wait
        What the steps waited in the steady state; ``None`` where no step was seen.
    phases
        The same for each part of the recording that differs.
    limiting
        The position in ``stages`` of the one that makes fewest elements in a second; ``None`` where that is not known.
    elements_per_s
        How many of the root's elements the steps took in a second.
    details
        What bounds it all: ``cpu_budget``, ``threadpool_size``, ``ram_usage_megabytes``, …
    notes
        What cannot be told, and why.
    """

    id: str
    program: str | None = None
    stages: tuple[InputStage, ...] = ()
    written: tuple[WrittenStage, ...] = ()
    rewritten: tuple[WrittenStage, ...] = ()
    wait: InputWait | None = None
    phases: tuple[InputPhase, ...] = ()
    limiting: int | None = None
    elements_per_s: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
