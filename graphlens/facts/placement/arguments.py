"""Where the arguments of a function live on a machine with a GPU: the devices that no placer decides.

A tensor comes from where it was made: floats from the GPU, strings and int32 from host memory, handles from wherever
their variable or table is.  The ops into which loops and calls are lowered are given the device of the argument that
they pass on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from graphlens.facts.placement.groups import device_name
from graphlens.facts.placement.kernels import CPU, GPU, DeviceType
from graphlens.facts.placement.netlist import INT32, RESOURCE, STRING, Netlist
from graphlens.ir.nodes import ARGUMENT, RETURN, Op, TensorSpec
from graphlens.ir.ops import CONTROL_FLOW, FED, NEXT_ITERATIONS

# Values and variables of these dtypes are kept in host memory.
ON_HOST: Final = frozenset({STRING, INT32})
_HANDLE_DTYPES: Final = "_handle_dtypes"
_PASSING: Final = CONTROL_FLOW | {"Identity"}
_IDENTITY_STEPS: Final = 64  # handles are passed on through calls; deeper than this nobody nests them


def assigned_on_gpu(netlist: Netlist) -> dict[str, DeviceType]:
    """Return the devices that the runtime of a machine with a GPU fixes, for a graph that was dumped without one."""
    found = {op.name: _home(netlist, number) for number, op in enumerate(netlist.ops) if op.type in FED}
    for number, op in enumerate(netlist.ops):
        if op.type == RETURN and op.device:
            found[op.name] = _returned_by(netlist, number, found)
        elif op.type in _PASSING and op.device and (source := _passed_on(netlist, number)) in found:
            found[op.name] = found[source]
    return found


def assigned_as_dumped(netlist: Netlist) -> dict[str, DeviceType]:
    """Return the devices that the runtime fixed, for a graph that was dumped on a machine with a GPU."""
    ours = assigned_on_gpu(netlist)
    named = {op.name: device_name(op.device).type for op in netlist.ops if op.name in ours}
    return {name: GPU if device == GPU else CPU for name, device in named.items()}


def fed_with(ops: Iterable[Op], inputs: Sequence[TensorSpec]) -> dict[str, TensorSpec]:
    """Return argument -> what it was in the run; ``inputs`` are those of the caller, in order, before all captures."""
    arguments = [(op, op.attrs.get("index")) for op in ops if op.type == ARGUMENT]
    return {
        op.name: inputs[index]
        for op, index in arguments
        if isinstance(index, int) and index < len(inputs) and inputs[index].dtype == op.attrs.get("T")
    }


def _passed_on(netlist: Netlist, number: int) -> str:
    """Return the op whose device a lowered op was given; empty where a program may have asked for the device."""
    op, wires = netlist.ops[number], netlist.into[number]
    if op.type in NEXT_ITERATIONS:  # it is given that of the loop variable, not of the value that it carries
        merges = [netlist.ops[wire.dst].name for wire in netlist.out_of[number] if wire.dst_port >= 0]
        return merges[0] if merges else ""
    if not wires or wires[0].dst_port < 0:
        return ""
    source = netlist.ops[wires[0].src].name
    return source if op.type != "Identity" or _is_of_a_call(op, source) else ""


def _returned_by(netlist: Netlist, number: int, found: Mapping[str, DeviceType]) -> DeviceType:
    """A result is where the op behind it was asked to be, or was put by the runtime."""
    for _ in range(_IDENTITY_STEPS):
        wires = netlist.into[number]
        if not wires or wires[0].dst_port < 0:
            break
        number = wires[0].src
        op = netlist.ops[number]
        if op.name in found:
            return found[op.name]
        if op.device:
            return GPU if device_name(op.device).type == GPU else CPU
    return CPU


def _is_of_a_call(op: Op, source: str) -> bool:
    return f"loc:@{source}" in (op.attrs.get("_class") or ())


def _home(netlist: Netlist, number: int) -> DeviceType:
    op = netlist.ops[number]
    dtype = str(op.attrs.get("T") or op.attrs.get("dtype"))
    if dtype == RESOURCE:
        held = variable_dtype(netlist, number)
        return CPU if held is None or held in ON_HOST else GPU
    return CPU if dtype in ON_HOST else GPU


def variable_dtype(netlist: Netlist, number: int) -> str | None:
    """Return the dtype of the variable behind a handle, ``None`` for tables, iterators and what nobody reads."""
    listed = netlist.ops[number].attrs.get(_HANDLE_DTYPES)
    if isinstance(listed, tuple) and listed:
        return None if listed[0] == "invalid" else str(listed[0])
    return _dtype_by_use(netlist, number)


def _dtype_by_use(netlist: Netlist, number: int) -> str | None:
    pending, seen = [number], {number}
    while pending and len(seen) <= _IDENTITY_STEPS:
        for wire in netlist.out_of[pending.pop()]:
            reader = netlist.ops[wire.dst]
            if wire.dst_port < 0 or wire.dst in seen:
                continue
            if "Variable" in reader.type or reader.type.startswith("Resource"):
                return str(reader.attrs.get("dtype") or reader.attrs.get("T"))
            if reader.type in _PASSING:
                seen.add(wire.dst)
                pending.append(wire.dst)
    return None
