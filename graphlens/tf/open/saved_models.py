"""Open a signature of a SavedModel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tensorflow as tf

from graphlens.errors import ExecutionError, UsageError, first_line
from graphlens.loaders.files import HEAD_BYTES, pointer_in_words
from graphlens.loaders.savedmodel import BINARY
from graphlens.loaders.signatures import CALL, DEFAULT
from graphlens.tf import private
from graphlens.tf.open import annotated, doubled, failures, retired
from graphlens.tf.open.opened import LOAD_FAILURES, Opened, from_concrete

DEFAULT_SIGNATURE = DEFAULT
KERAS_2_OPTIMIZER = b"\n\toptimizer"  # SavedUserObject.identifier, as protobuf writes it


def open_saved_model(path: str, signature: str | None, tag: str | None) -> Opened:
    """Open a signature: the one asked for, else the default one, else the only one."""
    with loaded_saved_model(path, tag) as (loaded, notes):
        name, function = _choose(loaded, path, signature)
        opened = from_concrete(function, kind="saved_model", signature=name, notes=notes, owner=loaded)
        return replace(opened, specs=doubled.paired(opened.specs))


@contextmanager
def loaded_saved_model(path: str, tag: str | None) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield the object loaded from ``path``, and notes; its asset files may be gone afterwards.

    Raises
    ------
    ExecutionError
        If TensorFlow cannot load it.
    """
    notes: tuple[str, ...] = (private.OPTIMIZER_SKIPPED,) if _holds_unknown_optimizer(path) else ()
    if notes:
        private.stand_in_for_missing_optimizer()
    tags = None if tag is None else [part for part in tag.split(",") if part]
    with retired.loadable(path) as (folder, replaced):
        try:
            loaded, imported = failures.with_registered_ops(
                lambda: tf.saved_model.load(folder, tags=tags), lambda: _types_in(Path(folder))
            )
        except LOAD_FAILURES as error:
            failure = ExecutionError(_cannot(path, error))
            with doubled.told_apart(folder) as apart:
                if apart is not None:
                    yield _load_again(apart[0], tags, failure), (*notes, *replaced, *apart[1])
                    return
            with annotated.without_shapes(folder) as stripped:
                yield _load_again(stripped, tags, failure), (*notes, *replaced, annotated.LEFT_OUT)
            return
        yield loaded, notes + replaced + imported


def _types_in(folder: Path) -> Iterator[str]:
    from graphlens.loaders.savedmodel import read_saved_model

    for meta_graph in read_saved_model(folder).meta_graphs:
        yield from failures.types_in(meta_graph.graph_def)


def _load_again(folder: str | None, tags: list[str] | None, failure: ExecutionError) -> Any:
    """Load the copy without annotated shapes; ``failure`` is raised where they were not at fault."""
    if folder is None:
        raise failure
    try:
        return tf.saved_model.load(folder, tags=tags)
    except LOAD_FAILURES as error:
        raise failure from error


def _cannot(path: str, error: Exception) -> str:
    """Say why a model is not loaded; of variables that were not fetched TensorFlow says that they are damaged."""
    for file in sorted(Path(path).glob("variables/*")):
        with suppress(OSError), file.open("rb") as opened:
            pointer = pointer_in_words(opened.read(HEAD_BYTES))
            if pointer:
                return f"TensorFlow cannot load {path}: '{file}' is {pointer}"
    return f"TensorFlow cannot load {path}: {first_line(error)}"


def _holds_unknown_optimizer(path: str) -> bool:
    """Whether Keras 2 saved its optimizer along, which only ``tf_keras`` knows how to revive."""
    file = Path(path) / BINARY
    return find_spec("tf_keras") is None and file.is_file() and KERAS_2_OPTIMIZER in file.read_bytes()


def _choose(loaded: Any, path: str, wanted: str | None) -> tuple[str, Any]:
    """Pick the signature asked for, else the default one, else the only one, else what calling the object runs."""
    signatures = signatures_in(loaded, path)
    if wanted == CALL or (wanted is None and not signatures):
        return CALL, _called_function(loaded, path)
    if wanted is not None and wanted not in signatures:
        raise UsageError(f"--signature {wanted}: {path} has {', '.join(sorted(signatures)) or 'no signatures'}")
    name = wanted or (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else None)
    if name is None and len(signatures) > 1:
        raise UsageError(f"{path} has several signatures, choose one with --signature: {', '.join(sorted(signatures))}")
    name = name or next(iter(signatures))
    return name, signatures[name]


def signatures_in(loaded: Any, path: str) -> dict[str, Any]:
    """Return the signatures; a file may put anything in their place, whose methods must not be called."""
    found = getattr(loaded, "signatures", {})
    if not isinstance(found, Mapping) or not all(map(_is_concrete, found.values())):
        raise ExecutionError(f"the signatures in {path} are no functions: export it again")
    return dict(found)


def _is_concrete(function: Any) -> bool:
    return isinstance(function, tf.types.experimental.ConcreteFunction)


def _called_function(loaded: Any, path: str) -> Any:
    function = loaded.__call__ if callable(loaded) else None
    generic = isinstance(function, tf.types.experimental.PolymorphicFunction)
    functions = getattr(function, "concrete_functions", ()) if generic else ()
    if not functions or not _is_concrete(functions[0]):
        raise ExecutionError(f"{path} has no signature and is not callable: export it again with signatures=…")
    return functions[0]
