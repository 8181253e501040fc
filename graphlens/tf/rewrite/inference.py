"""Edits for graphs that are to infer only: no checks and prints, no dropout, no statistics of the batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from graphlens.errors import RewriteError
from graphlens.ir.edits import RemoveDebugOps, RemoveDropout, UseMovingStatistics
from graphlens.ir.ops import ASSERTIONS, BATCH_NORMS, CHECKS, CONDITIONALS, DEBUGGER, PRINTS, SELECTIONS, SUMS
from graphlens.loaders.functions import called
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.values import Values

_DEBUG = (PRINTS | ASSERTIONS | CHECKS | DEBUGGER) - {"Timestamp", "CopyHost", "SleepOp", "SleepIdentityOp"}
# Of those, the ones whose result is their first input.
_HAND_ON = CHECKS | {"Print", "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3"}
_KEEP_TOLERANCE = 1e-4  # of scale * (1 - rate) against 1, which float16 constants miss by this much


# -- debugging ------------------------------------------------------------------------------------------------------


@rewrite
def remove_debug_ops(draft: Draft, edit: RemoveDebugOps) -> None:
    """``remove-debug-ops``: leave out the checks and prints named, or all.

    A check inside a conditional goes with the conditional, when that does nothing else.
    """
    wanted = named(edit)
    chosen = [_place(draft, name) for name in wanted] if wanted else _all_debug_ops(draft)
    if not chosen:
        raise RewriteError("the graph holds no check, print or summary")
    order = {name: position for position, name in enumerate(draft.inputs_first(draft))}
    for name in sorted(set(chosen), key=order.__getitem__, reverse=True):  # who reads a summary goes before it
        _leave_out(draft, name)


def _place(draft: Draft, name: str) -> str:
    """Return the op of the flat graph to leave out for ``name``: itself, or the conditional around it."""
    if name in draft:
        if draft.node(name).op not in _DEBUG and not _only_checks(draft, name):
            raise RewriteError(f"'{name}' ({draft.node(name).op}) is no check, print or summary")
        return name
    around = [other for other in draft if name.startswith(f"{other}/") and draft.node(other).op in CONDITIONALS]
    if not around:
        raise RewriteError(f"'{name}' is not an op of the traced graph, or is inside a loop")
    if not _only_checks(draft, around[-1]):
        raise RewriteError(f"'{around[-1]}', which holds '{name}', does more than to check")
    return around[-1]


def _all_debug_ops(draft: Draft) -> list[str]:
    return [name for name in draft if draft.node(name).op in _DEBUG or _only_checks(draft, name)]


def _only_checks(draft: Draft, name: str) -> bool:
    """Whether a conditional computes nothing that is read, and its only effects are checks and prints."""
    node = draft.node(name)
    if node.op not in CONDITIONALS or draft.is_fetched(name):
        return False
    if not all(_is_waited_for_only(draft, reader) for reader in _data_readers(draft, name)):
        return False
    effects = [inner for inner in _inner(draft, node) if nodes.touches_state(inner) and inner.op not in nodes.READS]
    return bool(effects) and all(inner.op in _DEBUG for inner in effects)


def _data_readers(draft: Draft, name: str) -> list[str]:
    return [
        reader
        for reader in draft.readers(name)
        if any(nodes.source(ref) == name for ref in nodes.data_inputs(draft.node(reader)))
    ]


def _is_waited_for_only(draft: Draft, name: str) -> bool:
    """Whether an op hands on a value that nobody takes: TensorFlow waits for a check by such an ``Identity``."""
    return draft.node(name).op == "Identity" and not draft.is_fetched(name) and not _data_readers(draft, name)


def _inner(draft: Draft, node: Any) -> Iterator[Any]:
    todo = list(called(node))
    seen: set[str] = set()
    while todo:
        function = todo.pop()
        if function in draft.library and function not in seen:
            seen.add(function)
            for inner in draft.library[function].node_def:
                yield inner
                todo += called(inner)


def _leave_out(draft: Draft, name: str) -> None:
    node = draft.node(name)
    if node.op in _HAND_ON:
        draft.bypass(name)
        return
    for reader in _data_readers(draft, name):
        if _is_waited_for_only(draft, reader):
            _stop_waiting(draft, reader)
            draft.remove(reader)
    _stop_waiting(draft, name)
    if draft.readers(name) or draft.is_fetched(name):
        raise RewriteError(f"the result of '{name}' ({node.op}) is read, so it cannot be left out")
    draft.remove(name)


def _stop_waiting(draft: Draft, name: str) -> None:
    """Let who waits for an op wait for what it waits for."""
    for reader in draft.waiting(name):
        draft.wait_instead(reader, name, nodes.control_inputs(draft.node(name)))


# -- dropout --------------------------------------------------------------------------------------------------------


@rewrite
def remove_dropout(draft: Draft, edit: RemoveDropout) -> None:
    """``remove-dropout``: hand on what dropout would have masked, unscaled, as in inference."""
    values = Values(draft)
    wanted = named(edit)
    found = [name for name in wanted or draft if name in draft and _removed_dropout(draft, values, name)]
    if not found:
        raise RewriteError(f"{'what is named' if wanted else 'nothing'} masks a scaled tensor with random numbers")


def _removed_dropout(draft: Draft, values: Values, name: str) -> bool:
    source = _undropped(draft, values, name)
    if source is not None:
        draft.bypass(name, source)
    return source is not None


def _undropped(draft: Draft, values: Values, name: str) -> str | None:
    """Return what goes into the dropout that ends at ``name``."""
    node = draft.node(name)
    refs = nodes.data_inputs(node)
    if node.op in SELECTIONS and _is_zero(values, refs[2]):
        rate = _dropped_share(draft, values, refs[0])
        return _unscaled(draft, values, refs[1], rate)
    if node.op == "Mul":
        for scaled, mask in (refs, refs[::-1]):
            rate = _dropped_share(draft, values, mask)
            if rate is not None:
                return _unscaled(draft, values, scaled, rate)
    return None


def _is_zero(values: Values, ref: str) -> bool:
    return values.is_frozen(ref) and not np.any(values.of([ref])[0])


def _dropped_share(draft: Draft, values: Values, mask: str) -> float | None:
    """Return the share of elements that a random mask drops, ``None`` when it is no such mask."""
    node = draft.producer(mask)
    if node.op == "Cast":
        node = draft.producer(nodes.data_inputs(node)[0])
    refs = nodes.data_inputs(node)
    if node.op in {"GreaterEqual", "Greater"} and _is_random(draft, refs[0]):
        return _number(values, refs[1])
    if node.op == "Floor" and (total := draft.producer(refs[0])).op in SUMS:
        for random, kept in (nodes.data_inputs(total), nodes.data_inputs(total)[::-1]):
            share = _number(values, kept)
            if share is not None and _is_random(draft, random):
                return 1 - share
    return None


def _is_random(draft: Draft, ref: str) -> bool:
    node = draft.producer(ref)
    while node.op in SUMS | {"Mul", "Sub", "Cast", "Identity"}:
        node = draft.producer(nodes.data_inputs(node)[0])
    return "Random" in node.op


def _number(values: Values, ref: str) -> float | None:
    value = values.of([ref])[0] if values.is_frozen(ref) else None
    return float(value) if value is not None and value.size == 1 else None


def _unscaled(draft: Draft, values: Values, ref: str, rate: float | None) -> str | None:
    """Return the tensor that was scaled by 1 / (1 - rate); a dropout without that scale is another thing."""
    node = draft.producer(ref)
    if rate is None or node.op not in {"Mul", "RealDiv"}:
        return None
    refs = nodes.data_inputs(node)
    for tensor, factor in (refs, refs[::-1]) if node.op == "Mul" else (refs,):
        number = _number(values, factor)
        if number:
            scale = number if node.op == "Mul" else 1 / number
            return tensor if abs(scale * (1 - rate) - 1) < _KEEP_TOLERANCE else None
    return None


# -- batch normalization --------------------------------------------------------------------------------------------


@rewrite
def use_moving_statistics(draft: Draft, edit: UseMovingStatistics) -> None:
    """``use-moving-statistics``: normalize with the stored mean and variance, and stop updating them."""
    wanted = named(edit)
    norms = [name for name in wanted or draft if name in draft and _trains(draft.node(name))]
    if not norms:
        raise RewriteError("no FusedBatchNorm computes its statistics from the batch")
    for name in norms:
        _infer(draft, name)


def _trains(node: Any) -> bool:
    return node.op in BATCH_NORMS and ("is_training" not in node.attr or node.attr["is_training"].b)


def _infer(draft: Draft, name: str) -> None:
    mean, variance = (_moving(draft, name, index, what) for index, what in ((1, "mean"), (2, "variance")))
    node = draft.node(name)
    refs = [*nodes.data_inputs(node)[:3], _read(draft, mean, node), _read(draft, variance, node)]
    for update in (mean, variance):
        _leave_out(draft, update)
    draft.set_inputs(name, [*refs, *nodes.control_inputs(node)])
    nodes.set_attribute(draft.node(name), "is_training", False)


def _moving(draft: Draft, name: str, index: int, what: str) -> str:
    """Return the op that updates a moving statistic from the batch's (output ``index`` of the normalization)."""
    todo, seen = draft.reads(nodes.tensor(name, index)), set()
    while todo:
        reader = todo.pop()
        if draft.node(reader).op in {"AssignSubVariableOp", "AssignVariableOp", "AssignAddVariableOp"}:
            return reader
        seen.add(reader)
        todo += [other for other in draft.readers(reader) if other not in seen and not _trains(draft.node(other))]
    raise RewriteError(f"the graph does not say where the moving {what} of '{name}' is kept: it never updates one")


def _read(draft: Draft, update: str, like: Any) -> str:
    handle = nodes.data_inputs(draft.node(update))[0]
    dtype = nodes.dtype_of(draft.node(update), "dtype")
    read = nodes.make("ReadVariableOp", draft.unused(f"{like.name}/moving"), [handle], like, dtype=dtype)
    return nodes.tensor(draft.add(read))
