"""A training step by phase and layer: rows of a table that sums to its op time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphlens.ir.analysis import Document
from graphlens.ir.op_rows import OpRows
from graphlens.ir.training import PHASES, LayerRow, Training
from graphlens.report.phases import NOT_KNOWN, Key, Part, percent, tone_of_phase
from graphlens.report.scopes import Scope, scope_of
from graphlens.report.view_ops import ROW_LIMIT
from graphlens.report.words import file_and_line
from graphlens.units import UNKNOWN, counted, format_ns, format_share

# What no layer of the model has: loss, metrics, input, and what else is between layers.
NO_LAYER = "outside the layers"
NOTHING = "–"
LAYERS_SHOWN = 300


@dataclass(frozen=True, slots=True)
class PhaseCell:
    """What one phase has of a row; ``ns`` is what it sorts by."""

    text: str
    ns: int


@dataclass(frozen=True, slots=True)
class LayerView:
    """One row: a layer, what is outside the layers, or what is not known; ``cells`` follow the phases.

    ``anchor`` is the row of its slowest op in the op table, empty where that has none; ``layer`` is its whole path,
    empty for what is no layer.
    """

    name: str
    layer: str
    detail: str
    ns: int
    time: str
    share: str
    cells: tuple[PhaseCell, ...]
    parts: tuple[Part, ...]
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class PhaseView:
    """One phase, over all layers."""

    key: Key
    time: str
    share: str


@dataclass(frozen=True, slots=True)
class TrainingView:
    """Phases across, layers down: ``rows`` are the layers, ``rest`` what no layer has, and they sum to ``total``.

    ``phases`` are all of them; ``columns`` those that a layer has a part in.  The others are rows of ``rest``.
    """

    total: str
    phases: tuple[PhaseView, ...]
    columns: tuple[PhaseView, ...]
    strip: tuple[Part, ...]
    rows: tuple[LayerView, ...]
    rest: tuple[LayerView, ...]
    note: str
    known: str
    scope: Scope


def training_view(document: Document) -> TrainingView | None:
    """Return phases and layers; ``None`` where the document knows none."""
    training = document.training
    if training is None or training.op_ns <= 0 or not training.phases:
        return None
    phases = _phases_ns(training)
    columns = [phase for phase in phases if any(_of(row, phase) > 0 for row in training.layers)]
    ranked = sorted(training.layers, key=lambda row: -row.ns)
    rest = list(_rest(training, phases, columns))
    table = _Table(training.op_ns, columns, max([row.ns for row in ranked] + [sum(ns.values()) for _, ns in rest]))
    anchors, scope = _anchors(document), scope_of([row.layer for row in ranked])
    return TrainingView(
        total=format_ns(training.op_ns),
        phases=tuple(_phase(phase, ns, training.op_ns) for phase, ns in phases.items()),
        columns=tuple(_phase(phase, phases[phase], training.op_ns) for phase in columns),
        strip=tuple(_parts(phases, training.op_ns, training.op_ns)),
        rows=tuple(_layer(row, table, scope.short(row.layer), anchors) for row in ranked[:LAYERS_SHOWN]),
        rest=tuple(table.row(name, parts_ns) for name, parts_ns in rest),
        note=_note(ranked[LAYERS_SHOWN:]),
        known=_known(training),
        scope=scope,
    )


def _phases_ns(training: Training) -> dict[str | None, int]:
    """Return what each phase took, in the order of a step, what is not known last."""
    found: dict[str | None, int] = {row.phase: row.ns for row in training.phases if row.ns > 0}
    return {phase: found[phase] for phase in (*PHASES, None) if phase in found}


def _rest(
    training: Training, phases: Mapping[str | None, int], columns: Sequence[str | None]
) -> Iterator[tuple[str, dict[str | None, int]]]:
    """Yield what no layer has: of the phases of layers together, and of each other phase."""
    rest_ns = {phase: ns - sum(_of(row, phase) for row in training.layers) for phase, ns in phases.items()}
    within = {phase: rest_ns[phase] for phase in columns if rest_ns[phase] > 0}
    if within:
        yield NO_LAYER, within
    for phase in phases:
        if phase not in columns:
            yield phase or NOT_KNOWN, {phase: rest_ns[phase]}


def _of(row: LayerRow, phase: str | None) -> int:
    """Return what a layer has of a phase; of none, what its phases leave of its time."""
    return row.ns - sum(row.phases_ns.values()) if phase is None else row.phases_ns.get(phase, 0)


def _anchors(document: Document) -> dict[str, str]:
    """Map each layer to the row of its slowest op in the op table."""
    ops = OpRows.of(document.ops)
    if "layer" not in ops.columns:
        return {}
    layers = list(ops.column("layer")[:ROW_LIMIT])
    return {layer: f"op-{number}" for number, layer in reversed(list(enumerate(layers, 1))) if layer}


# -- rows ----------------------------------------------------------------------------------------------------


def _phase(phase: str | None, ns: int, whole_ns: int) -> PhaseView:
    return PhaseView(Key(tone_of_phase(phase), phase or NOT_KNOWN), format_ns(ns), format_share(ns / whole_ns))


@dataclass(frozen=True, slots=True)
class _Table:
    """What the rows of the table share: the whole, the phases of its columns, and the longest bar."""

    whole_ns: int
    columns: Sequence[str | None]
    widest_ns: int

    def row(
        self, name: str, parts_ns: Mapping[str | None, int], layer: str = "", detail: str = "", anchor: str = ""
    ) -> LayerView:
        ns = sum(parts_ns.values())
        return LayerView(
            name=name,
            layer=layer,
            detail=detail,
            ns=ns,
            time=format_ns(ns),
            share=format_share(ns / self.whole_ns),
            cells=tuple(self._cell(parts_ns.get(phase, 0)) for phase in self.columns),
            parts=tuple(_parts(parts_ns, self.whole_ns, self.widest_ns)),
            anchor=anchor,
        )

    def _cell(self, ns: int) -> PhaseCell:
        return PhaseCell(format_share(ns / self.whole_ns) if ns > 0 else NOTHING, ns)


def _layer(row: LayerRow, table: _Table, name: str, anchors: Mapping[str, str]) -> LayerView:
    detail = " · ".join(filter(None, (row.kind, file_and_line(row.source))))
    parts_ns = {phase: _of(row, phase) for phase in table.columns}
    return table.row(name, parts_ns, row.layer, detail, anchors.get(row.layer, ""))


def _parts(parts_ns: Mapping[str | None, int], whole_ns: int, widest_ns: int) -> Iterator[Part]:
    start_ns = 0
    for phase, ns in parts_ns.items():
        if ns > 0:
            words = f"{phase or NOT_KNOWN}: {format_ns(ns)}, {format_share(ns / whole_ns)}"
            yield Part(tone_of_phase(phase), percent(start_ns, widest_ns), percent(ns, widest_ns), words)
            start_ns += ns


# -- words ---------------------------------------------------------------------------------------------------


def _known(training: Training) -> str:
    """Say how much of the time was joined to the graph, given to somebody, and divided among several.

    >>> _known(Training(10, 0.991, 0.972)), _known(Training(10, None, 0.972, layers=(LayerRow("dense", 10, 1.0),)))
    ('99 % of it was joined to the graph as written, 97 % given to a phase', \
'97 % of it was given to a layer or to a phase that no layer has')
    >>> _known(Training(10, None, None, divided_share=0.22))
    '22 % ran in fusions of several layers or phases, and is divided as the operations in them are'
    """
    joined, given, divided = training.joined_share, training.given_share, training.divided_share
    said = []
    if joined is not None:
        said.append(f"{format_share(joined)} of it was joined to the graph as written")
    if given is not None:
        of_it = "" if said else " of it was"
        no_layer = "a layer or to a phase that no layer has" if training.layers else "a phase"
        said.append(f"{format_share(given)}{of_it} given to {no_layer}")
    if divided > 0:
        many = "fusions of several layers or phases"
        said.append(f"{format_share(divided)} ran in {many}, and is divided as the operations in them are")
    return ", ".join(said)


def _note(hidden: Sequence[LayerRow]) -> str:
    if not hidden:
        return ""
    took = format_ns(sum(row.ns for row in hidden))
    return f"and {counted(len(hidden), 'more layer')} of {took} together, listed in the JSON report"


def layer_words(row: LayerView, phases: Sequence[PhaseView]) -> str:
    """Say a row as a sentence does: ``31 %: 9.0 % forward, 18 % backward``."""
    said = [
        f"{cell.text} {phase.key.words}"
        for cell, phase in sorted(zip(row.cells, phases, strict=True), key=lambda pair: -pair[0].ns)
        if cell.ns > 0
    ]
    return ", ".join(said) or UNKNOWN
