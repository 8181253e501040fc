"""What GL207 says about the amount of work, counted by hand."""

from __future__ import annotations

from graphlens.facts.core import Facts
from graphlens.rules import find
from graphlens.testing import sketch

PAIR = """
x    = Placeholder() float32[1,8,8,3]
perm = Const() int32[4] = 0,3,1,2
back = Const() int32[4] = 0,2,3,1
a    = Transpose(x, perm) float32[1,3,8,8] 30us
b    = Relu(a) float32[1,3,8,8] 10us
c    = Transpose(b, back) float32[1,8,8,3] 30us
out  = _Retval(c)
"""
ELEMENTS = 8 * 8 * 3


def transposed(text: str) -> tuple[int, int]:
    """The elements that are transposed before and after, of the one region that is found."""
    (finding,) = find("GL207")(Facts(sketch(text)))
    (found,) = finding.evidence["regions"]
    assert found["vanishing"] == ["a", "c"]
    return found["elements_transposed_before"], found["elements_transposed_after"]


def test_both_transposes_of_a_pair_move_every_element_and_none_is_left() -> None:
    assert transposed(PAIR) == (2 * ELEMENTS, 0)


def test_a_tensor_that_is_returned_in_the_other_order_is_transposed_for_that_alone() -> None:
    assert transposed(PAIR + "also = _Retval(b)\n") == (2 * ELEMENTS, ELEMENTS)
