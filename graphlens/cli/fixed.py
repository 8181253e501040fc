"""What became of a model that was written with its fixes, in lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from graphlens.ir.analysis import Finding
from graphlens.pipeline import fixing
from graphlens.report.words import printable
from graphlens.units import UNKNOWN, format_bytes, format_ns


def in_words(fixed: fixing.Fixed) -> list[str]:
    """Return the outcome as lines for a person: what was applied, before and after, and how the outputs compare."""
    size = f"{format_bytes(fixed.bytes_before)} -> {format_bytes(fixed.bytes_after)}"
    relative = f"{fixed.difference.max_rel:.1e}" if fixed.difference.max_rel is not None else UNKNOWN
    signatures = "" if fixed.signatures == 1 else f", of {fixed.signatures} signatures"
    return [
        fixed.directory,
        f"  applied    {_named(fixed.applied)}",
        *(f"  left out   {_named([one])}: proven alone, and not together with these" for one in fixed.left_out),
        *([f"  proven     {printable(fixed.proof.why)}"] if fixed.proof else []),
        "  read back from disk, and measured once more beside the original:",
        f"  wall time  {_in_words(fixed.wall)}",
        f"  CPU time   {_in_words(fixed.cpu)}",
        f"  outputs    differ by at most {relative} relative ({fixed.difference.tolerance:.0e} allowed){signatures}",
        f"  on disk    {size}",
        *(f"  note       {printable(note)}" for note in (*_doubts(fixed), *fixed.notes)),
        *(f"  set too    {line}" for line in fixed.settings),
    ]


def _named(findings: Sequence[Finding]) -> str:
    return ", ".join(f"{item.code} {item.rule}" for item in findings)


def _in_words(ratio: fixing.Ratio) -> str:
    """Return medians and ratio; the ratio is the median of the pairs', which need not be that of the medians."""
    spread = f", 95 % in [{ratio.ci95.low:.2f}, {ratio.ci95.high:.2f}]" if ratio.ci95 else ""
    return (
        f"{format_ns(ratio.before_ns)} -> {format_ns(ratio.after_ns)} a step; pair by pair {ratio.factor:.2f}x{spread}"
    )


def _doubts(fixed: fixing.Fixed) -> list[str]:
    """Say so where the second measurement is no confirmation of the first."""
    wall = fixed.wall.ci95
    if wall is None or wall.low > 1:
        return []
    if wall.high < 1:
        return ["it was proven faster, and is slower now that it was measured once more: measure it where it is to run"]
    return [
        f"these {fixing.PAIRS} pairs alone show no gain of wall time (1 lies in the interval); "
        "the proof rests on the first"
    ]
