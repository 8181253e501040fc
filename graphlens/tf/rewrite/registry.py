"""Which rewrites there are: those of this package's modules, and those of others; and how edits are applied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from graphlens.errors import RewriteError
from graphlens.ir.codec import MismatchError
from graphlens.ir.edit_data import typed
from graphlens.ir.edits import Edit, OtherEdit
from graphlens.ir.settings import is_setting
from graphlens.plugins import REWRITE_GROUP, PluginError, load_group
from graphlens.tf.rewrite.declaring import Rewrite
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.kernels import missing_kernels
from graphlens.tf.rewrite.program import Program


@cache
def rewrites() -> Mapping[str, Rewrite]:
    """Return every rewrite by the kind of its edit.

    An entry point of the group ``graphlens.rewrites`` is a module that holds rewrites (see ``declaring.rewrite``), or
    one rewrite.  Kinds of this package cannot be taken over.

    Raises
    ------
    RewriteError
        When a plug-in cannot be loaded, or two rewrites carry out the same kind of edit.
    """
    try:
        others = _by_kind(_others_rewrites())
    except PluginError as error:
        raise RewriteError(str(error)) from error
    return {**others, **_by_kind(_own_rewrites())}


def _by_kind(found: Iterable[Rewrite]) -> Mapping[str, Rewrite]:
    by_kind: dict[str, Rewrite] = {}
    for made in found:
        other = by_kind.setdefault(made.kind, made)
        if other is not made:  # the same one imported twice counts once
            raise RewriteError(
                f"two rewrites carry out '{made.kind}' ({other.change.__module__} and {made.change.__module__}); "
                "uninstall one of the plug-ins"
            )
    return by_kind


def _own_rewrites() -> Iterator[Rewrite]:
    package = import_module(__package__ or "graphlens.tf.rewrite")
    for module in sorted(iter_modules(package.__path__), key=lambda item: item.name):
        yield from _rewrites_in(import_module(f"{package.__name__}.{module.name}"))


def _others_rewrites() -> Iterator[Rewrite]:
    for loaded in load_group(REWRITE_GROUP):
        yield from [loaded] if isinstance(loaded, Rewrite) else _rewrites_in(loaded)


def _rewrites_in(namespace: object) -> list[Rewrite]:
    return [value for value in vars(namespace).values() if isinstance(value, Rewrite)]


def edit_names() -> tuple[str, ...]:
    """Return the kinds of edits that can be applied."""
    return tuple(sorted(rewrites()))


def apply(program: Program, edits: Sequence[Edit]) -> Program:
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
        known = _known(edit, rewrite)
        try:
            rewrite(draft, known)
        except RewriteError:
            if not draft.is_done(named(known)):  # an edit before it may have done its work already
                raise
    for name in sorted(missing_kernels(draft) - missing):
        raise RewriteError(
            f"TensorFlow would fuse '{name}' into the grouped convolution before it, and has no kernel for that "
            "without oneDNN (TF_ENABLE_ONEDNN_OPTS=1)"
        )
    return draft.finished()


def _rewrite_of(edit: Edit) -> Rewrite:
    if is_setting(edit):
        raise RewriteError(
            f"'{edit.kind}' is a setting of the process and changes no graph: set it where the model is run"
        )
    if edit.kind not in rewrites():
        raise RewriteError(f"there is no rewrite '{edit.kind}'; there are {', '.join(edit_names())}")
    return rewrites()[edit.kind]


def _known(edit: Edit, rewrite: Rewrite) -> Edit:
    """Return an edit as the dataclass that its rewrite expects; that of a plug-in arrives as it was written."""
    if not isinstance(edit, OtherEdit):
        return edit
    try:
        known: Edit = typed(edit, rewrite.edit)
    except MismatchError as error:
        raise RewriteError(f"the edit {error}") from error
    return known
