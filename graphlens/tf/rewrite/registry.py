"""Which rewrites there are, by name: this package's own, and those of others; and how edits are applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from graphlens.errors import RewriteError
from graphlens.ir.settings import is_setting
from graphlens.plugins import REWRITE_GROUP, PluginError, load_group
from graphlens.tf.rewrite import (
    affine,
    casts,
    clusters,
    freeze,
    identities,
    inference,
    inputs,
    loops,
    ordering,
    padding,
    reshapes,
    sharing,
    sums,
    transposes,
)
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.kernels import missing_kernels
from graphlens.tf.rewrite.program import Program

Rewrite = Callable[[Draft, Mapping[str, Any]], None]

_OWN: Mapping[str, Rewrite] = {
    "fold-affine": affine.fold_affine,
    "fold-input-affine": inputs.fold_input_affine,
    "fold-padding": padding.fold_padding,
    "remove-identities": identities.remove_identities,
    "freeze-variables": freeze.freeze_variables,
    "fold-constant": freeze.fold_constant,
    "merge-constants": freeze.merge_constants,
    "constant-to-variable": freeze.constant_to_variable,
    "remove-transposes": transposes.remove_transposes,
    "remove-casts": casts.remove_casts,
    "change-dtype": casts.change_dtype,
    "remove-debug-ops": inference.remove_debug_ops,
    "remove-dropout": inference.remove_dropout,
    "use-moving-statistics": inference.use_moving_statistics,
    "share-computation": sharing.share_computation,
    "hoist-invariant": loops.hoist_invariant,
    "flatten-product": reshapes.flatten_product,
    "sink-reshape": reshapes.sink_reshape,
    "sum-by-add-n": sums.sum_by_add_n,
    "jit-compile": clusters.jit_compile,
    "order-names": ordering.order_names,
    "place-ops": clusters.place_ops,
}


@cache
def rewrites() -> Mapping[str, Rewrite]:
    """Return every rewrite by the name of its edit.

    An entry point of the group ``graphlens.rewrites`` is a mapping from names to functions ``(draft, edit)``, which
    change the draft or raise a ``RewriteError``.  Names of this package cannot be taken over.
    """
    try:
        others = [dict(found) for found in load_group(REWRITE_GROUP)]
    except PluginError as error:
        raise RewriteError(str(error)) from error
    return {**{name: function for found in others for name, function in found.items()}, **_OWN}


def edit_names() -> tuple[str, ...]:
    """Return the names of the edits that can be applied."""
    return tuple(sorted(rewrites()))


def apply(program: Program, edits: Sequence[Mapping[str, Any]]) -> Program:
    """Return ``program`` with ``edits`` applied in order; the argument stays as it is.

    Raises
    ------
    RewriteError
        If one does not fit the graph or would change what it computes, or if all together leave what TensorFlow cannot
        run here; the message says why.
    """
    draft = Draft(program)
    missing = missing_kernels(draft)
    for edit in edits:
        rewrite = _rewrite_of(edit)
        try:
            rewrite(draft, edit)
        except RewriteError:
            if not draft.is_done(named(edit)):  # an edit before it may have done its work already
                raise
    for name in sorted(missing_kernels(draft) - missing):
        raise RewriteError(
            f"TensorFlow would fuse '{name}' into the grouped convolution before it, and has no kernel for that "
            "without oneDNN (TF_ENABLE_ONEDNN_OPTS=1)"
        )
    return draft.finished()


def _rewrite_of(edit: Mapping[str, Any]) -> Rewrite:
    name = str(edit.get("edit"))
    if is_setting(edit):
        raise RewriteError(f"'{name}' is a setting of the process and changes no graph: set it where the model is run")
    if name not in rewrites():
        raise RewriteError(f"there is no rewrite '{name}'; there are {', '.join(edit_names())}")
    return rewrites()[name]
