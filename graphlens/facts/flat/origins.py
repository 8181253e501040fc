"""Say for every executed op which traced ops it stands for, through inlining, lowering and Grappler's rewrites.

A fused kernel carries the name of the *last* op it absorbed.  Its origin is found by walking back in the traced graph
from that op until an op is met that runs on its own.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from graphlens.facts.flat.constants import constant_ops
from graphlens.facts.flat.executed import HLO_CALL, HLO_ORIGINS
from graphlens.facts.flat.renames import as_written
from graphlens.facts.flat.scopes import canonical_name
from graphlens.ir.graph import data_inputs
from graphlens.ir.nodes import Op
from graphlens.ir.ops import CONTROL_FLOW, PROGRAMS
from graphlens.ir.table import Table

# `scope/ArithmeticOptimizer/Stage_name`: a node that Grappler's arithmetic stage made out of `scope/name`.
_REWRITTEN = re.compile(
    r"^(?P<scope>.*/)?(?:ArithmeticOptimizer|ConstantFolding|DependencyOptimizer)/(?P<rest>[^/].*)$"
)
_LAYOUT = re.compile(r"-\d+-(?:Transpose|VecPermute|DimMap)\w*-LayoutOptimizer$")
_CROSSING = re.compile(r"/_\d+$")
_COMPOSED = re.compile(r"/unary_ops_composition$")  # several elementwise ops as one, named after the last of them
_ORIGIN_LIMIT = 64  # ops; a walk that meets more has left the fused chain, so only the named op is given


def resolve(
    executed: Table, traced: Table, renamed: Mapping[str, str | None] = MappingProxyType({})
) -> Mapping[str, tuple[str, ...]]:
    """Map every executed op to its traced ops in topological order, the op that gave the name last.

    An executed op that no traced op explains maps to the empty tuple.  ``renamed`` are the ops that do not run under
    their own names (``facts.renames``).
    """
    names = {canonical_name(name): name for name in traced}
    compiled = _compiled(executed, names, renamed)
    heads = {name: _head(name, names, renamed) for name in executed if name not in compiled}
    running = {head for head in heads.values() if head} | {name for found in compiled.values() for name in found}
    constant = constant_ops(traced)
    plain = {name: _with_absorbed(head, traced, running, constant) for name, head in heads.items()}
    return {**compiled, **plain}


def _compiled(
    executed: Table, names: Mapping[str, str], renamed: Mapping[str, str | None]
) -> Mapping[str, tuple[str, ...]]:
    """Map XLA's instructions to traced ops: they carry the ops' names within the function that their call runs.

    Those of a program that came as a whole have the names of the framework that wrote it: all are of the op that holds
    it.
    """
    programs = {name: _head(name, names, renamed) for name in executed.of_types(PROGRAMS)}
    found: dict[str, tuple[str, ...]] = {}
    for name, op in executed.items():
        holder = programs.get(str(op.attrs.get(HLO_CALL, "")))
        if holder is not None:
            found[name] = (holder,)
        elif HLO_ORIGINS in op.attrs:
            written = (f"{_prefix(op)}{origin}" for origin in op.attrs[HLO_ORIGINS])
            found[name] = tuple(known for one in written if (known := _first_known((one,), names, renamed)))
    return found


def _prefix(instruction: Op) -> str:
    call = str(instruction.attrs.get(HLO_CALL, ""))
    return f"{canonical_name(call)}/" if call else ""


def _first_known(found: Iterable[str], names: Mapping[str, str], renamed: Mapping[str, str | None]) -> str | None:
    return next((names[name] for ran in found for name in as_written(ran, renamed) if name in names), None)


def _head(name: str, names: Mapping[str, str], renamed: Mapping[str, str | None]) -> str | None:
    """Return the traced op that gave the executed op its name, or ``None``."""
    return _first_known(candidates(name), names, renamed)


def candidates(name: str) -> Iterator[str]:
    """Yield the names that an executed op may have had before it was lowered, split or rewritten."""
    canonical = canonical_name(name)
    yield canonical
    yield _LAYOUT.sub("", canonical)
    yield _CROSSING.sub("", canonical)
    yield _COMPOSED.sub("", canonical)
    match = _REWRITTEN.match(canonical)
    if match:
        yield from _rewritten(match["scope"] or "", match["rest"])


def _rewritten(scope: str, rest: str) -> Iterator[str]:
    """Undo `Stage_name`: try the longest name first, since stage names hold underscores as well."""
    words = rest.split("_")
    for start in range(len(words)):
        for end in range(len(words), start, -1):
            yield scope + "_".join(words[start:end])
            yield scope + "_".join(words[start:end]).partition("-")[0]


def _with_absorbed(head: str | None, traced: Table, running: set[str], constant: frozenset[str]) -> tuple[str, ...]:
    if head is None:
        return ()
    absorbed = _walk_back(head, traced, running, constant)
    if len(absorbed) > _ORIGIN_LIMIT:
        return (head,)
    return (*reversed(absorbed), head)


def _walk_back(head: str, traced: Table, running: set[str], constant: frozenset[str]) -> list[str]:
    absorbed: list[str] = []
    pending = deque(data_inputs(traced, head))
    seen = {head}
    while pending and len(absorbed) <= _ORIGIN_LIMIT:
        name = pending.popleft()
        if name in seen or name in running or name in constant or _is_boundary(traced, name):
            continue
        seen.add(name)
        absorbed.append(name)
        pending.extend(data_inputs(traced, name))
    return absorbed


def _is_boundary(traced: Table, name: str) -> bool:
    op = traced.op(name)
    return not traced.in_degree(name) or op.type in CONTROL_FLOW or bool(op.calls)
