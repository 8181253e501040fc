"""``remove-identities``: leave out what custom gradients put between a layer and its activation.

``tf.nn.silu`` writes an ``IdentityN`` and a product with 1, which keep Grappler from fusing layer and activation.
Plain ``Identity`` ops are left to Grappler, which removes them itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphlens.errors import RewriteError
from graphlens.ir.edits import RemoveIdentities
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.declaring import rewrite
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.values import Values


@rewrite
def remove_identities(draft: Draft, edit: RemoveIdentities) -> None:
    """Leave out the ops named, or every one that only hands on."""
    wanted = named(edit)
    if not wanted and not clear_identities(draft):
        raise RewriteError("no op only hands on its input")
    values = Values(draft)
    for name in wanted:
        if name in draft and not _clear(draft, values, name):
            raise RewriteError(f"'{name}' ({draft.node(name).op}) does more than to hand on its input")


def clear_identities(draft: Draft) -> int:
    """Leave out every op that only hands on its input; returns how many there were."""
    values = Values(draft)
    return sum(_clear(draft, values, name) for name in draft.news("clear_identities") if name in draft)


def _clear(draft: Draft, values: Values, name: str) -> bool:
    node = draft.node(name)
    if nodes.control_inputs(node) or draft.is_fetched(name) or name in draft.effects:
        return False
    if node.op == "IdentityN":
        for index, ref in enumerate(nodes.data_inputs(node)):
            draft.redirect(nodes.tensor(name, index), ref)
        draft.bypass(name)
        return True
    if node.op == "PreventGradient":
        draft.bypass(name)
        return True
    kept = _multiplied_by_one(draft, values, node) if node.op == "Mul" else None
    if kept is not None:
        draft.bypass(name, kept)
    return kept is not None


def _multiplied_by_one(draft: Draft, values: Values, node: Any) -> str | None:
    refs = nodes.data_inputs(node)
    for factor, kept in (refs, refs[::-1]):
        if draft.producer(factor).op == "Const" and values.is_frozen(factor):
            value = values.of([factor])[0]
            if value.shape == () and value == np.asarray(1, value.dtype):
                return kept
    return None
