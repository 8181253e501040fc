"""Import TensorFlow, or say what is missing."""

from __future__ import annotations

from graphlens.errors import GraphLensError, MissingDependencyError


def import_tensorflow() -> GraphLensError | None:
    """Import TensorFlow; returns what to tell the user when that is impossible."""
    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        return MissingDependencyError(
            f"TensorFlow cannot be imported ({error}): install it with `pip install 'graphlens-tf[cpu]'`, "
            "or use --static"
        )
    return None
