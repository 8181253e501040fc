"""The rules by which measured intervals become a verdict.

Wall time is what a user feels, and on a shared machine its intervals lie; CPU time hardly does, and says nothing of
waiting.  So a claim needs both:

``proven``
    The whole interval of both ratios lies above the least gain worth having, and above whatever the unchanged program
    does against itself (``Quantity.noise``, in either direction: noise has no sign).
``refuted``
    The whole interval of one of them lies below that least gain, and the other one gives no reason to doubt it.
``inconclusive``
    Anything else; the reason names the interval and what is in its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from graphlens.prove.statistics import FEWEST_PAIRS, Interval

Judged = Literal["proven", "refuted", "inconclusive"]

# Two builds of the same program may differ by a percent for the place of their buffers alone: no less is claimed.
LEAST_GAIN: Final = 1.02

_MORE_TIME: Final = "the time budget; raise --time-budget"
_ADVICE: Final = "a quiet machine or more time would tell"

WALL: Final = "wall time"
CPU: Final = "CPU time"


@dataclass(frozen=True, slots=True)
class Quantity:
    """One measured ratio, before over after, beside what the unchanged program does against itself."""

    name: str
    ratio: Interval | None
    noise: Interval | None

    @property
    def gains(self) -> bool:
        """Whether the gain is beyond doubt: worth having, and clear of the noise."""
        if self.ratio is None or self.noise is None:
            return False
        return self.ratio.low > max(LEAST_GAIN, self.noise.reach)

    @property
    def gains_nothing(self) -> bool:
        """Whether a gain worth having is ruled out."""
        return self.ratio is not None and self.ratio.high < LEAST_GAIN

    @property
    def slows(self) -> bool:
        """Whether it takes longer than before, whatever the noise."""
        return self.ratio is not None and self.ratio.high < 1


def judge(quantities: Sequence[Quantity], pairs: int) -> tuple[Judged, str]:
    """Return the verdict on a fix whose outputs agree, and why.

    Parameters
    ----------
    quantities
        Wall time, then CPU time where that tells anything.
    pairs
        How many pairs were timed.
    """
    if any(quantity.ratio is None for quantity in quantities):
        return "inconclusive", f"only {pairs} of the least {FEWEST_PAIRS} pairs fitted into {_MORE_TIME}"
    if _is_refuted(quantities):
        return "refuted", f"{_nothing_gained(quantities)}: {_numbers(quantities)}"
    if any(quantity.noise is None for quantity in quantities):
        return "inconclusive", f"{_numbers(quantities)}, but no A against A to compare it with fitted into {_MORE_TIME}"
    if all(quantity.gains for quantity in quantities):
        return "proven", f"measured faster: {_numbers(quantities)}, clear of the noise of A against A"
    return "inconclusive", _doubt(quantities)


def _is_refuted(quantities: Sequence[Quantity]) -> bool:
    wall, *rest = quantities
    if wall.gains_nothing:
        return all(other.ratio is not None and other.ratio.point < LEAST_GAIN for other in rest)
    return any(other.gains_nothing for other in rest) and not wall.gains


def _nothing_gained(quantities: Sequence[Quantity]) -> str:
    wall, *rest = quantities
    if wall.slows:
        return "applied, and it is slower here"
    if any(quantity.slows for quantity in rest):
        return "applied, and it takes more CPU time here"
    return f"applied, and it gives nothing here ({100 * (LEAST_GAIN - 1):.0f} % would be worth having)"


def _doubt(quantities: Sequence[Quantity]) -> str:
    faster = [quantity.name for quantity in quantities if quantity.gains]
    slower = [quantity.name for quantity in quantities if quantity.gains_nothing]
    if faster and slower:
        return f"{faster[0]} gains and {slower[0]} does not: {_numbers(quantities)}"
    doubtful = next(quantity for quantity in quantities if not quantity.gains)
    assert doubtful.ratio is not None
    assert doubtful.noise is not None
    if doubtful.ratio.low > LEAST_GAIN:
        reach = f"A against A reaches {doubtful.noise.low:.2f} to {doubtful.noise.high:.2f}"
        return f"{doubtful.name} is not clear of the machine's noise: {_numbers([doubtful])}, and {reach}; {_ADVICE}"
    return f"neither a gain nor its absence is shown: {_numbers(quantities)}; {_ADVICE}"


def _numbers(quantities: Sequence[Quantity]) -> str:
    return ", ".join(
        f"{one.name} {one.ratio.point:.2f}x [{one.ratio.low:.2f}, {one.ratio.high:.2f}]"
        for one in quantities
        if one.ratio is not None
    )
