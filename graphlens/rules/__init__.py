"""Checks on facts.  A rule is one decorated generator in a module of this package, or of a plug-in.

To add a rule, write the function with its page in a module of its family, and its cases in ``tests/rules/CODE.md``;
``docs/plugins.md`` shows a rule of a plug-in, with a fact of its own.
"""

from graphlens.rules.needs import EXECUTED, GRAPH, INFERENCE, PROFILE, TIMING, TRACED, Need
from graphlens.rules.registry import HEADINGS, Rule, all_rules, explain, find, found, rule, select, table_rows
from graphlens.rules.runner import judge

__all__ = [
    "EXECUTED",
    "GRAPH",
    "HEADINGS",
    "INFERENCE",
    "PROFILE",
    "TIMING",
    "TRACED",
    "Need",
    "Rule",
    "all_rules",
    "explain",
    "find",
    "found",
    "judge",
    "rule",
    "select",
    "table_rows",
]
