"""``remove-casts`` and ``change-dtype``: leave out casts that lead back, and let an island compute in another type."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import tensorflow as tf

from graphlens.errors import RewriteError
from graphlens.ir.edits import ChangeDtype, RemoveCasts
from graphlens.ir.ops import RESHAPES
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.values import Values

# Ops that move elements and do not look at them: a cast may as well come after.
_MOVES = RESHAPES | {"Identity", "Transpose"}
_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})
# Types whose every value another type holds exactly: a cast there and back changes nothing.
_HOLDS: Final[Mapping[str, frozenset[str]]] = {
    "float64": frozenset({"float32", "float16", "bfloat16", "int32", "int16", "int8", "uint8", "bool"}),
    "float32": frozenset({"float16", "bfloat16", "int16", "int8", "uint8", "bool"}),
    "int64": frozenset({"int32", "int16", "int8", "uint8", "bool"}),
    "int32": frozenset({"int16", "int8", "uint8", "bool"}),
}


@rewrite
def remove_casts(draft: Draft, edit: RemoveCasts) -> None:
    """Leave out the casts named, or all whose absence changes no bit."""
    wanted = named(edit)
    casts = [name for name in wanted or draft if name in draft and draft.node(name).op == "Cast"]
    if not casts:
        raise RewriteError(f"'{wanted[0]}' is no cast of the traced graph" if wanted else "the graph holds no cast")
    removed = [name for name in casts if name in draft and _removed(draft, name, bool(wanted))]
    if not removed:
        raise RewriteError(f"the values do not return from '{casts[-1]}' to the type that they came from")
    left = [name for name in wanted if name in draft and name not in removed and draft.is_needed(name)]
    if left:
        raise RewriteError(f"'{left[0]}' would still be read by {', '.join(draft.readers(left[0])[:3])}")


def _removed(draft: Draft, name: str, lossy: bool) -> bool:
    node = draft.node(name)
    if node.attr["SrcT"].type == node.attr["DstT"].type:
        draft.bypass(name)
        return True
    return _merged(draft, name) or _returned(draft, name, lossy)


def _merged(draft: Draft, name: str) -> bool:
    """Read an equal cast of the same tensor instead."""
    node = draft.node(name)
    for other in draft.reads(nodes.data_inputs(node)[0]):
        same = other != name and draft.node(other).op == "Cast" and _same_cast(draft.node(other), node)
        if same:
            draft.bypass(name, nodes.tensor(other))
            return True
    return False


def _same_cast(one: Any, other: Any) -> bool:
    return bool(
        one.attr["DstT"].type == other.attr["DstT"].type
        and nodes.flag(one, "Truncate") == nodes.flag(other, "Truncate")
        and not nodes.control_inputs(one)
        and not nodes.control_inputs(other)
    )


def _returned(draft: Draft, last: str, lossy: bool) -> bool:
    """Take out a cast whose values were cast from its own type before."""
    between: list[str] = []
    source = nodes.source(nodes.data_inputs(draft.node(last))[0])
    while draft.node(source).op in _MOVES and draft.only_reader(source) is not None:
        between.append(source)
        source = nodes.source(nodes.data_inputs(draft.node(source))[0])
    first = draft.node(source)
    if first.op != "Cast" or first.attr["SrcT"].type != draft.node(last).attr["DstT"].type:
        return False
    outer, inner = nodes.dtype_of(first, "SrcT"), nodes.dtype_of(first, "DstT")
    exact = outer.name in _HOLDS.get(inner.name, ())
    if not exact and not (lossy and {outer.name, inner.name} <= _FLOATS):
        return False
    original = nodes.data_inputs(first)[0]
    for name in between:
        nodes.set_attribute(draft.node(name), "T", outer)
    if between:
        draft.set_input(between[-1], 0, original)
    draft.bypass(last, nodes.tensor(between[0]) if between else original)
    return True


# -- another type ---------------------------------------------------------------------------------------------------


@rewrite
def change_dtype(draft: Draft, edit: ChangeDtype) -> None:
    """``change-dtype``: the ops named (or all of them) compute in ``to`` instead of ``from``.

    What enters is cast, constants and weights are stored in the new type, and what leaves is cast back.
    """
    old, new = _type(edit.from_), _type(edit.to)
    wanted = named(edit)
    ops = [name for name in wanted or draft if name in draft and _computes_in(draft.node(name), old)]
    if not ops:
        raise RewriteError(f"none of the ops named computes in {old.name} in the traced graph")
    values = Values(draft)
    inside = {name for name in ops if not values.is_frozen(nodes.tensor(name))}
    if not inside:
        raise RewriteError(f"what computes in {old.name} never changes: store its result instead (fold-constant)")
    entering = {ref: None for name in inside for ref in _of_type(draft, name, old) if nodes.source(ref) not in inside}
    leaving = [ref for name in inside for ref in _outputs_of_type(draft, name, old) if _leaves(draft, ref, inside)]
    for ref in entering:
        draft.redirect(ref, _converted(draft, values, ref, new), only=inside)
    for name in inside:
        _retype(draft.node(name), old, new)
    for ref in leaving:
        _cast_back(draft, ref, inside, new, old)
    for name in inside:
        if draft.node(name).op == "Cast" and name in draft:
            _removed(draft, name, lossy=False)


def _type(name: Any) -> Any:
    if name not in _FLOATS:
        raise RewriteError(f"change-dtype changes to and from {', '.join(sorted(_FLOATS))}, not '{name}'")
    return tf.as_dtype(name)


def _computes_in(node: Any, dtype: Any) -> bool:
    # What is stored, kept, or drawn at random in one type cannot be had in another.
    if node.op in {"Const", "Placeholder"} or nodes.touches_state(node) or "Random" in node.op:
        return False
    return dtype.as_datatype_enum in [*nodes.input_types(node), *nodes.output_types(node)]


def _of_type(draft: Draft, name: str, dtype: Any) -> list[str]:
    node = draft.node(name)
    types = nodes.input_types(node)
    return [ref for ref, kind in zip(nodes.data_inputs(node), types, strict=True) if kind == dtype.as_datatype_enum]


def _outputs_of_type(draft: Draft, name: str, dtype: Any) -> list[str]:
    types = nodes.output_types(draft.node(name))
    return [nodes.tensor(name, index) for index, kind in enumerate(types) if kind == dtype.as_datatype_enum]


def _leaves(draft: Draft, ref: str, inside: Collection[str]) -> bool:
    return ref in draft.outputs or any(reader not in inside for reader in draft.reads(ref))


def _converted(draft: Draft, values: Values, ref: str, new: Any) -> str:
    node = draft.producer(ref)
    if values.is_frozen(ref):
        value = values.of([ref])[0].astype(new.as_numpy_dtype)
        name = f"{node.name}/{new.name}"
        stored_in_graph = node.op == "Const"
        return draft.constant(name, value, node) if stored_in_graph else draft.weight(name, value, name, node)
    cast = nodes.make(
        "Cast", draft.unused(f"{node.name}/to_{new.name}"), [ref], node, SrcT=draft.dtype(ref), DstT=new, Truncate=False
    )
    return nodes.tensor(draft.add(cast))


def _retype(node: Any, old: Any, new: Any) -> None:
    definition = nodes.op_def(node.op)
    fixed = {argument.type for argument in [*definition.input_arg, *definition.output_arg] if not argument.type_attr}
    if old.as_datatype_enum in fixed:
        raise RewriteError(f"'{node.name}' ({node.op}) computes in {old.name} only")
    for attribute in definition.attr:
        if attribute.name not in node.attr:
            continue
        value = node.attr[attribute.name]
        kinds = attribute.allowed_values.list.type
        if value.type == old.as_datatype_enum:
            if kinds and new.as_datatype_enum not in kinds:
                raise RewriteError(f"'{node.name}' ({node.op}) does not compute in {new.name}")
            value.type = new.as_datatype_enum
        elif old.as_datatype_enum in value.list.type:
            value.list.type[:] = [
                new.as_datatype_enum if kind == old.as_datatype_enum else kind for kind in value.list.type
            ]


def _cast_back(draft: Draft, ref: str, inside: Collection[str], new: Any, old: Any) -> None:
    node = draft.producer(ref)
    if not draft.reads(ref) and ref not in draft.outputs:
        return
    outside = [reader for reader in draft.reads(ref) if reader not in inside]
    name = draft.unused(f"{node.name}/to_{old.name}")
    cast = nodes.make("Cast", name, [ref], node, SrcT=new, DstT=old, Truncate=False)
    draft.redirect(ref, nodes.tensor(name), only=outside)
    draft.outputs = [nodes.tensor(name) if output == ref else output for output in draft.outputs]
    draft.add(cast)
