"""What the names of events on the host plane say: the one place that knows how the runtime calls them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from graphlens.ir.run import STEP_MARKER
from graphlens.ir.script import MARK
from graphlens.loaders.annotations import split_op
from graphlens.loaders.host_executions import END_OF_THUNK, EXECUTION

EXECUTOR: Final = "ExecutorState::Process"
ASYNC_START: Final = "ExecutorState::ProcessAsync::Start"
ASYNC_DONE: Final = "ExecutorState::ProcessAsync::Done"
FUNCTION: Final = "FunctionRun"
SESSION: Final = "SessionRun"
EAGER: Final = "EagerExecute"
REDUCTION: Final = "ReduceDatasetOp::DoCompute"
ROOT: Final = "Iterator::Root"
CAPTURED: Final = "captured function"

OP: Final = "op"
OTHER: Final = "other"
ELEMENT: Final = "element"
COMPILED: Final = "compiled"
COMPILED_FUNCTION: Final = "compiled function"
MARKED: Final = "marked"
EAGER_OP: Final = "eager op"
EAGER_KERNEL: Final = "KernelAndDeviceFunc::Run"  # of functions, too

_EAGER_OP_OF: Final = "EagerLocalExecute: "

_KINDS: Final = (
    (re.compile(r"^InstantiatedCapturedFunction::Run"), CAPTURED),
    (
        re.compile(r"^(IteratorGetNext|IteratorGetNextAsOptional|MultiDeviceIteratorGetNextFromShard)Op::DoCompute$"),
        ELEMENT,
    ),
    (re.compile(r"::CompileCpuExecutable$|::BuildExecutable$|^XlaCompil"), COMPILED),
    # A function that XLA compiled as a whole is run like an op of its own name; its time is that of a function.
    (re.compile(r"^(__inference_\w+):\1$"), COMPILED_FUNCTION),
    (re.compile(rf"^{END_OF_THUNK}"), END_OF_THUNK),
    (re.compile(r"^ThreadpoolListener"), ""),
)
_OWN_KINDS = frozenset(
    {EXECUTOR, ASYNC_START, ASYNC_DONE, FUNCTION, SESSION, EAGER, REDUCTION, ROOT, EAGER_KERNEL, STEP_MARKER, EXECUTION}
)

KIND_OF: Final = ("", *sorted({*_OWN_KINDS, *(kind for _, kind in _KINDS), MARKED, EAGER_OP, OP, OTHER} - {""}))
NUMBERED: Final = {kind: number for number, kind in enumerate(KIND_OF)}


class Name(NamedTuple):
    """What the name of an event says: its kind, and for an op its node and type."""

    kind: str
    node: str = ""
    op: str = ""


@lru_cache(maxsize=65_536)
def classify(name: str, display: str) -> Name:
    """Return what the name of an event says, and how it is displayed."""
    if name in _OWN_KINDS:
        return Name(name)
    kind = next((kind for pattern, kind in _KINDS if pattern.search(name)), None)
    if kind is not None:
        return Name(kind)
    if name.startswith(MARK):
        return Name(MARKED)
    if name.startswith(_EAGER_OP_OF):
        return Name(EAGER_OP, op=name.removeprefix(_EAGER_OP_OF))
    node, op = split_op(name, display)
    return Name(OP, node, op) if op else Name(OTHER)
