"""Which rewrites there are, by name: this package's own, and those of others; and how edits are applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from graphlens.errors import RewriteError
from graphlens.plugins import REWRITE_GROUP, PluginError, load_group
from graphlens.tf.rewrite import affine, freeze, identities
from graphlens.tf.rewrite.draft import Draft
from graphlens.tf.rewrite.program import Program

Rewrite = Callable[[Draft, Mapping[str, Any]], None]

_OWN: Mapping[str, Rewrite] = {
    "fold-affine": affine.fold_affine,
    "remove-identities": identities.remove_identities,
    "freeze-variables": freeze.freeze_variables,
    "fold-constant": freeze.fold_constant,
    "merge-constants": freeze.merge_constants,
    "constant-to-variable": freeze.constant_to_variable,
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
        If one does not fit the graph or would change what it computes; the message says why.
    """
    draft = Draft(program)
    for edit in edits:
        _rewrite_of(edit)(draft, edit)
    return draft.finished()


def _rewrite_of(edit: Mapping[str, Any]) -> Rewrite:
    name = str(edit.get("edit"))
    if name not in rewrites():
        raise RewriteError(f"there is no rewrite '{name}'; there are {', '.join(edit_names())}")
    return rewrites()[name]
