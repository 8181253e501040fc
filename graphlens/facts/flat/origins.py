"""Say for every executed op which traced ops it stands for, through inlining, lowering and Grappler's rewrites.

A fused kernel carries the name of the *last* op it absorbed.  Its origin is found by walking back in the traced graph
from that op until an op is met that runs on its own.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType

from graphlens.facts.flat.constants import constant_ops
from graphlens.facts.flat.executed import HLO_CALL, HLO_ORIGINS, HLO_WORK
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
_IN_BODY = re.compile(r".+/(body|cond|then|else|branch_\d+)/")  # as far as the innermost body, the longest match
_ORIGIN_LIMIT = 64  # ops; a walk that meets more has left the fused chain, so only the named op is given


def resolve(
    executed: Table, traced: Table, renamed: Mapping[str, str | None] = MappingProxyType({})
) -> Mapping[str, tuple[str, ...]]:
    """Map every executed op to its traced ops in topological order, the op that gave the name last.

    An executed op that no traced op explains maps to the empty tuple.  ``renamed`` are the ops that do not run under
    their own names (``facts.renames``).
    """
    written = Written(traced, renamed)
    compiled = _compiled(executed, written)
    heads = {name: written.first(candidates(name)) for name in executed if name not in compiled}
    running = {head for head in heads.values() if head} | {name for found in compiled.values() for name in found}
    constant = constant_ops(traced)
    plain = {name: _with_absorbed(head, traced, running, constant) for name, head in heads.items()}
    return {**compiled, **plain}


def operations(
    executed: Table, traced: Table, renamed: Mapping[str, str | None] = MappingProxyType({})
) -> Mapping[str, Mapping[str | None, int]]:
    """Map every instruction of XLA to the operations that it does for each traced op, and for none that is known."""
    written = Written(traced, renamed)
    found: dict[str, Mapping[str | None, int]] = {}
    for name, op in executed.items():
        done: dict[str | None, int] = defaultdict(int)
        for origin, count in op.attrs.get(HLO_WORK, {}).items():
            done[written.of_instruction(op, origin) if origin else None] += count
        if done:
            found[name] = done
    return found


class Written:
    """Looks up the ops of the graph as written by the names that they run under."""

    def __init__(self, traced: Table, renamed: Mapping[str, str | None] = MappingProxyType({})) -> None:
        self._traced, self._renamed = traced, renamed
        self._names = {canonical_name(name): name for name in traced}

    def first(self, found: Iterable[str]) -> str | None:
        """Return the op of the first of the names that is one."""
        names, renamed = self._names, self._renamed
        return next((names[name] for ran in found for name in as_written(ran, renamed) if name in names), None)

    def of_instruction(self, instruction: Op, origin: str) -> str | None:
        """Return the op that an instruction of XLA calls ``origin``: by its name in the function that is compiled.

        In the body of a loop or a branch, that is its name in there.
        """
        call = str(instruction.attrs.get(HLO_CALL, ""))
        place = f"{canonical_name(call)}/" if call else ""
        found = self.first((f"{place}{origin}",))
        if found is not None:
            return found
        within = [name for name in self._in_bodies.get(origin, ()) if name.startswith(place)]
        return within[0] if len(within) == 1 else None

    @cached_property
    def _in_bodies(self) -> Mapping[str, Sequence[str]]:
        """Name of an op in the body that it stands in -> the ops of that name."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self._traced:
            place = _IN_BODY.match(name)
            if place is not None:
                found[name[place.end() :]].append(name)
        return found


def _compiled(executed: Table, written: Written) -> Mapping[str, tuple[str, ...]]:
    """Map XLA's instructions to traced ops: they carry the ops' names within the function that their call runs.

    Those of a program that came as a whole have the names of the framework that wrote it: all are of the op that holds
    it.
    """
    programs = {name: written.first(candidates(name)) for name in executed.of_types(PROGRAMS)}
    found: dict[str, tuple[str, ...]] = {}
    for name, op in executed.items():
        holder = programs.get(str(op.attrs.get(HLO_CALL, "")))
        if holder is not None:
            found[name] = (holder,)
        elif HLO_ORIGINS in op.attrs:
            known = (written.of_instruction(op, origin) for origin in op.attrs[HLO_ORIGINS])
            found[name] = tuple(dict.fromkeys(filter(None, known)))
    return found


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
