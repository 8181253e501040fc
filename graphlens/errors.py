"""Typed errors.  Each message is one line that names the culprit and says what to do next."""

from __future__ import annotations


class GraphLensError(Exception):
    """Base of all errors that are shown to the user as one line, without a traceback."""

    exit_code = 2


class UsageError(GraphLensError):
    """A flag or an argument does not fit; exit code 2."""


class TargetError(GraphLensError):
    """The target cannot be read, or is not what GraphLens reads; exit code 2."""


class MissingDependencyError(GraphLensError):
    """The work needs a package that is not installed, TensorFlow for instance; exit code 2."""


class ExecutionError(GraphLensError):
    """The model could not be executed; the static report is still written; exit code 3."""

    exit_code = 3


class RewriteError(GraphLensError):
    """An edit does not fit the graph, or would change what it computes; the message says why."""
