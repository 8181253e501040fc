"""The loops that each op of a lowered graph is in, by the names of their frames."""

from __future__ import annotations

from typing import Final

from graphlens.facts.placement.netlist import Netlist
from graphlens.ir.ops import ENTERS, EXITS

_CONDITION: Final = "LoopCond"


def loops(netlist: Netlist) -> list[tuple[str, ...]]:
    """Return the loops that each op is in, the outermost first."""
    found: list[tuple[str, ...] | None] = [None] * len(netlist.ops)
    pending = [number for number, wires in enumerate(netlist.into) if not wires]
    for number in pending:
        found[number] = ()
    while pending:
        number = pending.pop()
        inside = found[number] or ()
        if netlist.ops[number].type in EXITS:
            inside = inside[:-1]
        for wire in netlist.out_of[number]:
            if found[wire.dst] is None:
                op = netlist.ops[wire.dst]
                enters = (str(op.attrs.get("frame_name", "")),) if op.type in ENTERS else ()
                found[wire.dst] = (*inside, *enters)
                pending.append(wire.dst)
    return [item or () for item in found]


def conditions(netlist: Netlist, loops_of: list[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """Return the op that decides whether each loop goes round once more."""
    return {loops_of[number]: number for number, op in enumerate(netlist.ops) if op.type == _CONDITION}
