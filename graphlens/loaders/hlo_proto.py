"""The modules of XLA that a profile holds as protobufs, to graphs, as ``hlo`` makes them of text."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from graphlens.ir.graph import Function, Graph
from graphlens.ir.instructions import module_names
from graphlens.ir.nodes import Call, Op, TensorSpec
from graphlens.loaders.linking import Linker
from graphlens.loaders.planes import bytes_of, stat_names
from graphlens.loaders.schema import hlo_proto
from graphlens.loaders.sources import is_framework

METADATA_PLANE: Final = "/host:metadata"
_PROTO: Final = "Hlo Proto"

# As XLA numbers its types (``xla_data.proto``); a tuple, a token and an opaque value are no arrays.
_DTYPES: Final[Mapping[int, str]] = {
    1: "bool", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "uint8", 7: "uint16", 8: "uint32", 9: "uint64",
    10: "float16", 11: "float32", 12: "float64", 15: "complex64", 16: "bfloat16", 18: "complex128", 19: "float8_e5m2",
    20: "float8_e4m3fn", 21: "int4", 22: "uint4",
}  # fmt: skip
_ROLES: Final[Mapping[str, tuple[str, ...]]] = {"while": ("body", "cond"), "fusion": ("fusion",), "call": ("call",)}


def read_modules(plane: Any, programs: Collection[str]) -> Mapping[str, Graph]:
    """Return the modules of a metadata plane by their names; of all that were ever compiled only those that ran.

    A module that cannot be read is left out: its instructions are then known by their events alone.

    Parameters
    ----------
    programs
        Those that ran, as their runs call them: with a fingerprint.
    """
    names, called = stat_names(plane), module_names(programs)
    found = {}
    for meta in plane.event_metadata.values():
        for data in bytes_of(meta.stats, names, _PROTO) if meta.name in called else ():
            graph = _read(data)
            if graph is not None:
                found[called[meta.name]] = graph
    return found


def read_modules_of_host(plane: Any, ran: Collection[str]) -> Mapping[str, Graph]:
    """Return the modules of a metadata plane that ran on the host, by the names that their thunks give them.

    Of several that share a name, made for several shapes, thunks give the number as well.  Where they do not, one is as
    good as the other: their ops are the same.
    """
    names = stat_names(plane)
    found: dict[str, Graph] = {}
    for meta in plane.event_metadata.values():
        module = meta.name if meta.name in ran else meta.name.rpartition("(")[0] or meta.name
        for data in bytes_of(meta.stats, names, _PROTO) if module in ran and module not in found else ():
            graph = _read(data)
            if graph is not None:
                found[module] = graph
    return found


def _read(data: bytes) -> Graph | None:
    from google.protobuf.message import DecodeError

    try:
        graph = _graph(hlo_proto().FromString(data).hlo_module)
    except DecodeError:
        return None
    return graph if graph.root in graph.functions else None


def _graph(module: Any) -> Graph:
    names = {computation.id: computation.name for computation in module.computations}
    notes: list[str] = []
    functions = {item.name: _function(item, names, notes) for item in module.computations}
    entry = names.get(module.entry_computation_id, module.entry_computation_name)
    return Graph(entry, functions, tuple(notes))


def _function(computation: Any, computations: Mapping[int, str], notes: list[str]) -> Function:
    linker = Linker()
    names: dict[int, str] = {}
    for instruction in computation.instructions:
        names[instruction.id] = linker.free_name(instruction.name)
        linker.add_op(_op(instruction, names[instruction.id], computations))
    for instruction in computation.instructions:
        inputs = [names[number] for number in instruction.operand_ids if number in names]
        before = [f"^{names[number]}" for number in instruction.control_predecessor_ids if number in names]
        linker.link([*inputs, *before], names[instruction.id])
    graph = linker.finish()
    notes.extend(linker.problems.notes(f"computation '{computation.name}'"))
    parameters = sorted(
        (item for item in computation.instructions if item.opcode == "parameter"),
        key=lambda item: item.parameter_number,
    )
    root = names.get(computation.root_id)
    return Function(computation.name, graph, tuple(names[item.id] for item in parameters), (root,) if root else ())


def _op(instruction: Any, name: str, computations: Mapping[int, str]) -> Op:
    told = instruction.metadata
    attrs: dict[str, Any] = {key: text for key in ("op_type", "op_name") if (text := getattr(told, key))}
    if instruction.opcode == "parameter":
        attrs["parameter_number"] = instruction.parameter_number
    if instruction.HasField("window"):
        attrs["window"] = tuple(dimension.size for dimension in instruction.window.dimensions)
    if instruction.HasField("convolution_dimension_numbers"):
        attrs["kernel_output_dim"] = instruction.convolution_dimension_numbers.kernel_output_feature_dimension
    if instruction.HasField("dot_dimension_numbers"):
        attrs["lhs_contracting_dims"] = tuple(instruction.dot_dimension_numbers.lhs_contracting_dimensions)
    if instruction.custom_call_target:
        attrs["custom_call_target"] = instruction.custom_call_target
    is_users = told.source_file and not is_framework(told.source_file)
    return Op(
        name,
        instruction.opcode,
        outputs=tuple(_specs(instruction.shape)),
        attrs=attrs,
        calls=tuple(_calls(instruction, computations)),
        source=f"{told.source_file}:{told.source_line}" if is_users else None,
    )


def _specs(shape: Any) -> Iterator[TensorSpec]:
    """Yield the arrays of a shape, a tuple's in their order."""
    if shape.element_type in _DTYPES:
        yield TensorSpec(_DTYPES[shape.element_type], tuple(shape.dimensions))
    for part in shape.tuple_shapes:
        yield from _specs(part)


def _calls(instruction: Any, computations: Mapping[int, str]) -> Iterator[Call]:
    roles = _ROLES.get(instruction.opcode, ())
    for index, number in enumerate(instruction.called_computation_ids):
        if number in computations:
            role = roles[index] if index < len(roles) else _role(instruction.opcode, index)
            yield Call(role, computations[number])


def _role(opcode: str, index: int) -> str:
    return f"branch_{index}" if opcode == "conditional" else "apply"
