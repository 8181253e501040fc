"""Changes of an input pipeline that were tried, in words: elements a second as written and changed, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from graphlens.ir.analysis import Document, InputRewrite, Proof
from graphlens.ir.pipelines import DATASET
from graphlens.report.words import VERDICTS
from graphlens.units import counted, format_frequency

_UNKNOWN: Final = "–"


@dataclass(frozen=True, slots=True)
class RewriteView:
    """One change: ``before`` and ``after`` are elements a second, ``factor`` how many times as many.

    Where these are steps, ``alone`` says what the pipeline alone gives; empty where nobody asked.
    """

    change: str
    source: str
    before: str
    after: str
    factor: str
    verdict: str
    words: str
    why: str
    alone: str = ""


@dataclass(frozen=True, slots=True)
class RewritesView:
    """All of them: in a sentence, and as rows, those first that gave most; ``unit`` is what is counted in a second."""

    summary: str
    unit: str
    rows: tuple[RewriteView, ...]


def rewrites_view(document: Document) -> RewritesView | None:
    """Return what was tried, ``None`` where nothing was."""
    rewrites = document.input_rewrites
    if not rewrites:
        return None
    tried = sum(one.proof.verdict != "not-run" for one in rewrites)
    proven = sum(one.proof.verdict == "proven" for one in rewrites)
    ordered = sorted(rewrites, key=lambda one: (one.proof.verdict != "proven", -(one.proof.speedup or 0.0)))
    unit = "elements" if document.target.kind == DATASET else "steps"
    return RewritesView(f"{counted(tried, 'change')} tried on copies, {proven} proven", unit, tuple(map(_row, ordered)))


def _row(rewrite: InputRewrite) -> RewriteView:
    proof = rewrite.proof
    return RewriteView(
        change=rewrite.change,
        source=rewrite.source,
        before=_rate(rewrite.before_per_s),
        after=_rate(rewrite.after_per_s),
        factor=_UNKNOWN if proof.speedup is None else f"{proof.speedup:.2f}×",
        verdict=proof.verdict,
        words=VERDICTS[proof.verdict],
        why=proof.why,
        alone=_alone(rewrite.alone),
    )


def _alone(proof: Proof | None) -> str:
    """Return what a pipeline gives by itself.

    >>> _alone(Proof("proven", "", 2.0, before_ns=10_000_000, after_ns=5_000_000))
    '100 to 200 elements/s, 2.00×'
    """
    if proof is None:
        return ""
    if proof.before_ns is None or proof.after_ns is None or proof.speedup is None:
        return f"not measured: {proof.why}"
    rates = f"{_rate(1e9 / proof.before_ns)} to {_rate(1e9 / proof.after_ns)} elements/s, {proof.speedup:.2f}×"
    return rates if proof.verdict == "proven" else f"{rates} ({VERDICTS[proof.verdict].lower()}: {proof.why})"


def _rate(per_s: float | None) -> str:
    return _UNKNOWN if per_s is None else format_frequency(per_s)
