"""What a training step's phases and layers take of its op time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Final, TypeVar

from graphlens.facts.core import Facts, fact
from graphlens.facts.graphs import judged_graph
from graphlens.facts.time.attribution import Attribution, attribution
from graphlens.facts.training.phases import phases
from graphlens.ir.training import PHASES, Phase, PhaseRow, Training

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
    op_ns = per_step(joined)
    total_ns = sum(op_ns.values())
    if not total_ns:
        return None
    return Training(
        total_ns,
        joined.joined_ns / joined.event_ns if joined.event_ns else None,
        None,
        tuple(_phase_rows(op_ns, phase_of, total_ns)),
    )


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
