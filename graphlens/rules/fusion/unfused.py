"""Findings about candidates for fusion that ran as several ops: grouped by cause, with the reason in words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from graphlens.facts.core import Facts
from graphlens.facts.graphs import judged_stage
from graphlens.facts.patterns.affine import affine_chains
from graphlens.facts.patterns.dataflow import dataflow
from graphlens.facts.patterns.fusion import Unfused, unfused
from graphlens.facts.time.attribution import timings
from graphlens.facts.time.savings import saving_without
from graphlens.facts.training.executed import layer_of_op
from graphlens.ir.analysis import Finding, Fix, Saving, Severity
from graphlens.ir.edits import Edit, FlattenProduct, JitCompile, Ops, OrderNames, SinkReshape, SumByAddN
from graphlens.ir.fusion import Obstacle
from graphlens.ir.settings import lines_of, onednn_on
from graphlens.rules.fusion import blockers
from graphlens.rules.phrases import known_sum, with_stage
from graphlens.rules.registry import found
from graphlens.units import counted

LAYERS_LISTED: Final = 20

_COMPILE_IN_WORDS: Final = (
    "Compile the layer with XLA, which computes it in one kernel; measure it, because each compiled part costs a launch"
)


class Cure(NamedTuple):
    """The edit that removes an obstacle, and what a model's author writes for it."""

    edit: Callable[[Ops], Edit]
    snippet: str


_FLAT: Final = "rows = tf.reshape(x, [-1, size])\ny = tf.reshape(dense(rows), [*leading_sizes, units])"
_EDITS: Final[Mapping[str, Cure]] = {
    "name": Cure(OrderNames, 'keras.layers.Activation("hard_silu", name="z_hard_silu")'),
    "residual": Cure(SumByAddN, "y = tf.add_n([y, shortcut])"),
    "matmul Reshape": Cure(SinkReshape, _FLAT),
    "rank": Cure(FlattenProduct, _FLAT),
}


@dataclass(frozen=True, slots=True)
class Wording:
    """How a rule speaks of what it finds.

    ``rewrite`` is what to write instead, and ``snippet`` how, for layers that TensorFlow has as one op; ``compiles``
    tells whether XLA is worth suggesting where Grappler has no kernel.
    """

    noun: str
    extras: str
    rewrite: str | None = None
    snippet: str | None = None
    compiles: bool = False


def findings_about(facts: Facts, kind: str, wording: Wording, name: str | None = None) -> Iterator[Finding]:
    """Yield one finding for each cause of what ran unfused, for one kind of candidates (and one name, if given)."""
    folded = {chain.base for chain in facts(affine_chains)}
    groups: dict[tuple[object, ...], list[Unfused]] = defaultdict(list)
    for item in facts(unfused):
        if item.candidate.kind == kind and name in (None, item.candidate.name) and not folded & set(item.ops):
            groups[blockers.signature(item.answer)].append(item)
    for items in groups.values():
        yield _finding(facts, sorted(items, key=lambda item: -(_ns(facts, item) or 0)), wording)


def _finding(facts: Facts, items: Sequence[Unfused], wording: Wording) -> Finding:
    absorbed = list(dict.fromkeys(op for item in items for op in item.absorbed))
    helps = wording.rewrite is not None or blockers.keeps_the_model(items[0])
    return found(
        title=_title(facts, items, wording),
        nodes=dict.fromkeys(op for item in items for op in item.ops),
        evidence={
            "layers": [_layer(facts, item) for item in items[:LAYERS_LISTED]],
            "count": len(items),
            "ops_that_would_be_absorbed": len(absorbed),
            "their_ns": known_sum([_ns(facts, item) for item in items]),
            "probed": items[0].answer is not None,
        },
        reason=with_stage(facts, _reason(items)),
        # Where no change of this model is known that fuses them, a number would promise what nobody can do.
        saving=replace(saving_without(facts, absorbed), origin="bound")
        if helps and _is_timed(facts, absorbed)
        else Saving(),
        removes=absorbed if helps else (),
        fix=_fix(facts, items, wording),
        floor=_floor(items[0]),
    )


def _title(facts: Facts, items: Sequence[Unfused], wording: Wording) -> str:
    ops = len({op for item in items for op in item.ops})
    names = {item.candidate.name for item in items} - {wording.noun}
    shown = f" ({names.pop()})" if len(names) == 1 else ""
    if facts(judged_stage) == "traced":
        return f"{counted(len(items), wording.noun)}{shown} would not be fused with {wording.extras}"
    verb = "runs" if len(items) == 1 else "run"
    return f"{counted(len(items), wording.noun)}{shown} {verb} as {counted(ops, 'op')}"


def _reason(items: Sequence[Unfused]) -> str:
    causes = Counter(blockers.cause(item) for item in items)
    (first, _), rest = causes.most_common(1)[0], len(causes) - 1
    return first if not rest else f"{first} (and likewise elsewhere)"


def _layer(facts: Facts, item: Unfused) -> Mapping[str, Any]:
    return {
        "layer": layer_of_op(facts, item.candidate.base) or item.candidate.base,
        "what": item.candidate.name,
        "ops": list(item.ops),
        "ns": _ns(facts, item),
        "blocked_by": [[item.kind, item.op, item.found] for some in _changes(item)[:1] for item in some],
    }


def _changes(item: Unfused) -> Sequence[Sequence[Obstacle]]:
    return item.answer.changes if item.answer is not None else ()


def _ns(facts: Facts, item: Unfused) -> int | None:
    times = facts(timings)
    return known_sum([timing.self_ns if (timing := times.get(op)) else None for op in item.absorbed])


def _is_timed(facts: Facts, ops: Sequence[str]) -> bool:
    times = facts(timings)
    return any(times.get(op) for op in ops)


def _fix(facts: Facts, items: Sequence[Unfused], wording: Wording) -> Fix:
    if wording.rewrite is not None:
        return Fix(wording.rewrite, "manual", (), wording.snippet)
    cured = _cured_by_edit(items)
    if cured is not None:
        kind, edit = cured
        return Fix(str(blockers.advice(items[0])), "tolerance", (edit,), _EDITS[kind].snippet)
    said = list(dict.fromkeys(text for item in items if (text := blockers.advice(item))))
    if _cured_by_onednn(items[0]):
        advice = dict.fromkeys((blockers.ONEDNN_ADVICE, *said[:2]))
        return Fix("; or: ".join(advice), "tolerance", (onednn_on(),), "\n".join(lines_of([onednn_on()])))
    if said:
        return Fix("; ".join(said[:3]), "manual")
    if wording.compiles:
        edits = tuple(_compiled(facts, item) for item in items)
        return Fix(_COMPILE_IN_WORDS, "tolerance", edits, "@tf.function(jit_compile=True)")
    return Fix("No setting or change is known with which TensorFlow fuses this", "manual")


def _compiled(facts: Facts, item: Unfused) -> JitCompile:
    """One layer is one cluster; what passes a tensor on between its ops belongs to it."""
    names = [name for name, _ in item.candidate.members]
    flow = facts(dataflow)
    written = flow.with_passes(names) if flow is not None else tuple(names)
    return JitCompile(Ops(item.ops, traced=written))


def _cured_by_edit(items: Sequence[Unfused]) -> tuple[str, Edit] | None:
    """Return the edit that removes what keeps each item from being fused, where that is one thing alone."""
    first = [_changes(item)[0] if _changes(item) else () for item in items]
    kinds = {tuple(_edited_kind(item, obstacle) for obstacle in some) for item, some in zip(items, first, strict=True)}
    kind = " and ".join(kinds.pop()) if len(kinds) == 1 else ""
    if kind not in _EDITS:
        return None
    return kind, _EDITS[kind].edit(Ops(traced=tuple(dict.fromkeys(one.op for some in first for one in some))))


def _edited_kind(item: Unfused, obstacle: Obstacle) -> str:
    """Of what stands between two parts, an edit can move a reshape behind a matrix product."""
    return f"{item.candidate.kind} {obstacle.found}" if obstacle.kind == "bridge" else obstacle.kind


def _cured_by_onednn(item: Unfused) -> bool:
    """Whether oneDNN alone makes Grappler fuse it: of the changes that would, the one that leaves the model alone."""
    return ["onednn"] in [[obstacle.kind for obstacle in some] for some in _changes(item)]


def _floor(item: Unfused) -> Severity:
    """What a kernel could absorb and nobody asked why deserves a look; what no kernel does is for information."""
    return "low" if item.answer is None and item.candidate.kind in ("conv", "matmul") else "info"
