"""What a training step's phases and layers take of its op time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Final, TypeVar

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph
from graphlens.facts.time.attribution import Attribution, attribution
from graphlens.facts.training.executed import layers_of_ops
from graphlens.facts.training.phases import phases
from graphlens.ir.training import PHASES, LayerRow, LayerScope, Phase, PhaseRow, Training

_Key = TypeVar("_Key", bound=Hashable)

# Phases that are no layer's: what is in one of them is accounted for without a layer.
NO_LAYERS: Final = frozenset({"input", "loss", "communication", "optimizer", "metrics"})


@fact
def training(facts: Facts) -> Training | None:
    """The phases and layers of the judged step; ``None`` where nothing is trained, or no op was timed."""
    joined = facts(attribution)
    phase_of = dict(zip(facts(judged_graph).names, facts(phases), strict=True))
    if not joined.whole_ns or not any(phase_of.values()):
        return None
    layer_of = dict(zip(facts(judged_graph).names, facts(layers_of_ops), strict=True))
    op_ns = per_step(joined)
    total_ns = sum(op_ns.values())
    if not total_ns:
        return None
    return Training(
        total_ns,
        joined.joined_ns / joined.event_ns if joined.event_ns else None,
        _given_ns(op_ns, phase_of, layer_of) / total_ns,
        tuple(_phase_rows(op_ns, phase_of, total_ns)),
        tuple(_layer_rows(op_ns, phase_of, layer_of, total_ns)),
    )


def _given_ns(
    op_ns: Mapping[str, int], phase_of: Mapping[str, Phase | None], layer_of: Mapping[str, LayerScope | None]
) -> int:
    return sum(ns for name, ns in op_ns.items() if layer_of.get(name) or phase_of.get(name) in NO_LAYERS)


def per_step(joined: Attribution) -> Mapping[str, int]:
    """Return what each op takes of a step, in the mean over whole cycles: whole nanoseconds that sum to the step's."""
    steps = max(joined.whole_steps, 1)
    return apportioned(joined.whole_ns, round(sum(joined.whole_ns.values()) / steps))


def apportioned(parts: Mapping[_Key, int], whole: int) -> Mapping[_Key, int]:
    """Divide ``whole`` as ``parts`` are to each other, into whole numbers that sum to it (by largest remainders).

    >>> apportioned({"a": 1, "b": 1, "c": 1}, 8)
    {'a': 3, 'b': 3, 'c': 2}
    """
    total = sum(parts.values())
    if not total:
        return dict.fromkeys(parts, 0)
    divided = {key: divmod(part * whole, total) for key, part in parts.items()}
    rest = whole - sum(quotient for quotient, _ in divided.values())
    up = set(sorted(divided, key=lambda key: -divided[key][1])[:rest])
    return {key: quotient + (key in up) for key, (quotient, _) in divided.items()}


def _phase_rows(op_ns: Mapping[str, int], phase_of: Mapping[str, Phase | None], total_ns: int) -> Sequence[PhaseRow]:
    ns: Counter[Phase | None] = Counter()
    ops: dict[Phase | None, int] = defaultdict(int)
    for name, taken_ns in op_ns.items():
        phase = phase_of.get(name)
        ns[phase] += taken_ns
        ops[phase] += 1
    order: tuple[Phase | None, ...] = (*PHASES, None)
    return [PhaseRow(phase, ns[phase], ns[phase] / total_ns, ops[phase]) for phase in order if ops[phase]]


def _layer_rows(
    op_ns: Mapping[str, int],
    phase_of: Mapping[str, Phase | None],
    layer_of: Mapping[str, LayerScope | None],
    total_ns: int,
) -> Sequence[LayerRow]:
    """Return the rows by falling time."""
    ns: dict[str, Counter[str]] = defaultdict(Counter)
    ops: Counter[str] = Counter()
    known: dict[str, LayerScope] = {}
    for name, taken_ns in op_ns.items():
        layer = layer_of.get(name)
        if layer is not None:
            known[layer.path] = layer
            ns[layer.path][phase_of.get(name) or "other"] += taken_ns
            ops[layer.path] += 1
    return [
        _layer_row(known[path], ns[path], ops[path], total_ns) for path in sorted(ns, key=lambda one: -ns[one].total())
    ]


def _layer_row(layer: LayerScope, phases_ns: Counter[str], ops: int, total_ns: int) -> LayerRow:
    ns = phases_ns.total()
    in_order: dict[str, int] = {phase: phases_ns[phase] for phase in PHASES if phase in phases_ns}
    return LayerRow(layer.path, ns, ns / total_ns, in_order, ops, layer.kind or None, layer.source or None)
