"""Tiny graphs written as text, and where the simulation puts their ops, for the tests of ``facts.placement``.

One op a line: ``name = Type(inputs) attr=dtype … @device``; an input is ``op``, ``op:1`` or ``^op``, an attribute that
lists several values separates them by ``|``.
"""

from __future__ import annotations

import re
from typing import Any

from graphlens.facts.placement import (
    ALL_RULES,
    DeviceType,
    Netlist,
    Placed,
    Rules,
    Transfer,
    assigned_on_gpu,
    netlist_of,
    place,
    table_for,
    transfers,
)
from graphlens.ir.graph import Function
from graphlens.ir.nodes import CONTROL, Edge, Op, TensorSpec
from graphlens.ir.optable import dtypes_of, table
from graphlens.ir.table import TableBuilder

KERNELS = table_for("2.21.0")
_LINE = re.compile(r"^(?P<name>\S+) = (?P<type>\w+)\((?P<inputs>[^)]*)\)(?P<rest>.*)$")


def function_of(text: str) -> Function:
    """Return the graph that ``text`` describes; what leads from a ``NextIteration`` to a ``Merge`` is a back edge."""
    graph, back = TableBuilder(), []
    lines = [match for line in text.strip().splitlines() if (match := _LINE.match(line.strip()))]
    for match in lines:
        graph.add_op(_op(match))
    for match in lines:
        for edge in _edges(match):
            closes = match["type"] == "Merge" and graph.op(edge[0]).type == "NextIteration"
            back.append(edge) if closes else graph.add_edge(*edge)
    return Function("", graph.table(), back_edges=tuple(back))


def _op(match: re.Match[str]) -> Op:
    words = match["rest"].split()
    attrs = {name: _value(name, value) for name, _, value in (word.partition("=") for word in words if "=" in word)}
    device = next((word[1:] for word in words if word.startswith("@")), "")
    info = table().get(match["type"])
    attrs = {**(info.defaults if info else {}), **attrs}
    listed = dtypes_of(info.outputs, attrs) if info else None
    outputs = tuple(TensorSpec(dtype) for _, dtypes in listed or () for dtype in dtypes)
    return Op(match["name"], match["type"], device, outputs, attrs)


def _value(name: str, value: str) -> Any:
    if value.isdecimal():
        return int(value)
    several = "|" in value or name.startswith("_class") or name.endswith(("dtypes", "hostmem"))
    if not several:
        return value
    return tuple(int(item) if item.isdecimal() else item for item in value.split("|"))


def _edges(match: re.Match[str]) -> list[tuple[str, str, Edge]]:
    found, port = [], 0
    for written in filter(None, (part.strip() for part in match["inputs"].split(","))):
        if written.startswith("^"):
            found.append((written[1:], match["name"], CONTROL))
            continue
        src, _, number = written.partition(":")
        found.append((src, match["name"], Edge("data", int(number or 0), port)))
        port += 1
    return found


def netlist(text: str) -> Netlist:
    """Return the graph that ``text`` describes, for the simulation."""
    return netlist_of(function_of(text))


def placed(text: str, rules: Rules = ALL_RULES) -> dict[str, Placed]:
    """Place the graph of ``text`` on a machine with a GPU."""
    net = netlist(text)
    return place(net, KERNELS, assigned_on_gpu(net), rules)


def devices(text: str, rules: Rules = ALL_RULES) -> dict[str, DeviceType]:
    """Return op -> device of the graph of ``text``."""
    return {name: item.device for name, item in placed(text, rules).items()}


def sent(text: str, rules: Rules = ALL_RULES) -> list[Transfer]:
    """Return what crosses in the placed graph of ``text``."""
    return list(transfers(netlist(text), devices(text), KERNELS, rules))


def arrows(text: str, rules: Rules = ALL_RULES) -> list[str]:
    """Return what crosses, as ``x -> y host-to-device``."""
    return [f"{item.src} -> {'+'.join(name for name, _ in item.readers)} {item.kind}" for item in sent(text, rules)]
