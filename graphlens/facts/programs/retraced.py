"""Traces of one function that are one program: a function that is traced again has another number in the profile."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from graphlens.ir.evidence import Evidence
from graphlens.ir.run import Run
from graphlens.ir.script import Script, ScriptFunction

# Of a trace that was called so often after it was made, the steps are looked at by themselves: what is fed batches of
# two sizes by turns does two kinds of steps.
OWN_STEPS: Final = 3


def joined(evidence: Evidence) -> Evidence:
    """Return the evidence with the traces of one function as one program, where they do the same or are never steady.

    Two traces do the same when they use the same variables and take tensors of the same types and shapes: then they
    differ in Python values alone.  The program is called as the trace of which most is known.
    """
    if evidence.script is None or evidence.profile is None:
        return evidence
    names = dict(_names(evidence.script, evidence.profile.runs, {one.name for one in evidence.programs}))
    if not names:
        return evidence
    runs = tuple(run._replace(program=names.get(run.program, run.program)) for run in evidence.profile.runs)
    programs = tuple(program for program in evidence.programs if program.name not in names)
    return replace(evidence, profile=replace(evidence.profile, runs=runs), programs=programs)


def _names(script: Script, runs: Sequence[Run], with_graphs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what each trace is called that is part of another one's program, and that one."""
    known = frozenset(with_graphs)
    calls = Counter(run.program for run in runs)
    steady = Counter(run.program for run in runs if not run.traced)
    for function in script.functions:
        for group in _groups(function, calls, steady):
            first = max(group, key=lambda name: (name in known, steady[name], calls[name]))
            yield from ((name, first) for name in group if name != first)


def _groups(function: ScriptFunction, calls: Mapping[str, int], steady: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield the traces of a function that ran, those of one program together."""
    alike: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name, state, shape in zip(function.concretes, function.states, function.shapes, strict=False):
        if calls[name]:
            alike[state, shape].append(name)
    by_state: dict[int, list[list[str]]] = defaultdict(list)
    for (state, _), names in alike.items():
        by_state[state].append(names)
    for groups in by_state.values():
        groups.sort(key=lambda names: (-_total(steady, names), -_total(calls, names)))
        apart = [names for names in groups[1:] if _total(steady, names) >= OWN_STEPS]
        yield groups[0] + [name for names in groups[1:] if names not in apart for name in names]
        yield from apart


def _total(counts: Mapping[str, int], names: Iterable[str]) -> int:
    return sum(counts[name] for name in names)
