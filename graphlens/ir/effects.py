"""Which op types do more than compute their result from their inputs: by TensorFlow's registry, and where it is silent.

The registry calls an op stateful when it reads or changes something besides its tensors.  That holds for all that can
be folded or shared; it is silent about ops that act on what their inputs point to, or that stand for something outside.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from graphlens.ir.ops import (
    CHECKS,
    CONDITIONALS,
    CONTROL_FLOW,
    DEBUGGER,
    FED,
    LOOPS,
    PRINTS,
    PYTHON,
    WHOLE_CALLS,
    is_variable_write,
)
from graphlens.ir.optable import OpInfo, table

# Declared as stateless, although equal inputs do not always give equal outputs, or something else happens:
_NOT_PURE: Final = (
    CONTROL_FLOW  # whether there is an output at all depends on what is not an input
    | FED
    | frozenset({"ControlTrigger", "NoOp", "FakeParam"})
    | frozenset({"ReadFile", "MatchingFiles", "Abort"})
    # Write into their input.
    | frozenset({"InplaceUpdate", "InplaceAdd", "InplaceSub", "_ParallelConcatUpdate"})
    # Wait for the calls of others.
    | frozenset({"Batch", "Unbatch", "UnbatchGrad"})
)
# The handles of the first TensorArrays are plain strings, and the ops of XLA, TPU and DTensor differ by where they run.
# Random numbers of a seed that never changes could be kept, but whoever draws them means others each time.
_NOT_PURE_NAMES: Final = re.compile(r"^(TensorArray|_?Xla|_?TPU|DTensor)|^Copy$|^(Stateless|Risc)?(Random|Multinomial)")
_OPAQUE: Final = frozenset({"=resource", "=variant"})

# Give something and do something, or do it although TensorFlow declares no state; calls do what their functions do.
_SPEAKING: Final = PYTHON | PRINTS | CHECKS | DEBUGGER | WHOLE_CALLS | CONDITIONALS | LOOPS | {"_If", "_While"}
_WRITE_INTO: Final = re.compile(r"^(TensorArrayWrite|StackPush)(V\d)?$")
_FROM_ELSEWHERE: Final = re.compile(r"Iterator|Queue|[Ss]tage|Recv")


@cache
def is_pure(op_type: str) -> bool:
    """Tell whether an op of this type gives the same for the same inputs, does nothing else and calls no function.

    Of a type that TensorFlow does not know, nothing is claimed.

    >>> is_pure("MatMul"), is_pure("TruncatedNormal"), is_pure("TensorScatterAdd"), is_pure("SomebodysOp")
    (True, False, True, False)
    """
    info = table().get(op_type)
    if info is None or acts(op_type) or op_type in _NOT_PURE or _NOT_PURE_NAMES.match(op_type):
        return False
    return not (info.is_stateful or info.calls or _takes_or_gives_state(info))


def _takes_or_gives_state(info: OpInfo) -> bool:
    return any(argument.is_ref or argument.type in _OPAQUE for argument in (*info.inputs, *info.outputs))


@cache
def acts(op_type: str) -> bool:
    """Tell whether an op of this type runs although nobody may read its result: it changes, says or checks something.

    >>> acts("AssignVariableOp"), acts("Print"), acts("CheckNumerics"), acts("ReadVariableOp"), acts("RandomUniform")
    (True, True, True, False, False)
    """
    if op_type in _SPEAKING or is_variable_write(op_type) or _WRITE_INTO.match(op_type):
        return True
    info = table().get(op_type)
    return info is not None and not info.outputs and (info.is_stateful or _takes_or_gives_state(info))


@cache
def stays(op_type: str) -> bool:
    """Tell whether an op of this type stays although nobody reads it: it acts, or its result comes from elsewhere."""
    return acts(op_type) or op_type in FED or _FROM_ELSEWHERE.search(op_type) is not None
