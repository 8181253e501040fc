"""The steps' time, divided among what was running: what its parts are called, and which waits are parts of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from graphlens.facts.flat.names import Names
from graphlens.ir.ops import ASYNCHRONOUS, COMPOSITE
from graphlens.ir.run import Span

# The states of an instant in which no op runs.  No op can be called that: names never begin with a zero byte.  A
# function runs during a hand-off, but neither an op nor the executor on any thread: its cause is not known.
COPY: Final = "\0copy"
EXECUTOR: Final = "\0executor"
HANDOFF: Final = "\0hand-off"
DISPATCH: Final = "\0dispatch"
STATES: Final = frozenset({COPY, EXECUTOR, HANDOFF, DISPATCH})


class Division(NamedTuple):
    """Wall time by what was running, over ``steps`` steps of ``wall_ns`` in all."""

    active_ns: Mapping[str, float]
    wall_ns: int
    steps: int

    def share(self, name: str) -> float | None:
        """Return the share of the wall time during which ``name`` ran."""
        return self.active_ns.get(name, 0.0) / self.wall_ns if self.wall_ns else None


def wait_name(span: Span, names: Names) -> tuple[str, str]:
    """Return the op that a wait is of, and its type."""
    name, _, op = span.name.rpartition(":") if ":" in span.name else (span.name, "", "")
    return name, op or names.types.get(names.find(name) or "", "wait")


def is_real_wait(span: Span, names: Names) -> bool:
    """Tell whether an op itself waits: a call waits for what it calls."""
    name, op = wait_name(span, names)
    op = names.types.get(names.find(name) or "", op)
    return op in ASYNCHRONOUS and op not in COMPOSITE
