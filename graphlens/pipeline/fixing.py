"""Write an improved model: the proven fixes applied, read back in a fresh process, and compared once more."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from graphlens.config import Progress, Request
from graphlens.errors import ExecutionError, TargetError, UsageError
from graphlens.ir.analysis import Finding
from graphlens.ir.settings import graph_edits, lines_of
from graphlens.loaders import sniff
from graphlens.loaders.profiles import PROFILE_KINDS
from graphlens.pipeline.gather import Gathered, gather
from graphlens.pipeline.judge import judge
from graphlens.pipeline.proofs import explained, with_proofs
from graphlens.pipeline.result import Analysis
from graphlens.prove import TrialRunner
from graphlens.prove.runner import Difference, TrialError
from graphlens.prove.statistics import Interval, interval, log_ratios, median_ratio
from graphlens.report.words import printable
from graphlens.units import UNKNOWN, format_bytes, format_ns

TIME_LIMIT_S: Final = 600.0  # for writing, and again for reading back; both are a matter of seconds
PAIRS: Final = 15
BLOCK_MS: Final = 60.0
WRITTEN: Final = "written"
DEFAULT_SIGNATURE: Final = "serving_default"
RECORDINGS: Final = PROFILE_KINDS | {"capture"}  # nothing of them can be executed


@dataclass(frozen=True, slots=True)
class Ratio:
    """Before over after (2: twice as fast) with its 95 % interval, and the medians per call."""

    factor: float
    ci95: Interval | None
    before_ns: int
    after_ns: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """What was written, and what it was found to be in a process that knows it from disk only."""

    directory: str
    applied: tuple[Finding, ...]
    difference: Difference
    wall: Ratio
    cpu: Ratio
    bytes_before: int | None
    bytes_after: int
    notes: tuple[str, ...]
    settings: tuple[str, ...] = ()  # what was proven and no model can hold: lines to type where it is served


def fix(request: Request, output: str, progress: Progress) -> tuple[Analysis, Fixed | None]:
    """Analyze the target, and write it to the folder ``output`` with all fixes that were proven.

    Nothing is written when nothing was proven that changes a graph.

    Raises
    ------
    UsageError
        When ``output`` exists, or its parent does not.
    TargetError
        When the target is a recording, which holds no model that could be written.
    ExecutionError
        When the model could not be written, or what was written differs; nothing is left of it then.
    """
    target = Path(output).absolute()
    if target.exists():
        raise UsageError(f"'{output}' exists; name a folder that does not")
    if not target.parent.is_dir():
        raise UsageError(f"the folder of '{output}' does not exist; create it first")
    _check_is_model(request.target)
    with gather(request, progress) as gathered:
        analysis = with_proofs(
            request, gathered, judge(explained(request, gathered, progress), request.select, request.ignore), progress
        )
        chosen = proven(analysis)
        if not any(_changes_the_graph(finding) for finding in chosen):
            return analysis, None
        return analysis, _written(gathered, chosen, target, progress)


def _check_is_model(target: str) -> None:
    kind = sniff.identify(target).kind
    if kind in RECORDINGS:
        what = "a capture" if kind == "capture" else "a profile"
        raise TargetError(f"'{target}' is {what} and holds no weights to write; name the model itself")


def proven(analysis: Analysis) -> tuple[Finding, ...]:
    """Return the findings whose fixes are applied: proven alone, and together where they were tried together."""
    alone = tuple(finding for finding in analysis.findings if finding.proof.verdict == "proven")
    joint = analysis.document.joint_proof
    if joint is None or len(alone) < 2:
        return alone
    if joint.verdict != "proven":
        written = tuple(filter(_changes_the_graph, alone))
        return written[:1] or alone[:1]  # ranked by saving: the one that gives most
    return tuple(finding for finding in alone if _reference(analysis.findings, finding) in joint.parts)


def _changes_the_graph(finding: Finding) -> bool:
    return bool(graph_edits(finding.fix.edits))


def settings_proven(chosen: Sequence[Finding]) -> tuple[str, ...]:
    """Return what to type where the model is served, for the fixes that are settings of the process."""
    return lines_of(edit for finding in chosen for edit in finding.fix.edits)


def _reference(findings: Sequence[Finding], finding: Finding) -> str:
    return f"{finding.code}#{findings.index(finding) + 1}"


def _written(gathered: Gathered, chosen: Sequence[Finding], target: Path, progress: Progress) -> Fixed:
    assert gathered.opened_as is not None
    assert gathered.directory is not None
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        progress("writing the model", 0, 0)
        notes = _write(gathered.opened_as, gathered.directory, chosen, partial / "model")
        progress("reading it back", 0, 0)
        fixed = _checked(gathered.opened_as, gathered.directory, partial / "model", chosen)
        os.replace(partial / "model", target)
    except TrialError as error:
        raise ExecutionError(f"the model could not be written with its fixes: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return replace(fixed, directory=str(target), notes=notes, settings=settings_proven(chosen))


def _write(opened_as: Mapping[str, Any], folder: Path, chosen: Sequence[Finding], model: Path) -> tuple[str, ...]:
    edits = [edit for finding in chosen for edit in graph_edits(finding.fix.edits)]
    runner = TrialRunner(opened_as, folder / "write")
    try:
        return runner.write({opened_as["signature"] or DEFAULT_SIGNATURE: edits}, model, TIME_LIMIT_S)
    finally:
        runner.close()


def _checked(opened_as: Mapping[str, Any], folder: Path, model: Path, chosen: Sequence[Finding]) -> Fixed:
    """Compare and time what is on disk against the original, in a process that has made neither."""
    runner = TrialRunner(opened_as, folder / "check")
    try:
        runner.open(TIME_LIMIT_S)
        runner.load(WRITTEN, model, TIME_LIMIT_S)
        worst = _worst(runner.compare(WRITTEN, _computes_in(chosen), TIME_LIMIT_S).differences)
        pairs = runner.time("original", WRITTEN, PAIRS, BLOCK_MS, TIME_LIMIT_S)
    finally:
        runner.close()
    return Fixed(
        directory=str(model),
        applied=tuple(filter(_changes_the_graph, chosen)),
        difference=worst,
        wall=_ratio([pair.before_ns for pair in pairs], [pair.after_ns for pair in pairs]),
        cpu=_ratio([pair.before_cpu_ns for pair in pairs], [pair.after_cpu_ns for pair in pairs]),
        bytes_before=_size(Path(opened_as["target"])),
        bytes_after=_size(model) or 0,
        notes=(),
    )


def _computes_in(chosen: Sequence[Finding]) -> str | None:
    """Return the type that an edit changes to: outputs are judged at its tolerance."""
    types = {str(edit["to"]) for finding in chosen for edit in finding.fix.edits if edit["edit"] == "change-dtype"}
    return next(iter(types), None)


def _worst(differences: Sequence[Difference]) -> Difference:
    """Return the largest difference.

    Raises
    ------
    ExecutionError
        When one is beyond its tolerance.
    """
    for item in differences:
        if not item.agrees:
            how = item.mismatch or f"by {item.max_rel:.1e}, with {item.tolerance:.0e} allowed"
            raise ExecutionError(f"output '{item.output}' of the written model differs {how}; nothing was kept")
    return max(differences, key=lambda item: item.max_rel or 0.0)


def _ratio(before: Sequence[float], after: Sequence[float]) -> Ratio:
    logs = log_ratios(before, after)
    middle = len(before) // 2
    return Ratio(median_ratio(logs), interval(logs), round(sorted(before)[middle]), round(sorted(after)[middle]))


def _size(path: Path) -> int | None:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else None


def in_words(fixed: Fixed) -> list[str]:
    """Return the outcome as lines for a person: what was applied, before and after, and how the outputs compare."""
    applied = ", ".join(f"{item.code} {item.rule}" for item in fixed.applied)
    size = f"{format_bytes(fixed.bytes_before)} -> {format_bytes(fixed.bytes_after)}"
    relative = f"{fixed.difference.max_rel:.1e}" if fixed.difference.max_rel is not None else UNKNOWN
    return [
        fixed.directory,
        f"  applied    {applied}",
        f"  wall time  {_in_words(fixed.wall)}",
        f"  CPU time   {_in_words(fixed.cpu)}",
        f"  outputs    differ by at most {relative} relative ({fixed.difference.tolerance:.0e} allowed)",
        f"  on disk    {size}",
        *(f"  note       {printable(note)}" for note in fixed.notes),
        *(f"  set too    {line}" for line in fixed.settings),
    ]


def _in_words(ratio: Ratio) -> str:
    spread = f" [{ratio.ci95.low:.2f}, {ratio.ci95.high:.2f}]" if ratio.ci95 else ""
    return f"{format_ns(ratio.before_ns)} -> {format_ns(ratio.after_ns)}: {ratio.factor:.2f}x{spread}"
