"""Keras' class of callbacks, for who derives one from it, and whether Keras runs on TensorFlow."""

from __future__ import annotations

import keras
from keras.callbacks import Callback

__all__ = ["Callback", "runs_on"]


def runs_on() -> str:
    """Return what Keras runs on: ``tensorflow``, ``jax``, ``torch``."""
    return str(keras.backend.backend())
