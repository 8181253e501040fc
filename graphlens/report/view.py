"""The one view model: a document in the order and the words in which every report shows it.

Nothing is computed here that the document does not say: numbers are formatted, counted and grouped, and copies are
drawn by the names of their ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from graphlens.ir.analysis import CONTRADICTION, SEVERITIES, UNKNOWN_QUALITY, Document, RuleStatus
from graphlens.ir.devices import short_device
from graphlens.ir.pipelines import DATASET
from graphlens.report.evidence import Cell, cells_of
from graphlens.report.view_copies import CopiesView, copies_view
from graphlens.report.view_devices import DevicesView, devices_view
from graphlens.report.view_distribution import DistributionView, distribution_view
from graphlens.report.view_findings import FindingView, finding_views
from graphlens.report.view_inputs import InputsView, inputs_view
from graphlens.report.view_machine import MemoryView, RooflineView, memory_view, roofline_view
from graphlens.report.view_ops import OpTable, PathView, op_table, path_view
from graphlens.report.view_period import PeriodView, period_view
from graphlens.report.view_pipeline import InputView, input_view
from graphlens.report.view_placement import PlacementView, placement_view
from graphlens.report.view_programs import ProgramsView, judged_of, programs_view
from graphlens.report.view_proofs import ProofView, joint_view, total_view
from graphlens.report.view_quality import GradeView, quality_view
from graphlens.report.view_replicas import ReplicasView, replicas_view
from graphlens.report.view_rewrites import RewritesView, rewrites_view
from graphlens.report.view_steps import KindsView, element_words, kinds_view, rhythm_words, step_words
from graphlens.report.view_timeline import TimelineView, timeline_view
from graphlens.report.view_traces import TracesView, traces_view
from graphlens.report.view_training import TrainingView, training_view
from graphlens.report.words import KINDS, LEDGER_KINDS, RECORDINGS, RULE_STATUSES
from graphlens.units import UNKNOWN, counted, format_count, format_ns, format_share


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline number: ``anchor`` is the section that explains it."""

    label: str
    value: str
    detail: str
    anchor: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class LedgerRowView:
    """One row of the ledger; ``start`` and ``width`` place its bar in per mille of the whole."""

    category: str
    kind: str
    kind_words: str
    time: str
    share: str
    start: float
    width: float
    tone: str


@dataclass(frozen=True, slots=True)
class LedgerView:
    """Where the step went: its rows, their sum, and where the numbers come from."""

    rows: tuple[LedgerRowView, ...]
    total: str
    origin: str


@dataclass(frozen=True, slots=True)
class RuleView:
    """What became of one rule."""

    code: str
    rule: str
    status: str
    status_words: str
    why: str
    summary: str


@dataclass(frozen=True, slots=True)
class View:
    """Everything a report shows, in this order.

    ``alarm`` says in words what of the measurement cannot be; then no number is shown that rests on it.  ``untimed``
    says why there are no times, ``rhythm`` how often the step is called, ``kinds`` how steps differ,
    ``step_label`` what a step is called.
    """

    version: str
    name: str
    path: str
    about: tuple[tuple[str, str], ...]
    chosen: str
    environment: tuple[tuple[str, Cell], ...]
    measured: bool
    alarm: str
    untimed: str
    step: str
    step_detail: str
    step_label: str
    rhythm: str
    kinds: KindsView | None
    programs: ProgramsView | None
    tiles: tuple[Tile, ...]
    quality: GradeView
    ledger: LedgerView | None
    period: PeriodView | None
    input: InputView | None
    rewrites: RewritesView | None
    training: TrainingView | None
    timeline: TimelineView | None
    traces: TracesView | None
    findings: tuple[FindingView, ...]
    total: ProofView | None
    joint: ProofView | None
    severities: tuple[tuple[str, int], ...]
    path_view: PathView | None
    devices: DevicesView | None
    distribution: DistributionView | None
    replicas: ReplicasView | None
    copies: CopiesView | None
    placement: PlacementView | None
    roofline: RooflineView | None
    memory: MemoryView | None
    inputs: InputsView | None
    ops: OpTable
    rules: tuple[RuleView, ...]
    rule_counts: tuple[tuple[str, int], ...]
    errors: tuple[tuple[str, str], ...]


def view_of(document: Document, op_limit: int | None = None) -> View:
    """Arrange ``document`` for reading; findings keep the rank that the judge gave them.

    The op table has at most ``op_limit`` rows; as many as a page does unless it is given.
    """
    findings = finding_views(document)
    severities = tuple(
        (severity, count)
        for severity in SEVERITIES
        if (count := sum(finding.severity == severity for finding in document.findings))
    )
    alarm = next((error.message for error in document.errors if error.stage == CONTRADICTION), "")
    quality = quality_view(document.quality, alarm)
    programs = programs_view(document)
    failed = document.quality == UNKNOWN_QUALITY
    is_dataset = document.target.kind == DATASET
    step, step_detail = (is_dataset and element_words(document.step)) or step_words(document.step, alarm, failed)
    rhythm = rhythm_words(document.step, judged_of(document), document.period)
    return View(
        version=document.graphlens_version,
        name=_name(document.target.path),
        path=document.target.path,
        about=_about(document, programs),
        chosen=document.target.chosen or "",
        environment=cells_of(document.environment),
        measured=document.step is not None,
        alarm=alarm,
        untimed="" if document.step else _untimed(alarm, failed),
        step=step,
        step_label="Elements" if is_dataset else "Step",
        step_detail=step_detail,
        rhythm=rhythm,
        kinds=kinds_view(document.step),
        programs=programs,
        tiles=(_step_tile(step, step_detail, rhythm, programs, is_dataset), *_tiles(document, quality, severities)),
        quality=quality,
        ledger=_ledger(document),
        period=period_view(document),
        input=input_view(document),
        rewrites=rewrites_view(document),
        training=training_view(document),
        timeline=timeline_view(document),
        traces=traces_view(document),
        findings=findings,
        total=total_view(document),
        joint=joint_view(document),
        severities=severities,
        path_view=path_view(document),
        devices=devices_view(document),
        distribution=distribution_view(document),
        replicas=replicas_view(document),
        copies=copies_view(document),
        placement=placement_view(document),
        roofline=roofline_view(document),
        memory=memory_view(document),
        inputs=inputs_view(document),
        ops=op_table(document, findings, op_limit),
        rules=tuple(_rule(status) for status in document.rules),
        rule_counts=_rule_counts(document.rules),
        errors=tuple((error.stage, error.message) for error in document.errors if error.stage != CONTRADICTION),
    )


# -- header --------------------------------------------------------------------------------------------------


def _name(path: str) -> str:
    parts = [part for part in path.replace("\\", "/").split("/") if part]
    return parts[-1] if parts else path


def _untimed(alarm: str, failed: bool) -> str:
    if failed:
        return "the times could not be derived"
    return "the measurement contradicts itself" if alarm else "nothing was measured"


def _about(document: Document, programs: ProgramsView | None) -> tuple[tuple[str, str], ...]:
    target, environment = document.target, document.environment
    tensorflow = environment.get("tensorflow")
    devices = environment.get("devices")
    pairs = (
        ("kind", KINDS.get(target.kind, target.kind)),
        ("signature", target.signature),
        ("program", _judged_words(document, programs)),
        ("TensorFlow", str(tensorflow) if tensorflow else None),
        ("processor", str(environment["cpu"]) if environment.get("cpu") else None),
        ("devices", _devices(devices) if isinstance(devices, (list, tuple)) else None),
        ("digest", target.digest[:12] if target.digest else None),
    )
    return tuple((label, value) for label, value in pairs if value)


def _devices(devices: list[object] | tuple[object, ...]) -> str | None:
    return ", ".join(short_device(device) if isinstance(device, str) else str(device) for device in devices)


def _judged_words(document: Document, programs: ProgramsView | None) -> str | None:
    """Return which program is judged: of several, or the only one that a recording shows, which nothing else names."""
    if programs is not None:
        return f"{programs.judged} ({programs.role})" if programs.judged else None
    judged = judged_of(document)
    shown = judged is not None and judged.step is not None and judged.runs and document.target.kind in RECORDINGS
    return judged.id if judged and shown else None


def _step_tile(step: str, detail: str, rhythm: str, programs: ProgramsView | None, is_dataset: bool) -> Tile:
    if is_dataset:
        return Tile("Elements", step, detail, "time")
    label = f"Step of {programs.judged}" if programs and programs.judged else "Step time"
    return Tile(label, step, f"{detail}; {rhythm}" if rhythm else detail, "time")


def _tiles(document: Document, quality: GradeView, severities: tuple[tuple[str, int], ...]) -> tuple[Tile, ...]:
    tiles = [_quality_tile(quality)]
    counts = ", ".join(f"{count} {severity}" for severity, count in severities)
    tiles.append(Tile("Findings", format_count(len(document.findings)), counts or "nothing found", "findings"))
    tiles += _proven_tile(document)
    if document.critical_path is not None:
        tiles.append(_path_tile(document))
    tiles += _graph_tile(document)
    return tuple(tiles)


def _quality_tile(quality: GradeView) -> Tile:
    detail = quality.reasons[0] if quality.reasons else f"grade {quality.grade}"
    return Tile("Measurement", quality.words, detail, "quality", f"grade-{quality.grade}")


def _proven_tile(document: Document) -> list[Tile]:
    """Return the headline of all proven fixes at once."""
    proof, total = document.joint_proof, total_view(document)
    if proof is None or total is None or proof.verdict != "proven":
        return []
    fixes = f"{len(proof.parts)} fixes" if len(proof.parts) > 1 else "1 fix"
    interval = f", {total.ratios[0].interval}" if proof.ci95 else ""
    return [Tile("Proven speed-up", total.factor, f"measured with {fixes} applied{interval}", "findings", "proven")]


def _path_tile(document: Document) -> Tile:
    path, step = document.critical_path, document.step
    assert path is not None
    share = f"{format_share(path.ns / step.median_ns)} of the step, " if step and step.median_ns else ""
    return Tile("Critical path", format_ns(path.ns), f"{share}{counted(len(path.ops), 'op')}", "path")


def _graph_tile(document: Document) -> list[Tile]:
    stages = {stage: size.nodes for stage, size in document.graphs.items()}
    if not stages:
        return []
    judged = "executed" if "executed" in stages else next(iter(stages))
    rest = ", ".join(f"{nodes:,} {stage}" for stage, nodes in stages.items() if stage != judged)
    return [Tile("Graph", counted(stages[judged], "op"), f"{judged}{f'; {rest}' if rest else ''}", "ops")]


# -- ledger --------------------------------------------------------------------------------------------------

# Ops get the accent in falling strength by rank; more than this many rows share the weakest tone.
OP_TONES = 6


def _ledger(document: Document) -> LedgerView | None:
    whole_ns = sum(row.ns for row in document.ledger)
    if not document.ledger or whole_ns <= 0:
        return None
    rows, start_ns, ops = [], 0, 0
    for row in document.ledger:
        tone = f"op{min(ops, OP_TONES - 1)}" if row.kind == "op" else row.kind
        ops += row.kind == "op"
        rows.append(
            LedgerRowView(
                category=row.category,
                kind=row.kind,
                kind_words=LEDGER_KINDS[row.kind],
                time=format_ns(row.ns),
                share=format_share(row.ns / whole_ns),
                start=_per_mille(start_ns, whole_ns),
                width=_per_mille(row.ns, whole_ns),
                tone=tone,
            )
        )
        start_ns += row.ns
    origin = document.step.origin if document.step else UNKNOWN
    return LedgerView(tuple(rows), format_ns(whole_ns), origin)


def _per_mille(part_ns: int, whole_ns: int) -> float:
    return round(1000 * part_ns / whole_ns, 2)


# -- rules ---------------------------------------------------------------------------------------------------


def _rule(status: RuleStatus) -> RuleView:
    words = RULE_STATUSES[status.status]
    return RuleView(status.code, status.rule, status.status, words, status.why, status.summary)


def _rule_counts(rules: tuple[RuleStatus, ...]) -> tuple[tuple[str, int], ...]:
    counts: Mapping[str, int] = Counter(rule.status for rule in rules)
    return tuple((words, counts[status]) for status, words in RULE_STATUSES.items() if counts.get(status))
