"""How often each op of a lowered graph runs in a step, as far as a run on the processor tells."""

from __future__ import annotations

import re
from collections.abc import Mapping

from graphlens.facts.flat.scopes import canonical_name
from graphlens.facts.placement import frames
from graphlens.facts.placement.netlist import Netlist
from graphlens.ir.ops import LOOPS
from graphlens.ir.run import ReplayRecord

_BODY = re.compile(r"(/(?:body|cond)/)")


class Executions:
    """Executions per step; ``None`` for what is inside a loop of which no op was seen."""

    def __init__(self, netlist: Netlist, replay: Mapping[str, ReplayRecord]) -> None:
        self._netlist = netlist
        self._seen = {canonical_name(name): record.calls for name, record in replay.items()}
        self._loops = loops(netlist)
        self._of_loop = self._most_by_loop()

    def of(self, name: str) -> int | None:
        """Return how often op ``name`` runs: as seen, else as often as its loop, else once."""
        seen = self._seen.get(canonical_name(name))
        if seen is not None:
            return seen
        loop = self._loops[self._netlist.index[name]]
        return self._of_loop.get(loop) if loop else 1

    def _most_by_loop(self) -> dict[tuple[str, ...], int]:
        """An op of the body runs once an iteration; the ops that decide on going on run once more."""
        found: dict[tuple[str, ...], list[int]] = {}
        for op, loop in zip(self._netlist.ops, self._loops, strict=True):
            seen = self._seen.get(canonical_name(op.name))
            if loop and seen is not None:
                found.setdefault(loop, []).append(seen)
        return {loop: _usual(counts) for loop, counts in found.items()}


def _usual(counts: list[int]) -> int:
    return max(set(counts), key=lambda count: (counts.count(count), count))


def loops(netlist: Netlist) -> list[tuple[str, ...]]:
    """Return the loops that each op is in, the outermost first: frames of lowered ones, names of inlined bodies."""
    return [framed or _bodies(netlist, number) for number, framed in enumerate(frames.loops(netlist))]


def _bodies(netlist: Netlist, number: int) -> tuple[str, ...]:
    """A loop that was not lowered stands beside its inlined body and condition, whose names begin with its own."""
    parts = _BODY.split(netlist.ops[number].name)
    prefixes = ("".join(parts[:length]) for length in range(1, len(parts), 2))
    return tuple(name for name in prefixes if name in netlist.index and netlist.ops[netlist.index[name]].type in LOOPS)
