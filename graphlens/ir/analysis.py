"""The analysis document: the result of judging one target.  The JSON of these classes is the product.

Field names are stable: they may be added to, never renamed (``schema/analysis.v1.json`` is derived from this module).
``None`` means unknown, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from graphlens.ir.dag import Dag
from graphlens.ir.devices import Copy, DeviceRow, Distribution, Memory, Placement, Roofline
from graphlens.ir.edit_data import AnyEdit, is_edit
from graphlens.ir.failure import AnalysisError
from graphlens.ir.inputs import InputRow
from graphlens.ir.measured import CriticalPath, GraphSize, OpRow, ProgramRow, StepTime
from graphlens.ir.pipelines import InputPipeline
from graphlens.ir.replicas import Replicas
from graphlens.ir.run import LedgerRow
from graphlens.ir.training import Period, Timeline, Training

SCHEMA_VERSION = 1

Severity = Literal["high", "medium", "low", "info"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low", "info")

# Share of the step that a fix saves, from which a finding is high, medium or low (design, section 4).
SEVERITY_SHARES: tuple[tuple[float, Severity], ...] = ((0.10, "high"), (0.03, "medium"), (0.005, "low"))


@dataclass(frozen=True, slots=True)
class Saving:
    """What the fix would save per step.  ``ns`` and ``share`` are ``None`` when nothing was measured."""

    ns: int | None = None
    share: float | None = None
    origin: Literal["measured", "modelled", "bound", "unknown"] = "unknown"


@dataclass(frozen=True, slots=True)
class Fix:
    """What to change.  ``edits`` are what a rewriter applies; empty when only a person can do it.

    Those that are settings of the process (see ``ir.settings``) change no graph.
    """

    summary: str
    safety: Literal["exact", "tolerance", "manual"]
    edits: tuple[AnyEdit, ...] = ()
    snippet: str | None = None

    def __post_init__(self) -> None:
        for edit in self.edits:
            if not is_edit(edit):
                raise TypeError(f"an edit is a dataclass with a kind (see graphlens.ir.edits), and not {edit!r:.200}")


@dataclass(frozen=True, slots=True)
class Proof:
    """The measured outcome of applying a fix to a copy; ``not-run`` until somebody did.

    Attributes
    ----------
    verdict
        ``proven``: faster, and the outputs agree.  ``changes-numbers``: faster, and the outputs differ by more than is
        allowed and by no more than rounding may do; it is for a person to say whether that is acceptable.
        ``failed``: the fix could not be applied, or gives other results; the model itself is none the worse.
    why
        The reason of the verdict in one sentence, with its numbers.
    speedup, ci95, aa_ci95
        Wall time before over after (2: twice as fast), its 95 % interval, and the interval of the original against an
        unedited copy of itself, which is what the machine's noise alone does.
    cpu_speedup, cpu_ci95, aa_cpu_ci95
        The same of the process' CPU time, all threads.
    before_ns, after_ns, cpu_before_ns, cpu_after_ns
        Medians per call.
    first_call_ns
        The first call of the changed program: what compiling it costs once.
    compile_ns, compiled_ops, program_ops, fusions
        What XLA took to compile the changed program for the shapes of its inputs, how many ops of how many it
        compiled (those that compute something), and into how many fused kernels; ``None`` where it compiles nothing.
    pairs, spent_s
        Pairs of timed blocks, and what the whole proof took.
    output, output_dtype, max_abs_diff, max_rel_diff, tolerance
        The output that differs most, by how much at most (relative to the largest value of that output), and the
        difference that is allowed for its type (0: must be equal).
    floor_rel_diff, floor_from
        By how much that output of the unchanged program differs from itself where nothing but rounding changes, and
        what was done for that (other threads, variables off by a bit); the allowed difference is a multiple of it.
        ``None`` where all outputs agree without.
    expected_share
        The saving that was modelled before, as a share of the step.
    command
        The line that measures this again.
    parts
        The findings whose fixes were applied together, as ``CODE#rank``; empty for a single fix.
    on_top_of, base_share
        The rules whose proven fixes were applied before and after alike, and what of the original's time the program
        then takes: the speedup is that of the faster program.
    made_up
        The inputs with made-up values that decide how much work a step is: what was measured holds for these alone.
    """

    verdict: Literal["proven", "refuted", "inconclusive", "changes-numbers", "failed", "not-run"]
    why: str
    speedup: float | None = None
    ci95: tuple[float, float] | None = None
    pairs: int | None = None
    aa_ci95: tuple[float, float] | None = None
    max_abs_diff: float | None = None
    max_rel_diff: float | None = None
    tolerance: float | None = None
    cpu_speedup: float | None = None
    cpu_ci95: tuple[float, float] | None = None
    aa_cpu_ci95: tuple[float, float] | None = None
    before_ns: int | None = None
    after_ns: int | None = None
    cpu_before_ns: int | None = None
    cpu_after_ns: int | None = None
    first_call_ns: int | None = None
    compile_ns: int | None = None
    compiled_ops: int | None = None
    program_ops: int | None = None
    fusions: int | None = None
    spent_s: float | None = None
    output: str | None = None
    output_dtype: str | None = None
    expected_share: float | None = None
    command: str | None = None
    parts: tuple[str, ...] = ()
    on_top_of: tuple[str, ...] = ()
    base_share: float | None = None
    made_up: tuple[str, ...] = ()
    floor_rel_diff: float | None = None
    floor_from: str | None = None


@dataclass(frozen=True, slots=True)
class FigureNode:
    """One op of a figure.  ``role`` is ``subject`` for the finding's own ops, ``context`` for neighbours."""

    name: str
    op: str
    role: Literal["subject", "context"]
    self_ns: int | None = None
    device: str | None = None
    spec: str | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """The ops around a finding, small enough to draw.

    ``edges`` are ``(source, destination, kind)``; ``stage`` names the graph; ``omitted`` counts the finding's ops that
    were left out.
    """

    stage: str
    nodes: tuple[FigureNode, ...]
    edges: tuple[tuple[str, str, str], ...]
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule found.

    ``nodes`` are names in the graph that ``stage`` says.  ``evidence`` maps plain words to numbers and names.
    ``removes`` are those of ``nodes`` that the fix takes away, ``figure_after`` the figure without them.
    ``severity``, ``shares_ops_with`` (``CODE#rank`` of overlapping findings), ``fingerprint`` and ``ordinal`` are set
    by the judge, not by the rule: findings about like ops of like scopes share a fingerprint, the same in every run,
    and ``ordinal`` numbers those of one fingerprint by the names of their ops.  A ``general`` finding says that
    something is slow and not what to change: it ranks below those that do.
    """

    code: str
    rule: str
    title: str
    nodes: tuple[str, ...]
    evidence: Mapping[str, Any]
    reason: str
    saving: Saving
    fix: Fix
    stage: str = "executed"
    severity: Severity = "info"
    proof: Proof = Proof("not-run", "no proof was requested")
    figure: Figure | None = None
    removes: tuple[str, ...] = ()
    figure_after: Figure | None = None
    shares_ops_with: tuple[str, ...] = ()
    fingerprint: str = ""
    ordinal: int = 1
    general: bool = False


@dataclass(frozen=True, slots=True)
class InputRewrite:
    """A change of an input pipeline that was tried on a copy of it, whether a rule advises it or not.

    Attributes
    ----------
    pipeline
        The id of the pipeline among ``Document.input``.
    change
        What is changed, as it is written in Python (``.map(decode, num_parallel_calls=tf.data.AUTOTUNE)``).
    edits
        The same as data.
    source
        The user's line to change; empty where nobody saw it, or where it concerns no line.
    before_per_s, after_per_s
        Elements of the last stage in a second, as written and changed, of a script its steps; ``None`` where nothing
        was measured.
    proof
        What came of it: its times are those of one element.
    alone
        Of a script, whose rates and proof are those of its steps: what came of its pipeline alone, which gives elements
        as fast as they come.  Of time only; its times are those of one element.
    """

    pipeline: str
    change: str
    edits: tuple[AnyEdit, ...]
    source: str = ""
    before_per_s: float | None = None
    after_per_s: float | None = None
    proof: Proof = Proof("not-run", "no proof was requested")
    alone: Proof | None = None


@dataclass(frozen=True, slots=True)
class RuleStatus:
    """What became of one rule: every rule is listed, always."""

    code: str
    rule: str
    status: Literal["found", "passed", "not-applicable", "error"]
    why: str
    summary: str = ""


# The stage of the error that says what of a measurement cannot be: nothing that rests on it is in the document.
CONTRADICTION: Final = "measure"
# The stage of the errors that say what could not be derived from the evidence: it is unknown in the document.
JUDGE: Final = "judge"


@dataclass(frozen=True, slots=True)
class Target:
    """What the user pointed at.

    ``path`` is as the user wrote it; ``digest`` identifies its content.  ``chosen`` says which of several signatures
    was taken and why, where nobody asked for one.
    """

    path: str
    kind: str
    signature: str | None = None
    digest: str | None = None
    chosen: str | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """How far the evidence can be trusted, judged before anything else.

    Attributes
    ----------
    join_rate
        Share of the measured op time whose event was joined to an executed op and on to a traced op.
    attributed_share
        Share of the step's wall time that the ledger gives to named ops or named overhead.
    op_share
        Share of the step's wall time during which a named op ran.
    coverage
        Share of the executed ops that a profiler can see (see ``facts.quality``) of which it saw at least one event.
    ops_seen, ops_replayed, ops_expected
        The counts behind it: seen by the profile, timed only by the replay, and visible to a profiler at all.
    stability
        ``(p90 - p10) / median`` of the unprofiled step.
    profiler_overhead
        Profiled median over unprofiled median, less 1; negative values are noise.
    """

    grade: Literal["good", "fair", "poor", "none"]
    join_rate: float | None = None
    attributed_share: float | None = None
    op_share: float | None = None
    coverage: float | None = None
    ops_seen: int | None = None
    ops_expected: int | None = None
    ops_replayed: int | None = None
    stability: float | None = None
    profiler_overhead: float | None = None
    steps: int | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


# What is said of a measurement when judging it failed.
UNKNOWN_QUALITY: Final = Quality("none", reasons=("how far this can be trusted could not be derived",))


@dataclass(frozen=True, slots=True)
class Document:
    """The whole analysis as data.

    ``joint_proof`` is that of all proven fixes applied at once, if any were tried; ``placement`` is what a device that
    the machine does not have would run, if that was asked for.  ``programs`` are what ran, the judged one first;
    ``dags`` are their graphs, those of the judged one first.  ``inputs`` is what the judged one was fed, where known.
    ``training``, ``period`` and ``timeline`` explain a step of a program that trains, or that somebody else calls.
    ``input`` are the pipelines that feed it, that of the judged program first; of a dataset as target, itself.
    ``replicas`` is what those of a distributed step do, and what they wait for.
    ``input_rewrites`` are changes of it that were tried.
    """

    target: Target
    environment: Mapping[str, Any]
    quality: Quality
    graphs: Mapping[str, GraphSize]
    graphlens_version: str
    schema_version: int = SCHEMA_VERSION
    step: StepTime | None = None
    ledger: tuple[LedgerRow, ...] = ()
    ops: Sequence[OpRow] = ()
    critical_path: CriticalPath | None = None
    copies: tuple[Copy, ...] = ()
    findings: tuple[Finding, ...] = ()
    rules: tuple[RuleStatus, ...] = ()
    errors: tuple[AnalysisError, ...] = ()
    joint_proof: Proof | None = None
    devices: tuple[DeviceRow, ...] = ()
    distribution: Distribution | None = None
    placement: Placement | None = None
    roofline: Roofline | None = None
    memory: Memory | None = None
    programs: tuple[ProgramRow, ...] = ()
    inputs: tuple[InputRow, ...] = ()
    dags: Sequence[Dag] = ()
    training: Training | None = None
    period: Period | None = None
    timeline: Timeline | None = None
    input: tuple[InputPipeline, ...] = ()
    replicas: Replicas | None = None
    input_rewrites: tuple[InputRewrite, ...] = ()


def severity_of(share: float | None) -> Severity:
    """Grade a finding by the share of the step that its fix saves (``None``: unknown, hence ``info``)."""
    if share is None:
        return "info"
    return next((severity for bound, severity in SEVERITY_SHARES if share >= bound), "info")
