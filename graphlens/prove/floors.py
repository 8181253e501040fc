"""How far the outputs of the unchanged program are off when nothing but rounding changes: no fix has to do better.

What is noise around zero in the original, such as the gradient of a bias in front of a normalization, comes out
differently wherever the same numbers are summed in another order.  This is measured when an output first disagrees:
on the unchanged program, in a process of its own, with other threads and with variables that are off by their last bit
(a small step gives no work to a second thread).  Inputs stay as they are: programs round and compare those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from graphlens.children.messages import Comparison, Difference
from graphlens.prove.runner import Runner, TrialError

# Errors of summation grow with the logarithm of the number of terms when they are summed by halves, with its root when
# in a row: for a million terms another program, such as XLA's, may be off by an order of magnitude more than other
# threads make of the same program.
TIMES: Final = 10.0
# An output that is off by more than this part of its largest value is taken for noise: with ten times of it allowed,
# one that differs by a twentieth would still agree, where a fix is no longer rounding (``bench.MOST_OF_ROUNDING``).
NOISE: Final = 0.005
LIMIT_S: Final = 120.0


@dataclass
class Floors:
    """The floor of the tolerance of each output by its name; ``source`` says what was run to find them."""

    runner: Runner
    known: Mapping[str, float] | None = None
    source: str = ""
    doubt: str = field(default="", init=False)  # to be told beside a difference where nothing was found out

    def under(self, comparison: Comparison) -> Comparison:
        """Return a comparison with each tolerance no lower than its floor; what agrees anyhow needs none.

        Where all outputs are noise, and so no agreement would mean anything, they are ``unstable``.
        """
        if comparison.unstable or not any(_is_off(one) for one in comparison.differences):
            return comparison
        floors = self._measured()
        differences = tuple(self._with_floor(one, floors) for one in comparison.differences)
        telling = [one for one in differences if one.tolerance and (one.floor or 0.0) < NOISE]
        return replace(comparison, differences=differences, unstable=() if telling else differences[:1])

    def _measured(self) -> Mapping[str, float]:
        if self.known is None:
            try:
                found, self.source = self.runner.compare_unchanged(LIMIT_S)
                self.known = {one.output: one.max_rel for one in found.differences if one.max_rel}
            except TrialError as error:
                self.known = {}
                self.doubt = f"; by how much the unchanged program is off is not known: {error}"
        return self.known

    def _with_floor(self, one: Difference, floors: Mapping[str, float]) -> Difference:
        floor = floors.get(one.output, 0.0)
        if not one.tolerance or TIMES * floor <= one.tolerance:
            return one
        return replace(one, tolerance=TIMES * floor, floor=floor, floor_from=self.source)


def _is_off(one: Difference) -> bool:
    return not one.agrees and one.mismatch is None and one.tolerance > 0
