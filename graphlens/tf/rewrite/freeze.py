"""Edits about where values are kept: variables become constants, constants variables, computations their results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from graphlens.errors import RewriteError
from graphlens.ir.edits import ConstantToVariable, FoldConstant, FreezeVariables, MergeConstants
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import CONSTANT_BYTES_LIMIT, Draft, named, put_constant
from graphlens.tf.rewrite.values import Values

# Per-channel factors are this small: as constants, Grappler can fold them further, which it does not with variables.
SMALL_BYTES = 64 << 10
# A result that is bigger than what it is computed from costs memory traffic in place of arithmetic.
GROWN_BYTES = 1 << 20
_COPIES = frozenset({"Identity", "IdentityN", "ReadVariableOp", "StopGradient", "Const", "Placeholder"})


@rewrite
def freeze_variables(draft: Draft, edit: FreezeVariables) -> None:
    """``freeze-variables``: the reads named (or all of variables that nobody writes) become constants."""
    values = Values(draft)
    wanted = named(edit)
    reads = [_read(draft, values, name) for name in wanted] if wanted else _reads(draft, values)
    if not reads:
        raise RewriteError("the function reads no variable that is known never to be written")
    _refuse_too_big(draft, values, reads)
    for name in reads:
        _store(draft, nodes.tensor(name), values.of([nodes.tensor(name)])[0])


def _reads(draft: Draft, values: Values) -> list[str]:
    return [name for name in draft if draft.node(name).op == "ReadVariableOp" and values.variable_of(name)]


def _read(draft: Draft, values: Values, name: str) -> str:
    node = draft.node(name)
    if node.op != "ReadVariableOp":
        raise RewriteError(f"'{name}' is a {node.op}: only reads of variables (ReadVariableOp) can be frozen")
    if values.may_not_run(name):
        raise RewriteError(f"'{name}' waits in a branch or loop of TensorFlow 1, where a constant would not")
    if values.variable_of(name) is None:
        raise RewriteError(f"the variable that '{name}' reads may be written, so its value is no constant")
    return name


def _refuse_too_big(draft: Draft, values: Values, reads: Sequence[str]) -> None:
    size = sum(values.of([nodes.tensor(name)])[0].nbytes for name in reads)
    if size + draft.constant_bytes() > CONSTANT_BYTES_LIMIT:
        raise RewriteError(
            f"the variables would be {size / 1e9:.1f} GB of constants, and a graph holds at most 2 GB: freeze a part"
        )


def _store(draft: Draft, ref: str, value: np.ndarray) -> None:
    """Put a constant in place of the op that gives ``ref``, under its name."""
    old = draft.node(nodes.source(ref))
    node = nodes.make("Const", old.name, [], old)
    draft.bindings.pop(old.name, None)
    put_constant(node, value)
    draft.add(node)


def _store_variable(draft: Draft, name: str, value: np.ndarray) -> None:
    """Put the read of a new variable in place of an op, under its name."""
    old = draft.node(name)
    draft.bindings.pop(name, None)
    draft.put_weight(nodes.make("ReadVariableOp", name, [], old), value, f"{name}/stored")


# -- computations ---------------------------------------------------------------------------------------------------


@rewrite
def fold_constant(draft: Draft, edit: FoldConstant) -> None:
    """``fold-constant``: what is computed from frozen values alone is computed once, now.

    Small results become constants; bigger ones that come from variables or captured tensors become variables.
    """
    values = Values(draft)
    wanted = named(edit)
    results = _named_results(draft, values, wanted) if wanted else _results(draft, values)
    if not results:
        raise RewriteError("nothing is computed from constants and frozen variables alone")
    computed = values.of([nodes.tensor(name) for name in results])
    for name, value in zip(results, computed, strict=True):
        if wanted or not _grows(draft, values, name, value):
            _keep(draft, name, value)


def _named_results(draft: Draft, values: Values, wanted: Sequence[str]) -> list[str]:
    known = [name for name in wanted if name in draft]
    if not known:
        raise RewriteError(f"none of the ops named is in the traced graph ('{wanted[0]}', for instance)")
    for name in known:
        if not values.is_frozen(nodes.tensor(name)):
            raise RewriteError(values.why_not(nodes.tensor(name)))
    inside = set(known)
    return [name for name in known if _is_read_outside(draft, name, inside) and _can_store(draft, name)]


def _results(draft: Draft, values: Values) -> list[str]:
    """Return the frozen computations whose results something unfrozen reads."""
    frozen = {name for name in draft if values.is_frozen(nodes.tensor(name))}
    return [
        name
        for name in frozen
        if draft.node(name).op not in _COPIES and _is_read_outside(draft, name, frozen) and _can_store(draft, name)
    ]


def _is_read_outside(draft: Draft, name: str, inside: set[str]) -> bool:
    return draft.is_fetched(name) or any(reader not in inside for reader in draft.readers(name))


def _can_store(draft: Draft, name: str) -> bool:
    """Whether one tensor is all that others read of an op."""
    node = draft.node(name)
    return len(nodes.output_types(node)) == 1 and not nodes.control_inputs(node)


def _grows(draft: Draft, values: Values, name: str, value: np.ndarray) -> bool:
    read = sum(part.nbytes for part in values.of(nodes.data_inputs(draft.node(name))))
    return value.nbytes > GROWN_BYTES and value.nbytes > read


def _keep(draft: Draft, name: str, value: np.ndarray) -> None:
    if value.nbytes <= SMALL_BYTES or not _from_outside(draft, name):
        _store(draft, nodes.tensor(name), value)
    else:
        _store_variable(draft, name, value)


def _from_outside(draft: Draft, name: str) -> bool:
    todo, seen = [name], set()
    while todo:
        node = draft.node(todo.pop())
        if node.op == "ReadVariableOp" or draft.is_captured(node.name):
            return True
        seen.add(node.name)
        todo += [nodes.source(ref) for ref in nodes.data_inputs(node) if nodes.source(ref) not in seen]
    return False


# -- constants ------------------------------------------------------------------------------------------------------


@rewrite
def merge_constants(draft: Draft, edit: MergeConstants) -> None:
    """``merge-constants``: equal constants, or captured tensors, are kept once."""
    wanted = [_constant(draft, name) for name in named(edit)] or [n for n in draft if draft.node(n).op == "Const"]
    groups: dict[bytes, list[str]] = {}
    for name in wanted:
        groups.setdefault(_content(draft, name), []).append(name)
    if named(edit) and len(groups) > 1:
        raise RewriteError("the constants named are not equal")
    for first, *others in groups.values():
        for other in others:
            draft.bypass(other, nodes.tensor(first))


@rewrite
def constant_to_variable(draft: Draft, edit: ConstantToVariable) -> None:
    """``constant-to-variable``: a constant, or a captured tensor, is kept in a variable that is not trained."""
    for name in [_constant(draft, each) for each in named(edit)]:
        value = Values(draft).of([nodes.tensor(name)])[0]
        if value.dtype == object:
            raise RewriteError(f"'{name}' holds strings, which variables do not")
        _store_variable(draft, name, value)


def _constant(draft: Draft, name: str) -> str:
    found = draft.find(name)
    if found is None or not (draft.node(found).op == "Const" or draft.is_captured(found)):
        raise RewriteError(f"'{name}' is not a constant of the traced graph outside loops and conditionals")
    return found


def _content(draft: Draft, name: str) -> bytes:
    node = draft.node(name)
    waits = "".join(nodes.control_inputs(node)) + node.device
    held = tf.make_tensor_proto(draft.bindings[name].value) if draft.is_captured(name) else node.attr["value"].tensor
    return bytes(waits.encode() + held.SerializeToString(deterministic=True))
