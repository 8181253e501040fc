"""Two inputs of a signature that are one tensor: TensorFlow 1 wrote such files, TensorFlow 2 does not load them.

In a copy of the file each further one gets a tensor of its own, which nobody reads: the signature keeps its inputs, and
what is fed to the first one is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from graphlens.loaders.savedmodel import BINARY
from graphlens.tf.open.inputs import InputSpec
from graphlens.tf.open.retired import copy_with

NOTE: Final = "Inputs that are the same tensor by another name are fed once: {names}."

_MARK: Final = "graphlens_same_as/"  # before the tensor that an added one stands beside, in the names of the copy


@contextmanager
def told_apart(path: str) -> Iterator[tuple[str, tuple[str, ...]] | None]:
    """Yield a folder that TensorFlow can load in place of ``path``, and notes; ``None`` where no input is doubled."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = Path(path) / BINARY
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes()) if file.is_file() else None
    names = [] if saved_model is None else [name for one in saved_model.meta_graphs for name in _separated(one)]
    if saved_model is None or not names:
        yield None
        return
    with copy_with(path, saved_model.SerializeToString()) as folder:
        yield folder, (NOTE.format(names=", ".join(dict.fromkeys(names))),)


def _separated(meta_graph: Any) -> list[str]:
    """Give every further input of one tensor a tensor of its own; returns which are the same."""
    same: list[str] = []
    for signature in meta_graph.signature_def.values():
        first: dict[str, str] = {}
        for key in sorted(signature.inputs):
            info = signature.inputs[key]
            if info.name and info.name in first:
                same.append(f"{key} is {first[info.name]}")
                info.name = f"{_added(meta_graph.graph_def, info, len(same))}:0"
            else:
                first[info.name] = key
    return same


def _added(graph_def: Any, info: Any, number: int) -> str:
    node = graph_def.node.add(name=f"{_MARK}{info.name.split(':')[0]}/{number}", op="Placeholder")
    node.attr["dtype"].type = info.dtype
    node.attr["shape"].shape.CopyFrom(info.tensor_shape)
    return str(node.name)


def paired(specs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """Return the inputs; those that got a tensor of their own name the one that they are the same as."""
    by_placeholder = {spec.placeholder: spec.name for spec in specs}
    return tuple(
        replace(spec, same_as=by_placeholder.get(_original(spec.placeholder), "")) if _is_added(spec) else spec
        for spec in specs
    )


def _is_added(spec: InputSpec) -> bool:
    return spec.placeholder.startswith(_MARK)


def _original(placeholder: str) -> str:
    return placeholder.removeprefix(_MARK).rpartition("/")[0]
