"""Proofs in words: the verdict, each ratio with its interval beside the noise, and how the outputs compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from graphlens.command import without
from graphlens.ir.analysis import Document, Proof
from graphlens.report.evidence import format_number
from graphlens.report.ratio_plot import Ends, Scale, ratio_axis, ratio_bar, scale_of
from graphlens.report.words import VERDICTS
from graphlens.units import UNKNOWN, format_count, format_ns, format_share

_MEASURES, _WRITES = "graphlens analyze ", "graphlens fix "
# What changes what is told of a model, and nothing about the model that is written.
_JUDGED_ONLY = ("--assume-device", "--program")
_IF_ACCEPTABLE = "Apply, if that difference is acceptable"
# Where the written model goes in the command that is shown; any other new folder serves as well.
_NEW_FOLDER = "improved"


@dataclass(frozen=True, slots=True)
class RatioView:
    """One quantity before and after the fix; ``noise`` is the unchanged program against itself."""

    quantity: str
    before: str
    after: str
    ratio: str
    interval: str
    noise: str
    drawing: Markup


@dataclass(frozen=True, slots=True)
class ProofView:
    """The outcome of applying a fix.

    ``factor`` is the speed-up in wall time, empty where none was measured; ``axis`` belongs to the drawings of
    ``ratios``; ``facts`` are pairs of label and value; ``command`` measures again, ``apply`` writes the changed model,
    and ``apply_label`` says on what condition.
    """

    verdict: str
    words: str
    why: str
    factor: str
    ratios: tuple[RatioView, ...]
    axis: Markup
    facts: tuple[tuple[str, str], ...]
    command: str | None
    apply: str | None
    apply_label: str = "Apply"


class _Quantity(NamedTuple):
    name: str
    before_ns: int | None
    after_ns: int | None
    ratio: float
    interval: Ends | None
    noise: Ends | None


def proof_view(proof: Proof) -> ProofView:
    """Return a proof in words and formatted numbers."""
    quantities = list(_quantities(proof))
    scale = scale_of(number for one in quantities for number in (one.ratio, *(one.interval or ()), *(one.noise or ())))
    return ProofView(
        verdict=proof.verdict,
        words=VERDICTS[proof.verdict],
        why=proof.why,
        factor=_times(proof.speedup) if proof.speedup is not None else "",
        ratios=tuple(_ratio(one, scale) for one in quantities),
        axis=Markup(ratio_axis(scale)),
        facts=tuple((label, value) for label, value in _facts(proof) if value is not None),
        command=proof.command,
        apply=_apply_command(proof),
        apply_label="Apply" if proof.verdict == "proven" else _IF_ACCEPTABLE,
    )


def total_view(document: Document) -> ProofView | None:
    """Return the proof of all proven fixes at once, where one gave numbers: that of the fix itself where it is one."""
    proof = document.joint_proof
    return proof_view(proof) if proof is not None and proof.speedup is not None else None


def joint_view(document: Document) -> ProofView | None:
    """Return the proof of several fixes at once, if one was tried."""
    proof = document.joint_proof
    return total_view(document) if proof is not None and len(proof.parts) > 1 else None


def _apply_command(proof: Proof) -> str | None:
    """Return the line that writes the model with this fix: a proven one, or one that the user accepts as it is."""
    if proof.command is None or not proof.command.startswith(_MEASURES):
        return None
    asked = without(proof.command, _JUDGED_ONLY).removeprefix(_MEASURES)
    if proof.verdict == "changes-numbers" and proof.max_rel_diff is not None:
        return f"{_WRITES}{without(asked, ['--rtol'])} --rtol {_roundly(proof.max_rel_diff)} -o {_NEW_FOLDER}"
    return f"{_WRITES}{asked} -o {_NEW_FOLDER}" if proof.verdict == "proven" else None


def _roundly(difference: float) -> str:
    """Return a tolerance of one digit that allows a difference, and a little more in another run.

    >>> _roundly(9.1e-4), _roundly(7e-5)
    ('0.001', '0.0001')
    """
    return f"{float(f'{1.5 * difference:.0e}'):g}"


# -- ratios --------------------------------------------------------------------------------------------------


def _quantities(proof: Proof) -> Iterator[_Quantity]:
    if proof.speedup is not None:
        yield _Quantity("Wall time", proof.before_ns, proof.after_ns, proof.speedup, proof.ci95, proof.aa_ci95)
    if proof.cpu_speedup is not None:
        yield _Quantity(
            "CPU time",
            proof.cpu_before_ns,
            proof.cpu_after_ns,
            proof.cpu_speedup,
            proof.cpu_ci95,
            proof.aa_cpu_ci95,
        )


def _ratio(one: _Quantity, scale: Scale) -> RatioView:
    return RatioView(
        quantity=one.name,
        before=format_ns(one.before_ns),
        after=format_ns(one.after_ns),
        ratio=_times(one.ratio),
        interval=_interval(one.interval),
        noise=_interval(one.noise),
        drawing=Markup(ratio_bar(scale, one.ratio, one.interval, one.noise)),
    )


def _times(factor: float) -> str:
    return f"{factor:.2f}×"


def _interval(ends: Ends | None) -> str:
    return UNKNOWN if ends is None else f"{_times(ends[0])} – {_times(ends[1])}"


# -- everything else ------------------------------------------------------------------------------------------


def _facts(proof: Proof) -> Iterator[tuple[str, str | None]]:
    yield "largest difference of outputs", _difference(proof)
    yield "allowed difference", _tolerance(proof)
    yield "share of the step saved", _shares(proof)
    yield "pairs timed", _pairs(proof)
    yield "first call after the fix", None if proof.first_call_ns is None else format_ns(proof.first_call_ns)
    yield "compiled by XLA", _compiled(proof)
    yield "compiling, once per shape", None if proof.compile_ns is None else format_ns(proof.compile_ns)


def _compiled(proof: Proof) -> str | None:
    """Say how many ops XLA compiled, and to how many fusions."""
    if proof.compiled_ops is None or proof.program_ops is None:
        return None
    fusions = f", to {format_count(proof.fusions)} fusions" if proof.fusions is not None else ""
    return f"{format_count(proof.compiled_ops)} of {format_count(proof.program_ops)} ops{fusions}"


def _difference(proof: Proof) -> str | None:
    """Say by how much the outputs differ at most, and which."""
    if proof.max_rel_diff is None and proof.max_abs_diff is None:
        return None
    where = f" in {proof.output}" if proof.output else ""
    if not proof.max_rel_diff and not proof.max_abs_diff:
        return f"none{where}"
    relative = "" if proof.max_rel_diff is None else f"{format_number(proof.max_rel_diff)} relative"
    absolute = "" if proof.max_abs_diff is None else f"{format_number(proof.max_abs_diff)} absolute"
    return ", ".join(filter(None, (relative, absolute))) + where


def _tolerance(proof: Proof) -> str | None:
    if proof.tolerance is None:
        return None
    of_type = f" ({proof.output_dtype})" if proof.output_dtype else ""
    allowed = f"{format_number(proof.tolerance)} relative{of_type}" if proof.tolerance else f"none{of_type}"
    if proof.floor_rel_diff is None:
        return allowed
    return f"{allowed}; unchanged and with {proof.floor_from} it differs by {format_number(proof.floor_rel_diff)}"


def _shares(proof: Proof) -> str | None:
    """Compare what was modelled with what was measured: how far the models are to be trusted here."""
    if proof.expected_share is None:
        return None
    modelled = f"{format_share(proof.expected_share)} modelled before"
    if proof.speedup is None or proof.speedup <= 0:
        return modelled
    return f"{format_share(1 - 1 / proof.speedup)} measured, {modelled}"


def _pairs(proof: Proof) -> str | None:
    if proof.pairs is None:
        return None
    within = "" if proof.spent_s is None else f"; all of the proof took {proof.spent_s:.0f} s"
    return f"{f'{proof.pairs:,}'}, before and after by turns{within}"
