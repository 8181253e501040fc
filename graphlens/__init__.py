"""GraphLens: where a TensorFlow step spends its time, why, and what would make it faster.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from graphlens._version import __version__

TYPE_CHECKING = False  # to `python -m graphlens`, `typing` may still be a file in the current folder (see __main__.py)
if TYPE_CHECKING:
    from typing import Any

    from graphlens import keras
    from graphlens.api import Analysis, analyze, load, profile

__all__ = ["Analysis", "__version__", "analyze", "keras", "load", "profile"]


def __getattr__(name: str) -> Any:
    if name == "keras":  # imports Keras itself
        from importlib import import_module

        return import_module("graphlens.keras")
    if name in __all__:
        from graphlens import api

        return getattr(api, name)
    raise AttributeError(f"module 'graphlens' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
