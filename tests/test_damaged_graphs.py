"""Ops that lack inputs, outputs and attributes, as in damaged and pruned files, are judged like any others."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphlens.ir.optable import table
from graphlens.pipeline.judge import judge
from graphlens.testing.sketch import sketch

PACKAGE = Path(__file__).parents[1] / "graphlens"
# What facts and rules look for by its type: every word of theirs that is one.
SOURCES = [PACKAGE / "ir" / "ops.py", *(PACKAGE / "facts").rglob("*.py"), *(PACKAGE / "rules").rglob("*.py")]
TYPES = sorted({word for file in SOURCES for word in re.findall(r"\w+", file.read_text("utf-8"))} & set(table()))
FRAME = ["x = Placeholder() float32[8,4]", "y = NoOp()", "k = Const() int32[3] = 1,2,3", "axis = Const() int32[] = -1"]
INPUTS = {
    "nothing": "",
    "a tensor": "x",
    "a tensor, and waits for an op": "x, ^y",
    "a constant": "k",
    "a constant and a tensor": "k, x",
    "a tensor twice and a constant": "x, x, k",
}
OUTPUTS = ["", "float32[8,4]", "float32[4]", "float32[*]"]
ATTRIBUTES = ["", "{data_format: NCHW, padding: SAME, strides: [1,1], ksize: [1], axis: 7}"]


def wrong(lines: list[str]) -> list[Any]:
    document = judge(sketch("\n".join([*FRAME, *lines]))).document
    return [*document.errors, *(rule for rule in document.rules if rule.status == "error")]


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: f"gives {output or 'nothing'}")
@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
def test_no_rule_and_no_fact_fails_where_an_op_reads(inputs: str, output: str) -> None:
    attributes = ATTRIBUTES[len(inputs) % 2]
    alone = [f"a{number} = {kind}({inputs}) {output} {attributes}" for number, kind in enumerate(TYPES)]
    assert wrong(alone) == []


# What patterns are made of; they are met more often in a graph of these alone.
PARTS = """Add AddV2 Mul Sub RealDiv Exp Sum Max Mean Rsqrt Sqrt Square SquaredDifference Softmax MatMul Conv2D BiasAdd
    Pad FusedBatchNormV3 Relu Maximum Minimum Sigmoid Tanh Erf Softplus Select Cast Transpose Reshape Identity Const Neg
    Pow ReadVariableOp""".split()


def at_random(seed: int, size: int = 400) -> Iterator[str]:
    """Yield ops that read whatever was there before, as many as come out."""
    choose = random.Random(seed)
    known = ["x", "k", "axis"]
    for number in range(size):
        kind, output = choose.choice(PARTS), choose.choice(OUTPUTS[1:])
        read = [choose.choice(["axis", *known[-12:]]) for _ in range(choose.choice([0, 1, 1, 2, 2, 2, 3]))]
        yield f"a{number} = {kind}({', '.join(read)}) {output} {choose.choice(ATTRIBUTES)}"
        known.append(f"a{number}")


@pytest.mark.parametrize("seed", range(12))
def test_no_rule_and_no_fact_fails_in_a_graph_that_makes_no_sense(seed: int) -> None:
    assert wrong(list(at_random(seed))) == []
