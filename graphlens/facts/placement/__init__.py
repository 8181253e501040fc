"""Where a graph would be placed on a machine with a GPU, and what would be copied: TensorFlow's rules, simulated.

How to use it on a graph that TensorFlow dumped before placement (``TF_DUMP_GRAPH_PREFIX``: function-inlined, control
flow lowered), read with ``loaders.graphdef.build_graph``::

    netlist = netlist_of(graph.main)
    kernels = table_for("2.21")
    assigned = assigned_on_gpu(netlist)          # of a dump made without a GPU; ``assigned_as_dumped`` of one made with
    placed = place(netlist, kernels, assigned)   # op -> Placed(device, cause, culprit)
    sent = transfers(netlist, {name: item.device for name, item in placed.items()}, kernels)

``place`` follows placer.cc and colocation_graph.cc, ``transfers`` memory_types.cc and graph_partition.cc.  Both take
``Rules`` that switch single rules off, for tests which show that each one matters.  TensorFlow counts copies after its
graph optimizer has run: ``netlist_of`` of that graph with ``devices_of`` gives the same input as after a real run.

The simulation is in ``kernels``, ``netlist``, ``arguments``, ``groups``, ``placer``, ``frames`` and ``crossings``; what
a report says of one is in ``prediction`` (ops, islands, copies), ``counts``, ``gpus``, ``changes``, ``pinning`` and
``limits``.
"""

from __future__ import annotations

from graphlens.facts.placement.arguments import assigned_as_dumped, assigned_on_gpu, fed_with
from graphlens.facts.placement.crossings import Transfer, transfers
from graphlens.facts.placement.groups import device_name
from graphlens.facts.placement.kernels import CPU, GPU, DeviceType, KernelTable, table_for, versions
from graphlens.facts.placement.netlist import Netlist, netlist_of
from graphlens.facts.placement.placer import ALL_RULES, Placed, Rules, place

__all__ = [
    "ALL_RULES",
    "CPU",
    "GPU",
    "DeviceType",
    "KernelTable",
    "Netlist",
    "Placed",
    "Rules",
    "Transfer",
    "assigned_as_dumped",
    "assigned_on_gpu",
    "devices_of",
    "fed_with",
    "netlist_of",
    "place",
    "table_for",
    "transfers",
    "versions",
]


def devices_of(netlist: Netlist) -> dict[str, DeviceType]:
    """Return the devices that the ops of a placed graph bear; what bears none is on the host."""
    return {op.name: GPU if device_name(op.device).type == GPU else CPU for op in netlist.ops}
