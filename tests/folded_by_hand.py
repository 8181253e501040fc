"""Fold the normalizations of a Keras network into its convolutions as a person would: the twin that fixes are held to.

``python tests/folded_by_hand.py NAME OUT`` builds the fixture model ``NAME`` and writes the folded twin to ``OUT``.  It
knows layers and their weights and nothing of GraphLens: where a normalization alone reads a convolution, it goes, and
the convolution gets a bias and other weights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from fixtures.models import KERAS_MODELS


def folded(model: Any) -> Any:
    """Return a network that computes the same without the normalizations that can be folded."""
    import keras

    pairs = {norm.name: conv for norm in model.layers if (conv := convolution_before(norm)) is not None}
    biased = {conv.name for conv in pairs.values()}

    class Nothing(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        """Stands where a normalization was, and is called as one."""

        def call(self, x: Any, mask: Any = None, training: Any = None) -> Any:
            del mask, training
            return x

    def copied(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in pairs:
            return Nothing(name=layer.name)
        return type(layer).from_config({**config, "use_bias": True} if layer.name in biased else config)

    twin = keras.models.clone_model(model, clone_function=copied)
    norms = {conv.name: model.get_layer(name) for name, conv in pairs.items()}
    for layer in model.layers:
        if layer.name in biased:
            twin.get_layer(layer.name).set_weights(folded_weights(layer, norms[layer.name]))
        elif layer.name not in pairs and layer.weights:
            twin.get_layer(layer.name).set_weights(layer.get_weights())
    return twin


def convolution_before(norm: Any) -> Any:
    """Return the convolution that a normalization reads and nothing else does."""
    if type(norm).__name__ != "BatchNormalization":
        return None
    before = norm.input._keras_history.operation
    is_convolution = type(before).__name__ in ("Conv2D", "DepthwiseConv2D") and before.get_config()["activation"]
    return before if is_convolution == "linear" and len(before._outbound_nodes) == 1 else None


def folded_weights(conv: Any, norm: Any) -> list[np.ndarray]:
    """Return the kernel and the bias of a convolution that does what both layers do."""
    gamma, beta, mean, variance = (weight.astype(np.float64) for weight in norm.get_weights())
    kernel, *bias = (weight.astype(np.float64) for weight in conv.get_weights())
    scale = gamma / np.sqrt(variance + norm.epsilon)
    factors = scale.reshape(kernel.shape[-2:]) if type(conv).__name__ == "DepthwiseConv2D" else scale
    shift = beta + (sum(bias) - mean) * scale
    return [(kernel * factors).astype(np.float32), shift.astype(np.float32)]


def main(name: str, out: str) -> None:
    """Write the folded twin of a fixture model."""
    folded(KERAS_MODELS[name]()).export(out, verbose=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
