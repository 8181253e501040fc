"""Optimized HLO text to a graph: the entry computation's instructions, with fused computations as functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from graphlens.errors import TargetError
from graphlens.ir.graph import Function, Graph
from graphlens.ir.nodes import Call, Op, TensorSpec
from graphlens.loaders.linking import Linker
from graphlens.loaders.sources import is_framework

_MODULE = re.compile(r"^HloModule\s+([^\s,]+)", re.MULTILINE)
_HEADER = re.compile(r"^(?P<entry>ENTRY\s+)?%?(?P<name>[^\s(]+)\s*\(.*->.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s*(?P<root>ROOT\s+)?%?(?P<name>[^\s=]+)\s+=\s+(?P<rest>.+)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\]")
_OPCODE = re.compile(r"^\s*([a-z][\w-]*)\(")
_OPERAND = re.compile(r"%([^\s,()=]+)")
_BARE_OPERAND = re.compile(r"(?:^|,)\s*(?:[a-z]\w*\[[^\]]*\](?:\{[^}]*\})?\s+)?([A-Za-z_][\w.\-]*)\s*(?=,|$)")
_METADATA = re.compile(r"metadata=\{((?:[^{}\"]|\"[^\"]*\")*)\}")
_TEXT_FIELD = re.compile(r"(op_type|op_name|source_file)=\"([^\"]*)\"|(source_line)=(\d+)")
_CALLEE = re.compile(r"\b(calls|to_apply|condition|body|true_computation|false_computation)=%?([^\s,{}()]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_SIZES: Final = MappingProxyType(
    {
        "lhs_contracting_dims": re.compile(r"\blhs_contracting_dims=\{([\d,]*)\}"),
        "window": re.compile(r"\bwindow=\{size=([\dx]+)"),
    }
)
_KERNEL_LABELS = re.compile(r"\bdim_labels=[^_,]+_([\w?]+)->")
_COMMENT = re.compile(r"/\*.*?\*/")

_DTYPES: Final = MappingProxyType(
    {"pred": "bool", "bf16": "bfloat16", "c64": "complex64", "c128": "complex128", "f8e5m2": "float8_e5m2"}
    | {"f8e4m3fn": "float8_e4m3fn"}
    | {f"f{bits}": f"float{bits}" for bits in (16, 32, 64)}
    | {f"s{bits}": f"int{bits}" for bits in (4, 8, 16, 32, 64)}
    | {f"u{bits}": f"uint{bits}" for bits in (4, 8, 16, 32, 64)}
)
_ROLES: Mapping[str, str] = MappingProxyType(
    {"condition": "cond", "body": "body", "true_computation": "then", "false_computation": "else", "to_apply": "apply"}
)


class Written(NamedTuple):
    """The parts of an instruction as XLA writes it: ``%name = shape opcode(inside)tail``."""

    name: str
    shape: str
    opcode: str
    inside: str
    tail: str
    is_root: bool = False

    @property
    def operands(self) -> tuple[str, ...]:
        """The names of the instructions that it reads."""
        return () if self.opcode in ("constant", "parameter") else _operands(self.inside)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Its results."""
        return specs(self.shape)


class _Instruction(NamedTuple):
    op: Op
    operands: tuple[str, ...]
    is_root: bool


def read_hlo(text: str) -> tuple[str, Graph]:
    """Return the module's name and its graph; the root is the entry computation.

    Lines that are not understood are skipped, and counted in the graph's notes.

    Raises
    ------
    TargetError
        When ``text`` holds no entry computation.
    """
    module = _MODULE.search(text)
    name = module.group(1) if module else "module"
    functions: dict[str, Function] = {}
    notes: list[str] = []
    entry = None
    for is_entry, computation, lines in _computations(text):
        functions[computation] = _function(computation, lines, notes)
        entry = computation if is_entry else entry
    if entry is None:
        raise TargetError(f"the HLO text of '{name}' has no ENTRY computation; record the capture again")
    return name, Graph(entry, functions, tuple(notes))


def _computations(text: str) -> Iterator[tuple[bool, str, list[str]]]:
    header: re.Match[str] | None = None
    lines: list[str] = []
    for raw in text.splitlines():
        line = _COMMENT.sub("", raw)
        found = _HEADER.match(line)
        if found:
            header, lines = found, []
        elif line.startswith("}") and header is not None:
            yield bool(header["entry"]), header["name"], lines
            header = None
        elif line.strip():
            lines.append(line)


def _function(name: str, lines: list[str], notes: list[str]) -> Function:
    parsed = [_instruction(line) for line in lines]
    instructions = [item for item in parsed if item is not None]
    if len(instructions) < len(lines):
        notes.append(f"computation '{name}': {len(lines) - len(instructions)} lines were not understood")
    linker = Linker()
    for instruction in instructions:
        if instruction.op.name not in linker.graph:
            linker.add_op(instruction.op)
    for instruction in instructions:
        linker.link(instruction.operands, instruction.op.name)
    graph = linker.finish()
    notes.extend(linker.problems.notes(f"computation '{name}'"))
    parameters = [item.op for item in instructions if item.op.type == "parameter"]
    inputs = tuple(op.name for op in sorted(parameters, key=lambda op: op.attrs.get("parameter_number", 0)))
    return Function(name, graph, inputs, tuple(item.op.name for item in instructions if item.is_root))


def split_instruction(text: str) -> Written | None:
    """Return the parts of one line of HLO text, ``None`` for a line that is no instruction.

    >>> written = split_instruction("%add.1 = f32[8]{0} add(f32[8]{0} %x, f32[8]{0} %y), metadata={}")
    >>> written.name, written.opcode, written.operands, [str(output) for output in written.outputs]
    ('add.1', 'add', ('x', 'y'), ['float32[8]'])
    """
    found = _INSTRUCTION.match(text)
    if found is None:
        return None
    shape, rest = _split_shape(found["rest"])
    opcode = _OPCODE.match(rest)
    if opcode is None:
        return None
    inside, tail = _balanced(rest[opcode.end() - 1 :])
    return Written(found["name"], shape, opcode[1], inside, tail, bool(found["root"]))


def _instruction(text: str) -> _Instruction | None:
    written = split_instruction(text)
    if written is None:
        return None
    attrs = _attrs(written.opcode, written.inside, written.tail)
    file, line = attrs.pop("source_file", ""), attrs.pop("source_line", 0)
    source = f"{file}:{line}" if file and not is_framework(str(file)) else None
    calls = _calls(written.opcode, written.tail)
    op = Op(written.name, written.opcode, "", written.outputs, attrs, calls, None, source)
    return _Instruction(op, written.operands, written.is_root)


def _split_shape(rest: str) -> tuple[str, str]:
    if rest.startswith("("):
        inside, tail = _balanced(rest)
        return inside, tail
    shape, _, tail = rest.partition(" ")
    return shape, tail


def _balanced(text: str) -> tuple[str, str]:
    """Return what stands in the parentheses that ``text`` opens with, and what follows them."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[1:position], text[position + 1 :]
    return text[1:], ""


def specs(shape: str) -> tuple[TensorSpec, ...]:
    """Return data type and shape of the arrays in a shape as XLA writes it, a tuple's in their order."""
    return tuple(_spec(*array) for array in _ARRAY.findall(shape))


def _spec(dtype: str, dims: str) -> TensorSpec:
    sizes = [part.strip().removeprefix("<=") for part in dims.split(",") if part.strip()]
    shape = tuple(int(size) if size.isdecimal() else None for size in sizes)
    return TensorSpec(_DTYPES.get(dtype, dtype), shape)


def _operands(inside: str) -> tuple[str, ...]:
    return tuple(_OPERAND.findall(inside)) or tuple(_BARE_OPERAND.findall(inside))


def _attrs(opcode: str, inside: str, tail: str) -> dict[str, Any]:
    attrs: dict[str, Any] = {}
    metadata = _METADATA.search(tail)
    for text_name, text, number_name, number in _TEXT_FIELD.findall(metadata[1] if metadata else ""):
        attrs[text_name or number_name] = text if text_name else int(number)
    if opcode == "parameter" and inside.strip().isdecimal():
        attrs["parameter_number"] = int(inside)
    for name, pattern in _SIZES.items():
        if (found := pattern.search(tail)) is not None:
            attrs[name] = tuple(int(size) for size in re.findall(r"\d+", found[1]))
    if (labels := _KERNEL_LABELS.search(tail)) is not None:
        attrs["kernel_output_dim"] = labels[1].find("o")
    return attrs


def _calls(opcode: str, tail: str) -> tuple[Call, ...]:
    named = [Call(_role(opcode, attribute), callee) for attribute, callee in _CALLEE.findall(tail)]
    branches = _BRANCHES.search(tail)
    listed = [part.strip().removeprefix("%") for part in branches[1].split(",")] if branches else []
    return (*named, *(Call(f"branch_{index}", name) for index, name in enumerate(listed)))


def _role(opcode: str, attribute: str) -> str:
    if opcode == "fusion":
        return "fusion"
    if opcode == "call":
        return "call"
    return _ROLES.get(attribute, attribute)
