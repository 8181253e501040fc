"""GraphLens: where a TensorFlow step spends its time, why, and what would make it faster.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from graphlens._version import __version__

TYPE_CHECKING = False  # to `python -m graphlens`, `typing` may still be a file in the current folder (see __main__.py)
if TYPE_CHECKING:
    from typing import Any

    from graphlens.api import Analysis, analyze, load

__all__ = ["Analysis", "__version__", "analyze", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from graphlens import api

        return getattr(api, name)
    raise AttributeError(f"module 'graphlens' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
