"""What became of a model that was written with its fixes, in lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphlens.ir.analysis import Finding, Proof
from graphlens.pipeline import fixing
from graphlens.report.words import printable
from graphlens.units import UNKNOWN, format_bytes, format_ns


def in_words(fixed: fixing.Fixed) -> list[str]:
    """Return the outcome as lines for a person: what was applied, before and after, and how the outputs compare."""
    size = f"{format_bytes(fixed.bytes_before)} -> {format_bytes(fixed.bytes_after)}"
    relative = f"{fixed.difference.max_rel:.1e}" if fixed.difference.max_rel is not None else UNKNOWN
    signatures = "" if fixed.signatures == 1 else f", of {fixed.signatures} signatures"
    return [
        fixed.directory if fixed.is_written else f"{fixed.directory} (not written)",
        f"  applied    {_named(fixed.applied)}",
        *(f"  left out   {_named([one])}: proven alone, and not together with these" for one in fixed.left_out),
        *([f"  proven     {printable(fixed.proof.why)}"] if fixed.proof else []),
        "  read back from disk, and measured once more beside the original:",
        *_times(fixed.again),
        f"  outputs    differ by at most {relative} relative ({fixed.difference.tolerance:.0e} allowed){signatures}",
        f"  on disk    {size}",
        *(f"  note       {printable(note)}" for note in (*_doubts(fixed), *fixed.notes)),
        *(f"  set too    {line}" for line in fixed.settings),
    ]


def _named(findings: Sequence[Finding]) -> str:
    return ", ".join(f"{item.code} {item.rule}" for item in findings)


def _times(again: Proof) -> Iterator[str]:
    if again.speedup is not None:
        yield f"  wall time  {_in_words(again.before_ns, again.after_ns, again.speedup, again.ci95)}"
    if again.cpu_speedup is not None:
        yield f"  CPU time   {_in_words(again.cpu_before_ns, again.cpu_after_ns, again.cpu_speedup, again.cpu_ci95)}"


def _in_words(before_ns: int | None, after_ns: int | None, factor: float, ci95: tuple[float, float] | None) -> str:
    """Return medians and ratio; the ratio is the median of the pairs', which need not be that of the medians."""
    spread = f", 95 % in [{ci95[0]:.2f}, {ci95[1]:.2f}]" if ci95 else ""
    return f"{format_ns(before_ns)} -> {format_ns(after_ns)} a step; pair by pair {factor:.2f}x{spread}"


def _doubts(fixed: fixing.Fixed) -> Iterator[str]:
    """Say so where the second measurement is no confirmation of the first."""
    again = fixed.again
    if fixed.is_confirmed:
        return
    if again.ci95 is not None and again.ci95[1] < 1:
        yield "it was proven faster, and is slower now that it was measured once more: measure it where it is to run"
    else:
        yield f"what was measured now does not confirm the proof, which rests on the first: {again.why}"
