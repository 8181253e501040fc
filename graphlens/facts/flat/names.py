"""Which op of the graph an event's name means, and the type it ran as."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Final, NamedTuple

from graphlens.facts.flat import origins
from graphlens.facts.flat.executed import HLO_CALL, HLO_INSTRUCTION, HLO_MODULE, HLO_PARTS, HLO_STANDS_FOR
from graphlens.facts.flat.instruction_work import stands_for
from graphlens.facts.flat.renames import as_written
from graphlens.facts.flat.scopes import canonical_name
from graphlens.ir.graph import Graph
from graphlens.ir.instructions import fusion_kernel, instruction_type, library_family
from graphlens.ir.ops import DATASET_LOOPS, TRANSFERS, is_instruction
from graphlens.ir.run import DeviceEvent, Kernel, KernelEvent, OpEvent, Profile
from graphlens.ir.table import Table

_BODY: Final = "/body/"  # stands between the name of a loop over a dataset and those of the ops in its body
XLA_KERNEL: Final = "XlaKernel"
ANY_CALL: Final = "*"  # in the place of the op that called a function, which is named so by no graph
KERNEL: Final = "Kernel"  # the type of a kernel of which the profile does not say which op launched it

_REPLICA = re.compile(r"(^|/)replica_(\d{1,9})/")


def replica_of(name: str) -> int | None:
    """Return the number of the replica that an op's name speaks of, as ``tf.distribute`` writes it.

    >>> replica_of("gradient_tape/replica_4/truediv"), replica_of("model/dense/MatMul")
    (4, None)
    """
    match = _REPLICA.search(name)
    return int(match[2]) if match else None


def without_replica(name: str) -> str:
    """Return the op's name as the model's own graph has it.

    >>> without_replica("gradient_tape/replica_4/truediv")
    'gradient_tape/truediv'
    """
    return _REPLICA.sub(r"\1", name)


def device_name(profile: Profile, position: int) -> str:
    """Return the name of a device, with its host where the profile is of several."""
    device = profile.devices[position]
    return f"{device.host} {device.name}" if len(profile.hosts) > 1 and device.host else device.name


def kernel_name(kernel: DeviceEvent | Kernel) -> tuple[str, str]:
    """Return the op that a kernel belongs to with its type, else the kernel itself.

    An instruction of XLA has the type that its compiler, or its name, tells; a kernel of which nobody says what
    launched it has that of the library or the fusion that it is called after, where it is.
    """
    if not kernel.node:
        return kernel.name, _known_by_name(kernel.name)
    if kernel.op != XLA_KERNEL:
        return kernel.node, kernel.op
    instruction = kernel.node.rpartition("/")[2]
    return kernel.node, instruction_type(instruction, kernel.name, kernel.category, kernel.made_of)


def _known_by_name(kernel: str) -> str:
    library = library_family(kernel)
    return fusion_kernel(kernel) or (f"{KERNEL} ({library})" if library else KERNEL)


class _Told(NamedTuple):
    """What a module says of an instruction: the type of the op that it stands for, and the name of one behind it."""

    kind: str
    origin: str


class _Module:
    """Looks up the instructions of one module."""

    def __init__(self, module: Graph) -> None:
        self.module = module
        self._functions = {name: function for function in module.functions.values() for name in function.graph}
        self._told: dict[str, _Told] = {}

    def instruction(self, name: str) -> _Told | None:
        """Return what is said of an instruction, ``None`` for one that is not in the module."""
        function = self._functions.get(name)
        if function is None:
            return None
        if name not in self._told:
            op = function.graph.op(name)
            origin = str(op.attrs.get("op_name", ""))
            self._told[name] = _Told(stands_for(op, function, self.module), origin)
        return self._told[name]


class _Ends:
    """Looks up names by their ends: a function that was not inlined reports its ops without the path of its call."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    @cached_property
    def _backwards(self) -> Sequence[str]:
        return sorted(name[::-1] for name in self._names)

    def only_one(self, end: str) -> str | None:
        """Return the only name that ends with these segments and has others before them, ``None`` for several."""
        wanted = f"{end[::-1]}/"
        at = bisect_left(self._backwards, wanted)
        found = [name for name in self._backwards[at : at + 2] if name.startswith(wanted)]
        return found[0][::-1] if len(found) == 1 else None


class Names:
    """Looks up what the names of a profile mean in one graph.

    Parameters
    ----------
    graph
        The graph that was executed, or the one as written where no other is known; ``None`` for a profile alone.
    loosely
        The profile was not recorded with this graph: replicas, counters and the names that Grappler's rewrites give are
        translated, and the types are those that the events show.
    renamed
        The ops that do not run under their own names (``facts.renames``); of use where names are translated.
    modules
        What the profile says of the functions that XLA compiled for the host; of use where the graph says nothing.
    """

    def __init__(
        self,
        graph: Table | None,
        loosely: bool = False,
        renamed: Mapping[str, str | None] = MappingProxyType({}),
        modules: Mapping[str, Graph] = MappingProxyType({}),
    ) -> None:
        self.types: dict[str, str] = {}
        self.loosely = loosely
        self._renamed = renamed if loosely else {}
        self._known: set[str] = set(graph) if graph is not None else set()
        self._ends = _Ends(self._known)
        self._canonical = {canonical_name(name): name for name in graph or ()} if loosely else {}
        self._found: dict[tuple[str, str], str | None] = {}
        self._instructions = _instructions(graph) if graph is not None else {}
        self._in_datasets = _in_datasets(graph) if graph is not None else {}
        self._modules = {name: _Module(module) for name, module in modules.items()}
        if not loosely and graph is not None:
            self.types.update((name, str(op.attrs.get(HLO_STANDS_FOR, op.type))) for name, op in graph.items())

    def find(self, name: str, op: str = "") -> str | None:
        """Return the op of the graph, or ``None``."""
        if self._in_datasets and (within := self._in_datasets.get(canonical_name(name))) is not None:
            return within
        if name in self._known:
            # A function calls two ops by such a name, its own and another one; which way it was run is not known.
            return None if name in self._renamed else name
        if (name, op) not in self._found:
            self._found[name, op] = self._ends.only_one(name) or self._rewritten(name, op)
        return self._found[name, op]

    def _rewritten(self, name: str, op: str) -> str | None:
        # A send is named after what it sends, whose time is another.
        if not self.loosely or op in TRANSFERS:
            return None
        spellings = (written for ran in _spellings(name) for written in as_written(ran, self._renamed))
        return next((self._canonical[found] for found in spellings if found in self._canonical), None)

    def instruction(self, kernel: KernelEvent) -> tuple[str, str]:
        """Return the instruction of the graph that a thunk executes, and its type.

        Without one it is the op that the instruction was made of, where the graph has that, else the instruction's own
        name after its call or module.
        """
        places = ((kernel.call, kernel.hlo_module, kernel.hlo_op), (ANY_CALL, kernel.hlo_module, kernel.hlo_op))
        found = next((self._instructions[place] for place in places if place in self._instructions), None)
        if found is not None:
            return found, XLA_KERNEL
        own_name = f"{kernel.call or kernel.hlo_module}/{kernel.hlo_op}"
        module = self._modules.get(kernel.hlo_module)
        told = module.instruction(kernel.hlo_op) if module is not None else None
        if told is None:
            return own_name, instruction_type(kernel.hlo_op, kernel.name)
        written = f"{kernel.call}/{told.origin}" if kernel.call else told.origin
        return (self.find(written) if told.origin else None) or own_name, told.kind

    def explains(self, name: str, op: str) -> bool:
        """Tell whether an event is known to belong to this graph: as an op of it, or as a transfer of its tensors."""
        return self.find(name, op) is not None or (op in TRANSFERS and self.find(name) is not None)

    def key(self, name: str, op: str) -> str:
        """Return the op of the graph, or the event's own name for one that is in no graph."""
        found = self.find(name, op) or name
        if is_instruction(op):
            self.types[found] = op  # its opcode, which the graph has, says less
        self.types.setdefault(found, op)
        return found


def kernels_as_ops(profile: Profile, names: Names) -> list[OpEvent]:
    """Return the thunks that XLA ran on the host as ops, named as the graph names its instructions."""
    return [
        OpEvent(*names.instruction(k), k.start_ns, k.end_ns, k.end_ns - k.start_ns, k.thread, k.run, k.resumed)
        for k in profile.kernels
    ]


def _instructions(graph: Table) -> Mapping[tuple[str, str, str], str]:
    """Return (call, module, instruction) -> op of the graph; (``ANY_CALL``, …) where a module is called once."""
    found: dict[tuple[str, str, str], str] = {}
    calls: dict[str, set[str]] = defaultdict(set)
    for name, op in graph.items():
        if HLO_MODULE in op.attrs:
            call, module = op.attrs[HLO_CALL], op.attrs[HLO_MODULE]
            calls[module].add(call)
            for part in (op.attrs[HLO_INSTRUCTION], *op.attrs[HLO_PARTS]):
                found.setdefault((call, module, part), name)
    alone = {(ANY_CALL, *place[1:]): name for place, name in found.items() if len(calls[place[1]]) == 1}
    return {**alone, **found}


def _in_datasets(graph: Table) -> Mapping[str, str]:
    """Return the names that ops report from within a loop over a dataset that tf.data runs -> ops of the graph.

    They are those in its body: what stands before and after the loop runs once for all of its steps.
    """
    loops = frozenset(graph.of_types(DATASET_LOOPS))
    return {within: name for name in graph.names if loops for within in _within_bodies(name, loops)}


def _within_bodies(name: str, loops: Collection[str]) -> Iterator[str]:
    """Yield the op's name within the body of each of the loops that it stands in."""
    around = name.split(_BODY)
    for depth in range(1, len(around)):
        if _BODY.join(around[:depth]) in loops:
            yield _BODY.join(around[depth:])


def _spellings(name: str) -> Iterator[str]:
    """Yield the names that the op may have in a graph that was not executed: as it is, then without its replica."""
    yield from origins.candidates(name)
    if replica_of(name) is not None:
        yield from origins.candidates(without_replica(name))
