"""``fold-padding``: zeros around an image become the padding of the convolution that reads it, instead of a copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphlens.errors import RewriteError
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.draft import Draft, named
from graphlens.tf.rewrite.values import Values

# Not depthwise ones: with oneDNN, TensorFlow 2.21 ends the process in a fused depthwise convolution that does this.
_CONVOLUTIONS = frozenset({"Conv2D"})
_PADS = frozenset({"Pad", "PadV2"})


def fold_padding(draft: Draft, edit: Mapping[str, Any]) -> None:
    """Fold the pads named, or every one that only convolutions without padding of their own read."""
    values = Values(draft)
    wanted = [name for name in named(edit) if name in draft and draft.node(name).op in _PADS]
    if named(edit) and not wanted:
        raise RewriteError(f"'{named(edit)[0]}' is no padding")
    reasons = {name: _fold(draft, values, name) for name in wanted or draft if name in draft}
    refused = [reason for name, reason in reasons.items() if reason and (wanted or draft.node(name).op in _PADS)]
    if (wanted and refused) or all(reasons.values()):
        raise RewriteError(refused[0] if refused else "nothing is padded")


def _fold(draft: Draft, values: Values, name: str) -> str | None:
    """Fold one pad; returns why not, if so."""
    node = draft.node(name)
    if node.op not in _PADS:
        return f"'{name}' is no padding"
    readers = draft.readers(name)
    if draft.is_fetched(name) or not readers or not all(_takes_padding(draft, name, reader) for reader in readers):
        return f"'{name}' is not read by convolutions without padding alone"
    refs = nodes.data_inputs(node)
    if not all(values.is_frozen(ref) for ref in refs[1:]):
        return f"how much '{name}' pads is computed in the call"
    paddings, *filled = values.of(refs[1:])
    if any(np.any(value) for value in filled):
        return f"'{name}' pads with another number than 0"
    if any(not _is_spatial(draft.node(reader), paddings) for reader in readers):
        return f"'{name}' pads the batch or the channels"
    for reader in readers:
        _pad_inside(draft.node(reader), paddings)
    draft.bypass(name)
    return None


def _takes_padding(draft: Draft, pad: str, reader: str) -> bool:
    node = draft.node(reader)
    if node.op not in _CONVOLUTIONS or nodes.text(node, "padding") != "VALID":
        return False
    return list(node.input).count(nodes.tensor(pad)) == 1 == sum(nodes.source(ref) == pad for ref in node.input)


def _is_spatial(node: Any, paddings: np.ndarray) -> bool:
    layout = nodes.text(node, "data_format", "NHWC")
    return paddings.shape == (4, 2) and not paddings[layout.index("N")].any() and not paddings[layout.index("C")].any()


def _pad_inside(node: Any, paddings: np.ndarray) -> None:
    nodes.set_attribute(node, "padding", "EXPLICIT")
    del node.attr["explicit_paddings"].list.i[:]
    node.attr["explicit_paddings"].list.i.extend(int(size) for size in paddings.reshape(-1))
