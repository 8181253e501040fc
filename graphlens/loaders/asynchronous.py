"""Asynchronous ops: an event says when each was started, and another one, on whatever thread, that it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from graphlens.ir.run import Span

GET_NEXT: Final = "IteratorGetNext"  # how the types of the ops begin that fetch an element


class Done(NamedTuple):
    """The completion of an asynchronous op: it is told on the thread that did the op's work."""

    node: str
    start_ns: int
    thread: int


@dataclass(slots=True)
class Asynchronous:
    """The starts, named ``node:Op``, and the ends that were seen, by the number that links one to the other."""

    starts: dict[int, Span] = field(default_factory=dict)
    ends: dict[int, Span] = field(default_factory=dict)

    def waits(self) -> Iterator[Span]:
        """Yield the ops from their start to their completion."""
        for link, start in self.starts.items():
            end = self.ends.get(link)
            if end is not None and end.start_ns >= start.start_ns:
                yield start._replace(end_ns=end.start_ns)

    def answered(self) -> Iterator[Done]:
        """Yield the completions of ops that fetch an element."""
        for link, start in self.starts.items():
            node, _, op = start.name.rpartition(":")
            if op.startswith(GET_NEXT) and link in self.ends:
                yield Done(node, self.ends[link].start_ns, self.ends[link].thread)
