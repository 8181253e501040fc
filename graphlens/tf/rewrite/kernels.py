"""Kernels that Grappler asks for although TensorFlow does not have them: no edit may be what brings them about."""

from __future__ import annotations

from typing import Final

from graphlens.ir.ops import BATCH_NORMS
from graphlens.tf import private
from graphlens.tf.rewrite import nodes
from graphlens.tf.rewrite.draft import Draft

_FUSED_TYPES: Final = frozenset({"float32", "float64"})  # of others, Grappler makes no kernel without oneDNN
_HANDS_ON: Final = frozenset({"Identity", "StopGradient"})  # gone when Grappler fuses


def missing_kernels(draft: Draft) -> frozenset[str]:
    """Return the ops that Grappler puts into a convolution for which there is then no kernel: every call fails.

    Without oneDNN, TensorFlow 2.21 has none for a convolution that sees a part of its input's channels at a time and
    has a bias, or a normalization with fixed statistics, fused into it.
    """
    if private.onednn_enabled() is not False:
        return frozenset()
    fused = (_fused_behind(draft, name) for name in draft if _is_grouped(draft, name))
    return frozenset(name for name in fused if name is not None)


def _is_grouped(draft: Draft, name: str) -> bool:
    node = draft.node(name)
    if node.op != "Conv2D" or "GPU" in node.device or nodes.dtype_of(node).name not in _FUSED_TYPES:
        return False
    image, weights = (draft.shape(ref) for ref in nodes.data_inputs(node))
    if image.rank != 4 or weights.rank != 4:
        return False
    channels = image[1 if nodes.text(node, "data_format", "NHWC") == "NCHW" else 3]
    return None not in (channels, weights[2]) and bool(channels != weights[2])


def _fused_behind(draft: Draft, name: str) -> str | None:
    reader = draft.only_reader(name)
    while reader is not None and draft.node(reader).op in _HANDS_ON:
        reader = draft.only_reader(reader)
    if reader is None:
        return None
    node = draft.node(reader)
    infers = node.op in BATCH_NORMS and "is_training" in node.attr and not nodes.flag(node, "is_training")
    return reader if node.op == "BiasAdd" or infers else None
