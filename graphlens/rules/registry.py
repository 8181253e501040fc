"""What a rule is, and how rules are found: every module of this package, and the entry points of others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from inspect import cleandoc
from pkgutil import walk_packages
from typing import Any, Final, cast

from graphlens.errors import UsageError
from graphlens.facts.core import Facts
from graphlens.facts.graphs import Stage
from graphlens.ir.analysis import Figure, Finding, Fix, Saving, Severity
from graphlens.ir.selectors import is_meant
from graphlens.plugins import RULE_GROUP, PluginError, load_group
from graphlens.rules.needs import GRAPH, Need
from graphlens.rules.plugin_facts import PluginFacts

HEADINGS: Final = ("What it finds", "Why it costs", "Example", "Fix", "When it is fine", "Source")
OWN_PREFIX: Final = "GL"  # third-party rules choose another one

_CODE = re.compile(r"^[A-Z]{2,4}\d{3}$")
_NAME = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*$")
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Check = Callable[[Facts], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A check with a code and a name.  Its page is the docstring of its function."""

    code: str
    name: str
    summary: str
    page: str
    needs: tuple[Need, ...]
    check: Check

    def __call__(self, facts: Facts) -> Iterator[Finding]:
        """Run the check as it is, without needs, severity or ranking (for tests of one rule)."""
        return self.check(self.seen(facts))

    def seen(self, facts: Facts) -> Facts:
        """Return the facts as this rule knows them: one of a plug-in asks for members too (``PluginFacts``)."""
        return facts if is_own(self.code) else cast(Facts, PluginFacts(facts))

    @property
    def sections(self) -> tuple[str, ...]:
        """The headings of the page, in order."""
        return tuple(_HEADING.findall(self.page))

    @property
    def examples(self) -> Mapping[str, str]:
        """The fenced blocks of the page by their mark: ``bad`` and ``good`` are sketches (``graphlens.testing``)."""
        return dict(_BLOCK.findall(self.page))


def is_own(code: str) -> bool:
    """Tell whether a code is of a rule of this package."""
    return code.startswith(OWN_PREFIX) and code[len(OWN_PREFIX) :].isdigit()


def rule(code: str, name: str, *, needs: Sequence[Need] = (GRAPH,)) -> Callable[[Check], Rule]:
    """Turn a generator of findings into a rule.

    Parameters
    ----------
    code
        Two to four capital letters and three digits; ``GL`` is reserved for the rules of this package.
    name
        The failing state as a noun, in kebab case; it reads after "allow".
    needs
        What must be known before the rule is run.

    Raises
    ------
    ValueError
        When code or name has the wrong form, or the docstring lacks a heading or an example.

    Examples
    --------
    ::

        @rule("ACME001", "custom-op", needs=(EXECUTED,))
        def custom_op(facts: Facts) -> Iterator[Finding]:
            '''Ops of Acme's old runtime.  (The page follows, with the headings of ``HEADINGS``.)'''
            yield found(title="…", nodes=("…",), reason="…", fix=Fix("…", "manual"))
    """

    def build(check: Check) -> Rule:
        page = cleandoc(check.__doc__ or "")
        made = Rule(code, name, page.partition("\n")[0].rstrip("."), page, tuple(needs), check)
        _validate(made)
        return made

    return build


def found(
    *,
    title: str,
    nodes: Iterable[str],
    reason: str,
    fix: Fix,
    saving: Saving | None = None,
    evidence: Mapping[str, Any] | None = None,
    stage: Stage = "executed",
    floor: Severity = "info",
    removes: Iterable[str] = (),
    figures: tuple[Figure | None, Figure | None] = (None, None),
    general: bool = False,
) -> Finding:
    """Return a finding for a rule to yield; code, name and severity are filled in by the judge.

    ``removes`` are the ops that the fix takes away.  ``figures`` are those before and after it, where the rule draws
    better ones than the judge, which draws the first ops of ``nodes`` and leaves out what is removed.  ``floor`` is the
    least severity when the saving is unknown.  A structural risk without a number is at most ``medium``: the judge
    lowers a higher floor.  A ``general`` finding says that something is slow, and not what to change.

    The title need not name the layer: the judge puts it in front, where the title does not name it.
    """
    return Finding(
        code="",
        rule="",
        title=title,
        nodes=tuple(nodes),
        evidence=evidence or {},
        reason=reason[:1].upper() + reason[1:],
        saving=saving or Saving(),
        fix=fix,
        stage=stage,
        severity=floor,
        removes=tuple(removes),
        figure=figures[0],
        figure_after=figures[1],
        general=general,
    )


def _validate(made: Rule) -> None:
    if not _CODE.match(made.code):
        raise ValueError(f"rule code {made.code!r} must be two to four capital letters and three digits")
    if not _NAME.match(made.name):
        raise ValueError(f"rule name {made.name!r} of {made.code} must be in kebab case")
    if made.sections != HEADINGS:
        raise ValueError(f"the page of {made.code} must have exactly the headings {', '.join(HEADINGS)}")
    for mark in ("bad", "good"):
        if mark not in made.examples:
            raise ValueError(f"the page of {made.code} must have a `{mark}` example")


# -- discovery ----------------------------------------------------------------------------------------------------


@cache
def all_rules() -> tuple[Rule, ...]:
    """Return every rule, by code: those of this package and those of plug-ins.

    Raises
    ------
    UsageError
        When a plug-in cannot be loaded, or two rules have the same code or name.
    """
    rules = [*_own_rules(), *_plugin_rules()]
    for attribute in ("code", "name"):
        _refuse_duplicates(rules, attribute)
    return tuple(sorted(rules, key=lambda item: item.code))


def _own_rules() -> Iterator[Rule]:
    package = import_module(__package__ or "graphlens.rules")
    for module in sorted(walk_packages(package.__path__, f"{package.__name__}."), key=lambda item: item.name):
        yield from _rules_in(import_module(module.name))


def _plugin_rules() -> Iterator[Rule]:
    try:
        for loaded in load_group(RULE_GROUP):
            for made in [loaded] if isinstance(loaded, Rule) else _rules_in(loaded):
                if is_own(made.code):
                    raise UsageError(
                        f"plug-in rule {made.code} ({made.name}) uses the reserved prefix GL; rename or uninstall it"
                    )
                yield made
    except PluginError as error:
        raise UsageError(str(error)) from error


def _rules_in(namespace: object) -> list[Rule]:
    """Return the rules that a module holds; the same rule imported twice counts once."""
    return list(dict.fromkeys(value for value in vars(namespace).values() if isinstance(value, Rule)))


def _refuse_duplicates(rules: Sequence[Rule], attribute: str) -> None:
    seen: dict[str, Rule] = {}
    for item in rules:
        other = seen.setdefault(getattr(item, attribute), item)
        if other is not item:
            raise UsageError(
                f"two rules have the {attribute} {getattr(item, attribute)!r} ({other.check.__module__} and "
                f"{item.check.__module__}); uninstall one of the plug-ins"
            )


# -- selection ----------------------------------------------------------------------------------------------------


def select(rules: Sequence[Rule], selected: Sequence[str] = (), ignored: Sequence[str] = ()) -> tuple[Rule, ...]:
    """Return the rules that the selectors choose: codes, prefixes of codes (``GL2``) or names.

    An empty ``selected`` means all.  The longer selector wins; on a tie, ignoring does.

    Raises
    ------
    UsageError
        When a selector matches no rule; the message offers the nearest one.
    """
    for selector in (*selected, *ignored):
        _require_known(rules, selector)
    return tuple(item for item in rules if _strength(item, selected or ("",)) > _strength(item, ignored))


def find(selector: str, rules: Sequence[Rule] | None = None) -> Rule:
    """Return the one rule with this code or name, among all rules unless others are given.

    Raises
    ------
    UsageError
        When there is none.
    """
    known = all_rules() if rules is None else rules
    for item in known:
        if selector in (item.code, item.name):
            return item
    raise UsageError(_unknown(known, selector))


def _strength(item: Rule, selectors: Sequence[str]) -> int:
    """Return the length of the longest selector that matches; a name is as exact as a full code; -1 for none."""
    lengths = [
        len(item.code) if selector == item.name else len(selector) for selector in selectors if _is(item, selector)
    ]
    return max(lengths, default=-1)


def _is(item: Rule, selector: str) -> bool:
    return is_meant(selector, item.code, item.name)


def _require_known(rules: Sequence[Rule], selector: str) -> None:
    if not selector or not any(_is(item, selector) for item in rules):
        raise UsageError(_unknown(rules, selector))


def _unknown(rules: Sequence[Rule], selector: str) -> str:
    names = [word for item in rules for word in (item.name, item.code)]
    close = get_close_matches(selector, names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else "see `graphlens rules`"
    return f"no rule is called {selector!r}; {hint}"


# -- documentation ------------------------------------------------------------------------------------------------


def explain(item: Rule) -> str:
    """Return the page of a rule as Markdown, as ``graphlens rules NAME`` prints it."""
    needs = ", ".join(need.name for need in item.needs) or "nothing"
    return f"# {item.code} {item.name}\n\n{item.page}\n\nNeeds: {needs}.\n"


def table_rows(rules: Sequence[Rule]) -> list[tuple[str, str, str]]:
    """Return ``(code, name, summary)`` of each rule, for lists and tables."""
    return [(item.code, item.name, item.summary) for item in rules]
