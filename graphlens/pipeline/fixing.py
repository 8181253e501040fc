"""Write an improved model: the proven fixes applied, read back in a fresh process, and compared once more."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from graphlens import workplace
from graphlens.children.messages import Comparison, Difference, RecordRequest
from graphlens.config import DEFAULT_PROOF_BUDGET_S, Progress, Request
from graphlens.errors import ExecutionError, TargetError, UsageError
from graphlens.ir.analysis import Finding, Proof
from graphlens.ir.edits import is_of_input
from graphlens.ir.settings import graph_edits, lines_of
from graphlens.loaders import signatures, sniff
from graphlens.loaders.profile_files import PROFILE_KINDS
from graphlens.loaders.signatures import CALL
from graphlens.pipeline import stages
from graphlens.pipeline.gather import Gathered
from graphlens.pipeline.result import Analysis
from graphlens.prove import Plan, TrialRunner
from graphlens.prove.bench import BlockedError, computes_in, prepared, timed
from graphlens.prove.experiment import Budget
from graphlens.prove.floors import Floors
from graphlens.prove.runner import TrialError

TIME_LIMIT_S: Final = 600.0  # for writing, and again for reading back; both are a matter of seconds
WRITTEN: Final = "written"
RECORDINGS: Final = PROFILE_KINDS | {"capture"}  # nothing of them can be executed


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants of the written model: time to measure it once more, its tolerance, and to have it anyhow."""

    budget_s: float = DEFAULT_PROOF_BUDGET_S
    rtol: float | None = None
    force: bool = False


DEFAULTS: Final = Asked()


@dataclass(frozen=True, slots=True)
class Fixed:
    """What was written, and what it was found to be in a process that knows it from disk only.

    ``again`` is what was measured of it there, ``proof`` what was measured before it was written, ``left_out`` what was
    proven and not applied.  Where ``is_written`` is not true, it did not confirm the gain and was thrown away.
    """

    directory: str
    applied: tuple[Finding, ...]
    difference: Difference
    again: Proof
    bytes_before: int | None
    bytes_after: int
    signatures: int = 1
    notes: tuple[str, ...] = ()
    proof: Proof | None = None
    left_out: tuple[Finding, ...] = ()
    settings: tuple[str, ...] = ()  # what was proven and no model can hold: lines to type where it is served
    is_written: bool = True

    @property
    def is_confirmed(self) -> bool:
        """Whether measuring it once more tells the same: proven again, or all of every interval is a gain.

        It need not clear the noise by itself, as a first claim does.
        """
        again = self.again
        intervals = [ends for ends in (again.ci95, again.cpu_ci95) if ends is not None]
        return again.verdict == "proven" or (bool(intervals) and all(low > 1 for low, _ in intervals))


def fix(request: Request, output: str, progress: Progress, *, force: bool = False) -> tuple[Analysis, Fixed | None]:
    """Analyze the target, and write it to the folder ``output`` with all fixes that were proven.

    Nothing is written when nothing was proven that changes a graph, or when measuring the result once more does not
    confirm the gain, unless ``force`` is given.

    Raises
    ------
    UsageError
        When ``output`` exists, lies inside the model, or cannot be made.
    TargetError
        When the target is a recording, which holds no model that could be written.
    ExecutionError
        When the model could not be written, or what was written differs; nothing is left of it then.
    """
    target = Path(output).absolute()
    _check_is_model(request.source.target)
    _check_can_be_written(target, output, Path(request.source.target).absolute())
    with stages.judged(request, progress) as known:
        analysis = known.judged
        chosen = proven(analysis)
        if not any(_changes_the_graph(finding) for finding in chosen):
            return analysis, None
        asked = Asked(request.recording.time_budget_s or DEFAULT_PROOF_BUDGET_S, request.judging.rtol, force)
        fixed = _written(known.gathered, chosen, target, progress, asked)
    return analysis, replace(fixed, proof=_proof_of(analysis, chosen), left_out=_left_out(analysis, chosen))


def _check_is_model(target: str) -> None:
    kind = sniff.identify(target).kind
    if kind in RECORDINGS:
        what = "a capture" if kind == "capture" else "a profile"
        raise TargetError(f"'{target}' is {what} and holds no weights to write; name the model itself")


def _check_can_be_written(target: Path, output: str, model: Path) -> None:
    """Find out before minutes of work what would be in the way after them."""
    if os.path.lexists(target):
        raise UsageError(f"'{output}' exists; name a folder that does not")
    if not target.parent.is_dir():
        raise UsageError(f"the folder of '{output}' does not exist; create it first")
    if model.is_dir() and target.resolve().is_relative_to(model.resolve()):
        raise UsageError(f"'{output}' is inside the model itself; name a folder elsewhere")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UsageError(f"'{output}' cannot be made: nothing can be written to its folder")
    workplace.remove_abandoned(target)


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
    return bool(graph_edits(finding.fix.edits)) and not any(map(is_of_input, finding.fix.edits))


def settings_proven(chosen: Sequence[Finding]) -> tuple[str, ...]:
    """Return what to type where the model is served, for the fixes that are settings of the process."""
    return lines_of(edit for finding in chosen for edit in finding.fix.edits)


def why_nothing(analysis: Analysis) -> str:
    """Return why no fix was applied: what became of those that could have been."""
    if not analysis.findings:
        return "no rule found anything to fix"
    fixable = [finding for finding in analysis.findings if finding.fix.edits]
    if not fixable:
        return "nothing that was found has a fix that a program could apply; `graphlens analyze` shows what was"
    of_input = [one for one in proven(analysis) if any(map(is_of_input, one.fix.edits))]
    if of_input:
        return f"what was proven changes the input pipeline, which no model holds; {_in_the_program(of_input)}"
    tried = (f"{one.code} {one.rule}: {one.proof.verdict}, {one.proof.why}" for one in fixable)
    return f"no fix was proven ({'; '.join(tried)})"


def _in_the_program(findings: Sequence[Finding]) -> str:
    return "change it in the program: " + "; ".join(one.fix.snippet or one.fix.summary for one in findings)


def why_not_kept(fixed: Fixed) -> str:
    """Return why a model that was made and measured was thrown away."""
    return f"measuring it once more does not confirm the gain: {fixed.again.why}; --force writes it all the same"


def _left_out(analysis: Analysis, chosen: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return what was proven and is not applied, not even as the same edits of another finding."""
    applied = [finding.fix.edits for finding in chosen]
    return tuple(one for one in analysis.findings if one.proof.verdict == "proven" and one.fix.edits not in applied)


def _proof_of(analysis: Analysis, chosen: Sequence[Finding]) -> Proof | None:
    return chosen[0].proof if len(chosen) == 1 else analysis.document.joint_proof


def _reference(findings: Sequence[Finding], finding: Finding) -> str:
    return f"{finding.code}#{findings.index(finding) + 1}"


def _written(
    gathered: Gathered,
    chosen: Sequence[Finding],
    target: Path,
    progress: Progress,
    asked: Asked = DEFAULTS,
) -> Fixed:
    assert gathered.opened_as is not None
    assert gathered.directory is not None
    try:
        with workplace.beside(target) as folder:
            made = folder / "model"
            progress("writing the model", 0, 0)
            notes = _write(gathered.opened_as, gathered.directory, chosen, made)
            progress("reading it back, and comparing", 0, 0)
            fixed = _checked(gathered, chosen, made, asked, progress)
            if os.path.lexists(target):
                raise ExecutionError(f"'{target}' was made by somebody else meanwhile; nothing was written")
            fixed = replace(fixed, is_written=fixed.is_confirmed or asked.force)
            if fixed.is_written:
                os.replace(made, target)
    except TrialError as error:
        raise ExecutionError(f"the model could not be written with its fixes: {error}") from error
    except OSError as error:
        raise ExecutionError(f"'{target}' could not be written: {error.strerror or error}") from error
    return replace(fixed, directory=str(target), notes=(*notes, *fixed.notes), settings=settings_proven(chosen))


def _other_signatures(gathered: Gathered) -> tuple[str, ...]:
    """Return the signatures that are written and were not measured."""
    if gathered.loaded is None or gathered.opened_as is None:
        return ()
    own = gathered.opened_as.signature
    return tuple(one.name for one in gathered.loaded.signatures if one.name not in {own, CALL})


def _write(opened_as: RecordRequest, folder: Path, chosen: Sequence[Finding], model: Path) -> tuple[str, ...]:
    edits = [edit for finding in chosen for edit in graph_edits(finding.fix.edits)]
    runner = TrialRunner(opened_as, folder / "write")
    try:
        return runner.write({opened_as.signature or signatures.DEFAULT: edits}, model, TIME_LIMIT_S)
    finally:
        runner.close()


def _checked(gathered: Gathered, chosen: Sequence[Finding], model: Path, asked: Asked, progress: Progress) -> Fixed:
    """Compare and time what is on disk against the original, in a process that has made neither."""
    assert gathered.opened_as is not None
    assert gathered.directory is not None
    runner = TrialRunner(gathered.opened_as, gathered.directory / "check", rtol=asked.rtol)
    computed = computes_in([finding.fix.edits for finding in chosen])
    others = _other_signatures(gathered)
    try:
        with_cpu = not runner.open(TIME_LIMIT_S).accelerated
        differences = _read_back(runner, model, computed)
        again = _timed(runner, Plan(asked.budget_s), with_cpu, progress)
        more, notes = _compared_too(runner, model, computed, others)
    finally:
        runner.close()
    return Fixed(
        directory=str(model),
        applied=tuple(filter(_changes_the_graph, chosen)),
        difference=max([*differences, *more], key=lambda item: item.max_rel or 0.0),
        again=again,
        bytes_before=_size(Path(gathered.opened_as.target)),
        bytes_after=_size(model) or 0,
        signatures=1 + len(others) - len(notes),
        notes=notes,
    )


def _timed(runner: TrialRunner, plan: Plan, with_cpu: bool, progress: Progress) -> Proof:
    """Time the written model as every fix is timed: by turns with the original, beside the noise of A against A."""
    budget = Budget(time.monotonic() + plan.budget_s)

    def on_pairs(done: int) -> None:
        progress("measuring what was written, pairs", done, plan.max_pairs)

    try:
        bench = prepared(runner, plan, budget, with_cpu=with_cpu, on_pairs=on_pairs)
    except BlockedError as error:
        return Proof(error.verdict, str(error))
    return timed(bench, WRITTEN, budget, on_pairs)


def _read_back(runner: TrialRunner, model: Path, computed: str | None) -> tuple[Difference, ...]:
    runner.load(WRITTEN, model, TIME_LIMIT_S)
    return _agreeing(Floors(runner).under(runner.compare(WRITTEN, computed, TIME_LIMIT_S)))


def _compared_too(
    runner: TrialRunner, model: Path, computed: str | None, others: Sequence[str]
) -> tuple[list[Difference], tuple[str, ...]]:
    """Compare the other signatures on inputs made at random; a note says which could not be."""
    differences: list[Difference] = []
    notes: list[str] = []
    for name in others:
        try:
            runner.turn_to(name, TIME_LIMIT_S)
            differences += _read_back(runner, model, computed)
        except TrialError as error:
            notes.append(f"signature '{name}' was written and not compared: {error}")
    return differences, tuple(notes)


def _agreeing(comparison: Comparison) -> tuple[Difference, ...]:
    """Return the differences.

    Raises
    ------
    ExecutionError
        When one is beyond its tolerance.
    TrialError
        When the original does not agree with itself.
    """
    if comparison.unstable:
        raise TrialError(f"the original's own output '{comparison.unstable[0].output}' changes from call to call")
    for item in comparison.differences:
        if not item.agrees:
            how = item.mismatch or f"it differs by {item.max_rel:.1e}, with {item.tolerance:.0e} allowed"
            raise ExecutionError(f"output '{item.output}' of the written model: {how}; nothing was kept")
    return comparison.differences


def _size(path: Path) -> int | None:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else None
