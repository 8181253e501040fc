"""Which functions of the step XLA compiled, and how much of the step their instructions took."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from graphlens.facts.core import Facts, fact
from graphlens.facts.programs.judged_program import judged_profile
from graphlens.facts.time.attribution import Attribution, attribution
from graphlens.units import format_share

# What XLA makes of a function's name: `a_inference__conv_xla_80__XlaMustCompile_true_….1`.
_MODULE = re.compile(r"^(?:a?_inference_)?(?P<function>.+?)(?:_\d+)?__.*$")
# Keras 3 compiles a convolution on a CPU whose input has more channels than its filter, which is one of several groups
# (`keras/src/backend/tensorflow/nn.py`).
_GROUPED_CONVOLUTION: Final = "_conv_xla"


@dataclass(frozen=True, slots=True)
class Compiled:
    """One compiled function: its own name, the ops that call it (none where it is the step), its share of the step."""

    function: str
    calls: tuple[str, ...]
    share: float


@fact
def compiled_functions(facts: Facts) -> tuple[Compiled, ...]:
    """Return the functions that XLA compiled and that ran on the host within the step, by falling share."""
    profile, found = facts(judged_profile), facts(attribution)
    if profile is None or not found.instructions:
        return ()
    modules: dict[str, set[str]] = defaultdict(set)
    calls: dict[str, set[str]] = defaultdict(set)
    for module in found.instructions:
        modules[function_of(module)].add(module)
    for kernel in profile.kernels:
        calls[function_of(kernel.hlo_module)].update({kernel.call} - {""})
    compiled = [
        Compiled(function, tuple(sorted(calls[function])), _share(found, members))
        for function, members in modules.items()
    ]
    return tuple(sorted(compiled, key=lambda one: (-one.share, one.function)))


def function_of(module: str) -> str:
    """Return the name of the function that XLA made a module of, without the number of its trace.

    >>> function_of("a_inference__conv_xla_80__.1"), function_of("cluster_0__XlaCompiledKernel_true__.12")
    ('_conv_xla', 'cluster')
    """
    match = _MODULE.match(module)
    return match["function"] if match else module


def _share(found: Attribution, modules: set[str]) -> float:
    ops = {op for module in modules for op in found.instructions[module]}
    total = sum(found.active_ns.values())
    return sum(found.active_ns.get(op, 0.0) for op in ops) / total if total else 0.0


def notes(facts: Facts) -> tuple[str, ...]:
    """Say which functions of the step are compiled, and why where its author did not ask for it."""
    compiled = facts(compiled_functions)
    if not compiled:
        return ()
    listed = ", ".join(f"{one.function} ({_calls(one)}{format_share(one.share)} of the step)" for one in compiled)
    told = [f"compiled by XLA, and timed by their instructions: {listed}"]
    if any(one.function == _GROUPED_CONVOLUTION for one in compiled):
        told.append(f"{_GROUPED_CONVOLUTION} is Keras' own: it compiles grouped convolutions on a CPU by itself")
    return tuple(told)


def _calls(one: Compiled) -> str:
    return f"{len(one.calls)} calls, " if len(one.calls) > 1 else ""
