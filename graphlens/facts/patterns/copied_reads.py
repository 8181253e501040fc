"""Reads of whole variables that copy: of those of which rows were read or written by their numbers before."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.flat.constants import handle_origin
from graphlens.facts.graphs import judged_graph
from graphlens.facts.patterns.tables import HANDLE_LOOKUPS, ROW_LOOKUPS, bound_variables
from graphlens.facts.time.attribution import timings
from graphlens.ir.graph import Variable
from graphlens.ir.nodes import TensorSpec
from graphlens.ir.ops import WHOLE_READS
from graphlens.ir.script import RowAccess
from graphlens.ir.table import Table

# Copies of less than this are lost among what an op costs anyway.
SMALLEST_COPY_BYTES: Final = 1 << 20
# Handing on a buffer took 0.2 to 5 us, whatever its size; an op that was interrupted meanwhile takes longer now and
# then, but not in the median of its steps.
HANDING_ON_NS: Final = 20_000
# No processor copies faster than this, caches included: what took less time has copied nothing.
FASTEST_COPY_BYTES_PER_S: Final = 400e9
_NS_PER_S: Final = 1e9

_ROW_WRITES: Final = re.compile(r"^Resource(Scatter|SparseApply)\w+$")


@dataclass(frozen=True, slots=True)
class CopiedRead:
    """The whole reads of one variable in a step, each of which copies it.

    Attributes
    ----------
    reads
        The ops that read it whole and took as long as a copy, and how long they took per step.
    accessed_by
        The op type that read or wrote rows of it.
    accessed_in
        The function in which that was; empty where it was done eagerly, or in the judged graph itself.
    is_accessed_here
        Whether the judged graph itself reads or writes rows of it, in each step.
    only_rows_needed
        Whether nothing but lookups of rows uses what was read.
    """

    variable: Variable
    reads: tuple[str, ...]
    self_ns: int
    accessed_by: str
    accessed_in: str = ""
    is_accessed_here: bool = False
    only_rows_needed: bool = False

    @property
    def nbytes(self) -> int:
        """The size of the variable."""
        return self.variable.spec.nbytes or 0


@fact
def copied_reads(facts: Facts) -> tuple[CopiedRead, ...]:
    """The variables of the judged graph whose whole reads copied, by their place in it.

    Rows of each were read or written, by a program of the script that was watched or by the judged graph itself, and
    its reads took the time of a copy: what was saved by a checkpoint since then is read without one.
    """
    graph = facts(judged_graph)
    reads = _slow_reads(facts, graph)
    if not reads:
        return ()
    accesses = _Accesses(facts, graph)
    found = (_copied(facts, handle, reads[handle], accesses) for handle in reads)
    return tuple(copied for copied in found if copied is not None)


class _Accesses:
    """What is known of the variables behind handles, and of who accesses rows of them."""

    def __init__(self, facts: Facts, graph: Table) -> None:
        script = facts.evidence.script
        self._graph, self._bound = graph, bound_variables(facts)
        self._seen = {access.variable: access for access in script.row_accesses} if script is not None else {}
        self.here = {handle: kind for kind, handle in _row_accesses(graph)}

    def variable(self, handle: int, spec: TensorSpec) -> Variable:
        """Return the variable, or one of that spec called after its handle where nobody says which it is."""
        name = self._graph.names[handle]
        known = self._bound.get(name) or Variable(name, spec)
        return known if known.spec.nbytes else replace(known, spec=spec)

    def seen(self, variable: Variable) -> RowAccess | None:
        """Return what the watch of the script saw first, whichever function did it."""
        return self._seen.get(variable.key) if variable.key else None


def _copied(facts: Facts, handle: int, reads: list[int], accesses: _Accesses) -> CopiedRead | None:
    graph = facts(judged_graph)
    variable = accesses.variable(handle, _read_spec(graph, reads[0]))
    seen, here = accesses.seen(variable), accesses.here.get(handle)
    by = here or (seen.op if seen is not None else None)
    if by is None:
        return None
    names = tuple(graph.names[position] for position in reads)
    return CopiedRead(
        variable=variable,
        reads=names,
        self_ns=sum(facts(timings)[name].self_ns for name in names),
        accessed_by=by,
        accessed_in=seen.function if seen is not None and here is None else "",
        is_accessed_here=here is not None,
        only_rows_needed=all(_needs_rows_only(graph, position) for position in reads),
    )


def _slow_reads(facts: Facts, graph: Table) -> dict[int, list[int]]:
    """Return where a variable's handle comes from -> its whole reads that took as long as a copy."""
    found: dict[int, list[int]] = defaultdict(list)
    seen = facts(timings)
    for position in graph.positions_of(WHOLE_READS):
        timing, nbytes = seen.get(graph.names[position]), _read_spec(graph, position).nbytes or 0
        if timing is None or nbytes < SMALLEST_COPY_BYTES:
            continue
        copying_ns = max(HANDING_ON_NS, nbytes / FASTEST_COPY_BYTES_PER_S * _NS_PER_S)
        if timing.self_ns >= copying_ns * max(1.0, timing.calls_per_step):
            for handle in graph.data_before(position)[:1]:
                found[handle_origin(graph, handle)].append(position)
    return found


def _row_accesses(graph: Table) -> Iterator[tuple[str, int]]:
    for kind, positions in graph.by_type.items():
        if kind in HANDLE_LOOKUPS or _ROW_WRITES.match(kind):
            for position in positions:
                for handle in graph.data_before(position)[:1]:
                    yield kind, handle_origin(graph, handle)


def _needs_rows_only(graph: Table, read: int) -> bool:
    readers = [reader for reader in graph.following[read] if read in graph.data_before(reader)]
    return bool(readers) and all(graph.bodies[reader].type in ROW_LOOKUPS for reader in readers)


def _read_spec(graph: Table, read: int) -> TensorSpec:
    outputs = graph.bodies[read].outputs
    return outputs[0] if outputs else TensorSpec("unknown")
