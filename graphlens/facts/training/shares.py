"""What a training step's phases and layers take of its op time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph, operations_of_origins
from graphlens.facts.replicas.replicas import exchanges, replicas
from graphlens.facts.time.attribution import Attribution, attribution
from graphlens.facts.time.ledger import apportion
from graphlens.facts.training.executed import layers_of_ops
from graphlens.facts.training.layers import written_layers
from graphlens.facts.training.phases import phases, written_phases
from graphlens.ir.training import PHASES, LayerRow, LayerScope, Phase, PhaseRow, Training

# Phases that are no layer's: what is in one of them is accounted for without a layer.
NO_LAYERS: Final = frozenset({"input", "loss", "communication", "optimizer", "metrics"})


class Place(NamedTuple):
    """Where in a step an op belongs."""

    phase: Phase | None
    layer: LayerScope | None


class Part(NamedTuple):
    """What an op takes of a step, as far as it belongs there: all of it, or its part of a fusion."""

    op: str
    place: Place
    ns: int


@fact
def training(facts: Facts) -> Training | None:
    """The phases and layers of the judged step; ``None`` where nothing is trained, or no op was timed."""
    joined = facts(attribution)
    if not joined.whole_ns or not any(facts(phases)):
        return None
    parts = facts(parts_of_step)
    total_ns = sum(part.ns for part in parts)
    if not total_ns:
        return None
    return Training(
        total_ns,
        joined.joined_ns / joined.event_ns if joined.event_ns else None,
        _given_ns(parts, any(facts(layers_of_ops))) / total_ns,
        tuple(_phase_rows(parts, total_ns)),
        tuple(_layer_rows(parts, total_ns)),
        _divided_ns(parts) / total_ns,
    )


@fact
def parts_of_step(facts: Facts) -> Sequence[Part]:
    """What each op takes of a step, by where it belongs.

    A fusion of XLA that holds ops of several layers or phases takes time for each as far as the operations that it does
    are that one's.
    """
    names = facts(judged_graph).names
    place_of = dict(zip(names, map(Place, facts(phases), facts(layers_of_ops)), strict=True))
    divided = facts(operations_of_origins)
    phase_of, layer_of = facts(written_phases), facts(written_layers)
    parts: list[Part] = []
    joined = facts(attribution)
    for name, ns in {**per_step(joined), **_collectives_ns(facts, joined)}.items():
        done: Counter[Place] = Counter()
        for written, count in divided.get(name, {}).items():
            done[Place(phase_of.get(written or ""), layer_of.get(written or ""))] += count
        if not done:
            done[place_of.get(name, Place(None, None))] = 1
        taken = apportion(ns, list(done.values()))
        parts += (Part(name, place, part_ns) for place, part_ns in zip(done, taken, strict=True))
    return parts


def _collectives_ns(facts: Facts, joined: Attribution) -> Mapping[str, int]:
    """Return what collectives cost per step, which no event of an op shows: without the waiting for other replicas."""
    together = facts(replicas)
    count = len(together.replicas) if together is not None else 0
    costs = {one.name: round(one.per_step * count * one.least_ns) for one in facts(exchanges)}
    return {name: ns for name, ns in costs.items() if name not in joined.whole_ns}


def per_step(joined: Attribution) -> Mapping[str, int]:
    """Return what each op takes of a step, in the mean over whole cycles: whole nanoseconds that sum to the step's."""
    steps = max(joined.whole_steps, 1)
    whole_ns = round(sum(joined.whole_ns.values()) / steps)
    return dict(zip(joined.whole_ns, apportion(whole_ns, list(joined.whole_ns.values())), strict=True))


def _given_ns(parts: Sequence[Part], has_layers: bool) -> int:
    return sum(part.ns for part in parts if _is_given(part.place, has_layers))


def _is_given(place: Place, has_layers: bool) -> bool:
    """Whether it is known whose an op is: a layer's, or of a phase that no layer has; without layers any phase does."""
    if has_layers:
        return place.layer is not None or place.phase in NO_LAYERS
    return place.phase not in (None, "other")


def _divided_ns(parts: Sequence[Part]) -> int:
    places: dict[str, int] = Counter(part.op for part in parts)
    return sum(part.ns for part in parts if places[part.op] > 1)


def _phase_rows(parts: Sequence[Part], total_ns: int) -> Iterator[PhaseRow]:
    ns: Counter[Phase | None] = Counter()
    ops: dict[Phase | None, set[str]] = defaultdict(set)
    for part in parts:
        ns[part.place.phase] += part.ns
        ops[part.place.phase].add(part.op)
    order: tuple[Phase | None, ...] = (*PHASES, None)
    yield from (PhaseRow(phase, ns[phase], ns[phase] / total_ns, len(ops[phase])) for phase in order if ops[phase])


def _layer_rows(parts: Sequence[Part], total_ns: int) -> Sequence[LayerRow]:
    """Return the rows by falling time."""
    ns: dict[str, Counter[Phase | None]] = defaultdict(Counter)
    ops: dict[str, set[str]] = defaultdict(set)
    known: dict[str, LayerScope] = {}
    for part in parts:
        layer = part.place.layer
        if layer is not None:
            known[layer.path] = layer
            ns[layer.path][part.place.phase] += part.ns
            ops[layer.path].add(part.op)
    return [
        _layer_row(known[path], ns[path], len(ops[path]), total_ns)
        for path in sorted(ns, key=lambda one: -ns[one].total())
    ]


def _layer_row(layer: LayerScope, phases_ns: Counter[Phase | None], ops: int, total_ns: int) -> LayerRow:
    ns = phases_ns.total()
    in_order: dict[str, int] = {phase: phases_ns[phase] for phase in PHASES if phase in phases_ns}
    return LayerRow(layer.path, ns, ns / total_ns, in_order, ops, layer.kind or None, layer.source or None)
