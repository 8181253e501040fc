"""What ran as one flat graph: the partitions of all devices, and within each call of a compiled function its
instructions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from graphlens.facts.flat.inlining import inline
from graphlens.facts.flat.instruction_origins import Origins
from graphlens.facts.flat.instruction_work import flops_of, stands_for
from graphlens.facts.flat.renames import renamed_ops
from graphlens.facts.flat.scopes import is_compiled, with_shapes
from graphlens.facts.flat.shapes import fill_shapes
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Graph
from graphlens.ir.instructions import without_fingerprint
from graphlens.ir.nodes import CONTROL, Op
from graphlens.ir.run import Profile
from graphlens.ir.table import NO_OPS, Table, TableBuilder

# What the nodes of instructions say of themselves.
HLO_ORIGINS: Final = "hlo_origins"  # the TensorFlow ops behind it, by their names in the compiled function
HLO_WORK: Final = "hlo_work"  # the same ops with the operations that it does for each
HLO_MODULE: Final = "hlo_module"
HLO_INSTRUCTION: Final = "hlo_instruction"  # its name in the module, which is that of its events
HLO_CALL: Final = "hlo_call"  # the op that called the function; empty for a function that is compiled as a whole
HLO_PARTS: Final = "hlo_parts"  # the instructions that it runs one by one, and that are no nodes of their own
HLO_FLOPS: Final = "hlo_flops"
HLO_STANDS_FOR: Final = "hlo_stands_for"  # the type of the op that most of its work belongs to


def executed_graph(
    evidence: Evidence, traced: Table | None, profile: Profile | None, *, in_datasets: bool = False
) -> Table | None:
    """Return what ran as one flat graph: the partitions of all devices and the instructions of XLA modules.

    Every call of a compiled function has instructions of its own, named ``call/instruction``; what the call waits for
    comes before them, and what waits for it after.  Those of a function that is compiled as a whole, and of a module of
    which nobody says who calls it, are named ``module/instruction``.  Modules are those that were recorded, and of
    those in the profile the ones that are called.

    Parameters
    ----------
    traced
        The graph as written, flat.
    profile
        That of the program that is judged: what another one ran is no part of this graph, even where ops of both that
        call compiled functions have one name.
    in_datasets
        Whether the functions of loops over datasets that tf.data runs are part of it.
    """
    if evidence.executed is None and not evidence.hlo:
        return None
    flat = inline(evidence.executed, is_compiled, in_datasets=in_datasets) if evidence.executed else NO_OPS
    is_whole = not flat
    profiled = profile.modules if profile is not None else {}
    # One that was compiled for several shapes has several modules in the profile, and one name where it was recorded.
    apart = {name for numbered in profiled if (name := without_fingerprint(numbered)) != numbered}
    modules = {**profiled, **{name: module for name, module in evidence.hlo.items() if name not in apart}}
    calls = _calls(flat, modules, profile)
    joined = TableBuilder.of(flat)
    several = Counter(call for found in calls.values() for call in found)
    for module, graph in modules.items():
        if module not in evidence.hlo and not calls[module]:
            continue  # what else the process compiled is no part of this step
        for call in calls[module] or ("",):
            prefix = f"{call}/{module}" if several[call] > 1 and call else call or module
            _add_instructions(joined, flat, _Placed(module, graph, call, prefix, is_whole or bool(call)))
    return fill_shapes(with_shapes(joined.table(), traced, evidence.replay, renamed_ops(evidence)))


# -- who calls a module --------------------------------------------------------------------------------------------


def _calls(flat: Table, modules: Mapping[str, Graph], profile: Profile | None) -> Mapping[str, Sequence[str]]:
    """Return module -> the ops that call it: those that name its function, and those in which it was seen to run.

    Of several modules for one function, made for several shapes, each is called only where it was seen to run.
    """
    found: dict[str, dict[str, None]] = {module: {} for module in modules}
    by_function: dict[str, list[str]] = defaultdict(list)
    for name, op in flat.items():
        for call in op.calls if is_compiled(op) else ():
            by_function[call.function].append(name)
    for kernel in profile.kernels if profile else ():
        if kernel.call in flat and kernel.hlo_module in found:
            found[kernel.hlo_module][kernel.call] = None
    for module in modules:
        if found[module] and without_fingerprint(module) != module:
            continue
        for function, names in by_function.items():
            if is_module_of(module, function):
                found[module].update(dict.fromkeys(names))
    return {module: tuple(names) for module, names in found.items()}


def is_module_of(module: str, function: str) -> bool:
    """Tell whether XLA made a module of a function, by their names.

    >>> is_module_of("a_inference_f_68__.1", "__inference_f_68")
    True
    >>> is_module_of("a_inference_f_68__XlaMustCompile_true_.4", "__inference_f_6")
    False
    >>> is_module_of("cluster_0__XlaCompiledKernel_true_.12", "cluster_0")
    True
    """
    return module.startswith((f"a{function[1:]}__", f"{function}__"))


# -- the instructions of one call ----------------------------------------------------------------------------------


class _Placed:
    """A module within one call; ``prefix`` is what its instructions are called after.

    ``is_placed`` is false for one of which nobody says who calls it: the ops that it names may be anybody's.
    """

    def __init__(self, module: str, graph: Graph, call: str, prefix: str, is_placed: bool) -> None:
        self.module, self.graph, self.call, self.is_placed = module, graph, call, is_placed
        self.instructions = inline(graph)
        self.origins = Origins(graph)
        self.functions = {name: function for function in graph.functions.values() for name in function.graph}
        last = Counter(name.rpartition("/")[2] for name in self.instructions)
        self.names = {
            name: f"{prefix}/{local if last[local] == 1 else name}"
            for name in self.instructions
            for local in (name.rpartition("/")[2],)
        }


def _add_instructions(joined: TableBuilder, flat: Table, placed: _Placed) -> None:
    names, instructions = placed.names, placed.instructions
    at = {
        name: joined.add_op(replace(op, name=names[name], attrs=_described(op, name, placed)))
        for name, op in instructions.items()
    }
    for source, name, edge in instructions.edges():
        joined.connect(at[source], at[name], edge)
    if placed.call in flat:
        for position, reader in _around(flat, placed, at):
            joined.connect(position, reader, CONTROL)


def _around(flat: Table, placed: _Placed, at: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Yield what orders the instructions, which are ``at`` positions of the joined graph behind all of ``flat``, after
    what the call reads, and the call after its instructions.
    """
    call = flat.position(placed.call)
    for name in placed.instructions:
        if not placed.instructions.in_degree(name):
            yield from ((source, at[name]) for source in flat.before(call))
        if not placed.instructions.has_readers(name):
            yield at[name], call


def _described(op: Op, name: str, placed: _Placed) -> Mapping[str, Any]:
    function = placed.functions[name.rpartition("/")[2]]
    written = function.graph.op(name.rpartition("/")[2])
    origins = placed.origins.of(written) if placed.is_placed else ()
    return {
        **op.attrs,
        **({HLO_ORIGINS: origins, HLO_WORK: placed.origins.operations(written)} if origins else {}),
        HLO_MODULE: placed.module,
        HLO_INSTRUCTION: written.name,
        HLO_CALL: placed.call,
        HLO_PARTS: tuple(_parts(op, placed.graph)) if op.type == "call" else (),
        HLO_FLOPS: flops_of(written, function, placed.graph),
        HLO_STANDS_FOR: stands_for(written, function, placed.graph),
    }


def _parts(call: Op, module: Graph) -> Iterator[str]:
    for item in call.calls:
        for op in module.functions[item.function].graph.ops() if item.function in module.functions else ():
            yield op.name
            yield from _parts(op, module) if op.type == "call" else ()
