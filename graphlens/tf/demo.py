"""The child process that builds the demo model, a small MobileNet-like SavedModel.

Its BatchNorm statistics are random: with the initial ones TensorFlow folds BatchNorm away, which no trained model sees.
"""

from __future__ import annotations

import sys
from typing import Any

from graphlens.children.channel import carry_out, requests, reserve_stdout
from graphlens.children.messages import DemoRequest

SEED = 1
SIDE = 96  # pixels: small enough to run in milliseconds, large enough that convolutions dominate as in real networks
CLASSES = 100
BLOCKS = ((16, 1), (24, 2), (24, 1), (40, 2), (40, 1), (80, 2))  # channels and stride of each block


def build() -> Any:
    """Return the network: a stem, inverted residual blocks, a pooled head."""
    import keras

    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = _normalized(layers.Conv2D(16, 3, 2, padding="same", use_bias=False, name="stem")(image), "stem")
    for index, (channels, stride) in enumerate(BLOCKS):
        x = _block(x, channels, stride, f"block{index}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(CLASSES, activation="softmax", name="classifier")(x)
    return _with_statistics(keras.Model(image, outputs, name="demo"))


def _block(x: Any, channels: int, stride: int, name: str) -> Any:
    """Expand, filter each channel, project; with a shortcut where shapes allow it."""
    from keras import layers

    shortcut = x
    x = layers.Conv2D(4 * x.shape[-1], 1, use_bias=False, name=f"{name}_expand")(x)
    x = _normalized(x, f"{name}_expand")
    x = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    x = _normalized(x, f"{name}_depthwise")
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project")(x)
    x = layers.BatchNormalization(name=f"{name}_project_bn")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut]) if shortcut.shape == x.shape else x


def _normalized(x: Any, name: str) -> Any:
    from keras import layers

    return layers.ReLU(6.0, name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_bn")(x))


def _with_statistics(model: Any) -> Any:
    import numpy as np

    random = np.random.default_rng(SEED)
    for layer in model.layers:
        if layer.name.endswith("_bn"):
            size = layer.gamma.shape[0]
            gamma, variance = random.uniform(0.5, 1.5, size), random.uniform(0.5, 1.5, size)
            layer.set_weights([gamma, random.normal(0, 0.1, size), random.normal(0, 0.1, size), variance])
    return model


def main() -> int:
    """Write the model as the one request says."""
    emit = reserve_stdout()
    for request in requests(DemoRequest):
        return carry_out(lambda: build().export(request.path), emit)  # noqa: B023  # there is one
    return 0


if __name__ == "__main__":
    sys.exit(main())
