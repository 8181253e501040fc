"""Rules say of oneDNN's kernels what they say of TensorFlow's own: which ones run depends on the processor alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_rules_cases import EACH

from graphlens.facts.core import Facts
from graphlens.ir.evidence import Evidence
from graphlens.ir.graph import Function
from graphlens.ir.ops import runtime_type
from graphlens.rules import find, judge
from graphlens.testing import Case, sketch

# As TensorFlow 2.21 was seen to call them.
NATIVE = """AvgPool MaxPool Conv2D Conv3D DepthwiseConv2dNative FusedBatchNorm FusedBatchNormV3 FusedBatchNormGradV3
    Conv2DBackpropFilter Conv2DBackpropInput""".split()
FUSED = "FusedConv2D FusedMatMul FusedDepthwiseConv2dNative FusedBatchNormEx".split()
OTHERS = "BatchMatMulV2 ConjugateTranspose Einsum MatMul Softmax Transpose".split()
KERNELS = {
    **{name: f"_MklNative{name}" for name in NATIVE},
    **{f"_{name}": f"_MklNative{name}" for name in FUSED},
    **{name: f"_Mkl{name}" for name in OTHERS},
}


def with_onednn(evidence: Evidence) -> Evidence:
    """Let oneDNN have run what it has kernels for; the graph as written stays."""
    if evidence.executed is None or evidence.profile is None:
        return evidence
    functions = {name: of_onednn(function) for name, function in evidence.executed.functions.items()}
    by_name = {name: op.type for function in functions.values() for name, op in function.graph.items()}
    events = tuple(event._replace(op=by_name.get(event.node, event.op)) for event in evidence.profile.ops)
    return replace(
        evidence,
        executed=replace(evidence.executed, functions=functions),
        profile=replace(evidence.profile, ops=events),
    )


def of_onednn(function: Function) -> Function:
    on_host = (op for op in function.graph.ops() if "GPU" not in op.device)
    renamed = {op.name: replace(op, type=KERNELS.get(op.type, op.type)) for op in on_host}
    return replace(function, graph=function.graph.with_ops(renamed))


def said(evidence: Evidence, code: str) -> tuple[str, list[list[str]]]:
    findings, (status,) = judge(Facts(evidence), [find(code)])
    return status.status, [sorted(finding.nodes) for finding in findings]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_of_onednn_is_called_as_the_op_that_it_computes(kernel: str) -> None:
    assert runtime_type(KERNELS[kernel]) == kernel


# It says that this processor multiplies in half precision without oneDNN, whose kernels fuse what it misses.
WITHOUT_ONEDNN = "GL507"
SAME = [(code, case) for code, case in EACH if code != WITHOUT_ONEDNN]


@pytest.mark.parametrize(("code", "case"), SAME, ids=[f"{code}: {case.title}" for code, case in SAME])
def test_a_rule_says_the_same(code: str, case: Case) -> None:
    evidence = sketch(case.sketch)
    assert said(with_onednn(evidence), code) == said(evidence, code)


@pytest.mark.parametrize("case", [case for code, case in EACH if code == WITHOUT_ONEDNN], ids=lambda case: case.title)
def test_what_is_lost_without_onednn_is_not_lost_with_it(case: Case) -> None:
    assert said(with_onednn(sketch(case.sketch)), WITHOUT_ONEDNN)[1] == []


def test_cases_have_such_kernels() -> None:
    changed = [case for _, case in EACH if any(f"= {kernel}(" in case.sketch for kernel in KERNELS)]
    assert len(changed) > 90
