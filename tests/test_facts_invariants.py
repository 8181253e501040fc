"""Which loops a rewrite can reach: those of the graph and of other loops' bodies, not those that a branch holds."""

from __future__ import annotations

import pytest

from graphlens.facts.core import Facts
from graphlens.ir.edits import HoistInvariant
from graphlens.rules import find, judge
from graphlens.testing import sketch

LOOP = """
function more:
    i    = _Arg() int32[]
    x    = _Arg() float32[8,64]
    w    = _Arg() float32[64,64]
    ten  = Const() int32[] = 10
    less = Less(i, ten) bool[]
    go   = _Retval(less)
function once:
    i    = _Arg() int32[]
    x    = _Arg() float32[8,64]
    w    = _Arg() float32[64,64]
    one  = Const() int32[] = 1
    next = AddV2(i, one) int32[]
    soft = Softmax(w) float32[64,64]
    y    = MatMul(x, soft) float32[8,64]
    r0   = _Retval(next)
    r1   = _Retval(y)
    r2   = _Retval(w)
"""
WITH_A_LOOP = """
    i    = _Arg() int32[]
    x    = _Arg() float32[8,64]
    w    = _Arg() float32[64,64]
    loop = While(i, x, w) int32[] float32[8,64] float32[64,64] {cond: more, body: once}
    r0   = _Retval(loop:0)
    r1   = _Retval(loop:1)
    r2   = _Retval(w)
"""
MAIN = """static
i    = Placeholder() int32[]
x    = Placeholder() float32[8,64]
w    = Placeholder() float32[64,64]
"""
SHAPES = "int32[] float32[8,64] float32[64,64]"
GRAPHS = {
    "in the graph": (f"{MAIN}loop = While(i, x, w) {SHAPES} {{cond: more, body: once}}\nout = _Retval(loop:1)", "loop"),
    "in the body of a loop": (
        f"{MAIN}outer = While(i, x, w) {SHAPES} {{cond: more, body: holds}}\nout = _Retval(outer:1)\n"
        f"function holds:{WITH_A_LOOP}",
        "outer/body/loop",
    ),
    "in a function that is called": (
        f"{MAIN}call = PartitionedCall(i, x, w) {SHAPES} {{call: holds}}\n"
        f"out = _Retval(call:1)\nfunction holds:{WITH_A_LOOP}",
        "call/loop",
    ),
    "in a branch": (
        f"{MAIN}go = Placeholder() bool[]\nbranch = If(go, i, x, w) {SHAPES} {{then: holds, else: holds}}\n"
        f"out = _Retval(branch:1)\nfunction holds:{WITH_A_LOOP}",
        None,
    ),
}


@pytest.mark.parametrize("where", GRAPHS)
def test_a_loop_has_an_edit_where_a_rewrite_can_reach_it(where: str) -> None:
    text, loop = GRAPHS[where]
    findings, status = judge(Facts(sketch(text + LOOP)), [find("GL211")])
    assert findings, status
    edits = [edit for finding in findings for edit in finding.fix.edits if isinstance(edit, HoistInvariant)]
    assert {edit.loop for edit in edits} == ({loop} if loop else set())
