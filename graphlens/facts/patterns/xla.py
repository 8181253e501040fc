"""Which ops keep XLA from compiling a function, by TensorFlow's own registry, shipped as data."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.scopes import is_compiled
from graphlens.facts.graphs import traced_graph
from graphlens.facts.patterns.cutting import single_op
from graphlens.facts.patterns.dataflow import dataflow
from graphlens.facts.programs.judged_program import programs
from graphlens.facts.time.attribution import timings
from graphlens.ir.fusion import COMPILE, Chain, FusionAnswer
from graphlens.ir.graph import Function, Graph
from graphlens.ir.nodes import Op
from graphlens.ir.ops import (
    ARGUMENTS,
    CONSTANTS,
    DATASET_LOOPS,
    PASSES,
    PLACEHOLDERS,
    PLAIN_CALLS,
    RETURNS,
    VARIABLE_READS,
)
from graphlens.ir.run import SESSION
from graphlens.ir.table import NO_OPS, Table

TABLE_VERSION: Final = "2.21"
_TABLE: Final = Path(__file__).parents[2] / "data" / f"xla-ops-tf{TABLE_VERSION}.json.gz"
# The frame of a function, and its inputs: not for XLA to compile.
_NOT_COMPILED: Final = ARGUMENTS | RETURNS | PLACEHOLDERS | {"NoOp"}

# They compute nothing that could become part of a larger kernel.
_NO_WORK: Final = _NOT_COMPILED | CONSTANTS | VARIABLE_READS | PASSES

# These fetch the next element of a dataset, and hand back what is made of it.
_ELEMENTS: Final = frozenset(
    {"IteratorGetNext", "IteratorGetNextSync", "IteratorGetNextAsOptional"}
    | {f"Optional{what}" for what in ("FromValue", "GetValue", "HasValue", "None")}
)

# One kernel: attribute -> the types it takes.
_Kernel = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Blocker:
    """One op that XLA cannot compile: there is no kernel for its type (``dtype`` is ``None``), or not for a dtype."""

    name: str
    type: str
    dtype: str | None = None


@lru_cache(maxsize=1)
def table() -> Mapping[str, Sequence[_Kernel]]:
    """Return the kernels that XLA has for each op type."""
    ops = json.loads(gzip.decompress(_TABLE.read_bytes()))["ops"]
    return {name: [{attr: frozenset(types) for attr, types in kernel} for kernel in ops[name]] for name in ops}


def blocker_of(op: Op) -> Blocker | None:
    """Return why XLA cannot compile ``op``, or ``None`` when it can.

    >>> blocker_of(Op("x", "Relu", attrs={"T": "float32"})) is None
    True
    >>> blocker_of(Op("x", "Identity", attrs={"T": "string"}))
    Blocker(name='x', type='Identity', dtype='string')
    """
    if op.type in _NOT_COMPILED:
        return None
    kernels = table().get(op.type)
    if kernels is None:
        return Blocker(op.name, op.type)
    refused = [dtype for kernel in kernels for dtype in _refused(kernel, op.attrs)[:1]]
    return Blocker(op.name, op.type, refused[0]) if len(refused) == len(kernels) else None


def _refused(kernel: _Kernel, attrs: Mapping[str, Any]) -> list[str]:
    """Return the dtypes of an op that a kernel does not take; an attribute may list several."""
    found = []
    for attr, types in kernel.items():
        value = attrs.get(attr)
        dtypes = value if isinstance(value, tuple) else () if value is None else (value,)
        found += [dtype for dtype in map(str, dtypes) if dtype not in types]
    return found


# -- in a graph ----------------------------------------------------------------------------------------------------


def blockers_of_compiled(library: Graph) -> Mapping[str, tuple[Blocker, ...]]:
    """Return function -> its blockers, for the functions that ask to be compiled and cannot be."""
    asked = {
        call.function
        for function in library.functions.values()
        for op in function.graph.ops()
        if is_compiled(op)
        for call in op.calls
    }
    found = {
        name: tuple(_in_function(library, library.functions[name], set()))
        for name in sorted(asked)
        if name in library.functions
    }
    return {name: blockers for name, blockers in found.items() if blockers}


def _in_function(library: Graph, function: Function, seen: set[str]) -> Iterator[Blocker]:
    if function.name in seen:
        return
    seen.add(function.name)
    for op in function.graph.ops():
        called = [library.functions[call.function] for call in op.calls if call.function in library.functions]
        for item in called:
            yield from _in_function(library, item, seen)
        blocker = None if called else blocker_of(op)
        if blocker is not None:
            yield blocker


@fact
def blockers_of_step(facts: Facts) -> tuple[Blocker, ...]:
    """Return what would keep XLA from compiling the whole step: live ops of the graph as written.

    A function that only fetches elements and calls the step with them is not what is compiled: Keras' ``jit_compile``
    is of the function within.  The graph of a Session also holds what initializes and saves: what was not seen of it is
    no part of the step.
    """
    written, flow = facts(traced_graph), facts(dataflow)
    if written is None or flow is None:
        return ()
    blocked = _blocked_kinds(written)
    if not blocked:
        return ()  # most graphs: to know which ops are alive takes longer than all the rest of this
    around = _around_step(facts.evidence.traced)
    live = (op for _, op in flow.live({kind for kind, _ in blocked}.__contains__) if not _is_flattened(op))
    judged = facts(programs).judged
    ran = facts(timings) if judged is not None and judged.name.startswith(SESSION) else None
    found = ((op, blocked.get((op.type, id(op.attrs)))) for op in live if ran is None or op.name in ran)
    return tuple(
        replace(blocker, name=op.name) for op, blocker in found if blocker is not None and op.name not in around
    )


def _around_step(library: Graph | None) -> frozenset[str]:
    """Return the ops of the root that fetch elements, where all else that it does is to call the step with them."""
    graph = library.main.graph if library is not None else NO_OPS
    kinds = graph.by_type.keys()
    if not kinds & PLAIN_CALLS or kinds - _NO_WORK - _ELEMENTS - PLAIN_CALLS:
        return frozenset()
    return frozenset(graph.of_types(_ELEMENTS))


def _blocked_kinds(graph: Table) -> Mapping[tuple[str, int], Blocker]:
    """Return the blockers by type and attributes, which equal ops share: each kind of op is judged once."""
    kinds = {(op.type, id(op.attrs)): op for op in graph.kinds if not _is_flattened(op)}
    judged = ((kind, blocker_of(op)) for kind, op in kinds.items() if not is_compiled(op))
    return {kind: blocker for kind, blocker in judged if blocker is not None}


def _is_flattened(op: Op) -> bool:
    """Whether XLA compiles what an op calls in its place, as it does for calls, loops and branches.

    A loop over a dataset is none of them: tf.data runs its function.
    """
    return bool(op.calls) and op.type not in DATASET_LOOPS


@fact
def is_compiled_already(facts: Facts) -> bool:
    """Whether XLA compiles the step, or a part of it that its author chose."""
    library = facts.evidence.traced
    functions = library.functions.values() if library is not None else ()
    return bool(facts.evidence.hlo) or any(is_compiled(op) for item in functions for op in item.graph.kinds)


@fact
def working_ops(facts: Facts) -> int:
    """Return how many live ops of the graph as written compute something."""
    flow = facts(dataflow)
    return 0 if flow is None else flow.count(lambda kind: kind not in _NO_WORK)


def key_of(blocker: Blocker) -> str:
    """Return the key under which a trial of compiling the op is asked for and answered."""
    return f"{COMPILE}:{blocker.type}:{blocker.dtype or ''}"


def trials(facts: Facts) -> tuple[Chain, ...]:
    """Return one op of each kind of blocker as a graph of its own, to be compiled alone."""
    flow = facts(dataflow)
    if flow is None:
        return ()
    kinds = {key_of(blocker): blocker for blocker in facts(blockers_of_step)}
    return tuple(single_op(flow, blocker.name, key, COMPILE) for key, blocker in kinds.items())


def confirmed(facts: Facts, blocker: Blocker) -> FusionAnswer | None:
    """Return what a real compilation of such an op alone said, where one was made."""
    return facts.evidence.fusion_answers.get(key_of(blocker))


def compiles(facts: Facts, blocker: Blocker) -> bool:
    """Tell whether the compiler took such an op after all."""
    answer = confirmed(facts, blocker)
    return answer is not None and answer.verdict == "fuses"
