"""The child's side of the channel to its parent: requests come on standard input, messages go to standard output."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator

from graphlens.children.messages import Done, Emit, Failure, Message, from_line, to_line
from graphlens.errors import ExecutionError, GraphLensError, first_line


def reserve_stdout() -> Emit:
    """Keep stdout for messages and send everything else that is printed to stderr, C++ included."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(message: object) -> None:
        channel.write(to_line(message) + "\n")
        channel.flush()

    return emit


def requests(*expected: type[Message]) -> Iterator[Message]:
    """Yield requests until there are no more."""
    for line in sys.stdin:
        yield from_line(line, expected)


def carry_out(work: Callable[[], None], emit: Emit) -> int:
    """Do what was asked for, and say how it went; returns the exit code."""
    try:
        work()
    except GraphLensError as error:
        return fail(error, emit)
    except Exception as error:  # the last line of defence: the parent shows one line, the log has the rest
        traceback.print_exc()
        return fail(ExecutionError(f"recording failed: {type(error).__name__}: {first_line(error)}"), emit)
    emit(Done())
    return 0


def fail(error: GraphLensError, emit: Emit) -> int:
    """Say why it could not be done; returns the exit code."""
    emit(Failure(str(error), error.exit_code))
    return error.exit_code
