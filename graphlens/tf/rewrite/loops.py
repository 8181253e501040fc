"""``hoist-invariant``: what a loop's body computes anew in every iteration is computed once before the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphlens.errors import RewriteError
from graphlens.ir.edits import HoistInvariant
from graphlens.ir.ops import LOOPS
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.loop_places import BODY, InGraph, Loop, inner_loop, loop_at, loops_in, own_copy

# Fail on values that a loop without an iteration never computes: on what is out of range, and (integers) on zero.
_PICKING = frozenset({"Gather", "GatherV2", "GatherNd", "ArgMax", "ArgMin", "CheckNumerics", "CheckNumericsV2"})
_QUOTIENTS = frozenset(
    {"Div", "FloorDiv", "FloorMod", "Mod", "TruncateDiv", "TruncateMod"}
)  # ... or, of integers, on 0
_NOT_WORTH = frozenset({"Const", "Identity", "ReadVariableOp", "NoOp"})


@rewrite
def hoist_invariant(draft: Draft, edit: HoistInvariant) -> None:
    """Hoist the ops named out of the loop ``edit.loop``; without names, whatever can be, of every loop.

    What a loop inside another one computes alike in each iteration of both is taken out of both.
    """
    if isinstance(edit.loop, str):
        moved = _hoist_from(draft, _path_of(draft, edit.loop), named(edit))
    else:
        loops = [name for name in draft if draft.node(name).op in LOOPS]
        moved = [ref for name in loops for ref in _hoist_all(draft, loop_at(draft, draft.node(name), InGraph(draft)))]
    if not moved:
        raise RewriteError("no loop computes the same in every iteration")


def _path_of(draft: Draft, loop: str) -> list[str]:
    """Split the name of a loop, as the inlined graph has it, into those of the loops around it and its own."""
    outer = next((name for name in draft if loop == name or loop.startswith(f"{name}{BODY}")), loop)
    node = draft.node(outer)
    if node.op not in LOOPS:
        raise RewriteError(f"'{outer}' ({node.op}) is no loop")
    path, rest = [outer], loop[len(outer) + len(BODY) :]
    while rest:
        body = draft.library[node.attr["body"].func.name]
        inner = next((one for one in body.node_def if _begins(rest, one)), None)
        if inner is None:
            raise RewriteError(f"'{loop}' is inside a conditional or a call in the body of '{path[-1]}'")
        path.append(inner.name)
        node, rest = inner, rest[len(inner.name) + len(BODY) :]
    return path


def _begins(name: str, node: Any) -> bool:
    return node.op in LOOPS and (name == node.name or name.startswith(f"{node.name}{BODY}"))


def _hoist_from(draft: Draft, path: list[str], wanted: list[str]) -> list[str]:
    """Hoist out of the innermost loop of a path, then what can be out of those around it; returns what was moved."""
    loops = [loop_at(draft, draft.node(path[0]), InGraph(draft))]
    for name in path[1:]:
        loops.append(inner_loop(draft, loops[-1], name))
    moved = hoisted = _hoist(draft, loops[-1], wanted)
    for around in reversed(loops[:-1]):
        outer = loop_at(draft, around.node, around.place)  # its body has grown
        movable, by_name = _movable(outer), outer.by_name
        further = [name for name in hoisted if name in movable and by_name[name].op not in _NOT_WORTH]
        kept = _needed_inside(outer, further)
        hoisted = _move(draft, outer, kept) if kept else []
    return moved


def _hoist_all(draft: Draft, loop: Loop) -> list[str]:
    """Hoist whatever can be, of inner loops first."""
    moved: list[str] = []
    for name in loops_in(loop.body):
        moved += _hoist_all(draft, inner_loop(draft, loop, name))
        loop = loop_at(draft, loop.node, loop.place)
    return moved + _hoist(draft, loop, [])


def _hoist(draft: Draft, loop: Loop, wanted: list[str]) -> list[str]:
    movable = _movable(loop)
    chosen = _needed_inside(loop, [name for name in movable if _is_chosen(loop, name, movable, wanted)])
    if wanted and not chosen:
        raise RewriteError(
            f"'{wanted[0]}' cannot be computed before '{loop.node.name}': it depends on what an iteration changes, or "
            "does more than to compute"
        )
    return _move(draft, loop, chosen) if chosen else []


def _movable(loop: Loop) -> list[str]:
    """Return the ops of the body that only depend on what never changes, inputs first."""
    movable: dict[str, None] = {}
    grown = True
    while grown:  # bodies are short and not always in order
        before = len(movable)
        for node in loop.body.node_def:
            if node.name not in movable and _may_move(loop, node, movable):
                movable[node.name] = None
        grown = len(movable) > before
    return list(movable)


def _may_move(loop: Loop, node: Any, movable: Mapping[str, None]) -> bool:
    if any(ref[1:] not in movable for ref in nodes.control_inputs(node)):
        return False
    if node.op == "ReadVariableOp":
        position = loop.constant.get(nodes.data_inputs(node)[0])
        return position is not None and loop.place.is_unwritten(nodes.data_inputs(loop.node)[position])
    if not nodes.is_pure(node) or _may_fail(loop, node):
        return False
    return all(ref in loop.constant or ref.partition(":")[0] in movable for ref in nodes.data_inputs(node))


def _may_fail(loop: Loop, node: Any) -> bool:
    if node.op in _QUOTIENTS:
        return bool(nodes.dtype_of(node).is_integer)
    if node.op == "StridedSlice" and node.attr["shrink_axis_mask"].i:
        sliced = loop.by_name.get(nodes.data_inputs(node)[0].partition(":")[0])
        return sliced is None or sliced.op != "Shape"
    return node.op in _PICKING


def _is_chosen(loop: Loop, name: str, movable: list[str], wanted: list[str]) -> bool:
    """Whether an op's result is to be handed into the loop: named, or as much as can be, and read by what stays."""
    node = loop.by_name[name]
    if node.op in _NOT_WORTH:
        return False
    if wanted:
        return any(one == name or one.endswith(f"/{name}") for one in wanted)
    depends = _depends_on_arguments(loop, name)
    return depends and any(reader not in movable for reader in _readers(loop, name))


def _needed_inside(loop: Loop, names: list[str]) -> list[str]:
    """Leave out what only others that are hoisted as well read."""
    return [name for name in names if any(reader not in names for reader in _readers(loop, name))]


def _depends_on_arguments(loop: Loop, name: str) -> bool:
    """Whether more than constants goes in (Grappler folds those)."""
    todo = [name]
    while todo:
        for ref in nodes.data_inputs(loop.by_name[todo.pop()]):
            if ref in loop.constant:
                return True
            todo.append(ref.partition(":")[0])
    return False


def _readers(loop: Loop, name: str) -> Iterator[str]:
    for node in loop.body.node_def:
        if any(ref.partition(":")[0] == name for ref in nodes.data_inputs(node)):
            yield node.name
    if any(ref.partition(":")[0] == name for ref in loop.body.ret.values()):
        yield ""


# -- moving ---------------------------------------------------------------------------------------------------------


def _move(draft: Draft, loop: Loop, chosen: list[str]) -> list[str]:
    """Compute ``chosen`` before the loop; returns the names of what is computed there now."""
    copied: dict[str, Any] = {}
    read = [(loop.by_name[name], port) for name in chosen for port in _ports_read(loop, name)]
    refs = [loop.place.ref(_copied_out(loop, node.name, copied), port) for node, port in read]
    types = [nodes.output_types(node)[port] for node, port in read]
    body = own_copy(draft, loop.node, "body")
    condition = own_copy(draft, loop.node, "cond")
    for index, ((node, port), dtype) in enumerate(zip(read, types, strict=True)):
        argument = f"hoisted_{len(body.signature.input_arg)}_{index}"
        body.signature.input_arg.add(name=argument, type=dtype)
        condition.signature.input_arg.add(name=argument, type=dtype)
        body.signature.output_arg.add(name=f"{argument}_out", type=dtype)
        body.ret[f"{argument}_out"] = argument
        _read_argument(body, node, port, argument)
    draft.gone_inside.update(f"{loop.prefix}{name}" for name in _drop_unread(body, chosen))
    _widen(loop, refs, types)
    return [node.name for node in copied.values()]


def _ports_read(loop: Loop, name: str) -> list[int]:
    """Return which outputs of an op the body reads or returns."""
    refs = [ref for node in loop.body.node_def for ref in nodes.data_inputs(node)] + list(loop.body.ret.values())
    return sorted({_port(loop.by_name[name], ref) for ref in refs if ref.partition(":")[0] == name})


def _port(node: Any, ref: str) -> int:
    """Return the number of the output that a function's body calls ``node:argument:index``."""
    argument, _, index = ref.partition(":")[2].partition(":")
    return nodes.output_offsets(node)[argument] + int(index or 0)


def _drop_unread(body: Any, names: list[str]) -> set[str]:
    """Remove ops that were hoisted, and what only they read; returns what was removed."""
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
    gone = {node.name for node in body.node_def} - by_name.keys()
    copies = [nodes.NodeDef.FromString(node.SerializeToString()) for node in by_name.values()]
    del body.node_def[:]
    body.node_def.extend(copies)
    return gone


def _copied_out(loop: Loop, name: str, copied: dict[str, Any]) -> Any:
    """Copy an op of the body, and what it needs, in front of the loop; returns it there."""
    if name not in copied:
        inner = loop.by_name[name]
        inputs = [_outside(loop, ref, copied) for ref in nodes.data_inputs(inner)]
        node = nodes.NodeDef()
        node.CopyFrom(inner)
        node.device = node.device or loop.node.device
        node.attr.pop("_class", None)
        del node.input[:]
        node.input.extend(inputs)
        loop.place.add(node, f"{loop.node.name}/hoisted/{name}")
        copied[name] = node
    return copied[name]


def _outside(loop: Loop, ref: str, copied: dict[str, Any]) -> str:
    name, _, output = ref.partition(":")
    if not output:
        return nodes.data_inputs(loop.node)[loop.constant[name]]
    return loop.place.ref(_copied_out(loop, name, copied), _port(loop.by_name[name], ref))


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


def _widen(loop: Loop, refs: list[str], types: list[int]) -> None:
    """Add loop variables."""
    node = loop.node
    loop.place.set_inputs(node, [*nodes.data_inputs(node), *refs, *nodes.control_inputs(node)])
    node.attr["T"].list.type.extend(types)
    if "output_shapes" in node.attr and node.attr["output_shapes"].list.shape:
        for _ in refs:
            node.attr["output_shapes"].list.shape.add(unknown_rank=True)
