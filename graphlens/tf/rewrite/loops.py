"""``hoist-invariant``: what a loop's body computes anew in every iteration is computed once before the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphlens.errors import RewriteError
from graphlens.ir.edits import HoistInvariant
from graphlens.ir.ops import LOOPS
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named

# Fail on values that a loop without an iteration never computes: on what is out of range, and (integers) on zero.
_PICKING = frozenset({"Gather", "GatherV2", "GatherNd", "ArgMax", "ArgMin", "CheckNumerics", "CheckNumericsV2"})
_QUOTIENTS = frozenset(
    {"Div", "FloorDiv", "FloorMod", "Mod", "TruncateDiv", "TruncateMod"}
)  # ... or, of integers, on 0
_NOT_WORTH = frozenset({"Const", "Identity", "ReadVariableOp", "NoOp"})


@dataclass(frozen=True)
class _Loop:
    """A loop: its op, its body, and which of its variables the body hands on unchanged (argument -> position)."""

    node: Any
    body: Any
    constant: Mapping[str, int]

    @property
    def by_name(self) -> dict[str, Any]:
        """The ops of the body."""
        return {node.name: node for node in self.body.node_def}


@rewrite
def hoist_invariant(draft: Draft, edit: HoistInvariant) -> None:
    """Hoist the ops named out of the loop ``edit.loop``; without names, whatever can be, of every loop."""
    loops = [edit.loop] if isinstance(edit.loop, str) else [name for name in draft if draft.node(name).op in LOOPS]
    moved = [_hoist(draft, _loop(draft, name), named(edit)) for name in loops]
    if not any(moved):
        raise RewriteError("no loop computes the same in every iteration")


def _loop(draft: Draft, name: str) -> _Loop:
    node = draft.node(name)
    if node.op not in LOOPS:
        raise RewriteError(f"'{name}' ({node.op}) is no loop")
    body = draft.library[node.attr["body"].func.name]
    by_name = {inner.name: inner for inner in body.node_def}
    constant = {
        argument.name: position
        for position, (argument, result) in enumerate(
            zip(body.signature.input_arg, body.signature.output_arg, strict=True)
        )
        if _handed_on(body.ret[result.name], by_name) == argument.name
    }
    return _Loop(node, body, constant)


def _handed_on(ref: str, by_name: Mapping[str, Any]) -> str:
    while ref.partition(":")[0] in by_name and by_name[ref.partition(":")[0]].op == "Identity":
        ref = nodes.data_inputs(by_name[ref.partition(":")[0]])[0]
    return ref


def _hoist(draft: Draft, loop: _Loop, wanted: list[str]) -> int:
    movable = _movable(draft, loop)
    chosen = _needed_inside(loop, [name for name in movable if _is_chosen(loop, name, movable, wanted)])
    if wanted and not chosen:
        raise RewriteError(
            f"'{wanted[0]}' cannot be computed before '{loop.node.name}': it depends on what an iteration changes, or "
            "does more than to compute"
        )
    if chosen:
        _move(draft, loop, chosen)
    return len(chosen)


def _movable(draft: Draft, loop: _Loop) -> list[str]:
    """Return the ops of the body that only depend on what never changes, inputs first."""
    movable: dict[str, None] = {}
    grown = True
    while grown:  # bodies are short and not always in order
        before = len(movable)
        for node in loop.body.node_def:
            if node.name not in movable and _may_move(draft, loop, node, movable):
                movable[node.name] = None
        grown = len(movable) > before
    return list(movable)


def _may_move(draft: Draft, loop: _Loop, node: Any, movable: Mapping[str, None]) -> bool:
    if any(ref[1:] not in movable for ref in nodes.control_inputs(node)):
        return False
    if node.op == "ReadVariableOp":
        position = loop.constant.get(nodes.data_inputs(node)[0])
        return position is not None and draft.is_unwritten(nodes.source(nodes.data_inputs(loop.node)[position]))
    if not nodes.is_pure(node) or _may_fail(loop, node):
        return False
    return all(ref in loop.constant or ref.partition(":")[0] in movable for ref in nodes.data_inputs(node))


def _may_fail(loop: _Loop, node: Any) -> bool:
    if node.op in _QUOTIENTS:
        return bool(nodes.dtype_of(node).is_integer)
    if node.op == "StridedSlice" and node.attr["shrink_axis_mask"].i:
        sliced = loop.by_name.get(nodes.data_inputs(node)[0].partition(":")[0])
        return sliced is None or sliced.op != "Shape"
    return node.op in _PICKING


def _is_chosen(loop: _Loop, name: str, movable: list[str], wanted: list[str]) -> bool:
    """Whether an op's result is to be handed into the loop: named, or as much as can be, and read by what stays."""
    node = loop.by_name[name]
    if node.op in _NOT_WORTH:
        return False
    if wanted:
        return any(one == name or one.endswith(f"/{name}") for one in wanted)
    depends = _depends_on_arguments(loop, name)
    return depends and any(reader not in movable for reader in _readers(loop, name))


def _needed_inside(loop: _Loop, names: list[str]) -> list[str]:
    """Leave out what only others that are hoisted as well read."""
    return [name for name in names if any(reader not in names for reader in _readers(loop, name))]


def _depends_on_arguments(loop: _Loop, name: str) -> bool:
    """Whether more than constants goes in (Grappler folds those)."""
    todo = [name]
    while todo:
        for ref in nodes.data_inputs(loop.by_name[todo.pop()]):
            if ref in loop.constant:
                return True
            todo.append(ref.partition(":")[0])
    return False


def _readers(loop: _Loop, name: str) -> Iterator[str]:
    for node in loop.body.node_def:
        if any(ref.partition(":")[0] == name for ref in nodes.data_inputs(node)):
            yield node.name
    if any(ref.partition(":")[0] == name for ref in loop.body.ret.values()):
        yield ""


# -- moving ---------------------------------------------------------------------------------------------------------


def _move(draft: Draft, loop: _Loop, chosen: list[str]) -> None:
    copied: dict[str, str] = {}
    read = [(loop.by_name[name], port) for name in chosen for port in _ports_read(loop, name)]
    refs = [nodes.tensor(_copied_out(draft, loop, node.name, copied), port) for node, port in read]
    types = [nodes.output_types(node)[port] for node, port in read]
    body = _own_copy(draft, loop.node, "body")
    condition = _own_copy(draft, loop.node, "cond")
    for index, ((node, port), dtype) in enumerate(zip(read, types, strict=True)):
        argument = f"hoisted_{len(body.signature.input_arg)}_{index}"
        body.signature.input_arg.add(name=argument, type=dtype)
        condition.signature.input_arg.add(name=argument, type=dtype)
        body.signature.output_arg.add(name=f"{argument}_out", type=dtype)
        body.ret[f"{argument}_out"] = argument
        _read_argument(body, node, port, argument)
    _drop_unread(body, chosen)
    _widen(draft, loop.node.name, refs, types)


def _ports_read(loop: _Loop, name: str) -> list[int]:
    """Return which outputs of an op the body reads or returns."""
    refs = [ref for node in loop.body.node_def for ref in nodes.data_inputs(node)] + list(loop.body.ret.values())
    return sorted({_port(loop.by_name[name], ref) for ref in refs if ref.partition(":")[0] == name})


def _port(node: Any, ref: str) -> int:
    """Return the number of the output that a function's body calls ``node:argument:index``."""
    argument, _, index = ref.partition(":")[2].partition(":")
    return nodes.output_offsets(node)[argument] + int(index or 0)


def _drop_unread(body: Any, names: list[str]) -> None:
    """Remove ops that were hoisted, and what only they read."""
    todo = list(names)
    by_name = {node.name: node for node in body.node_def}
    while todo:
        name = todo.pop()
        read = {nodes.source(ref) for node in by_name.values() for ref in node.input}
        kept = {ref.partition(":")[0] for ref in body.ret.values()} | set(body.control_ret.values())
        node = by_name.get(name)
        if node is not None and name not in read | kept and (nodes.is_pure(node) or node.op == "ReadVariableOp"):
            del by_name[name]
            todo += [nodes.source(ref) for ref in node.input]
    left = list(by_name.values())
    copies = [nodes.NodeDef.FromString(node.SerializeToString()) for node in left]
    del body.node_def[:]
    body.node_def.extend(copies)


def _copied_out(draft: Draft, loop: _Loop, name: str, copied: dict[str, str]) -> str:
    """Copy an op of the body, and what it needs, in front of the loop; returns its name there."""
    if name not in copied:
        inner = loop.by_name[name]
        inputs = [_outside(draft, loop, ref, copied) for ref in nodes.data_inputs(inner)]
        node = nodes.NodeDef()
        node.CopyFrom(inner)
        node.name = draft.unused(f"{loop.node.name}/hoisted/{name}")
        node.device = node.device or loop.node.device
        node.attr.pop("_class", None)
        del node.input[:]
        node.input.extend(inputs)
        copied[name] = draft.add(node)
    return copied[name]


def _outside(draft: Draft, loop: _Loop, ref: str, copied: dict[str, str]) -> str:
    name, _, output = ref.partition(":")
    if not output:
        return nodes.data_inputs(loop.node)[loop.constant[name]]
    return nodes.tensor(_copied_out(draft, loop, name, copied), _port(loop.by_name[name], ref))


def _own_copy(draft: Draft, node: Any, role: str) -> Any:
    """Give a loop its own copy of its body or condition, which another loop may share."""
    old = draft.library[node.attr[role].func.name]
    copy = type(old)()
    copy.CopyFrom(old)
    number = len(draft.library)
    copy.signature.name = f"{old.signature.name}_hoisted_{number}"
    draft.library[copy.signature.name] = copy
    node.attr[role].func.name = copy.signature.name
    return copy


def _read_argument(body: Any, hoisted: Any, port: int, argument: str) -> None:
    """Let the body read ``argument`` instead of an output of the op ``hoisted``."""

    def reads_it(ref: str) -> bool:
        return ref.partition(":")[0] == hoisted.name and not nodes.is_control(ref) and _port(hoisted, ref) == port

    for node in body.node_def:
        inputs = [argument if reads_it(ref) else ref for ref in node.input]
        del node.input[:]
        node.input.extend(inputs)
    for key, ref in body.ret.items():
        if reads_it(ref):
            body.ret[key] = argument


def _widen(draft: Draft, name: str, refs: list[str], types: list[int]) -> None:
    """Add loop variables."""
    node = draft.node(name)
    draft.set_inputs(name, [*nodes.data_inputs(node), *refs, *nodes.control_inputs(node)])
    node.attr["T"].list.type.extend(types)
    if "output_shapes" in node.attr and node.attr["output_shapes"].list.shape:
        for _ in refs:
            node.attr["output_shapes"].list.shape.add(unknown_rank=True)
