"""Figures that rules draw themselves: what changes, before and after, and nothing else."""

from __future__ import annotations

from graphlens.facts.core import Facts
from graphlens.rules import find, judge
from graphlens.testing.sketch import sketch

# The second layer follows the first one at once: without an activation between them both hang together.
TWO_LAYERS = """
    x      = Placeholder() float32[1,8,8,3]
    w1     = ReadVariableOp(w1v) float32[3,3,3,8]
    scale1 = ReadVariableOp(s1) float32[8]
    shift1 = ReadVariableOp(b1) float32[8]
    conv1  = Conv2D(x, w1) float32[1,8,8,8] 80us {data_format: NHWC}
    mul1   = Mul(conv1, scale1) float32[1,8,8,8] 20us
    add1   = AddV2(mul1, shift1) float32[1,8,8,8] 20us
    w2     = ReadVariableOp(w2v) float32[3,3,8,8]
    scale2 = ReadVariableOp(s2) float32[8]
    shift2 = ReadVariableOp(b2) float32[8]
    conv2  = Conv2D(add1, w2) float32[1,8,8,8] 90us {data_format: NHWC}
    mul2   = Mul(conv2, scale2) float32[1,8,8,8] 30us
    add2   = AddV2(mul2, shift2) float32[1,8,8,8] 30us
    out    = Relu(add2) float32[1,8,8,8] 10us
"""


def test_a_folded_normalization_is_drawn_as_its_costliest_layer_before_and_after() -> None:
    (finding,), _ = judge(Facts(sketch(TWO_LAYERS)), [find("GL203")])
    before, after = finding.figure, finding.figure_after
    assert before is not None
    assert after is not None
    assert {node.name for node in before.nodes if node.role == "subject"} == {
        "conv2",
        "mul2",
        "add2",
        "scale2",
        "shift2",
    }
    assert before.omitted == len(finding.nodes) - 5
    assert [(node.name, node.op) for node in after.nodes if node.role == "subject"] == [
        ("conv2", "Conv2D + BiasAdd + Relu")
    ]
    assert "out" not in {node.name for node in after.nodes}  # the kernel takes the activation in
    assert all(node.self_ns is None for node in after.nodes)  # nothing was measured op by op after the fix
