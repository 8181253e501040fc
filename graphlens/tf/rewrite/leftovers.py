"""What of a SavedModel is not in the one written from it, in words; and its extra files, which are taken along."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from graphlens.loaders.savedmodel import list_signatures

EXTRA = "assets.extra"  # files that servers read, warm-up requests for instance
_KERAS = "keras_metadata.pb"
_SERVE = "serve"
_NAMED = 3  # functions that a note names


def left_behind(source: Path, tag: str | None, loaded: Any) -> Iterator[str]:
    """Yield a note for everything that the model at ``source`` has and one written from it has not."""
    graphs = [set(tags) for tags, _ in list_signatures(source)]
    wanted = {part for part in (tag or "").split(",") if part}
    if len(graphs) > 1:
        others = [", ".join(sorted(tags)) or "none" for tags in graphs if tags != (wanted or {_SERVE})]
        yield f"Only one of the model's {len(graphs)} graphs is written, not: {'; '.join(others)}."
    if _SERVE not in (wanted or graphs[0]):
        yield f"What is written has the tag '{_SERVE}', whatever the original's were."
    if functions := _functions(loaded):
        more = f" and {len(functions) - _NAMED} more" if len(functions) > _NAMED else ""
        called = f"{', '.join(functions[:_NAMED])}{more}"
        yield f"What is written is called by its signatures; the original's functions ({called}) are not kept."
    if (source / _KERAS).is_file():
        yield "What is written is no Keras model any more: load it with tf.saved_model.load or keras.layers.TFSMLayer."


def _functions(loaded: Any) -> list[str]:
    """Return the names of the functions that can be called on a loaded object, beside its signatures."""
    return sorted(name for name, value in vars(loaded).items() if _is_function(value))


def _is_function(value: Any) -> bool:
    return isinstance(value, tf.types.experimental.PolymorphicFunction)


def copy_extra_files(source: Path, directory: Path) -> None:
    """Copy the files that belong to a model but not to its graph."""
    if (source / EXTRA).is_dir():
        shutil.copytree(source / EXTRA, directory / EXTRA)
