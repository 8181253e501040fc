"""Settings of a TensorFlow process, as edits: they change how a graph is run, and no graph.

They take effect when a process starts, so they cannot be applied to a program that runs already.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from graphlens.errors import RewriteError
from graphlens.ir.edits import Edit, ScriptSetting, SessionSetting

ONEDNN: Final = "TF_ENABLE_ONEDNN_OPTS"


@dataclass(frozen=True, slots=True)
class Settings:
    """What several edits set together; an edit without anything to set asks for a process of its own alone."""

    environment: Mapping[str, str] = field(default_factory=dict)
    threads: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> tuple[str, ...]:
        """Return what to type: for the shell that starts the program, or at the program's beginning."""
        exports = (f"export {name}={shlex.quote(value)}" for name, value in self.environment.items())
        calls = (f"tf.config.threading.set_{pool}_parallelism_threads({count})" for pool, count in self.threads.items())
        return (*exports, *calls)


def onednn_on() -> SessionSetting:
    """Return the edit that has TensorFlow use oneDNN's kernels on a processor."""
    return SessionSetting({ONEDNN: "1"})


def is_setting(edit: Edit) -> bool:
    """Whether an edit is a setting of the process or of its script, which no graph shows."""
    return isinstance(edit, (SessionSetting, ScriptSetting))


def graph_edits(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Return the edits that change a graph."""
    return tuple(edit for edit in edits if not is_setting(edit))


def settings_of(edits: Iterable[Edit]) -> Settings | None:
    """Return what those of ``edits`` that are settings set, ``None`` when none is.

    Raises
    ------
    RewriteError
        If two of them contradict each other.
    """
    found = [edit for edit in edits if isinstance(edit, SessionSetting)]
    if not found:
        return None
    environment: dict[str, str] = {}
    threads: dict[str, int] = {}
    for edit in found:
        _add(environment, edit.environment)
        _add(threads, edit.threads)
    return Settings(environment, threads)


def lines_of(edits: Iterable[Edit]) -> tuple[str, ...]:
    """Return what to type for those of ``edits`` that are settings."""
    settings = settings_of(edits)
    return () if settings is None else settings.lines()


def _add(known: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if known.setdefault(name, value) != value:
            raise RewriteError(f"{name} cannot be {known[name]} and {value}")
