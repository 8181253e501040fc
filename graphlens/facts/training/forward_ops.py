"""The op of which a gradient op is the gradient: by its name where that says so, else by type and tensors."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from graphlens.facts.core import Facts, fact
from graphlens.facts.training.gradients import gradient_name
from graphlens.facts.training.phases import written_phases
from graphlens.facts.training.scopes import step_walk
from graphlens.facts.training.walking import Walk
from graphlens.ir.ops import CONSTANTS, VARIABLE_READS

_GRADIENT_PART = re.compile(r"Grad(?=V\d|$)|Backprop(Input|Filter)?(?=V\d|$)")
_NOT_DIFFERENTIATED = CONSTANTS | VARIABLE_READS


@fact
def written_forward(facts: Facts) -> Mapping[str, str]:
    """Gradient op as written -> its forward op; those of which it is not certain are absent."""
    phase_of = facts(written_phases)
    if "backward" not in phase_of.values():
        return {}
    walk = facts(step_walk)
    in_scope: dict[str, list[int]] = defaultdict(list)
    for at, name in enumerate(walk.graph.names):
        if gradient_name(name) is None and walk.graph.bodies[at].type not in _NOT_DIFFERENTIATED:
            in_scope[name.rpartition("/")[0]].append(at)
    found: dict[str, str] = {}
    for at, name in enumerate(walk.graph.names):
        if phase_of.get(name) == "backward":
            forward = _forward(walk, at, in_scope)
            if forward is not None:
                found[name] = walk.graph.names[forward]
    return found


def _forward(walk: Walk, gradient: int, in_scope: Mapping[str, Sequence[int]]) -> int | None:
    told = gradient_name(walk.graph.names[gradient])
    if told is None:
        return None
    if told.scope and told.forward in walk.graph:
        return walk.graph.position(told.forward)
    candidates = in_scope.get(told.forward.removesuffix("/"), ())
    kind = walk.graph.bodies[gradient].type
    wanted = _GRADIENT_PART.sub("", kind)
    if wanted == kind:
        return candidates[0] if told.scope and len(candidates) == 1 else None
    alike = [at for at in candidates if walk.graph.bodies[at].type == wanted]
    if len(alike) > 1:
        read = set(walk.before[gradient])
        by_output = [at for at in alike if at in read]
        alike = by_output or [at for at in alike if not read.isdisjoint(walk.before[at])]
    return alike[0] if len(alike) == 1 else None
