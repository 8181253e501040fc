"""Ops that lack inputs, outputs and attributes, as in damaged and pruned files, are judged like any others."""

from __future__ import annotations

from typing import Any

import pytest

from graphlens.ir import ops
from graphlens.ir.optable import table
from graphlens.pipeline.judge import judge
from graphlens.testing.sketch import sketch

# What facts and rules look for by its type, and what they could meet around it.
SETS = [value for value in vars(ops).values() if isinstance(value, frozenset)]
TYPES = sorted({kind for types in SETS for kind in types} & set(table()))
INPUTS = {
    "nothing": "",
    "a tensor": "x",
    "a tensor, and waits for an op": "x, ^y",
    "a constant": "k",
    "a constant and a tensor": "k, x",
    "a tensor and a constant": "x, k",
    "a tensor twice and a constant": "x, x, k",
}
OUTPUTS = {
    "no output": "",
    "a shape": "float32[8,4]",
    "a vector": "float32[4]",
    "a shape that is not known": "float32[*]",
}


def wrong(text: str) -> list[Any]:
    document = judge(sketch(text)).document
    return [*document.errors, *(rule for rule in document.rules if rule.status == "error")]


@pytest.mark.parametrize("attributes", ["", "{data_format: NCHW, padding: SAME, strides: [1,1], ksize: [1], axis: 7}"])
@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
def test_no_rule_and_no_fact_fails_where_an_op_reads(inputs: str, output: str, attributes: str) -> None:
    frame = ["x = Placeholder() float32[8,4]", "y = NoOp()", "k = Const() int32[3] = 1,2,3"]
    alone = [f"a{number} = {kind}({inputs}) {output} {attributes}" for number, kind in enumerate(TYPES)]
    read = [
        f"b{number} = {reader}(a{number}, a{number}) {output}"
        for number, _ in enumerate(TYPES)
        for reader in (TYPES[number * 7 % len(TYPES)],)
    ]
    assert wrong("\n".join([*frame, *alone, *read])) == []
