"""The summary for a terminal, readable in 80 columns; the same text without colour is the ``.txt`` report."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Literal, TextIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from graphlens.ir.analysis import Document
from graphlens.report.view import View, view_of
from graphlens.report.view_findings import FindingView
from graphlens.report.view_programs import CHOOSE, ProgramsView
from graphlens.report.view_training import layer_words
from graphlens.report.words import NOT_SEEN, printable, shared_scope, shorten
from graphlens.units import counted

WIDTH = 80
# Wider lines are harder to read than a wrapped one.
WIDEST = 120
FINDINGS_SHOWN = 8
OPS_SHOWN = 10
LAYERS_SHOWN = 5
TRACES_SHOWN = 3
BAR_CELLS = 20
NAME_CHARACTERS = 40
LAYER_CHARACTERS = 26
OP_CHARACTERS = 22  # with a name, a time and a share beside it, 80 columns

_SEVERITY_STYLES = {"high": "bold red", "medium": "bold yellow", "low": "cyan", "info": "dim"}
_GRADE_STYLES = {"good": "green", "fair": "yellow", "poor": "bold red", "none": "dim"}
_SHORT_LABELS = {"Critical path": "Critical"}
_TONE_STYLES = {"overhead": "magenta", "unattributed": "dim"}


@dataclass(frozen=True, slots=True)
class _Glyphs:
    """Characters for drawing; a second set serves terminals that know ASCII only."""

    bar: str = "█"
    dot: str = "·"
    bullet: str = "•"


_ASCII = _Glyphs(bar="#", dot="|", bullet="-")
_TO_ASCII = str.maketrans({"–": "-", "−": "-", "×": "x", "…": ".", "·": "|", "±": "~", "’": "'", "µ": "u", "�": "?"})


def render(document: Document, outputs: Sequence[str] = ()) -> str:
    """Return the summary as plain text of 80 columns."""
    buffer = StringIO()
    console = Console(file=buffer, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(_summary(view_of(document, OPS_SHOWN), outputs, _Glyphs()), crop=False)
    return _trimmed(buffer.getvalue())


def print_summary(document: Document, outputs: Sequence[str] = (), file: TextIO | None = None) -> None:
    """Print the summary: in colour when ``file`` (standard output) is a terminal, in ASCII when it knows no more."""
    file = sys.stdout if file is None else file
    unicode = (getattr(file, "encoding", None) or "ascii").lower().replace("-", "").startswith("utf")
    measured = Console(file=file)
    buffer = StringIO()
    console = Console(
        file=buffer,
        width=min(measured.width, WIDEST) if measured.is_terminal else WIDTH,
        force_terminal=measured.is_terminal,
        color_system=_color_system(measured),
        legacy_windows=False,
    )
    console.print(_summary(view_of(document, OPS_SHOWN), outputs, _Glyphs() if unicode else _ASCII), crop=False)
    text = _trimmed(buffer.getvalue())
    file.write(text if unicode else text.translate(_TO_ASCII).encode("ascii", "replace").decode())


def _color_system(console: Console) -> Literal["auto"] | None:
    return "auto" if console.is_terminal and not console.no_color else None


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


# -- parts ---------------------------------------------------------------------------------------------------


def _summary(view: View, outputs: Sequence[str], glyphs: _Glyphs) -> Group:
    parts = [
        _header(view, glyphs),
        *_findings(view),
        *_rewrites(view),
        *_input(view),
        *_period(view),
        *_ledger(view, glyphs),
        *_layers(view),
        *_ops(view),
        *_programs(view),
        *_traces(view, glyphs),
        *_around(view, glyphs),
        *_not_done(view, glyphs),
        *_written(outputs),
        *_next(view, outputs),
    ]
    return Group(*parts)


def _header(view: View, glyphs: _Glyphs) -> RenderableType:
    about = f" {glyphs.dot} ".join(_about(label, value) for label, value in view.about if label != "digest")
    title = Text.assemble((printable(view.path), "bold"), no_wrap=False, overflow="fold")
    grid = _grid(10)
    if view.chosen:
        grid.add_row(Text("Signature", "bold"), _plain(view.chosen))
    if view.alarm:
        grid.add_row(Text("ALARM", "bold red"), _plain(view.alarm, "bold red"))
    grid.add_row(Text(view.step_label, "bold"), _plain(f"{view.step}   {view.step_detail}"))
    for words in filter(None, (view.rhythm, view.kinds.words if view.kinds else "")):
        grid.add_row("", _plain(words))
    for tile in view.tiles:
        if tile.tone == "proven":
            grid.add_row(Text("Proven", "bold"), _plain(f"{tile.value}, {tile.detail}", "green"))
    grid.add_row(Text("Quality", "bold"), _quality(view))
    if view.inputs is not None:
        grid.add_row(Text("Inputs", "bold"), _plain(view.inputs.line))
    head = Text(f"GraphLens {printable(view.version)}", "dim")
    return Group(head, title, _plain(about, "dim"), Text(), grid)


def _around(view: View, glyphs: _Glyphs) -> Iterable[RenderableType]:
    """Say what helps to read the rest: why the measurement is no better, how large the graph is, and where it ran."""
    grid = _grid(10)
    for reason in view.quality.reasons[1:]:
        grid.add_row("", _plain(f"{glyphs.bullet} {reason}"))
    rest = [tile for tile in view.tiles[3:] if tile.tone != "proven"]
    rows = [
        *((_SHORT_LABELS.get(tile.label, tile.label), f"{tile.value}, {tile.detail}") for tile in rest),
        *_machine(view),
    ]
    for label, text in rows:
        grid.add_row(Text(label, "bold"), _plain(text))
    if grid.row_count:
        yield _heading("The measurement and the machine")
        yield grid


def _machine(view: View) -> Iterable[tuple[str, str]]:
    """Say in a line each what the report shows of devices, copies, a placement, the roof and memory."""
    if view.devices is not None:
        busiest = ", ".join(view.devices.busiest)
        yield "Devices", view.devices.summary + (f"; busy: {busiest}" if busiest else "")
    if view.replicas is not None:
        yield "Replicas", view.replicas.line
    if view.copies is not None:
        first = view.copies.groups[0]
        mostly = f"{first.count} {first.kind}, {first.reason}: {first.size}, {first.time}"
        yield "Copies", f"{view.copies.summary}; {mostly}"
    if view.placement is not None:
        on_device, on_host, *_ = (fact.value for fact in view.placement.facts)
        where = f"{on_device} on it, {on_host} on the host"
        yield "What-if", f"{view.placement.device}, modelled: {where}; copies {view.placement.copies}"
        yield from (("", words) for words in view.placement.assumed)
    if view.roofline is not None:
        yield "Roofline", f"{view.roofline.roof} and {view.roofline.memory} at best here"
    if view.memory is not None:
        yield "Memory", f"peak {view.memory.peak} at {shorten(view.memory.at_op, NAME_CHARACTERS)}, an estimate"


def _about(label: str, value: str) -> str:
    return f"{label} {value}" if label in ("TensorFlow", "program") else value


def _quality(view: View) -> Text:
    """Say how far the measurement can be trusted, and the first reason; the others follow below the findings."""
    text = Text(view.quality.words, _GRADE_STYLES[view.quality.grade])
    text.append(f" (grade: {view.quality.grade})", "default")
    reasons = view.quality.reasons
    if reasons:
        more = f"; {counted(len(reasons) - 1, 'more reason')} below" if len(reasons) > 1 else ""
        text.append(f": {printable(reasons[0])}{more}", "default")
    return text


def _programs(view: View) -> Iterable[RenderableType]:
    """Say which programs ran, where there are several: the judged one, the longest others, and how to choose."""
    programs = view.programs
    if programs is None:
        return
    yield _heading(f"Programs: {programs.summary}")
    yield Padding(_program_table(programs), (0, 0, 0, 2))
    apart = [f"{row.name}: {row.apart} that traced or compiled it, told apart" for row in programs.shown if row.apart]
    more = [f"and {programs.more}"] if programs.more else []
    choice = [f"{CHOOSE} {programs.choice}"] if len(programs.shown) > 1 else []
    for line in filter(None, (*apart, "; ".join([*more, *choice]))):
        yield Padding(_plain(line, "dim"), (0, 0, 0, 2))


def _program_table(programs: ProgramsView) -> Table:
    labels = [
        "Program",
        "Role",
        *(["Calls"] if programs.called else []),
        "Runs",
        *(["Steps"] if programs.loops else []),
        "Step",
        "Busy",
    ]
    table = Table.grid(padding=(0, 1, 0, 0))
    for label in labels:
        table.add_column(justify="left" if label in ("Program", "Role") else "right", no_wrap=True)
    table.add_row(*(Text(label, "dim") for label in labels))
    room = NAME_CHARACTERS - 6 * programs.loops - 7 * programs.called
    for row in programs.shown:
        name = Text(shorten(printable(row.name), room), "bold" if row.judged else "")
        calls = [row.calls] if programs.called else []
        table.add_row(name, row.role, *calls, row.runs, *([row.steps] if programs.loops else []), row.step, row.share)
    return table


def _ledger(view: View, glyphs: _Glyphs) -> Iterable[RenderableType]:
    if view.ledger is None:
        return
    yield _heading("Where the step goes")
    table = Table.grid(padding=(0, 1, 0, 0))
    for justify in ("left", "right", "right", "left"):
        table.add_column(justify=justify, overflow="fold", no_wrap=justify != "left")
    widest = max(row.width for row in view.ledger.rows) or 1
    for row in view.ledger.rows:
        style = _TONE_STYLES.get(row.kind, "blue")
        bar = Text(glyphs.bar * round(BAR_CELLS * row.width / widest), style)
        table.add_row(_plain(row.category), Text(row.time), Text(row.share), bar)
    table.add_row(
        Text("Step", "bold"), Text(view.ledger.total, "bold"), Text("100 %", "bold"), Text(view.ledger.origin, "dim")
    )
    yield Padding(table, (0, 0, 0, 2))


def _rewrites(view: View) -> Iterable[RenderableType]:
    """Say what changes of the input pipeline gave, in elements a second."""
    if view.rewrites is None:
        return
    yield _heading(f"Changes of the pipeline: {view.rewrites.summary}")
    for row in view.rewrites.rows:
        rates = (
            f"{row.before} to {row.after} {view.rewrites.unit}/s, {row.factor}" if row.verdict != "not-run" else row.why
        )
        style = "green" if row.verdict == "proven" else "dim"
        yield Padding(_plain(row.change, "bold"), (0, 0, 0, 2))
        yield Padding(_plain(f"{row.words.lower()}: {rates}", style), (0, 0, 0, 4))
        if row.verdict not in {"proven", "not-run"}:
            yield Padding(_plain(row.why, "dim"), (0, 0, 0, 4))
        if row.alone:
            yield Padding(_plain(f"the pipeline alone: {row.alone}"), (0, 0, 0, 4))


def _input(view: View) -> Iterable[RenderableType]:
    """Say what steps wait for input, and which stage limits it."""
    if view.input is None or not view.input.pipelines[0].ran:
        return
    yield _heading("Input")
    yield Padding(_plain(view.input.summary), (0, 0, 0, 2))


def _period(view: View) -> Iterable[RenderableType]:
    """Say where the time goes from step to step, and what of it was the executor's."""
    if view.period is None:
        return
    yield _heading(f"From one step to the next: {view.period.total}, the median of {view.period.n}")
    table = Table.grid(padding=(0, 1, 0, 0))
    for justify in ("left", "right", "right"):
        table.add_column(justify=justify, overflow="fold", no_wrap=justify != "left")
    for row in view.period.rows:
        table.add_row(_plain(row.category), row.time, row.share)
    yield Padding(table, (0, 0, 0, 2))
    if view.period.split:
        yield Padding(_plain(view.period.split, "dim"), (0, 0, 0, 2))


def _layers(view: View) -> Iterable[RenderableType]:
    """Say what the phases take of the op time, and the layers that take most."""
    training = view.training
    if training is None:
        return
    yield _heading(f"Phases{' and layers' if training.rows else ''}: of {training.total} of op time in a step")
    phases = ", ".join(f"{phase.share} {phase.key.words}" for phase in training.phases)
    yield Padding(_plain(phases), (0, 0, 0, 2))
    table = Table.grid(padding=(0, 1, 0, 0))
    for justify in ("right", "left", "left"):
        table.add_column(justify=justify, overflow="fold", no_wrap=justify != "left")
    for row in training.rows[:LAYERS_SHOWN]:
        table.add_row(row.share, _short(row.name, LAYER_CHARACTERS), _plain(layer_words(row, training.columns)))
    yield Padding(table, (0, 0, 0, 2))
    hidden = len(training.rows) - LAYERS_SHOWN
    if hidden > 0:
        yield Text(f"  and {counted(hidden, 'more layer')}", "dim")


def _traces(view: View, glyphs: _Glyphs) -> Iterable[RenderableType]:
    """Say which calls traced a function again, and what had changed; the others are of no use to a reader."""
    traces = view.traces
    if traces is None:
        return
    lost = f"; time lost by retraces: {traces.lost}" if traces.lost else ""
    yield _heading(f"Traces: {traces.summary}{lost}")
    retraces = [row for row in (*traces.shown, *traces.folded) if row.kind == "retrace"]
    for row in retraces[:TRACES_SHOWN]:
        changed = "; ".join(row.changed) or "what changed is not known"
        yield _item(glyphs, f"{row.function}, call {row.call}, {row.time}: {changed}")
    if len(retraces) > TRACES_SHOWN:
        yield Text("  a report (-o report.html) shows the others", "dim")


def _findings(view: View) -> Iterable[RenderableType]:
    counts = ", ".join(f"{count} {severity}" for severity, count in view.severities)
    yield _heading(f"Findings: {counts or 'none'}")
    yield from _silent(view)
    yield from _joint(view)
    for finding in view.findings[:FINDINGS_SHOWN]:
        yield Padding(_finding(finding), (0, 0, 0, 2))
    hidden = len(view.findings) - FINDINGS_SHOWN
    if hidden > 0:
        yield Text(f"  and {counted(hidden, 'more finding')}; a report (-o report.html) shows all", "dim")


def _silent(view: View) -> Iterable[RenderableType]:
    """Say of rules that were asked for by name, and found nothing, why."""
    if not view.findings and len(view.rules) <= FINDINGS_SHOWN:
        for rule in view.rules:
            yield Padding(_plain(f"{rule.code} {rule.rule} {rule.status_words}: {rule.why}"), (0, 0, 0, 2))


def _joint(view: View) -> Iterable[RenderableType]:
    if view.joint is not None:
        yield _plain(f"All proven fixes together: {view.joint.words.lower()}; {view.joint.why}", "bold")


def _finding(finding: FindingView) -> RenderableType:
    grid = _grid(8)
    head = Text.assemble((printable(f"{finding.code} {finding.rule}"), "bold"), "   ", (_saving(finding), "green"))
    grid.add_row(Text(finding.severity.upper(), _SEVERITY_STYLES[finding.severity]), head)
    grid.add_row("", _plain(finding.title))
    if finding.proof.verdict != "not-run" or finding.provable:
        style = "green" if finding.proof.verdict == "proven" else "dim"
        grid.add_row("", _plain(f"Proof: {finding.proof.words.lower()}; {finding.proof.why}", style))
    grid.add_row("", _plain(f"Why: {finding.reason}", "dim"))
    grid.add_row("", _plain(f"Fix: {finding.fix}", "dim"))
    return grid


def _saving(finding: FindingView) -> str:
    saving = finding.saving
    if not saving.known:
        return "saving unknown"
    share = saving.share.removesuffix(" of the step")
    return f"saves {saving.time} ({', '.join(part for part in (share, saving.origin) if part)})"


def _ops(view: View) -> Iterable[RenderableType]:
    keys = [column.key for column in view.ops.columns]
    if "self_ns" not in keys:
        return
    yield _heading("Slowest ops: self time; share of the step, in which overlaps are divided")
    table = Table.grid(padding=(0, 1, 0, 0))
    for justify in ("right", "right", "left", "left"):
        table.add_column(justify=justify, no_wrap=True)
    shown = view.ops.rows
    shared = len(shared_scope([row.name for row in shown])) if len(shown) > 1 else 0
    for row in shown:
        cells = dict(zip(keys, row.cells, strict=True))
        share = cells["wall_share"].text if "wall_share" in cells else ""
        if row.timing == "replay" and share == NOT_SEEN:  # its time is of another run
            share = row.timing
        table.add_row(cells["self_ns"].text, share, _short(row.op, OP_CHARACTERS), _short(row.name[shared:], 40))
    if view.ops.base:
        yield Padding(_plain(view.ops.base, "dim"), (0, 0, 0, 2))
    yield Padding(table, (0, 0, 0, 2))
    if view.ops.total > OPS_SHOWN:
        yield Text(f"  of {counted(view.ops.total, 'op')}", "dim")


def _not_done(view: View, glyphs: _Glyphs) -> Iterable[RenderableType]:
    failed = [rule for rule in view.rules if rule.status == "error"]
    if view.errors or failed:
        yield _heading("Not done")
    for stage, message in view.errors:
        yield _item(glyphs, f"{stage}: {message}")
    for rule in failed:
        yield _item(glyphs, f"{rule.code} {rule.rule}: {rule.why}")
    if view.quality.notes:
        yield _heading("Notes")
    for note in view.quality.notes:
        yield _item(glyphs, note)


def _written(outputs: Sequence[str]) -> Iterable[RenderableType]:
    if outputs:
        yield Text()
    for output in outputs:
        yield Text.assemble("Report: ", (printable(output), "bold"), overflow="fold")


def _next(view: View, outputs: Sequence[str]) -> Iterable[RenderableType]:
    """Give the line that writes the model with what was proven: never folded, so that it can be copied."""
    if view.total is not None and view.total.apply:
        if not outputs:
            yield Text()
        yield Text(f"Apply:  {printable(view.total.apply)}", no_wrap=True, overflow="ignore")


# -- helpers -------------------------------------------------------------------------------------------------


def _heading(text: str) -> RenderableType:
    return Text(f"\n{printable(text)}", "bold")


def _plain(text: str, style: str = "") -> Text:
    return Text(printable(text), style, overflow="fold")


def _short(name: str, length: int) -> Text:
    return Text(shorten(printable(name), length))


def _item(glyphs: _Glyphs, text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=3, justify="right")
    grid.add_column(overflow="fold")
    grid.add_row(glyphs.bullet, _plain(text))
    return grid


def _grid(label_width: int) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=label_width, no_wrap=True)
    grid.add_column(overflow="fold")
    return grid
