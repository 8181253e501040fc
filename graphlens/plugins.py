"""Find third-party extensions by entry point, import them by name, and name the culprit when one fails."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

RULE_GROUP = "graphlens.rules"
REWRITE_GROUP = "graphlens.rewrites"


class PluginError(Exception):
    """A plug-in could not be loaded; the message names the distribution and what to do."""


def load_group(group: str) -> Iterator[ModuleType | Any]:
    """Import every entry point of ``group`` in the order of their names.

    Raises
    ------
    PluginError
        If importing one of them fails for whatever reason.
    """
    for entry in sorted(entry_points(group=group), key=lambda item: item.name):
        try:
            yield entry.load()
        except (Exception, SystemExit) as error:  # a module that ends the program when it is imported is no better
            owner = entry.dist.name if entry.dist else entry.value
            raise PluginError(
                f"plug-in '{entry.name}' of '{owner}' failed to load ({error}); update or uninstall it"
            ) from error
